//! What the built-in brain looks up before it concludes.

use super::gateway::{Error, Tools};
use super::runbooks::{self, Runbook};
use crate::gateway::wire::Context;
use serde_json::{Value, json};

/// Past tickets named in a plan.
const MAX_SIMILAR: usize = 3;
/// Searches for past tickets, from the narrowest to the widest.
const MAX_SEARCHES: usize = 2;

/// What the tools found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    pub user: Option<Value>,
    pub assets: Vec<Value>,
    /// Past tickets of the client, most similar first.
    pub similar: Vec<Value>,
    pub articles: Vec<Value>,
    pub checked: Vec<String>,
    /// What could not be checked, and why.
    pub failed: Vec<String>,
}

impl Evidence {
    /// No evidence at all, and why.
    pub fn unavailable(why: &str) -> Self {
        Self {
            failed: vec![format!("HaloPSA's records ({why})")],
            ..Self::default()
        }
    }

    /// Notes whether something could be checked; its result.
    fn record(&mut self, what: &str, result: Result<Value, Error>) -> Option<Value> {
        match result {
            Ok(value) => {
                self.checked.push(what.to_string());
                Some(value)
            }
            Err(error) => {
                self.failed.push(format!("{what} ({error})"));
                None
            }
        }
    }
}

/// Looks up the requester, similar tickets and articles.
pub async fn gather(context: &Context, tools: &Tools) -> Evidence {
    let mut evidence = Evidence::default();
    let book = runbooks::find(&context.subject, &context.details).map(|(book, _)| book);
    if let Some(user_id) = context.requester.user_id {
        let arguments = json!({"userId": user_id});
        let user = tools.call("halopsa_get_user", arguments).await;
        evidence.user = evidence
            .record("the requester's record", user)
            .and_then(|v| v.get("user").cloned());
    }
    if !context.requester.name.is_empty() {
        let arguments = json!({"query": context.requester.name, "limit": 5});
        let found = tools.call("halopsa_list_assets", arguments).await;
        let found = evidence.record("the requester's assets", found);
        evidence.assets = rows(found, "assets");
    }
    for query in queries(context, book).into_iter().take(MAX_SEARCHES) {
        let arguments = json!({"query": query, "limit": 20});
        let found = tools.call("halopsa_search_tickets", arguments).await;
        let found = evidence.record(&format!("this client's tickets with \"{query}\""), found);
        evidence.similar = similar(context, rows(found, "tickets"));
        if !evidence.similar.is_empty() {
            break;
        }
    }
    if let Some(book) = book {
        let arguments = json!({"query": book.topic, "limit": 3});
        let found = tools.call("halopsa_search_knowledge_base", arguments).await;
        let what = format!("the knowledge base for \"{}\"", book.topic);
        evidence.articles = rows(evidence.record(&what, found), "articles");
    }
    evidence
}

fn rows(value: Option<Value>, key: &str) -> Vec<Value> {
    value
        .and_then(|v| v.get(key)?.as_array().cloned())
        .unwrap_or_default()
}

/// A field's text; empty if it has none.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// What to search past tickets for: the runbook's topic, then the subject's longest word.
fn queries(context: &Context, book: Option<&Runbook>) -> Vec<String> {
    let mut words = runbooks::keywords(&context.subject);
    words.sort_by_key(|w| std::cmp::Reverse(w.len()));
    let mut queries: Vec<String> = book.map(|b| b.topic.to_string()).into_iter().collect();
    queries.extend(words.into_iter().take(1));
    queries.dedup();
    queries
}

/// Solved tickets that share words with the subject, most similar first.
pub fn similar(context: &Context, found: Vec<Value>) -> Vec<Value> {
    let wanted = runbooks::keywords(&context.subject);
    let mut scored: Vec<(usize, Value)> = found
        .into_iter()
        .filter(|t| t.get("id").and_then(Value::as_i64) != Some(context.ticket_id))
        .filter(|t| !text(t, "closureNote").is_empty())
        .map(|t| {
            let said = format!("{} {}", text(&t, "summary"), text(&t, "details"));
            let have = runbooks::keywords(&said);
            let shared = wanted.iter().filter(|w| have.contains(w)).count();
            (shared, t)
        })
        .filter(|(shared, _)| *shared > 0)
        .collect();
    scored.sort_by_key(|(shared, _)| std::cmp::Reverse(*shared));
    scored
        .into_iter()
        .take(MAX_SIMILAR)
        .map(|(_, t)| t)
        .collect()
}
