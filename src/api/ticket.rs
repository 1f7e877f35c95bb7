//! Ticket: a HaloPSA ticket being handled. The durable queue and the activity log.

use super::{LocalRef, Mode};
use crate::ids::{ActionId, TechnicianId};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Set this annotation to a new value to have a finished ticket worked on again.
pub const REOPEN_ANNOTATION: &str = "rallied.ai/reopen";

/// Set by the receiver when something happens on a ticket that waits for a technician.
pub const REQUESTED_AT_ANNOTATION: &str = "rallied.ai/requestedAt";

/// A HaloPSA ticket being handled. Written by the operator; read it with kubectl.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "rallied.ai",
    version = "v1alpha1",
    kind = "Ticket",
    plural = "tickets",
    shortname = "ht",
    category = "rallied",
    namespaced,
    status = "TicketStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A HaloPSA ticket being handled. Written by the operator; annotate it with \
           rallied.ai/reopen to have it worked on again.",
    printcolumn(name = "Client", type_ = "string", json_path = ".spec.clientRef.name"),
    printcolumn(name = "Ticket", type_ = "integer", json_path = ".spec.ticketId"),
    printcolumn(name = "Subject", type_ = "string", json_path = ".spec.subject"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".status.mode"),
    printcolumn(
        name = "Verified",
        type_ = "string",
        json_path = ".status.verification.state"
    ),
    printcolumn(
        name = "Approval",
        type_ = "string",
        json_path = ".status.approval.state",
        priority = 1
    ),
    printcolumn(
        name = "Agent",
        type_ = "string",
        json_path = ".status.lease.holder",
        priority = 1
    ),
    printcolumn(
        name = "Attempts",
        type_ = "integer",
        json_path = ".status.attempts",
        priority = 1
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.reason",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    selectable = ".spec.connectionRef.name"
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "self.ticketId == oldSelf.ticketId \
         && self.connectionRef.name == oldSelf.connectionRef.name"
    )
    .message("ticketId and connectionRef are immutable")
)]
pub struct TicketSpec {
    /// HaloPSAConnection of the ticket. Immutable.
    pub connection_ref: LocalRef,
    /// ImportedClient of the ticket. Absent while the client is looked up because the webhook did
    /// not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ref: Option<LocalRef>,
    /// ID of the ticket in HaloPSA. Immutable.
    #[schemars(range(min = 1, max = 2147483647))]
    pub ticket_id: i64,
    /// ID of the client the ticket belongs to, as last reported by HaloPSA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halo_client_id: Option<i64>,
    /// The ticket's summary, truncated. Absent with `privacy.hideSubjects`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub subject: Option<String>,
    /// HaloPSA reported the ticket as closed or deleted.
    #[serde(default)]
    pub closed: bool,
    /// How the ticket was first noticed: `Webhook` or `Sweep`.
    #[serde(default)]
    pub source: Source,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Source {
    #[default]
    Webhook,
    Sweep,
}

#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum Phase {
    /// Stored, not checked yet.
    #[default]
    Received,
    /// Waiting for the requester to prove who they are.
    Verifying,
    /// Waiting for an agent.
    Ready,
    /// An agent is working on it.
    Working,
    /// Waiting for a technician to decide.
    AwaitingApproval,
    Done,
    Failed,
    Refused,
    /// Not work: the API agent's own event, closed, moved to another client, client not imported.
    Ignored,
}

impl Phase {
    pub const ALL: [Phase; 9] = [
        Phase::Received,
        Phase::Verifying,
        Phase::Ready,
        Phase::Working,
        Phase::AwaitingApproval,
        Phase::Done,
        Phase::Failed,
        Phase::Refused,
        Phase::Ignored,
    ];

    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            Phase::Done | Phase::Failed | Phase::Refused | Phase::Ignored
        )
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Received => "Received",
            Phase::Verifying => "Verifying",
            Phase::Ready => "Ready",
            Phase::Working => "Working",
            Phase::AwaitingApproval => "AwaitingApproval",
            Phase::Done => "Done",
            Phase::Failed => "Failed",
            Phase::Refused => "Refused",
            Phase::Ignored => "Ignored",
        }
    }
}

/// Progress of a ticket, and what was done for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TicketStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default)]
    pub phase: Phase,
    /// When it entered this phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase_since: Option<Time>,
    /// When a waiting phase times out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// Mode in effect when an agent claimed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Incremented each time the ticket is reopened.
    #[serde(default)]
    pub run: i32,
    /// Attempts made in this run.
    #[serde(default)]
    pub attempts: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// Why it is in this phase, in CamelCase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it is in this phase, human-readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Value of the reopen annotation that was acted on last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reopened: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Incremented within a run each time the agent resumes: with results, a denial, a message.
    #[serde(default)]
    pub turn: i32,
    /// Why the agent resumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
    /// Calls that write, oldest first: run, waiting or rejected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 40))]
    pub steps: Vec<Step>,
    /// Calls that ran without approval in the agent's turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_steps: Option<AutoSteps>,
    /// The latest request for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// Whether the requester has proved who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// The ticket is sensitive and nobody could verify the requester: only the agent that works on
    /// it may read it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sensitive: bool,
    /// ID of the last HaloPSA action on the ticket that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_action: Option<ActionId>,
    /// Use of the language model for this ticket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelUse>,
    /// Writes to HaloPSA, recorded before they are sent so that none is repeated after a crash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub intents: Vec<Intent>,
    /// Number of entries the journal ever had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal_total: Option<i64>,
    /// What happened, oldest first; the newest 50 entries. No ticket text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub journal: Vec<JournalEntry>,
}

/// An agent's lease on a ticket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    pub id: String,
    /// Pod of the agent.
    pub holder: String,
    pub expires_at: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IntentKind {
    /// The internal note with diagnosis and plan.
    PlanNote,
    /// The internal note that says why the ticket was not worked on.
    FailureNote,
    /// The action that asks for approval.
    ApprovalRequest,
    /// The note that repeats the request.
    Reminder,
    /// The note with the outcome of the request.
    DecisionNote,
    /// The note that says why a reply does not count.
    ReplyNote,
    /// The agent's note at the end of a later turn.
    TurnNote,
    /// The note that a challenge was sent, and the one about its outcome.
    VerificationNote,
}

/// The requester's proof of identity, bound to requester, ticket and time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// Counts up on the ticket.
    pub number: i32,
    /// Idempotency key of the challenge: the provider sends one challenge per key, however often it
    /// is asked.
    pub challenge_id: String,
    pub state: VerificationState,
    /// Why the ticket is sensitive, like `mfa-reset: 'new phone'`. The words are the requester's;
    /// absent with `privacy.hideSubjects`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub reasons: Vec<String>,
    /// How the requester was asked, human-readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// ID of the HaloPSA user who was asked, or vouched for. It holds for no other requester.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<i64>,
    /// ID of the newest HaloPSA action on the ticket that was read before. What end users write
    /// later may have the requester asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_action: Option<ActionId>,
    /// Where the challenge was sent, masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    pub started_at: Time,
    /// When the verification expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Time>,
    /// HaloPSA agent ID of the technician who overrode it or had it repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<TechnicianId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VerificationState {
    /// A challenge is about to be sent.
    Pending,
    /// It was sent; the requester has not answered yet.
    Sent,
    Verified,
    Denied,
    Expired,
    Failed,
    /// The assigned technician vouches for the requester.
    Overridden,
    /// The provider could not be reached and its failurePolicy is Ignore.
    Skipped,
}

impl VerificationState {
    /// Whether an agent may work on the ticket.
    pub fn passes(self) -> bool {
        matches!(
            self,
            VerificationState::Verified
                | VerificationState::Overridden
                | VerificationState::Skipped
        )
    }
}

/// Why an agent resumes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resume {
    pub reason: ResumeReason,
    /// IDs of the HaloPSA actions (replies) to read. Their text stays in HaloPSA.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub replies: Vec<ActionId>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ResumeReason {
    /// Approved steps were run.
    #[default]
    StepsRun,
    /// A technician said no.
    Denied,
    /// Someone wrote on the ticket.
    Message,
}

/// A call that writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Counts up on the ticket.
    pub number: i32,
    pub run: i32,
    pub tool: String,
    /// The exact arguments, as JSON with sorted keys: HaloPSA's names with their ids.
    #[schemars(length(max = 8192))]
    pub arguments: String,
    /// SHA-256 of tool, arguments and `pin`.
    pub hash: String,
    /// SHA-256 of the tool's definition, for a ToolServer's tool; and SHA-256 of where the call
    /// goes: the connection's instanceURL, the ToolServer's UID and URL.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pin: String,
    /// Why the agent wants it, in the agent's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The rule that decided.
    pub rule: String,
    pub state: StepState,
    /// Marker in what it writes to HaloPSA, so that it can be found again.
    pub marker: String,
    pub recorded_at: Time,
    /// How it ended, in the operator's words. What a tool returned is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Who may approve it besides the assigned technician.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvers: Option<super::policy::Approvers>,
    /// The tool is destructive or sensitive: a yes has to name the request's number and code.
    #[serde(default)]
    pub high_risk: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StepState {
    /// Queued in this turn; nobody has been asked yet.
    Proposed,
    /// A technician was asked.
    Waiting,
    /// About to be sent, or sent without an answer.
    Running,
    Done,
    Failed,
    /// Sent, but whether it arrived cannot be determined. A human has to check.
    Unknown,
    Denied,
    /// Nobody approved in time.
    Expired,
    /// Replaced, or an earlier step failed, or work on the ticket ended.
    Superseded,
}

impl StepState {
    /// Nothing more happens to it.
    pub fn is_final(self) -> bool {
        !matches!(
            self,
            StepState::Proposed | StepState::Waiting | StepState::Running
        )
    }
}

/// How many calls that write ran without approval, in one turn of the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoSteps {
    pub run: i32,
    pub turn: i32,
    pub count: i32,
}

/// A request for approval, bound to the exact calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// Counts up within the run.
    pub number: i32,
    /// Shown in the request on the ticket. A yes to high-risk steps has to name it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8))]
    pub code: String,
    /// SHA-256 of ticket, run, number, code and steps. The request on the ticket shows its first
    /// characters.
    pub hash: String,
    /// Numbers of the steps.
    pub steps: Vec<i32>,
    pub state: ApprovalState,
    pub expires_at: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remind_at: Option<Time>,
    /// ID of the HaloPSA action that asks. Only later replies count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_id: Option<ActionId>,
    /// Technician assigned to the ticket when it was last checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_agent: Option<TechnicianId>,
    /// HaloPSA agent ID of the technician who decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<TechnicianId>,
    /// ID of the HaloPSA action (reply) that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_action: Option<ActionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Time>,
    /// ID of the last HaloPSA action that had been read before the one that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_after: Option<ActionId>,
    /// Replies that look like a decision and do not count. Technicians are told why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub ignored: Vec<UncountedReply>,
}

/// A reply that looks like a decision and does not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UncountedReply {
    /// ID of the HaloPSA action.
    pub action: ActionId,
    /// Why it does not count, human-readable.
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApprovalState {
    /// Being written to the ticket.
    Preparing,
    /// On the ticket; waiting for a technician to decide.
    Requested,
    /// The gateway runs the steps next.
    Approved,
    /// The steps were run, as far as they went.
    Executed,
    Denied,
    Expired,
    /// Replaced by a newer request, or work on the ticket ended.
    Superseded,
}

/// Tokens used, as the model's provider counts them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelUse {
    pub tokens: i64,
    pub calls: i64,
    /// The UTC day of the last call.
    pub day: String,
    /// Tokens on that day.
    pub tokens_on_day: i64,
    /// The run and turn that `turnCalls` counts for.
    #[serde(default)]
    pub run: i32,
    #[serde(default)]
    pub turn: i32,
    /// Calls in that turn.
    #[serde(default)]
    pub turn_calls: i64,
    /// The call under way. It is counted in full until its use is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<ModelReservation>,
}

/// What a call of the language model may use at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelReservation {
    pub id: String,
    /// The lease of the agent that makes the call.
    pub lease: String,
    pub tokens: i64,
    /// When the call is over in any case.
    pub until: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IntentState {
    /// About to be sent, or sent without an answer.
    Intended,
    /// HaloPSA has it.
    Posted,
}

/// A write to HaloPSA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    pub kind: IntentKind,
    pub run: i32,
    /// Which note of this run, like `plan` or `decision001`.
    #[serde(default)]
    pub tag: String,
    /// Marker in the note's text, so that it can be found again.
    pub marker: String,
    pub state: IntentState,
    pub recorded_at: Time,
    /// ID of the HaloPSA action on its ticket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_id: Option<ActionId>,
}

/// Something that happened to a ticket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JournalEntry {
    pub time: Option<Time>,
    /// What happened, in CamelCase, like `Claimed` or `ToolCalled`.
    pub event: String,
    /// Who did it: a Pod, `controller`, `receiver` or `gateway`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Human-readable details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// A tool call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<ToolCall>,
}

/// A tool call, as recorded in the journal and the audit stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolCall {
    pub tool: String,
    /// Their names; the values of those known to be harmless, of others the length.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub arguments: String,
    /// `Auto`, `ApprovalNeeded` or `Disabled`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub decision: String,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rule: String,
    /// The step it became, if it writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<i32>,
    /// `ok`, `queued`, `refused`, `failed`, ...
    pub outcome: String,
    pub ms: i64,
}
