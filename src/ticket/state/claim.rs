//! An agent's hold on a ticket: the claim, signs of life, and its end.

use super::{Applied, Change, Event, MAX_ATTEMPTS, RUN_WITHIN, Refused, after, whole_second};
use crate::api::Mode;
use crate::api::reason::Reason;
use crate::api::ticket::{ApprovalState, Lease, Phase, StepState, TicketStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

impl Change<'_> {
    pub(super) fn claim(&mut self) -> Result<Applied, Refused> {
        let event = self.event;
        match event {
            Event::Claimed {
                lease,
                holder,
                expires_at,
                mode,
            } => self.claimed(new_lease(lease, holder, *expires_at), *mode),
            Event::PlanOnly { lease } => self.plan_only(lease),
            Event::Heartbeat { lease, expires_at } => {
                self.next.held(lease)?.expires_at = Time(whole_second(*expires_at));
                // A sign of life, not a thing that happened.
                Ok(Applied::Silent)
            }
            Event::Released { lease, .. } => self.released(lease),
            Event::LeaseExpired => self.lease_expired(),
            Event::Completed { lease } => self.completed(lease),
            _ => Err(self.wrong()),
        }
    }

    fn claimed(&mut self, lease: Lease, mode: Mode) -> Result<Applied, Refused> {
        if self.next.phase != Phase::Ready {
            return Err(self.wrong());
        }
        self.enter(Phase::Working, Reason::Claimed, "an agent is working on it");
        let next = &mut self.next;
        next.attempts += 1;
        next.mode = Some(mode);
        // What an agent that died had proposed and nobody was asked about is for the next agent
        // to propose.
        next.settle(StepState::Superseded, |s| s == StepState::Proposed);
        if let Some(approval) = next
            .approval
            .as_mut()
            .filter(|a| a.state == ApprovalState::Preparing)
        {
            approval.state = ApprovalState::Superseded;
            next.settle(StepState::Superseded, |s| s == StepState::Waiting);
        }
        next.lease = Some(lease);
        Ok(Applied::Recorded)
    }

    fn plan_only(&mut self, lease: &str) -> Result<Applied, Refused> {
        self.next.held(lease)?;
        self.next.sensitive = true;
        if self.next.mode == Some(Mode::Plan) {
            return Ok(Applied::Silent);
        }
        self.next.mode = Some(Mode::Plan);
        Ok(Applied::Recorded)
    }

    fn released(&mut self, lease: &str) -> Result<Applied, Refused> {
        self.next.held(lease)?;
        if self.next.approval_is(ApprovalState::Approved) {
            return Err(self.wrong());
        }
        self.enter(
            Phase::Ready,
            Reason::Released,
            "its agent handed it back; waiting for the next one",
        );
        // An agent that hands it back has not failed on the ticket.
        self.next.attempts -= 1;
        Ok(Applied::Recorded)
    }

    fn lease_expired(&mut self) -> Result<Applied, Refused> {
        let phase = self.next.phase;
        let Some(lease) = self.next.lease.as_ref().filter(|_| phase == Phase::Working) else {
            return Err(self.wrong());
        };
        if self.now < lease.expires_at.0 {
            return Err(Refused::TooEarly);
        }
        let attempts = self.next.attempts;
        if attempts >= MAX_ATTEMPTS {
            let message = format!(
                "{attempts} agents took the ticket and none finished; see the agents' logs"
            );
            self.enter(Phase::Failed, Reason::AttemptsExhausted, &message);
        } else if self.next.approval_is(ApprovalState::Approved) {
            // Its gateway died while it ran the steps; another goes on.
            self.enter(
                Phase::AwaitingApproval,
                Reason::Approved,
                "the gateway that was running the approved steps stopped responding; \
                 another will continue",
            );
            self.next.deadline = Some(after(self.now, RUN_WITHIN));
        } else {
            self.enter(
                Phase::Ready,
                Reason::LeaseExpired,
                "its agent stopped responding; waiting for the next one",
            );
        }
        Ok(Applied::Recorded)
    }

    fn completed(&mut self, lease: &str) -> Result<Applied, Refused> {
        self.next.held(lease)?;
        if self.next.approval_is(ApprovalState::Approved) {
            return Err(self.wrong());
        }
        self.next.resume = None;
        self.enter(Phase::Done, Reason::Completed, "the agent is done");
        Ok(Applied::Recorded)
    }
}

impl TicketStatus {
    /// The lease, if it is this one. An expired lease still counts until the expiry is recorded:
    /// its holder is alive after all.
    pub(super) fn held(&mut self, lease: &str) -> Result<&mut Lease, Refused> {
        if self.phase != Phase::Working {
            return Err(Refused::LeaseLost);
        }
        self.lease
            .as_mut()
            .filter(|held| held.id == lease)
            .ok_or(Refused::LeaseLost)
    }
}

pub(super) fn new_lease(id: &str, holder: &str, expires_at: Timestamp) -> Lease {
    Lease {
        id: id.into(),
        holder: holder.into(),
        expires_at: Time(whole_second(expires_at)),
    }
}
