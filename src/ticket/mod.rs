//! A ticket's rules, all of them pure: no clock, no network, no cluster.
//!
//! - [`state`]: the phases and what moves a ticket between them
//! - [`route`]: which ImportedClient a webhook's ticket belongs to, under which name
//! - [`reply`]: does a reply approve, deny, or neither
//! - [`sensitive`]: does a ticket ask for what an attacker would ask for
//! - [`verification`]: what technicians say about a requester's verification
//! - [`approval`]: whose reply decides about a request, and what the request is bound to
//! - [`workflow`]: which workflows are for a ticket
//! - [`plan`]: what an agent hands in; [`note`]: what the notes on a ticket look like, and the markers in them

pub mod actor;
pub mod approval;
pub mod note;
pub mod plan;
pub mod reply;
pub mod route;
pub mod sensitive;
pub mod state;
pub mod verification;
pub mod workflow;
