//! Pinning: a server's tool stays as it was when it was accepted. Pure.

use crate::api::tool_server::PinnedTool;
use crate::text::hex;
use crate::text::json::canonical;
use rmcp::model::Tool;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The most tools of one server that are used.
pub const MAX_TOOLS: usize = 200;

/// What a tool is pinned by.
pub fn definition(tool: &Tool) -> Value {
    json!({
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": *tool.input_schema,
        "annotations": tool.annotations,
    })
}

/// SHA-256 of a tool's definition.
pub fn hash(tool: &Tool) -> String {
    hex::encode(Sha256::digest(canonical(&definition(tool))))
}

/// What a call is bound to besides its tool and its arguments: the tool's definition, where it is
/// not ours, and where the call goes. The parts of `target` are an instance, an address, a UID.
pub fn bound(definition: &str, target: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in target {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    format!("{definition}|{}", hex::encode(digest.finalize()))
}

/// The tool's definition in what [`bound`] returned.
pub fn definition_in(bound: &str) -> &str {
    bound
        .split_once('|')
        .map_or("", |(definition, _)| definition)
}

/// A tool as its server offers it now.
pub struct Offered {
    pub name: String,
    pub hash: String,
}

impl From<&Tool> for Offered {
    fn from(tool: &Tool) -> Self {
        Self {
            name: tool.name.to_string(),
            hash: hash(tool),
        }
    }
}

impl Offered {
    fn accepted(&self) -> PinnedTool {
        PinnedTool {
            name: self.name.clone(),
            hash: self.hash.clone(),
            offered: None,
        }
    }
}

/// What to keep pinned.
pub struct Pinned {
    pub tools: Vec<PinnedTool>,
    /// Names the changed tools as offered now; none: no change waits to be accepted.
    pub revision: Option<String>,
}

/// What to keep pinned, from what was pinned and what the server offers: pure.
/// A new tool is pinned as it is; a changed one is stopped until `accepted` names
/// the present offer; one the server no longer offers stays pinned, so that it
/// cannot come back changed.
pub fn pin(pinned: &[PinnedTool], offered: &[Offered], accepted: Option<&str>) -> Pinned {
    let revision = revision(pinned, offered);
    let accept = revision.is_some() && revision.as_deref() == accepted;
    let mut tools: Vec<PinnedTool> = pinned.to_vec();
    for tool in offered {
        match tools.iter_mut().find(|p| p.name == tool.name) {
            None => tools.push(tool.accepted()),
            Some(known) if known.hash == tool.hash => known.offered = None,
            Some(known) if accept => *known = tool.accepted(),
            Some(known) => known.offered = Some(tool.hash.clone()),
        }
    }
    tools.sort_by(|a, b| a.name.cmp(&b.name));
    tools.truncate(MAX_TOOLS);
    Pinned {
        tools,
        revision: if accept { None } else { revision },
    }
}

/// A short hash of the changed tools as they are offered; none: nothing has changed.
fn revision(pinned: &[PinnedTool], offered: &[Offered]) -> Option<String> {
    let is_changed = |tool: &&Offered| {
        pinned
            .iter()
            .any(|p| p.name == tool.name && p.hash != tool.hash)
    };
    let changed: String = offered
        .iter()
        .filter(is_changed)
        .map(|tool| format!("{}={}\n", tool.name, tool.hash))
        .collect();
    (!changed.is_empty()).then(|| hex::encode(&Sha256::digest(changed)[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(all: &[(&str, &str)]) -> Vec<Offered> {
        let offered = |(name, hash): &(&str, &str)| Offered {
            name: name.to_string(),
            hash: hash.to_string(),
        };
        all.iter().map(offered).collect()
    }

    #[test]
    fn a_changed_tool_stops_until_it_is_accepted() {
        let first = pin(&[], &offer(&[("a", "1"), ("b", "1")]), None);
        assert_eq!((first.tools.len(), first.revision), (2, None));
        let first = first.tools;
        let stopped = pin(&first, &offer(&[("a", "2"), ("b", "1"), ("c", "1")]), None);
        let revision = stopped.revision.unwrap();
        let stopped = stopped.tools;
        assert_eq!(stopped.len(), 3);
        assert_eq!(stopped[0].hash, "1");
        assert_eq!(stopped[0].offered.as_deref(), Some("2"));
        // An old acceptance does not accept another change.
        let still = pin(&stopped, &offer(&[("a", "3")]), Some(&revision));
        assert!(still.tools[0].offered.is_some());
        assert_ne!(still.revision.unwrap(), revision);
        let accepted = pin(&stopped, &offer(&[("a", "2"), ("b", "1")]), Some(&revision));
        assert_eq!(accepted.tools[0].hash, "2");
        assert_eq!(accepted.tools[0].offered, None);
        assert_eq!(accepted.revision, None);
        // Changed back, it runs again; gone and back changed, it does not.
        let back = pin(&stopped, &offer(&[("a", "1")]), None);
        assert_eq!(back.tools[0].offered, None);
        let gone = pin(&first, &offer(&[]), None);
        let changed = pin(&gone.tools, &offer(&[("a", "9")]), None);
        assert!(changed.tools[0].offered.is_some());
    }

    #[test]
    fn a_call_is_bound_to_where_it_goes() {
        let halo = "https://halo.example";
        let m365 = bound("d1", &[halo, "uid-1", "https://m365.example/mcp"]);
        assert_eq!(definition_in(&m365), "d1");
        for other in [
            bound("d2", &[halo, "uid-1", "https://m365.example/mcp"]),
            bound(
                "d1",
                &["https://other.example", "uid-1", "https://m365.example/mcp"],
            ),
            bound("d1", &[halo, "uid-2", "https://m365.example/mcp"]),
            bound("d1", &[halo, "uid-1", "https://evil.example/mcp"]),
            // The parts are not one text.
            bound("d1", &[halo, "uid-1https://m365.example/mcp"]),
            bound("", &[halo]),
        ] {
            assert_ne!(m365, other);
        }
        assert_eq!(definition_in(&bound("", &[halo])), "");
        assert_eq!(definition_in("made before there were addresses"), "");
    }
}
