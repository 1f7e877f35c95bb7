//! How the processes are put together.
//!
//! - [`args`]: what the command line and the environment say
//! - [`controller`]: leader election, then every reconciler
//! - [`receiver`]: watches and listeners of receiver and gateway

pub mod args;
mod controller;
mod receiver;

pub use args::{Common, ControllerArgs, ReceiverArgs};
pub use controller::controller;
pub use receiver::receiver;

type Outcome = Result<(), Box<dyn std::error::Error>>;
