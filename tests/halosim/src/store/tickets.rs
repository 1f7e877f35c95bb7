//! Writing tickets: `POST /Tickets`.

use super::{
    Author, CLOSING_STATUSES, Change, Key, No, Object, Outcome, Store, UNASSIGNED, flag, number,
    object, text,
};
use serde_json::{Value, json};
use std::time::Instant;

/// Fields a POST may carry that are not the ticket's.
const NOT_STORED: [&str; 8] = [
    "id",
    "actions",
    "attachments",
    "userlookup",
    "users_name",
    "dont_do_rules",
    "donotapplytemplateintheapi",
    "sendack",
];

impl Store {
    /// Names beside ids, as HaloPSA fills them in on reading and writing.
    pub(super) fn join(&self, ticket: &mut Object) {
        for (kind, id, name) in [
            ("client", "client_id", "client_name"),
            ("site", "site_id", "site_name"),
            ("status", "status_id", "status_name"),
            ("tickettype", "tickettype_id", "tickettype_name"),
            ("team", "team_id", "team"),
        ] {
            let value = self.name_of(kind, number(ticket, id));
            ticket.insert(name.into(), value.into());
        }
        let priority = number(ticket, "priority_id");
        let priority = self
            .kind("priority")
            .and_then(|rows| rows.values().find(|p| number(p, "priorityid") == priority));
        ticket.insert(
            "priority_name".into(),
            priority.map(|p| text(p, "name")).unwrap_or_default().into(),
        );
        match number(ticket, "user_id")
            .filter(|id| *id > 0)
            .and_then(|id| self.get("users", id))
        {
            Some(user) => {
                ticket.insert("user_name".into(), text(&user, "name").into());
                ticket.insert("user_email".into(), text(&user, "emailaddress").into());
            }
            // Details entered by hand: the name as it was typed.
            None => {
                ticket.entry("user_name").or_insert("".into());
                ticket.entry("user_email").or_insert("".into());
            }
        }
    }

    /// The requester: by id, or by the name or e-mail address in `users_name`. With
    /// `userlookup.id` -1 the details are entered by hand.
    fn requester(&self, input: &Object) -> Option<Object> {
        let by_hand = input
            .get("userlookup")
            .and_then(|lookup| lookup.get("id"))
            .and_then(super::integer)
            == Some(-1);
        if by_hand {
            return None;
        }
        if let Some(id) = number(input, "user_id").filter(|id| *id > 0) {
            return self.get("users", id).map(|u| u.into_owned());
        }
        let name = text(input, "users_name");
        if name.is_empty() {
            return None;
        }
        let found = self.rows("users").find(|u| {
            u.text("name").eq_ignore_ascii_case(name)
                || u.text("emailaddress").eq_ignore_ascii_case(name)
        });
        found.map(|u| u.whole())
    }

    /// Creates or updates a ticket: `POST /Tickets`.
    pub fn write_ticket(
        &mut self,
        input: &Object,
        author: &Author,
    ) -> Outcome<(Object, Vec<Change>)> {
        match number(input, "id").filter(|id| *id > 0) {
            None => self.new_ticket(input, author),
            Some(id) => self.update_ticket(id, input, author),
        }
    }

    fn new_ticket(&mut self, input: &Object, author: &Author) -> Outcome<(Object, Vec<Change>)> {
        if text(input, "summary").is_empty() {
            return Err(No::BadRequest("A Summary must be entered for this Ticket"));
        }
        let user = self.requester(input);
        let client = number(input, "client_id")
            .or_else(|| user.as_ref().and_then(|u| number(u, "client_id")))
            .unwrap_or(1);
        if self.get("client", client).is_none() {
            return Err(No::BadRequest("Please select a valid Client"));
        }
        let site = number(input, "site_id")
            .or_else(|| user.as_ref().and_then(|u| number(u, "site_id")))
            .or_else(|| {
                self.get("client", client)
                    .and_then(|c| number(&c, "main_site_id"))
            });
        let now = self.now();
        let mut ticket = object(json!({
            "details": "", "dateoccurred": now, "datecreated": now, "status_id": 1, "tickettype_id": 1, "sla_id": 1, "priority_id": 3,
            "agent_id": UNASSIGNED, "team_id": 1, "category_1": "", "onhold": false, "flagged": false, "read": false,
            "hasbeenclosed": false, "dateclosed": "1900-01-01T00:00:00", "customfields": [], "attachment_count": 0, "child_count": 0,
            "guid": uuid::Uuid::new_v4().to_string(), "source": 0,
        }));
        let team = self.named("team", text(input, "team"));
        // Nested actions are silently ignored.
        ticket.extend(stored(input));
        if let Some(team) = team {
            ticket.insert("team_id".into(), team.into());
        }
        if let Some(user) = user.as_ref().and_then(|u| number(u, "id")) {
            ticket.insert("user_id".into(), user.into());
        }
        if text(&ticket, "details").is_empty() && !text(&ticket, "details_html").is_empty() {
            let details = super::strip_tags(text(&ticket, "details_html"));
            ticket.insert("details".into(), details.into());
        }
        ticket.insert("client_id".into(), client.into());
        ticket.insert("site_id".into(), site.into());
        ticket.insert("lastactiondate".into(), now.clone().into());
        ticket.insert("last_update".into(), now.into());
        self.join(&mut ticket);
        let details = text(&ticket, "details").to_string();
        let id = self.put("tickets", ticket);
        let opened = object(
            json!({"ticket_id": id, "outcome": "Opened", "outcome_id": -1, "note": details, "hiddenfromuser": false}),
        );
        self.push_action(id, opened, author, Instant::now());
        self.attach(input, id, 1);
        if let Some(parent) = number(input, "parent_id").filter(|p| *p > 0) {
            self.add(parent, "child_count", 1);
        }
        let ticket = self
            .get("tickets", id)
            .map(|t| t.into_owned())
            .unwrap_or_default();
        let change = Change {
            event: 3,
            name: "new ticket logged",
            message: format!("New Ticket Logged. Ticket ID: {id:07}."),
            ticket: ticket.clone(),
            action: None,
        };
        Ok((ticket, vec![change]))
    }

    /// Adds to a number of a ticket.
    pub(super) fn add(&mut self, id: i64, field: &str, by: i64) {
        if let Some(ticket) = self.get_mut("tickets", id) {
            let count = number(ticket, field).unwrap_or_default() + by;
            ticket.insert(field.into(), count.into());
        }
    }

    fn update_ticket(
        &mut self,
        id: i64,
        input: &Object,
        author: &Author,
    ) -> Outcome<(Object, Vec<Change>)> {
        let before = self
            .get("tickets", id)
            .map(|t| t.into_owned())
            .ok_or(No::BadRequest("Record not found"))?;
        if !self.settings.lax_updates
            && (number(input, "tickettype_id").is_none() || number(input, "client_id").is_none())
        {
            return Err(No::BadRequest("Record not found"));
        }
        let mut ticket = before.clone();
        ticket.extend(stored(input));
        if let Some(team) = self.named("team", text(input, "team")) {
            ticket.insert("team_id".into(), team.into());
        }
        self.attach(input, id, 0);
        ticket.insert(
            "attachment_count".into(),
            self.get("tickets", id)
                .and_then(|t| number(&t, "attachment_count"))
                .into(),
        );
        self.finish_update(id, &before, ticket, author, None)
    }

    /// What changes with a ticket's new values: names, dates, events.
    pub(super) fn finish_update(
        &mut self,
        id: i64,
        before: &Object,
        mut ticket: Object,
        author: &Author,
        action: Option<&Object>,
    ) -> Outcome<(Object, Vec<Change>)> {
        let (old_status, status) = (number(before, "status_id"), number(&ticket, "status_id"));
        let is_closed = |status: Option<i64>| status.is_some_and(|s| CLOSING_STATUSES.contains(&s));
        let closes = is_closed(status) && !is_closed(old_status);
        if closes && number(&ticket, "agent_id") == Some(UNASSIGNED) {
            return Err(No::BadRequest(
                "You must assign this Ticket to an Agent before closing it",
            ));
        }
        let now = self.now();
        if closes {
            ticket.insert("hasbeenclosed".into(), true.into());
            ticket.insert("dateclosed".into(), now.clone().into());
        } else if is_closed(old_status) && !is_closed(status) {
            ticket.insert("hasbeenclosed".into(), false.into());
            ticket.insert("dateclosed".into(), "1900-01-01T00:00:00".into());
        }
        if number(before, "agent_id") != number(&ticket, "agent_id") {
            ticket.insert("dateassigned".into(), now.clone().into());
            let times = number(before, "reassigncount").unwrap_or_default() + 1;
            ticket.insert("reassigncount".into(), times.into());
        }
        ticket.insert("last_update".into(), now.into());
        self.join(&mut ticket);
        self.put("tickets", ticket.clone());
        let mut changes = Vec::new();
        let mut change = |event, name, message: String| {
            changes.push(Change {
                event,
                name,
                message,
                ticket: ticket.clone(),
                action: action.cloned(),
            });
        };
        if matches!(author, Author::User { .. }) {
            change(
                19,
                "ticket updated by user",
                format!("Ticket ID: {id:07} has been updated by the User."),
            );
        }
        if closes {
            change(39, "closed", format!("Ticket ID: {id:07} has been closed."));
        } else if old_status != status {
            change(
                76,
                "ticket status changed",
                format!("The status has been changed for Ticket ID: {id:07}."),
            );
        }
        if action.is_some() {
            change(
                1004,
                "action added",
                format!("An Action has been added to Ticket ID: {id:07}."),
            );
        }
        Ok((ticket, changes))
    }

    pub fn delete_ticket(&mut self, id: i64) -> Outcome<(Object, Vec<Change>)> {
        let ticket = self.remove("tickets", id).ok_or(No::NotFound)?;
        let actions = self.actions.remove(&id).unwrap_or_default();
        self.changed.extend(
            actions
                .iter()
                .filter_map(|a| Some(Key::Action(id, number(&a.object, "id")?))),
        );
        let change = Change {
            event: 1072,
            name: "ticket deleted",
            message: format!("Ticket ID: {id:07} has been deleted."),
            ticket: ticket.clone(),
            action: None,
        };
        Ok((ticket, vec![change]))
    }

    /// Whether a ticket is this requester's own, and may be shown to them.
    pub fn is_of_user(&self, ticket: &Object, user: i64) -> bool {
        number(ticket, "user_id") == Some(user) && !flag(ticket, "deleted")
    }
}

fn stored(input: &Object) -> impl Iterator<Item = (String, Value)> {
    input
        .iter()
        .filter(|(key, _)| !NOT_STORED.contains(&key.as_str()) && !key.starts_with('_'))
        .map(|(k, v)| (k.clone(), v.clone()))
}
