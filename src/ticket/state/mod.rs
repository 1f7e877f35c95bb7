//! The phases of a ticket: one pure function, used by controller and gateway alike.
//!
//! [`apply`] takes what is stored and what happened, and says what to store. It
//! knows no clock and does no I/O. What a phase owes to the world (a failure
//! note, say) is not returned as a side effect but derived from the state by
//! [`owed`], so that a crash between storing and acting loses nothing.

use super::actor::Actor;
use crate::api::Mode;
use crate::api::condition::{self, ConditionUpdate};
use crate::api::reason::Reason;
use crate::api::ticket::{
    Approval, ApprovalState, Intent, IntentKind, IntentState, JournalEntry, Lease, Phase, Resume,
    ResumeReason, Step, StepState, TicketStatus, ToolCall, Verification, VerificationState,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Journal entries kept on a Ticket; the audit stream has them all.
pub const JOURNAL_LIMIT: usize = 50;
/// Agents that may take a ticket in one turn before it counts as failed.
pub const MAX_ATTEMPTS: i32 = 5;
/// How long a ticket waits for its controller or for an agent.
pub const WAIT: SignedDuration = SignedDuration::from_hours(24);
/// Approved steps that no gateway runs in this time are not run any more.
pub const RUN_WITHIN: SignedDuration = SignedDuration::from_hours(1);
/// Steps kept on a Ticket.
pub const STEP_LIMIT: usize = 40;
/// Steps that may wait for approval at once.
pub const OPEN_STEPS: usize = 10;
/// How often an agent is woken again in one turn.
pub const MAX_TURNS: i32 = 20;
/// Replies handed to an agent at once.
const MAX_REPLIES: usize = 20;

/// Something that happened to a ticket.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It is ours to work on, and nothing holds it up.
    Accepted,
    /// The requester has to prove who they are first.
    VerificationStarted {
        challenge_id: String,
        reasons: Vec<String>,
        deadline: Timestamp,
        /// The agent's lease, where it holds the ticket already.
        lease: Option<String>,
    },
    /// The provider has the challenge.
    ChallengeSent {
        method: String,
        user_id: i64,
        address: String,
    },
    Verified {
        challenge_id: String,
        valid_until: Timestamp,
    },
    VerificationFailed {
        challenge_id: String,
        state: VerificationState,
        message: String,
    },
    /// The provider could not be reached, and that is to be ignored.
    VerificationSkipped { valid_until: Timestamp },
    /// A technician has the requester asked once more.
    VerifyAgain {
        by: i64,
        action: i64,
        challenge_id: String,
        deadline: Timestamp,
    },
    /// The assigned agent vouches for the requester.
    VerificationOverridden {
        by: i64,
        action: i64,
        valid_until: Timestamp,
    },
    /// Sensitive, and nobody can verify: the agent may read and plan only.
    PlanOnly { lease: String },
    /// An agent takes it.
    Claimed {
        lease: String,
        holder: String,
        expires_at: Timestamp,
        mode: Mode,
    },
    /// The agent is still at it.
    Heartbeat {
        lease: String,
        expires_at: Timestamp,
    },
    /// The agent hands it back: it is shutting down, or cannot go on.
    Released { lease: String, holder: String },
    /// The agent was not heard of until its lease ran out.
    LeaseExpired,
    /// The deadline of a waiting phase has passed.
    DeadlinePassed,
    /// A write to HaloPSA is about to be sent.
    WriteIntended { kind: IntentKind, marker: String },
    /// HaloPSA has the write.
    WritePosted {
        marker: String,
        action_id: Option<i64>,
    },
    /// HaloPSA certainly does not have the write: it answered no.
    WriteRefused { marker: String },
    /// The agent is done.
    Completed { lease: String },
    /// The agent wants a call that needs approval.
    StepProposed { lease: String, step: Box<Step> },
    /// A call that needs no approval is about to be sent.
    StepStarted { lease: String, step: Box<Step> },
    /// A step that was approved, or whose fate was not known, is about to be sent.
    StepSent { lease: String, number: i32 },
    StepEnded {
        number: i32,
        state: StepState,
        result: String,
    },
    /// The request for approval is about to be written to the ticket.
    ApprovalPrepared {
        lease: String,
        approval: Box<Approval>,
    },
    /// The request is on the ticket; its steps wait for a technician.
    ApprovalRequested {
        lease: String,
        action_id: Option<i64>,
    },
    /// The agent's turn ends, and the request of an earlier one still stands.
    TurnEnded { lease: String },
    /// The ticket was read up to this action, and nothing in it decides.
    RepliesSeen {
        up_to: i64,
        assigned_agent: Option<i64>,
    },
    /// Somebody wrote on the ticket, and it is for the agent.
    Messages {
        replies: Vec<i64>,
        up_to: i64,
        assigned_agent: Option<i64>,
    },
    Approved {
        by: i64,
        action: i64,
        messages: Vec<i64>,
    },
    Denied {
        by: i64,
        action: i64,
        messages: Vec<i64>,
    },
    /// A gateway takes the approved steps to run them.
    StepsTaken {
        lease: String,
        holder: String,
        expires_at: Timestamp,
    },
    /// The approved steps were run, as far as they went.
    StepsFinished { lease: String },
    /// Not work for us, or not any more.
    Ignored { reason: Reason, message: String },
    /// It cannot be worked on.
    Failed { reason: Reason, message: String },
    /// A human wants it worked on again.
    Reopened { request: String },
}

/// Why an event does not apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the ticket is {} and {event} does not apply; reread it", phase.as_str())]
    WrongPhase { phase: Phase, event: &'static str },
    #[error(
        "the lease is not yours any more: it ran out or another agent has the ticket; drop this ticket and claim anew"
    )]
    LeaseLost,
    #[error("the lease or deadline has not run out yet")]
    TooEarly,
    #[error(
        "this write to HaloPSA is under way already; look for its marker before sending it again"
    )]
    AlreadyIntended,
    #[error(
        "{} steps wait for approval already; end the turn so that a technician is asked",
        OPEN_STEPS
    )]
    TooManySteps,
    #[error("there is no such step, or it is over")]
    NoSuchStep,
}

/// What a state still owes to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// An internal note that says why nobody worked on the ticket.
    FailureNote,
    /// An internal note that says that a request was denied, or has expired.
    DecisionNote,
    /// An internal note about a challenge, or its outcome.
    VerificationNote,
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Event::Accepted => "Accepted",
            Event::VerificationStarted { .. } => "VerificationStarted",
            Event::ChallengeSent { .. } => "ChallengeSent",
            Event::Verified { .. } => "Verified",
            Event::VerificationFailed { .. } => "VerificationFailed",
            Event::VerificationSkipped { .. } => "VerificationSkipped",
            Event::VerifyAgain { .. } => "VerifyAgain",
            Event::VerificationOverridden { .. } => "VerificationOverridden",
            Event::PlanOnly { .. } => "PlanOnly",
            Event::Claimed { .. } => "Claimed",
            Event::Heartbeat { .. } => "Heartbeat",
            Event::Released { .. } => "Released",
            Event::LeaseExpired => "LeaseExpired",
            Event::DeadlinePassed => "DeadlinePassed",
            Event::WriteIntended { .. } => "WriteIntended",
            Event::WritePosted { .. } => "WritePosted",
            Event::WriteRefused { .. } => "WriteRefused",
            Event::Completed { .. } => "Completed",
            Event::StepProposed { .. } => "StepProposed",
            Event::StepStarted { .. } => "StepStarted",
            Event::StepSent { .. } => "StepSent",
            Event::StepEnded { .. } => "StepEnded",
            Event::ApprovalPrepared { .. } => "ApprovalPrepared",
            Event::ApprovalRequested { .. } => "ApprovalRequested",
            Event::TurnEnded { .. } => "TurnEnded",
            Event::RepliesSeen { .. } => "RepliesSeen",
            Event::Messages { .. } => "Messages",
            Event::Approved { .. } => "Approved",
            Event::Denied { .. } => "Denied",
            Event::StepsTaken { .. } => "StepsTaken",
            Event::StepsFinished { .. } => "StepsFinished",
            Event::Ignored { .. } => "Ignored",
            Event::Failed { .. } => "Failed",
            Event::Reopened { .. } => "Reopened",
        }
    }
}

impl Event {
    /// What the journal says beside the event's name.
    fn detail(&self) -> Option<String> {
        match self {
            Event::StepProposed { step, .. } | Event::StepStarted { step, .. } => {
                Some(format!("step {}: {}", step.number, step.tool))
            }
            Event::StepSent { number, .. } => Some(format!("step {number}")),
            Event::StepEnded { number, state, .. } => Some(format!("step {number}: {state:?}")),
            Event::ApprovalPrepared { approval, .. } => {
                Some(format!("request {}", approval.number))
            }
            Event::Messages { replies, .. } => {
                Some(format!("{} replies for the agent", replies.len()))
            }
            Event::VerificationFailed { state, .. } => Some(format!("{state:?}")),
            Event::Approved { by, action, .. }
            | Event::Denied { by, action, .. }
            | Event::VerifyAgain { by, action, .. }
            | Event::VerificationOverridden { by, action, .. } => {
                Some(format!("agent {by}, reply {action}"))
            }
            _ => None,
        }
    }
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
    let phase = status.phase;
    let wrong = || Refused::WrongPhase {
        phase,
        event: event.name(),
    };
    let mut next = status.clone();
    match event {
        Event::Accepted => match phase {
            Phase::Received => next.enter(
                Phase::Ready,
                Reason::Accepted,
                "waits for the client's agent",
                now,
            ),
            _ => return Err(wrong()),
        },
        Event::VerificationStarted {
            challenge_id,
            reasons,
            deadline,
            lease,
        } => {
            match (phase, lease) {
                (Phase::Received | Phase::Ready, None) => {}
                (Phase::Working, Some(lease)) => {
                    next.held(lease)?;
                    if status.approval_is(ApprovalState::Approved) {
                        return Err(wrong());
                    }
                }
                _ => return Err(wrong()),
            }
            next.challenge(challenge_id, reasons, *deadline, now);
        }
        Event::ChallengeSent {
            method,
            user_id,
            address,
        } => {
            let Some(verification) = next
                .verification
                .as_mut()
                .filter(|v| phase == Phase::Verifying && v.state == VerificationState::Pending)
            else {
                return Err(wrong());
            };
            verification.state = VerificationState::Sent;
            verification.method = Some(method.clone());
            verification.user_id = Some(*user_id);
            verification.address = Some(address.clone());
        }
        Event::Verified {
            challenge_id,
            valid_until,
        } => {
            next.answered(challenge_id, VerificationState::Verified)
                .ok_or_else(wrong)?
                .valid_until = Some(Time(whole_second(*valid_until)));
            next.enter(
                Phase::Ready,
                Reason::Verified,
                "the requester is verified; waits for the agent",
                now,
            );
        }
        Event::VerificationFailed {
            challenge_id,
            state,
            message,
        } => {
            if state.passes() {
                return Err(wrong());
            }
            next.answered(challenge_id, *state).ok_or_else(wrong)?;
            next.enter(Phase::Refused, Reason::NotVerified, message, now);
        }
        Event::VerificationSkipped { valid_until } => {
            let id = status
                .verification
                .as_ref()
                .map(|v| v.challenge_id.clone())
                .unwrap_or_default();
            next.answered(&id, VerificationState::Skipped)
                .ok_or_else(wrong)?
                .valid_until = Some(Time(whole_second(*valid_until)));
            next.enter(
                Phase::Ready,
                Reason::VerificationSkipped,
                "the provider could not be reached, which its failurePolicy ignores; waits for the agent",
                now,
            );
        }
        Event::VerifyAgain {
            by,
            action,
            challenge_id,
            deadline,
        } => {
            if phase != Phase::Refused || status.verification.is_none() {
                return Err(wrong());
            }
            let reasons = status
                .verification
                .as_ref()
                .map(|v| v.reasons.clone())
                .unwrap_or_default();
            next.seen(*action, None);
            next.challenge(challenge_id, &reasons, *deadline, now);
            if let Some(verification) = &mut next.verification {
                verification.decided_by = Some(*by);
            }
        }
        Event::VerificationOverridden {
            by,
            action,
            valid_until,
        } => {
            let Some(verification) = next
                .verification
                .as_mut()
                .filter(|_| matches!(phase, Phase::Refused | Phase::Verifying))
            else {
                return Err(wrong());
            };
            verification.state = VerificationState::Overridden;
            verification.decided_by = Some(*by);
            verification.valid_until = Some(Time(whole_second(*valid_until)));
            next.seen(*action, None);
            next.enter(
                Phase::Ready,
                Reason::VerificationOverridden,
                "the assigned agent vouches for the requester; waits for the agent",
                now,
            );
        }
        Event::PlanOnly { lease } => {
            next.held(lease)?;
            if status.mode == Some(Mode::Plan) {
                return Ok(next);
            }
            next.mode = Some(Mode::Plan);
        }
        Event::Claimed {
            lease,
            holder,
            expires_at,
            mode,
        } => match phase {
            Phase::Ready => {
                next.enter(
                    Phase::Working,
                    Reason::Claimed,
                    "an agent is working on it",
                    now,
                );
                next.attempts += 1;
                next.mode = Some(*mode);
                // What an agent that died had proposed and nobody was asked about is the next agent's to propose.
                next.settle(StepState::Superseded, |s| s == StepState::Proposed);
                if let Some(approval) = next
                    .approval
                    .as_mut()
                    .filter(|a| a.state == ApprovalState::Preparing)
                {
                    approval.state = ApprovalState::Superseded;
                    next.settle(StepState::Superseded, |s| s == StepState::Waiting);
                }
                next.lease = Some(Lease {
                    id: lease.clone(),
                    holder: holder.clone(),
                    expires_at: Time(whole_second(*expires_at)),
                });
            }
            _ => return Err(wrong()),
        },
        Event::Heartbeat { lease, expires_at } => {
            let held = next.held(lease)?;
            held.expires_at = Time(whole_second(*expires_at));
            // A sign of life, not a thing that happened.
            return Ok(next);
        }
        Event::Released { lease, .. } => {
            next.held(lease)?;
            if status.approval_is(ApprovalState::Approved) {
                return Err(wrong());
            }
            next.enter(
                Phase::Ready,
                Reason::Released,
                "its agent handed it back; waits for the next",
                now,
            );
            // An agent that says goodbye has not failed on the ticket.
            next.attempts -= 1;
        }
        Event::LeaseExpired => {
            let Some(lease) = status.lease.as_ref().filter(|_| phase == Phase::Working) else {
                return Err(wrong());
            };
            if now < lease.expires_at.0 {
                return Err(Refused::TooEarly);
            }
            if status.attempts >= MAX_ATTEMPTS {
                let message = format!(
                    "{} agents took the ticket and none finished; see the agents' logs",
                    status.attempts
                );
                next.enter(Phase::Failed, Reason::AttemptsExhausted, &message, now);
            } else if status.approval_is(ApprovalState::Approved) {
                // Its gateway died while it ran the steps; another goes on.
                next.enter(
                    Phase::AwaitingApproval,
                    Reason::Approved,
                    "the gateway that ran the approved steps was not heard of any more; another goes on",
                    now,
                );
                next.deadline = Some(Time(now.checked_add(RUN_WITHIN).unwrap_or(now)));
            } else {
                next.enter(
                    Phase::Ready,
                    Reason::LeaseExpired,
                    "its agent was not heard of any more; waits for the next",
                    now,
                );
            }
        }
        Event::DeadlinePassed => {
            let Some(deadline) = &status.deadline else {
                return Err(wrong());
            };
            if now < deadline.0 {
                return Err(Refused::TooEarly);
            }
            match phase {
                Phase::Verifying => {
                    let sent = status.verification.as_ref().is_some_and(|v| v.state == VerificationState::Sent);
                    if let Some(verification) = &mut next.verification {
                        verification.state = if sent { VerificationState::Expired } else { VerificationState::Failed };
                    }
                    let message = match sent {
                        true => "the requester did not prove who they are in time",
                        false => "the verification provider could not be reached in time; see its Ready condition",
                    };
                    next.enter(Phase::Refused, Reason::VerificationExpired, message, now);
                }
                Phase::AwaitingApproval if status.approval_is(ApprovalState::Approved) => next.enter(
                    Phase::Failed,
                    Reason::StepsNotRun,
                    "the steps were approved, but no gateway could run them in time; those that were not run are not run any more",
                    now,
                ),
                Phase::AwaitingApproval => {
                    next.settle(StepState::Expired, |s| !s.is_final());
                    next.decide(ApprovalState::Expired, None, None, now);
                    next.enter(Phase::Done, Reason::ApprovalExpired, "nobody approved in time; the steps that waited were not run", now);
                }
                Phase::Received | Phase::Ready => next.enter(
                    Phase::Failed,
                    Reason::NoAgent,
                    "no agent took the ticket in time; look at the ImportedClient's AgentAvailable condition",
                    now,
                ),
                _ => return Err(wrong()),
            }
        }
        Event::WriteIntended { kind, marker } => {
            let decided = |states: &[ApprovalState]| {
                status
                    .approval
                    .as_ref()
                    .is_some_and(|a| states.contains(&a.state))
            };
            let allowed = match kind {
                IntentKind::PlanNote => phase == Phase::Working,
                IntentKind::FailureNote => phase == Phase::Failed,
                IntentKind::ApprovalRequest => {
                    phase == Phase::Working && decided(&[ApprovalState::Preparing])
                }
                IntentKind::Reminder => {
                    phase == Phase::AwaitingApproval && decided(&[ApprovalState::Requested])
                }
                IntentKind::DecisionNote => decided(&[
                    ApprovalState::Approved,
                    ApprovalState::Executed,
                    ApprovalState::Denied,
                    ApprovalState::Expired,
                ]),
                IntentKind::TurnNote => phase == Phase::Working,
                IntentKind::VerificationNote => status.verification.is_some(),
            };
            if !allowed {
                return Err(wrong());
            }
            if next.intents.iter().any(|i| i.marker == *marker) {
                return Err(Refused::AlreadyIntended);
            }
            next.intents.push(Intent {
                kind: *kind,
                run: status.run,
                marker: marker.clone(),
                state: IntentState::Intended,
                recorded_at: Time(now),
                action_id: None,
            });
            let excess = next.intents.len().saturating_sub(JOURNAL_LIMIT);
            next.intents.drain(..excess);
        }
        Event::WritePosted { marker, action_id } => {
            let Some(intent) = next.intents.iter_mut().find(|i| i.marker == *marker) else {
                return Err(wrong());
            };
            intent.state = IntentState::Posted;
            intent.action_id = *action_id;
        }
        Event::WriteRefused { marker } => {
            next.intents
                .retain(|i| i.marker != *marker || i.state == IntentState::Posted);
        }
        Event::Completed { lease } => {
            next.held(lease)?;
            if status.approval_is(ApprovalState::Approved) {
                return Err(wrong());
            }
            next.resume = None;
            next.enter(Phase::Done, Reason::Completed, "the agent is done", now);
        }
        Event::StepProposed { lease, step } => {
            next.held(lease)?;
            if next
                .steps
                .iter()
                .filter(|s| matches!(s.state, StepState::Proposed | StepState::Waiting))
                .count()
                >= OPEN_STEPS
            {
                return Err(Refused::TooManySteps);
            }
            next.add_step(step, StepState::Proposed, now)?;
        }
        Event::StepStarted { lease, step } => {
            next.held(lease)?;
            next.add_step(step, StepState::Running, now)?;
        }
        Event::StepSent { lease, number } => {
            next.held(lease)?;
            let ours = status
                .approval
                .as_ref()
                .filter(|a| a.state == ApprovalState::Approved)
                .is_some_and(|a| a.steps.contains(number));
            let step = next
                .steps
                .iter_mut()
                .find(|s| s.number == *number)
                .ok_or(Refused::NoSuchStep)?;
            match step.state {
                StepState::Waiting if ours => {}
                // Sent before, and certainly not arrived.
                StepState::Running => {}
                _ => return Err(Refused::NoSuchStep),
            }
            step.state = StepState::Running;
            step.recorded_at = Time(now);
        }
        Event::StepEnded {
            number,
            state,
            result,
        } => {
            let step = next
                .steps
                .iter_mut()
                .find(|s| s.number == *number)
                .ok_or(Refused::NoSuchStep)?;
            // Whoever sent it knows what became of it, also when its lease is gone.
            if step.state != StepState::Running || !state.is_final() {
                return Err(Refused::NoSuchStep);
            }
            step.end(*state, result);
        }
        Event::ApprovalPrepared { lease, approval } => {
            next.held(lease)?;
            let mut approval = (**approval).clone();
            approval.state = ApprovalState::Preparing;
            approval.expires_at = Time(whole_second(approval.expires_at.0));
            approval.remind_at = approval.remind_at.map(|t| Time(whole_second(t.0)));
            next.approval = Some(approval);
        }
        Event::ApprovalRequested { lease, action_id } => {
            next.held(lease)?;
            let Some(approval) = next
                .approval
                .as_mut()
                .filter(|a| a.state == ApprovalState::Preparing)
            else {
                return Err(wrong());
            };
            approval.state = ApprovalState::Requested;
            approval.action_id = *action_id;
            let (numbers, expires_at) = (approval.steps.clone(), approval.expires_at.clone());
            for step in next
                .steps
                .iter_mut()
                .filter(|s| s.state == StepState::Proposed && numbers.contains(&s.number))
            {
                step.state = StepState::Waiting;
            }
            next.seen_action = next.seen_action.max(*action_id);
            next.resume = None;
            next.enter(
                Phase::AwaitingApproval,
                Reason::ApprovalNeeded,
                "waits for the assigned technician's reply on the ticket",
                now,
            );
            next.deadline = Some(expires_at);
        }
        Event::TurnEnded { lease } => {
            next.held(lease)?;
            let Some(expires_at) = status
                .approval
                .as_ref()
                .filter(|a| a.state == ApprovalState::Requested)
                .map(|a| a.expires_at.clone())
            else {
                return Err(wrong());
            };
            next.resume = None;
            next.enter(
                Phase::AwaitingApproval,
                Reason::ApprovalNeeded,
                "waits for the assigned technician's reply on the ticket",
                now,
            );
            next.deadline = Some(expires_at);
        }
        Event::RepliesSeen {
            up_to,
            assigned_agent,
        } => {
            if !matches!(
                phase,
                Phase::AwaitingApproval | Phase::Verifying | Phase::Refused
            ) {
                return Err(wrong());
            }
            next.seen(*up_to, *assigned_agent);
            // What nobody needs to know of is not told.
            return Ok(next);
        }
        Event::Messages {
            replies,
            up_to,
            assigned_agent,
        } => {
            if phase != Phase::AwaitingApproval || !status.approval_is(ApprovalState::Requested) {
                return Err(wrong());
            }
            next.seen(*up_to, *assigned_agent);
            if status.turn < MAX_TURNS {
                next.wake_again(
                    ResumeReason::Message,
                    replies,
                    Reason::Messages,
                    "somebody wrote on the ticket; waits for the agent to answer",
                    now,
                );
            }
        }
        Event::Approved {
            by,
            action,
            messages,
        } => {
            if phase != Phase::AwaitingApproval || !status.approval_is(ApprovalState::Requested) {
                return Err(wrong());
            }
            next.seen(*action, None);
            next.decide(ApprovalState::Approved, Some(*by), Some(*action), now);
            next.resume = Some(Resume {
                reason: ResumeReason::StepsRun,
                replies: messages.iter().copied().take(MAX_REPLIES).collect(),
            });
            next.attempts = 0;
            next.enter(
                Phase::AwaitingApproval,
                Reason::Approved,
                "a technician has approved; the gateway runs the steps",
                now,
            );
            next.deadline = Some(Time(now.checked_add(RUN_WITHIN).unwrap_or(now)));
        }
        Event::Denied {
            by,
            action,
            messages,
        } => {
            if phase != Phase::AwaitingApproval || !status.approval_is(ApprovalState::Requested) {
                return Err(wrong());
            }
            next.seen(*action, None);
            next.settle(StepState::Denied, |s| !s.is_final());
            next.decide(ApprovalState::Denied, Some(*by), Some(*action), now);
            let mut replies = messages.clone();
            replies.push(*action);
            if status.turn < MAX_TURNS {
                next.wake_again(
                    ResumeReason::Denied,
                    &replies,
                    Reason::Denied,
                    "a technician has denied the steps; waits for the agent",
                    now,
                );
            } else {
                next.enter(
                    Phase::Done,
                    Reason::Denied,
                    "a technician has denied the steps; nothing was run",
                    now,
                );
            }
        }
        Event::StepsTaken {
            lease,
            holder,
            expires_at,
        } => {
            if phase != Phase::AwaitingApproval || !status.approval_is(ApprovalState::Approved) {
                return Err(wrong());
            }
            next.enter(
                Phase::Working,
                Reason::RunningSteps,
                "the gateway runs the approved steps",
                now,
            );
            next.attempts += 1;
            next.lease = Some(Lease {
                id: lease.clone(),
                holder: holder.clone(),
                expires_at: Time(whole_second(*expires_at)),
            });
        }
        Event::StepsFinished { lease } => {
            next.held(lease)?;
            if !status.approval_is(ApprovalState::Approved) {
                return Err(wrong());
            }
            let numbers = status
                .approval
                .as_ref()
                .map(|a| a.steps.clone())
                .unwrap_or_default();
            for step in next
                .steps
                .iter_mut()
                .filter(|s| numbers.contains(&s.number) && !s.state.is_final())
            {
                step.end(StepState::Superseded, "not run");
            }
            if let Some(approval) = &mut next.approval {
                approval.state = ApprovalState::Executed;
            }
            next.attempts = 0;
            if status.turn < MAX_TURNS {
                let replies = status
                    .resume
                    .as_ref()
                    .map(|w| w.replies.clone())
                    .unwrap_or_default();
                next.wake_again(
                    ResumeReason::StepsRun,
                    &replies,
                    Reason::StepsRun,
                    "the approved steps were run; waits for the agent to conclude",
                    now,
                );
            } else {
                next.enter(
                    Phase::Done,
                    Reason::StepsRun,
                    "the approved steps were run",
                    now,
                );
            }
        }
        Event::Ignored { reason, message } => match phase {
            phase if phase.is_terminal() => return Err(wrong()),
            _ => next.enter(Phase::Ignored, *reason, message, now),
        },
        Event::Failed { reason, message } => match phase {
            phase if phase.is_terminal() => return Err(wrong()),
            _ => next.enter(Phase::Failed, *reason, message, now),
        },
        Event::Reopened { request } => {
            if !phase.is_terminal() || status.reopened.as_ref() == Some(request) {
                return Err(wrong());
            }
            next.enter(
                Phase::Received,
                Reason::Reopened,
                "a human wants it worked on again",
                now,
            );
            next.reopened = Some(request.clone());
            next.run += 1;
            next.turn = 0;
            next.resume = None;
            next.approval = None;
            next.verification = None;
            next.attempts = 0;
            next.mode = None;
        }
    }
    next.record(event.name(), by, event.detail(), now);
    Ok(next)
}

/// What is left to do for a ticket in this state.
pub fn owed(status: &TicketStatus) -> Option<Owed> {
    if let Some(approval) = status
        .approval
        .as_ref()
        .filter(|a| matches!(a.state, ApprovalState::Denied | ApprovalState::Expired))
        && !posted(status, &decision_tag(approval))
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
    // A plan note of this turn says all there is to say.
    let noted = status
        .intents
        .iter()
        .any(|i| i.run == status.run && i.state == IntentState::Posted);
    (status.phase == Phase::Failed && !noted || steps_failed(status)).then_some(Owed::FailureNote)
}

/// Failed with steps a technician had approved, or that may have been run: that has to be said, whatever was noted before.
fn steps_failed(status: &TicketStatus) -> bool {
    let of_turn = |kind| {
        status
            .intents
            .iter()
            .any(|i| i.run == status.run && i.kind == kind && i.state == IntentState::Posted)
    };
    status.phase == Phase::Failed && !status.steps.is_empty() && !of_turn(IntentKind::FailureNote)
}

/// The end of the marker in the note about a decision.
pub fn decision_tag(approval: &Approval) -> String {
    format!("decision{:03}", approval.number)
}

/// The ends of the markers in the notes about a verification that are due: one
/// when the challenge was sent, one when it is over.
pub fn verification_tags(verification: &Verification) -> Vec<String> {
    let tag = |what: &str| format!("verify{:03}-{what}", verification.number);
    let sent = verification.method.is_some().then(|| tag("sent"));
    let over = !matches!(
        verification.state,
        VerificationState::Pending | VerificationState::Sent
    );
    sent.into_iter()
        .chain(over.then(|| tag("outcome")))
        .collect()
}

/// Whether this requester has proved who they are, for this ticket, and it still holds.
pub fn is_verified(status: &TicketStatus, user_id: Option<i64>, now: Timestamp) -> bool {
    status.verification.as_ref().is_some_and(|v| {
        let same =
            v.state != VerificationState::Verified || (v.user_id.is_some() && v.user_id == user_id);
        v.state.passes() && same && v.valid_until.as_ref().is_some_and(|until| now < until.0)
    })
}

/// The end of the marker in a reminder.
pub fn reminder_tag(approval: &Approval) -> String {
    format!("reminder{:03}", approval.number)
}

/// Whether this turn's write with this end of its marker is in HaloPSA.
pub fn posted(status: &TicketStatus, tag: &str) -> bool {
    let end = format!("-{}-{tag}", status.run);
    status
        .intents
        .iter()
        .any(|i| i.state == IntentState::Posted && i.marker.ends_with(&end))
}

/// When a reminder of the standing request is due.
pub fn reminds_at(status: &TicketStatus) -> Option<Timestamp> {
    let approval = status.approval.as_ref().filter(|a| {
        status.phase == Phase::AwaitingApproval && a.state == ApprovalState::Requested
    })?;
    let at = approval.remind_at.as_ref()?.0;
    (!posted(status, &reminder_tag(approval))).then_some(at)
}

/// The status of a ticket nobody has looked at yet.
pub fn received(now: Timestamp) -> TicketStatus {
    let now = whole_second(now);
    let mut status = TicketStatus::default();
    status.enter(
        Phase::Received,
        Reason::Received,
        "stored; the controller looks at it next",
        now,
    );
    status
}

/// When this ticket wants to be looked at although nothing happened.
pub fn wakes_at(status: &TicketStatus) -> Option<Timestamp> {
    match status.phase {
        Phase::Working => status.lease.as_ref().map(|l| l.expires_at.0),
        Phase::AwaitingApproval => [status.deadline.as_ref().map(|d| d.0), reminds_at(status)]
            .into_iter()
            .flatten()
            .min(),
        _ => status.deadline.as_ref().map(|d| d.0),
    }
}

/// The event that time alone brings about, if it is due.
pub fn due(status: &TicketStatus, now: Timestamp) -> Option<Event> {
    let at = match status.phase {
        Phase::Working => status.lease.as_ref().map(|l| l.expires_at.0),
        _ => status.deadline.as_ref().map(|d| d.0),
    };
    let due = at.is_some_and(|at| at <= whole_second(now));
    match status.phase {
        _ if !due => None,
        Phase::Working => Some(Event::LeaseExpired),
        phase if phase.is_terminal() => None,
        _ => Some(Event::DeadlinePassed),
    }
}

pub fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

impl TicketStatus {
    fn enter(&mut self, phase: Phase, reason: Reason, message: &str, now: Timestamp) {
        if phase.is_terminal() {
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
        .then(|| Time(now.checked_add(WAIT).unwrap_or(now)));
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

    /// The lease, if it is this one. An expired lease still counts until
    /// somebody has taken note: its holder is alive after all.
    fn held(&mut self, lease: &str) -> Result<&mut Lease, Refused> {
        if self.phase != Phase::Working {
            return Err(Refused::LeaseLost);
        }
        self.lease
            .as_mut()
            .filter(|held| held.id == lease)
            .ok_or(Refused::LeaseLost)
    }

    /// A new challenge for the requester.
    fn challenge(
        &mut self,
        challenge_id: &str,
        reasons: &[String],
        deadline: Timestamp,
        now: Timestamp,
    ) {
        self.verification = Some(Verification {
            number: self.verification.as_ref().map_or(0, |v| v.number) + 1,
            challenge_id: challenge_id.into(),
            state: VerificationState::Pending,
            reasons: reasons
                .iter()
                .take(20)
                .map(|r| r.chars().take(200).collect())
                .collect(),
            method: None,
            user_id: None,
            address: None,
            started_at: Time(now),
            valid_until: None,
            decided_by: None,
        });
        self.enter(
            Phase::Verifying,
            Reason::Sensitive,
            "waits until the requester has proved who they are",
            now,
        );
        self.deadline = Some(Time(whole_second(deadline)));
    }

    /// The verification this answer is for, if it still waits for one: the first answer counts.
    fn answered(
        &mut self,
        challenge_id: &str,
        state: VerificationState,
    ) -> Option<&mut Verification> {
        let waits = self.phase == Phase::Verifying;
        let verification = self
            .verification
            .as_mut()
            .filter(|v| waits && v.challenge_id == challenge_id)?;
        verification.state = state;
        Some(verification)
    }

    pub fn approval_is(&self, state: ApprovalState) -> bool {
        self.approval.as_ref().is_some_and(|a| a.state == state)
    }

    fn decide(
        &mut self,
        state: ApprovalState,
        by: Option<i64>,
        action: Option<i64>,
        now: Timestamp,
    ) {
        if let Some(approval) = &mut self.approval {
            approval.state = state;
            approval.decided_by = by;
            approval.decided_action = action;
            approval.decided_at = Some(Time(now));
        }
    }

    /// Ends every step in such a state.
    fn settle(&mut self, end: StepState, which: impl Fn(StepState) -> bool) {
        for step in self.steps.iter_mut().filter(|s| which(s.state)) {
            step.end(end, step.result.clone().as_deref().unwrap_or_default());
        }
    }

    fn seen(&mut self, up_to: i64, assigned_agent: Option<i64>) {
        self.seen_action = self.seen_action.max(Some(up_to));
        if let (Some(approval), Some(agent)) = (&mut self.approval, assigned_agent) {
            approval.assigned_agent = Some(agent);
        }
    }

    fn wake_again(
        &mut self,
        reason: ResumeReason,
        replies: &[i64],
        phase_reason: Reason,
        message: &str,
        now: Timestamp,
    ) {
        self.enter(Phase::Ready, phase_reason, message, now);
        self.turn += 1;
        self.attempts = 0;
        self.resume = Some(Resume {
            reason,
            replies: replies.iter().copied().take(MAX_REPLIES).collect(),
        });
    }

    /// The number of the next step.
    pub fn next_step(&self) -> i32 {
        self.steps
            .iter()
            .map(|s| s.number)
            .max()
            .unwrap_or_default()
            + 1
    }

    fn add_step(&mut self, step: &Step, state: StepState, now: Timestamp) -> Result<(), Refused> {
        if step.number != self.next_step() {
            return Err(Refused::NoSuchStep);
        }
        while self.steps.len() >= STEP_LIMIT {
            let Some(oldest) = self.steps.iter().position(|s| s.state.is_final()) else {
                return Err(Refused::TooManySteps);
            };
            self.steps.remove(oldest);
        }
        self.steps.push(Step {
            state,
            recorded_at: Time(now),
            run: self.run,
            ..step.clone()
        });
        Ok(())
    }

    /// Adds a tool call to the journal.
    pub fn record_call(&mut self, call: &ToolCall, by: Actor<'_>, now: Timestamp) {
        self.record("ToolCalled", by, None, now);
        if let Some(entry) = self.journal.last_mut() {
            entry.call = Some(call.clone());
        }
    }

    /// Adds a journal entry; the oldest go when there are too many.
    pub fn record(&mut self, event: &str, by: Actor<'_>, detail: Option<String>, now: Timestamp) {
        self.journal.push(JournalEntry {
            time: Some(Time(whole_second(now))),
            event: event.into(),
            by: Some(by.as_str().chars().take(100).collect()),
            detail: detail.map(|d| d.chars().take(300).collect()),
            call: None,
        });
        self.journal_total = Some(self.journal_total.unwrap_or_default() + 1);
        let excess = self.journal.len().saturating_sub(JOURNAL_LIMIT);
        self.journal.drain(..excess);
    }
}

impl Step {
    fn end(&mut self, state: StepState, result: &str) {
        self.state = state;
        self.result = (!result.is_empty()).then(|| result.chars().take(300).collect());
        // The whole call was needed to run it; what stays is for people, and holds no secret and no text.
        self.arguments = crate::text::mask::arguments(&self.arguments);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn claimed(lease: &str, until: i64) -> Event {
        Event::Claimed {
            lease: lease.into(),
            holder: "pod".into(),
            expires_at: at(until),
            mode: Mode::Plan,
        }
    }

    fn run(events: &[(Event, i64)]) -> TicketStatus {
        events
            .iter()
            .fold(received(at(0)), |status, (event, second)| {
                apply(&status, event, Actor::Gateway, at(*second)).unwrap()
            })
    }

    #[test]
    fn plan_mode_all_the_way() {
        let marker = "m".to_string();
        let status = run(&[
            (Event::Accepted, 1),
            (claimed("a", 60), 2),
            (
                Event::WriteIntended {
                    kind: IntentKind::PlanNote,
                    marker: marker.clone(),
                },
                3,
            ),
            (
                Event::WritePosted {
                    marker,
                    action_id: Some(7),
                },
                4,
            ),
            (Event::Completed { lease: "a".into() }, 5),
        ]);
        assert_eq!(status.phase, Phase::Done);
        assert_eq!(status.intents[0].action_id, Some(7));
        assert!(status.lease.is_none());
        assert!(condition::is_true(&status.conditions, condition::FINISHED));
        assert_eq!(status.journal.last().unwrap().event, "Completed");
        assert_eq!(owed(&status), None);
    }

    #[test]
    fn a_dead_agent_loses_the_ticket_and_five_dead_agents_fail_it() {
        let mut status = run(&[(Event::Accepted, 0)]);
        for attempt in 1..=MAX_ATTEMPTS {
            let now = i64::from(attempt) * 100;
            status = apply(&status, &claimed("x", now + 60), Actor::Gateway, at(now)).unwrap();
            assert_eq!(
                apply(
                    &status,
                    &Event::LeaseExpired,
                    Actor::Controller,
                    at(now + 59)
                ),
                Err(Refused::TooEarly)
            );
            assert_eq!(due(&status, at(now + 60)), Some(Event::LeaseExpired));
            status = apply(
                &status,
                &Event::LeaseExpired,
                Actor::Controller,
                at(now + 60),
            )
            .unwrap();
        }
        assert_eq!(status.phase, Phase::Failed);
        assert_eq!(owed(&status), Some(Owed::FailureNote));
    }

    #[test]
    fn a_lost_lease_can_do_nothing() {
        let status = run(&[
            (Event::Accepted, 0),
            (claimed("a", 60), 1),
            (Event::LeaseExpired, 61),
            (claimed("b", 120), 62),
        ]);
        for event in [
            Event::Heartbeat {
                lease: "a".into(),
                expires_at: at(200),
            },
            Event::Completed { lease: "a".into() },
            Event::Released {
                lease: "a".into(),
                holder: "pod".into(),
            },
            Event::StepProposed {
                lease: "a".into(),
                step: Box::new(step(1)),
            },
            Event::StepStarted {
                lease: "a".into(),
                step: Box::new(step(1)),
            },
            Event::ApprovalPrepared {
                lease: "a".into(),
                approval: Box::new(approval(&[1], 500)),
            },
            Event::TurnEnded { lease: "a".into() },
        ] {
            assert_eq!(
                apply(&status, &event, Actor::Gateway, at(63)),
                Err(Refused::LeaseLost)
            );
        }
    }

    #[test]
    fn a_release_does_not_count_as_an_attempt() {
        let status = run(&[
            (Event::Accepted, 0),
            (claimed("a", 60), 1),
            (
                Event::Released {
                    lease: "a".into(),
                    holder: "p".into(),
                },
                2,
            ),
        ]);
        assert_eq!((status.phase, status.attempts), (Phase::Ready, 0));
    }

    #[test]
    fn reopening_starts_a_new_turn_once_per_request() {
        let done = run(&[
            (Event::Accepted, 0),
            (claimed("a", 60), 1),
            (Event::Completed { lease: "a".into() }, 2),
        ]);
        let again = apply(
            &done,
            &Event::Reopened {
                request: "1".into(),
            },
            Actor::Gateway,
            at(3),
        )
        .unwrap();
        assert_eq!(
            (again.phase, again.run, again.attempts),
            (Phase::Received, 1, 0)
        );
        let done = apply(
            &again,
            &Event::Ignored {
                reason: Reason::Closed,
                message: String::new(),
            },
            Actor::Gateway,
            at(4),
        )
        .unwrap();
        assert!(
            apply(
                &done,
                &Event::Reopened {
                    request: "1".into()
                },
                Actor::Gateway,
                at(5)
            )
            .is_err()
        );
        assert!(
            apply(
                &done,
                &Event::Reopened {
                    request: "2".into()
                },
                Actor::Gateway,
                at(5)
            )
            .is_ok()
        );
    }

    fn challenged(deadline: i64) -> Event {
        Event::VerificationStarted {
            challenge_id: "c".into(),
            reasons: vec!["mfa-reset: 'new phone'".into()],
            deadline: at(deadline),
            lease: None,
        }
    }

    #[test]
    fn a_verification_all_the_way() {
        let sent = || {
            (
                Event::ChallengeSent {
                    method: "push".into(),
                    user_id: 7,
                    address: "k***@x".into(),
                },
                2,
            )
        };
        let status = run(&[(challenged(300), 1), sent()]);
        assert!(
            apply(&status, &claimed("a", 60), Actor::Gateway, at(3)).is_err(),
            "nobody gets it meanwhile"
        );
        assert_eq!(owed(&status), Some(Owed::VerificationNote));
        let verified = then(
            &status,
            &[(
                Event::Verified {
                    challenge_id: "c".into(),
                    valid_until: at(900),
                },
                10,
            )],
        );
        assert_eq!(verified.phase, Phase::Ready);
        assert!(
            is_verified(&verified, Some(7), at(899)) && !is_verified(&verified, Some(7), at(900)),
            "for a time"
        );
        assert!(
            !is_verified(&verified, Some(8), at(20)) && !is_verified(&verified, None, at(20)),
            "for this requester"
        );
        // The first answer counts; one to another challenge never does.
        let denied = Event::VerificationFailed {
            challenge_id: "c".into(),
            state: VerificationState::Denied,
            message: "no".into(),
        };
        assert!(apply(&verified, &denied, Actor::Gateway, at(11)).is_err());
        assert!(
            apply(
                &status,
                &Event::Verified {
                    challenge_id: "x".into(),
                    valid_until: at(900)
                },
                Actor::Gateway,
                at(11)
            )
            .is_err()
        );
        let refused = then(&status, &[(denied, 10)]);
        assert_eq!(
            (refused.phase, refused.verification.as_ref().unwrap().state),
            (Phase::Refused, VerificationState::Denied)
        );
        assert!(
            apply(
                &refused,
                &Event::Verified {
                    challenge_id: "c".into(),
                    valid_until: at(900)
                },
                Actor::Gateway,
                at(11)
            )
            .is_err(),
            "too late"
        );
        let again = then(
            &refused,
            &[(
                Event::VerifyAgain {
                    by: 3,
                    action: 5,
                    challenge_id: "d".into(),
                    deadline: at(400),
                },
                20,
            )],
        );
        assert_eq!(
            (again.phase, again.verification.as_ref().unwrap().number),
            (Phase::Verifying, 2)
        );
        let overridden = then(
            &again,
            &[(
                Event::VerificationOverridden {
                    by: 3,
                    action: 6,
                    valid_until: at(900),
                },
                30,
            )],
        );
        assert!(overridden.phase == Phase::Ready && is_verified(&overridden, None, at(40)));
    }

    #[test]
    fn a_ticket_that_becomes_sensitive_is_taken_from_its_agent() {
        let working = run(&[(Event::Accepted, 0), (claimed("a", 60), 1)]);
        let started = |lease: Option<&str>| Event::VerificationStarted {
            challenge_id: "c".into(),
            reasons: Vec::new(),
            deadline: at(300),
            lease: lease.map(str::to_string),
        };
        assert!(
            apply(&working, &started(None), Actor::Gateway, at(2)).is_err()
                && apply(&working, &started(Some("b")), Actor::Gateway, at(2)).is_err()
        );
        let paused = then(&working, &[(started(Some("a")), 2)]);
        assert_eq!(
            (paused.phase, paused.lease.is_none()),
            (Phase::Verifying, true)
        );
    }

    fn step(number: i32) -> Step {
        Step {
            number,
            run: 0,
            tool: "halopsa_update_ticket".into(),
            arguments: "{}".into(),
            hash: format!("h{number}"),
            pin: String::new(),
            why: None,
            rule: "built-in".into(),
            state: StepState::Proposed,
            marker: format!("m-step{number:03}"),
            recorded_at: Time(at(0)),
            result: None,
            approvers: None,
        }
    }

    fn approval(steps: &[i32], expires: i64) -> Approval {
        Approval {
            number: 1,
            hash: "abc".into(),
            steps: steps.to_vec(),
            state: ApprovalState::Preparing,
            expires_at: Time(at(expires)),
            remind_at: Some(Time(at(expires / 2))),
            action_id: None,
            assigned_agent: Some(3),
            decided_by: None,
            decided_action: None,
            decided_at: None,
        }
    }

    /// Two steps on the ticket, a technician asked about both.
    fn asked() -> TicketStatus {
        let lease = || "a".to_string();
        run(&[
            (Event::Accepted, 0),
            (claimed("a", 60), 1),
            (
                Event::StepProposed {
                    lease: lease(),
                    step: Box::new(step(1)),
                },
                2,
            ),
            (
                Event::StepProposed {
                    lease: lease(),
                    step: Box::new(step(2)),
                },
                3,
            ),
            (
                Event::ApprovalPrepared {
                    lease: lease(),
                    approval: Box::new(approval(&[1, 2], 300)),
                },
                4,
            ),
            (
                Event::ApprovalRequested {
                    lease: lease(),
                    action_id: Some(9),
                },
                5,
            ),
        ])
    }

    fn then(status: &TicketStatus, events: &[(Event, i64)]) -> TicketStatus {
        events
            .iter()
            .fold(status.clone(), |status, (event, second)| {
                apply(&status, event, Actor::Gateway, at(*second)).unwrap()
            })
    }

    #[test]
    fn an_approval_all_the_way() {
        let status = asked();
        assert_eq!(
            (status.phase, status.seen_action),
            (Phase::AwaitingApproval, Some(9))
        );
        assert_eq!(
            wakes_at(&status),
            Some(at(150)),
            "a reminder comes before the end"
        );
        let taken = then(
            &status,
            &[
                (
                    Event::Approved {
                        by: 3,
                        action: 11,
                        messages: vec![10],
                    },
                    10,
                ),
                (
                    Event::StepsTaken {
                        lease: "g".into(),
                        holder: "gateway".into(),
                        expires_at: at(60),
                    },
                    11,
                ),
                (
                    Event::StepSent {
                        lease: "g".into(),
                        number: 1,
                    },
                    12,
                ),
                (
                    Event::StepEnded {
                        number: 1,
                        state: StepState::Done,
                        result: "done".into(),
                    },
                    13,
                ),
                (
                    Event::StepSent {
                        lease: "g".into(),
                        number: 2,
                    },
                    14,
                ),
                (
                    Event::StepEnded {
                        number: 2,
                        state: StepState::Failed,
                        result: "no".into(),
                    },
                    15,
                ),
                (Event::StepsFinished { lease: "g".into() }, 16),
            ],
        );
        assert_eq!(
            (taken.phase, taken.turn, taken.attempts),
            (Phase::Ready, 1, 0)
        );
        assert_eq!(
            taken.resume,
            Some(Resume {
                reason: ResumeReason::StepsRun,
                replies: vec![10]
            })
        );
        assert!(taken.approval_is(ApprovalState::Executed));
        // The same yes again runs nothing.
        assert!(
            apply(
                &taken,
                &Event::Approved {
                    by: 3,
                    action: 11,
                    messages: vec![]
                },
                Actor::Gateway,
                at(20)
            )
            .is_err()
        );
        assert!(
            apply(
                &taken,
                &Event::StepsTaken {
                    lease: "g".into(),
                    holder: "g".into(),
                    expires_at: at(90)
                },
                Actor::Gateway,
                at(20)
            )
            .is_err()
        );
        let done = then(
            &taken,
            &[
                (claimed("b", 90), 21),
                (Event::Completed { lease: "b".into() }, 22),
            ],
        );
        assert_eq!((done.phase, done.resume), (Phase::Done, None));
    }

    #[test]
    fn a_gateway_that_dies_hands_the_steps_to_the_next() {
        let status = then(
            &asked(),
            &[
                (
                    Event::Approved {
                        by: 3,
                        action: 11,
                        messages: vec![],
                    },
                    10,
                ),
                (
                    Event::StepsTaken {
                        lease: "g".into(),
                        holder: "one".into(),
                        expires_at: at(60),
                    },
                    11,
                ),
                (
                    Event::StepSent {
                        lease: "g".into(),
                        number: 1,
                    },
                    12,
                ),
                (Event::LeaseExpired, 60),
            ],
        );
        assert_eq!(
            (status.phase, status.steps[0].state),
            (Phase::AwaitingApproval, StepState::Running)
        );
        assert!(
            apply(&status, &claimed("agent", 200), Actor::Gateway, at(61)).is_err(),
            "no agent gets it meanwhile"
        );
        let status = then(
            &status,
            &[(
                Event::StepsTaken {
                    lease: "h".into(),
                    holder: "two".into(),
                    expires_at: at(120),
                },
                61,
            )],
        );
        // The first, if it lives after all, cannot go on; what it had sent it may still report.
        assert_eq!(
            apply(
                &status,
                &Event::StepSent {
                    lease: "g".into(),
                    number: 2
                },
                Actor::Gateway,
                at(62)
            ),
            Err(Refused::LeaseLost)
        );
        assert!(
            apply(
                &status,
                &Event::StepEnded {
                    number: 1,
                    state: StepState::Done,
                    result: "x".into()
                },
                Actor::Gateway,
                at(62)
            )
            .is_ok()
        );
        // Five gateways that die fail the ticket, and a human is told.
        let mut status = status;
        for n in 0..MAX_ATTEMPTS {
            let now = 200 + i64::from(n) * 100;
            status = then(&status, &[(Event::LeaseExpired, now)]);
            if status.phase.is_terminal() {
                break;
            }
            status = then(
                &status,
                &[(
                    Event::StepsTaken {
                        lease: "h".into(),
                        holder: "x".into(),
                        expires_at: at(now + 50),
                    },
                    now + 1,
                )],
            );
        }
        assert_eq!(
            (status.phase, status.steps[0].state, status.steps[1].state),
            (Phase::Failed, StepState::Unknown, StepState::Superseded)
        );
        assert_eq!(owed(&status), Some(Owed::FailureNote));
    }

    #[test]
    fn a_denial_and_an_expiry_are_owed_a_note_and_run_nothing() {
        let denied = then(
            &asked(),
            &[(
                Event::Denied {
                    by: 3,
                    action: 11,
                    messages: vec![],
                },
                10,
            )],
        );
        assert_eq!(
            (denied.phase, owed(&denied)),
            (Phase::Ready, Some(Owed::DecisionNote))
        );
        assert!(denied.steps.iter().all(|s| s.state == StepState::Denied));
        let expired = then(&asked(), &[(Event::DeadlinePassed, 300)]);
        assert_eq!(
            (expired.phase, owed(&expired)),
            (Phase::Done, Some(Owed::DecisionNote))
        );
        let marker = format!(
            "rallied-x-0-{}",
            decision_tag(expired.approval.as_ref().unwrap())
        );
        let noted = then(
            &expired,
            &[
                (
                    Event::WriteIntended {
                        kind: IntentKind::DecisionNote,
                        marker: marker.clone(),
                    },
                    301,
                ),
                (
                    Event::WritePosted {
                        marker,
                        action_id: None,
                    },
                    302,
                ),
            ],
        );
        assert_eq!(owed(&noted), None);
        assert!(
            apply(
                &noted,
                &Event::Approved {
                    by: 3,
                    action: 12,
                    messages: vec![]
                },
                Actor::Gateway,
                at(303)
            )
            .is_err()
        );
    }

    #[test]
    fn a_message_wakes_the_agent_and_the_request_stands() {
        let woken = then(
            &asked(),
            &[(
                Event::Messages {
                    replies: vec![10],
                    up_to: 10,
                    assigned_agent: Some(4),
                },
                10,
            )],
        );
        assert_eq!(
            (woken.phase, woken.turn, woken.seen_action),
            (Phase::Ready, 1, Some(10))
        );
        assert!(
            woken.approval_is(ApprovalState::Requested)
                && woken.steps[0].state == StepState::Waiting
        );
        let back = then(
            &woken,
            &[
                (claimed("b", 90), 11),
                (Event::TurnEnded { lease: "b".into() }, 12),
            ],
        );
        assert_eq!(
            (back.phase, back.deadline.clone().map(|d| d.0)),
            (Phase::AwaitingApproval, Some(at(300)))
        );
        // A new step makes a new request, and the old yes-to-be is void.
        let again = then(
            &woken,
            &[
                (claimed("b", 90), 11),
                (
                    Event::StepProposed {
                        lease: "b".into(),
                        step: Box::new(step(3)),
                    },
                    12,
                ),
                (
                    Event::ApprovalPrepared {
                        lease: "b".into(),
                        approval: Box::new(Approval {
                            number: 2,
                            ..approval(&[1, 2, 3], 400)
                        }),
                    },
                    13,
                ),
                (
                    Event::ApprovalRequested {
                        lease: "b".into(),
                        action_id: Some(14),
                    },
                    14,
                ),
            ],
        );
        assert!(again.steps.iter().all(|s| s.state == StepState::Waiting));
        assert_eq!(again.approval.unwrap().action_id, Some(14));
    }

    #[test]
    fn what_a_dead_agent_proposed_is_not_asked_for() {
        let status = run(&[
            (Event::Accepted, 0),
            (claimed("a", 60), 1),
            (
                Event::StepProposed {
                    lease: "a".into(),
                    step: Box::new(step(1)),
                },
                2,
            ),
            (Event::LeaseExpired, 60),
            (claimed("b", 120), 61),
        ]);
        assert_eq!(status.steps[0].state, StepState::Superseded);
    }

    #[test]
    fn only_so_many_steps_wait() {
        let mut status = run(&[(Event::Accepted, 0), (claimed("a", 60), 1)]);
        for n in 1..=OPEN_STEPS as i32 {
            status = then(
                &status,
                &[(
                    Event::StepProposed {
                        lease: "a".into(),
                        step: Box::new(step(n)),
                    },
                    2,
                )],
            );
        }
        let one_more = Event::StepProposed {
            lease: "a".into(),
            step: Box::new(step(OPEN_STEPS as i32 + 1)),
        };
        assert_eq!(
            apply(&status, &one_more, Actor::Gateway, at(3)),
            Err(Refused::TooManySteps)
        );
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        for (status, phase) in [
            (run(&[]), Phase::Failed),
            (run(&[(Event::Accepted, 0)]), Phase::Failed),
            (run(&[(challenged(300), 0)]), Phase::Refused),
            (asked(), Phase::Done),
        ] {
            let deadline = status
                .deadline
                .as_ref()
                .expect("a waiting phase has a deadline")
                .0;
            assert_eq!(due(&status, deadline), Some(Event::DeadlinePassed));
            assert_eq!(
                apply(&status, &Event::DeadlinePassed, Actor::Gateway, deadline)
                    .unwrap()
                    .phase,
                phase
            );
        }
    }

    fn event() -> impl Strategy<Value = Event> {
        let lease = prop_oneof![Just("a".to_string()), Just("b".to_string())];
        let marker = prop_oneof![Just("m".to_string()), Just("n".to_string())];
        prop_oneof![
            Just(Event::Accepted),
            (0i64..500).prop_map(challenged),
            Just(Event::ChallengeSent {
                method: "m".into(),
                user_id: 7,
                address: "a".into()
            }),
            Just(Event::Verified {
                challenge_id: "c".into(),
                valid_until: at(900)
            }),
            Just(Event::VerificationFailed {
                challenge_id: "c".into(),
                state: VerificationState::Denied,
                message: "no".into()
            }),
            Just(Event::VerificationSkipped {
                valid_until: at(900)
            }),
            (0i64..500).prop_map(|t| Event::VerifyAgain {
                by: 3,
                action: 5,
                challenge_id: "d".into(),
                deadline: at(t)
            }),
            Just(Event::VerificationOverridden {
                by: 3,
                action: 5,
                valid_until: at(900)
            }),
            lease.clone().prop_map(|lease| Event::PlanOnly { lease }),
            (lease.clone(), 0i64..500).prop_map(|(l, t)| claimed(&l, t)),
            (lease.clone(), 0i64..500).prop_map(|(lease, t)| Event::Heartbeat {
                lease,
                expires_at: at(t)
            }),
            lease.clone().prop_map(|lease| Event::Released {
                lease,
                holder: "p".into()
            }),
            Just(Event::LeaseExpired),
            Just(Event::DeadlinePassed),
            marker.clone().prop_map(|marker| Event::WriteIntended {
                kind: IntentKind::PlanNote,
                marker
            }),
            marker.clone().prop_map(|marker| Event::WritePosted {
                marker,
                action_id: None
            }),
            marker.prop_map(|marker| Event::WriteRefused { marker }),
            lease.clone().prop_map(|lease| Event::Completed { lease }),
            (lease.clone(), 1i32..6).prop_map(|(lease, n)| Event::StepProposed {
                lease,
                step: Box::new(step(n))
            }),
            (lease.clone(), 1i32..6).prop_map(|(lease, n)| Event::StepStarted {
                lease,
                step: Box::new(step(n))
            }),
            (lease.clone(), 1i32..6).prop_map(|(lease, number)| Event::StepSent { lease, number }),
            (
                1i32..6,
                prop_oneof![
                    Just(StepState::Done),
                    Just(StepState::Failed),
                    Just(StepState::Waiting)
                ]
            )
                .prop_map(|(number, state)| Event::StepEnded {
                    number,
                    state,
                    result: "x".into()
                }),
            (lease.clone(), 0i64..900).prop_map(|(lease, t)| Event::ApprovalPrepared {
                lease,
                approval: Box::new(approval(&[1, 2, 3], t))
            }),
            (lease.clone(), 1i64..9).prop_map(|(lease, id)| Event::ApprovalRequested {
                lease,
                action_id: Some(id)
            }),
            lease.clone().prop_map(|lease| Event::TurnEnded { lease }),
            (1i64..9).prop_map(|up_to| Event::RepliesSeen {
                up_to,
                assigned_agent: Some(3)
            }),
            (1i64..9).prop_map(|up_to| Event::Messages {
                replies: vec![up_to],
                up_to,
                assigned_agent: Some(3)
            }),
            (1i64..9).prop_map(|action| Event::Approved {
                by: 3,
                action,
                messages: Vec::new()
            }),
            (1i64..9).prop_map(|action| Event::Denied {
                by: 3,
                action,
                messages: Vec::new()
            }),
            (lease.clone(), 0i64..500).prop_map(|(lease, t)| Event::StepsTaken {
                lease,
                holder: "g".into(),
                expires_at: at(t)
            }),
            lease.prop_map(|lease| Event::StepsFinished { lease }),
            Just(Event::Ignored {
                reason: Reason::Closed,
                message: "closed".into()
            }),
            Just(Event::Failed {
                reason: Reason::StepsNotRun,
                message: "broken".into()
            }),
            "[0-9]".prop_map(|request| Event::Reopened { request }),
        ]
    }

    proptest! {
        #[test]
        fn no_sequence_of_events_leaves_the_legal_states(events in prop::collection::vec((event(), 0i64..1000), 0..80)) {
            let mut status = received(at(0));
            for (event, second) in events {
                let Ok(next) = apply(&status, &event, Actor::Gateway, at(second)) else { continue };
                // Terminal is terminal until a human reopens.
                let human = matches!(event, Event::Reopened { .. } | Event::VerifyAgain { .. } | Event::VerificationOverridden { .. });
                if status.phase.is_terminal() && !human {
                    prop_assert_eq!(next.phase, status.phase);
                }
                // A lease belongs to Working and to nothing else.
                prop_assert_eq!(next.lease.is_some(), next.phase == Phase::Working);
                // Whatever waits has an end.
                if !next.phase.is_terminal() {
                    prop_assert!(wakes_at(&next).is_some());
                }
                // Only a claim of a Ready ticket starts work, or a gateway that takes approved steps.
                if next.phase == Phase::Working && status.phase != Phase::Working {
                    let takes = status.phase == Phase::AwaitingApproval && status.approval_is(ApprovalState::Approved);
                    prop_assert!(status.phase == Phase::Ready || takes);
                }
                for step in &next.steps {
                    let before = status.steps.iter().find(|s| s.number == step.number).map(|s| s.state);
                    // A step that waited is sent only by a yes to a request that names it.
                    if step.state == StepState::Running && before == Some(StepState::Waiting) {
                        prop_assert!(status.approval.as_ref().is_some_and(|a| a.state == ApprovalState::Approved && a.steps.contains(&step.number)));
                    }
                    // What was proposed is not sent before somebody was asked; what is over is over.
                    prop_assert!(!(step.state == StepState::Running && before == Some(StepState::Proposed)));
                    prop_assert!(before.is_none_or(|b| !b.is_final() || b == step.state));
                }
                // Nobody gets a ticket while its requester is being asked.
                if status.phase == Phase::Verifying && next.phase != Phase::Verifying && !next.phase.is_terminal() {
                    prop_assert!(next.verification.as_ref().is_some_and(|v| v.state.passes()));
                }
                // Nothing waits or is sent when the ticket is finished.
                if next.phase.is_terminal() {
                    prop_assert!(next.steps.iter().all(|s| s.state.is_final()));
                }
                prop_assert!(next.steps.len() <= STEP_LIMIT && next.turn <= MAX_TURNS);
                // A posted write is never forgotten within its turn.
                for posted in status.intents.iter().filter(|i| i.state == IntentState::Posted) {
                    prop_assert!(next.intents.iter().any(|i| i.marker == posted.marker && i.state == IntentState::Posted));
                }
                prop_assert!((0..=MAX_ATTEMPTS).contains(&next.attempts));
                prop_assert!(next.journal.len() <= JOURNAL_LIMIT);
                prop_assert!(next.run >= status.run);
                status = next;
            }
        }
    }
}
