//! Ticket: a HaloPSA ticket being handled. The durable queue and the activity log.

use super::{LocalRef, Mode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Set this annotation to a new value to have a finished ticket worked on again.
pub const REOPEN_ANNOTATION: &str = "rallied.ai/reopen";

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
    doc = "A HaloPSA ticket being handled. Written by the operator; annotate it with rallied.ai/reopen to have it worked on again.",
    printcolumn(name = "Client", type_ = "string", json_path = ".spec.clientRef.name"),
    printcolumn(name = "Ticket", type_ = "integer", json_path = ".spec.ticketId"),
    printcolumn(name = "Subject", type_ = "string", json_path = ".spec.subject"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".status.mode"),
    printcolumn(name = "Agent", type_ = "string", json_path = ".status.lease.holder", priority = 1),
    printcolumn(name = "Attempts", type_ = "integer", json_path = ".status.attempts", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    selectable = ".spec.connectionRef.name"
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.ticketId == oldSelf.ticketId && self.connectionRef.name == oldSelf.connectionRef.name").message("a Ticket stands for one HaloPSA ticket for ever"))]
pub struct TicketSpec {
    pub connection_ref: LocalRef,
    /// The ImportedClient. Absent while a webhook that did not name the client is looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ref: Option<LocalRef>,
    /// HaloPSA's id of the ticket.
    #[schemars(range(min = 1, max = 2147483647))]
    pub ticket_id: i64,
    /// The client HaloPSA said the ticket belongs to, last it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halo_client_id: Option<i64>,
    /// The ticket's summary, cut. Absent with `privacy.hideSubjects`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub subject: Option<String>,
    /// HaloPSA said that the ticket is closed or deleted.
    #[serde(default)]
    pub closed: bool,
    /// Where the ticket was heard of first: `Webhook` or `Sweep`.
    #[serde(default)]
    pub source: Source,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Source {
    #[default]
    Webhook,
    Sweep,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Stored, not looked at yet.
    #[default]
    Received,
    /// The requester proves who they are.
    Verifying,
    /// Waits for an agent.
    Ready,
    /// An agent has it.
    Working,
    /// A technician decides.
    AwaitingApproval,
    Done,
    Failed,
    Refused,
    /// Not work: our own event, closed, moved to another client, client not imported.
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
        matches!(self, Phase::Done | Phase::Failed | Phase::Refused | Phase::Ignored)
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

/// Where a ticket is on its way, and what was done for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TicketStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default)]
    pub phase: Phase,
    /// Since when it is in this phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase_since: Option<Time>,
    /// When a waiting phase ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// The mode in effect when an agent took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Counts up when a human has a finished ticket worked on again.
    #[serde(default)]
    pub turn: i32,
    /// Agents that took it in this turn.
    #[serde(default)]
    pub attempts: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// Why it is in this phase, one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it is in this phase, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The reopen annotation's value acted on last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reopened: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Writes to HaloPSA: recorded before they are sent, so that a crash repeats none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub intents: Vec<Intent>,
    /// What happened, oldest first; the newest 50 entries. No ticket text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub journal: Vec<JournalEntry>,
}

/// An agent's hold on a ticket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    pub id: String,
    /// The agent's Pod.
    pub holder: String,
    pub expires_at: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IntentKind {
    /// The internal note with diagnosis and plan.
    PlanNote,
    /// The internal note that says why nobody worked on the ticket.
    FailureNote,
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
    pub turn: i32,
    /// Stands in the note's text, so that it is found again.
    pub marker: String,
    pub state: IntentState,
    pub recorded_at: Time,
    /// HaloPSA's id of the action, on its ticket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_id: Option<i64>,
}

/// Something that happened to a ticket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JournalEntry {
    pub time: Option<Time>,
    /// What happened, one word, like `Claimed` or `ToolCalled`.
    pub event: String,
    /// Who did it: a Pod, `controller`, `gateway`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// More, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
