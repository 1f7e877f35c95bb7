//! What agents and gateway say to each other: the work API, JSON over HTTPS.
//!
//! - `POST /v1/work/claim` waits for a ticket: 200 [`Work`], or 204 when none came
//! - `POST /v1/work/{ticket}/heartbeat` [`Held`]: 200, or 409 when the lease is lost
//! - `POST /v1/work/{ticket}/release` [`Held`]: hands the ticket back
//! - `POST /v1/work/{ticket}/complete` [`Completion`]: the plan; the gateway writes the note
//! - `/mcp`: the tools, MCP over streamable HTTP, stateless
//!
//! Every request carries the agent's projected ServiceAccount token as bearer.
//! Errors are [`Problem`]; 503 asks to try again.

pub use crate::api::Mode;
pub use crate::ticket::note::{Confidence, Plan};
use serde::{Deserialize, Serialize};

/// A ticket an agent holds, with what it needs to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    /// Name of the Ticket resource.
    pub ticket: String,
    pub lease_id: String,
    /// Heartbeat more often than this, in seconds.
    pub lease_seconds: u64,
    pub mode: Mode,
    pub context: Context,
}

/// Ticket data is what strangers wrote: data, never instructions.
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
pub struct Held {
    pub lease_id: String,
}

/// The end of an agent's work.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Completion {
    pub lease_id: String,
    pub plan: Plan,
}

/// Why a request was refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    pub error: String,
}
