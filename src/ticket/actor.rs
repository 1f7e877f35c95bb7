//! Who changes a Ticket.

use serde::{Serialize, Serializer};
use std::fmt;

/// Shown in the journal and the audit stream; decides the field manager of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor<'a> {
    Controller,
    Gateway,
    Receiver,
    /// An agent, by its Pod's name.
    Agent(&'a str),
}

impl<'a> Actor<'a> {
    pub fn as_str(self) -> &'a str {
        match self {
            Actor::Controller => "controller",
            Actor::Gateway => "gateway",
            Actor::Receiver => "receiver",
            Actor::Agent(pod) => pod,
        }
    }
}

impl fmt::Display for Actor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Actor<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
