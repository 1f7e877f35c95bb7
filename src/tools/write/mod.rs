//! HaloPSA's write tools. Pure; [`send`](super::send) sends.
//!
//! - here: the tools, and [`parse`]: what can be asked for, trimmed and bounded
//! - [`resolve`]: the one canonical call, with HaloPSA's names and ids. Policies decide on it, a
//!   step stores it, a request shows it, and it is what runs
//! - [`directory`]: the rows of HaloPSA that a call can name; `show`: how a call reads
//!
//! Each of them acts on the ticket the agent holds: there is no argument that names
//! another. Each is a single request to HaloPSA that carries a marker, so that after
//! a crash it is searched for and not repeated.

pub mod directory;
pub mod resolve;
mod schema;
mod show;

pub use show::listed;

use crate::api::policy::{Effect, ToolPolicySpec};
use crate::text::words::fold;
use crate::text::{self, pattern, unseen};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::borrow::Cow;

pub const MAX_TEXT: usize = 6000;
const MAX_SHORT: usize = 200;
const MAX_MINUTES: i64 = 24 * 60;
const MAX_WHY: usize = 300;

/// A tool that writes, as agents see it.
pub struct WriteTool {
    pub name: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    schema: fn() -> Value,
    /// No rule lets it run at once unless it names the tool: a wildcard does not.
    pub only_by_name: bool,
}

pub const PRIVATE_NOTE: &str = "halopsa_add_private_note";
pub const REPLY: &str = "halopsa_reply_to_requester";
pub const UPDATE: &str = "halopsa_update_ticket";
pub const ASSIGN: &str = "halopsa_assign_ticket";
pub const LOG_TIME: &str = "halopsa_log_time";
pub const CHILD: &str = "halopsa_create_child_ticket";
pub const CLOSE: &str = "halopsa_close_ticket";
pub const LINK: &str = "halopsa_link_article";

pub const TOOLS: [WriteTool; 8] = [
    WriteTool {
        name: PRIVATE_NOTE,
        title: "Add a private note",
        description: "Adds an internal note to the ticket. The requester does not see it.",
        schema: schema::note,
        only_by_name: false,
    },
    WriteTool {
        name: REPLY,
        title: "Reply to the requester",
        description: "Sends a reply to the ticket's requester by e-mail.",
        schema: schema::reply,
        only_by_name: false,
    },
    WriteTool {
        name: UPDATE,
        title: "Change the ticket",
        description: "Changes the ticket's status, priority, type or category, by their names in \
                      HaloPSA. To close the ticket, call halopsa_close_ticket instead; to assign \
                      it, halopsa_assign_ticket.",
        schema: schema::update,
        only_by_name: false,
    },
    WriteTool {
        name: ASSIGN,
        title: "Assign the ticket",
        description: "Assigns the ticket to a technician, a team or both, by their names in \
                      HaloPSA. Refused while a request for approval stands: the assigned \
                      technician decides about it.",
        schema: schema::assign,
        // Whoever is assigned decides what the agent may do next.
        only_by_name: true,
    },
    WriteTool {
        name: LOG_TIME,
        title: "Log time",
        description: "Logs working time on the ticket, with an internal note that says what it \
                      was spent on.",
        schema: schema::log_time,
        only_by_name: false,
    },
    WriteTool {
        name: CHILD,
        title: "Create a child ticket",
        description: "Creates a child of the ticket, for the same client and requester.",
        schema: schema::child,
        only_by_name: false,
    },
    WriteTool {
        name: CLOSE,
        title: "Close the ticket",
        description: "Closes the ticket with a closure note. Fails while no technician is \
                      assigned to it.",
        schema: schema::close,
        only_by_name: false,
    },
    WriteTool {
        name: LINK,
        title: "Link a knowledge base article",
        description: "Adds an internal note to the ticket that links a knowledge base article.",
        schema: schema::link,
        only_by_name: false,
    },
];

/// The argument that gives a human the reason and does not change the call.
pub const WHY: &str = "why";

impl WriteTool {
    pub fn schema(&self) -> Map<String, Value> {
        match (self.schema)() {
            Value::Object(schema) => schema,
            _ => Map::new(),
        }
    }
}

pub fn find(name: &str) -> Option<&'static WriteTool> {
    TOOLS.iter().find(|t| t.name == name)
}

/// The rules of a policy as they count for a tool. A wildcard does not let a tool run at once that
/// wants to be named: such a rule asks for approval.
pub fn rules_for<'a>(tool: &str, spec: &'a ToolPolicySpec) -> Cow<'a, ToolPolicySpec> {
    if !find(tool).is_some_and(|t| t.only_by_name) {
        return Cow::Borrowed(spec);
    }
    let mut strict = spec.clone();
    for rule in &mut strict.rules {
        let named = rule.tools.iter().any(|t| t.eq_ignore_ascii_case(tool));
        if rule.effect == Effect::Auto && !named {
            rule.effect = Effect::ApprovalNeeded;
        }
    }
    Cow::Owned(strict)
}

/// A write as it was asked for: in form, but not looked up yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    PrivateNote { text: String },
    Reply { text: String },
    Update(Update),
    Assign(Assign),
    LogTime { minutes: i64, note: String },
    Child { summary: String, details: String },
    Close { closure_note: String },
    Link { article_id: i64 },
}

/// New values, by HaloPSA's names or ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Update {
    pub status: Option<String>,
    pub priority: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub category: Option<String>,
}

/// Who works on the ticket, by HaloPSA's names or ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Assign {
    pub agent: Option<String>,
    pub team: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TextArguments {
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TimeArguments {
    minutes: i64,
    note: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChildArguments {
    summary: String,
    details: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CloseArguments {
    closure_note: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LinkArguments {
    article_id: i64,
}

fn typed<T: DeserializeOwned>(arguments: &Map<String, Value>) -> Result<T, String> {
    serde_json::from_value(Value::Object(arguments.clone()))
        .map_err(|e| text::one_line(&e.to_string(), 200))
}

fn in_bounds(name: &str, value: &str, limit: usize) -> Result<(), String> {
    let length = value.chars().count();
    if length == 0 || length > limit {
        return Err(format!("{name} must have 1 to {limit} characters"));
    }
    Ok(())
}

/// A text of one line, trimmed. What cannot be seen in it is refused.
fn short(name: &str, value: &str, limit: usize) -> Result<String, String> {
    let unfit = |c: &char| c.is_control() || unseen::is_unseen(*c);
    if let Some(c) = value.trim().chars().find(unfit) {
        return Err(format!(
            "{name} must be one line without invisible characters; it has {}",
            unseen::named(c)
        ));
    }
    let words: Vec<&str> = value.split_whitespace().collect();
    let value = text::without_variables(&words.join(" "));
    in_bounds(name, &value, limit)?;
    Ok(value)
}

/// A text of any number of lines, trimmed. What would show it in another order is refused.
fn long(name: &str, value: &str) -> Result<String, String> {
    let value = value.replace("\r\n", "\n");
    let unfit = |c: &char| unseen::is_bidi(*c) || (c.is_control() && !matches!(*c, '\n' | '\t'));
    if let Some(c) = value.chars().find(unfit) {
        return Err(format!(
            "{name} must not hold characters that control how it is shown; it has {}",
            unseen::named(c)
        ));
    }
    let value = text::without_variables(value.trim());
    in_bounds(name, &value, MAX_TEXT)?;
    Ok(value)
}

fn optional(name: &str, value: Option<&String>) -> Result<Option<String>, String> {
    value.map(|v| short(name, v, MAX_SHORT)).transpose()
}

/// Takes out why the agent wants the call.
pub fn take_why(arguments: &mut Map<String, Value>) -> Result<Option<String>, String> {
    match arguments.remove(WHY) {
        Some(Value::String(why)) if !why.trim().is_empty() => {
            long(WHY, &why).map(|why| Some(text::one_line(&why, MAX_WHY)))
        }
        _ => Ok(None),
    }
}

/// A call's arguments as a write, or what is wrong with them. `why` is taken out before.
pub fn parse(tool: &str, arguments: &Map<String, Value>) -> Result<Write, String> {
    match tool {
        PRIVATE_NOTE => Ok(Write::PrivateNote {
            text: long("text", &typed::<TextArguments>(arguments)?.text)?,
        }),
        REPLY => Ok(Write::Reply {
            text: long("text", &typed::<TextArguments>(arguments)?.text)?,
        }),
        UPDATE => parse_update(arguments).map(Write::Update),
        ASSIGN => parse_assign(&typed(arguments)?).map(Write::Assign),
        LOG_TIME => {
            let given: TimeArguments = typed(arguments)?;
            if !(1..=MAX_MINUTES).contains(&given.minutes) {
                return Err(format!("minutes must be 1 to {MAX_MINUTES}"));
            }
            Ok(Write::LogTime {
                minutes: given.minutes,
                note: long("note", &given.note)?,
            })
        }
        CHILD => {
            let given: ChildArguments = typed(arguments)?;
            Ok(Write::Child {
                summary: short("summary", &given.summary, MAX_SHORT)?,
                details: long("details", &given.details)?,
            })
        }
        CLOSE => {
            let given: CloseArguments = typed(arguments)?;
            Ok(Write::Close {
                closure_note: long("closureNote", &given.closure_note)?,
            })
        }
        LINK => {
            let given: LinkArguments = typed(arguments)?;
            if !(1..=i64::from(i32::MAX)).contains(&given.article_id) {
                return Err("articleId must be an article's id in HaloPSA".into());
            }
            Ok(Write::Link {
                article_id: given.article_id,
            })
        }
        _ => Err("there is no tool of this name".into()),
    }
}

fn parse_update(arguments: &Map<String, Value>) -> Result<Update, String> {
    if arguments.contains_key("agent") || arguments.contains_key("team") {
        return Err(format!("to assign the ticket, call {ASSIGN}"));
    }
    let given: Update = typed(arguments)?;
    if given == Update::default() {
        return Err("give at least one of status, priority, type, category".into());
    }
    let update = Update {
        status: optional("status", given.status.as_ref())?,
        priority: optional("priority", given.priority.as_ref())?,
        kind: optional("type", given.kind.as_ref())?,
        category: optional("category", given.category.as_ref())?,
    };
    // Closing has a tool of its own, so that this one is not a way around a policy for it.
    if update.status.as_deref().is_some_and(closes) {
        return Err(to_close());
    }
    Ok(update)
}

fn parse_assign(given: &Assign) -> Result<Assign, String> {
    if *given == Assign::default() {
        return Err("give agent, team or both".into());
    }
    Ok(Assign {
        agent: optional("agent", given.agent.as_ref())?,
        team: optional("team", given.team.as_ref())?,
    })
}

fn to_close() -> String {
    format!("this status closes the ticket; to close it, call {CLOSE}")
}

/// HaloPSA's own pair of closed statuses, whatever they are called.
const CLOSED_IDS: [i64; 2] = [8, 9];

/// Words that say a ticket is over, without accents; `*` is any ending. HaloPSA's list of statuses
/// does not say which of them close a ticket.
const OVER: [&str; 36] = [
    "*closed",
    "close*",
    "closing",
    "closure",
    "resolved",
    "solved",
    "complete*",
    "cancel*",
    "geschlossen*",
    "abgeschlossen*",
    "gelost*",
    "erledigt*",
    "storniert*",
    "abgebrochen*",
    "clotur*",
    "ferme",
    "fermee",
    "resolu",
    "resolue",
    "termine",
    "terminee",
    "annul*",
    "cerrad*",
    "resuelt*",
    "solucionad*",
    "finalizad*",
    "chius*",
    "risolt*",
    "gesloten",
    "afgesloten",
    "opgelost",
    "voltooid",
    "geannuleerd",
    "fechad*",
    "encerrad*",
    "resolvid*",
];

/// Whether a status of this name ends a ticket; by its id, too.
pub fn closes(status: &str) -> bool {
    let status = status.trim();
    if status
        .parse::<f64>()
        .is_ok_and(|id| CLOSED_IDS.iter().any(|closed| id == *closed as f64))
    {
        return true;
    }
    // An accent may be a character of its own.
    let is_letter = |c: &char| !matches!(*c, '\u{300}'..='\u{36f}');
    let folded: String = status.chars().filter(is_letter).flat_map(fold).collect();
    folded
        .split(|c: char| !c.is_alphanumeric())
        .any(|word| OVER.iter().any(|over| pattern::matches(over, word)))
}

/// Whether a status of HaloPSA ends a ticket.
pub fn row_closes(id: i64, name: &str) -> bool {
    CLOSED_IDS.contains(&id) || closes(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::policy::ToolRule;
    use serde_json::json;

    fn parsed(tool: &str, arguments: Value) -> Result<Write, String> {
        parse(tool, arguments.as_object().unwrap())
    }

    #[test]
    fn arguments_are_trimmed() {
        let text = |text: &str| Ok(Write::PrivateNote { text: text.into() });
        for (given, kept) in [
            (" Hello ", "Hello"),
            ("a\r\nb\u{2003}", "a\nb"),
            (
                "Dear $USERNAME, it costs $5",
                "Dear $ USERNAME, it costs $5",
            ),
            // Seen in a note as an escape, so allowed in prose.
            ("zero\u{200b}width", "zero\u{200b}width"),
        ] {
            assert_eq!(parsed(PRIVATE_NOTE, json!({"text": given})), text(kept));
        }
        let status = parsed(UPDATE, json!({"status": "\u{2003}With User "}));
        let Ok(Write::Update(update)) = status else {
            panic!("{status:?}");
        };
        assert_eq!(update.status.as_deref(), Some("With User"));
    }

    #[test]
    fn arguments_are_checked() {
        for (tool, arguments) in [
            (PRIVATE_NOTE, json!({"text": ""})),
            (PRIVATE_NOTE, json!({"text": " \n "})),
            (PRIVATE_NOTE, json!({"text": "x", "ticketId": 7})),
            (PRIVATE_NOTE, json!({"text": "x".repeat(MAX_TEXT + 1)})),
            (
                REPLY,
                json!({"text": "x", "recipient": {"email": "x@y.example"}}),
            ),
            (UPDATE, json!({})),
            (UPDATE, json!({"status": "New", "client": "Other"})),
            (UPDATE, json!({"status": "New", "statusId": 9})),
            (UPDATE, json!({"status": "New", "agent": "Luis Ortega"})),
            (UPDATE, json!({"team": "2nd Line Support"})),
            (ASSIGN, json!({})),
            (ASSIGN, json!({"agent": "Luis", "status": "New"})),
            (LOG_TIME, json!({"minutes": 0, "note": "x"})),
            (LOG_TIME, json!({"minutes": "5", "note": "x"})),
            (LINK, json!({"articleId": -1})),
            ("HALOPSA_ADD_PRIVATE_NOTE", json!({"text": "x"})),
        ] {
            assert!(
                parsed(tool, arguments.clone()).is_err(),
                "{tool} {arguments}"
            );
        }
    }

    #[test]
    fn what_cannot_be_seen_is_refused() {
        for bad in ["\u{202e}", "\u{2066}", "\u{200f}", "\u{1}", "\u{1b}"] {
            let text = format!("moc.live{bad}@bob");
            for (tool, arguments) in [
                (REPLY, json!({"text": text})),
                (CLOSE, json!({"closureNote": text})),
                (CHILD, json!({"summary": "x", "details": text})),
                (CHILD, json!({"summary": text, "details": "x"})),
                (ASSIGN, json!({"agent": text})),
            ] {
                assert!(
                    parsed(tool, arguments).is_err(),
                    "{tool} {}",
                    bad.escape_unicode()
                );
            }
        }
        for bad in ["\u{200b}", "\u{ad}", "\u{3164}", "\n", "\t", "\u{2028}"] {
            let name = format!("In{bad}Progress");
            assert!(
                parsed(UPDATE, json!({"status": name})).is_err(),
                "{}",
                bad.escape_unicode()
            );
        }
        let mut with = json!({"why": "b\u{202e}ad"}).as_object().cloned().unwrap();
        assert!(take_why(&mut with).is_err());
        let mut with = json!({"why": " because\nof it "})
            .as_object()
            .cloned()
            .unwrap();
        assert_eq!(take_why(&mut with), Ok(Some("because of it".into())));
        assert!(with.is_empty());
    }

    #[test]
    fn a_status_that_closes_has_a_tool_of_its_own() {
        for status in [
            "Closed",
            " cLoSeD ",
            "9",
            "9.0",
            "8",
            "Resolved",
            "RESOLVED ",
            "Completed",
            "Cancelled",
            "Canceled",
            "Geschlossen",
            "Gelöst",
            "Erledigt",
            "Clôturé",
            "Fermé",
            "Résolu",
            "Clo\u{302}ture\u{301}",
            "Cerrado",
            "Auto-Closed",
            "Autoclosed",
            "Closed - no reply",
            "Gesloten",
        ] {
            assert!(closes(status), "{status}");
            assert!(
                parsed(UPDATE, json!({"status": status})).is_err_and(|e| e.contains(CLOSE)),
                "{status}"
            );
        }
        for status in [
            "New",
            "In Progress",
            "With User",
            "Awaiting Third Party",
            "Unresolved",
            "1",
            "90",
            "In Bearbeitung",
            "Incomplete",
            "Awaiting Resolution",
        ] {
            assert!(!closes(status), "{status}");
        }
        assert!(row_closes(9, "Fertig") && row_closes(23, "Geschlossen") && !row_closes(2, "New"));
    }

    #[test]
    fn names_are_unique_and_schemas_closed() {
        for (i, tool) in TOOLS.iter().enumerate() {
            assert_eq!(
                tool.schema()["additionalProperties"],
                false,
                "{}",
                tool.name
            );
            assert!(TOOLS[i + 1..].iter().all(|t| t.name != tool.name));
        }
    }

    #[test]
    fn a_wildcard_never_assigns_at_once() {
        let rule = |tools: &[&str], effect| ToolRule {
            tools: tools.iter().map(|t| t.to_string()).collect(),
            effect,
            ..ToolRule::default()
        };
        let spec = ToolPolicySpec {
            rules: vec![
                rule(&["halopsa_assign_*"], Effect::Auto),
                rule(&["*"], Effect::Disabled),
                rule(&["x", "HALOPSA_ASSIGN_TICKET"], Effect::Auto),
            ],
            ..ToolPolicySpec::default()
        };
        let effects = |tool| {
            let strict = rules_for(tool, &spec);
            strict.rules.iter().map(|r| r.effect).collect::<Vec<_>>()
        };
        use Effect::{ApprovalNeeded, Auto, Disabled};
        assert_eq!(effects(ASSIGN), [ApprovalNeeded, Disabled, Auto]);
        assert_eq!(effects(UPDATE), [Auto, Disabled, Auto]);
    }
}
