//! Pinning: a server's tool stays what it was when a person accepted it. Pure.

use crate::api::tool_server::PinnedTool;
use crate::text::hex;
use rmcp::model::Tool;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Tools of one server that are looked at.
pub const MAX_TOOLS: usize = 200;

/// What a tool is pinned by.
pub fn definition(tool: &Tool) -> Value {
    json!({"name": tool.name, "title": tool.title, "description": tool.description, "inputSchema": *tool.input_schema, "annotations": tool.annotations})
}

/// SHA-256 of a tool's definition.
pub fn hash(tool: &Tool) -> String {
    hex::encode(Sha256::digest(canonical(&definition(tool))))
}

/// JSON with sorted keys: the same value gives the same text.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            let parts: Vec<String> = keys
                .into_iter()
                .map(|k| format!("{}:{}", Value::from(k.as_str()), canonical(&map[k])))
                .collect();
            format!("{{{}}}", parts.join(","))
        }
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(canonical).collect::<Vec<_>>().join(",")
        ),
        other => other.to_string(),
    }
}

/// What to keep pinned, from what was pinned and what the server offers: pure.
/// A new tool is pinned as it is; a changed one is stopped until `accepted` names
/// the present offer; one the server does not offer any more stays pinned, so
/// that it cannot come back changed.
pub fn pin(
    pinned: &[PinnedTool],
    offered: &[(String, String)],
    accepted: Option<&str>,
) -> (Vec<PinnedTool>, Option<String>) {
    let changed: Vec<&(String, String)> = offered
        .iter()
        .filter(|(name, hash)| pinned.iter().any(|p| p.name == *name && p.hash != *hash))
        .collect();
    let revision = (!changed.is_empty()).then(|| {
        let digest = Sha256::digest(
            changed
                .iter()
                .map(|(name, hash)| format!("{name}={hash}\n"))
                .collect::<String>(),
        );
        hex::encode(&digest[..8])
    });
    let accept = revision.is_some() && revision.as_deref() == accepted;
    let mut next: Vec<PinnedTool> = pinned.to_vec();
    for (name, hash) in offered {
        match next.iter_mut().find(|p| p.name == *name) {
            None => next.push(PinnedTool {
                name: name.clone(),
                hash: hash.clone(),
                offered: None,
            }),
            Some(known) if known.hash == *hash => known.offered = None,
            Some(known) if accept => {
                *known = PinnedTool {
                    name: name.clone(),
                    hash: hash.clone(),
                    offered: None,
                }
            }
            Some(known) => known.offered = Some(hash.clone()),
        }
    }
    next.sort_by(|a, b| a.name.cmp(&b.name));
    next.truncate(MAX_TOOLS);
    (next, if accept { None } else { revision })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter()
            .map(|(n, h)| (n.to_string(), h.to_string()))
            .collect()
    }

    #[test]
    fn a_changed_tool_stops_until_it_is_accepted() {
        let (first, revision) = pin(&[], &offer(&[("a", "1"), ("b", "1")]), None);
        assert_eq!((first.len(), revision), (2, None));
        let (stopped, revision) = pin(&first, &offer(&[("a", "2"), ("b", "1"), ("c", "1")]), None);
        assert_eq!(
            (
                stopped[0].hash.as_str(),
                stopped[0].offered.as_deref(),
                stopped.len()
            ),
            ("1", Some("2"), 3)
        );
        let revision = revision.unwrap();
        // An old acceptance does not accept another change.
        let (still, other) = pin(&stopped, &offer(&[("a", "3")]), Some(&revision));
        assert!(still[0].offered.is_some() && other.unwrap() != revision);
        let (accepted, none) = pin(&stopped, &offer(&[("a", "2"), ("b", "1")]), Some(&revision));
        assert_eq!(
            (accepted[0].hash.as_str(), &accepted[0].offered, none),
            ("2", &None, None)
        );
        // Changed back, it runs again; gone and back changed, it does not.
        assert_eq!(
            pin(&stopped, &offer(&[("a", "1")]), None).0[0].offered,
            None
        );
        let (gone, _) = pin(&first, &offer(&[]), None);
        assert!(
            pin(&gone, &offer(&[("a", "9")]), None).0[0]
                .offered
                .is_some()
        );
    }

    #[test]
    fn the_order_of_keys_does_not_matter() {
        let (a, b): (Value, Value) = (
            serde_json::from_str(r#"{"a":1,"b":[{"y":1,"x":2}]}"#).unwrap(),
            serde_json::from_str(r#"{"b":[{"x":2,"y":1}],"a":1}"#).unwrap(),
        );
        assert_eq!(canonical(&a), canonical(&b));
    }
}
