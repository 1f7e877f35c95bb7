//! JSON as text with one spelling: what is hashed and compared.

use serde_json::Value;

/// JSON with sorted keys: the same value gives the same text.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            let parts: Vec<String> = keys
                .into_iter()
                .map(|k| format!("{}:{}", Value::from(k.as_str()), canonical(&map[k])))
                .collect();
            format!("{{{}}}", parts.join(","))
        }
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(canonical).collect::<Vec<_>>().join(",")
        ),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_keys_does_not_matter() {
        let (a, b): (Value, Value) = (
            serde_json::from_str(r#"{"a":1,"b":[{"y":1,"x":2}]}"#).unwrap(),
            serde_json::from_str(r#"{"b":[{"x":2,"y":1}],"a":1}"#).unwrap(),
        );
        assert_eq!(canonical(&a), canonical(&b));
    }
}
