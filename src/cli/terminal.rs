//! Others' text on a terminal, in a table and in a YAML comment: on one line, and with whatever
//! would be invisible or move the cursor written out. Pure.

use crate::text::invisible::is_invisible;
use crate::text::visible;
use std::fmt::Write;

/// A line: `<U+001B>` for an escape, a space for a line break.
pub fn safe(text: &str) -> String {
    let ends_line = |c: char| c.is_control() && c.is_whitespace();
    let line: String = text
        .chars()
        .map(|c| if ends_line(c) { ' ' } else { c })
        .collect();
    visible(&line)
}

/// JSON with the same meaning, in which such characters are escaped.
pub fn safe_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if !is_invisible(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_moves_the_cursor() {
        for (text, shown) in [
            ("Müller & Co", "Müller & Co"),
            ("Acme\n---\nkind: Secret", "Acme --- kind: Secret"),
            (
                "\u{1b}[2J\u{1b}]0;x\u{7}",
                "<U+001B>[2J<U+001B>]0;x<U+0007>",
            ),
            ("a\u{85}b\u{2028}c\rd\te", "a b<U+2028>c d e"),
            ("\u{202e}ten", "<U+202E>ten"),
            ("\u{9b}31m", "<U+009B>31m"),
        ] {
            assert_eq!(safe(text), shown);
        }
    }

    proptest! {
        #[test]
        fn one_visible_line(text in any::<String>()) {
            let line = safe(&text);
            prop_assert!(!line.chars().any(|c| c.is_control() || is_invisible(c)), "{:?}", line);
        }

        #[test]
        fn the_same_json(text in any::<String>()) {
            let value = serde_json::json!({ "text": text });
            let shown = safe_json(&value.to_string());
            prop_assert!(!shown.chars().any(is_invisible), "{:?}", shown);
            let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
            prop_assert_eq!(read, value);
        }
    }
}
