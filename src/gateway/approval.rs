//! The request for approval: which steps, who decides, how long, and its text.

use super::AgentScope;
use crate::api::ticket::{Approval, ApprovalState, Step, StepState, Ticket};
use crate::halopsa::technicians::{agent_name, agents, assigned_name};
use crate::halopsa::{self, types};
use crate::policy::approvers::further_approvers;
use crate::text::utc;
use crate::ticket::approval::hash;
use crate::ticket::note::{self, Ask, Listed};
use crate::tools::write;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// Names of further approvers shown in a request.
const MAX_NAMES: usize = 5;

/// A request as it is posted on the ticket.
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

/// The request for the steps that wait on a Ticket now.
pub async fn prepare(
    scope: &AgentScope,
    halo: &halopsa::Client,
    ticket: &Ticket,
    replaces: bool,
) -> Result<Request, halopsa::Error> {
    let status = ticket.status.clone().unwrap_or_default();
    let waits = |s: &&Step| {
        s.run == status.run && matches!(s.state, StepState::Proposed | StepState::Waiting)
    };
    let steps: Vec<&Step> = status.steps.iter().filter(waits).collect();
    let halo_ticket = halo.ticket(ticket.spec.ticket_id).await?;
    let technicians = agents(halo).await;
    let spec = &scope.connection.spec.approvals;
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
            scope.connection_uid(),
            ticket.spec.ticket_id,
            status.run,
            number,
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
        assigned: assigned_name(&halo_ticket, &technicians),
        also: also(&steps, &technicians),
        until: utc(approval.expires_at.0),
        listed: steps
            .iter()
            .map(|s| write::listed(ticket.spec.ticket_id, s))
            .collect(),
        replaces,
        approval,
    })
}

/// Names of those who may decide besides the assigned technician.
fn also(steps: &[&Step], technicians: &[types::Agent]) -> String {
    let names: Vec<String> = further_approvers(steps.iter().copied(), technicians)
        .into_iter()
        .take(MAX_NAMES)
        .map(|id| agent_name(id, technicians))
        .collect();
    names.join(", ")
}
