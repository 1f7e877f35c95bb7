//! The one canonical call: names as HaloPSA spells them, with their ids, and to whom it goes.
//!
//! Whoever may reach a row by another spelling, reaches the same call: a policy decides on what
//! will run, and a technician reads it. When it runs, the ids are used; a row that has another
//! name by then, or another requester, is not what was approved.

use super::directory::Directory;
use super::{
    ASSIGN, Assign, CHILD, CLOSE, LINK, LOG_TIME, PRIVATE_NOTE, REPLY, UPDATE, Update, Write,
    row_closes, to_close,
};
use crate::halopsa::technicians::UNASSIGNED;
use crate::halopsa::types::{Named, Ticket};
use crate::ids::TechnicianId;
use crate::text::one_line;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// HaloPSA's id of the status Closed.
const CLOSED: i64 = 9;
/// Rows an error names.
const MAX_NAMED: usize = 20;
const MAX_NAME: usize = 200;

/// What a call is about, as HaloPSA has it now.
pub struct About<'a> {
    pub ticket: &'a Ticket,
    pub directory: &'a Directory,
    /// The API agent: no ticket is assigned to it.
    pub api_agent: Option<TechnicianId>,
}

/// A write as it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Canonical {
    PrivateNote(Note),
    Reply(Reply),
    Update(Change),
    Assign(Assignment),
    LogTime(Time),
    Child(Child),
    Close(Closing),
    Link(Link),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Note {
    pub text: String,
}

/// A ticket's requester.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Person {
    pub name: String,
    /// Absent where the requester's details were entered by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<i64>,
    pub email: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reply {
    pub text: String,
    pub recipient: Person,
    pub ticket_id: i64,
    /// The client's name in HaloPSA.
    pub client: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Change {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_id: Option<i64>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(rename = "typeId", skip_serializing_if = "Option::is_none")]
    pub kind_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category_id: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Assignment {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team_id: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Time {
    pub minutes: i64,
    pub note: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Child {
    pub summary: String,
    pub details: String,
    pub requester: Person,
    pub ticket_id: i64,
    pub client: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Closing {
    pub closure_note: String,
    pub status: String,
    pub status_id: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Link {
    pub article_id: i64,
    /// Its name in HaloPSA.
    pub article: String,
}

/// A row that a call names: what it is, its name, its id.
type Row = (&'static str, String, i64);

impl Canonical {
    /// The canonical arguments: what is decided on, stored, hashed, shown and run.
    pub fn arguments(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(arguments)) => arguments,
            // Structs of texts and numbers are always objects.
            _ => Map::new(),
        }
    }

    /// Reads what [`Canonical::arguments`] wrote.
    pub fn read(tool: &str, arguments: &Map<String, Value>) -> Result<Self, String> {
        match tool {
            PRIVATE_NOTE => typed(arguments).map(Canonical::PrivateNote),
            REPLY => typed(arguments).map(Canonical::Reply),
            UPDATE => typed(arguments).map(Canonical::Update),
            ASSIGN => typed(arguments).map(Canonical::Assign),
            LOG_TIME => typed(arguments).map(Canonical::LogTime),
            CHILD => typed(arguments).map(Canonical::Child),
            CLOSE => typed(arguments).map(Canonical::Close),
            LINK => typed(arguments).map(Canonical::Link),
            _ => Err("there is no tool of this name".into()),
        }
    }

    /// Whether HaloPSA still means the same: each id its row, the ticket its requester. Else why
    /// not.
    pub fn still_holds(&self, about: &About<'_>) -> Result<(), String> {
        match self {
            Canonical::PrivateNote(_) | Canonical::LogTime(_) => Ok(()),
            Canonical::Reply(reply) => {
                same_ticket(reply.ticket_id, about)?;
                same_person(&reply.recipient, about)
            }
            Canonical::Child(child) => {
                same_ticket(child.ticket_id, about)?;
                same_person(&child.requester, about)
            }
            Canonical::Update(change) => {
                let closing = change.status_id.zip(change.status.as_deref());
                if closing.is_some_and(|(id, name)| row_closes(id, name)) {
                    return Err(to_close());
                }
                same_rows(&change.rows(), about)
            }
            Canonical::Assign(assignment) => same_rows(&assignment.rows(), about),
            Canonical::Close(close) => {
                same_rows(&[("status", close.status.clone(), close.status_id)], about)
            }
            Canonical::Link(link) => match article(link.article_id, about)? == link.article {
                true => Ok(()),
                false => Err(format!(
                    "article {} has another name since the request; nothing was changed",
                    link.article_id
                )),
            },
        }
    }
}

impl Change {
    pub fn rows(&self) -> Vec<Row> {
        let all = [
            ("status", &self.status, self.status_id),
            ("priority", &self.priority, self.priority_id),
            ("ticket type", &self.kind, self.kind_id),
            ("category", &self.category, self.category_id),
        ];
        named(all)
    }
}

impl Assignment {
    pub fn rows(&self) -> Vec<Row> {
        let all = [
            ("technician", &self.agent, self.agent_id),
            ("team", &self.team, self.team_id),
        ];
        named(all)
    }
}

fn named<const N: usize>(all: [(&'static str, &Option<String>, Option<i64>); N]) -> Vec<Row> {
    all.into_iter()
        .filter_map(|(what, name, id)| Some((what, name.clone()?, id?)))
        .collect()
}

fn typed<T: DeserializeOwned>(arguments: &Map<String, Value>) -> Result<T, String> {
    serde_json::from_value(Value::Object(arguments.clone()))
        .map_err(|e| format!("the step's arguments cannot be read: {e}"))
}

/// The canonical call, or why there is none.
pub fn resolve(write: &Write, about: &About<'_>) -> Result<Canonical, String> {
    let ticket = about.ticket;
    let client = || one_line(&ticket.client_name, MAX_NAME);
    match write {
        Write::PrivateNote { text } => Ok(Canonical::PrivateNote(Note { text: text.clone() })),
        Write::LogTime { minutes, note } => Ok(Canonical::LogTime(Time {
            minutes: *minutes,
            note: note.clone(),
        })),
        Write::Reply { text } => Ok(Canonical::Reply(Reply {
            text: text.clone(),
            recipient: recipient(about)?,
            ticket_id: ticket.id,
            client: client(),
        })),
        Write::Child { summary, details } => Ok(Canonical::Child(Child {
            summary: summary.clone(),
            details: details.clone(),
            requester: person(about),
            ticket_id: ticket.id,
            client: client(),
        })),
        Write::Update(update) => change(update, about).map(Canonical::Update),
        Write::Assign(given) => assign(given, about).map(Canonical::Assign),
        Write::Close { closure_note } => {
            let (status_id, status) = closed(about)?;
            Ok(Canonical::Close(Closing {
                closure_note: closure_note.clone(),
                status,
                status_id,
            }))
        }
        Write::Link { article_id } => Ok(Canonical::Link(Link {
            article_id: *article_id,
            article: article(*article_id, about)?,
        })),
    }
}

fn change(update: &Update, about: &About<'_>) -> Result<Change, String> {
    let mut change = Change::default();
    if let Some(given) = &update.status {
        let (id, name) = pick("status", given, about)?;
        if row_closes(id, &name) {
            return Err(to_close());
        }
        (change.status_id, change.status) = (Some(id), Some(name));
    }
    if let Some(given) = &update.priority {
        let (id, name) = pick("priority", given, about)?;
        (change.priority_id, change.priority) = (Some(id), Some(name));
    }
    if let Some(given) = &update.kind {
        let (id, name) = pick("ticket type", given, about)?;
        (change.kind_id, change.kind) = (Some(id), Some(name));
    }
    if let Some(given) = &update.category {
        let (id, name) = pick("category", given, about)?;
        (change.category_id, change.category) = (Some(id), Some(name));
    }
    Ok(change)
}

fn assign(given: &Assign, about: &About<'_>) -> Result<Assignment, String> {
    let mut assignment = Assignment::default();
    if let Some(agent) = &given.agent {
        let (id, name) = pick("technician", agent, about)?;
        (assignment.agent_id, assignment.agent) = (Some(id), Some(name));
    }
    if let Some(team) = &given.team {
        let (id, name) = pick("team", team, about)?;
        // HaloPSA's action takes a team by its name.
        if named_so(&name, &rows("team", about)).len() > 1 {
            return Err(format!(
                "more than one team is called {name}, and HaloPSA assigns teams by name; leave it \
                 to a technician"
            ));
        }
        (assignment.team_id, assignment.team) = (Some(id), Some(name));
    }
    Ok(assignment)
}

/// The rows a call may name, with their ids.
fn rows<'a>(what: &str, about: &About<'a>) -> Vec<(i64, &'a str)> {
    let directory = about.directory;
    let of = |named: &'a [Named]| -> Vec<(i64, &'a str)> {
        named.iter().map(|r| (r.id, r.name.as_str())).collect()
    };
    match what {
        "status" => of(&directory.statuses),
        "ticket type" => of(&directory.types),
        "team" => of(&directory.teams),
        // One row per SLA: an id of another SLA does nothing useful.
        "priority" => {
            let sla = about.ticket.sla_id;
            let rows = directory.priorities.iter();
            rows.filter(|r| !r.ishidden && (sla.is_none() || r.slaid == sla))
                .map(|r| (r.priorityid, r.name.as_str()))
                .collect()
        }
        // The ticket's first category, of four.
        "category" => {
            let rows = directory.categories.iter();
            rows.filter(|r| r.type_id.is_none_or(|t| t == 1))
                .map(|r| (r.id, r.path()))
                .collect()
        }
        "technician" => {
            let rows = directory.technicians.iter();
            rows.filter(|a| !a.isdisabled && a.id > UNASSIGNED && Some(a.id) != about.api_agent)
                .map(|a| (a.id.0, a.name.as_str()))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// A name, as it is compared: case and white space do not matter.
fn key(name: &str) -> String {
    one_line(name, MAX_NAME).to_lowercase()
}

fn named_so<'a>(name: &str, rows: &[(i64, &'a str)]) -> Vec<(i64, &'a str)> {
    let wanted = key(name);
    let mut found: Vec<(i64, &str)> = Vec::new();
    for row in rows {
        if key(row.1) == wanted && found.iter().all(|f| f.0 != row.0) {
            found.push(*row);
        }
    }
    found
}

/// The one row of this name or, if none has it, of this id.
fn pick(what: &str, given: &str, about: &About<'_>) -> Result<(i64, String), String> {
    let rows = rows(what, about);
    let canonical = |row: &(i64, &str)| (row.0, one_line(row.1, MAX_NAME));
    match named_so(given, &rows).as_slice() {
        [row] => return Ok(canonical(row)),
        [] => {}
        several => {
            let ids: Vec<String> = several.iter().map(|r| r.0.to_string()).collect();
            return Err(format!(
                "more than one {what} is called {}; give the id, one of: {}",
                one_line(given, 60),
                ids.join(", ")
            ));
        }
    }
    let id = given.parse::<i64>().ok();
    if let Some(row) = rows.iter().find(|r| Some(r.0) == id) {
        return Ok(canonical(row));
    }
    let there: Vec<String> = rows
        .iter()
        .take(MAX_NAMED)
        .map(|row| one_line(row.1, 60))
        .collect();
    Err(format!(
        "there is no {what} {}; choose one of: {}",
        one_line(given, 60),
        there.join(", ")
    ))
}

/// The status that closes a ticket.
fn closed(about: &About<'_>) -> Result<(i64, String), String> {
    let rows = rows("status", about);
    match rows.iter().find(|r| r.0 == CLOSED) {
        Some(row) => Ok((row.0, one_line(row.1, MAX_NAME))),
        None => pick("status", "Closed", about),
    }
}

fn article(id: i64, about: &About<'_>) -> Result<String, String> {
    let article = about.directory.article.as_ref().filter(|a| a.id == id);
    article
        .map(|a| one_line(&a.name, MAX_NAME))
        .ok_or_else(|| format!("there is no knowledge base article {id}"))
}

/// The ticket's requester, as HaloPSA has them now.
fn person(about: &About<'_>) -> Person {
    let ticket = about.ticket;
    let user_id = ticket.user_id.filter(|id| *id > 0);
    let user = about.directory.requester.as_ref();
    let user = user.filter(|u| Some(u.id) == user_id);
    let or = |of_ticket: &str, of_user: Option<&String>| {
        let text = one_line(of_ticket, MAX_NAME);
        match of_user {
            Some(other) if text.is_empty() => one_line(other, MAX_NAME),
            _ => text,
        }
    };
    Person {
        name: or(&ticket.user_name, user.map(|u| &u.name)),
        user_id,
        email: or(&ticket.user_email, user.map(|u| &u.emailaddress)),
    }
}

/// The requester, who must be reachable.
fn recipient(about: &About<'_>) -> Result<Person, String> {
    let person = person(about);
    if person.email.contains('@') {
        return Ok(person);
    }
    Err(
        "the ticket's requester has no e-mail address in HaloPSA; add a private note instead"
            .into(),
    )
}

fn same_ticket(id: i64, about: &About<'_>) -> Result<(), String> {
    match id == about.ticket.id {
        true => Ok(()),
        false => Err(format!("it was asked for ticket {id}; nothing was sent")),
    }
}

fn same_person(asked: &Person, about: &About<'_>) -> Result<(), String> {
    let now = person(about);
    if now == *asked {
        return Ok(());
    }
    Err(format!(
        "the requester has changed since the request: it was {asked}, and is now {now}; nothing \
         was sent"
    ))
}

fn same_rows(asked: &[Row], about: &About<'_>) -> Result<(), String> {
    for (what, name, id) in asked {
        let rows = rows(what, about);
        let is_it = |row: &(i64, &str)| row.0 == *id && one_line(row.1, MAX_NAME) == *name;
        if !rows.iter().any(is_it) {
            return Err(format!(
                "{what} {id} is no longer called {name} in HaloPSA, or not available for this \
                 ticket; nothing was changed"
            ));
        }
    }
    Ok(())
}

impl std::fmt::Display for Person {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} <{}>", self.name, self.email)?;
        match self.user_id {
            Some(id) => write!(f, ", user {id}"),
            None => f.write_str(", entered by hand"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::halopsa::types::{Agent, Article, Category, PriorityRow, User};
    use crate::tools::write::parse;
    use serde_json::json;
    use std::sync::Arc;

    fn named(id: i64, name: &str) -> Named {
        Named {
            id,
            name: name.into(),
        }
    }

    fn technician(id: i64, name: &str, isdisabled: bool) -> Agent {
        Agent {
            id: TechnicianId(id),
            name: name.into(),
            isdisabled,
            ..Agent::default()
        }
    }

    fn directory() -> Directory {
        let priority = |priorityid, slaid, name: &str| PriorityRow {
            priorityid,
            slaid: Some(slaid),
            name: name.into(),
            ishidden: false,
        };
        Directory {
            statuses: Arc::new(vec![
                named(1, "New"),
                named(2, "In Progress"),
                named(4, " With  User "),
                named(8, "Resolved"),
                named(9, "Fertig"),
                named(23, "Geschlossen"),
            ]),
            priorities: Arc::new(vec![
                priority(1, 1, "Critical"),
                priority(2, 2, "Critical"),
                priority(3, 1, "Low"),
            ]),
            types: Arc::new(vec![named(1, "Incident")]),
            categories: Arc::new(vec![Category {
                id: 5,
                category_name: "Hardware>Printer".into(),
                value: String::new(),
                type_id: Some(1),
            }]),
            teams: Arc::new(vec![named(1, "First"), named(2, "Twin"), named(3, "twin")]),
            technicians: Arc::new(vec![
                technician(1, "Unassigned", false),
                technician(3, "Dana Novak", false),
                technician(4, "Luis Ortega", false),
                technician(5, "Sam Reed", false),
                technician(6, "sam reed", false),
                technician(7, "Gone Gale", true),
                technician(31, "Rallied Agent", false),
            ]),
            article: Some(Article {
                id: 7,
                name: "Printer offline".into(),
                ..Article::default()
            }),
            requester: None,
        }
    }

    fn ticket() -> Ticket {
        Ticket {
            id: 4242,
            client_name: "Acme".into(),
            user_id: Some(70),
            user_name: "Kim Lee".into(),
            user_email: "kim.lee@acme.example".into(),
            sla_id: Some(1),
            ..Ticket::default()
        }
    }

    fn resolved(tool: &str, arguments: Value) -> Result<Value, String> {
        let (ticket, directory) = (ticket(), directory());
        let about = About {
            ticket: &ticket,
            directory: &directory,
            api_agent: Some(TechnicianId(31)),
        };
        let write = parse(tool, arguments.as_object().unwrap())?;
        let canonical = resolve(&write, &about)?;
        let arguments = canonical.arguments();
        // What is stored is what is read again, and it still holds.
        assert_eq!(Canonical::read(tool, &arguments).as_ref(), Ok(&canonical));
        assert_eq!(canonical.still_holds(&about), Ok(()));
        Ok(Value::Object(arguments))
    }

    #[test]
    fn every_spelling_is_one_call() {
        let with_user = json!({"status": "With User", "statusId": 4});
        for spelling in [
            "With User",
            "with user",
            " WITH USER",
            "With User\u{2003}",
            "with\u{a0}user",
            "4",
        ] {
            assert_eq!(
                resolved(UPDATE, json!({"status": spelling})),
                Ok(with_user.clone()),
                "{spelling}"
            );
        }
        let luis = json!({"agent": "Luis Ortega", "agentId": 4});
        for spelling in ["Luis Ortega", "LUIS ORTEGA", " luis  ortega ", "4"] {
            assert_eq!(
                resolved(ASSIGN, json!({"agent": spelling})),
                Ok(luis.clone()),
                "{spelling}"
            );
        }
    }

    #[test]
    fn arguments_get_their_ids() {
        let kim = json!({"name": "Kim Lee", "userId": 70, "email": "kim.lee@acme.example"});
        for (tool, given, canonical) in [
            (PRIVATE_NOTE, json!({"text": " x "}), json!({"text": "x"})),
            (
                REPLY,
                json!({"text": "x"}),
                json!({"text": "x", "recipient": kim, "ticketId": 4242, "client": "Acme"}),
            ),
            (
                UPDATE,
                json!({"priority": "critical", "type": "incident", "category": "hardware>printer"}),
                json!({
                    "priority": "Critical", "priorityId": 1, "type": "Incident", "typeId": 1,
                    "category": "Hardware>Printer", "categoryId": 5,
                }),
            ),
            (
                ASSIGN,
                json!({"team": "first"}),
                json!({"team": "First", "teamId": 1}),
            ),
            // Two are called so; the id says which.
            (
                ASSIGN,
                json!({"agent": "6"}),
                json!({"agent": "sam reed", "agentId": 6}),
            ),
            (
                CLOSE,
                json!({"closureNote": "x"}),
                json!({"closureNote": "x", "status": "Fertig", "statusId": 9}),
            ),
            (
                LINK,
                json!({"articleId": 7}),
                json!({"articleId": 7, "article": "Printer offline"}),
            ),
            (
                CHILD,
                json!({"summary": "s", "details": "d"}),
                json!({
                    "summary": "s", "details": "d", "requester": kim, "ticketId": 4242,
                    "client": "Acme",
                }),
            ),
        ] {
            assert_eq!(
                resolved(tool, given.clone()),
                Ok(canonical),
                "{tool} {given}"
            );
        }
    }

    #[test]
    fn what_is_not_one_row_is_refused() {
        for (tool, given, why) in [
            (
                UPDATE,
                json!({"status": "Nowhere"}),
                "choose one of: New, In Progress",
            ),
            (UPDATE, json!({"status": "geschlossen"}), CLOSE),
            (UPDATE, json!({"status": "23"}), CLOSE),
            (UPDATE, json!({"status": "fertig"}), CLOSE),
            (UPDATE, json!({"status": "RESOLVED"}), CLOSE),
            (UPDATE, json!({"priority": "High"}), "there is no priority"),
            (
                ASSIGN,
                json!({"agent": "Sam Reed"}),
                "give the id, one of: 5, 6",
            ),
            (
                ASSIGN,
                json!({"agent": "Gone Gale"}),
                "there is no technician",
            ),
            (
                ASSIGN,
                json!({"agent": "Unassigned"}),
                "there is no technician",
            ),
            (ASSIGN, json!({"agent": "1"}), "there is no technician"),
            (
                ASSIGN,
                json!({"agent": "Rallied Agent"}),
                "there is no technician",
            ),
            (ASSIGN, json!({"team": "Twin"}), "give the id, one of: 2, 3"),
            (ASSIGN, json!({"team": "2"}), "leave it to a technician"),
            (
                LINK,
                json!({"articleId": 8}),
                "there is no knowledge base article 8",
            ),
        ] {
            let refused = resolved(tool, given.clone()).unwrap_err();
            assert!(refused.contains(why), "{tool} {given}: {refused}");
        }
    }

    #[test]
    fn a_reply_needs_an_address() {
        let mut directory = directory();
        let by_hand = Ticket {
            user_email: String::new(),
            ..ticket()
        };
        let write = Write::Reply { text: "x".into() };
        let ask = |directory: &Directory| {
            let about = About {
                ticket: &by_hand,
                directory,
                api_agent: None,
            };
            resolve(&write, &about).map(|c| c.arguments()["recipient"]["email"].clone())
        };
        assert!(ask(&directory).unwrap_err().contains("no e-mail address"));
        directory.requester = Some(User {
            id: 70,
            emailaddress: "kim@acme.example".into(),
            ..User::default()
        });
        assert_eq!(ask(&directory), Ok("kim@acme.example".into()));
        // A row of somebody else proves nothing.
        directory.requester = Some(User {
            id: 71,
            emailaddress: "other@acme.example".into(),
            ..User::default()
        });
        assert!(ask(&directory).is_err());
    }

    #[test]
    fn what_has_changed_since_does_not_run() {
        let before = (ticket(), directory());
        let about = |of: &(Ticket, Directory), write: &Write| -> Result<Canonical, String> {
            let about = About {
                ticket: &of.0,
                directory: &of.1,
                api_agent: None,
            };
            resolve(write, &about)
        };
        let reply = about(&before, &Write::Reply { text: "x".into() }).unwrap();
        let update = Write::Update(Update {
            status: Some("In Progress".into()),
            ..Update::default()
        });
        let update = about(&before, &update).unwrap();
        let given = Write::Assign(Assign {
            agent: Some("Luis Ortega".into()),
            team: None,
        });
        let assign = about(&before, &given).unwrap();
        let mut other = before.clone();
        other.0.user_id = Some(71);
        other.0.user_name = "Priya Raman".into();
        other.1.statuses = Arc::new(vec![named(2, "Awaiting Approval")]);
        other.1.technicians = Arc::new(vec![technician(4, "Luis Ortega", true)]);
        let now = About {
            ticket: &other.0,
            directory: &other.1,
            api_agent: None,
        };
        for (canonical, why) in [
            (reply, "the requester has changed since the request"),
            (update, "status 2 is no longer called In Progress"),
            (assign, "technician 4 is no longer called Luis Ortega"),
        ] {
            let refused = canonical.still_holds(&now).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn what_was_stored_by_others_is_not_read() {
        for (tool, arguments) in [
            (REPLY, json!({"text": "x"})),
            (UPDATE, json!({"status": "New", "agent": "Luis"})),
            (CLOSE, json!({"closureNote": "x"})),
            ("m365__x", json!({})),
        ] {
            assert!(
                Canonical::read(tool, arguments.as_object().unwrap()).is_err(),
                "{tool}"
            );
        }
    }
}
