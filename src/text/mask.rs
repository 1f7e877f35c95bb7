//! A call's arguments as the journal and the audit stream show them: no secrets, no text.

use super::one_line;
use serde_json::Value;

/// Words in a key that make its value a secret.
const SECRET: [&str; 11] = [
    "pass",
    "secret",
    "token",
    "key",
    "pin",
    "otp",
    "credential",
    "auth",
    "cookie",
    "recovery",
    "code",
];
/// Keys whose value is prose: it stays in HaloPSA.
const TEXT: [&str; 14] = [
    "text",
    "why",
    "details",
    "note",
    "closurenote",
    "summary",
    "body",
    "message",
    "content",
    "query",
    "subject",
    "description",
    "html",
    "comment",
];
/// A longer value is prose, whatever its key.
const MAX_VALUE: usize = 64;
const MAX_TOTAL: usize = 400;
/// How deep nested values are shown.
const MAX_DEPTH: usize = 4;

/// `key=value` pairs on one line.
pub fn arguments(json: &str) -> String {
    match serde_json::from_str(json) {
        Ok(Value::Object(map)) => shown(&map),
        // Already masked: it stays as it is.
        _ => one_line(json, MAX_TOTAL),
    }
}

/// As [`arguments`], from parsed JSON.
pub fn shown(map: &serde_json::Map<String, Value>) -> String {
    let parts: Vec<String> = map
        .iter()
        .take(20)
        .map(|(key, value)| format!("{}={}", one_line(key, 32), masked(key, value, 0)))
        .collect();
    one_line(&parts.join(" "), MAX_TOTAL)
}

fn masked(key: &str, value: &Value, depth: usize) -> String {
    let lower = key.to_lowercase();
    let secret = SECRET.iter().any(|s| lower.contains(s));
    match value {
        Value::Null | Value::Bool(_) => value.to_string(),
        _ if secret => "***".into(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => {
            let length = text.chars().count();
            if length > MAX_VALUE || TEXT.contains(&lower.as_str()) {
                format!("({length} characters)")
            } else {
                one_line(text, MAX_VALUE)
            }
        }
        _ if depth >= MAX_DEPTH => "…".into(),
        Value::Array(items) => {
            let shown: Vec<String> = items
                .iter()
                .take(5)
                .map(|v| masked(key, v, depth + 1))
                .collect();
            format!(
                "[{}{}]",
                shown.join(","),
                if items.len() > 5 { ",…" } else { "" }
            )
        }
        Value::Object(map) => {
            let shown: Vec<String> = map
                .iter()
                .take(5)
                .map(|(k, v)| format!("{}={}", one_line(k, 32), masked(k, v, depth + 1)))
                .collect();
            format!(
                "{{{}{}}}",
                shown.join(","),
                if map.len() > 5 { ",…" } else { "" }
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_and_no_text() {
        for (json, shown) in [
            (
                r#"{"status":"In Progress","minutes":15}"#,
                "minutes=15 status=In Progress",
            ),
            (
                r#"{"newPassword":"hunter2","user":"kim"}"#,
                "newPassword=*** user=kim",
            ),
            (r#"{"text":"Dear Kim"}"#, "text=(8 characters)"),
            (
                r#"{"to":["a@x","b@x"],"options":{"apiKey":1,"force":true}}"#,
                "options={apiKey=***,force=true} to=[a@x,b@x]",
            ),
            ("minutes=15", "minutes=15"),
        ] {
            assert_eq!(arguments(json), shown);
        }
        assert!(
            arguments(&format!(r#"{{"x":"{}"}}"#, "y".repeat(5000))).contains("5000 characters")
        );
        assert!(arguments(&"[".repeat(100_000)).chars().count() <= MAX_TOTAL);
    }
}
