//! The rows of a kind: whole objects, and the rows of a large seed in brief.
//!
//! A million tickets as JSON objects are gigabytes. A large seed keeps 24 bytes
//! per row and builds an object when one is read; a changed row becomes a whole object,
//! which takes its place.

use super::{Object, integer, object, stamp};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub struct Rows {
    whole: BTreeMap<i64, Object>,
    brief: Option<Brief>,
    /// Rows of the seed that were deleted.
    gone: BTreeSet<i64>,
}

impl Rows {
    pub fn get(&self, id: i64) -> Option<Cow<'_, Object>> {
        match self.whole.get(&id) {
            Some(object) => Some(Cow::Borrowed(object)),
            None => self.brief_row(id).map(|row| Cow::Owned(row.whole())),
        }
    }

    pub fn get_mut(&mut self, id: i64) -> Option<&mut Object> {
        if !self.whole.contains_key(&id) {
            let object = self.brief_row(id)?.whole();
            self.whole.insert(id, object);
        }
        self.whole.get_mut(&id)
    }

    pub fn contains(&self, id: i64) -> bool {
        self.whole.contains_key(&id) || self.brief_row(id).is_some()
    }

    pub fn insert(&mut self, id: i64, object: Object) {
        self.gone.remove(&id);
        self.whole.insert(id, object);
    }

    pub fn remove(&mut self, id: i64) -> Option<Object> {
        let object = self.get(id)?.into_owned();
        self.whole.remove(&id);
        self.gone.insert(id);
        Some(object)
    }

    /// The next id that was never used.
    pub fn next_id(&self) -> i64 {
        let whole = self.whole.keys().next_back().copied().unwrap_or(0);
        let brief = self.brief.as_ref().map_or(0, Brief::last);
        let gone = self.gone.last().copied().unwrap_or(0);
        whole.max(brief).max(gone) + 1
    }

    pub fn seed(&mut self, brief: Brief) {
        self.brief = Some(brief);
    }

    /// The whole objects. Those of a large seed are only in [`Rows::iter`].
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &Object> {
        self.whole.values()
    }

    fn brief_row(&self, id: i64) -> Option<Row<'_>> {
        let brief = self.brief.as_ref()?;
        let index = usize::try_from(id - brief.first())
            .ok()
            .filter(|i| *i < brief.len())?;
        (!self.gone.contains(&id)).then_some(Row::Brief(brief, index))
    }

    pub fn ids(&self) -> Vec<i64> {
        self.iter().map(|row| row.id()).collect()
    }

    /// Every row, by id.
    pub fn iter(&self) -> Box<dyn Iterator<Item = Row<'_>> + '_> {
        let whole = self
            .whole
            .iter()
            .map(|(id, object)| Row::Whole(*id, object));
        let Some(brief) = &self.brief else {
            return Box::new(whole);
        };
        let (first, last) = (brief.first(), brief.last());
        let seeded = (0..brief.len()).filter_map(move |index| {
            let id = first + index as i64;
            match self.whole.get(&id) {
                Some(object) => Some(Row::Whole(id, object)),
                None => (!self.gone.contains(&id)).then_some(Row::Brief(brief, index)),
            }
        });
        let before = self
            .whole
            .range(..first)
            .map(|(id, object)| Row::Whole(*id, object));
        let after = self
            .whole
            .range(last + 1..)
            .map(|(id, object)| Row::Whole(*id, object));
        Box::new(before.chain(seeded).chain(after))
    }
}

/// A row, whole or in brief.
#[derive(Clone, Copy, Debug)]
pub enum Row<'a> {
    Whole(i64, &'a Object),
    Brief(&'a Brief, usize),
}

impl Row<'_> {
    pub fn id(&self) -> i64 {
        match self {
            Row::Whole(id, _) => *id,
            Row::Brief(brief, index) => brief.first() + *index as i64,
        }
    }

    pub fn has(&self, field: &str) -> bool {
        match self {
            Row::Whole(_, object) => object.contains_key(field),
            Row::Brief(brief, index) => {
                brief.number(*index, field).is_some() || brief.text(*index, field).is_some()
            }
        }
    }

    pub fn number(&self, field: &str) -> Option<i64> {
        match self {
            Row::Whole(_, object) => integer(object.get(field)?),
            Row::Brief(brief, index) => brief.number(*index, field),
        }
    }

    pub fn flag(&self, field: &str) -> bool {
        match self {
            Row::Whole(_, object) => object
                .get(field)
                .and_then(Value::as_bool)
                .unwrap_or_default(),
            Row::Brief(brief, index) => brief.number(*index, field) == Some(1),
        }
    }

    /// The field as text; numbers are written out.
    pub fn text(&self, field: &str) -> Cow<'_, str> {
        match self {
            Row::Whole(_, object) => match object.get(field) {
                Some(Value::String(text)) => Cow::Borrowed(text),
                None | Some(Value::Null) => Cow::Borrowed(""),
                Some(other) => Cow::Owned(other.to_string()),
            },
            Row::Brief(brief, index) => brief
                .text(*index, field)
                .or_else(|| {
                    brief
                        .number(*index, field)
                        .map(|n| Cow::Owned(n.to_string()))
                })
                .unwrap_or_default(),
        }
    }

    pub fn whole(&self) -> Object {
        match self {
            Row::Whole(_, object) => (*object).clone(),
            Row::Brief(brief, index) => brief.whole(*index),
        }
    }
}

/// The rows of a large seed.
#[derive(Debug)]
pub enum Brief {
    Tickets(Tickets),
    Users(Users),
}

/// A ticket of a large seed: its user, and its text from a template.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    pub user: u32,
    /// Minutes after the seed's first ticket.
    pub minute: u32,
    pub template: u8,
    pub status: u8,
    pub priority: u8,
    pub agent: u8,
}

#[derive(Debug)]
pub struct Tickets {
    pub first: i64,
    pub start: Timestamp,
    pub rows: Vec<Ticket>,
    pub users: Users,
    /// Summary, details, solution.
    pub templates: &'static [(&'static str, &'static str, &'static str)],
}

/// Users, spread over the clients; their fields are derived from their number.
#[derive(Clone, Copy, Debug)]
pub struct Users {
    pub first: i64,
    pub count: u32,
    pub first_client: i64,
    pub clients: u32,
}

impl Users {
    fn client(&self, user: u32) -> i64 {
        self.first_client + i64::from(user % self.clients.max(1))
    }

    fn client_name(&self, user: u32) -> String {
        format!("Client {:05}", user % self.clients.max(1))
    }

    fn name(user: u32) -> String {
        format!("User {user:06}")
    }

    fn email(user: u32) -> String {
        format!("user{user}@client.example")
    }
}

const STATUS_NAMES: [&str; 10] = [
    "",
    "New",
    "In Progress",
    "",
    "With User",
    "",
    "",
    "",
    "Resolved",
    "Closed",
];
const PRIORITY_NAMES: [&str; 5] = ["", "Critical", "High", "Medium", "Low"];

impl Tickets {
    fn closed(&self, row: &Ticket) -> bool {
        i64::from(row.status) == super::CLOSED_STATUS
    }

    fn at(&self, row: &Ticket) -> Timestamp {
        self.start + SignedDuration::from_mins(i64::from(row.minute))
    }
}

impl Brief {
    fn first(&self) -> i64 {
        match self {
            Brief::Tickets(tickets) => tickets.first,
            Brief::Users(users) => users.first,
        }
    }

    fn len(&self) -> usize {
        match self {
            Brief::Tickets(tickets) => tickets.rows.len(),
            Brief::Users(users) => users.count as usize,
        }
    }

    fn last(&self) -> i64 {
        self.first() + self.len() as i64 - 1
    }

    fn number(&self, index: usize, field: &str) -> Option<i64> {
        match self {
            Brief::Users(users) => match field {
                "id" => Some(users.first + index as i64),
                "client_id" | "site_id" => Some(users.client(index as u32)),
                "inactive" => Some(0),
                _ => None,
            },
            Brief::Tickets(tickets) => {
                let row = tickets.rows.get(index)?;
                match field {
                    "id" => Some(tickets.first + index as i64),
                    "client_id" | "site_id" => Some(tickets.users.client(row.user)),
                    "user_id" => Some(tickets.users.first + i64::from(row.user)),
                    "status_id" => Some(row.status.into()),
                    "priority_id" => Some(row.priority.into()),
                    "agent_id" => Some(row.agent.into()),
                    "team_id" | "tickettype_id" | "sla_id" => Some(1),
                    "hasbeenclosed" => Some(tickets.closed(row).into()),
                    "onhold" | "flagged" | "deleted" => Some(0),
                    _ => None,
                }
            }
        }
    }

    fn text(&self, index: usize, field: &str) -> Option<Cow<'_, str>> {
        match self {
            Brief::Users(users) => {
                let user = index as u32;
                Some(match field {
                    "name" => Users::name(user).into(),
                    "emailaddress" => Users::email(user).into(),
                    "client_name" => users.client_name(user).into(),
                    "login" => format!("user{user}").into(),
                    _ => return None,
                })
            }
            Brief::Tickets(tickets) => {
                let row = tickets.rows.get(index)?;
                let (summary, details, solution) =
                    tickets.templates[usize::from(row.template) % tickets.templates.len()];
                Some(match field {
                    "summary" => summary.into(),
                    "details" => details.into(),
                    "closure_note" if tickets.closed(row) => solution.into(),
                    "user_name" => Users::name(row.user).into(),
                    "user_email" => Users::email(row.user).into(),
                    "client_name" => tickets.users.client_name(row.user).into(),
                    "dateoccurred" | "datecreated" | "last_update" | "lastactiondate" => {
                        stamp(tickets.at(row)).into()
                    }
                    _ => return None,
                })
            }
        }
    }

    fn whole(&self, index: usize) -> Object {
        match self {
            Brief::Users(users) => {
                let user = index as u32;
                object(json!({
                    "id": users.first + index as i64, "name": Users::name(user), "firstname": "User", "surname": format!("{user:06}"),
                    "emailaddress": Users::email(user), "login": format!("user{user}"), "site_id": users.client(user), "site_name": "Main",
                    "client_id": users.client(user), "client_name": users.client_name(user), "inactive": false, "isimportantcontact": false,
                }))
            }
            Brief::Tickets(tickets) => {
                let Some(row) = tickets.rows.get(index) else {
                    return Object::new();
                };
                let (summary, details, solution) =
                    tickets.templates[usize::from(row.template) % tickets.templates.len()];
                let (closed, at) = (tickets.closed(row), stamp(tickets.at(row)));
                let client = tickets.users.client(row.user);
                object(json!({
                    "id": tickets.first + index as i64, "summary": summary, "details": details, "client_id": client,
                    "client_name": tickets.users.client_name(row.user), "site_id": client, "site_name": "Main",
                    "user_id": tickets.users.first + i64::from(row.user), "user_name": Users::name(row.user), "user_email": Users::email(row.user),
                    "status_id": row.status, "status_name": STATUS_NAMES.get(usize::from(row.status)).copied().unwrap_or_default(),
                    "tickettype_id": 1, "tickettype_name": "Incident", "sla_id": 1, "priority_id": row.priority,
                    "priority_name": PRIORITY_NAMES.get(usize::from(row.priority)).copied().unwrap_or_default(),
                    "agent_id": row.agent, "team_id": 1, "team": "1st Line Support", "category_1": "", "dateoccurred": at, "datecreated": at,
                    "last_update": at, "lastactiondate": at, "dateclosed": if closed { at.as_str() } else { "1900-01-01T00:00:00" },
                    "hasbeenclosed": closed, "closure_note": if closed { solution } else { "" }, "onhold": false, "flagged": false, "read": true,
                    "customfields": [], "attachment_count": 0, "child_count": 0, "source": 0,
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Rows {
        let users = Users {
            first: 100,
            count: 10,
            first_client: 5,
            clients: 2,
        };
        let mut rows = Rows::default();
        let row = |status| Ticket {
            user: 3,
            minute: 7,
            template: 0,
            status,
            priority: 3,
            agent: 1,
        };
        let templates = &[("Printer offline", "It shows offline.", "Restarted.")];
        rows.insert(3, object(json!({"id": 3, "summary": "before"})));
        rows.seed(Brief::Tickets(Tickets {
            first: 10,
            start: Timestamp::UNIX_EPOCH,
            rows: vec![row(1), row(9), row(1)],
            users,
            templates,
        }));
        rows.insert(40, object(json!({"id": 40, "summary": "after"})));
        rows
    }

    #[test]
    fn brief_rows_read_as_whole_ones() {
        let rows = rows();
        for row in rows.iter() {
            let whole = row.whole();
            for (field, value) in &whole {
                let said = match value {
                    Value::Bool(b) => row.flag(field) == *b || !row.has(field),
                    Value::Number(_) => row.number(field) == integer(value) || !row.has(field),
                    Value::String(s) => row.text(field) == s.as_str() || !row.has(field),
                    _ => true,
                };
                assert!(said, "{field} of {}", row.id());
            }
        }
    }

    #[test]
    fn a_changed_row_counts_and_a_deleted_one_is_gone() {
        let mut rows = rows();
        assert_eq!(rows.ids(), [3, 10, 11, 12, 40]);
        rows.get_mut(11)
            .unwrap()
            .insert("summary".into(), "changed".into());
        assert_eq!(rows.get(11).unwrap()["summary"], "changed");
        assert!(rows.remove(10).is_some() && rows.remove(10).is_none() && rows.get(10).is_none());
        assert_eq!(rows.ids(), [3, 11, 12, 40]);
        assert_eq!(rows.next_id(), 41);
    }
}
