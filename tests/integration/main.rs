//! Reconcilers, receiver, gateway and agent against a real apiserver and halosim,
//! in one process, each test in its own namespace. `make integration` runs
//! them; without a cluster they fail rather than being skipped.

#![allow(clippy::unwrap_used)]

mod admission;
mod agents;
mod approval_timing;
mod approvals;
mod attacks;
mod bounds;
mod browser;
mod canaries;
mod canonical;
mod connection;
mod crashes;
mod extreme;
mod fair;
mod fake;
mod gateway;
mod harness;
mod listener;
mod markers;
mod model;
mod namespaces;
mod policy_runtime;
mod schema;
mod tickets;
mod tool_servers;
mod tool_servers_guard;
mod verification;
mod walls;
mod webhooks;
mod worst_days;
