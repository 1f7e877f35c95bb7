//! HaloPSA's entities and the rules it keeps between them.
//!
//! Entities are JSON objects, as on the wire: a write touches just the fields
//! it names, and what nobody reads need not be modelled.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

pub type Object = Map<String, Value>;

/// Deliveries kept.
const MAX_DELIVERIES: usize = 10_000;
pub const CLOSED_STATUS: i64 = 9;
pub const UNASSIGNED: i64 = 1;

/// Entities with whole numbers for ids, by their path in lower case.
pub const KINDS: [&str; 13] =
    ["tickets", "client", "site", "users", "agent", "team", "status", "priority", "tickettype", "outcome", "asset", "kbarticle", "notification"];

#[derive(Debug, Default)]
pub struct Store {
    kinds: BTreeMap<&'static str, BTreeMap<i64, Object>>,
    actions: BTreeMap<i64, Vec<Action>>,
    pub webhooks: BTreeMap<String, Object>,
    pub deliveries: VecDeque<Object>,
    /// Ticket updates need `tickettype_id` and `client_id` beside `id`.
    pub lax_updates: bool,
}

#[derive(Debug)]
struct Action {
    object: Object,
    /// Reads do not see it earlier.
    visible_at: Instant,
}

/// Who writes.
#[derive(Clone, Debug)]
pub enum Author {
    Agent { id: i64, application: String },
    User { id: i64 },
}

/// Something webhooks may be subscribed to.
#[derive(Clone, Debug)]
pub struct Change {
    pub event: i64,
    pub name: &'static str,
    pub message: String,
    pub ticket: Object,
    pub action: Option<Object>,
}

/// Why HaloPSA says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum No {
    BadRequest(&'static str),
    NotFound,
}

type Outcome<T> = Result<T, No>;

pub fn text<'a>(object: &'a Object, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

pub fn number(object: &Object, key: &str) -> Option<i64> {
    integer(object.get(key)?)
}

pub fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(n) => n.as_i64().or_else(|| n.as_f64().map(|f| f as i64)),
        Value::String(s) => s.trim().parse::<f64>().ok().map(|f| f as i64),
        _ => None,
    }
}

/// Now as HaloPSA writes it: UTC, no zone, decimals as they come.
pub fn now() -> String {
    stamp(Timestamp::now())
}

pub fn stamp(time: Timestamp) -> String {
    let text = time.strftime("%Y-%m-%dT%H:%M:%S%.3f").to_string();
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

impl Store {
    pub fn kind(&self, kind: &str) -> Option<&BTreeMap<i64, Object>> {
        self.kinds.get(kind)
    }

    pub fn get(&self, kind: &str, id: i64) -> Option<&Object> {
        self.kinds.get(kind)?.get(&id)
    }

    pub fn get_mut(&mut self, kind: &str, id: i64) -> Option<&mut Object> {
        self.kinds.get_mut(kind)?.get_mut(&id)
    }

    /// Puts an object as it is; the next free id where it has none.
    pub fn put(&mut self, kind: &'static str, mut object: Object) -> i64 {
        let rows = self.kinds.entry(kind).or_default();
        let id = number(&object, "id").filter(|id| *id > 0).unwrap_or_else(|| rows.keys().next_back().map_or(1, |last| last + 1));
        object.insert("id".into(), id.into());
        rows.insert(id, object);
        id
    }

    pub fn remove(&mut self, kind: &str, id: i64) -> Option<Object> {
        self.kinds.get_mut(kind)?.remove(&id)
    }

    fn name_of(&self, kind: &str, id: Option<i64>) -> String {
        id.and_then(|id| self.get(kind, id)).map(|o| text(o, "name").to_string()).unwrap_or_default()
    }

    /// Names beside ids, as HaloPSA fills them in on reading and writing.
    fn join(&self, ticket: &mut Object) {
        for (kind, id, name) in [
            ("client", "client_id", "client_name"),
            ("site", "site_id", "site_name"),
            ("users", "user_id", "user_name"),
            ("status", "status_id", "status_name"),
            ("tickettype", "tickettype_id", "tickettype_name"),
            ("team", "team_id", "team"),
        ] {
            let value = self.name_of(kind, number(ticket, id));
            ticket.insert(name.into(), value.into());
        }
        let priority = number(ticket, "priority_id");
        let priority = self.kind("priority").and_then(|rows| rows.values().find(|p| number(p, "priorityid") == priority));
        ticket.insert("priority_name".into(), priority.map(|p| text(p, "name")).unwrap_or_default().into());
        let email = number(ticket, "user_id").and_then(|id| self.get("users", id)).map(|u| text(u, "emailaddress").to_string());
        ticket.insert("user_email".into(), email.unwrap_or_default().into());
    }

    /// Creates or updates a ticket: `POST /Tickets`.
    pub fn write_ticket(&mut self, input: &Object, author: &Author) -> Outcome<(Object, Vec<Change>)> {
        match number(input, "id").filter(|id| *id > 0) {
            None => self.new_ticket(input, author),
            Some(id) => self.update_ticket(id, input, author),
        }
    }

    fn new_ticket(&mut self, input: &Object, author: &Author) -> Outcome<(Object, Vec<Change>)> {
        if text(input, "summary").is_empty() {
            return Err(No::BadRequest("A Summary must be entered for this Ticket"));
        }
        let user = number(input, "user_id").and_then(|id| self.get("users", id)).cloned();
        let client = number(input, "client_id").or_else(|| user.as_ref().and_then(|u| number(u, "client_id"))).unwrap_or(1);
        if self.get("client", client).is_none() {
            return Err(No::BadRequest("Please select a valid Client"));
        }
        let site = number(input, "site_id").or_else(|| user.as_ref().and_then(|u| number(u, "site_id")));
        let now = now();
        let mut ticket = object(json!({
            "details": "", "dateoccurred": now, "datecreated": now, "status_id": 1, "tickettype_id": 1, "sla_id": 1, "priority_id": 3,
            "agent_id": UNASSIGNED, "team_id": 1, "category_1": "", "onhold": false, "flagged": false, "read": false,
            "hasbeenclosed": false, "dateclosed": "1900-01-01T00:00:00", "customfields": [], "attachment_count": 0, "child_count": 0,
            "guid": uuid::Uuid::new_v4().to_string(), "source": 0,
        }));
        for (key, value) in input {
            // Nested actions are ignored without a word.
            if key != "id" && key != "actions" && !key.starts_with('_') {
                ticket.insert(key.clone(), value.clone());
            }
        }
        ticket.insert("client_id".into(), client.into());
        ticket.insert("site_id".into(), site.into());
        ticket.insert("lastactiondate".into(), now.clone().into());
        ticket.insert("last_update".into(), now.into());
        self.join(&mut ticket);
        let id = self.put("tickets", ticket);
        let opened = object(json!({"ticket_id": id, "outcome": "Opened", "outcome_id": -1, "note": text(input, "details"), "hiddenfromuser": false}));
        self.push_action(id, opened, author, Instant::now());
        let ticket = self.get("tickets", id).cloned().unwrap_or_default();
        let change = Change {
            event: 3,
            name: "new ticket logged",
            message: format!("New Ticket Logged. Ticket ID: {id:07}."),
            ticket: ticket.clone(),
            action: None,
        };
        Ok((ticket, vec![change]))
    }

    fn update_ticket(&mut self, id: i64, input: &Object, author: &Author) -> Outcome<(Object, Vec<Change>)> {
        let before = self.get("tickets", id).cloned().ok_or(No::BadRequest("Record not found"))?;
        if !self.lax_updates && (number(input, "tickettype_id").is_none() || number(input, "client_id").is_none()) {
            return Err(No::BadRequest("Record not found"));
        }
        let mut ticket = before.clone();
        for (key, value) in input {
            if key != "id" && key != "actions" && !key.starts_with('_') {
                ticket.insert(key.clone(), value.clone());
            }
        }
        self.finish_update(id, &before, ticket, author, None)
    }

    /// What changes with a ticket's new values: names, close date, events.
    fn finish_update(
        &mut self,
        id: i64,
        before: &Object,
        mut ticket: Object,
        author: &Author,
        action: Option<&Object>,
    ) -> Outcome<(Object, Vec<Change>)> {
        let (old_status, status) = (number(before, "status_id"), number(&ticket, "status_id"));
        let closes = status == Some(CLOSED_STATUS) && old_status != status;
        if closes && number(&ticket, "agent_id") == Some(UNASSIGNED) {
            return Err(No::BadRequest("You must assign this Ticket to an Agent before closing it"));
        }
        let now = now();
        if closes {
            ticket.insert("hasbeenclosed".into(), true.into());
            ticket.insert("dateclosed".into(), now.clone().into());
        } else if old_status == Some(CLOSED_STATUS) && old_status != status {
            ticket.insert("hasbeenclosed".into(), false.into());
            ticket.insert("dateclosed".into(), "1900-01-01T00:00:00".into());
        }
        ticket.insert("last_update".into(), now.into());
        self.join(&mut ticket);
        self.put("tickets", ticket.clone());
        let mut changes = Vec::new();
        let mut change = |event, name, message: String| {
            changes.push(Change { event, name, message, ticket: ticket.clone(), action: action.cloned() });
        };
        if matches!(author, Author::User { .. }) {
            change(19, "ticket updated by user", format!("Ticket ID: {id:07} has been updated by the User."));
        }
        if closes {
            change(39, "closed", format!("Ticket ID: {id:07} has been closed."));
        } else if old_status != status {
            change(76, "ticket status changed", format!("The status has been changed for Ticket ID: {id:07}."));
        }
        if action.is_some() {
            change(1004, "action added", format!("An Action has been added to Ticket ID: {id:07}."));
        }
        Ok((ticket, changes))
    }

    pub fn delete_ticket(&mut self, id: i64) -> Outcome<(Object, Vec<Change>)> {
        let ticket = self.remove("tickets", id).ok_or(No::NotFound)?;
        let change = Change {
            event: 1072,
            name: "ticket deleted",
            message: format!("Ticket ID: {id:07} has been deleted."),
            ticket: ticket.clone(),
            action: None,
        };
        Ok((ticket, vec![change]))
    }

    /// Creates or updates an action: `POST /Actions`.
    pub fn write_action(&mut self, input: &Object, author: &Author, visible_at: Instant) -> Outcome<(Object, Vec<Change>)> {
        let ticket_id = number(input, "ticket_id").ok_or(No::BadRequest(""))?;
        let before = self.get("tickets", ticket_id).cloned().ok_or(No::BadRequest("Record not found"))?;
        if let Some(id) = number(input, "id").filter(|id| *id > 0) {
            let action =
                self.actions.get_mut(&ticket_id).and_then(|a| a.iter_mut().find(|a| number(&a.object, "id") == Some(id))).ok_or(No::NotFound)?;
            action.object.extend(input.clone());
            return Ok((action.object.clone(), Vec::new()));
        }
        let outcome = match (text(input, "outcome"), number(input, "outcome_id")) {
            ("", None) => return Err(No::BadRequest("An Outcome must be entered for this Action")),
            (name, id) => self
                .kind("outcome")
                .and_then(|rows| rows.values().find(|o| text(o, "outcome").eq_ignore_ascii_case(name) || (name.is_empty() && number(o, "id") == id)))
                .cloned(),
        };
        // A name HaloPSA does not know is accepted as a plain label; an unknown id is not.
        if outcome.is_none() && text(input, "outcome").is_empty() {
            return Err(No::BadRequest("An Outcome must be entered for this Action"));
        }
        let mut action = input.clone();
        if let Some(outcome) = outcome {
            action.insert("outcome".into(), text(&outcome, "outcome").into());
            action.insert("outcome_id".into(), number(&outcome, "id").into());
            if !action.contains_key("hiddenfromuser") {
                action.insert("hiddenfromuser".into(), outcome.get("hidefromuser").cloned().unwrap_or(false.into()));
            }
        }
        let html = text(&action, "note_html").to_string();
        if !html.is_empty() {
            // The text is rebuilt from the HTML, with nothing in place of the tags.
            action.insert("note".into(), strip_tags(&html).into());
        }
        let mut ticket = before.clone();
        let wanted = |action: &Object, key: &str| number(action, key).filter(|v| *v > 0);
        if let Some(status) = wanted(&action, "new_status") {
            ticket.insert("status_id".into(), status.into());
        }
        if let Some(agent) = wanted(&action, "new_agent") {
            ticket.insert("agent_id".into(), agent.into());
        }
        if let Some(priority) = wanted(&action, "new_priority") {
            ticket.insert("priority_id".into(), priority.into());
        }
        for (from, to) in [("new_tickettype", "tickettype_id"), ("new_sla_id", "sla_id")] {
            if let Some(value) = wanted(&action, from) {
                ticket.insert(to.into(), value.into());
            }
        }
        for n in 1..=4 {
            let category = text(&action, &format!("new_category{n}")).to_string();
            if !category.is_empty() {
                ticket.insert(format!("category_{n}"), category.into());
            }
        }
        // By its name, as the field is typed.
        let team = text(&action, "new_team").to_string();
        let team =
            self.kind("team").and_then(|rows| rows.values().find(|t| text(t, "name").eq_ignore_ascii_case(&team))).and_then(|t| number(t, "id"));
        if let Some(team) = team {
            ticket.insert("team_id".into(), team.into());
        }
        if let Some(hours) = action.get("timetaken").and_then(Value::as_f64).filter(|h| *h > 0.0) {
            let before = ticket.get("timetaken").and_then(Value::as_f64).unwrap_or_default();
            ticket.insert("timetaken".into(), (before + hours).into());
        }
        action.insert("old_status".into(), before.get("status_id").cloned().unwrap_or(Value::Null));
        action.insert("new_status".into(), ticket.get("status_id").cloned().unwrap_or(Value::Null));
        ticket.insert("lastactiondate".into(), now().into());
        let written = self.push_action(ticket_id, action, author, visible_at);
        let (_, changes) = self.finish_update(ticket_id, &before, ticket, author, Some(&written))?;
        Ok((written, changes))
    }

    /// Appends an action; ids count up within their ticket.
    fn push_action(&mut self, ticket_id: i64, mut action: Object, author: &Author, visible_at: Instant) -> Object {
        let actions = self.actions.entry(ticket_id).or_default();
        let id = actions.last().and_then(|a| number(&a.object, "id")).unwrap_or(0) + 1;
        let now = now();
        let (who, fields) = match author {
            Author::Agent { id, application } => (
                self.kinds.get("agent").and_then(|a| a.get(id)).map(|a| text(a, "name").to_string()).unwrap_or_default(),
                json!({"who_type": 1, "who_agentid": id, "actionby_agent_id": id, "actionby_user_id": 0, "actionby_application_id": application}),
            ),
            Author::User { id } => (
                self.kinds.get("users").and_then(|u| u.get(id)).map(|u| text(u, "name").to_string()).unwrap_or_default(),
                json!({"who_type": 0, "who_agentid": 0, "actionby_agent_id": 0, "actionby_user_id": id, "actionby_application_id": ""}),
            ),
        };
        action.extend(object(fields));
        action.extend(object(json!({
            "id": id, "ticket_id": ticket_id, "who": who, "datetime": now, "actiondatecreated": now, "actionarrivaldate": now,
            "actioncompletiondate": now, "guid": uuid::Uuid::new_v4().to_string(), "attachment_count": 0, "translations": [],
        })));
        for (key, default) in [("important", json!(false)), ("timetaken", json!(0.0)), ("hiddenfromuser", json!(false)), ("note", json!(""))] {
            action.entry(key).or_insert(default);
        }
        actions.push(Action { object: action.clone(), visible_at });
        action
    }

    /// A ticket's actions, oldest first, as a reader sees them now.
    pub fn actions(&self, ticket_id: i64) -> Vec<&Object> {
        let now = Instant::now();
        self.actions.get(&ticket_id).map(|a| a.iter().filter(|a| a.visible_at <= now).map(|a| &a.object).collect()).unwrap_or_default()
    }

    pub fn delete_action(&mut self, ticket_id: i64, id: i64) -> Outcome<Object> {
        let actions = self.actions.get_mut(&ticket_id).ok_or(No::NotFound)?;
        let at = actions.iter().position(|a| number(&a.object, "id") == Some(id)).ok_or(No::NotFound)?;
        Ok(actions.remove(at).object)
    }

    /// Creates or updates a webhook. Its `events` are a read-only join.
    pub fn write_webhook(&mut self, input: &Object) -> Outcome<Object> {
        let id = text(input, "id").to_ascii_lowercase();
        let mut webhook = match id.is_empty() {
            false => self.webhooks.get(&id).cloned().ok_or(No::NotFound)?,
            true => object(json!({
                "id": uuid::Uuid::new_v4().to_string(), "type": 0, "method": 0, "content_type": "application/json", "authentication_type": 0,
                "active": true, "disabled": false, "payload_type": 0, "batch_method": 0, "log_retention_policy_days": 30, "note": "",
            })),
        };
        for (key, value) in input {
            if key != "id" && key != "events" {
                webhook.insert(key.clone(), value.clone());
            }
        }
        if text(&webhook, "name").is_empty() || text(&webhook, "url").is_empty() {
            return Err(No::BadRequest("A Name and a URL must be entered for this Webhook"));
        }
        if text(&webhook, "url").len() > 500 || text(&webhook, "name").len() > 255 {
            return Err(No::BadRequest("The Name or the URL of this Webhook is too long"));
        }
        let id = text(&webhook, "id").to_string();
        self.webhooks.insert(id.clone(), webhook);
        self.read_webhook(&id).ok_or(No::NotFound)
    }

    /// A webhook as it is shown: with its events, without its password.
    pub fn read_webhook(&self, id: &str) -> Option<Object> {
        let mut webhook = self.webhooks.get(&id.to_ascii_lowercase())?.clone();
        webhook.remove("basic_password");
        let events: Vec<Value> = self.notifications_of(id).map(|n| Value::Object(n.clone())).collect();
        webhook.insert("events".into(), events.into());
        Some(webhook)
    }

    pub fn notifications_of<'a>(&'a self, webhook: &'a str) -> impl Iterator<Item = &'a Object> {
        self.kind("notification").into_iter().flat_map(BTreeMap::values).filter(move |n| text(n, "webhook_id").eq_ignore_ascii_case(webhook))
    }

    pub fn delete_webhook(&mut self, id: &str) -> Outcome<Object> {
        let webhook = self.webhooks.remove(&id.to_ascii_lowercase()).ok_or(No::NotFound)?;
        let rows: Vec<i64> = self.notifications_of(id).filter_map(|n| number(n, "id")).collect();
        for row in rows {
            self.remove("notification", row);
        }
        Ok(webhook)
    }

    /// Subscribes; a row with an existing guid moves from its old webhook.
    pub fn write_notification(&mut self, input: &Object) -> Outcome<Object> {
        let webhook = text(input, "webhook_id");
        if !webhook.is_empty() && !self.webhooks.contains_key(&webhook.to_ascii_lowercase()) {
            return Err(No::BadRequest("Record not found"));
        }
        let guid = text(input, "guid").to_string();
        let existing = self.kind("notification").and_then(|rows| rows.values().find(|n| !guid.is_empty() && text(n, "guid") == guid)).cloned();
        let mut row = existing.unwrap_or_else(|| object(json!({"guid": uuid::Uuid::new_v4().to_string(), "filter_type": 2, "emailtemplate_id": 32})));
        row.extend(input.iter().filter(|(key, _)| *key != "guid" && *key != "id").map(|(k, v)| (k.clone(), v.clone())));
        let id = self.put("notification", row);
        Ok(self.get("notification", id).cloned().unwrap_or_default())
    }

    pub fn record_delivery(&mut self, delivery: Object) {
        self.deliveries.push_front(delivery);
        self.deliveries.truncate(MAX_DELIVERIES);
    }
}

/// The value's object; seeds and literals always are one.
pub fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

/// Tags out, nothing in their place, the usual entities back.
pub fn strip_tags(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut inside = false;
    for c in html.chars() {
        match c {
            '<' => inside = true,
            '>' if inside => inside = false,
            c if !inside => out.push(c),
            _ => {}
        }
    }
    out.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'").replace("&nbsp;", " ").replace("&amp;", "&")
}
