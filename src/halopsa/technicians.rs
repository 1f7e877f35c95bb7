//! Technicians, by HaloPSA called agents: their names, and the one that is nobody.

use super::{Client, types};
use crate::text::one_line;

/// HaloPSA's agent "Unassigned": nobody.
pub const UNASSIGNED: i64 = 1;

/// Technicians, for their names. Without the permission to see them there are numbers.
pub async fn agents(halo: &Client) -> Vec<types::Agent> {
    halo.agents().await.unwrap_or_default()
}

/// The assigned agent's name; empty: nobody.
pub fn assigned_name(ticket: &types::Ticket, agents: &[types::Agent]) -> String {
    match ticket.agent_id.filter(|id| *id > UNASSIGNED) {
        None => String::new(),
        Some(id) => agent_name(id, agents),
    }
}

pub fn agent_name(id: i64, agents: &[types::Agent]) -> String {
    agents
        .iter()
        .find(|a| a.id == id && !a.name.is_empty())
        .map_or_else(|| format!("HaloPSA agent {id}"), |a| one_line(&a.name, 100))
}
