//! A ticket's rules, all of them pure: no clock, no network, no cluster.
//!
//! - [`state`]: the phases and what moves a ticket between them; [`actor`]: who does
//! - [`ownership`]: is the ticket still this client's to work on
//! - [`route`]: which ImportedClient a webhook's ticket belongs to, under which name
//! - [`reply`]: does a reply approve, deny, or neither
//! - [`sensitive`]: does a ticket ask for what an attacker would ask for
//! - [`verification`]: how a requester's verification goes, and what technicians say about it
//! - [`approval`]: whose reply decides about a request, and what the request is bound to
//! - [`workflow`]: which workflows are for a ticket
//! - [`plan`]: what an agent hands in
//! - [`note`]: the text of the notes on a ticket; [`marker`]: how each is found again

pub mod actor;
pub mod approval;
pub mod marker;
pub mod note;
pub mod ownership;
pub mod plan;
pub mod reply;
pub mod route;
pub mod sensitive;
pub mod state;
pub mod verification;
pub mod workflow;
