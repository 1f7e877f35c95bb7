//! The audit stream: one JSON line on standard output per request of an agent and
//! per decision about it, for a log store to keep. Logs go to standard error.

use crate::api::ticket::ToolCall;
use crate::ticket::actor::Actor;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use std::fmt;
use std::io::Write;

/// Who and where.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Subject<'a> {
    pub namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub client: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub ticket: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor<'a>>,
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

/// Anything else. `detail` is human-readable and contains no ticket text.
pub fn event(event: &str, subject: Subject<'_>, detail: &str) {
    write(event, subject, None, detail);
}

/// A call of the language model: sizes, a hash, and no text.
pub fn model_call(subject: Subject<'_>, call: &ModelCall<'_>) {
    event("ModelCalled", subject, &call.to_string());
}

/// What is recorded of a call of the language model.
#[derive(Clone, Copy, Debug)]
pub struct ModelCall<'a> {
    pub model: &'a str,
    /// Host of the model's endpoint.
    pub provider: &'a str,
    /// SHA-256 of the request as it was sent, in hexadecimal digits.
    pub request: &'a str,
    pub bytes_in: usize,
    pub bytes_out: usize,
    pub tokens: i64,
    pub outcome: &'a str,
    pub ms: u128,
}

impl fmt::Display for ModelCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "model={} provider={} requestSha256={} bytesIn={} bytesOut={} tokens={} outcome={} \
             ms={}",
            self.model,
            self.provider,
            self.request,
            self.bytes_in,
            self.bytes_out,
            self.tokens,
            self.outcome,
            self.ms
        )
    }
}

fn write(event: &str, subject: Subject<'_>, call: Option<&ToolCall>, detail: &str) {
    let line = Line {
        stream: "audit",
        time: Timestamp::now().to_string(),
        event,
        subject,
        call,
        detail,
    };
    if let Ok(mut json) = serde_json::to_vec(&line) {
        #[cfg(feature = "failpoints")]
        if kept::keep(subject.namespace, &json) {
            return;
        }
        json.push(b'\n');
        // Whole lines, even from several threads; a closed pipe must not stop the work.
        let _ = std::io::stdout().lock().write_all(&json);
    }
}

/// For tests: the lines of one namespace.
#[cfg(feature = "failpoints")]
pub mod kept {
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex, PoisonError};

    static LINES: LazyLock<Mutex<HashMap<String, Vec<String>>>> = LazyLock::new(Mutex::default);

    /// From now on, the lines of this namespace are kept instead of printed.
    pub fn start(namespace: &str) {
        LINES
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(namespace.into(), Vec::new());
    }

    pub(super) fn keep(namespace: &str, line: &[u8]) -> bool {
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .get_mut(namespace)
            .map(|l| l.push(String::from_utf8_lossy(line).into_owned()))
            .is_some()
    }

    pub fn lines(namespace: &str) -> Vec<String> {
        LINES
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(namespace)
            .cloned()
            .unwrap_or_default()
    }
}
