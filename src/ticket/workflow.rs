//! Which workflows are for a ticket: pure, and by the trigger only.
//!
//! A trigger is one sentence. It applies when most of its telling words occur in
//! what the ticket says, whatever their form (`printing`, `printers`).

use crate::api::workflow::{WorkflowSpec, WorkflowState};
use serde_json::{Map, Value};

/// Of the trigger's telling words this part has to occur.
const ENOUGH: f64 = 0.6;
/// Workflows used for one ticket, the best first.
pub const MAX_MATCHES: usize = 5;
/// Text of a ticket that is looked at, in characters.
const MAX_TEXT: usize = 4000;

const COMMON: &[&str] = &[
    "the", "and", "for", "with", "that", "this", "from", "when", "user", "users", "ticket", "asks",
    "ask", "wants", "want", "needs", "need", "has", "have", "had", "are", "was", "were", "not",
    "can", "cannot", "does", "doesn", "any", "all", "his", "her", "their", "they", "who", "which",
    "about", "into", "after", "before", "new", "some", "someone", "somebody", "customer", "client",
    "reports", "report", "requests", "request", "please", "there", "been", "being", "will",
    "would", "could", "should", "its", "our", "your", "out", "off", "one", "or", "nothing",
    "anything",
];

/// The telling words of a text, cut to their stems.
fn stems(text: &str) -> Vec<String> {
    let lower: String = text
        .chars()
        .take(MAX_TEXT)
        .flat_map(char::to_lowercase)
        .collect();
    let mut stems: Vec<String> = lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|w| w.chars().count() >= 3 && !COMMON.contains(w))
        .map(|w| {
            let ending = [
                "ations", "ation", "ings", "ing", "ies", "ers", "ed", "es", "er", "s",
            ]
            .iter()
            .find(|e| w.len() > e.len() + 3 && w.ends_with(**e));
            ending.map_or(w, |e| &w[..w.len() - e.len()]).to_string()
        })
        .collect();
    stems.sort();
    stems.dedup();
    stems
}

/// How well a trigger describes a ticket: the part of its telling words that occur, 0 when too few do.
pub fn score(trigger: &str, subject: &str, details: &str) -> f64 {
    let wanted = stems(trigger);
    if wanted.is_empty() {
        return 0.0;
    }
    let have = stems(&format!("{subject} {details}"));
    let hits = wanted
        .iter()
        .filter(|w| have.binary_search(w).is_ok())
        .count();
    let part = hits as f64 / wanted.len() as f64;
    if part >= ENOUGH { part } else { 0.0 }
}

/// Whether a workflow may be used for a client's tickets.
pub fn is_for(spec: &WorkflowSpec, client: &str) -> bool {
    spec.state == WorkflowState::Active
        && spec
            .clients
            .as_ref()
            .is_none_or(|clients| clients.iter().any(|c| c == client))
}

/// The matching ones of `(name, spec)`, the best first; of equal ones by name.
pub fn matching<'a>(
    all: &[(&'a str, &'a WorkflowSpec)],
    client: &str,
    subject: &str,
    details: &str,
) -> Vec<(&'a str, &'a WorkflowSpec)> {
    let mut scored: Vec<(f64, &'a str, &'a WorkflowSpec)> = all
        .iter()
        .filter(|(_, spec)| is_for(spec, client))
        .map(|(name, spec)| (score(&spec.trigger, subject, details), *name, *spec))
        .filter(|(score, _, _)| *score > 0.0)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored
        .into_iter()
        .take(MAX_MATCHES)
        .map(|(_, name, spec)| (name, spec))
        .collect()
}

/// Arguments with `{{name}}` in their texts replaced. What is put in is data: it is not looked into again.
pub fn fill(arguments: &Map<String, Value>, values: &[(&str, &str)]) -> Map<String, Value> {
    fn value(v: &Value, values: &[(&str, &str)]) -> Value {
        match v {
            Value::String(text) => {
                let mut out = String::new();
                let mut rest = text.as_str();
                while let Some(at) = rest.find("{{") {
                    let Some(end) = rest[at..].find("}}") else {
                        break;
                    };
                    let name = rest[at + 2..at + end].trim();
                    out.push_str(&rest[..at]);
                    match values.iter().find(|(n, _)| *n == name) {
                        Some((_, with)) => out.push_str(with),
                        None => out.push_str(&rest[at..at + end + 2]),
                    }
                    rest = &rest[at + end + 2..];
                }
                out.push_str(rest);
                Value::String(out)
            }
            Value::Array(items) => items.iter().map(|v| value(v, values)).collect(),
            Value::Object(map) => Value::Object(
                map.iter()
                    .map(|(k, v)| (k.clone(), value(v, values)))
                    .collect(),
            ),
            other => other.clone(),
        }
    }
    arguments
        .iter()
        .map(|(k, v)| (k.clone(), value(v, values)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn triggers_describe_tickets() {
        for (trigger, subject, applies) in [
            (
                "A label printer is offline or prints nothing",
                "Label printer at reception is offline",
                true,
            ),
            (
                "A label printer is offline or prints nothing",
                "Outlook does not start",
                false,
            ),
            (
                "A user's mailbox is full",
                "Mailbox full, cannot send",
                true,
            ),
            (
                "VPN connection drops",
                "VPN drops the connection every hour",
                true,
            ),
            ("VPN connection drops", "Printer", false),
            ("the and for", "the and for", false),
        ] {
            assert_eq!(
                score(trigger, subject, "") > 0.0,
                applies,
                "{trigger} / {subject}"
            );
        }
    }

    #[test]
    fn drafts_and_other_clients_are_left_out() {
        let spec = |state, clients: Option<&[&str]>| WorkflowSpec {
            trigger: "printer offline".into(),
            state,
            clients: clients.map(|c| c.iter().map(|s| s.to_string()).collect()),
            ..WorkflowSpec::default()
        };
        let (active, draft, archived, blue) = (
            spec(WorkflowState::Active, None),
            spec(WorkflowState::Draft, None),
            spec(WorkflowState::Archived, None),
            spec(WorkflowState::Active, Some(&["blue"])),
        );
        let all = [
            ("b", &active),
            ("draft", &draft),
            ("archived", &archived),
            ("a", &blue),
        ];
        let names = |client| {
            matching(&all, client, "Printer offline", "")
                .into_iter()
                .map(|(n, _)| n)
                .collect::<Vec<_>>()
        };
        assert_eq!(names("acme"), ["b"]);
        assert_eq!(names("blue"), ["a", "b"]);
    }

    #[test]
    fn values_are_put_in_once() {
        let arguments = json!({"text": "Hello {{requester}}, {{ unknown }} {{", "list": ["{{subject}}"], "n": 1});
        let filled = fill(
            arguments.as_object().unwrap(),
            &[("requester", "{{subject}}"), ("subject", "x")],
        );
        assert_eq!(
            Value::Object(filled),
            json!({"text": "Hello {{subject}}, {{ unknown }} {{", "list": ["x"], "n": 1})
        );
    }
}
