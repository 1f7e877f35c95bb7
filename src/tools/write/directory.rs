//! The rows of HaloPSA that a call can name.

use super::{ASSIGN, CHILD, CLOSE, LINK, REPLY, UPDATE};
use crate::halopsa::types::{Agent, Article, Category, Named, PriorityRow, Ticket, User};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Rows as HaloPSA has them; a list that a call does not need is empty.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    pub statuses: Arc<Vec<Named>>,
    /// One row per priority and SLA.
    pub priorities: Arc<Vec<PriorityRow>>,
    pub types: Arc<Vec<Named>>,
    pub categories: Arc<Vec<Category>>,
    pub teams: Arc<Vec<Named>>,
    pub technicians: Arc<Vec<Agent>>,
    /// The article the call names.
    pub article: Option<Article>,
    /// The ticket's requester, where the ticket itself does not say their address.
    pub requester: Option<User>,
}

/// What has to be read for a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub statuses: bool,
    pub priorities: bool,
    pub types: bool,
    pub categories: bool,
    pub teams: bool,
    pub technicians: bool,
    pub article: Option<i64>,
    pub requester: Option<i64>,
}

impl Needs {
    /// For a call about this ticket, resolved or not.
    pub fn of(tool: &str, arguments: &Map<String, Value>, ticket: &Ticket) -> Self {
        let (updates, assigns) = (tool == UPDATE, tool == ASSIGN);
        let has = |key| arguments.contains_key(key);
        let article = arguments.get("articleId").and_then(Value::as_i64);
        let addresses = matches!(tool, REPLY | CHILD) && ticket.user_email.trim().is_empty();
        Self {
            statuses: tool == CLOSE || (updates && has("status")),
            priorities: updates && has("priority"),
            types: updates && has("type"),
            categories: updates && has("category"),
            teams: assigns && has("team"),
            technicians: assigns && has("agent"),
            article: article.filter(|_| tool == LINK),
            requester: ticket.user_id.filter(|id| addresses && *id > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_a_call_names_is_read() {
        let ticket = Ticket {
            user_id: Some(70),
            ..Ticket::default()
        };
        let none = Needs::default;
        for (tool, arguments, needs) in [
            (
                REPLY,
                json!({"text": "x"}),
                Needs {
                    requester: Some(70),
                    ..none()
                },
            ),
            (
                CLOSE,
                json!({"closureNote": "x"}),
                Needs {
                    statuses: true,
                    ..none()
                },
            ),
            (
                UPDATE,
                json!({"status": "New", "statusId": 1, "type": "Incident"}),
                Needs {
                    statuses: true,
                    types: true,
                    ..none()
                },
            ),
            (
                ASSIGN,
                json!({"agent": "Dana"}),
                Needs {
                    technicians: true,
                    ..none()
                },
            ),
            (
                LINK,
                json!({"articleId": 7}),
                Needs {
                    article: Some(7),
                    ..none()
                },
            ),
            (
                "halopsa_add_private_note",
                json!({"text": "x", "status": "y"}),
                none(),
            ),
        ] {
            let arguments = arguments.as_object().unwrap();
            assert_eq!(Needs::of(tool, arguments, &ticket), needs, "{tool}");
        }
        let known = Ticket {
            user_email: "kim@acme.example".into(),
            ..ticket
        };
        assert_eq!(Needs::of(REPLY, &Map::new(), &known), none());
    }
}
