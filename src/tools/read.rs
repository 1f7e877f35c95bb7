//! HaloPSA's tools for agents: read-only, each bound to the agent's own client.

use crate::halopsa::{self, types};
use crate::policy::Access;
use crate::text;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

const MAX_ROWS: usize = 20;
const MAX_SEARCH: usize = 200;
const MAX_FIELD: usize = 2000;

/// A tool as agents see it.
pub struct Tool {
    pub name: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    pub access: Access,
    schema: fn() -> Value,
}

/// Why a call gives no result. The text goes to the agent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no tool of this name")]
    Unknown,
    #[error("the arguments do not fit: {0}")]
    Arguments(String),
    /// Also for records that do not exist: other clients' records are not told apart from none.
    #[error("your client has no such {0}")]
    NotYours(&'static str),
    #[error(transparent)]
    Halo(#[from] halopsa::Error),
}

pub const TOOLS: [Tool; 6] = [
    Tool {
        name: "halopsa_get_ticket",
        title: "Read a ticket",
        description: "Reads a ticket of your client: summary, details, requester, status, priority, closure note.",
        access: Access::Read,
        schema: || id_schema("ticketId", "HaloPSA's id of the ticket"),
    },
    Tool {
        name: "halopsa_list_ticket_notes",
        title: "Read a ticket's notes",
        description: "Lists the notes and replies on a ticket of your client, oldest first.",
        access: Access::Read,
        schema: || id_schema("ticketId", "HaloPSA's id of the ticket"),
    },
    Tool {
        name: "halopsa_search_tickets",
        title: "Search tickets",
        description: "Searches your client's tickets, open and closed, by words in summary and details. Closed ones tell how they were solved.",
        access: Access::Read,
        schema: search_schema,
    },
    Tool {
        name: "halopsa_get_user",
        title: "Read a user",
        description: "Reads a user of your client: name, site, department, contact data.",
        access: Access::Read,
        schema: || id_schema("userId", "HaloPSA's id of the user"),
    },
    Tool {
        name: "halopsa_list_assets",
        title: "List assets",
        description: "Lists your client's assets (workstations, printers, servers), all or those that match a search.",
        access: Access::Read,
        schema: search_schema,
    },
    Tool {
        name: "halopsa_search_knowledge_base",
        title: "Search the knowledge base",
        description: "Searches the MSP's knowledge base articles.",
        access: Access::Read,
        schema: search_schema,
    },
];

fn id_schema(name: &str, description: &str) -> Value {
    json!({"type": "object", "properties": {name: {"type": "integer", "minimum": 1, "maximum": i32::MAX, "description": description}}, "required": [name], "additionalProperties": false})
}

fn search_schema() -> Value {
    json!({"type": "object", "properties": {
        "query": {"type": "string", "maxLength": MAX_SEARCH, "description": "Words that have to occur"},
        "limit": {"type": "integer", "minimum": 1, "maximum": MAX_ROWS, "description": "Most rows to return"},
    }, "additionalProperties": false})
}

impl Tool {
    pub fn schema(&self) -> Map<String, Value> {
        match (self.schema)() {
            Value::Object(schema) => schema,
            _ => Map::new(),
        }
    }
}

pub fn find(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|t| t.name == name)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TicketArguments {
    ticket_id: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UserArguments {
    user_id: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SearchArguments {
    #[serde(default)]
    query: String,
    #[serde(default)]
    limit: Option<usize>,
}

impl SearchArguments {
    fn checked(self) -> Result<(String, usize), Error> {
        let limit = self.limit.unwrap_or(10);
        if self.query.chars().count() > MAX_SEARCH || !(1..=MAX_ROWS).contains(&limit) {
            return Err(Error::Arguments(format!(
                "query has at most {MAX_SEARCH} characters, limit is 1 to {MAX_ROWS}"
            )));
        }
        Ok((text::one_line(&self.query, MAX_SEARCH), limit))
    }
}

fn arguments<T: DeserializeOwned>(given: Map<String, Value>) -> Result<T, Error> {
    serde_json::from_value(Value::Object(given))
        .map_err(|e| Error::Arguments(text::one_line(&e.to_string(), 200)))
}

/// Runs a tool for the agent of this client.
pub async fn call(
    tool: &Tool,
    given: Map<String, Value>,
    client: i64,
    halo: &halopsa::Client,
) -> Result<Value, Error> {
    match tool.name {
        "halopsa_get_ticket" => {
            let TicketArguments { ticket_id } = arguments(given)?;
            let ticket = own_ticket(halo, client, ticket_id).await?;
            Ok(json!({"ticket": shown(&ticket)}))
        }
        "halopsa_list_ticket_notes" => {
            let TicketArguments { ticket_id } = arguments(given)?;
            own_ticket(halo, client, ticket_id).await?;
            let mut actions = halo.actions(ticket_id, 50).await?;
            actions.reverse();
            let notes: Vec<Value> = actions
                .iter()
                .map(|a| json!({"who": text::one_line(&a.who, 100), "internal": a.hiddenfromuser, "at": a.datetime.map(|t| t.to_string()), "text": field(&a.note)}))
                .collect();
            Ok(json!({"notes": notes}))
        }
        "halopsa_search_tickets" => {
            let (query, limit) = arguments::<SearchArguments>(given)?.checked()?;
            let found = halo.search_tickets(client, &query, limit).await?;
            // HaloPSA ignores a filter it does not know: what came back is checked.
            let rows: Vec<Value> = found
                .iter()
                .filter(|t| t.client_id == Some(client))
                .take(limit)
                .map(shown)
                .collect();
            Ok(json!({"tickets": rows}))
        }
        "halopsa_get_user" => {
            let UserArguments { user_id } = arguments(given)?;
            let user = match halo.user(user_id).await {
                Err(halopsa::Error::NotFound { .. }) => return Err(Error::NotYours("user")),
                other => other?,
            };
            if user.client_id != Some(client) {
                return Err(Error::NotYours("user"));
            }
            Ok(json!({"user": {
                "id": user.id, "name": field(&user.name), "email": field(&user.emailaddress), "phone": field(&user.phonenumber),
                "site": field(&user.site_name), "department": field(&user.department), "inactive": user.inactive, "important": user.isimportantcontact,
            }}))
        }
        "halopsa_list_assets" => {
            let (query, limit) = arguments::<SearchArguments>(given)?.checked()?;
            let found = halo.assets(client, &query, limit).await?;
            let rows: Vec<Value> = found
                .iter()
                .filter(|a| a.client_id == Some(client))
                .take(limit)
                .map(|a| json!({"id": a.id, "name": field(&a.inventory_number), "model": field(&a.key_field), "type": field(&a.assettype_name), "user": field(&a.username), "status": field(&a.status_name)}))
                .collect();
            Ok(json!({"assets": rows}))
        }
        "halopsa_search_knowledge_base" => {
            let (query, limit) = arguments::<SearchArguments>(given)?.checked()?;
            let found = halo.articles(&query, limit).await?;
            let rows: Vec<Value> = found
                .iter()
                .filter(|a| !a.inactive)
                .take(limit)
                .map(|a| json!({"id": a.id, "name": field(&a.name), "description": field(&a.description), "resolution": field(&a.resolution)}))
                .collect();
            Ok(json!({"articles": rows}))
        }
        _ => Err(Error::Unknown),
    }
}

async fn own_ticket(
    halo: &halopsa::Client,
    client: i64,
    ticket_id: i64,
) -> Result<types::Ticket, Error> {
    match halo.ticket(ticket_id).await {
        Ok(ticket) if ticket.client_id == Some(client) => Ok(ticket),
        Ok(_) | Err(halopsa::Error::NotFound { .. }) => Err(Error::NotYours("ticket")),
        Err(error) => Err(error.into()),
    }
}

/// The few of a ticket's hundreds of fields that help.
fn shown(t: &types::Ticket) -> Value {
    json!({
        "id": t.id, "summary": field(&t.summary), "details": field(&text::from_html(&t.details)), "requester": field(&t.user_name),
        "userId": t.user_id, "status": field(&t.status_name), "priority": field(&t.priority_name), "site": field(&t.site_name),
        "opened": t.dateoccurred.map(|at| at.to_string()), "closed": t.hasbeenclosed, "closureNote": field(&t.closure_note),
    })
}

fn field(value: &str) -> String {
    text::cut(&text::plain(value), MAX_FIELD).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_schemas_closed() {
        let mut names: Vec<&str> = TOOLS.iter().map(|t| t.name).collect();
        names.dedup();
        assert_eq!(names.len(), TOOLS.len());
        for tool in &TOOLS {
            assert_eq!(
                tool.schema()["additionalProperties"],
                false,
                "{}",
                tool.name
            );
        }
        assert!(find("HALOPSA_GET_TICKET").is_none() && find("halopsa_get_ticket ").is_none());
    }

    #[test]
    fn arguments_are_checked() {
        let object = |v: Value| v.as_object().unwrap().clone();
        assert!(arguments::<TicketArguments>(object(json!({"ticketId": "7"}))).is_err());
        assert!(
            arguments::<TicketArguments>(object(json!({"ticketId": 7, "clientId": 1}))).is_err()
        );
        assert!(
            arguments::<SearchArguments>(object(json!({"limit": 1000})))
                .unwrap()
                .checked()
                .is_err()
        );
        assert!(
            arguments::<SearchArguments>(object(json!({"query": "x".repeat(500)})))
                .unwrap()
                .checked()
                .is_err()
        );
        assert!(
            arguments::<SearchArguments>(object(json!({})))
                .unwrap()
                .checked()
                .is_ok()
        );
    }
}
