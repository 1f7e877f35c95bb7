//! How a step reads to a human: what it does, on which record, with which values.

use super::resolve::Canonical;
use super::{ASSIGN, CHILD, CLOSE, LINK, LOG_TIME, PRIVATE_NOTE, REPLY, UPDATE, find};
use crate::api::ticket::Step;
use crate::api::tool_server::SEPARATOR;
use crate::ticket::note::Listed;
use serde_json::{Map, Value};

/// Names and values, in the order they are shown in.
type Values = Vec<(String, String)>;

/// A step, human-readable.
pub fn listed(ticket_id: i64, step: &Step) -> Listed {
    let arguments: Option<Map<String, Value>> = serde_json::from_str(&step.arguments).ok();
    let canonical = arguments
        .as_ref()
        .and_then(|a| Canonical::read(&step.tool, a).ok());
    let (what, values) = match canonical {
        Some(canonical) => described(&canonical),
        // Another server's tool, or a step that is over and whose arguments were cut.
        None => undescribed(step, arguments.as_ref()),
    };
    let record = match step.tool.split_once(SEPARATOR) {
        Some((server, _)) => format!("ToolServer {server}, for ticket {ticket_id}"),
        None => format!("ticket {ticket_id}"),
    };
    Listed {
        what,
        record,
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
fn undescribed(step: &Step, arguments: Option<&Map<String, Value>>) -> (String, Values) {
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
fn described(canonical: &Canonical) -> (String, Values) {
    let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
    let (tool, values) = match canonical {
        Canonical::PrivateNote(note) => (PRIVATE_NOTE, vec![pair("text", &note.text)]),
        Canonical::Reply(reply) => (
            REPLY,
            vec![
                pair("to", &reply.recipient.to_string()),
                pair("client", &reply.client),
                pair("text", &reply.text),
            ],
        ),
        Canonical::Update(change) => (UPDATE, rows(change.rows())),
        Canonical::Assign(assignment) => (ASSIGN, rows(assignment.rows())),
        Canonical::LogTime(time) => (
            LOG_TIME,
            vec![
                pair("minutes", &time.minutes.to_string()),
                pair("note", &time.note),
            ],
        ),
        Canonical::Child(child) => (
            CHILD,
            vec![
                pair("requester", &child.requester.to_string()),
                pair("client", &child.client),
                pair("summary", &child.summary),
                pair("details", &child.details),
            ],
        ),
        Canonical::Close(close) => (
            CLOSE,
            vec![
                pair("status", &with_id(&close.status, close.status_id)),
                pair("closure note", &close.closure_note),
            ],
        ),
        Canonical::Link(link) => (
            LINK,
            vec![pair("article", &with_id(&link.article, link.article_id))],
        ),
    };
    let title = find(tool).map(|t| t.title.to_string()).unwrap_or_default();
    (title, values)
}

fn rows(rows: Vec<(&'static str, String, i64)>) -> Values {
    rows.into_iter()
        .map(|(what, name, id)| (what.to_string(), with_id(&name, id)))
        .collect()
}

fn with_id(name: &str, id: i64) -> String {
    format!("{name} (id {id})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ticket::StepState;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    fn step(tool: &str, arguments: &str) -> Step {
        Step {
            number: 1,
            run: 0,
            tool: tool.into(),
            arguments: arguments.into(),
            hash: String::new(),
            pin: String::new(),
            why: None,
            rule: "built-in".into(),
            state: StepState::Waiting,
            marker: String::new(),
            recorded_at: Time(Timestamp::UNIX_EPOCH),
            result: None,
            high_risk: false,
            approvers: None,
        }
    }

    #[test]
    fn a_step_says_what_it_does_to_whom() {
        let reply = json!({
            "text": "Hi", "ticketId": 7, "client": "Acme",
            "recipient": {"name": "Kim Lee", "userId": 70, "email": "kim@acme.example"},
        });
        for (tool, arguments, what, record, values) in [
            (
                REPLY,
                reply,
                "Reply to the requester",
                "ticket 7",
                "to: Kim Lee <kim@acme.example>, user 70; client: Acme; text: Hi",
            ),
            (
                UPDATE,
                json!({"status": "In Progress", "statusId": 2}),
                "Change the ticket",
                "ticket 7",
                "status: In Progress (id 2)",
            ),
            (
                ASSIGN,
                json!({"agent": "Luis Ortega", "agentId": 4, "team": "Second", "teamId": 2}),
                "Assign the ticket",
                "ticket 7",
                "technician: Luis Ortega (id 4); team: Second (id 2)",
            ),
            (
                "m365__reset_password",
                json!({"user": "kim"}),
                "Call m365__reset_password",
                "ToolServer m365, for ticket 7",
                "user: kim",
            ),
        ] {
            let listed = listed(7, &step(tool, &arguments.to_string()));
            let shown: Vec<String> = listed
                .values
                .iter()
                .map(|(name, value)| format!("{name}: {value}"))
                .collect();
            assert_eq!(
                (
                    listed.what.as_str(),
                    listed.record.as_str(),
                    shown.join("; ").as_str()
                ),
                (what, record, values),
                "{tool}"
            );
        }
        // A step that is over keeps no text.
        let over = listed(7, &step(REPLY, "text=(2 characters)"));
        assert_eq!(over.what, "Reply to the requester");
        let with = ("with".to_string(), "text=(2 characters)".to_string());
        assert_eq!(over.values, [with]);
    }
}
