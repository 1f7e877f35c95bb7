//! HTML to text without laying it out: one pass, for what is too large or too deep.

/// More than this is only stripped, in bytes.
const MAX_LAID_OUT: usize = 64 * 1024;
const MAX_TAGS: usize = 4000;
const MAX_DEPTH: usize = 100;
/// Elements that have no end tag.
const VOID: [&str; 13] = [
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track",
    "wbr",
];
/// Elements whose content is not text.
const HIDDEN: [&str; 5] = ["script", "style", "head", "title", "template"];
/// Elements within a line; all others end it.
const INLINE: [&str; 14] = [
    "a", "abbr", "b", "code", "em", "font", "i", "label", "s", "small", "span", "strong", "sub",
    "u",
];

/// A tag: its name in lower case, whether it ends an element, and where it stops.
struct Tag {
    name: String,
    ends: bool,
    after: usize,
}

/// The tag that begins at `at`, where a `<` is; none: it is a `<` in text.
fn tag_at(html: &str, at: usize) -> Option<Tag> {
    let rest = &html[at + 1..];
    if let Some(comment) = rest.strip_prefix("!--") {
        let length = comment.find("-->").map_or(comment.len(), |end| end + 3);
        return Some(Tag {
            name: "!".into(),
            ends: false,
            after: at + 4 + length,
        });
    }
    let ends = rest.starts_with('/');
    let name = rest.trim_start_matches('/');
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '!' || c == '?') {
        return None;
    }
    let length = name
        .find(|c: char| !c.is_ascii_alphanumeric())
        .unwrap_or(name.len());
    let after = rest.find('>').map_or(html.len(), |end| at + 1 + end + 1);
    Some(Tag {
        name: name[..length.min(20)].to_ascii_lowercase(),
        ends,
        after,
    })
}

/// Whether it is short and flat enough to be laid out.
pub fn is_simple(html: &str) -> bool {
    if html.len() > MAX_LAID_OUT {
        return false;
    }
    let (mut tags, mut depth, mut at) = (0, 0usize, 0);
    while let Some(next) = html[at..].find('<') {
        at += next;
        let Some(tag) = tag_at(html, at) else {
            at += 1;
            continue;
        };
        tags += 1;
        if tag.ends {
            depth = depth.saturating_sub(1);
        } else if !VOID.contains(&tag.name.as_str()) {
            depth += 1;
        }
        if tags > MAX_TAGS || depth > MAX_DEPTH {
            return false;
        }
        at = tag.after;
    }
    true
}

/// The text between the tags.
pub fn tags(html: &str) -> String {
    let mut text = String::with_capacity(html.len().min(64 * 1024));
    let mut hidden: Option<String> = None;
    let mut at = 0;
    while at < html.len() {
        let next = html[at..].find('<').map_or(html.len(), |n| at + n);
        if hidden.is_none() {
            decode(&html[at..next], &mut text);
        }
        if next == html.len() {
            break;
        }
        let Some(tag) = tag_at(html, next) else {
            if hidden.is_none() {
                text.push('<');
            }
            at = next + 1;
            continue;
        };
        at = tag.after;
        match &hidden {
            Some(name) if tag.ends && *name == tag.name => hidden = None,
            Some(_) => {}
            None if !tag.ends && HIDDEN.contains(&tag.name.as_str()) => hidden = Some(tag.name),
            None if INLINE.contains(&tag.name.as_str()) => {}
            None if !text.ends_with('\n') => text.push('\n'),
            None => {}
        }
    }
    text
}

/// Text with the common entities replaced.
fn decode(html: &str, text: &mut String) {
    const ENTITIES: [(&str, char); 7] = [
        ("&amp;", '&'),
        ("&lt;", '<'),
        ("&gt;", '>'),
        ("&quot;", '"'),
        ("&#39;", '\''),
        ("&apos;", '\''),
        ("&nbsp;", ' '),
    ];
    let mut rest = html;
    while let Some(at) = rest.find('&') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let named = ENTITIES.iter().find(|(name, _)| rest.starts_with(name));
        match named
            .map(|(name, sign)| (name.len(), *sign))
            .or_else(|| numbered(rest))
        {
            Some((length, sign)) => {
                text.push(sign);
                rest = &rest[length..];
            }
            None => {
                text.push('&');
                rest = &rest[1..];
            }
        }
    }
    text.push_str(rest);
}

/// The character of an entity like `&#112;` or `&#x70;`, and the entity's length.
fn numbered(html: &str) -> Option<(usize, char)> {
    /// Zeros may lead.
    const MAX_DIGITS: usize = 12;
    let digits = html.strip_prefix("&#")?;
    let (radix, digits) = match digits.strip_prefix(['x', 'X']) {
        Some(digits) => (16, digits),
        None => (10, digits),
    };
    let length = digits
        .bytes()
        .take(MAX_DIGITS)
        .take_while(|b| char::from(*b).is_digit(radix));
    let length = length.count();
    let sign = u32::from_str_radix(digits.get(..length)?, radix).ok();
    let sign = sign.and_then(char::from_u32)?;
    let ends = usize::from(digits[length..].starts_with(';'));
    Some((html.len() - digits.len() + length + ends, sign))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_simple() {
        assert!(is_simple("<p>Hello<br>you</p>".repeat(500).as_str()));
        assert!(is_simple(&"<br>".repeat(3000)));
        assert!(!is_simple(&"<div>".repeat(101)));
        assert!(!is_simple(&"<b></b>".repeat(3000)));
        assert!(!is_simple(&"x".repeat(MAX_LAID_OUT + 1)));
    }

    #[test]
    fn stripped() {
        for (html, text) in [
            ("<div>a</div><div>b</div>", "\na\nb\n"),
            ("a <b>bold</b> word", "a bold word"),
            ("1 < 2 &amp;&lt; 3 &euro;", "1 < 2 &< 3 &euro;"),
            (
                "&#112;&#x61;&#X0073;s&#119ord &#; &#xd800;&#",
                "password &#; &#xd800;&#",
            ),
            ("x<style>p{}</style>y", "xy"),
            ("x<!-- > -->y", "x\ny"),
            ("<script>if (a < b) {}</script>z", "z"),
            ("open <div", "open \n"),
        ] {
            assert_eq!(tags(html), text, "{html}");
        }
    }

    proptest! {
        #[test]
        fn any_html_is_taken(html in "[<>a-z/ \"=!\\-&;é\n]{0,400}") {
            let _ = (is_simple(&html), tags(&html));
        }
    }
}
