//! The write tools' arguments as JSON schemas.

use super::{MAX_MINUTES, MAX_SHORT, MAX_TEXT, MAX_WHY, WHY};
use serde_json::{Value, json};

pub fn note() -> Value {
    object(json!({"text": text("The note, plain text")}), &["text"])
}

pub fn reply() -> Value {
    object(json!({"text": text("The reply, plain text")}), &["text"])
}

pub fn update() -> Value {
    let properties = json!({
        "status": short("Name of the new status, like In Progress, or its id"),
        "priority": short("Name of the new priority, or its id"),
        "type": short("Name of the new ticket type, or its id"),
        "category": short("The new category, like Hardware>Printer, or its id"),
    });
    object(properties, &[])
}

pub fn assign() -> Value {
    let properties = json!({
        "agent": short("Name of the technician to assign the ticket to, or their id"),
        "team": short("Name of the team to assign the ticket to, or its id"),
    });
    object(properties, &[])
}

pub fn log_time() -> Value {
    let minutes = json!({
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_MINUTES,
        "description": "Minutes worked",
    });
    let note = text("What the time was spent on, plain text");
    object(
        json!({"minutes": minutes, "note": note}),
        &["minutes", "note"],
    )
}

pub fn child() -> Value {
    let properties = json!({
        "summary": short("The new ticket's summary, one line"),
        "details": text("What has to be done, plain text"),
    });
    object(properties, &["summary", "details"])
}

pub fn close() -> Value {
    object(
        json!({"closureNote": text("How it was solved, plain text")}),
        &["closureNote"],
    )
}

pub fn link() -> Value {
    let id = json!({
        "type": "integer",
        "minimum": 1,
        "maximum": i32::MAX,
        "description": "The article's id in HaloPSA",
    });
    object(json!({"articleId": id}), &["articleId"])
}

fn text(description: &str) -> Value {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_TEXT,
        "description": description,
    })
}

fn short(description: &str) -> Value {
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
        "maxLength": MAX_WHY,
        "description": "Why, for the technician who may have to approve it",
    });
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}
