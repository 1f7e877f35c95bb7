//! Technicians, whom HaloPSA calls agents: their names, and the one that means nobody.

use super::{Client, types};
use crate::ids::TechnicianId;
use crate::text::one_line;

/// HaloPSA's agent "Unassigned": nobody.
pub const UNASSIGNED: TechnicianId = TechnicianId(1);

/// Technicians, for their names. Empty without permission to see them; ids are shown then.
pub async fn agents(halo: &Client) -> Vec<types::Agent> {
    halo.agents().await.unwrap_or_default()
}

/// Name of the assigned technician; empty if nobody is assigned.
pub fn assigned_name(ticket: &types::Ticket, agents: &[types::Agent]) -> String {
    match ticket.agent_id.filter(|id| *id > UNASSIGNED) {
        None => String::new(),
        Some(id) => agent_name(id, agents),
    }
}

pub fn agent_name(id: TechnicianId, agents: &[types::Agent]) -> String {
    agents
        .iter()
        .find(|a| a.id == id && !a.name.is_empty())
        .map_or_else(|| format!("HaloPSA agent {id}"), |a| one_line(&a.name, 100))
}
