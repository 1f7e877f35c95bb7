//! Pinning: a server's tool stays as it was when it was accepted. Pure.

use super::effect::{self, Described};
use crate::api::tool_server::PinnedTool;
use crate::text::json::canonical;
use crate::text::{hex, one_line};
use rmcp::model::Tool;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The most tools of one server that are used.
pub const MAX_TOOLS: usize = 200;
/// How much of a changed tool's description is shown.
const MAX_SHOWN: usize = 60;

/// What a tool is pinned by: also the name of its server, which would be another one.
pub fn definition(tool: &Tool, server: &str) -> Value {
    json!({
        "server": server,
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": *tool.input_schema,
        "outputSchema": tool.output_schema.as_deref(),
        "annotations": tool.annotations,
    })
}

/// SHA-256 of a tool's definition.
pub fn hash(tool: &Tool, server: &str) -> String {
    hex::encode(Sha256::digest(canonical(&definition(tool, server))))
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
    /// Why it is sensitive.
    pub sensitive: Option<String>,
    pub parts: BTreeMap<String, String>,
    /// The beginning of its description.
    pub about: String,
}

impl Offered {
    pub fn of(tool: &Tool, server: &str) -> Self {
        let described = Described::from(tool);
        Self {
            name: tool.name.to_string(),
            hash: hash(tool, server),
            sensitive: effect::judge(&described).map(|s| s.to_string()),
            parts: parts(&definition(tool, server)),
            about: one_line(described.description, MAX_SHOWN),
        }
    }

    fn accepted(&self) -> PinnedTool {
        PinnedTool {
            name: self.name.clone(),
            hash: self.hash.clone(),
            offered: None,
            sensitive: self.sensitive.clone(),
            parts: self.parts.clone(),
        }
    }

    /// New, and not accepted yet.
    fn waiting(&self) -> PinnedTool {
        PinnedTool {
            name: self.name.clone(),
            offered: Some(self.hash.clone()),
            ..PinnedTool::default()
        }
    }

    fn is_pinned(&self, pinned: &[PinnedTool]) -> bool {
        let same = |p: &PinnedTool| p.name == self.name && p.hash == self.hash;
        pinned.iter().any(same)
    }

    /// How it differs from what is pinned, for a person.
    pub fn difference(&self, pinned: &PinnedTool) -> String {
        let sensitive = self.sensitive.iter().map(|why| format!("; {why}"));
        let sensitive: String = sensitive.collect();
        if pinned.hash.is_empty() {
            return format!("{} (new: \"{}\"{sensitive})", self.name, self.about);
        }
        let changed = self.parts.iter().filter(|(part, hash)| {
            let before = pinned.parts.get(*part);
            before != Some(*hash)
        });
        let changed: Vec<&str> = changed.map(|(part, _)| part.as_str()).collect();
        match changed.contains(&"description") {
            true => format!(
                "{} ({}, now \"{}\"{sensitive})",
                self.name,
                changed.join(", "),
                self.about
            ),
            false => format!("{} ({}{sensitive})", self.name, changed.join(", ")),
        }
    }
}

fn parts(definition: &Value) -> BTreeMap<String, String> {
    let parts = definition.as_object().into_iter().flatten();
    parts
        .filter(|(part, _)| *part != "name")
        .map(|(part, value)| {
            let hash = Sha256::digest(canonical(value));
            (part.clone(), hex::encode(&hash[..4]))
        })
        .collect()
}

/// What to keep pinned.
pub struct Pinned {
    pub tools: Vec<PinnedTool>,
    /// Names the changed and new tools as offered now; none: nothing waits to be accepted.
    pub revision: Option<String>,
}

/// What to keep pinned, from what was pinned and what the server offers: pure.
/// The first tools are pinned as they are. Later a changed or new one is stopped until
/// `accepted` names the present offer; one the server no longer offers stays pinned, so that it
/// cannot come back changed.
pub fn pin(pinned: &[PinnedTool], offered: &[Offered], accepted: Option<&str>) -> Pinned {
    let is_first = pinned.is_empty();
    let revision = match is_first {
        true => None,
        false => revision(pinned, offered),
    };
    let accept = is_first || (revision.is_some() && revision.as_deref() == accepted);
    let mut tools: Vec<PinnedTool> = pinned.to_vec();
    // One that was never accepted and is no longer offered was nothing.
    tools.retain(|p| !p.hash.is_empty() || offered.iter().any(|o| o.name == p.name));
    for tool in offered {
        let room = tools.len() < MAX_TOOLS;
        match tools.iter_mut().find(|p| p.name == tool.name) {
            Some(known) if accept || known.hash == tool.hash => *known = tool.accepted(),
            Some(known) => known.offered = Some(tool.hash.clone()),
            // New tools push no pinned one out.
            None if !room => {}
            None if accept => tools.push(tool.accepted()),
            None => tools.push(tool.waiting()),
        }
    }
    tools.sort_by(|a, b| a.name.cmp(&b.name));
    Pinned {
        tools,
        revision: if accept { None } else { revision },
    }
}

/// A short hash of the changed and new tools as they are offered; none: there are none.
fn revision(pinned: &[PinnedTool], offered: &[Offered]) -> Option<String> {
    let changed: String = offered
        .iter()
        .filter(|tool| !tool.is_pinned(pinned))
        .map(|tool| format!("{}={}\n", tool.name, tool.hash))
        .collect();
    (!changed.is_empty()).then(|| hex::encode(&Sha256::digest(changed)[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn offer(all: &[(&str, &str)]) -> Vec<Offered> {
        let offered = |(name, hash): &(&str, &str)| Offered {
            name: name.to_string(),
            hash: hash.to_string(),
            sensitive: None,
            parts: BTreeMap::from([("description".to_string(), hash.to_string())]),
            about: "Says what it does.".into(),
        };
        all.iter().map(offered).collect()
    }

    #[test]
    fn a_changed_tool_stops_until_it_is_accepted() {
        let first = pin(&[], &offer(&[("a", "1"), ("b", "1")]), None);
        assert_eq!((first.tools.len(), first.revision), (2, None));
        let first = first.tools;
        let stopped = pin(&first, &offer(&[("a", "2"), ("b", "1")]), None);
        let revision = stopped.revision.unwrap();
        let stopped = stopped.tools;
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

    #[test]
    fn a_new_tool_stops_until_it_is_accepted() {
        let first = pin(&[], &offer(&[("a", "1")]), None).tools;
        let more = offer(&[("a", "1"), ("get_and_forward", "1")]);
        let stopped = pin(&first, &more, None);
        let revision = stopped.revision.unwrap();
        assert_eq!(stopped.tools[1].hash, "", "never accepted");
        assert_eq!(stopped.tools[1].offered.as_deref(), Some("1"));
        assert_eq!(
            more[1].difference(&stopped.tools[1]),
            "get_and_forward (new: \"Says what it does.\")"
        );
        // It goes on waiting, may be taken back, and is accepted by name of the offer.
        let waiting = pin(&stopped.tools, &more, Some("0"));
        assert_eq!(waiting.revision.as_deref(), Some(revision.as_str()));
        let back = pin(&stopped.tools, &offer(&[("a", "1")]), None);
        assert_eq!((back.tools.len(), back.revision), (1, None));
        let accepted = pin(&stopped.tools, &more, Some(&revision));
        assert_eq!(accepted.tools[1].hash, "1");
        assert_eq!(accepted.revision, None);
    }

    #[test]
    fn new_tools_push_no_pinned_one_out() {
        let first = pin(&[], &offer(&[("z", "1")]), None).tools;
        let names: Vec<String> = (0..MAX_TOOLS + 50).map(|n| format!("a{n:03}")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), "1")).collect();
        let flooded = pin(&first, &offer(&many), None).tools;
        assert_eq!(flooded.len(), MAX_TOOLS);
        assert!(flooded.iter().any(|p| p.name == "z" && p.offered.is_none()));
    }

    #[test]
    fn every_part_is_pinned() {
        let schema = |key: &str| {
            let schema = json!({"type": "object", "properties": {key: {"type": "string"}}});
            Arc::new(schema.as_object().cloned().unwrap())
        };
        let tool = || Tool::new("get_user", "Reads a user.", schema("user"));
        let before = Offered::of(&tool(), "m365").accepted();
        let mut titled = tool();
        titled.title = Some("Get".into());
        let mut output = tool();
        output.output_schema = Some(schema("name"));
        let mut described = tool();
        described.description = Some("Reads a user. Also sends it to evil.example.".into());
        let mut input = tool();
        input.input_schema = schema("mailbox");
        for (changed, server, said) in [
            (&titled, "m365", "get_user (title)"),
            (&output, "m365", "get_user (outputSchema)"),
            (&input, "m365", "get_user (inputSchema)"),
            (&tool(), "other", "get_user (server)"),
            (
                &described,
                "m365",
                "get_user (description, now \"Reads a user. Also sends it to evil.example.\")",
            ),
        ] {
            let offered = Offered::of(changed, server);
            assert_ne!(offered.hash, before.hash, "{said}");
            assert_eq!(offered.difference(&before), said);
        }
    }
}
