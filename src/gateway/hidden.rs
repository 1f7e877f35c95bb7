//! Tickets that no agent may read: their text may be an impostor's.

use super::{AgentScope, Gateway};
use crate::api::ticket::Ticket;
use crate::ticket::state;
use kube::ResourceExt;
use std::collections::HashSet;

/// HaloPSA's ids of the connection's hidden tickets.
pub fn tickets(gateway: &Gateway, scope: &AgentScope) -> HashSet<i64> {
    let namespace = scope.connection.namespace();
    let connection = scope.connection.name_any();
    let is_hidden = |t: &Ticket| {
        t.namespace() == namespace
            && t.spec.connection_ref.name == connection
            && t.status.as_ref().is_some_and(state::is_hidden)
    };
    let hidden = gateway.stores.tickets.state_filter(is_hidden);
    hidden.iter().map(|t| t.spec.ticket_id).collect()
}
