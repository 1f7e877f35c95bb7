//! A request for approval, and what the replies to it do.

use super::{
    Applied, Change, Event, MAX_REPLIES, MAX_TURNS, RUN_WITHIN, Refused, after, posted,
    whole_second,
};
use crate::api::reason::Reason;
use crate::api::ticket::{
    Approval, ApprovalState, Phase, Resume, ResumeReason, StepState, TicketStatus, UncountedReply,
};
use crate::ids::{ActionId, TechnicianId};
use crate::ticket::marker::Tag;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// Notes about ignored replies for one request. More would only be noise, or somebody's loop.
const MAX_IGNORED: usize = 5;

impl Change<'_> {
    pub(super) fn approval(&mut self) -> Result<Applied, Refused> {
        let event = self.event;
        match event {
            Event::ApprovalPrepared { lease, approval } => self.prepared(lease, approval),
            Event::ApprovalRequested { lease, action_id } => self.requested(lease, *action_id),
            Event::TurnEnded { lease } => self.turn_ended(lease),
            Event::RepliesSeen {
                up_to,
                assigned_agent,
            } => self.replies_seen(*up_to, *assigned_agent),
            Event::Messages {
                replies,
                up_to,
                assigned_agent,
            } => self.messages(replies, *up_to, *assigned_agent),
            Event::Approved {
                by,
                action,
                messages,
            } => self.approved(*by, *action, messages),
            Event::Denied {
                by,
                action,
                messages,
            } => self.denied(*by, *action, messages),
            _ => Err(self.wrong()),
        }
    }

    fn prepared(&mut self, lease: &str, approval: &Approval) -> Result<Applied, Refused> {
        self.next.held(lease)?;
        let mut approval = approval.clone();
        approval.state = ApprovalState::Preparing;
        approval.expires_at = Time(whole_second(approval.expires_at.0));
        approval.remind_at = approval.remind_at.map(|t| Time(whole_second(t.0)));
        self.next.approval = Some(approval);
        Ok(Applied::Recorded)
    }

    fn requested(&mut self, lease: &str, action_id: Option<ActionId>) -> Result<Applied, Refused> {
        self.next.held(lease)?;
        let wrong = self.wrong();
        // What was read already cannot be an answer: the note is one that was there before.
        let is_new = action_id.is_some_and(|action| Some(action) > self.next.seen_action);
        let Some(approval) = self
            .next
            .approval
            .as_mut()
            .filter(|a| a.state == ApprovalState::Preparing)
        else {
            return Err(wrong);
        };
        if !is_new {
            return Err(wrong);
        }
        approval.state = ApprovalState::Requested;
        approval.action_id = action_id;
        let expires_at = approval.expires_at.clone();
        for step in self
            .next
            .steps
            .iter_mut()
            .filter(|s| s.state == StepState::Proposed && approval.steps.contains(&s.number))
        {
            step.state = StepState::Waiting;
        }
        self.next.seen_action = self.next.seen_action.max(action_id);
        self.await_approval(expires_at);
        Ok(Applied::Recorded)
    }

    fn turn_ended(&mut self, lease: &str) -> Result<Applied, Refused> {
        self.next.held(lease)?;
        let Some(expires_at) = self
            .next
            .approval
            .as_ref()
            .filter(|a| a.state == ApprovalState::Requested)
            .map(|a| a.expires_at.clone())
        else {
            return Err(self.wrong());
        };
        self.await_approval(expires_at);
        Ok(Applied::Recorded)
    }

    fn await_approval(&mut self, expires_at: Time) {
        self.next.resume = None;
        self.enter(
            Phase::AwaitingApproval,
            Reason::ApprovalNeeded,
            "waiting for the assigned technician's reply on the ticket",
        );
        self.next.deadline = Some(expires_at);
    }

    fn replies_seen(
        &mut self,
        up_to: ActionId,
        assigned_agent: Option<TechnicianId>,
    ) -> Result<Applied, Refused> {
        if !matches!(
            self.next.phase,
            Phase::AwaitingApproval | Phase::Verifying | Phase::Refused
        ) {
            return Err(self.wrong());
        }
        self.next.seen(up_to, assigned_agent);
        Ok(Applied::Silent)
    }

    fn messages(
        &mut self,
        replies: &[ActionId],
        up_to: ActionId,
        assigned_agent: Option<TechnicianId>,
    ) -> Result<Applied, Refused> {
        self.awaits_decision()?;
        self.next.seen(up_to, assigned_agent);
        if self.next.turn < MAX_TURNS {
            self.resume(
                ResumeReason::Message,
                replies,
                Reason::Messages,
                "somebody wrote on the ticket; waiting for the agent to answer",
            );
        }
        Ok(Applied::Recorded)
    }

    fn approved(
        &mut self,
        by: TechnicianId,
        action: ActionId,
        messages: &[ActionId],
    ) -> Result<Applied, Refused> {
        self.awaits_decision()?;
        let read_before = self.next.seen_action;
        self.next.seen(action, None);
        self.decided(ApprovalState::Approved, Some(by), Some(action));
        if let Some(approval) = &mut self.next.approval {
            approval.decided_after = read_before;
        }
        self.next.resume = Some(Resume {
            reason: ResumeReason::StepsRun,
            replies: messages.iter().copied().take(MAX_REPLIES).collect(),
        });
        self.next.attempts = 0;
        self.enter(
            Phase::AwaitingApproval,
            Reason::Approved,
            "a technician approved the steps; the gateway will run them",
        );
        self.next.deadline = Some(after(self.now, RUN_WITHIN));
        Ok(Applied::Recorded)
    }

    fn denied(
        &mut self,
        by: TechnicianId,
        action: ActionId,
        messages: &[ActionId],
    ) -> Result<Applied, Refused> {
        self.awaits_decision()?;
        self.next.seen(action, None);
        self.next.settle(StepState::Denied, |s| !s.is_final());
        self.decided(ApprovalState::Denied, Some(by), Some(action));
        let mut replies = messages.to_vec();
        replies.push(action);
        if self.next.turn < MAX_TURNS {
            self.resume(
                ResumeReason::Denied,
                &replies,
                Reason::Denied,
                "a technician denied the steps; waiting for the agent",
            );
        } else {
            self.enter(
                Phase::Done,
                Reason::Denied,
                "a technician denied the steps; nothing was run",
            );
        }
        Ok(Applied::Recorded)
    }

    /// The deadline has passed without a decision.
    pub(super) fn approval_expired(&mut self) {
        self.next.settle(StepState::Expired, |s| !s.is_final());
        self.decided(ApprovalState::Expired, None, None);
        self.enter(
            Phase::Done,
            Reason::ApprovalExpired,
            "nobody approved in time; the waiting steps were not run",
        );
    }

    fn awaits_decision(&self) -> Result<(), Refused> {
        if self.next.phase == Phase::AwaitingApproval
            && self.next.approval_is(ApprovalState::Requested)
        {
            Ok(())
        } else {
            Err(self.wrong())
        }
    }

    fn decided(
        &mut self,
        state: ApprovalState,
        by: Option<TechnicianId>,
        action: Option<ActionId>,
    ) {
        if let Some(approval) = &mut self.next.approval {
            approval.state = state;
            approval.decided_by = by;
            approval.decided_action = action;
            approval.decided_at = Some(Time(self.now));
        }
    }

    /// Gives the ticket back to an agent, for another turn.
    pub(super) fn resume(
        &mut self,
        reason: ResumeReason,
        replies: &[ActionId],
        phase_reason: Reason,
        message: &str,
    ) {
        self.enter(Phase::Ready, phase_reason, message);
        self.next.turn += 1;
        self.next.attempts = 0;
        self.next.resume = Some(Resume {
            reason,
            replies: replies.iter().copied().take(MAX_REPLIES).collect(),
        });
    }
}

impl TicketStatus {
    /// Remembers replies that do not count, so that technicians are told why. Returns those that
    /// were not known; only the first few of a request are told about.
    pub fn ignore(&mut self, replies: &[UncountedReply]) -> Vec<UncountedReply> {
        let Some(approval) = &mut self.approval else {
            return Vec::new();
        };
        let mut new = replies.to_vec();
        new.retain(|reply| {
            approval
                .ignored
                .iter()
                .all(|known| known.action != reply.action)
        });
        let room = MAX_IGNORED.saturating_sub(approval.ignored.len());
        approval.ignored.extend(new.iter().take(room).cloned());
        new
    }

    pub fn approval_is(&self, state: ApprovalState) -> bool {
        self.approval.as_ref().is_some_and(|a| a.state == state)
    }

    /// The ticket was read up to this action.
    pub(super) fn seen(&mut self, up_to: ActionId, assigned_agent: Option<TechnicianId>) {
        self.seen_action = self.seen_action.max(Some(up_to));
        if let (Some(approval), Some(agent)) = (&mut self.approval, assigned_agent) {
            approval.assigned_agent = Some(agent);
        }
    }
}

/// The next ignored reply of the open request that technicians have not been told about.
pub fn untold(status: &TicketStatus) -> Option<(Tag, &UncountedReply)> {
    let approval = status
        .approval
        .as_ref()
        .filter(|a| a.state == ApprovalState::Requested && !status.phase.is_terminal())?;
    approval.ignored.iter().find_map(|reply| {
        let tag = Tag::Uncounted {
            request: approval.number,
            action: reply.action.0,
        };
        (!posted(status, &tag)).then_some((tag, reply))
    })
}

/// When a reminder of the open request is due.
pub fn reminds_at(status: &TicketStatus) -> Option<Timestamp> {
    let approval = status.approval.as_ref().filter(|a| {
        status.phase == Phase::AwaitingApproval && a.state == ApprovalState::Requested
    })?;
    let at = approval.remind_at.as_ref()?.0;
    (!posted(status, &Tag::Reminder(approval.number))).then_some(at)
}
