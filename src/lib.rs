//! An operator that turns HaloPSA tickets into supervised agent work.
//!
//! Map of the crate; arrows point one way:
//!
//! - [`api`]: the kinds, [`halopsa`]: HaloPSA's REST API, [`ticket`]: a ticket's
//!   rules, [`policy`]: may this call run? They do no Kubernetes I/O.
//! - [`controller`], [`receiver`], [`gateway`] use them; what they share stands in
//!   [`k8s`], [`tenant`], [`outbox`], [`writes`], [`verify`] and [`tool_server`].
//! - [`agent`] sees only the gateway's wire types.

pub mod agent;
pub mod api;
pub mod audit;
pub mod blocking;
pub mod cli;
pub mod controller;
pub mod error;
pub mod failpoint;
pub mod fair;
pub mod gateway;
pub mod halopsa;
pub mod halopsa_pool;
pub mod ids;
pub mod k8s;
pub mod metrics;
pub mod net;
pub mod outbox;
pub mod policy;
pub mod receiver;
pub mod run;
pub mod server;
pub mod telemetry;
pub mod text;
pub mod ticket;
pub mod tools;
pub mod verify;
