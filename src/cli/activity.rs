//! `kubectl halopsa activity`: what agents did, from the Tickets' journals.

use super::{Cluster, Error};
use crate::api::ticket::{JournalEntry, Ticket};
use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;
use std::collections::HashMap;

/// Entries shown without `--follow`.
const SHOWN: usize = 200;

pub async fn run(
    cluster: &Cluster,
    name: Option<&str>,
    follow: bool,
    as_json: bool,
) -> Result<(), Error> {
    let api: Api<Ticket> = Api::namespaced(cluster.kube.clone(), &cluster.namespace);
    let mut entries: Vec<(Option<Timestamp>, String)> = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut found = false;
    for ticket in api
        .list(&Default::default())
        .await?
        .items
        .into_iter()
        .filter(|t| wanted(t, name))
    {
        found = true;
        for entry in journal(&ticket) {
            entries.push((
                entry.time.as_ref().map(|t| t.0),
                show(&ticket, entry, as_json),
            ));
        }
        seen.insert(ticket.name_any(), total(&ticket));
    }
    if !found && !follow {
        let what = name.map_or("no Tickets".to_string(), |n| {
            format!("no Ticket of this name and no Tickets of a client {n}")
        });
        return Err(Error::Other(format!(
            "there are {what} in namespace {}",
            cluster.namespace
        )));
    }
    entries.sort_by_key(|(time, _)| *time);
    let skip = entries.len().saturating_sub(SHOWN);
    for (_, line) in entries.iter().skip(skip) {
        println!("{line}");
    }
    if !follow {
        return Ok(());
    }
    let mut changes = Box::pin(
        watcher(api, watcher::Config::default())
            .default_backoff()
            .applied_objects(),
    );
    while let Some(change) = changes.next().await {
        // The watch is started anew by itself.
        let Ok(ticket) = change else { continue };
        if !wanted(&ticket, name) {
            continue;
        }
        let before = seen
            .insert(ticket.name_any(), total(&ticket))
            .unwrap_or_default();
        let fresh = total(&ticket)
            .saturating_sub(before)
            .min(journal(&ticket).len());
        for entry in &journal(&ticket)[journal(&ticket).len() - fresh..] {
            println!("{}", show(&ticket, entry, as_json));
        }
    }
    Ok(())
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

/// Entries there ever were: the journal keeps the newest only.
fn total(ticket: &Ticket) -> usize {
    ticket
        .status
        .as_ref()
        .map(|s| s.journal_total.unwrap_or_default() as usize)
        .unwrap_or_default()
}

fn show(ticket: &Ticket, entry: &JournalEntry, as_json: bool) -> String {
    let client = ticket
        .spec
        .client_ref
        .as_ref()
        .map(|c| c.name.as_str())
        .unwrap_or_default();
    if as_json {
        return json!({"ticket": ticket.name_any(), "client": client, "ticketId": ticket.spec.ticket_id, "entry": entry}).to_string();
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
    format!(
        "{time}  {:<28}  {by:<22}  {}",
        ticket.name_any(),
        what.trim_end()
    )
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
        assert!(show(&ticket, &entry, false).ends_with(
            "halopsa_log_time minutes=5 -> ok, step 2 [Auto by ToolPolicy p, rule 1], 12 ms"
        ));
        assert!(show(&ticket, &entry, true).starts_with('{'));
    }
}
