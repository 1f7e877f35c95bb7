//! The facts about a ticket that the rules for a tool ask for.

use super::{AgentScope, Gateway, catalog};
use crate::api::ticket::TicketStatus;
use crate::halopsa::{self, types};
use crate::policy::facts::{TicketFacts, email};
use crate::policy::sensitivity::{kinds, of_ticket};
use crate::ticket::state;
use k8s_openapi::jiff::Timestamp;

/// What the rules for this tool ask about the ticket. What cannot be looked up is left out: a rule
/// that asks for it counts against the call.
pub async fn gather(
    gateway: &Gateway,
    scope: &AgentScope,
    halo: &halopsa::Client,
    status: &TicketStatus,
    ticket: &types::Ticket,
    tool: &str,
) -> TicketFacts {
    let wanted = catalog::wanted(gateway, scope, tool);
    let mut facts = TicketFacts::from(ticket);
    let verified = state::is_verified(status, ticket.user_id, Timestamp::now());
    facts.requester.verified = Some(verified);
    if wanted.sensitivity {
        facts.sensitivity = Some(sensitivity(scope, status, ticket));
    }
    if wanted.requester
        && let Some(id) = ticket.user_id.filter(|id| *id > 0)
        && let Ok(user) = halo.user(id).await
    {
        facts.requester.email = email(&user, Some(scope.halo_client_id));
    }
    facts
}

/// The kinds of reasons of the ticket's text, and of those the requester was asked for.
fn sensitivity(scope: &AgentScope, status: &TicketStatus, ticket: &types::Ticket) -> Vec<String> {
    let found = of_ticket(ticket, &[], &scope.connection.spec.sensitivity);
    let mut all: Vec<String> = found.into_iter().map(|reason| reason.kind).collect();
    let recorded = status.verification.iter().flat_map(|v| kinds(&v.reasons));
    all.extend(recorded.map(str::to_string));
    all.sort();
    all.dedup();
    all
}
