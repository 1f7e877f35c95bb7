//! The body of a webhook, in all the shapes seen in the field.
//!
//! HaloPSA documents no schema: an administrator chooses full object, small
//! object, event information only, or a custom template; batched deliveries are
//! arrays. So keys are matched case-insensitively, ids may be numbers or strings,
//! and the ticket may be under several names.

use super::lenient;
use crate::ids::TechnicianId;
use serde_json::{Map, Value};

/// Maximum events read from one delivery.
const MAX_EVENTS: usize = 500;

/// What happened to which ticket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub ticket_id: i64,
    pub kind: Kind,
    /// Absent in "event information only".
    pub client_id: Option<i64>,
    pub subject: Option<String>,
    /// The technician who caused it, if the payload says.
    pub actor_agent: Option<TechnicianId>,
    /// The API application that caused it, if the payload says.
    pub actor_application: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    New,
    /// Anything that may matter to whoever works on the ticket.
    #[default]
    Updated,
    /// A change that does not start work, such as a new status.
    Changed,
    Closed,
    Deleted,
}

/// Why a body contains no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("it is not JSON")]
    NotJson,
    #[error("it has no ticket id; its keys are: {keys}")]
    NoTicket { keys: String },
}

/// Every event in a body. Events without a ticket are skipped; a body without any is an error.
pub fn parse(body: &[u8]) -> Result<Vec<Event>, Unreadable> {
    let value: Value = serde_json::from_slice(body).map_err(|_| Unreadable::NotJson)?;
    let batch = match &value {
        Value::Array(items) => items.as_slice(),
        Value::Object(object) => match get(object, &["events", "items", "batch"]) {
            Some(Value::Array(items)) if items.iter().any(Value::is_object) => items.as_slice(),
            _ => std::slice::from_ref(&value),
        },
        _ => &[],
    };
    let events: Vec<Event> = batch
        .iter()
        .take(MAX_EVENTS)
        .filter_map(Value::as_object)
        .filter_map(event)
        .collect();
    if events.is_empty() {
        Err(Unreadable::NoTicket {
            keys: shape(&value),
        })
    } else {
        Ok(events)
    }
}

fn event(outer: &Map<String, Value>) -> Option<Event> {
    let nested = |names: &[&str]| get(outer, names).and_then(Value::as_object);
    let ticket = nested(&["ticket", "object", "data", "faults"]);
    let action = nested(&["action"]);
    let id = |object: &Map<String, Value>, names: &[&str]| {
        get(object, names)
            .and_then(lenient::integer)
            .filter(|id| (1..=i64::from(i32::MAX)).contains(id))
    };
    let ticket_id = ticket
        .and_then(|t| id(t, &["ticket_id", "ticketid", "id", "faultid"]))
        .or_else(|| id(outer, &["ticket_id", "ticketid", "object_id", "objectid"]))
        .or_else(|| action.and_then(|a| id(a, &["ticket_id"])))
        // A bare id is the delivery's UUID in HaloPSA's payloads, and the ticket's in templates.
        .or_else(|| id(outer, &["id"]))?;
    let client_id = ticket
        .and_then(|t| id(t, &["client_id", "clientid"]))
        .or_else(|| id(outer, &["client_id", "clientid"]));
    let subject = ticket
        .and_then(|t| get(t, &["summary", "subject"]))
        .or_else(|| get(outer, &["summary", "subject"]))
        .and_then(Value::as_str)
        .map(str::to_string);
    let closed = ticket
        .and_then(|t| get(t, &["hasbeenclosed"]))
        .and_then(lenient::boolean)
        .unwrap_or_default();
    let name = get(outer, &["event", "event_name", "eventname"])
        .and_then(Value::as_str)
        .unwrap_or_default();
    let number = id(outer, &["eventno", "event_id", "event_no"]);
    Some(Event {
        ticket_id,
        kind: kind(name, number, closed),
        client_id,
        subject,
        actor_agent: action
            .and_then(|a| id(a, &["who_agentid", "actionby_agent_id"]))
            .map(TechnicianId),
        actor_application: action
            .and_then(|a| get(a, &["actionby_application_id"]))
            .and_then(Value::as_str)
            .filter(|s| !s.is_empty())
            .map(str::to_string),
    })
}

fn kind(name: &str, number: Option<i64>, closed: bool) -> Kind {
    let name = name.to_ascii_lowercase();
    match number {
        _ if name.contains("delet") => Kind::Deleted,
        Some(1072) => Kind::Deleted,
        Some(39) => Kind::Closed,
        _ if closed || name == "closed" || name == "ticket closed" => Kind::Closed,
        Some(3) => Kind::New,
        Some(76) => Kind::Changed,
        _ if name.contains("status changed") => Kind::Changed,
        _ if name.contains("new ticket")
            || name.contains("ticket logged")
            || name.contains("ticket created") =>
        {
            Kind::New
        }
        _ => Kind::Updated,
    }
}

/// The value of the first of these names that the object has, ignoring case.
fn get<'a>(object: &'a Map<String, Value>, names: &[&str]) -> Option<&'a Value> {
    names.iter().find_map(|name| {
        object
            .get(*name)
            .or_else(|| {
                object
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value)
            })
            .filter(|value| !value.is_null())
    })
}

/// Key names only: enough to see what a custom template sends, without ticket text.
fn shape(value: &Value) -> String {
    let Some(object) = value
        .as_object()
        .or_else(|| value.get(0).and_then(Value::as_object))
    else {
        return "none".into();
    };
    let keys: Vec<String> = object
        .keys()
        .take(20)
        .map(|k| {
            k.chars()
                .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
                .take(40)
                .collect()
        })
        .collect();
    if keys.is_empty() {
        "none".into()
    } else {
        keys.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn one(body: Value) -> Event {
        let events = parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(events.len(), 1);
        events[0].clone()
    }

    #[test]
    fn the_body_seen_live() {
        let event = one(json!({"id":"8e25bc7b-e07e-4102-9398-5d6647e1e79d",
            "webhook_id":"53232637-7724-4a19-b126-3c7267a292aa","notification_id":41,
            "event":"ticket status changed",
            "message":"The status has been changed for Ticket ID: 0004242.",
            "object_id":4242,"agent_id":3,"timestamp":"2026-09-25T06:41:08.7895915Z",
            "ticket":{"id":4242,"summary":"Printer","status_id":9,"client_id":12,"agent_id":3,
            "hasbeenclosed":true}}));
        assert_eq!(
            event,
            Event {
                ticket_id: 4242,
                kind: Kind::Closed,
                client_id: Some(12),
                subject: Some("Printer".into()),
                ..Event::default()
            }
        );
    }

    #[test]
    fn every_shape_gives_the_ticket() {
        for body in [
            json!({"event": "New Ticket Logged", "object_id": 7}),
            json!({"event": "new ticket logged", "object_id": "7", "ticket": {"id": "7.0"}}),
            json!({"Event": "New Ticket Logged", "OBJECT_ID": 7.0}),
            json!({"event": "New Ticket Logged", "Data": {"TICKET_ID": "7"}}),
            json!({"event": "New Ticket Logged", "object": {"id": 7}}),
            json!({"event": "New Ticket Logged", "ticket_id": 7}),
            json!({"event": "New Ticket Logged", "id": 7}),
            json!({"eventno": 3, "ticketid": 7}),
            json!([{"event": "New Ticket Logged", "object_id": 7}]),
            json!({"events": [{"event": "New Ticket Logged", "object_id": 7}]}),
        ] {
            let event = one(body.clone());
            assert_eq!((event.ticket_id, event.kind), (7, Kind::New), "{body}");
        }
    }

    #[test]
    fn who_did_it() {
        let event = one(
            json!({"event": "action added", "object_id": 7, "action": {"ticket_id": 7, "id": 2,
            "who_agentid": 31, "actionby_application_id": "Rallied Agent"}}),
        );
        assert_eq!(
            (event.actor_agent, event.actor_application.as_deref()),
            (Some(TechnicianId(31)), Some("Rallied Agent"))
        );
    }

    #[test]
    fn an_unreadable_body_reports_its_keys_and_no_text() {
        assert_eq!(parse(b"hello"), Err(Unreadable::NotJson));
        assert_eq!(
            parse(br#"{"secret text":"secret"}"#),
            Err(Unreadable::NoTicket {
                keys: "secrettext".into()
            })
        );
        assert!(parse(b"[]").is_err());
        assert!(parse(b"5").is_err());
        // The delivery's UUID is not a ticket id.
        assert!(parse(br#"{"id":"8e25bc7b-e07e-4102-9398-5d6647e1e79d"}"#).is_err());
        assert!(parse(br#"{"object_id":-1}"#).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(body in "\\PC{0,300}") {
            let _ = parse(body.as_bytes());
        }
    }
}
