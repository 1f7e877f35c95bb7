//! A call's arguments as the journal, the audit stream and spans show them: only what is known to
//! be harmless. Whatever else there is, is a name and a length.

use serde_json::{Map, Value};

/// How the names of HaloPSA's own tools begin. No ToolServer can be named like this.
const OWN: &str = "halopsa_";
/// Arguments of the own tools, also of calls with their names looked up: numbers that HaloPSA
/// gives, or counts.
const NUMBERS: [&str; 11] = [
    "agentId",
    "articleId",
    "categoryId",
    "limit",
    "minutes",
    "priorityId",
    "statusId",
    "teamId",
    "ticketId",
    "typeId",
    "userId",
];
/// Names of rows in HaloPSA's lists.
const NAMES: [&str; 6] = ["agent", "category", "priority", "status", "team", "type"];
/// Text, people and other records.
const TEXTS: [&str; 11] = [
    "article",
    "client",
    "closureNote",
    "details",
    "note",
    "query",
    "recipient",
    "requester",
    "summary",
    "text",
    "why",
];
const MAX_NAME: usize = 64;
/// Keys of a ToolServer's tool are shown if they are no text either.
const MAX_KEY: usize = 32;
const MAX_KEYS: usize = 20;

/// `key=value` pairs on one line, of arguments stored as JSON.
pub fn arguments(tool: &str, json: &str, accepted: bool) -> String {
    match serde_json::from_str(json) {
        Ok(Value::Object(map)) => shown(tool, &map, accepted),
        _ => characters(json.chars().count()),
    }
}

/// `key=value` pairs on one line. `accepted`: the names in it were looked up in HaloPSA, so they are
/// names of its rows and not an agent's words.
pub fn shown(tool: &str, map: &Map<String, Value>, accepted: bool) -> String {
    let mut parts: Vec<String> = map
        .iter()
        .filter_map(|(key, value)| pair(tool, key, value, accepted))
        .take(MAX_KEYS)
        .collect();
    let others = map.len() - parts.len();
    if others > 0 {
        parts.push(format!("({others} others)"));
    }
    parts.join(" ")
}

/// None: the key may be an agent's words, too.
fn pair(tool: &str, key: &str, value: &Value, accepted: bool) -> Option<String> {
    if !tool.starts_with(OWN) {
        return is_key(key).then(|| format!("{key}={}", length(value)));
    }
    let shown = if NUMBERS.contains(&key) {
        number(value)
    } else if NAMES.contains(&key) {
        name(value).filter(|_| accepted)
    } else if TEXTS.contains(&key) {
        None
    } else {
        return None;
    };
    Some(format!("{key}={}", shown.unwrap_or_else(|| length(value))))
}

fn is_key(key: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    !key.is_empty() && key.len() <= MAX_KEY && key.chars().all(plain)
}

fn number(value: &Value) -> Option<String> {
    let number = value.as_u64().and_then(|n| i32::try_from(n).ok())?;
    Some(number.to_string())
}

fn name(value: &Value) -> Option<String> {
    let name = value.as_str()?.trim();
    let fits = name.chars().count() <= MAX_NAME && !name.chars().any(char::is_control);
    fits.then(|| name.to_string())
}

fn length(value: &Value) -> String {
    match value {
        Value::String(text) => characters(text.chars().count()),
        other => characters(other.to_string().chars().count()),
    }
}

fn characters(count: usize) -> String {
    format!("({count} characters)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CANARY: &str = "hunter2";

    #[test]
    fn what_is_known_to_be_harmless_is_shown() {
        let update = "halopsa_update_ticket";
        for (tool, json, accepted, shown) in [
            (
                "halopsa_log_time",
                r#"{"minutes":15,"note":"Dear Kim"}"#,
                false,
                "minutes=15 note=(8 characters)",
            ),
            (
                update,
                r#"{"status":"In Progress","statusId":2}"#,
                true,
                "status=In Progress statusId=2",
            ),
            (
                update,
                r#"{"status":"In Progress"}"#,
                false,
                "status=(11 characters)",
            ),
            (
                update,
                r#"{"ticketId":"7"}"#,
                true,
                "ticketId=(1 characters)",
            ),
            (update, r#"{"Dear Kim":"x","y":1}"#, true, "(2 others)"),
            (
                "m365__reset_password",
                r#"{"user":"kim@x","force":true,"my password is":1}"#,
                true,
                "force=(4 characters) user=(5 characters) (1 others)",
            ),
            (update, "hunter2", true, "(7 characters)"),
        ] {
            assert_eq!(arguments(tool, json, accepted), shown);
        }
    }

    #[test]
    fn no_value_is_shown_whatever_its_key() {
        for key in [
            "pwd",
            "value",
            "password",
            "passphrase",
            "answer",
            "ssn",
            "iban",
            "kennwort",
            "geheimnis",
            "antwort",
            "kontonummer",
            "motDePasse",
            "reponse",
            "secret",
            "contraseña",
            "clave",
            "respuesta",
            "wachtwoord",
            "antwoord",
            "rekeningnummer",
        ] {
            for value in [
                Value::from(CANARY),
                serde_json::json!([CANARY]),
                serde_json::json!({"nested": {"status": CANARY}}),
            ] {
                let mut map = Map::new();
                map.insert(key.into(), value);
                for tool in ["m365__set", "halopsa_update_ticket", "unknown"] {
                    let shown = shown(tool, &map, true);
                    assert!(!shown.contains(CANARY), "{key}: {shown}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_arguments_give_one_bounded_line(
            pairs in prop::collection::hash_map("\\PC{0,40}", "\\PC{0,200}", 0..60),
            accepted in any::<bool>(),
        ) {
            let pairs = pairs.into_iter().map(|(key, value)| (key, Value::from(value)));
            let map: Map<String, Value> = pairs.collect();
            for tool in ["halopsa_update_ticket", "m365__set"] {
                let shown = shown(tool, &map, accepted);
                prop_assert!(shown.len() <= 2000 && !shown.contains('\n'), "{}", shown);
            }
        }
    }
}
