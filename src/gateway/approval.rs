//! The request for approval: which steps, who decides, how long, and its text.

use super::AgentScope;
use crate::api::ticket::{Approval, ApprovalState, Step, StepState, Ticket};
use crate::halopsa::technicians::{agent_name, agents, assigned_name};
use crate::halopsa::{self, types};
use crate::policy::approvers::further_approvers;
use crate::text::utc;
use crate::ticket::approval::{explicit, hash, needs_code};
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
    needs_code: bool,
}

impl Request {
    pub fn html(&self, marker: &str) -> String {
        let ask = Ask {
            assigned: &self.assigned,
            also: &self.also,
            until: &self.until,
            replaces: self.replaces,
            number: self.approval.number,
            code: &self.approval.code,
            needs_code: self.needs_code,
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
    let bound = |number, code: &str| {
        hash(
            scope.connection_uid(),
            ticket.spec.ticket_id,
            status.run,
            number,
            code,
            steps.iter().copied(),
        )
    };
    let Name { number, code } = name(status.approval.as_ref(), bound);
    let approval = Approval {
        hash: bound(number, &code),
        number,
        code,
        steps: steps.iter().map(|s| s.number).collect(),
        state: ApprovalState::Preparing,
        remind_at: (!remind.is_zero() && remind < valid).then(|| after(remind)),
        action_id: None,
        assigned_agent: halo_ticket.agent_id,
        decided_by: None,
        decided_action: None,
        decided_at: None,
        decided_after: None,
        ignored: Vec::new(),
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
        needs_code: needs_code(&approval, &status.steps),
        approval,
    })
}

/// What a request is called on its ticket.
struct Name {
    number: i32,
    code: String,
}

/// The name of the next request. One that an earlier attempt has stored for the same steps may be
/// on the ticket already, and keeps its name; no two notes share one.
fn name(latest: Option<&Approval>, bound: impl Fn(i32, &str) -> String) -> Name {
    let stored = latest
        .filter(|a| a.state == ApprovalState::Preparing && a.hash == bound(a.number, &a.code));
    match stored {
        Some(stored) => Name {
            number: stored.number,
            code: stored.code.clone(),
        },
        None => Name {
            number: latest.map_or(1, |a| a.number.saturating_add(1)),
            code: explicit::code(rand::random()),
        },
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_requests_share_a_name() {
        let bound = |number: i32, code: &str| format!("{number} {code}");
        let first = name(None, bound);
        assert_eq!(first.number, 1);
        let stored = |state, hash: &str| Approval {
            number: 1,
            code: "K7QF".into(),
            hash: hash.into(),
            steps: vec![1],
            state,
            expires_at: Time(Timestamp::UNIX_EPOCH),
            remind_at: None,
            action_id: None,
            assigned_agent: None,
            decided_by: None,
            decided_action: None,
            decided_at: None,
            decided_after: None,
            ignored: Vec::new(),
        };
        let again = |state, hash| {
            let name = name(Some(&stored(state, hash)), bound);
            (name.number, name.code == "K7QF")
        };
        use ApprovalState::{Preparing, Requested};
        assert_eq!(again(Preparing, "1 K7QF"), (1, true), "the same attempt");
        assert_eq!(again(Preparing, "other steps").0, 2);
        assert_eq!(again(Requested, "1 K7QF").0, 2);
    }
}
