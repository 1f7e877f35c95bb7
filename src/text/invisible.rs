//! Characters that nobody sees, and that change what is read.

/// Unicode's category Cf (bidirectional controls, zero-width characters, tags and others), and
/// what else leaves no mark: fillers, selectors, line separators, unassigned ignorable ones. Not
/// the two selectors that follow many an emoji.
const INVISIBLE: [(u32, u32); 36] = [
    (0x00ad, 0x00ad),
    (0x034f, 0x034f),
    (0x0600, 0x0605),
    (0x061c, 0x061c),
    (0x06dd, 0x06dd),
    (0x070f, 0x070f),
    (0x0890, 0x0891),
    (0x08e2, 0x08e2),
    (0x115f, 0x1160),
    (0x17b4, 0x17b5),
    (0x180b, 0x180f),
    (0x200b, 0x200f),
    (0x2028, 0x202e),
    (0x2060, 0x206f),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xfe00, 0xfe0d),
    (0xfeff, 0xfeff),
    (0xffa0, 0xffa0),
    (0xfff0, 0xfffb),
    (0x110bd, 0x110bd),
    (0x110cd, 0x110cd),
    (0x13430, 0x1343f),
    (0x16fe4, 0x16fe4),
    (0x1bca0, 0x1bca3),
    (0x1d159, 0x1d159),
    (0x1d173, 0x1d17a),
    (0xe0000, 0xe0fff),
    (0xe000, 0xf8ff),
    (0xf0000, 0xffffd),
    (0x100000, 0x10fffd),
    (0x0080, 0x0084),
    (0x0086, 0x009f),
    (0x007f, 0x007f),
    (0x000e, 0x001f),
    (0x0000, 0x0008),
];

/// Whether a character leaves no mark of its own.
pub fn is_invisible(c: char) -> bool {
    let c = u32::from(c);
    INVISIBLE
        .iter()
        .any(|(from, to)| (*from..=*to).contains(&c))
}

/// Text with its invisible characters written out, like `<U+202E>`: what is read is what is there.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match is_invisible(c) {
            true => out.push_str(&format!("<U+{:04X}>", u32::from(c))),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn written_out() {
        for (text, shown) in [
            ("Kim Lee", "Kim Lee"),
            ("moc.live@\u{202e}bob", "moc.live@<U+202E>bob"),
            ("pass\u{ad}word", "pass<U+00AD>word"),
            ("a\u{200b}b\u{feff}", "a<U+200B>b<U+FEFF>"),
            ("\u{2066}x\u{2069}", "<U+2066>x<U+2069>"),
            ("ok\u{e0041}", "ok<U+E0041>"),
            ("\u{1b}[2J", "<U+001B>[2J"),
            (
                "two\nlines\tand é, 漢字, \u{2764}\u{fe0f}",
                "two\nlines\tand é, 漢字, \u{2764}\u{fe0f}",
            ),
        ] {
            assert_eq!(visible(text), shown);
        }
    }

    proptest! {
        #[test]
        fn no_format_character_survives(hidden in "\\p{Cf}{1,40}") {
            let shown = visible(&hidden);
            prop_assert!(shown.is_ascii(), "{:?}", hidden);
        }

        #[test]
        fn what_can_be_seen_stays(text in "[a-zA-Z0-9 <>&é漢\n]{0,60}") {
            prop_assert_eq!(visible(&text), text);
        }
    }
}
