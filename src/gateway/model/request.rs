//! What an agent may ask of a language model. Pure.
//!
//! A request is built anew from text and functions. Whatever would make the provider fetch an
//! address, read a file or run a tool of its own is a way out of the cluster, and is refused.

use crate::api::connection::MaxTokensParameter;
use crate::text::one_line;
use serde_json::{Map, Value, json};

const MAX_MESSAGES: usize = 2000;
const MAX_PARTS: usize = 100;
/// Calls of tools in one message.
const MAX_CALLS: usize = 128;
const MAX_TOOLS: usize = 256;
const MAX_NAME: usize = 128;
const MAX_ID: usize = 256;
const MAX_DESCRIPTION: usize = 16 * 1024;
/// A function's parameters, as JSON.
const MAX_SCHEMA: usize = 64 * 1024;
const MAX_STOPS: usize = 4;
const MAX_STOP: usize = 256;
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

type Check = fn(&Value) -> bool;

/// Fields that are passed on as they are, if they have this form. Others are dropped.
const PASSED: [(&str, Check); 8] = [
    ("tool_choice", is_choice),
    ("parallel_tool_calls", Value::is_boolean),
    ("temperature", Value::is_number),
    ("top_p", Value::is_number),
    ("seed", Value::is_i64),
    ("stop", is_stop),
    ("reasoning_effort", is_word),
    ("response_format", is_format),
];

/// Why a request is not passed on. The text goes to the agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

fn invalid(why: impl Into<String>) -> Invalid {
    Invalid(why.into())
}

/// A request that may be passed on.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    fields: Map<String, Value>,
    pub stream: bool,
    /// The longest answer the agent asks for, in tokens.
    pub answer: Option<i64>,
}

/// Reads an agent's request.
pub fn parse(body: &[u8]) -> Result<Request, Invalid> {
    let Ok(Value::Object(mut given)) = serde_json::from_slice::<Value>(body) else {
        let why = "the body must be a JSON object, as OpenAI's chat completions take it";
        return Err(invalid(why));
    };
    let mut fields = Map::new();
    fields.insert("messages".into(), messages(given.remove("messages"))?);
    if let Some(given) = present(&mut given, "tools") {
        fields.insert("tools".into(), tools(given)?);
    }
    for (key, fits) in PASSED {
        match present(&mut given, key) {
            Some(value) if fits(&value) => {
                fields.insert(key.into(), value);
            }
            Some(_) => {
                let why = format!("{key} has a form that is not passed on; leave it out");
                return Err(invalid(why));
            }
            None => {}
        }
    }
    let stream = present(&mut given, "stream").is_some_and(|s| s.as_bool() == Some(true));
    Ok(Request {
        fields,
        stream,
        answer: longest_answer(&mut given)?,
    })
}

impl Request {
    /// The request as it goes out: our model, one answer of at most so many tokens.
    pub fn outgoing(self, model: &str, parameter: MaxTokensParameter, answer: i64) -> Value {
        let mut fields = self.fields;
        fields.insert("model".into(), model.into());
        fields.insert(parameter.as_str().into(), answer.into());
        if self.stream {
            fields.insert("stream".into(), true.into());
            fields.insert("stream_options".into(), json!({"include_usage": true}));
        }
        Value::Object(fields)
    }
}

fn present(given: &mut Map<String, Value>, key: &str) -> Option<Value> {
    given.remove(key).filter(|value| !value.is_null())
}

/// The smaller of both parameters, whichever are set.
fn longest_answer(given: &mut Map<String, Value>) -> Result<Option<i64>, Invalid> {
    let mut longest = None;
    for parameter in [
        MaxTokensParameter::MaxTokens,
        MaxTokensParameter::MaxCompletionTokens,
    ] {
        let key = parameter.as_str();
        let Some(value) = present(given, key) else {
            continue;
        };
        let tokens = value.as_i64().filter(|tokens| *tokens > 0);
        let tokens = tokens.ok_or_else(|| invalid(format!("{key} must be a positive integer")))?;
        longest = Some(longest.map_or(tokens, |other: i64| other.min(tokens)));
    }
    Ok(longest)
}

fn messages(given: Option<Value>) -> Result<Value, Invalid> {
    let Some(Value::Array(given)) = given else {
        return Err(invalid("messages is missing"));
    };
    if given.len() > MAX_MESSAGES {
        return Err(invalid(format!(
            "there are more than {MAX_MESSAGES} messages"
        )));
    }
    let messages: Result<Vec<Value>, Invalid> = given.into_iter().map(message).collect();
    messages.map(Value::Array)
}

fn message(given: Value) -> Result<Value, Invalid> {
    let Value::Object(mut given) = given else {
        return Err(invalid(
            "each message must be an object with role and content",
        ));
    };
    let role = given.get("role").and_then(Value::as_str);
    let Some(role) = ROLES.into_iter().find(|known| Some(*known) == role) else {
        let roles = ROLES.join(", ");
        return Err(invalid(format!("a message's role must be one of: {roles}")));
    };
    let mut message = Map::new();
    message.insert("role".into(), role.into());
    let content = given.remove("content").unwrap_or_default();
    message.insert("content".into(), self::content(content)?);
    if let Some(name) = present(&mut given, "name") {
        if !is_name(&name) {
            return Err(invalid("a message's name has characters that do not fit"));
        }
        message.insert("name".into(), name);
    }
    if role == "tool" {
        let id = bounded(given.remove("tool_call_id"), MAX_ID, "tool_call_id")?;
        message.insert("tool_call_id".into(), id);
    }
    if let Some(calls) = present(&mut given, "tool_calls").filter(|_| role == "assistant") {
        message.insert("tool_calls".into(), tool_calls(calls)?);
    }
    Ok(Value::Object(message))
}

/// Text, or parts that are text.
fn content(given: Value) -> Result<Value, Invalid> {
    match given {
        Value::Null | Value::String(_) => Ok(given),
        Value::Array(parts) if parts.len() <= MAX_PARTS => {
            let parts: Result<Vec<Value>, Invalid> = parts.into_iter().map(part).collect();
            parts.map(Value::Array)
        }
        Value::Array(_) => Err(invalid(format!(
            "a message has more than {MAX_PARTS} parts"
        ))),
        _ => Err(invalid("a message's content must be text or parts of text")),
    }
}

fn part(mut given: Value) -> Result<Value, Invalid> {
    let kind = kind_of(&given);
    if kind != "text" {
        return Err(invalid(format!(
            "a content part of type {} is not passed on: only text is, since the model's provider \
             would fetch anything else",
            one_line(kind, 40)
        )));
    }
    match given.get_mut("text").map(Value::take) {
        Some(Value::String(text)) => Ok(json!({"type": "text", "text": text})),
        _ => Err(invalid("a content part of type text has no text")),
    }
}

/// The calls a model has made, given back to it. They came from outside, so they are only bounded.
fn tool_calls(given: Value) -> Result<Value, Invalid> {
    let Value::Array(given) = given else {
        return Err(invalid("tool_calls must be a list"));
    };
    if given.len() > MAX_CALLS {
        return Err(invalid(format!(
            "a message has more than {MAX_CALLS} calls"
        )));
    }
    let calls: Result<Vec<Value>, Invalid> = given.into_iter().map(tool_call).collect();
    calls.map(Value::Array)
}

fn tool_call(mut given: Value) -> Result<Value, Invalid> {
    if !matches!(kind_of(&given), "function" | "") {
        return Err(invalid("a call in tool_calls is not of type function"));
    }
    let id = given.get_mut("id").map(Value::take);
    let mut function = given
        .get_mut("function")
        .map(Value::take)
        .unwrap_or_default();
    let name = function.get_mut("name").map(Value::take);
    let arguments = function.get_mut("arguments").map(Value::take);
    Ok(json!({
        "id": bounded(id, MAX_ID, "a call's id")?,
        "type": "function",
        "function": {
            "name": bounded(name, MAX_NAME, "a call's name")?,
            "arguments": bounded(arguments, usize::MAX, "a call's arguments")?,
        },
    }))
}

/// Text of at most so many bytes; empty if there is none.
fn bounded(given: Option<Value>, limit: usize, what: &str) -> Result<Value, Invalid> {
    match given.unwrap_or_default() {
        Value::Null => Ok("".into()),
        Value::String(text) if text.len() <= limit => Ok(text.into()),
        Value::String(_) => Err(invalid(format!("{what} is longer than {limit} bytes"))),
        _ => Err(invalid(format!("{what} must be text"))),
    }
}

fn tools(given: Value) -> Result<Value, Invalid> {
    let Value::Array(given) = given else {
        return Err(invalid("tools must be a list"));
    };
    if given.len() > MAX_TOOLS {
        return Err(invalid(format!("there are more than {MAX_TOOLS} tools")));
    }
    let tools: Result<Vec<Value>, Invalid> = given.into_iter().map(tool).collect();
    tools.map(Value::Array)
}

fn tool(mut given: Value) -> Result<Value, Invalid> {
    let kind = kind_of(&given);
    if kind != "function" {
        return Err(invalid(format!(
            "a tool of type {} is not passed on: only functions are, since the model's provider \
             would run anything else",
            one_line(kind, 40)
        )));
    }
    let Some(Value::Object(mut given)) = given.get_mut("function").map(Value::take) else {
        return Err(invalid("a tool has no function"));
    };
    let name = given.remove("name").filter(is_name);
    let name = name.ok_or_else(|| {
        invalid(format!(
            "a function's name must have 1 to {MAX_NAME} letters, digits, or any of _-.:"
        ))
    })?;
    let mut function = Map::new();
    function.insert("name".into(), name);
    if let Some(description) = present(&mut given, "description") {
        let what = "a function's description";
        let description = bounded(Some(description), MAX_DESCRIPTION, what)?;
        function.insert("description".into(), description);
    }
    if let Some(parameters) = present(&mut given, "parameters") {
        if !is_schema(&parameters) {
            return Err(invalid(format!(
                "a function's parameters must be a JSON schema of at most {MAX_SCHEMA} bytes that \
                 refers to nothing outside of it"
            )));
        }
        function.insert("parameters".into(), parameters);
    }
    if let Some(strict) = given.remove("strict").filter(Value::is_boolean) {
        function.insert("strict".into(), strict);
    }
    Ok(json!({"type": "function", "function": function}))
}

fn kind_of(value: &Value) -> &str {
    value
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn is_name(value: &Value) -> bool {
    let fits = |c: u8| c.is_ascii_alphanumeric() || b"_-.:".contains(&c);
    value
        .as_str()
        .is_some_and(|name| (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(fits))
}

fn is_word(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|word| word.len() <= 20 && word.bytes().all(|c| c.is_ascii_lowercase()))
}

fn is_stop(value: &Value) -> bool {
    let fits = |v: &Value| v.as_str().is_some_and(|text| text.len() <= MAX_STOP);
    match value {
        Value::Array(stops) => stops.len() <= MAX_STOPS && stops.iter().all(fits),
        other => fits(other),
    }
}

fn is_choice(value: &Value) -> bool {
    if let Some(word) = value.as_str() {
        return matches!(word, "none" | "auto" | "required");
    }
    let name = value.get("function").and_then(|f| f.get("name"));
    name.is_some_and(|name| {
        is_name(name) && *value == json!({"type": "function", "function": {"name": name}})
    })
}

fn is_format(value: &Value) -> bool {
    let only = |value: &Value, keys: &[&str]| {
        value
            .as_object()
            .is_some_and(|map| map.keys().all(|key| keys.contains(&key.as_str())))
    };
    match kind_of(value) {
        "text" | "json_object" => only(value, &["type"]),
        "json_schema" => value.get("json_schema").is_some_and(|format| {
            only(value, &["type", "json_schema"])
                && only(format, &["name", "description", "schema", "strict"])
                && is_schema(format)
        }),
        _ => false,
    }
}

fn is_schema(value: &Value) -> bool {
    value.is_object() && value.to_string().len() <= MAX_SCHEMA && !refers_outside(value)
}

/// Whether a schema would have to be fetched from elsewhere. JSON is at most 128 levels deep here,
/// since deeper JSON is not parsed.
fn refers_outside(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, value)| {
            let is_reference = matches!(key.as_str(), "$ref" | "$dynamicRef" | "$recursiveRef");
            let is_outside = value.as_str().is_some_and(|to| !to.starts_with('#'));
            is_reference && is_outside || refers_outside(value)
        }),
        Value::Array(values) => values.iter().any(refers_outside),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn given(value: &Value) -> Result<Value, Invalid> {
        let request = parse(value.to_string().as_bytes())?;
        Ok(request.outgoing("ours", MaxTokensParameter::default(), 100))
    }

    fn said(content: Value) -> Value {
        json!({"messages": [{"role": "user", "content": content}]})
    }

    #[test]
    fn an_agent_sets_only_what_it_may() {
        let asked = json!({
            "messages": [{"role": "user", "content": "hi", "audio": {"id": "x"}}],
            "model": "gpt-expensive",
            "max_tokens": 1_000_000,
            "n": 50,
            "user": "x",
            "stream": true,
            "store": true,
            "web_search_options": {},
            "plugins": [{"id": "web"}],
            "metadata": {"a": "b"},
        });
        let expected = json!({
            "messages": [{"role": "user", "content": "hi"}],
            "model": "ours",
            "max_completion_tokens": 100,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        assert_eq!(given(&asked).unwrap(), expected);
        let request = parse(asked.to_string().as_bytes()).unwrap();
        assert!(request.stream);
        assert_eq!(request.answer, Some(1_000_000));
        let out = request.outgoing("ours", MaxTokensParameter::MaxTokens, 7);
        assert_eq!(out["max_tokens"], 7);
        assert!(out.get("max_completion_tokens").is_none());
    }

    #[test]
    fn what_a_provider_would_fetch_or_run_is_refused() {
        let url = "https://evil.example/?d=secret";
        let tool = |tool: Value| json!({"messages": [], "tools": [tool]});
        let function = |parameters: Value| {
            tool(json!({"type": "function", "function": {"name": "f", "parameters": parameters}}))
        };
        for (bad, why) in [
            (
                said(json!([{"type": "image_url", "image_url": {"url": url}}])),
                "type image_url",
            ),
            (
                said(json!([{"type": "text", "text": "a"}, {"type": "input_audio"}])),
                "type input_audio",
            ),
            (
                said(json!([{"type": "file", "file": {"file_id": "f"}}])),
                "type file",
            ),
            (said(json!([{"image_url": url}])), "content part"),
            (said(json!({"type": "text", "text": "a"})), "content"),
            (tool(json!({"type": "web_search"})), "type web_search"),
            (
                tool(json!({"type": "web_search_preview", "function": {"name": "f"}})),
                "type web_search_preview",
            ),
            (tool(json!({"type": "mcp", "server_url": url})), "type mcp"),
            (tool(json!({"googleSearch": {}})), "a tool of type"),
            (tool(json!({"type": "function"})), "no function"),
            (
                tool(json!({"type": "function", "function": {"name": "a b"}})),
                "name",
            ),
            (function(json!({"$ref": url})), "outside"),
            (
                function(json!({"properties": {"a": {"anyOf": [{"$ref": url}]}}})),
                "outside",
            ),
            (function(json!("x")), "JSON schema"),
            (
                function(json!({"description": "x".repeat(MAX_SCHEMA)})),
                "at most",
            ),
            (
                json!({"messages": [], "tool_choice": {"type": "web_search"}}),
                "tool_choice",
            ),
            (
                json!({"messages": [], "response_format": {"type": "json_schema", "url": url}}),
                "response_format",
            ),
            (
                json!({"messages": [], "stop": ["a", "b", "c", "d", "e"]}),
                "stop",
            ),
            (json!({"messages": [], "max_tokens": 0}), "max_tokens"),
            (json!({"messages": [], "max_tokens": "1"}), "max_tokens"),
            (json!({"messages": [{"role": "root"}]}), "role"),
            (json!({"messages": ["hi"]}), "object"),
            (
                json!({"messages": vec![json!({"role": "user"}); MAX_MESSAGES + 1]}),
                "messages",
            ),
            (json!({}), "messages is missing"),
            (json!([]), "JSON object"),
        ] {
            let error = given(&bad).expect_err(&bad.to_string());
            assert!(error.0.contains(why), "{bad}: {error}");
            assert!(!error.0.contains(url));
        }
        assert!(parse(b"not JSON").is_err() && parse(b"").is_err());
    }

    #[test]
    fn a_conversation_with_calls_goes_through() {
        let conversation = json!({
            "messages": [
                {"role": "system", "content": "rules"},
                {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{"}},
                ]},
                {"role": "tool", "tool_call_id": "1", "content": "result"},
            ],
            "tools": [{"type": "function", "function": {
                "name": "m365__get_user", "description": "d", "strict": true,
                "parameters": {"$schema": "http://json-schema.org/draft-07/schema#",
                    "type": "object", "properties": {"a": {"$ref": "#/definitions/a"}}},
            }}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "parallel_tool_calls": false,
            "temperature": 0.2,
            "seed": 1,
            "stop": ["end"],
            "reasoning_effort": "low",
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}},
        });
        let mut expected = conversation.clone();
        expected["model"] = "ours".into();
        expected["max_completion_tokens"] = 100.into();
        assert_eq!(given(&conversation).unwrap(), expected);
        // A model's own call may be incomplete: its server says what is wrong with it.
        let partial = json!({"messages": [{"role": "assistant", "tool_calls": [
            {"index": 0, "function": {"name": "f"}, "extra_content": {"url": "https://a"}}]}]});
        assert_eq!(
            given(&partial).unwrap()["messages"][0]["tool_calls"],
            json!([{"id": "", "type": "function", "function": {"name": "f", "arguments": ""}}])
        );
    }

    /// Any JSON, with the words that matter.
    fn any_json() -> impl Strategy<Value = Value> {
        let word = prop::sample::select(vec![
            "messages",
            "role",
            "user",
            "content",
            "type",
            "text",
            "image_url",
            "url",
            "tools",
            "function",
            "name",
            "parameters",
            "$ref",
            "tool_calls",
            "assistant",
            "file",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            word.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((word.clone(), inner), 0..6).prop_map(|pairs| {
                    let pairs = pairs.into_iter().map(|(k, v)| (k.to_string(), v));
                    Value::Object(pairs.collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_goes_out_is_text_and_functions(messages in any_json(), tools in any_json()) {
            let Ok(out) = given(&json!({"messages": messages, "tools": tools})) else {
                return Ok(());
            };
            for message in out["messages"].as_array().unwrap() {
                let keys = ["role", "content", "name", "tool_call_id", "tool_calls"];
                let mut given = message.as_object().unwrap().keys();
                prop_assert!(given.all(|k| keys.contains(&k.as_str())));
                for part in message["content"].as_array().into_iter().flatten() {
                    prop_assert!(part["type"] == "text" && part["text"].is_string());
                    prop_assert_eq!(part.as_object().unwrap().len(), 2);
                }
            }
            for tool in out.get("tools").and_then(Value::as_array).into_iter().flatten() {
                prop_assert_eq!(&tool["type"], "function");
                prop_assert!(!refers_outside(tool));
            }
        }

        #[test]
        fn any_bytes_are_read(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
        }
    }
}
