//! The facts about a ticket that a policy can use.

use crate::halopsa::types;
use crate::text::one_line;

/// What an expression sees of a ticket. HaloPSA's words, no ticket text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TicketFacts {
    pub id: i64,
    pub client_id: i64,
    pub priority: String,
    pub status: String,
    pub kind: String,
    pub category: String,
}

impl From<&types::Ticket> for TicketFacts {
    fn from(ticket: &types::Ticket) -> Self {
        Self {
            id: ticket.id,
            client_id: ticket.client_id.unwrap_or_default(),
            priority: one_line(&ticket.priority_name, 100),
            status: one_line(&ticket.status_name, 100),
            kind: one_line(&ticket.tickettype_name, 100),
            category: one_line(&ticket.category_1, 200),
        }
    }
}
