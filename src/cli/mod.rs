//! What `kubectl halopsa` does, on the user's machine with the user's rights.
//! Nothing here prints: `bin/kubectl-halopsa.rs` does.
//!
//! - [`activity`]: what agents did
//! - [`classify`]: how replies and tickets are classified
//! - [`clients`]: which clients can be imported, and which are
//! - [`policy`]: what a call's decision is, and by which rule
//! - [`doctor`]: reads what is needed for a diagnosis; [`findings`]: makes it
//! - [`cluster`], [`tunnel`]: the way to the cluster and to HaloPSA; [`table`]; [`error`]
//! - [`terminal`]: others' text as it is printed

pub mod activity;
pub mod classify;
pub mod clients;
pub mod cluster;
pub mod doctor;
pub mod error;
pub mod findings;
pub mod policy;
pub mod table;
pub mod terminal;
pub mod tunnel;

pub use cluster::Cluster;
pub use error::Error;
