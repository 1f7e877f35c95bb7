//! What can happen to a ticket, and why an event may not apply.

use super::{AUTO_STEPS, OPEN_STEPS};
use crate::api::Mode;
use crate::api::reason::Reason;
use crate::api::ticket::{Approval, Phase, Step, StepState, VerificationState};
use crate::ids::{ActionId, TechnicianId};
use crate::ticket::marker::Tag;
use k8s_openapi::jiff::Timestamp;

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
        /// The agent's lease, where it already holds the ticket.
        lease: Option<String>,
        /// The newest action on the ticket that was read for the reasons.
        newest_action: Option<ActionId>,
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
    /// The provider could not be reached, and its failurePolicy is Ignore.
    VerificationSkipped {
        /// The requester.
        user_id: Option<i64>,
        valid_until: Timestamp,
    },
    /// A technician has the requester asked again.
    VerifyAgain {
        by: TechnicianId,
        action: ActionId,
        challenge_id: String,
        deadline: Timestamp,
    },
    /// The assigned technician vouches for the requester.
    VerificationOverridden {
        by: TechnicianId,
        action: ActionId,
        /// The requester.
        user_id: Option<i64>,
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
    /// The agent is still working on it.
    Heartbeat {
        lease: String,
        expires_at: Timestamp,
    },
    /// The agent hands it back: it is shutting down, or cannot go on.
    Released { lease: String, holder: String },
    /// The agent was silent until its lease ran out.
    LeaseExpired,
    /// The deadline of a waiting phase has passed.
    DeadlinePassed,
    /// A note is about to be sent to HaloPSA.
    WriteIntended { tag: Tag, marker: String },
    /// HaloPSA has the note.
    WritePosted {
        marker: String,
        action_id: Option<ActionId>,
    },
    /// HaloPSA certainly does not have the note: it rejected it.
    WriteRefused { marker: String },
    /// The agent is done.
    Completed { lease: String },
    /// The agent wants a call that needs approval.
    StepProposed { lease: String, step: Box<Step> },
    /// A call that needs no approval is about to be sent.
    StepStarted { lease: String, step: Box<Step> },
    /// A step that was approved, or whose outcome was unknown, is about to be sent.
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
        action_id: Option<ActionId>,
    },
    /// The agent's turn ends, and the request of an earlier turn is still open.
    TurnEnded { lease: String },
    /// The ticket was read up to this action, and nothing in it decides.
    RepliesSeen {
        up_to: ActionId,
        assigned_agent: Option<TechnicianId>,
    },
    /// Somebody wrote on the ticket, and it is for the agent.
    Messages {
        replies: Vec<ActionId>,
        up_to: ActionId,
        assigned_agent: Option<TechnicianId>,
    },
    Approved {
        by: TechnicianId,
        action: ActionId,
        messages: Vec<ActionId>,
    },
    Denied {
        by: TechnicianId,
        action: ActionId,
        messages: Vec<ActionId>,
    },
    /// A gateway takes the approved steps to run them.
    StepsTaken {
        lease: String,
        holder: String,
        expires_at: Timestamp,
    },
    /// The approved steps were run, as far as they went.
    StepsFinished { lease: String },
    /// Not work for us, or no longer.
    Ignored { reason: Reason, message: String },
    /// It cannot be worked on.
    Failed { reason: Reason, message: String },
    /// A human wants it worked on again.
    Reopened { request: String },
}

/// Why an event does not apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("cannot apply {event} to a ticket in phase {}; re-read the ticket", phase.as_str())]
    WrongPhase { phase: Phase, event: &'static str },
    #[error(
        "the lease is no longer yours: it ran out or another agent has the ticket; \
         drop this ticket and claim again"
    )]
    LeaseLost,
    #[error("the lease or deadline has not run out yet")]
    TooEarly,
    #[error(
        "this write to HaloPSA is already under way; look for its marker before sending it again"
    )]
    AlreadyIntended,
    #[error(
        "{} steps already wait for approval; end the turn so that a technician is asked",
        OPEN_STEPS
    )]
    TooManySteps,
    #[error(
        "{} calls ran without approval in this turn; no more do, so end the turn",
        AUTO_STEPS
    )]
    TooManyAutoSteps,
    #[error("there is no such step, or it has ended")]
    NoSuchStep,
    #[error("{0}")]
    OverBudget(String),
    #[error("a call of the model is under way for this ticket; wait for its answer")]
    ModelBusy,
}

impl Event {
    pub(super) fn name(&self) -> &'static str {
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

    /// What the journal says beside the event's name.
    pub(super) fn detail(&self) -> Option<String> {
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
                Some(format!("replies for the agent: {}", replies.len()))
            }
            Event::VerificationFailed { state, .. } => Some(format!("{state:?}")),
            Event::Approved { by, action, .. }
            | Event::Denied { by, action, .. }
            | Event::VerifyAgain { by, action, .. }
            | Event::VerificationOverridden { by, action, .. } => {
                Some(format!("technician {by}, reply {action}"))
            }
            _ => None,
        }
    }
}
