//! `kubectl halopsa activity`: what agents did, from the Tickets' journals.

use super::cluster::Cluster;
use super::error::Error;
use super::terminal::{safe, safe_json};
use crate::api::ticket::{JournalEntry, Ticket};
use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;
use std::collections::HashMap;

/// Entries shown without `--follow`.
const SHOWN: usize = 200;

/// How entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Passes the newest entries to `print`, one line each. With `follow`, goes on until interrupted.
pub async fn run(
    cluster: &Cluster,
    name: Option<&str>,
    follow: bool,
    format: Format,
    mut print: impl FnMut(&str),
) -> Result<(), Error> {
    let api: Api<Ticket> = Api::namespaced(cluster.kube.clone(), &cluster.namespace);
    let mut tickets = api.list(&Default::default()).await?.items;
    tickets.retain(|t| wanted(t, name));
    if tickets.is_empty() && !follow {
        return Err(Error::Other(nothing(&cluster.namespace, name)));
    }
    for line in newest(&tickets, format) {
        print(&line);
    }
    if !follow {
        return Ok(());
    }
    let mut seen: HashMap<String, usize> =
        tickets.iter().map(|t| (t.name_any(), total(t))).collect();
    let mut changes = Box::pin(
        watcher(api, watcher::Config::default())
            .default_backoff()
            .applied_objects(),
    );
    while let Some(change) = changes.next().await {
        // The watch restarts by itself.
        let Ok(ticket) = change else { continue };
        if !wanted(&ticket, name) {
            continue;
        }
        let before = seen
            .insert(ticket.name_any(), total(&ticket))
            .unwrap_or_default();
        for line in since(&ticket, before, format) {
            print(&line);
        }
    }
    Ok(())
}

fn nothing(namespace: &str, name: Option<&str>) -> String {
    match name {
        None => format!("there are no Tickets in namespace {namespace}"),
        Some(name) => format!(
            "there is no Ticket {name}, and no Ticket of a client {name}, in namespace {namespace}"
        ),
    }
}

/// The newest entries of all Tickets, oldest first.
fn newest(tickets: &[Ticket], format: Format) -> Vec<String> {
    let mut entries: Vec<(&Ticket, &JournalEntry)> = tickets
        .iter()
        .flat_map(|t| journal(t).iter().map(move |entry| (t, entry)))
        .collect();
    entries.sort_by_key(|(_, entry)| entry.time.as_ref().map(|t| t.0));
    let skip = entries.len().saturating_sub(SHOWN);
    entries
        .into_iter()
        .skip(skip)
        .map(|(ticket, entry)| show(ticket, entry, format))
        .collect()
}

/// The entries of a Ticket that had so many before, as far as its journal still has them.
fn since(ticket: &Ticket, before: usize, format: Format) -> Vec<String> {
    let journal = journal(ticket);
    let fresh = total(ticket).saturating_sub(before).min(journal.len());
    journal[journal.len() - fresh..]
        .iter()
        .map(|entry| show(ticket, entry, format))
        .collect()
}

fn wanted(ticket: &Ticket, name: Option<&str>) -> bool {
    name.is_none_or(|name| {
        ticket.name_any() == name
            || ticket
                .spec
                .client_ref
                .as_ref()
                .is_some_and(|c| c.name == name)
    })
}

fn journal(ticket: &Ticket) -> &[JournalEntry] {
    ticket
        .status
        .as_ref()
        .map(|s| s.journal.as_slice())
        .unwrap_or_default()
}

/// All entries ever made: the journal keeps only the newest.
fn total(ticket: &Ticket) -> usize {
    ticket
        .status
        .as_ref()
        .map(|s| s.journal_total.unwrap_or_default() as usize)
        .unwrap_or_default()
}

/// An entry as a line.
fn show(ticket: &Ticket, entry: &JournalEntry, format: Format) -> String {
    let client = ticket
        .spec
        .client_ref
        .as_ref()
        .map(|c| c.name.as_str())
        .unwrap_or_default();
    if format == Format::Json {
        let line = json!({
            "ticket": ticket.name_any(),
            "client": client,
            "ticketId": ticket.spec.ticket_id,
            "entry": entry,
        });
        return safe_json(&line.to_string());
    }
    let time = entry
        .time
        .as_ref()
        .map(|t| t.0.strftime("%Y-%m-%d %H:%M:%S").to_string())
        .unwrap_or_default();
    // A Pod's name repeats its client's.
    let by = entry.by.as_deref().unwrap_or_default();
    let by = by
        .strip_prefix(&format!("{}-", crate::k8s::names::agent(client)))
        .map_or(by.to_string(), |pod| format!("agent {pod}"));
    let what = match &entry.call {
        Some(call) => {
            let step = call.step.map(|s| format!(", step {s}")).unwrap_or_default();
            let decision = if call.decision.is_empty() {
                String::new()
            } else {
                format!(" [{} by {}]", call.decision, call.rule)
            };
            format!(
                "{} {} -> {}{step}{decision}, {} ms",
                call.tool, call.arguments, call.outcome, call.ms
            )
        }
        None => format!(
            "{} {}",
            entry.event,
            entry.detail.as_deref().unwrap_or_default()
        ),
    };
    safe(&format!(
        "{time}  {:<28}  {by:<22}  {}",
        ticket.name_any(),
        what.trim_end()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ticket::ToolCall;

    #[test]
    fn entries_read_like_sentences() {
        let ticket = Ticket::new("acme-7", Default::default());
        let call = ToolCall {
            tool: "halopsa_log_time".into(),
            arguments: "minutes=5".into(),
            decision: "Auto".into(),
            rule: "ToolPolicy p, rule 1".into(),
            step: Some(2),
            outcome: "ok".into(),
            ms: 12,
        };
        let entry = JournalEntry {
            event: "ToolCalled".into(),
            by: Some("pod".into()),
            call: Some(call),
            ..JournalEntry::default()
        };
        assert!(show(&ticket, &entry, Format::Text).ends_with(
            "halopsa_log_time minutes=5 -> ok, step 2 [Auto by ToolPolicy p, rule 1], 12 ms"
        ));
        assert!(show(&ticket, &entry, Format::Json).starts_with('{'));
        let moves = JournalEntry {
            event: "Claimed\u{1b}[2J\n".into(),
            detail: Some("\u{202e}x".into()),
            ..JournalEntry::default()
        };
        let text = show(&ticket, &moves, Format::Text);
        assert!(text.ends_with("Claimed<U+001B>[2J  <U+202E>x"), "{text}");
        assert!(show(&ticket, &moves, Format::Json).contains("\\u202ex"));
    }
}
