//! Arguments checked against a tool's JSON Schema before anything is decided about them. Pure.
//!
//! The part of JSON Schema that tools use; a keyword that is not known restricts nothing, like
//! `pattern` and `format`. A schema comes from another server, so reading it is bounded.

use crate::text::one_line;
use serde_json::{Map, Value};

/// How many schemas are compared with values.
const MAX_STEPS: usize = 10_000;
const MAX_DEPTH: usize = 32;
/// How many names are listed in an error.
const MAX_LISTED: usize = 10;

/// Whether the arguments fit; else why not, for the agent.
pub fn check(schema: &Map<String, Value>, arguments: &Map<String, Value>) -> Result<(), String> {
    let value = Value::Object(arguments.clone());
    let mut checker = Checker {
        root: schema,
        left: MAX_STEPS,
    };
    checker.map(schema, &value, "arguments", 0)
}

struct Checker<'a> {
    root: &'a Map<String, Value>,
    left: usize,
}

impl<'a> Checker<'a> {
    fn schema(
        &mut self,
        schema: &'a Value,
        value: &Value,
        path: &str,
        depth: usize,
    ) -> Result<(), String> {
        match schema {
            Value::Bool(false) => Err(format!("{path} is not allowed")),
            Value::Object(map) => self.map(map, value, path, depth),
            _ => Ok(()),
        }
    }

    fn map(
        &mut self,
        schema: &'a Map<String, Value>,
        value: &Value,
        path: &str,
        depth: usize,
    ) -> Result<(), String> {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 || depth > MAX_DEPTH {
            return Err("the tool's schema is too large to check them against".into());
        }
        if let Some(Value::String(reference)) = schema.get("$ref") {
            let target = self.resolve(reference)?;
            self.schema(target, value, path, depth + 1)?;
        }
        kind(schema, value, path)?;
        one_of(schema, value, path)?;
        self.combined(schema, value, path, depth)?;
        match value {
            Value::String(text) => length(schema, text.chars().count(), "characters", path),
            Value::Number(number) => range(schema, number.as_f64().unwrap_or_default(), path),
            Value::Array(items) => self.items(schema, items, path, depth),
            Value::Object(given) => self.properties(schema, given, path, depth),
            Value::Null | Value::Bool(_) => Ok(()),
        }
    }

    /// A part of this schema: no other document is read.
    fn resolve(&self, reference: &str) -> Result<&'a Value, String> {
        let wrong = || "the tool's schema refers to what it does not contain".to_string();
        let mut parts = reference.strip_prefix("#/").ok_or_else(wrong)?.split('/');
        let name = |part: &str| part.replace("~1", "/").replace("~0", "~");
        let first = parts.next().unwrap_or_default();
        let mut target = self.root.get(&name(first)).ok_or_else(wrong)?;
        for part in parts {
            target = match target {
                Value::Object(map) => map.get(&name(part)),
                Value::Array(items) => part.parse().ok().and_then(|at: usize| items.get(at)),
                _ => None,
            }
            .ok_or_else(wrong)?;
        }
        Ok(target)
    }

    fn combined(
        &mut self,
        schema: &'a Map<String, Value>,
        value: &Value,
        path: &str,
        depth: usize,
    ) -> Result<(), String> {
        for part in list(schema, "allOf") {
            self.schema(part, value, path, depth + 1)?;
        }
        for (key, only_one) in [("anyOf", false), ("oneOf", true)] {
            let parts = list(schema, key);
            if parts.is_empty() {
                continue;
            }
            let mut fitting = 0;
            for part in parts {
                if self.schema(part, value, path, depth + 1).is_ok() {
                    fitting += 1;
                }
            }
            if fitting == 0 || (only_one && fitting > 1) {
                return Err(format!("{path} has none of the forms it may have"));
            }
        }
        Ok(())
    }

    fn items(
        &mut self,
        schema: &'a Map<String, Value>,
        items: &[Value],
        path: &str,
        depth: usize,
    ) -> Result<(), String> {
        count(schema, items.len(), "Items", "items", path)?;
        let Some(of_all) = schema.get("items") else {
            return Ok(());
        };
        for (at, item) in items.iter().enumerate() {
            self.schema(of_all, item, &format!("{path}[{at}]"), depth + 1)?;
        }
        Ok(())
    }

    fn properties(
        &mut self,
        schema: &'a Map<String, Value>,
        given: &Map<String, Value>,
        path: &str,
        depth: usize,
    ) -> Result<(), String> {
        count(schema, given.len(), "Properties", "properties", path)?;
        let known = schema.get("properties").and_then(Value::as_object);
        for name in list(schema, "required").iter().filter_map(Value::as_str) {
            if !given.contains_key(name) {
                return Err(format!("{path}.{} is missing", one_line(name, 60)));
            }
        }
        for (name, value) in given {
            let path = format!("{path}.{}", one_line(name, 60));
            if let Some(schema) = known.and_then(|k| k.get(name)) {
                self.schema(schema, value, &path, depth + 1)?;
            } else if schema.contains_key("patternProperties") {
                // Whether one matches is not looked at.
            } else if let Some(others) = schema.get("additionalProperties") {
                self.schema(others, value, &path, depth + 1)?;
            }
        }
        Ok(())
    }
}

fn list<'a>(schema: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    let list = schema.get(key).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

fn kind(schema: &Map<String, Value>, value: &Value, path: &str) -> Result<(), String> {
    let names: Vec<&str> = match schema.get("type") {
        Some(Value::String(name)) => vec![name.as_str()],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(()),
    };
    let fits = |name: &&str| match *name {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
        }
        _ => true,
    };
    match names.iter().any(fits) {
        true => Ok(()),
        false => Err(format!(
            "{path} must be of type {}",
            one_line(&names.join(" or "), 100)
        )),
    }
}

fn one_of(schema: &Map<String, Value>, value: &Value, path: &str) -> Result<(), String> {
    let constant = schema.get("const");
    if constant.is_some_and(|c| !same(c, value)) {
        return Err(format!("{path} has one value only, and not this one"));
    }
    let Some(Value::Array(values)) = schema.get("enum") else {
        return Ok(());
    };
    if values.iter().any(|v| same(v, value)) {
        return Ok(());
    }
    let shown = values.iter().take(MAX_LISTED).map(Value::to_string);
    let shown = shown.collect::<Vec<_>>().join(", ");
    Err(format!("{path} must be one of {}", one_line(&shown, 300)))
}

/// For JSON 1 and 1.0 are the same.
fn same(a: &Value, b: &Value) -> bool {
    a == b || (a.is_number() && b.is_number() && a.as_f64() == b.as_f64())
}

fn bound(schema: &Map<String, Value>, key: &str) -> Option<f64> {
    schema.get(key).and_then(Value::as_f64)
}

fn length(
    schema: &Map<String, Value>,
    length: usize,
    what: &str,
    path: &str,
) -> Result<(), String> {
    count(schema, length, "Length", what, path)
}

fn count(
    schema: &Map<String, Value>,
    number: usize,
    of: &str,
    what: &str,
    path: &str,
) -> Result<(), String> {
    let number = number as f64;
    if let Some(least) = bound(schema, &format!("min{of}")).filter(|least| number < *least) {
        return Err(format!("{path} must have at least {least} {what}"));
    }
    if let Some(most) = bound(schema, &format!("max{of}")).filter(|most| number > *most) {
        return Err(format!("{path} must have at most {most} {what}"));
    }
    Ok(())
}

fn range(schema: &Map<String, Value>, number: f64, path: &str) -> Result<(), String> {
    type Holds = fn(f64, f64) -> bool;
    let within: [(&str, &str, Holds); 4] = [
        ("minimum", "at least", |n, b| n >= b),
        ("maximum", "at most", |n, b| n <= b),
        ("exclusiveMinimum", "more than", |n, b| n > b),
        ("exclusiveMaximum", "less than", |n, b| n < b),
    ];
    for (key, words, holds) in within {
        if let Some(bound) = bound(schema, key).filter(|b| !holds(number, *b)) {
            return Err(format!("{path} must be {words} {bound}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn checked(schema: &Value, arguments: Value) -> Result<(), String> {
        let arguments = arguments.as_object().cloned().unwrap();
        check(schema.as_object().unwrap(), &arguments)
    }

    #[test]
    fn arguments_fit_the_schema() {
        let schema = json!({
            "type": "object",
            "required": ["user"],
            "additionalProperties": false,
            "$defs": {"day": {"type": "string", "minLength": 10, "maxLength": 10}},
            "properties": {
                "user": {"type": "string", "maxLength": 5},
                "count": {"type": "integer", "minimum": 1, "maximum": 3},
                "mode": {"enum": ["soft", "hard"]},
                "tags": {"type": "array", "maxItems": 2, "items": {"type": "string"}},
                "day": {"$ref": "#/$defs/day"},
                "note": {"type": ["string", "null"]},
                "to": {"anyOf": [{"type": "string"}, {"type": "array"}]},
            },
        });
        for good in [
            json!({"user": "kim"}),
            json!({"user": "kim", "count": 2.0, "mode": "soft", "tags": ["a", "b"]}),
            json!({"user": "kim", "day": "2026-11-25", "note": null, "to": ["x"]}),
        ] {
            assert_eq!(checked(&schema, good.clone()), Ok(()), "{good}");
        }
        for (bad, why) in [
            (json!({}), "arguments.user is missing"),
            (json!({"user": 1}), "arguments.user must be of type string"),
            (
                json!({"user": "kimkim"}),
                "arguments.user must have at most 5 characters",
            ),
            (
                json!({"user": "k", "tenant": "x"}),
                "arguments.tenant is not allowed",
            ),
            (
                json!({"user": "k", "count": 1.5}),
                "arguments.count must be of type integer",
            ),
            (
                json!({"user": "k", "count": 4}),
                "arguments.count must be at most 3",
            ),
            (
                json!({"user": "k", "mode": "x"}),
                "arguments.mode must be one of \"soft\", \"hard\"",
            ),
            (
                json!({"user": "k", "tags": [1]}),
                "arguments.tags[0] must be of type string",
            ),
            (
                json!({"user": "k", "tags": ["", "", ""]}),
                "arguments.tags must have at most 2 items",
            ),
            (
                json!({"user": "k", "day": "x"}),
                "arguments.day must have at least 10 characters",
            ),
            (
                json!({"user": "k", "note": 1}),
                "arguments.note must be of type string or null",
            ),
            (
                json!({"user": "k", "to": 1}),
                "arguments.to has none of the forms it may have",
            ),
        ] {
            assert_eq!(checked(&schema, bad.clone()), Err(why.to_string()), "{bad}");
        }
    }

    #[test]
    fn a_schema_of_its_own_making_ends() {
        let itself = json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}});
        assert!(
            checked(&itself, json!({}))
                .unwrap_err()
                .contains("too large")
        );
        let part = json!({"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]});
        let many = json!({"$ref": "#/$defs/a", "$defs": {"a": part}});
        assert!(checked(&many, json!({})).is_err());
        let elsewhere = json!({"$ref": "https://evil.example/schema"});
        assert!(
            checked(&elsewhere, json!({}))
                .unwrap_err()
                .contains("refers to")
        );
    }

    proptest! {
        #[test]
        fn any_schema_is_read(text in "\\PC{0,60}", key in "[a-zA-Z$]{1,20}") {
            let value = serde_json::from_str(&text).unwrap_or(Value::from(text));
            let schema = json!({(key): value, "properties": {"a": {"$ref": value}}});
            let _ = checked(&schema, json!({"a": "b"}));
        }
    }
}
