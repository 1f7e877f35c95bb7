//! HaloPSA's read tools, each bound to the agent's own client.

use crate::blocking;
use crate::halopsa::types::AccessList;
use crate::halopsa::{self, types};
use crate::policy::Access;
use crate::text;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::collections::HashSet;

const MAX_ROWS: usize = 20;
const DEFAULT_ROWS: usize = 10;
const MAX_NOTES: usize = 50;
const MAX_SEARCH: usize = 200;
const MAX_FIELD: usize = 2000;
/// Rows asked for beyond those wanted.
const MAX_HIDDEN: usize = 30;

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
    #[error("invalid arguments: {0}")]
    Arguments(String),
    /// Also for records that do not exist, so that other clients' records cannot be probed.
    #[error("your client has no such {0}")]
    NotYours(&'static str),
    #[error(transparent)]
    Halo(#[from] halopsa::Error),
    #[error(transparent)]
    Busy(#[from] blocking::Busy),
}

const GET_TICKET: &str = "halopsa_get_ticket";
const LIST_NOTES: &str = "halopsa_list_ticket_notes";
const SEARCH_TICKETS: &str = "halopsa_search_tickets";
const GET_USER: &str = "halopsa_get_user";
const LIST_ASSETS: &str = "halopsa_list_assets";
const SEARCH_ARTICLES: &str = "halopsa_search_knowledge_base";

pub const TOOLS: [Tool; 6] = [
    Tool {
        name: GET_TICKET,
        title: "Read a ticket",
        description: "Reads a ticket of your client: summary, details, requester, status, \
                      priority, closure note.",
        access: Access::Read,
        schema: || id_schema("ticketId", "The ticket's id in HaloPSA"),
    },
    Tool {
        name: LIST_NOTES,
        title: "Read a ticket's notes",
        description: "Lists the latest 50 notes and replies on a ticket of your client, oldest \
                      first.",
        access: Access::Read,
        schema: || id_schema("ticketId", "The ticket's id in HaloPSA"),
    },
    Tool {
        name: SEARCH_TICKETS,
        title: "Search tickets",
        description: "Searches your client's tickets, open and closed, for words in their summary \
                      and details. Closed tickets show how they were solved.",
        access: Access::Read,
        schema: search_schema,
    },
    Tool {
        name: GET_USER,
        title: "Read a user",
        description: "Reads a user of your client: name, site, department, contact details.",
        access: Access::Read,
        schema: || id_schema("userId", "The user's id in HaloPSA"),
    },
    Tool {
        name: LIST_ASSETS,
        title: "List assets",
        description: "Lists your client's assets (workstations, printers, servers): all of them, \
                      or those that match a search.",
        access: Access::Read,
        schema: search_schema,
    },
    Tool {
        name: SEARCH_ARTICLES,
        title: "Search the knowledge base",
        description: "Searches the MSP's knowledge base articles that are for everybody or for \
                      your client.",
        access: Access::Read,
        schema: search_schema,
    },
];

fn id_schema(name: &str, description: &str) -> Value {
    let id = json!({
        "type": "integer",
        "minimum": 1,
        "maximum": i32::MAX,
        "description": description,
    });
    json!({
        "type": "object",
        "properties": {name: id},
        "required": [name],
        "additionalProperties": false,
    })
}

fn search_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "query": {
                "type": "string",
                "maxLength": MAX_SEARCH,
                "description": "Words to search for",
            },
            "limit": {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_ROWS,
                "description": format!("Most results to return (default {DEFAULT_ROWS})"),
            },
        },
        "additionalProperties": false,
    })
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

/// A search, checked.
struct Search {
    query: String,
    limit: usize,
}

impl SearchArguments {
    fn checked(self) -> Result<Search, Error> {
        let limit = self.limit.unwrap_or(DEFAULT_ROWS);
        if self.query.chars().count() > MAX_SEARCH || !(1..=MAX_ROWS).contains(&limit) {
            return Err(Error::Arguments(format!(
                "query must have at most {MAX_SEARCH} characters, and limit must be 1 to {MAX_ROWS}"
            )));
        }
        Ok(Search {
            query: text::one_line(&self.query, MAX_SEARCH),
            limit,
        })
    }
}

fn arguments<T: DeserializeOwned>(given: Map<String, Value>) -> Result<T, Error> {
    serde_json::from_value(Value::Object(given))
        .map_err(|e| Error::Arguments(text::one_line(&e.to_string(), 200)))
}

fn search(given: Map<String, Value>) -> Result<Search, Error> {
    arguments::<SearchArguments>(given)?.checked()
}

/// What an agent may see.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The agent's client in HaloPSA.
    pub client: i64,
    /// Tickets of that client that no agent may read now. They are as if they did not exist.
    pub hidden: HashSet<i64>,
}

impl View {
    fn shows(&self, ticket: &types::Ticket) -> bool {
        ticket.client_id == Some(self.client) && !self.hidden.contains(&ticket.id)
    }
}

/// Whether this client's agent may read an article: it is for everybody, or for this client.
pub fn may_read_article(article: &types::Article, client: i64) -> bool {
    let for_client = |list: &AccessList| match list {
        AccessList::Absent => false,
        AccessList::Only(clients) => clients.contains(&Some(client)),
    };
    let for_all = |list: &AccessList| match list {
        AccessList::Absent => true,
        AccessList::Only(entries) => entries.is_empty(),
    };
    // Which clients an organisation has is not asked: an article that is restricted to one, and
    // does not name this client, is for others.
    let is_public = for_all(&article.clients) && for_all(&article.organisations);
    !article.inactive && (is_public || for_client(&article.clients))
}

/// Runs a tool for an agent.
pub async fn call(
    tool: &Tool,
    given: Map<String, Value>,
    view: &View,
    halo: &halopsa::Client,
) -> Result<Value, Error> {
    let client = view.client;
    match tool.name {
        GET_TICKET => get_ticket(arguments(given)?, view, halo).await,
        LIST_NOTES => list_notes(arguments(given)?, view, halo).await,
        SEARCH_TICKETS => search_tickets(search(given)?, view, halo).await,
        GET_USER => get_user(arguments(given)?, client, halo).await,
        LIST_ASSETS => list_assets(search(given)?, client, halo).await,
        SEARCH_ARTICLES => search_articles(search(given)?, client, halo).await,
        _ => Err(Error::Unknown),
    }
}

async fn get_ticket(
    given: TicketArguments,
    view: &View,
    halo: &halopsa::Client,
) -> Result<Value, Error> {
    let ticket = own_ticket(halo, view, given.ticket_id).await?;
    Ok(json!({"ticket": ticket_row(&ticket)}))
}

async fn list_notes(
    given: TicketArguments,
    view: &View,
    halo: &halopsa::Client,
) -> Result<Value, Error> {
    own_ticket(halo, view, given.ticket_id).await?;
    let newest_first = halo.actions(given.ticket_id, MAX_NOTES).await?;
    let notes: Vec<Value> = newest_first.iter().rev().map(note_row).collect();
    Ok(json!({"notes": notes}))
}

async fn search_tickets(
    search: Search,
    view: &View,
    halo: &halopsa::Client,
) -> Result<Value, Error> {
    // Hidden tickets do not take the place of others.
    let count = search.limit + view.hidden.len().min(MAX_HIDDEN);
    let found = halo
        .search_tickets(view.client, &search.query, count)
        .await?;
    // HaloPSA ignores a filter it does not know, so each row's client is checked.
    let view = view.clone();
    let rows = move || {
        found
            .iter()
            .filter(|t| view.shows(t))
            .take(search.limit)
            .map(ticket_row)
            .collect()
    };
    let rows: Vec<Value> = blocking::run(halo.namespace(), rows).await?;
    Ok(json!({"tickets": rows}))
}

async fn get_user(
    given: UserArguments,
    client: i64,
    halo: &halopsa::Client,
) -> Result<Value, Error> {
    match halo.user(given.user_id).await {
        Ok(user) if user.client_id == Some(client) => Ok(json!({"user": user_row(&user)})),
        Ok(_) | Err(halopsa::Error::NotFound { .. }) => Err(Error::NotYours("user")),
        Err(error) => Err(error.into()),
    }
}

async fn list_assets(search: Search, client: i64, halo: &halopsa::Client) -> Result<Value, Error> {
    let found = halo.assets(client, &search.query, search.limit).await?;
    let rows: Vec<Value> = found
        .iter()
        .filter(|a| a.client_id == Some(client))
        .take(search.limit)
        .map(asset_row)
        .collect();
    Ok(json!({"assets": rows}))
}

async fn search_articles(
    search: Search,
    client: i64,
    halo: &halopsa::Client,
) -> Result<Value, Error> {
    // More than asked for: some may be for other clients.
    let found = halo.articles(&search.query, MAX_ROWS).await?;
    let mut rows = Vec::new();
    for article in found.into_iter().take(MAX_ROWS) {
        if rows.len() == search.limit {
            break;
        }
        if !may_read_article(&article, client) {
            continue;
        }
        // A list need not say who an article is for; the article itself does.
        let is_known = !matches!(article.clients, AccessList::Absent)
            && !matches!(article.organisations, AccessList::Absent);
        let article = match is_known {
            true => Some(article),
            false => article_for(article.id, client, halo).await?,
        };
        rows.extend(article.as_ref().map(article_row));
    }
    Ok(json!({"articles": rows}))
}

/// An article, if this client's agent may read it.
pub async fn article_for(
    id: i64,
    client: i64,
    halo: &halopsa::Client,
) -> Result<Option<types::Article>, halopsa::Error> {
    match halo.article(id).await {
        Ok(article) => Ok(Some(article).filter(|a| may_read_article(a, client))),
        Err(halopsa::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn own_ticket(
    halo: &halopsa::Client,
    view: &View,
    ticket_id: i64,
) -> Result<types::Ticket, Error> {
    if view.hidden.contains(&ticket_id) {
        return Err(Error::NotYours("ticket"));
    }
    match halo.ticket(ticket_id).await {
        Ok(ticket) if view.shows(&ticket) => Ok(ticket),
        Ok(_) | Err(halopsa::Error::NotFound { .. }) => Err(Error::NotYours("ticket")),
        Err(error) => Err(error.into()),
    }
}

/// The few useful fields of a ticket's hundreds.
fn ticket_row(t: &types::Ticket) -> Value {
    json!({
        "id": t.id,
        "summary": field(&t.summary),
        "details": field(&text::from_html(&t.details)),
        "requester": field(&t.user_name),
        "userId": t.user_id,
        "status": field(&t.status_name),
        "priority": field(&t.priority_name),
        "site": field(&t.site_name),
        "opened": t.dateoccurred.map(|at| at.to_string()),
        "closed": t.hasbeenclosed,
        "closureNote": field(&t.closure_note),
    })
}

fn note_row(a: &types::Action) -> Value {
    json!({
        "who": text::one_line(&a.who, 100),
        "internal": a.hiddenfromuser,
        "at": a.datetime.map(|t| t.to_string()),
        "text": field(&a.note),
    })
}

fn user_row(u: &types::User) -> Value {
    json!({
        "id": u.id,
        "name": field(&u.name),
        "email": field(&u.emailaddress),
        "phone": field(&u.phonenumber),
        "site": field(&u.site_name),
        "department": field(&u.department),
        "inactive": u.inactive,
        "important": u.isimportantcontact,
    })
}

fn asset_row(a: &types::Asset) -> Value {
    json!({
        "id": a.id,
        "name": field(&a.inventory_number),
        "model": field(&a.key_field),
        "type": field(&a.assettype_name),
        "user": field(&a.username),
        "status": field(&a.status_name),
    })
}

fn article_row(a: &types::Article) -> Value {
    json!({
        "id": a.id,
        "name": field(&a.name),
        "description": field(&a.description),
        "resolution": field(&a.resolution),
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

    #[test]
    fn articles_are_for_everybody_or_for_a_client() {
        let other = json!([{"id": 1, "client_id": 13, "client_name": "Blue", "kb_id": 4}]);
        let both = json!([{"client_id": 13}, {"client_id": "12.0"}]);
        for (fields, readable) in [
            (json!({}), true),
            (json!({"kbentryclientaccess": null}), true),
            (json!({"kbentryclientaccess": []}), true),
            (json!({"kbentryclientaccess": both}), true),
            (json!({"kbentryclientaccess": other}), false),
            (json!({"kbentryclientaccess": [{"client_id": null}]}), false),
            (json!({"kbentryclientaccess": [7]}), false),
            (json!({"kbentryclientaccess": "13"}), false),
            (
                json!({"kbentrytoplevelaccess": [{"toplevel_id": 2}]}),
                false,
            ),
            (
                json!({"kbentrytoplevelaccess": [{"toplevel_id": 2}],
                    "kbentryclientaccess": [{"client_id": 12}]}),
                true,
            ),
            (
                json!({"kbentrytoplevelaccess": [{"toplevel_id": 2, "client_id": 12}]}),
                false,
            ),
            (
                json!({"inactive": true, "kbentryclientaccess": [{"client_id": 12}]}),
                false,
            ),
        ] {
            let mut row = json!({"id": 4, "name": "n"});
            row.as_object_mut()
                .unwrap()
                .extend(fields.as_object().unwrap().clone());
            let article: types::Article = serde_json::from_value(row).unwrap();
            assert_eq!(may_read_article(&article, 12), readable, "{fields}");
        }
    }

    #[test]
    fn a_hidden_ticket_is_not_shown() {
        let ticket = |id, client| types::Ticket {
            id,
            client_id: Some(client),
            ..types::Ticket::default()
        };
        let view = View {
            client: 12,
            hidden: HashSet::from([7]),
        };
        assert!(view.shows(&ticket(8, 12)));
        assert!(!view.shows(&ticket(7, 12)) && !view.shows(&ticket(8, 13)));
    }
}
