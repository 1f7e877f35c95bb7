//! Tool calls that are not in their Ticket's journal yet. They are stored with its next write.

use crate::api::ticket::{Ticket, ToolCall};
use crate::gateway::Gateway;
use crate::k8s::cache::Remembered;
use crate::k8s::key::Key;
use crate::ticket::actor::Actor;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

/// Calls kept per Ticket until its next write.
const MAX_PENDING: usize = 50;

/// Calls by Ticket, oldest first.
#[derive(Debug, Default)]
pub struct PendingJournal(Remembered<Key, Vec<Called>>);

#[derive(Debug)]
struct Called {
    /// The agent's Pod.
    by: String,
    call: ToolCall,
    at: Timestamp,
}

impl PendingJournal {
    pub fn add(&self, namespace: &str, ticket: &str, by: &str, call: ToolCall) {
        let mut map = self.0.lock();
        let pending = map.entry(Key::new(namespace, ticket)).or_default();
        if pending.len() < MAX_PENDING {
            pending.push(Called {
                by: by.into(),
                call,
                at: Timestamp::now(),
            });
        }
    }
}

impl Gateway {
    /// A Ticket with the calls that are not in its journal yet, to be stored with its next write.
    pub fn with_journal(&self, namespace: &str, mut ticket: Ticket) -> Ticket {
        let key = Key::new(namespace, ticket.name_any());
        for called in self.journal.0.forget(&key).unwrap_or_default() {
            ticket.status.get_or_insert_default().record_call(
                &called.call,
                Actor::Agent(&called.by),
                called.at,
            );
        }
        ticket
    }
}
