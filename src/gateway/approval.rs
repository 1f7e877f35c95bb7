//! The request for approval: which steps, who decides, how long, and its text.

use super::Bound;
use crate::api::policy::Approvers;
use crate::api::ticket::{Approval, ApprovalState, Step, StepState, Ticket};
use crate::halopsa::{self, types};
use crate::ticket::approval::{UNASSIGNED, hash};
use crate::ticket::note::{self, Ask, Listed};
use crate::ticket::text::one_line;
use crate::writes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// A request as it is put on the ticket.
pub struct Request {
    pub approval: Approval,
    listed: Vec<Listed>,
    assigned: String,
    also: String,
    until: String,
    replaces: bool,
}

impl Request {
    pub fn html(&self, marker: &str) -> String {
        let ask = Ask {
            assigned: &self.assigned,
            also: &self.also,
            until: &self.until,
            replaces: self.replaces,
        };
        note::request_html(&self.listed, &ask, marker)
    }
}

/// The request for what waits on a Ticket now.
pub async fn prepare(
    bound: &Bound,
    halo: &halopsa::Client,
    ticket: &Ticket,
    replaces: bool,
) -> Result<Request, halopsa::Error> {
    let status = ticket.status.clone().unwrap_or_default();
    let waits = |s: &&Step| {
        s.turn == status.turn && matches!(s.state, StepState::Proposed | StepState::Waiting)
    };
    let steps: Vec<&Step> = status.steps.iter().filter(waits).collect();
    let halo_ticket = halo.ticket(ticket.spec.ticket_id).await?;
    let agents = agents(halo).await;
    let uid = bound.connection.metadata.uid.as_deref().unwrap_or_default();
    let spec = &bound.connection.spec.approvals;
    let now = Timestamp::now();
    let after = |time: Duration| {
        Time(
            now.checked_add(SignedDuration::try_from(time).unwrap_or_default())
                .unwrap_or(now),
        )
    };
    let (valid, remind) = (
        Duration::from(spec.valid_for),
        Duration::from(spec.remind_after),
    );
    let expires_at = after(valid);
    let number = status.approval.as_ref().map_or(1, |a| {
        if a.state == ApprovalState::Preparing {
            a.number
        } else {
            a.number + 1
        }
    });
    let approval = Approval {
        number,
        hash: hash(
            uid,
            ticket.spec.ticket_id,
            status.turn,
            steps.iter().copied(),
        ),
        steps: steps.iter().map(|s| s.number).collect(),
        state: ApprovalState::Preparing,
        remind_at: (!remind.is_zero() && remind < valid).then(|| after(remind)),
        action_id: None,
        assigned_agent: halo_ticket.agent_id,
        decided_by: None,
        decided_action: None,
        decided_at: None,
        expires_at,
    };
    Ok(Request {
        assigned: assigned_name(&halo_ticket, &agents),
        also: also(&steps, &agents),
        until: for_people(approval.expires_at.0),
        listed: steps
            .iter()
            .map(|s| writes::listed(ticket.spec.ticket_id, s))
            .collect(),
        replaces,
        approval,
    })
}

/// Technicians, for their names. Without the permission to see them there are numbers.
pub async fn agents(halo: &halopsa::Client) -> Vec<types::Agent> {
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

/// The agents that may approve every one of the steps besides the assigned one.
pub fn further_approvers<'a>(
    steps: impl IntoIterator<Item = &'a Step>,
    agents: &[types::Agent],
) -> Vec<i64> {
    let mut all: Option<Vec<i64>> = None;
    for step in steps {
        let of_step = step
            .approvers
            .as_ref()
            .map(|a| members(a, agents))
            .unwrap_or_default();
        all = Some(match all {
            None => of_step,
            Some(all) => all.into_iter().filter(|id| of_step.contains(id)).collect(),
        });
    }
    all.unwrap_or_default()
}

fn members(approvers: &Approvers, agents: &[types::Agent]) -> Vec<i64> {
    let mut ids = approvers.agent_ids.clone().unwrap_or_default();
    if let Some(team) = &approvers.team {
        let is_in = |a: &&types::Agent| {
            a.team.eq_ignore_ascii_case(team)
                || a.teams
                    .iter()
                    .flatten()
                    .any(|t| t.name.eq_ignore_ascii_case(team))
        };
        ids.extend(
            agents
                .iter()
                .filter(|a| !a.isdisabled)
                .filter(is_in)
                .map(|a| a.id),
        );
    }
    ids.retain(|id| *id > UNASSIGNED);
    ids
}

fn also(steps: &[&Step], agents: &[types::Agent]) -> String {
    let names: Vec<String> = further_approvers(steps.iter().copied(), agents)
        .into_iter()
        .take(5)
        .map(|id| agent_name(id, agents))
        .collect();
    names.join(", ")
}

pub fn for_people(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_approver_is_one_for_every_step() {
        let agents: Vec<types::Agent> = [(3, "1st Line"), (4, "2nd Line"), (5, "2nd Line")]
            .map(|(id, team)| types::Agent {
                id,
                name: format!("Agent {id}"),
                team: team.into(),
                ..Default::default()
            })
            .into();
        let step = |approvers: Option<Approvers>| Step {
            number: 1,
            turn: 0,
            tool: "t".into(),
            arguments: "{}".into(),
            hash: String::new(),
            pin: String::new(),
            why: None,
            rule: String::new(),
            state: StepState::Waiting,
            marker: String::new(),
            recorded_at: Time(Timestamp::UNIX_EPOCH),
            result: None,
            approvers,
        };
        let team = step(Some(Approvers {
            team: Some("2nd line".into()),
            agent_ids: None,
        }));
        let named = step(Some(Approvers {
            team: None,
            agent_ids: Some(vec![5, 9]),
        }));
        assert_eq!(further_approvers([&team], &agents), [4, 5]);
        assert_eq!(further_approvers([&team, &named], &agents), [5]);
        assert_eq!(
            further_approvers([&team, &step(None)], &agents),
            [] as [i64; 0]
        );
    }
}
