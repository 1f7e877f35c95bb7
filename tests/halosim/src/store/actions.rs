//! Writing actions: `POST /Actions`. An action may change its ticket.

use super::{
    Action, Author, Change, Key, No, Object, Outcome, Store, flag, number, object, strip_tags, text,
};
use serde_json::{Value, json};
use std::time::Instant;

impl Store {
    /// Creates or updates an action: `POST /Actions`.
    pub fn write_action(
        &mut self,
        input: &Object,
        author: &Author,
        visible_at: Instant,
    ) -> Outcome<(Object, Vec<Change>)> {
        let ticket_id = number(input, "ticket_id").ok_or(No::BadRequest(""))?;
        let before = self
            .get("tickets", ticket_id)
            .map(|t| t.into_owned())
            .ok_or(No::BadRequest("Record not found"))?;
        if let Some(id) = number(input, "id").filter(|id| *id > 0) {
            let action = self
                .actions
                .get_mut(&ticket_id)
                .and_then(|a| a.iter_mut().find(|a| number(&a.object, "id") == Some(id)))
                .ok_or(No::NotFound)?;
            action.object.extend(
                input
                    .iter()
                    .filter(|(key, _)| *key != "id" && *key != "ticket_id")
                    .map(|(k, v)| (k.clone(), v.clone())),
            );
            let action = action.object.clone();
            self.changed.insert(Key::Action(ticket_id, id));
            return Ok((action, Vec::new()));
        }
        let outcome = self.outcome(input)?;
        let mut action = input.clone();
        for key in ["attachments", "id"] {
            action.remove(key);
        }
        if let Some(outcome) = &outcome {
            action.insert("outcome".into(), text(outcome, "outcome").into());
            action.insert("outcome_id".into(), number(outcome, "id").into());
            if !action.contains_key("hiddenfromuser") {
                action.insert(
                    "hiddenfromuser".into(),
                    outcome.get("hidefromuser").cloned().unwrap_or(false.into()),
                );
            }
        }
        let html = text(&action, "note_html").to_string();
        if !html.is_empty() {
            // The text is derived from the HTML; tags are removed, with nothing in their place.
            action.insert("note".into(), strip_tags(&html).into());
        }
        let ticket = self.changed_ticket(&before, &action);
        if flag(&action, "sendemail") && !outcome.as_ref().is_some_and(|o| flag(o, "hidesendemail"))
        {
            self.mail_action(&before, &mut action);
        }
        action.insert(
            "old_status".into(),
            before.get("status_id").cloned().unwrap_or(Value::Null),
        );
        action.insert(
            "new_status".into(),
            ticket.get("status_id").cloned().unwrap_or(Value::Null),
        );
        let status = self.name_of("status", number(&ticket, "status_id"));
        action.insert("new_status_name".into(), status.into());
        // Refused before anything is written.
        let (_, mut changes) =
            self.finish_update(ticket_id, &before, ticket, author, Some(&action))?;
        let mut written = self.push_action(ticket_id, action, author, visible_at);
        if let Some(id) = number(&written, "id")
            && self.attach(input, ticket_id, id) > 0
        {
            written = self
                .actions(ticket_id)
                .into_iter()
                .find(|a| number(a, "id") == Some(id))
                .cloned()
                .unwrap_or(written);
        }
        for change in &mut changes {
            change.action = Some(written.clone());
        }
        Ok((written, changes))
    }

    /// The outcome an action names. An unknown name is accepted as a plain label; an unknown
    /// id is not.
    fn outcome(&self, input: &Object) -> Outcome<Option<Object>> {
        let (name, id) = match (text(input, "outcome"), number(input, "outcome_id")) {
            ("", None) => return Err(No::BadRequest("An Outcome must be entered for this Action")),
            known => known,
        };
        let outcome = self
            .kind("outcome")
            .and_then(|rows| {
                rows.values().find(|o| {
                    text(o, "outcome").eq_ignore_ascii_case(name)
                        || (name.is_empty() && number(o, "id") == id)
                })
            })
            .cloned();
        match outcome {
            None if name.is_empty() => {
                Err(No::BadRequest("An Outcome must be entered for this Action"))
            }
            Some(outcome) if flag(&outcome, "restricted") => Err(No::BadRequest(
                "You do not have access to this Action at the moment",
            )),
            outcome => Ok(outcome),
        }
    }

    /// The ticket as the action's `new_...` fields leave it.
    fn changed_ticket(&self, before: &Object, action: &Object) -> Object {
        let mut ticket = before.clone();
        let wanted = |key: &str| number(action, key).filter(|v| *v > 0);
        for (from, to) in [
            ("new_status", "status_id"),
            ("new_agent", "agent_id"),
            ("new_priority", "priority_id"),
            ("new_tickettype", "tickettype_id"),
            ("new_sla_id", "sla_id"),
        ] {
            if let Some(value) = wanted(from) {
                ticket.insert(to.into(), value.into());
            }
        }
        for n in 1..=4 {
            let category = text(action, &format!("new_category{n}"));
            if !category.is_empty() {
                ticket.insert(format!("category_{n}"), category.into());
            }
        }
        // By name: the field is a string.
        if let Some(team) = self.named("team", text(action, "new_team")) {
            ticket.insert("team_id".into(), team.into());
        }
        if let Some(hours) = action
            .get("timetaken")
            .and_then(Value::as_f64)
            .filter(|h| *h > 0.0)
        {
            let before = ticket
                .get("timetaken")
                .and_then(Value::as_f64)
                .unwrap_or_default();
            ticket.insert("timetaken".into(), (before + hours).into());
        }
        ticket.insert("lastactiondate".into(), self.now().into());
        ticket
    }

    /// Sends the action as an e-mail: to `emailto`, else to the ticket's requester.
    fn mail_action(&mut self, ticket: &Object, action: &mut Object) {
        let to = match text(action, "emailto") {
            "" => text(ticket, "user_email").to_string(),
            to => to.to_string(),
        };
        if to.is_empty() {
            return;
        }
        let subject = match text(action, "emailsubject") {
            "" => format!(
                "{} [{:07}]",
                text(ticket, "summary"),
                number(ticket, "id").unwrap_or_default()
            ),
            subject => subject.to_string(),
        };
        let now = self.now();
        action.extend(object(json!({"emaildirection": "O", "emailto": to, "emailsubject": subject, "dateemailed": now, "email_status": 2})));
        self.send_mail(object(json!({
            "to": to, "cc": text(action, "emailcc"), "subject": subject, "ticket_id": number(ticket, "id"), "sent": now,
            "body_html": if text(action, "note_html").is_empty() { text(action, "note") } else { text(action, "note_html") },
        })));
    }

    /// Appends an action; ids count up per ticket.
    pub(super) fn push_action(
        &mut self,
        ticket_id: i64,
        mut action: Object,
        author: &Author,
        visible_at: Instant,
    ) -> Object {
        let now = self.now();
        let (who, fields) = match author {
            Author::Agent { id, application } => (
                self.name_of("agent", Some(*id)),
                json!({"who_type": 1, "who_agentid": id, "actionby_agent_id": id, "actionby_user_id": 0, "actionby_application_id": application}),
            ),
            Author::User { id } => (
                self.name_of("users", Some(*id)),
                json!({"who_type": 0, "who_agentid": 0, "actionby_agent_id": 0, "actionby_user_id": id, "actionby_application_id": ""}),
            ),
        };
        let actions = self.actions.entry(ticket_id).or_default();
        let id = actions
            .last()
            .and_then(|a| number(&a.object, "id"))
            .unwrap_or(0)
            + 1;
        action.extend(object(fields));
        action.extend(object(json!({
            "id": id, "ticket_id": ticket_id, "who": who, "datetime": now, "actiondatecreated": now, "actionarrivaldate": now,
            "actioncompletiondate": now, "guid": uuid::Uuid::new_v4().to_string(), "attachment_count": 0, "translations": [],
        })));
        for (key, default) in [
            ("important", json!(false)),
            ("timetaken", json!(0.0)),
            ("hiddenfromuser", json!(false)),
            ("note", json!("")),
        ] {
            action.entry(key).or_insert(default);
        }
        actions.push(Action {
            object: action.clone(),
            visible_at,
        });
        self.changed.insert(Key::Action(ticket_id, id));
        action
    }

    /// A ticket's actions, oldest first, as a reader sees them now.
    pub fn actions(&self, ticket_id: i64) -> Vec<&Object> {
        let now = Instant::now();
        self.actions
            .get(&ticket_id)
            .map(|a| {
                a.iter()
                    .filter(|a| a.visible_at <= now)
                    .map(|a| &a.object)
                    .collect()
            })
            .unwrap_or_default()
    }

    /// Tickets that have actions.
    pub fn worked_on(&self) -> impl Iterator<Item = i64> {
        self.actions.keys().copied()
    }

    pub fn delete_action(&mut self, ticket_id: i64, id: i64) -> Outcome<Object> {
        let actions = self.actions.get_mut(&ticket_id).ok_or(No::NotFound)?;
        let at = actions
            .iter()
            .position(|a| number(&a.object, "id") == Some(id))
            .ok_or(No::NotFound)?;
        let removed = actions.remove(at).object;
        self.changed.insert(Key::Action(ticket_id, id));
        Ok(removed)
    }
}
