//! What happened to a ticket, as kept on it.

use super::{JOURNAL_LIMIT, whole_second};
use crate::api::ticket::{JournalEntry, TicketStatus, ToolCall};
use crate::ticket::actor::Actor;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

impl TicketStatus {
    /// Adds a tool call to the journal.
    pub fn record_call(&mut self, call: &ToolCall, by: Actor<'_>, now: Timestamp) {
        self.record("ToolCalled", by, None, now);
        if let Some(entry) = self.journal.last_mut() {
            entry.call = Some(call.clone());
        }
    }

    /// Adds a journal entry; the oldest go when there are too many.
    pub fn record(&mut self, event: &str, by: Actor<'_>, detail: Option<String>, now: Timestamp) {
        self.journal.push(JournalEntry {
            time: Some(Time(whole_second(now))),
            event: event.into(),
            by: Some(by.as_str().chars().take(100).collect()),
            detail: detail.map(|d| d.chars().take(300).collect()),
            call: None,
        });
        self.journal_total = Some(self.journal_total.unwrap_or_default() + 1);
        let excess = self.journal.len().saturating_sub(JOURNAL_LIMIT);
        self.journal.drain(..excess);
    }
}
