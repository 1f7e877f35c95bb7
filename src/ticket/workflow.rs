//! Which workflows apply to a ticket. Only the trigger decides.
//!
//! A trigger is one sentence. It applies if most of its significant words occur
//! in the ticket, in any form (`printing`, `printers`).

use crate::api::workflow::{WorkflowSpec, WorkflowState};

/// The share of the trigger's significant words that must occur.
const ENOUGH: f64 = 0.6;
/// Workflows used for one ticket, the best first.
pub const MAX_MATCHES: usize = 5;
/// Text of a ticket that is read, in characters.
const MAX_TEXT: usize = 4000;

/// Words that are not significant.
const COMMON: &[&str] = &[
    "the", "and", "for", "with", "that", "this", "from", "when", "user", "users", "ticket", "asks",
    "ask", "wants", "want", "needs", "need", "has", "have", "had", "are", "was", "were", "not",
    "can", "cannot", "does", "doesn", "any", "all", "his", "her", "their", "they", "who", "which",
    "about", "into", "after", "before", "new", "some", "someone", "somebody", "customer", "client",
    "reports", "report", "requests", "request", "please", "there", "been", "being", "will",
    "would", "could", "should", "its", "our", "your", "out", "off", "one", "or", "nothing",
    "anything",
];

/// The significant words of a text, reduced to their stems.
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

/// How well a trigger describes a ticket: the share of its significant words that occur; 0 if
/// there are too few.
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

/// The workflows `(name, spec)` that apply, the best first; equally good ones by name.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_describe_tickets() {
        struct Row {
            trigger: &'static str,
            applies: &'static [&'static str],
            does_not_apply: &'static [&'static str],
        }
        for row in [
            Row {
                trigger: "A label printer is offline or prints nothing",
                applies: &["Label printer at reception is offline"],
                does_not_apply: &["Outlook does not start"],
            },
            Row {
                trigger: "A user's mailbox is full",
                applies: &["Mailbox full, cannot send"],
                does_not_apply: &[],
            },
            Row {
                trigger: "VPN connection drops",
                applies: &["VPN drops the connection every hour"],
                does_not_apply: &["Printer"],
            },
            Row {
                trigger: "the and for",
                applies: &[],
                does_not_apply: &["the and for"],
            },
        ] {
            let trigger = row.trigger;
            for subject in row.applies {
                assert!(score(trigger, subject, "") > 0.0, "{trigger} / {subject}");
            }
            for subject in row.does_not_apply {
                assert_eq!(score(trigger, subject, ""), 0.0, "{trigger} / {subject}");
            }
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
}
