//! `kubectl halopsa classify`: tries the classifiers on your own history.

use super::error::Error;
use super::terminal::safe_json;
use crate::text;
use crate::ticket::reply;
use crate::ticket::sensitive::{self, Text};
use serde_json::{Map, Value};
use std::io::{BufRead, Write};

/// The longest line, in bytes.
const MAX_LINE: usize = 4 * 1024 * 1024;

/// Each line with `intent` and `reason` added. A bad line ends it, with an error.
pub fn replies(input: impl BufRead, output: impl Write) -> Result<(), Error> {
    lines(input, output, |object| {
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        let result = match (text("html"), text("text")) {
            (Some(html), _) if !html.trim().is_empty() => reply::classify_html(html),
            (_, Some(text)) => reply::classify_text(text),
            (Some(html), None) => reply::classify_html(html),
            (None, None) => return Err("give text or html"),
        };
        let intent = serde_json::to_value(result.intent).unwrap_or_default();
        Ok(vec![("intent", intent), ("reason", result.reason.into())])
    })
}

/// Each line with `sensitive` and `reasons` added.
pub fn tickets(input: impl BufRead, output: impl Write) -> Result<(), Error> {
    lines(input, output, |object| {
        let field = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        if field("summary").is_empty()
            && field("details").is_empty()
            && field("details_html").is_empty()
        {
            return Err("give summary or details");
        }
        let details = if field("details").trim().is_empty() {
            field("details_html")
        } else {
            field("details")
        };
        // HaloPSA's details may be HTML; text without a tag stays as it is.
        let (details, is_all) = if details.contains('<') {
            text::all_from_html(details)
        } else {
            text::all_plain(details)
        };
        let of = Text {
            subject: field("summary"),
            details: &details,
            category: field("category_1"),
            ticket_type: field("tickettype_name"),
            is_cut: !is_all,
        };
        let reasons: Vec<Value> = sensitive::classify(&of)
            .iter()
            .map(|r| r.to_string().into())
            .collect();
        Ok(vec![
            ("sensitive", (!reasons.is_empty()).into()),
            ("reasons", reasons.into()),
        ])
    })
}

/// Reads JSON objects, one per line, and writes each with what `classify` adds to it.
fn lines(
    mut input: impl BufRead,
    mut output: impl Write,
    classify: impl Fn(&Map<String, Value>) -> Result<Vec<(&'static str, Value)>, &'static str>,
) -> Result<(), Error> {
    let mut number = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = std::io::Read::take(&mut input, MAX_LINE as u64)
            .read_until(b'\n', &mut line)
            .map_err(|e| Error::Other(format!("standard input cannot be read: {e}")))?;
        if read == 0 {
            return Ok(());
        }
        number += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let classified = match serde_json::from_slice::<Value>(&line) {
            Ok(Value::Object(mut object)) => match classify(&object) {
                Ok(added) => {
                    object.extend(added.into_iter().map(|(k, v)| (k.to_string(), v)));
                    Value::Object(object)
                }
                Err(why) => return Err(Error::Other(format!("line {number}: {why}"))),
            },
            _ => return Err(Error::Other(format!("line {number} is not a JSON object"))),
        };
        match writeln!(output, "{}", safe_json(&classified.to_string())) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => {
                return Err(Error::Other(format!(
                    "standard output cannot be written: {error}"
                )));
            }
            Ok(()) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(input: &str) -> Result<Vec<Value>, Error> {
        let mut output = Vec::new();
        replies(input.as_bytes(), &mut output)?;
        Ok(String::from_utf8(output)
            .unwrap()
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect())
    }

    #[test]
    fn each_ticket_comes_back_with_its_reasons() {
        let mut output = Vec::new();
        let input = concat!(
            r#"{"summary":"MFA","details":"<p>new phone, please reset</p>"}"#,
            "\n",
            r#"{"summary":"Printer offline"}"#,
        );
        tickets(input.as_bytes(), &mut output).unwrap();
        let seen: Vec<Value> = String::from_utf8(output)
            .unwrap()
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        assert_eq!(
            (&seen[0]["sensitive"], &seen[1]["sensitive"]),
            (&Value::Bool(true), &Value::Bool(false))
        );
        assert!(
            seen[0]["reasons"][0]
                .as_str()
                .unwrap()
                .starts_with("mfa-reset: '")
        );
    }

    #[test]
    fn each_line_comes_back_with_its_intent() {
        let seen = run(
            "{\"id\":7,\"text\":\"go ahead\"}\n\n{\"html\":\"<p>No</p>\"}\n{\"text\":\"why?\"}",
        )
        .unwrap();
        let intents: Vec<&Value> = seen.iter().map(|s| &s["intent"]).collect();
        assert_eq!(intents, ["approve", "deny", "neutral"]);
        assert_eq!(seen[0]["id"], 7, "what was there stays");
        assert!(run("nonsense").is_err() && run("{}").unwrap_err().to_string().contains("line 1"));
    }
}
