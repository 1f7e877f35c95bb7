//! HaloPSA's entities and the rules it keeps between them.
//!
//! Entities are JSON objects, as on the wire: a write touches just the fields
//! it names, and what nobody reads need not be modelled.
//!
//! - [`rows`]: the rows of a kind, whole or (in a large seed) in brief
//! - [`tickets`], [`actions`], [`people`], [`attachments`], [`webhooks`]: what a write does
//! - [`journal`]: the state in a file

pub mod actions;
pub mod attachments;
pub mod journal;
pub mod people;
pub mod rows;
pub mod tickets;
pub mod webhooks;

use jiff::{SignedDuration, Timestamp};
use rows::{Row, Rows};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

pub type Object = Map<String, Value>;

/// Deliveries kept.
const MAX_DELIVERIES: usize = 10_000;
/// E-mails to requesters kept.
const MAX_OUTBOX: usize = 1_000;
pub const CLOSED_STATUS: i64 = 9;
/// Every status that closes a ticket: an administrator may add more, of any name.
pub const CLOSING_STATUSES: [i64; 3] = [CLOSED_STATUS, 23, 24];
pub const UNASSIGNED: i64 = 1;

/// Entities with integer ids, by their path in lower case.
pub const KINDS: [&str; 18] = [
    "tickets",
    "client",
    "site",
    "users",
    "agent",
    "team",
    "status",
    "priority",
    "tickettype",
    "outcome",
    "asset",
    "assettype",
    "kbarticle",
    "category",
    "lookup",
    "toplevel",
    "attachment",
    "notification",
];

/// Behaviour that differs between tenants, or is not known.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Ticket updates need no `tickettype_id` and `client_id` beside `id`.
    pub lax_updates: bool,
    /// A POST of one object is answered with an array of one, as some versions do.
    pub wrap_replies: bool,
    /// `events` in a posted webhook subscribe to them; HaloPSA ignores them.
    pub events_in_webhook: bool,
    /// Extra attempts per webhook delivery. HaloPSA is not known to make any.
    pub webhook_retries: u32,
}

#[derive(Debug, Default)]
pub struct Store {
    kinds: BTreeMap<&'static str, Rows>,
    actions: BTreeMap<i64, Vec<Action>>,
    pub webhooks: BTreeMap<String, Object>,
    /// Newest first.
    pub deliveries: VecDeque<Object>,
    /// E-mails to requesters, newest first.
    pub outbox: VecDeque<Object>,
    pub settings: Settings,
    /// How far HaloPSA's clock is ahead.
    pub clock_skew: SignedDuration,
    changed: BTreeSet<Key>,
}

/// What has changed since the journal was last written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Row(&'static str, i64),
    Action(i64, i64),
    Webhook(String),
    Delivery(String),
}

#[derive(Debug)]
struct Action {
    object: Object,
    /// Hidden from reads until then.
    visible_at: Instant,
}

/// Who writes.
#[derive(Clone, Debug)]
pub enum Author {
    Agent { id: i64, application: String },
    User { id: i64 },
}

/// An event that webhooks can subscribe to.
#[derive(Clone, Debug)]
pub struct Change {
    pub event: i64,
    pub name: &'static str,
    pub message: String,
    pub ticket: Object,
    pub action: Option<Object>,
}

/// Why HaloPSA refuses.
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

pub fn flag(object: &Object, key: &str) -> bool {
    match object.get(key) {
        Some(Value::Bool(b)) => *b,
        Some(other) => integer(other).is_some_and(|n| n != 0),
        None => false,
    }
}

pub fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(n) => n.as_i64().or_else(|| n.as_f64().map(|f| f as i64)),
        Value::String(s) => s.trim().parse::<f64>().ok().map(|f| f as i64),
        _ => None,
    }
}

/// A time as HaloPSA writes it: UTC, no zone, decimals as they come.
pub fn stamp(time: Timestamp) -> String {
    let text = time.strftime("%Y-%m-%dT%H:%M:%S%.3f").to_string();
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

impl Store {
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::now() + self.clock_skew
    }

    /// Now, as HaloPSA writes it.
    pub fn now(&self) -> String {
        stamp(self.timestamp())
    }

    pub fn kind(&self, kind: &str) -> Option<&Rows> {
        self.kinds.get(kind)
    }

    /// Every row of a kind, by id.
    pub fn rows(&self, kind: &str) -> impl Iterator<Item = Row<'_>> {
        self.kinds.get(kind).into_iter().flat_map(Rows::iter)
    }

    pub fn get(&self, kind: &str, id: i64) -> Option<Cow<'_, Object>> {
        self.kinds.get(kind)?.get(id)
    }

    pub fn get_mut(&mut self, kind: &str, id: i64) -> Option<&mut Object> {
        let (kind, rows) = self.kinds.iter_mut().find(|(name, _)| **name == kind)?;
        let object = rows.get_mut(id)?;
        self.changed.insert(Key::Row(kind, id));
        Some(object)
    }

    pub fn seed(&mut self, kind: &'static str, brief: rows::Brief) {
        self.kinds.entry(kind).or_default().seed(brief);
    }

    /// Stores an object as is, under the next free id if it has none.
    pub fn put(&mut self, kind: &'static str, mut object: Object) -> i64 {
        let rows = self.kinds.entry(kind).or_default();
        let id = number(&object, "id")
            .filter(|id| *id > 0)
            .unwrap_or_else(|| rows.next_id());
        // A priority row's own id is a UUID.
        if kind != "priority" {
            object.insert("id".into(), id.into());
        }
        rows.insert(id, object);
        self.changed.insert(Key::Row(kind, id));
        id
    }

    pub fn remove(&mut self, kind: &str, id: i64) -> Option<Object> {
        let (kind, rows) = self.kinds.iter_mut().find(|(name, _)| **name == kind)?;
        self.changed.insert(Key::Row(kind, id));
        rows.remove(id)
    }

    fn name_of(&self, kind: &str, id: Option<i64>) -> String {
        id.and_then(|id| self.get(kind, id))
            .map(|o| text(&o, "name").to_string())
            .unwrap_or_default()
    }

    /// The id of the row with this name.
    pub fn named(&self, kind: &str, name: &str) -> Option<i64> {
        self.rows(kind)
            .find(|row| row.text("name").eq_ignore_ascii_case(name))
            .map(|row| row.id())
    }

    pub fn record_delivery(&mut self, delivery: Object) {
        self.changed
            .insert(Key::Delivery(text(&delivery, "id").to_string()));
        self.deliveries.push_front(delivery);
        self.deliveries.truncate(MAX_DELIVERIES);
    }

    pub(super) fn send_mail(&mut self, mail: Object) {
        self.outbox.push_front(mail);
        self.outbox.truncate(MAX_OUTBOX);
    }
}

/// The value's object; seeds and literals always are one.
pub fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

/// Removes tags, with nothing in their place, and decodes the usual entities.
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
    out.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&nbsp;", " ")
        .replace("&amp;", "&")
}
