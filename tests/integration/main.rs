//! Reconcilers, receiver, gateway and agent against a real apiserver and halosim,
//! in one process, each test in a namespace of its own. `make integration` runs
//! them; without a cluster they fail, they are not skipped.

#![allow(clippy::unwrap_used)]

mod connection;
mod gateway;
mod approvals;
mod harness;
mod schema;
mod tickets;
mod webhooks;
