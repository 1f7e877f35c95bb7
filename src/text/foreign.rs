//! What others write, in our notes.

/// How our markers begin, and the digits of the ticket's hash that follow.
const BEGINS: &str = "rallied-";
const DIGITS: usize = 16;

/// Text without anything that looks like one of our markers: a note is found by them.
pub fn without_markers(text: &str) -> String {
    // Of the same length, byte for byte.
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = lower[at..].find(BEGINS) {
        let after = at + found + BEGINS.len();
        out.push_str(&text[at..after]);
        at = after;
        let rest = &lower.as_bytes()[after..];
        let digits = rest
            .iter()
            .take_while(|b| b.is_ascii_hexdigit())
            .take(DIGITS);
        if digits.count() == DIGITS {
            out.push('…');
            let of_marker = |b: &&u8| b.is_ascii_alphanumeric() || **b == b'-';
            at += rest.iter().take_while(of_marker).count();
        }
    }
    out.push_str(&text[at..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_marker_stays() {
        let id = "0011223344556677";
        for (text, left) in [
            (format!("rallied-{id}-0-failure"), "rallied-…"),
            (
                format!("Reference: rallied-{id}-1-plan-abc x"),
                "Reference: rallied-… x",
            ),
            (format!("RALLIED-{id}-0-plan"), "RALLIED-…"),
            (
                format!("a rallied-{id} rallied-{id}, b"),
                "a rallied-… rallied-…, b",
            ),
            (format!("rallied-rallied-{id}"), "rallied-rallied-…"),
            (format!("ralrallied-{id}lied-{id}"), "ralrallied-…"),
            ("we rallied-0123 and é".to_string(), "we rallied-0123 and é"),
        ] {
            assert_eq!(without_markers(&text), left);
        }
    }

    proptest! {
        #[test]
        fn nothing_that_looks_like_one_is_left(
            parts in prop::collection::vec("rallied-|[0-9a-f]{16}|-0-plan|Reference: |[é a-z]", 0..12)
        ) {
            let once = without_markers(&parts.concat());
            prop_assert_eq!(&without_markers(&once), &once);
            let marker = once.match_indices(BEGINS).any(|(at, _)| {
                let id = once[at + BEGINS.len()..].chars().take(DIGITS);
                id.filter(char::is_ascii_hexdigit).count() == DIGITS
            });
            prop_assert!(!marker, "{}", once);
        }
    }
}
