//! Tools of public MCP servers and vendors' APIs. The rules were written from half `a`; half `b`,
//! of other vendors, is what they are measured with.

use super::*;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

const LABELLED: &str = include_str!("../../../tests/data/tools.jsonl");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Labelled {
    vendor: String,
    half: String,
    name: String,
    description: String,
    properties: Vec<String>,
    #[serde(default)]
    values: Vec<String>,
    read_only: Option<bool>,
    effect: Option<String>,
}

impl Labelled {
    fn schema(&self) -> Map<String, Value> {
        let mut properties: Map<String, Value> = self
            .properties
            .iter()
            .map(|name| (name.clone(), json!({"type": "string"})))
            .collect();
        if !self.values.is_empty() {
            let kind = json!({"type": "string", "enum": self.values});
            properties.insert(self.properties.last().unwrap().clone(), kind);
        }
        let schema = json!({"type": "object", "properties": properties});
        schema.as_object().cloned().unwrap()
    }
}

fn all() -> Vec<Labelled> {
    let lines = LABELLED.lines();
    lines.map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn tools_of_public_servers() {
    assert!(all().len() >= 150);
    for (half, recall, precision) in [("a", 0.99, 0.97), ("b", 0.98, 0.95)] {
        let (mut hit, mut missed, mut wrong) = (0.0, Vec::new(), Vec::new());
        for tool in all().iter().filter(|t| t.half == half) {
            let schema = tool.schema();
            let said = judge(&Described {
                name: &tool.name,
                title: "",
                description: &tool.description,
                schema: &schema,
                read_only: tool.read_only,
                destructive: None,
            });
            match (said, &tool.effect) {
                (Some(_), Some(_)) => hit += 1.0,
                (None, Some(_)) => missed.push(format!("{} {}", tool.vendor, tool.name)),
                (Some(why), None) => wrong.push(format!("{} {}: {why}", tool.vendor, tool.name)),
                (None, None) => {}
            }
        }
        let found = hit / (hit + missed.len() as f64);
        let right = hit / (hit + wrong.len() as f64);
        assert!(
            found >= recall,
            "{half}: recall {found:.3}, missed {missed:#?}"
        );
        assert!(
            right >= precision,
            "{half}: precision {right:.3}, wrong {wrong:#?}"
        );
    }
}

fn told(name: &str, description: &str, input: Value, read_only: Option<bool>) -> Option<String> {
    let said = judge(&Described {
        name,
        title: "",
        description,
        schema: input.as_object().unwrap(),
        read_only,
        destructive: None,
    });
    said.map(|s| s.to_string())
}

#[test]
fn what_it_was_known_by() {
    for (name, description, said) in [
        (
            "reset_password",
            "Resets it.",
            "changes credentials (password)",
        ),
        (
            "issueTap",
            "Issues a TAP for Entra.",
            "changes credentials (tap)",
        ),
        (
            "unlock_user",
            "Unlocks a user.",
            "changes identities (unlock)",
        ),
        (
            "assign",
            "Assigns a role to a user.",
            "changes privileges (assigns, role)",
        ),
        (
            "add_user_to_group",
            "Adds.",
            "changes privileges (add, group)",
        ),
        ("x", "", "does not say what it does"),
        (
            "設定",
            "ユーザーの設定を変更します",
            "does not say what it does",
        ),
        // A homoglyph, a soft hyphen and full-width letters hide no word.
        (
            "set_it",
            "Sets the passw\u{43e}rd of a user.",
            "does not say what it does",
        ),
        (
            "set_it",
            "Sets the pass\u{ad}word of it.",
            "changes credentials (password)",
        ),
        (
            "get_mail",
            "Gets a mail and forwards it.",
            "changes where mail goes (forwards)",
        ),
        (
            "get_user",
            "Resets the password of a user.",
            "changes credentials (password)",
        ),
    ] {
        let found = told(name, description, json!({}), None);
        assert_eq!(found.as_deref(), Some(said), "{name}: {description}");
    }
}

#[test]
fn what_it_takes_counts() {
    let input = |name: &str| json!({"properties": {"user": {}, name: {"type": "string"}}});
    for (name, said) in [
        ("newPassword", "changes credentials (takes password)"),
        ("iban", "moves money (takes iban)"),
        ("is_admin", "changes privileges (takes admin)"),
    ] {
        let found = told("save", "Saves the form.", input(name), None);
        assert_eq!(found.as_deref(), Some(said), "{name}");
    }
    let action = json!({"properties": {"action": {"enum": ["restart", "reset_mfa"]}}});
    let found = told("act", "Does one of several things.", action, None);
    assert_eq!(found.as_deref(), Some("changes sign-in factors (mfa)"));
    let request = json!({"properties": {"method": {}, "path": {}, "body": {}}});
    let found = told("graph", "Calls Microsoft Graph.", request, None);
    assert_eq!(found.as_deref(), Some("does whatever it is told (method)"));
}

#[test]
fn a_hint_makes_no_tool_harmless() {
    for name in [
        "reset_password",
        "grant_role",
        "wipe_device",
        "get_password",
    ] {
        let found = told(name, "Something harmless to read.", json!({}), Some(true));
        assert!(found.is_some(), "{name}");
    }
    assert_eq!(told("get_user", "Reads a user.", json!({}), None), None);
    assert_eq!(told("get_user", "", json!({}), Some(true)), None);
    let denied = told("get_user", "", json!({}), Some(false));
    assert!(
        denied.is_some(),
        "its server says that it writes, but not what"
    );
}

#[test]
fn a_schema_without_end_is_read_to_its_bound() {
    let mut deep = json!({"type": "string"});
    for _ in 0..100 {
        deep = json!({"type": "object", "properties": {"a": deep}});
    }
    let found = told("save_note", "Saves a note.", deep, None);
    assert_eq!(found.as_deref(), Some("does not say what it does"));
}

proptest! {
    #[test]
    fn any_tool_is_judged(name in "\\PC{0,80}", text in "\\PC{0,300}", hint: Option<bool>) {
        let _ = told(&name, &text, json!({"properties": {(name.clone()): {}}}), hint);
    }

    /// More words in the description never make a sensitive name harmless.
    #[test]
    fn words_around_it_hide_nothing(text in "[a-zA-Z .,]{0,300}", hint: Option<bool>) {
        let found = told("reset_user_password", &text, json!({}), hint);
        prop_assert!(found.is_some());
    }
}
