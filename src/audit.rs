//! The audit stream: one JSON line on standard output for everything an agent
//! asked for and everything decided about it, for a log store to keep. Logs go to
//! standard error.

use crate::api::ticket::ToolCall;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use std::io::Write;

/// Who and where.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Subject<'a> {
    pub namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub client: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub ticket: &'a str,
    /// The agent's Pod, or `gateway`, or `controller`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub by: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    stream: &'static str,
    time: String,
    event: &'a str,
    #[serde(flatten)]
    subject: Subject<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<&'a ToolCall>,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
}

/// A tool call, and what was decided about it.
pub fn call(subject: Subject<'_>, call: &ToolCall) {
    write("ToolCalled", subject, Some(call), "");
}

/// Anything else. `detail` is for people and holds no ticket text.
pub fn event(event: &str, subject: Subject<'_>, detail: &str) {
    write(event, subject, None, detail);
}

fn write(event: &str, subject: Subject<'_>, call: Option<&ToolCall>, detail: &str) {
    let line = Line { stream: "audit", time: Timestamp::now().to_string(), event, subject, call, detail };
    if let Ok(mut json) = serde_json::to_vec(&line) {
        json.push(b'\n');
        // Whole lines, also from several threads; a closed pipe ends no work.
        let _ = std::io::stdout().lock().write_all(&json);
    }
}
