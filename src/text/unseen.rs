//! Characters that nobody sees, or that change what is seen: what a person approves must read
//! as it runs.

use serde_json::Value;

/// Controls the direction of writing: what follows may be shown in another order.
pub fn is_bidi(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

/// One of Unicode's format characters (Cf), or a letter or mark without a shape.
pub fn is_unseen(c: char) -> bool {
    is_bidi(c)
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{600}'..='\u{605}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{890}'..='\u{891}'
                | '\u{8e2}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200d}'
                | '\u{2028}'..='\u{2029}'
                | '\u{2060}'..='\u{2065}'
                | '\u{206a}'..='\u{206f}'
                | '\u{2800}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{110bd}'
                | '\u{110cd}'
                | '\u{13430}'..='\u{1343f}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// A character by its number, like `U+202E`.
pub fn named(c: char) -> String {
    format!("U+{:04X}", u32::from(c))
}

/// The text without characters that nobody sees.
pub fn strip(text: &str) -> String {
    text.chars().filter(|c| !is_unseen(*c)).collect()
}

/// The first control of the direction of writing in a value's texts and keys.
pub fn bidi_in(value: &Value) -> Option<char> {
    match value {
        Value::String(text) => text.chars().find(|c| is_bidi(*c)),
        Value::Array(items) => items.iter().find_map(bidi_in),
        Value::Object(map) => map
            .iter()
            .find_map(|(key, value)| key.chars().find(|c| is_bidi(*c)).or_else(|| bidi_in(value))),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_nobody_sees() {
        for c in [
            '\u{202e}',
            '\u{2066}',
            '\u{200f}',
            '\u{200b}',
            '\u{ad}',
            '\u{feff}',
            '\u{e0041}',
            '\u{3164}',
            '\u{2028}',
        ] {
            assert!(is_unseen(c), "{}", named(c));
        }
        for c in [
            'a', 'é', 'ß', ' ', '\u{a0}', 'ש', '日', '🙂', '\u{fe0f}', '-', '$',
        ] {
            assert!(!is_unseen(c), "{}", named(c));
        }
        assert_eq!(strip("pass\u{ad}wo\u{200b}rd"), "password");
        assert_eq!(named('\u{ad}'), "U+00AD");
    }

    #[test]
    fn direction_is_found_at_any_depth() {
        for value in [
            json!({"to": "moc.live\u{202e}"}),
            json!({"to": [{"x": "\u{2067}a"}]}),
            json!({"to\u{200e}": 1}),
        ] {
            assert!(bidi_in(&value).is_some(), "{value}");
        }
        assert_eq!(bidi_in(&json!({"a": ["b\u{200b}", 1, null]})), None);
    }
}
