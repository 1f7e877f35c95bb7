//! HaloPSA's write tools: what can be asked for, parsed and bounded, and how it
//! reads to a human. Pure; [`send`](super::send) sends it.
//!
//! Each of them acts on the ticket the agent holds: there is no argument that names
//! another. Each is a single request to HaloPSA that carries a marker, so that after
//! a crash it is searched for and not repeated.

use crate::api::ticket::Step;
use crate::text;
use crate::ticket::note::Listed;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

pub const MAX_TEXT: usize = 6000;
const MAX_SHORT: usize = 200;
const MAX_MINUTES: i64 = 24 * 60;

/// A tool that writes, as agents see it.
pub struct WriteTool {
    pub name: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    schema: fn() -> Value,
}

pub const PRIVATE_NOTE: &str = "halopsa_add_private_note";
pub const REPLY: &str = "halopsa_reply_to_requester";
pub const UPDATE: &str = "halopsa_update_ticket";
pub const LOG_TIME: &str = "halopsa_log_time";
pub const CHILD: &str = "halopsa_create_child_ticket";
pub const CLOSE: &str = "halopsa_close_ticket";
pub const LINK: &str = "halopsa_link_article";

pub const TOOLS: [WriteTool; 7] = [
    WriteTool {
        name: PRIVATE_NOTE,
        title: "Add a private note",
        description: "Adds an internal note to the ticket. The requester does not see it.",
        schema: || {
            object(
                json!({"text": text_schema("The note, plain text")}),
                &["text"],
            )
        },
    },
    WriteTool {
        name: REPLY,
        title: "Reply to the requester",
        description: "Sends a reply to the ticket's requester by e-mail.",
        schema: || {
            object(
                json!({"text": text_schema("The reply, plain text")}),
                &["text"],
            )
        },
    },
    WriteTool {
        name: UPDATE,
        title: "Change the ticket",
        description: "Changes the ticket's status, priority, type, category, team or assigned \
                      technician, by their names in HaloPSA. To close the ticket, call \
                      halopsa_close_ticket instead.",
        schema: update_schema,
    },
    WriteTool {
        name: LOG_TIME,
        title: "Log time",
        description: "Logs working time on the ticket, with an internal note that says what it \
                      was spent on.",
        schema: log_time_schema,
    },
    WriteTool {
        name: CHILD,
        title: "Create a child ticket",
        description: "Creates a child of the ticket, for the same client and requester.",
        schema: child_schema,
    },
    WriteTool {
        name: CLOSE,
        title: "Close the ticket",
        description: "Closes the ticket with a closure note. Fails while no technician is \
                      assigned to it.",
        schema: || {
            object(
                json!({"closureNote": text_schema("How it was solved, plain text")}),
                &["closureNote"],
            )
        },
    },
    WriteTool {
        name: LINK,
        title: "Link a knowledge base article",
        description: "Adds an internal note to the ticket that links a knowledge base article.",
        schema: link_schema,
    },
];

fn update_schema() -> Value {
    let properties = json!({
        "status": short_schema("Name of the new status, like In Progress"),
        "priority": short_schema("Name of the new priority"),
        "type": short_schema("Name of the new ticket type"),
        "category": short_schema("The new category"),
        "team": short_schema("Name of the new team"),
        "agent": short_schema("Name of the technician to assign the ticket to"),
    });
    object(properties, &[])
}

fn log_time_schema() -> Value {
    let minutes = json!({
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_MINUTES,
        "description": "Minutes worked",
    });
    let note = text_schema("What the time was spent on, plain text");
    object(
        json!({"minutes": minutes, "note": note}),
        &["minutes", "note"],
    )
}

fn child_schema() -> Value {
    let properties = json!({
        "summary": short_schema("The new ticket's summary, one line"),
        "details": text_schema("What has to be done, plain text"),
    });
    object(properties, &["summary", "details"])
}

fn link_schema() -> Value {
    let id = json!({
        "type": "integer",
        "minimum": 1,
        "maximum": i32::MAX,
        "description": "The article's id in HaloPSA",
    });
    object(json!({"articleId": id}), &["articleId"])
}

fn text_schema(description: &str) -> Value {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_TEXT,
        "description": description,
    })
}

fn short_schema(description: &str) -> Value {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_SHORT,
        "description": description,
    })
}

/// Every write takes a reason: a technician reads it before approving.
fn object(mut properties: Value, required: &[&str]) -> Value {
    properties[WHY] = json!({
        "type": "string",
        "maxLength": 300,
        "description": "Why, for the technician who may have to approve it",
    });
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

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

/// A write, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    PrivateNote { text: String },
    Reply { text: String },
    Update(Update),
    LogTime { minutes: i64, note: String },
    Child { summary: String, details: String },
    Close { closure_note: String },
    Link { article_id: i64 },
}

/// New values, by HaloPSA's names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Update {
    pub status: Option<String>,
    pub priority: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub category: Option<String>,
    pub team: Option<String>,
    pub agent: Option<String>,
}

impl Update {
    /// Name and new value of each field.
    pub fn fields(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("status", &self.status),
            ("priority", &self.priority),
            ("type", &self.kind),
            ("category", &self.category),
            ("team", &self.team),
            ("assigned agent", &self.agent),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)))
            .collect()
    }
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

fn bounded(name: &str, value: String, limit: usize) -> Result<String, String> {
    let length = value.trim().chars().count();
    if length == 0 || length > limit {
        Err(format!("{name} must have 1 to {limit} characters"))
    } else {
        Ok(value.trim().to_string())
    }
}

/// A call's arguments as a write, or what is wrong with them. `why` is taken out before.
pub fn parse(tool: &str, arguments: &Map<String, Value>) -> Result<Write, String> {
    match tool {
        PRIVATE_NOTE => Ok(Write::PrivateNote {
            text: bounded("text", typed::<TextArguments>(arguments)?.text, MAX_TEXT)?,
        }),
        REPLY => Ok(Write::Reply {
            text: bounded("text", typed::<TextArguments>(arguments)?.text, MAX_TEXT)?,
        }),
        UPDATE => parse_update(typed(arguments)?).map(Write::Update),
        LOG_TIME => {
            let given: TimeArguments = typed(arguments)?;
            if !(1..=MAX_MINUTES).contains(&given.minutes) {
                return Err(format!("minutes must be 1 to {MAX_MINUTES}"));
            }
            Ok(Write::LogTime {
                minutes: given.minutes,
                note: bounded("note", given.note, MAX_TEXT)?,
            })
        }
        CHILD => {
            let given: ChildArguments = typed(arguments)?;
            Ok(Write::Child {
                summary: bounded("summary", given.summary, MAX_SHORT)?,
                details: bounded("details", given.details, MAX_TEXT)?,
            })
        }
        CLOSE => Ok(Write::Close {
            closure_note: bounded(
                "closureNote",
                typed::<CloseArguments>(arguments)?.closure_note,
                MAX_TEXT,
            )?,
        }),
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

fn parse_update(update: Update) -> Result<Update, String> {
    let fields = update.fields();
    if fields.is_empty() {
        return Err("give at least one of status, priority, type, category, team, agent".into());
    }
    let unfit = |value: &str| value.trim().is_empty() || value.chars().count() > MAX_SHORT;
    if let Some((name, _)) = fields.iter().find(|(_, value)| unfit(value)) {
        return Err(format!("{name} must have 1 to {MAX_SHORT} characters"));
    }
    // Closing has a tool of its own, so that this one is not a way around a policy for it.
    if update.status.as_deref().is_some_and(closes) {
        return Err(format!("to close the ticket, call {CLOSE}"));
    }
    Ok(update)
}

/// Whether a status of this name ends a ticket.
pub fn closes(status: &str) -> bool {
    let status = status.trim().to_lowercase();
    status.contains("close") || status.parse::<f64>().is_ok_and(|id| id == 9.0)
}

/// A step, human-readable: what it does, on which record, with which values.
pub fn listed(ticket_id: i64, step: &Step) -> Listed {
    let arguments: Option<Map<String, Value>> = serde_json::from_str(&step.arguments).ok();
    let (what, values) = match arguments.as_ref().map(|a| parse(&step.tool, a)) {
        Some(Ok(write)) => described(&write),
        // Another server's tool, or a step that is over and whose arguments were cut.
        _ => undescribed(step, arguments.as_ref()),
    };
    Listed {
        what,
        record: format!("ticket {ticket_id}"),
        values,
        why: step.why.clone().unwrap_or_default(),
        result: match step.result.as_deref() {
            Some(result) => format!("{:?}: {result}", step.state),
            None if step.state.is_final() => format!("{:?}", step.state),
            None => String::new(),
        },
        high_risk: step.high_risk,
    }
}

/// The name of the tool, and the arguments as they are.
fn undescribed(
    step: &Step,
    arguments: Option<&Map<String, Value>>,
) -> (String, Vec<(String, String)>) {
    let what =
        find(&step.tool).map_or_else(|| format!("Call {}", step.tool), |t| t.title.to_string());
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let values = match arguments {
        Some(arguments) => arguments
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect(),
        None => vec![("with".to_string(), step.arguments.clone())],
    };
    (what, values)
}

/// What a write does, and its values by name.
fn described(write: &Write) -> (String, Vec<(String, String)>) {
    let title = |name: &str| find(name).map(|t| t.title.to_string()).unwrap_or_default();
    let one = |name: &str, value: &str| vec![(name.to_string(), value.to_string())];
    match write {
        Write::PrivateNote { text } => (title(PRIVATE_NOTE), one("text", text)),
        Write::Reply { text } => (title(REPLY), one("text", text)),
        Write::Update(update) => (
            title(UPDATE),
            update
                .fields()
                .into_iter()
                .map(|(n, v)| (n.to_string(), v.to_string()))
                .collect(),
        ),
        Write::LogTime { minutes, note } => (
            title(LOG_TIME),
            vec![
                ("minutes".into(), minutes.to_string()),
                ("note".into(), note.clone()),
            ],
        ),
        Write::Child { summary, details } => (
            title(CHILD),
            vec![
                ("summary".into(), summary.clone()),
                ("details".into(), details.clone()),
            ],
        ),
        Write::Close { closure_note } => (title(CLOSE), one("closure note", closure_note)),
        Write::Link { article_id } => (title(LINK), one("article", &article_id.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(tool: &str, arguments: Value) -> Result<Write, String> {
        parse(tool, arguments.as_object().unwrap())
    }

    #[test]
    fn arguments_are_checked() {
        assert!(
            parsed(PRIVATE_NOTE, json!({"text": " Hello "})).is_ok_and(|w| w
                == Write::PrivateNote {
                    text: "Hello".into()
                })
        );
        for (tool, arguments) in [
            (PRIVATE_NOTE, json!({"text": ""})),
            (PRIVATE_NOTE, json!({"text": "x", "ticketId": 7})),
            (PRIVATE_NOTE, json!({"text": "x".repeat(MAX_TEXT + 1)})),
            (UPDATE, json!({})),
            (UPDATE, json!({"status": "Closed"})),
            (UPDATE, json!({"status": " cLoSeD "})),
            (UPDATE, json!({"status": "9"})),
            (UPDATE, json!({"status": "New", "client": "Other"})),
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
}
