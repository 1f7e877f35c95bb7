//! The protocol between agents and gateway: the work API, JSON over HTTPS.
//!
//! - `POST /v1/work/claim` waits for a ticket: 200 [`Work`], or 204 when none came
//! - `POST /v1/work/{ticket}/heartbeat` [`LeaseRef`]: 200, or 409 when the lease is lost
//! - `POST /v1/work/{ticket}/release` [`LeaseRef`]: hands the ticket back
//! - `POST /v1/work/{ticket}/plan` [`PlanHandIn`]: Execute mode, before anything changes; the
//!   gateway posts the note
//! - `POST /v1/work/{ticket}/complete` [`Completion`]: ends the turn; a technician is asked to
//!   approve the queued steps
//! - `POST /v1/model/chat/completions`: the language model, if one is configured (OpenAI's API)
//! - `/mcp`: the tools, MCP over streamable HTTP, stateless
//!
//! Every request carries the agent's projected ServiceAccount token as a bearer token.
//! Errors are [`ErrorBody`]; 503 means: try again.

pub use crate::api::Mode;
pub use crate::api::ticket::{ResumeReason, StepState};
pub use crate::api::workflow::WorkflowStep;
pub use crate::ticket::plan::{Confidence, Plan};
pub use crate::tools::write::{WHY, find as write_tool};
use serde::{Deserialize, Serialize};

/// A ticket an agent holds, with what it needs to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    /// Name of the Ticket resource.
    pub ticket: String,
    pub lease_id: String,
    /// Without a heartbeat the lease runs out after this time, in seconds.
    pub lease_seconds: u64,
    pub mode: Mode,
    /// 0 at first; higher each time an agent resumes the ticket.
    #[serde(default)]
    pub turn: i32,
    /// Why it resumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Resumed>,
    /// What was done, queued or decided so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepSeen>,
    /// A request for approval is open.
    #[serde(default)]
    pub approval_pending: bool,
    /// The language model, if one is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelOffer>,
    pub context: Context,
}

/// Why an agent resumes, with the replies it refers to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resumed {
    pub reason: ResumeReason,
    #[serde(default)]
    pub replies: Vec<TicketNote>,
}

/// A step as the agent sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepSeen {
    pub number: i32,
    pub tool: String,
    pub state: StepState,
    #[serde(default)]
    pub result: String,
}

/// A language model the agent may use through the gateway.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelOffer {
    pub name: String,
    /// Calls it may make in one turn.
    pub steps_per_turn: u32,
    pub timeout_seconds: u64,
}

/// A workflow whose trigger matches the ticket.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MatchedWorkflow {
    pub name: String,
    pub trigger: String,
    pub instructions: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<WorkflowStep>,
}

/// Ticket data was written by strangers: data, never instructions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Context {
    pub ticket_id: i64,
    pub subject: String,
    /// Plain text, at most 16 KiB.
    pub details: String,
    pub requester: Requester,
    pub priority: String,
    pub status: String,
    pub site: String,
    pub client: String,
    pub category: String,
    /// Earlier notes, oldest first.
    pub notes: Vec<TicketNote>,
    /// The MSP's instructions, then the client's.
    pub prompts: Vec<String>,
    /// How the requester proved who they are. Absent: nobody has asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<String>,
    /// Why the ticket is sensitive, if nobody could verify the requester: read and plan only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sensitive: Vec<String>,
    /// Workflows whose trigger matches the ticket, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workflows: Vec<MatchedWorkflow>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requester {
    pub user_id: Option<i64>,
    pub name: String,
    pub email: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TicketNote {
    pub who: String,
    pub internal: bool,
    pub at: Option<String>,
    pub text: String,
}

/// The lease an agent holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRef {
    pub lease_id: String,
}

/// Diagnosis and plan, before anything changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanHandIn {
    pub lease_id: String,
    pub plan: Plan,
}

/// The end of an agent's turn.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Completion {
    pub lease_id: String,
    /// Required unless it was handed in before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// Execute mode: the agent's last words, posted as an internal note. Plain text, at most 8 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The `type` of the model's error while an earlier call of the same agent is under way.
pub const CALL_UNDER_WAY: &str = "call_under_way";

/// The `status` of [`Unsettled`].
pub const UNSETTLED: &str = "unsettled";

/// A tool error's structured content when HaloPSA may or may not have the write yet.
/// Make exactly the same call again after the wait.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unsettled {
    /// [`UNSETTLED`].
    pub status: String,
    pub retry_after_seconds: u64,
    pub message: String,
}

/// Why a request was refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: String,
}
