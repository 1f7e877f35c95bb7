//! `{{name}}` in the arguments of a Workflow's steps. Pure.

use serde_json::{Map, Value};

/// Arguments with the placeholders in their texts replaced. The values are ticket data, so
/// placeholders in them are not replaced.
pub fn fill(arguments: &Map<String, Value>, values: &[(&str, &str)]) -> Map<String, Value> {
    arguments
        .iter()
        .map(|(k, v)| (k.clone(), fill_value(v, values)))
        .collect()
}

fn fill_value(value: &Value, values: &[(&str, &str)]) -> Value {
    match value {
        Value::String(text) => Value::String(fill_text(text, values)),
        Value::Array(items) => items.iter().map(|v| fill_value(v, values)).collect(),
        Value::Object(map) => Value::Object(fill(map, values)),
        other => other.clone(),
    }
}

/// An unknown placeholder stays as it is.
fn fill_text(text: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("{{") {
        let Some(end) = rest[at..].find("}}") else {
            break;
        };
        let name = rest[at + 2..at + end].trim();
        out.push_str(&rest[..at]);
        match values.iter().find(|(n, _)| *n == name) {
            Some((_, with)) => out.push_str(with),
            None => out.push_str(&rest[at..at + end + 2]),
        }
        rest = &rest[at + end + 2..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_put_in_once() {
        let arguments = json!({
            "text": "Hello {{requester}}, {{ unknown }} {{", "list": ["{{subject}}"], "n": 1
        });
        let filled = fill(
            arguments.as_object().unwrap(),
            &[("requester", "{{subject}}"), ("subject", "x")],
        );
        assert_eq!(
            Value::Object(filled),
            json!({"text": "Hello {{subject}}, {{ unknown }} {{", "list": ["x"], "n": 1})
        );
    }
}
