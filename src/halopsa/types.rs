//! What HaloPSA sends: the few fields that are read, out of hundreds.

use super::lenient;
use crate::ids::{ActionId, TechnicianId};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// A ticket.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Ticket {
    #[serde(deserialize_with = "lenient::i64")]
    pub id: i64,
    #[serde(deserialize_with = "lenient::string")]
    pub summary: String,
    #[serde(deserialize_with = "lenient::string")]
    pub details: String,
    #[serde(deserialize_with = "lenient::string")]
    pub details_html: String,
    #[serde(deserialize_with = "lenient::opt_i64")]
    pub client_id: Option<i64>,
    #[serde(deserialize_with = "lenient::string")]
    pub client_name: String,
    #[serde(deserialize_with = "lenient::string")]
    pub site_name: String,
    #[serde(deserialize_with = "lenient::opt_i64")]
    pub user_id: Option<i64>,
    #[serde(deserialize_with = "lenient::string")]
    pub user_name: String,
    #[serde(deserialize_with = "lenient::string")]
    pub user_email: String,
    #[serde(deserialize_with = "lenient::opt_id")]
    pub agent_id: Option<TechnicianId>,
    #[serde(deserialize_with = "lenient::opt_i64")]
    pub status_id: Option<i64>,
    #[serde(deserialize_with = "lenient::string")]
    pub status_name: String,
    #[serde(deserialize_with = "lenient::opt_i64")]
    pub priority_id: Option<i64>,
    #[serde(deserialize_with = "lenient::string")]
    pub priority_name: String,
    #[serde(deserialize_with = "lenient::string")]
    pub category_1: String,
    #[serde(deserialize_with = "lenient::opt_i64")]
    pub tickettype_id: Option<i64>,
    #[serde(deserialize_with = "lenient::string")]
    pub tickettype_name: String,
    #[serde(deserialize_with = "lenient::opt_i64")]
    pub sla_id: Option<i64>,
    #[serde(deserialize_with = "lenient::opt_i64")]
    pub site_id: Option<i64>,
    #[serde(deserialize_with = "lenient::opt_i64")]
    pub parent_id: Option<i64>,
    #[serde(deserialize_with = "lenient::opt_time")]
    pub dateoccurred: Option<Timestamp>,
    #[serde(deserialize_with = "lenient::opt_time")]
    pub last_update: Option<Timestamp>,
    #[serde(deserialize_with = "lenient::bool")]
    pub hasbeenclosed: bool,
    #[serde(deserialize_with = "lenient::string")]
    pub closure_note: String,
}

/// Something done on a ticket: a note, a reply, a change.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Action {
    #[serde(deserialize_with = "lenient::id")]
    pub id: ActionId,
    #[serde(deserialize_with = "lenient::string")]
    pub outcome: String,
    #[serde(deserialize_with = "lenient::string")]
    pub who: String,
    /// 1: a technician.
    #[serde(deserialize_with = "lenient::opt_i64")]
    pub who_type: Option<i64>,
    #[serde(deserialize_with = "lenient::opt_id")]
    pub who_agentid: Option<TechnicianId>,
    /// The end user who wrote it; 0 or absent: none that HaloPSA knows.
    #[serde(deserialize_with = "lenient::opt_i64")]
    pub actionby_user_id: Option<i64>,
    /// Name of the API application that made it.
    #[serde(deserialize_with = "lenient::string")]
    pub actionby_application_id: String,
    #[serde(deserialize_with = "lenient::opt_time")]
    pub datetime: Option<Timestamp>,
    #[serde(deserialize_with = "lenient::string")]
    pub note: String,
    /// Absent from lists unless asked for.
    #[serde(deserialize_with = "lenient::string")]
    pub note_html: String,
    #[serde(deserialize_with = "lenient::bool")]
    pub hiddenfromuser: bool,
    /// `I` for an incoming e-mail, `O` for an outgoing one.
    #[serde(deserialize_with = "lenient::string")]
    pub emaildirection: String,
    /// The action it answers.
    #[serde(deserialize_with = "lenient::opt_id")]
    pub replied_to_action_id: Option<ActionId>,
    /// Whom the action assigned the ticket to.
    #[serde(deserialize_with = "lenient::opt_id")]
    pub new_agent: Option<TechnicianId>,
}

/// A row of a look-up list: a status, a team, a ticket type.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Named {
    #[serde(deserialize_with = "lenient::i64")]
    pub id: i64,
    #[serde(deserialize_with = "lenient::string")]
    pub name: String,
}

/// A category of tickets. HaloPSA has four lists of them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Category {
    #[serde(deserialize_with = "lenient::i64")]
    pub id: i64,
    #[serde(deserialize_with = "lenient::string")]
    pub category_name: String,
    #[serde(deserialize_with = "lenient::string")]
    pub value: String,
    /// Which of the four lists it is in, from 1.
    #[serde(deserialize_with = "lenient::opt_i64")]
    pub type_id: Option<i64>,
}

impl Category {
    /// As a ticket names it, like `Hardware>Printer`.
    pub fn path(&self) -> &str {
        match self.value.trim() {
            "" => &self.category_name,
            path => path,
        }
    }
}

/// A priority. One row per SLA; `id` is a UUID, tickets use `priorityid`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PriorityRow {
    #[serde(deserialize_with = "lenient::i64")]
    pub priorityid: i64,
    #[serde(deserialize_with = "lenient::opt_i64")]
    pub slaid: Option<i64>,
    #[serde(deserialize_with = "lenient::string")]
    pub name: String,
    #[serde(deserialize_with = "lenient::bool")]
    pub ishidden: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HaloClient {
    #[serde(deserialize_with = "lenient::i64")]
    pub id: i64,
    #[serde(deserialize_with = "lenient::name")]
    pub name: String,
    #[serde(deserialize_with = "lenient::bool")]
    pub inactive: bool,
}

/// An end user of a client.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct User {
    #[serde(deserialize_with = "lenient::i64")]
    pub id: i64,
    #[serde(deserialize_with = "lenient::string")]
    pub name: String,
    #[serde(deserialize_with = "lenient::string")]
    pub emailaddress: String,
    #[serde(deserialize_with = "lenient::string")]
    pub phonenumber: String,
    #[serde(deserialize_with = "lenient::string")]
    pub site_name: String,
    #[serde(deserialize_with = "lenient::opt_i64")]
    pub client_id: Option<i64>,
    #[serde(deserialize_with = "lenient::string")]
    pub department: String,
    #[serde(deserialize_with = "lenient::bool")]
    pub inactive: bool,
    #[serde(deserialize_with = "lenient::bool")]
    pub isimportantcontact: bool,
}

/// A technician, or the API agent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Agent {
    #[serde(deserialize_with = "lenient::id")]
    pub id: TechnicianId,
    #[serde(deserialize_with = "lenient::string")]
    pub name: String,
    #[serde(deserialize_with = "lenient::string")]
    pub team: String,
    #[serde(deserialize_with = "lenient::bool")]
    pub isdisabled: bool,
    /// Other teams the technician is in.
    pub teams: Option<Vec<AgentTeam>>,
}

/// A technician's membership in a team.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AgentTeam {
    #[serde(deserialize_with = "lenient::string", alias = "team_name")]
    pub name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asset {
    #[serde(deserialize_with = "lenient::i64")]
    pub id: i64,
    #[serde(deserialize_with = "lenient::string")]
    pub inventory_number: String,
    #[serde(deserialize_with = "lenient::string")]
    pub key_field: String,
    #[serde(deserialize_with = "lenient::string")]
    pub assettype_name: String,
    #[serde(deserialize_with = "lenient::opt_i64")]
    pub client_id: Option<i64>,
    #[serde(deserialize_with = "lenient::string")]
    pub username: String,
    #[serde(deserialize_with = "lenient::string")]
    pub status_name: String,
    #[serde(deserialize_with = "lenient::bool")]
    pub inactive: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Article {
    #[serde(deserialize_with = "lenient::i64")]
    pub id: i64,
    #[serde(deserialize_with = "lenient::string")]
    pub name: String,
    #[serde(deserialize_with = "lenient::string")]
    pub description: String,
    #[serde(deserialize_with = "lenient::string")]
    pub resolution: String,
    #[serde(deserialize_with = "lenient::bool")]
    pub inactive: bool,
    /// The clients it is restricted to.
    #[serde(rename = "kbentryclientaccess")]
    pub clients: AccessList,
    /// The organisations (groups of clients) it is restricted to.
    #[serde(rename = "kbentrytoplevelaccess")]
    pub organisations: AccessList,
}

/// Who may read an article. Without entries: everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessList {
    /// HaloPSA did not say, as in some lists.
    #[default]
    Absent,
    /// The clients' ids; an entry without one is for nobody we know.
    Only(Vec<Option<i64>>),
}

impl<'de> Deserialize<'de> for AccessList {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::Null => Self::Absent,
            Value::Array(rows) => {
                let id = |row: &Value| row.get("client_id").and_then(lenient::integer);
                Self::Only(rows.iter().map(id).collect())
            }
            // Some restriction that we cannot read.
            _ => Self::Only(vec![None]),
        })
    }
}

/// A webhook in HaloPSA. `GET /Webhook` does not return the password.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Webhook {
    #[serde(deserialize_with = "lenient::string")]
    pub id: String,
    #[serde(deserialize_with = "lenient::string")]
    pub name: String,
    #[serde(deserialize_with = "lenient::string")]
    pub url: String,
    #[serde(rename = "type", deserialize_with = "lenient::opt_i64")]
    pub type_: Option<i64>,
    #[serde(deserialize_with = "lenient::opt_i64")]
    pub method: Option<i64>,
    #[serde(deserialize_with = "lenient::string")]
    pub content_type: String,
    #[serde(deserialize_with = "lenient::opt_i64")]
    pub authentication_type: Option<i64>,
    #[serde(deserialize_with = "lenient::string")]
    pub basic_username: String,
    #[serde(deserialize_with = "lenient::opt_scalar")]
    pub active: Option<serde_json::Value>,
    #[serde(deserialize_with = "lenient::bool")]
    pub disabled: bool,
}

/// A subscription of a webhook to an event.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Notification {
    #[serde(deserialize_with = "lenient::i64")]
    pub id: i64,
    #[serde(deserialize_with = "lenient::opt_i64")]
    pub eventno: Option<i64>,
    #[serde(deserialize_with = "lenient::string")]
    pub webhook_id: String,
}

/// A delivery of a webhook, as the Deliveries tab shows it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct WebhookEvent {
    #[serde(deserialize_with = "lenient::string")]
    pub id: String,
    #[serde(deserialize_with = "lenient::opt_time")]
    pub timestamp: Option<Timestamp>,
    #[serde(deserialize_with = "lenient::string")]
    pub responsestatus: String,
    #[serde(deserialize_with = "lenient::bool")]
    pub error: bool,
}
