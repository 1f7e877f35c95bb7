//! How the processes are put together.
//!
//! - [`args`]: what the command line and the environment say
//! - [`controller`]: leader election, then every reconciler
//! - [`gateway`]: the agents' listener, and the runner of approved steps
//! - [`receiver`]: the public listener
//! - [`certificate`]: a listener's certificate, renewed while it serves
//! - [`lease`]: the Lease that decides who leads

pub mod args;
mod certificate;
mod controller;
mod gateway;
mod lease;
mod receiver;

pub use args::{Common, ControllerArgs, GatewayArgs, HaloArgs, ReceiverArgs};
pub use controller::controller;
pub use gateway::gateway;
pub use receiver::receiver;

type Outcome = Result<(), Box<dyn std::error::Error>>;
