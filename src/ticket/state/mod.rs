//! The phases of a ticket: one pure function, used by controller, gateway and receiver.
//!
//! [`apply`] takes what is stored and what happened, and says what to store. It has no clock and
//! does no I/O. What a phase owes to the world (a failure note, say) is not returned as a side
//! effect but derived from the state by [`owed`], so that a crash between storing and acting loses
//! nothing.
//!
//! Here are the phases, what ends each, and what is owed. The events are in `event`; what they do
//! is in a module per topic: `verification`, `claim`, `steps`, `approval`, `outbox`. `journal`
//! records them.

mod approval;
mod claim;
mod event;
mod journal;
mod outbox;
mod steps;
#[cfg(test)]
mod tests;
mod verification;

pub use approval::{reminds_at, untold};
pub use event::{Event, Refused};
pub use outbox::{intent, posted};
pub use verification::{is_hidden, is_verified, verification_tags};

use super::actor::Actor;
use super::marker::Tag;
use crate::api::condition::{self, ConditionUpdate};
use crate::api::reason::Reason;
use crate::api::ticket::{ApprovalState, IntentKind, IntentState, Phase, StepState, TicketStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Journal entries kept on a Ticket; the audit stream has them all.
pub const JOURNAL_LIMIT: usize = 50;
/// Agents that may take a ticket in one turn before it counts as failed.
pub const MAX_ATTEMPTS: i32 = 5;
/// How long a ticket waits for its controller or for an agent.
pub const WAIT: SignedDuration = SignedDuration::from_hours(24);
/// Approved steps that no gateway starts within this time are no longer run.
pub const RUN_WITHIN: SignedDuration = SignedDuration::from_hours(1);
/// Steps kept on a Ticket.
pub const STEP_LIMIT: usize = 40;
/// Steps that may wait for approval at once.
pub const OPEN_STEPS: usize = 10;
/// Steps that may run without approval in one turn; a technician is asked about the others.
pub const AUTO_STEPS: i32 = 20;
/// How often an agent resumes in one run.
pub const MAX_TURNS: i32 = 20;
/// Replies handed to an agent at once.
const MAX_REPLIES: usize = 20;

/// What a state still owes to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// An internal note that says why nobody worked on the ticket.
    FailureNote,
    /// An internal note that says that a request was denied, or has expired.
    DecisionNote,
    /// An internal note about a challenge, or its outcome.
    VerificationNote,
    /// An internal note that says why a reply does not count.
    ReplyNote,
}

/// An event being applied.
struct Change<'a> {
    /// At first what is stored, in the end what to store.
    next: TicketStatus,
    event: &'a Event,
    now: Timestamp,
}

/// Whether an event is recorded in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Applied {
    Recorded,
    /// It changes nothing that anybody has to know.
    Silent,
}

/// The status after `event`, or why it does not apply. Times are kept in whole
/// seconds, as the apiserver stores them.
pub fn apply(
    status: &TicketStatus,
    event: &Event,
    by: Actor<'_>,
    now: Timestamp,
) -> Result<TicketStatus, Refused> {
    let now = whole_second(now);
    let mut change = Change {
        next: status.clone(),
        event,
        now,
    };
    let applied = change.apply()?;
    let mut next = change.next;
    if applied == Applied::Recorded {
        next.record(event.name(), by, event.detail(), now);
    }
    Ok(next)
}

impl Change<'_> {
    /// Sorts the events by topic. A topic refuses an event of another.
    fn apply(&mut self) -> Result<Applied, Refused> {
        match self.event {
            Event::Accepted
            | Event::DeadlinePassed
            | Event::Ignored { .. }
            | Event::Failed { .. }
            | Event::Reopened { .. } => self.phase(),
            Event::VerificationStarted { .. }
            | Event::ChallengeSent { .. }
            | Event::Verified { .. }
            | Event::VerificationFailed { .. }
            | Event::VerificationSkipped { .. }
            | Event::VerifyAgain { .. }
            | Event::VerificationOverridden { .. } => self.verification(),
            Event::Claimed { .. }
            | Event::PlanOnly { .. }
            | Event::Heartbeat { .. }
            | Event::Released { .. }
            | Event::LeaseExpired
            | Event::Completed { .. } => self.claim(),
            Event::StepProposed { .. }
            | Event::StepStarted { .. }
            | Event::StepSent { .. }
            | Event::StepEnded { .. }
            | Event::StepsTaken { .. }
            | Event::StepsFinished { .. } => self.steps(),
            Event::ApprovalPrepared { .. }
            | Event::ApprovalRequested { .. }
            | Event::TurnEnded { .. }
            | Event::RepliesSeen { .. }
            | Event::Messages { .. }
            | Event::Approved { .. }
            | Event::Denied { .. } => self.approval(),
            Event::WriteIntended { .. }
            | Event::WritePosted { .. }
            | Event::WriteRefused { .. } => self.outbox(),
        }
    }

    fn phase(&mut self) -> Result<Applied, Refused> {
        let event = self.event;
        match event {
            Event::Accepted => self.accepted(),
            Event::DeadlinePassed => self.deadline_passed(),
            Event::Ignored { reason, message } => self.ended(Phase::Ignored, *reason, message),
            Event::Failed { reason, message } => self.ended(Phase::Failed, *reason, message),
            Event::Reopened { request } => self.reopened(request),
            _ => Err(self.wrong()),
        }
    }

    fn accepted(&mut self) -> Result<Applied, Refused> {
        if self.next.phase != Phase::Received {
            return Err(self.wrong());
        }
        self.enter(
            Phase::Ready,
            Reason::Accepted,
            "waiting for the client's agent",
        );
        Ok(Applied::Recorded)
    }

    fn deadline_passed(&mut self) -> Result<Applied, Refused> {
        let Some(deadline) = &self.next.deadline else {
            return Err(self.wrong());
        };
        if self.now < deadline.0 {
            return Err(Refused::TooEarly);
        }
        match self.next.phase {
            Phase::Verifying => self.verification_expired(),
            Phase::AwaitingApproval if self.next.approval_is(ApprovalState::Approved) => {
                self.enter(
                    Phase::Failed,
                    Reason::StepsNotRun,
                    "the steps were approved, but no gateway could run them in time; \
                     the remaining steps will not be run",
                );
            }
            Phase::AwaitingApproval => self.approval_expired(),
            Phase::Received | Phase::Ready => self.enter(
                Phase::Failed,
                Reason::NoAgent,
                "no agent took the ticket in time; \
                 check the ImportedClient's AgentAvailable condition",
            ),
            _ => return Err(self.wrong()),
        }
        Ok(Applied::Recorded)
    }

    fn ended(&mut self, phase: Phase, reason: Reason, message: &str) -> Result<Applied, Refused> {
        if self.next.phase.is_terminal() {
            return Err(self.wrong());
        }
        self.enter(phase, reason, message);
        Ok(Applied::Recorded)
    }

    fn reopened(&mut self, request: &str) -> Result<Applied, Refused> {
        if !self.next.phase.is_terminal() || self.next.reopened.as_deref() == Some(request) {
            return Err(self.wrong());
        }
        self.enter(Phase::Received, Reason::Reopened, "reopened by a human");
        let next = &mut self.next;
        next.reopened = Some(request.into());
        next.run += 1;
        next.turn = 0;
        next.resume = None;
        next.approval = None;
        next.verification = None;
        next.sensitive = false;
        next.attempts = 0;
        next.mode = None;
        Ok(Applied::Recorded)
    }

    /// The event does not apply in this phase.
    fn wrong(&self) -> Refused {
        Refused::WrongPhase {
            phase: self.next.phase,
            event: self.event.name(),
        }
    }

    fn enter(&mut self, phase: Phase, reason: Reason, message: &str) {
        self.next.enter(phase, reason, message, self.now);
    }
}

impl TicketStatus {
    fn enter(&mut self, phase: Phase, reason: Reason, message: &str, now: Timestamp) {
        if phase.is_terminal() {
            self.call_off();
        }
        self.phase = phase;
        self.phase_since = Some(Time(now));
        self.reason = Some(reason.as_str().into());
        self.message = Some(message.chars().take(500).collect());
        self.lease = None;
        // Every phase that waits has an end of its own; Working has its lease.
        self.deadline = matches!(
            phase,
            Phase::Received | Phase::Ready | Phase::Verifying | Phase::AwaitingApproval
        )
        .then(|| after(now, WAIT));
        let finished = if phase.is_terminal() {
            ConditionUpdate::yes(phase.into(), message)
        } else {
            ConditionUpdate::no(phase.into(), message)
        };
        condition::set(
            &mut self.conditions,
            condition::FINISHED,
            &finished,
            self.observed_generation,
            now,
        );
    }

    /// Nothing waits or is sent once the ticket is finished.
    fn call_off(&mut self) {
        // A step that is being sent is not called off: it may have arrived.
        self.settle(StepState::Superseded, |s| {
            matches!(s, StepState::Proposed | StepState::Waiting)
        });
        self.settle(StepState::Unknown, |s| s == StepState::Running);
        if let Some(approval) = self.approval.as_mut().filter(|a| {
            matches!(
                a.state,
                ApprovalState::Preparing | ApprovalState::Requested | ApprovalState::Approved
            )
        }) {
            approval.state = ApprovalState::Superseded;
        }
        self.resume = None;
    }
}

/// The status of a new ticket.
pub fn received(now: Timestamp) -> TicketStatus {
    let now = whole_second(now);
    let mut status = TicketStatus::default();
    status.enter(
        Phase::Received,
        Reason::Received,
        "stored; the controller will check it next",
        now,
    );
    status
}

/// When this ticket has to be checked although nothing happened.
pub fn wakes_at(status: &TicketStatus) -> Option<Timestamp> {
    [ends_at(status), reminds_at(status)]
        .into_iter()
        .flatten()
        .min()
}

/// The event that time alone brings about, if it is due.
pub fn due(status: &TicketStatus, now: Timestamp) -> Option<Event> {
    let due = ends_at(status).is_some_and(|at| at <= whole_second(now));
    match status.phase {
        _ if !due => None,
        Phase::Working => Some(Event::LeaseExpired),
        phase if phase.is_terminal() => None,
        _ => Some(Event::DeadlinePassed),
    }
}

/// When the phase ends by itself.
fn ends_at(status: &TicketStatus) -> Option<Timestamp> {
    match status.phase {
        Phase::Working => status.lease.as_ref().map(|l| l.expires_at.0),
        _ => status.deadline.as_ref().map(|d| d.0),
    }
}

/// What is left to do for a ticket in this state.
pub fn owed(status: &TicketStatus) -> Option<Owed> {
    if let Some(approval) = status
        .approval
        .as_ref()
        .filter(|a| matches!(a.state, ApprovalState::Denied | ApprovalState::Expired))
        && !posted(status, &Tag::Decision(approval.number))
    {
        return Some(Owed::DecisionNote);
    }
    if let Some(verification) = &status.verification
        && verification_tags(verification)
            .iter()
            .any(|tag| !posted(status, tag))
    {
        return Some(Owed::VerificationNote);
    }
    if untold(status).is_some() {
        return Some(Owed::ReplyNote);
    }
    // A note of this run says all there is to say.
    let noted = status
        .intents
        .iter()
        .any(|i| i.run == status.run && i.state == IntentState::Posted);
    (status.phase == Phase::Failed && !noted || steps_failed(status)).then_some(Owed::FailureNote)
}

/// Failed with steps that a technician had approved, or that may have been run. That has to be
/// said, whatever was noted before.
fn steps_failed(status: &TicketStatus) -> bool {
    let noted = status.intents.iter().any(|i| {
        i.run == status.run && i.kind == IntentKind::FailureNote && i.state == IntentState::Posted
    });
    status.phase == Phase::Failed && !status.steps.is_empty() && !noted
}

pub fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn after(now: Timestamp, span: SignedDuration) -> Time {
    Time(now.checked_add(span).unwrap_or(now))
}
