//! The audit stream: one JSON line on standard output per request of an agent and
//! per decision about it, for a log store to keep. Logs go to standard error.
//!
//! Its form is a contract (docs/audit.md, docs/audit.schema.json): fields are added, not changed.
//! Each line holds the hash of the one before, so that a line that is missing or was changed shows.

use crate::api::ticket::ToolCall;
use crate::text::hex;
use crate::ticket::actor::Actor;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fmt;
use std::io::Write;
use std::sync::{LazyLock, Mutex, PoisonError};

const SCHEMA: &str = "halopsa-operator/audit/v1";
/// What the first line of a process holds instead of a hash.
const NOTHING_BEFORE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

static CHAIN: LazyLock<Mutex<Chain>> =
    LazyLock::new(|| Mutex::new(Chain::new(format!("{:016x}", rand::random::<u64>()))));

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
struct Line<'a> {
    stream: &'static str,
    schema: &'static str,
    id: String,
    process: &'a str,
    seq: u64,
    prev: &'a str,
    #[serde(flatten)]
    entry: &'a Entry<'a>,
}

/// What happened.
#[derive(Serialize)]
struct Entry<'a> {
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

/// The lines of one process.
struct Chain {
    process: String,
    /// Lines so far.
    seq: u64,
    /// SHA-256 of the last line.
    prev: String,
}

impl Chain {
    fn new(process: String) -> Self {
        Self {
            process,
            seq: 0,
            prev: NOTHING_BEFORE.into(),
        }
    }

    /// The line that follows on the last one.
    fn line(&mut self, entry: &Entry<'_>) -> Option<Vec<u8>> {
        let seq = self.seq + 1;
        let line = Line {
            stream: "audit",
            schema: SCHEMA,
            id: format!("{}-{seq}", self.process),
            process: &self.process,
            seq,
            prev: &self.prev,
            entry,
        };
        let json = serde_json::to_vec(&line).ok()?;
        self.seq = seq;
        self.prev = hex::encode(Sha256::digest(&json));
        Some(json)
    }
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
    // Held until the line is written: lines are in the order of the chain.
    let mut chain = CHAIN.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = Entry {
        time: Timestamp::now().to_string(),
        event,
        subject,
        call,
        detail,
    };
    if let Some(mut json) = chain.line(&entry) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn lines() -> Vec<Vec<u8>> {
        let mut chain = Chain::new("0011223344556677".into());
        let call = ToolCall {
            tool: "halopsa_log_time".into(),
            arguments: "minutes=5".into(),
            decision: "Auto".into(),
            rule: "ToolPolicy p, rule 1".into(),
            step: Some(2),
            outcome: "ok".into(),
            ms: 12,
        };
        let subject = Subject {
            namespace: "msp",
            client: "acme",
            ticket: "acme-7",
            by: Some(Actor::Agent("pod")),
        };
        let unknown = ToolCall::default();
        [
            ("ToolCalled", subject, Some(&call), ""),
            ("ToolCalled", subject, Some(&unknown), ""),
            ("Unauthenticated", Subject::default(), None, "no token"),
            ("Approved", subject, None, "request 1"),
        ]
        .into_iter()
        .map(|(event, subject, call, detail)| {
            let entry = Entry {
                time: "2026-11-25T10:00:00Z".into(),
                event,
                subject,
                call,
                detail,
            };
            chain.line(&entry).unwrap()
        })
        .collect()
    }

    /// The number of lines if they are one whole chain.
    fn whole(lines: &[Vec<u8>]) -> Option<usize> {
        let mut prev = NOTHING_BEFORE.to_string();
        for (at, line) in lines.iter().enumerate() {
            let read: Value = serde_json::from_slice(line).ok()?;
            let follows = read["seq"] == at as u64 + 1 && read["prev"] == prev.as_str();
            follows.then_some(())?;
            prev = hex::encode(Sha256::digest(line));
        }
        Some(lines.len())
    }

    #[test]
    fn a_missing_or_changed_line_breaks_the_chain() {
        let all = lines();
        assert_eq!(whole(&all), Some(all.len()));
        for at in 0..all.len() - 1 {
            let mut missing = all.clone();
            missing.remove(at);
            assert_eq!(whole(&missing), None, "without line {at}");
            let mut swapped = all.clone();
            swapped.swap(at, at + 1);
            assert_eq!(whole(&swapped), None, "line {at} swapped");
            let mut changed = all.clone();
            let text = String::from_utf8(changed[at].clone()).unwrap();
            changed[at] = text.replacen("2026", "2025", 1).into_bytes();
            assert_eq!(whole(&changed), None, "line {at} changed");
        }
    }

    /// Checks an object as far as docs/audit.schema.json says: names, types, fixed values.
    fn fits(object: &Value, schema: &Value, what: &str) {
        let object = object.as_object().unwrap();
        for required in schema["required"].as_array().unwrap() {
            let name = required.as_str().unwrap();
            assert!(object.contains_key(name), "{what}: {name} is missing");
        }
        assert_eq!(schema["additionalProperties"], false);
        for (name, value) in object {
            let rule = &schema["properties"][name];
            let is_type = match rule["type"].as_str() {
                Some("string") => value.is_string(),
                Some("integer") => value.is_i64() || value.is_u64(),
                Some("object") => value.is_object(),
                other => panic!("{what}: the schema does not know {name}: {other:?}"),
            };
            assert!(is_type, "{what}: {name} is {value}");
            if let Some(fixed) = rule.get("const") {
                assert_eq!(value, fixed, "{what}: {name}");
            }
            if rule["type"] == "object" {
                fits(value, rule, name);
            }
        }
    }

    #[test]
    fn lines_are_as_the_schema_says() {
        let schema: Value =
            serde_json::from_str(include_str!("../docs/audit.schema.json")).unwrap();
        for line in lines() {
            let read: Value = serde_json::from_slice(&line).unwrap();
            fits(&read, &schema, "line");
            assert_eq!(
                read["id"],
                format!("{}-{}", "0011223344556677", read["seq"])
            );
        }
    }
}
