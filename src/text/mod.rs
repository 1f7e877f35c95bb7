//! Text, of tickets and in general. Pure.
//!
//! - here: HaloPSA's HTML to bounded plain text, and back
//! - [`words`]: text as folded words; [`pattern`]: name patterns
//! - [`invisible`]: characters that nobody sees, written out
//! - [`foreign`]: what others write, without our markers
//! - [`mask`]: arguments without secrets and without text; [`json`]: JSON with sorted keys; [`hex`]
//! - [`unseen`]: characters that nobody sees

pub mod foreign;
pub mod hex;
pub mod invisible;
pub mod json;
pub mod mask;
pub mod pattern;
mod strip;
pub mod unseen;
pub mod words;

pub use foreign::without_markers;
pub use invisible::visible;

/// Where details and notes for an agent are cut, in bytes.
pub const MAX_TEXT: usize = 16 * 1024;
/// HTML beyond this is not read, in bytes.
pub const MAX_HTML: usize = 512 * 1024;

/// HTML to plain text: without tags, scripts and styles, with line breaks, cut at [`MAX_TEXT`].
///
/// Time and memory are linear in the length of any HTML: laying out takes more than that for
/// elements nested deeply, so what no person writes only has its tags stripped.
pub fn from_html(html: &str) -> String {
    plain(&without_tags(html))
}

/// As [`from_html`], for who has to read everything: cut at [`MAX_HTML`], and whether that is all.
pub fn all_from_html(html: &str) -> (String, bool) {
    let (text, is_all) = all_plain(&without_tags(html));
    (text, is_all && html.len() <= MAX_HTML)
}

/// As [`plain`], for who has to read everything.
pub fn all_plain(text: &str) -> (String, bool) {
    (plain_up_to(text, MAX_HTML), text.len() <= MAX_HTML)
}

fn without_tags(html: &str) -> String {
    let html = cut(html, MAX_HTML);
    if !strip::is_simple(html) {
        return strip::tags(html);
    }
    // Wide enough that no paragraph is wrapped: the reader wraps.
    html2text::config::plain_no_decorate()
        .string_from_read(html.as_bytes(), 10_000)
        .unwrap_or_else(|_| strip::tags(html))
}

/// Whether HTML is short and flat enough to be laid out.
pub fn is_simple_html(html: &str) -> bool {
    strip::is_simple(html)
}

/// Bounded plain text without control characters or runs of blank lines.
pub fn plain(text: &str) -> String {
    plain_up_to(text, MAX_TEXT)
}

fn plain_up_to(text: &str, limit: usize) -> String {
    let text = cut(text, MAX_HTML).replace("\r\n", "\n");
    let mut out = String::with_capacity(text.len().min(limit));
    let mut blank = 0;
    for line in text.split('\n') {
        let line: String = line
            .chars()
            .map(|c| {
                if c.is_whitespace() && c.is_control() {
                    ' '
                } else {
                    c
                }
            })
            .filter(|c| !c.is_control())
            .collect();
        let line = line.trim_end();
        blank = if line.is_empty() { blank + 1 } else { 0 };
        if blank > 1 || (line.is_empty() && out.is_empty()) {
            continue;
        }
        out.push_str(line);
        out.push('\n');
        if out.len() > limit {
            break;
        }
    }
    cut(out.trim_end(), limit).to_string()
}

/// The longest prefix of at most `limit` bytes that ends between characters.
pub fn cut(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// One line for a column: no line breaks, no control characters, at most `limit` characters.
pub fn one_line(text: &str, limit: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    if line.chars().count() <= limit {
        return line;
    }
    let mut short: String = line.chars().take(limit.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Text escaped for HTML, and for HaloPSA: see [`without_variables`].
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let mut last = ' ';
    for c in text.chars().filter(|c| !c.is_control() || *c == '\n') {
        if begins_variable(last, c) {
            out.push(' ');
        }
        last = c;
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Text that HaloPSA does not fill in: it may put fields of the ticket, the user or the client in
/// the place of a `$NAME` in notes and e-mails. `$NAME` becomes `$ NAME`, which everybody sees. An
/// entity like `&#36;` would be decoded before names are looked for, and an invisible character is
/// what a person who approves cannot check.
pub fn without_variables(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut last = ' ';
    for c in text.chars() {
        if begins_variable(last, c) {
            out.push(' ');
        }
        last = c;
        out.push(c);
    }
    out
}

fn begins_variable(last: char, c: char) -> bool {
    last == '$' && (c.is_ascii_alphabetic() || matches!(c, '-' | '_'))
}

/// A time as technicians read it.
pub fn utc(time: k8s_openapi::jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn html_becomes_text() {
        for (html, text) in [
            ("<p>Hello</p><p>World</p>", "Hello\n\nWorld"),
            ("a<br>b", "a\nb"),
            ("<script>alert(1)</script>x", "x"),
            ("<style>p{}</style><b>bold</b>", "bold"),
            ("plain", "plain"),
            ("", ""),
            ("&lt;not a tag&gt;", "<not a tag>"),
        ] {
            assert_eq!(from_html(html), text, "{html}");
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let long = "é".repeat(MAX_TEXT);
        assert!(from_html(&long).len() <= MAX_TEXT);
        assert_eq!(cut("éé", 3), "é");
        assert_eq!(one_line("a\n b\tc", 10), "a b c");
        assert_eq!(one_line("abcdef", 4), "abc…");
    }

    #[test]
    fn who_reads_everything_knows_whether_it_is_all() {
        let long = format!("<p>{}the end</p>", "word ".repeat(20_000));
        let (text, is_all) = all_from_html(&long);
        assert!(text.ends_with("the end") && is_all);
        let (text, is_all) = all_from_html(&"word ".repeat(200_000));
        assert!(text.len() <= MAX_HTML && !is_all);
        let (text, is_all) = all_plain(&"a\u{b}b\r".repeat(10_000));
        assert!(text.starts_with("a b a b") && is_all, "{:.20}", text);
    }

    #[test]
    fn html_of_any_nesting_becomes_bounded_text() {
        for tag in [
            "div",
            "ul",
            "ol",
            "blockquote",
            "details",
            "b",
            "em",
            "i",
            "table",
            "tr",
            "td",
            "p",
        ] {
            let html = format!("start {}the end", format!("<{tag}>").repeat(100_000));
            let text = from_html(&html);
            assert!(text.len() <= MAX_TEXT && text.starts_with("start"), "{tag}");
        }
        let deep = format!("{}the end{}", "<div>".repeat(200), "</div>".repeat(200));
        assert_eq!(from_html(&deep), "the end");
    }

    #[test]
    fn no_text_holds_a_variable_of_halopsa() {
        for (text, shown) in [
            ("Dear $USERNAME,", "Dear $ USERNAME,"),
            ("$-CF_SECRET $$X $_a", "$ -CF_SECRET $$ X $ _a"),
            ("$5, US$ 7, $(cat x), a$", "$5, US$ 7, $(cat x), a$"),
        ] {
            assert_eq!(without_variables(text), shown);
            assert_eq!(without_variables(shown), shown, "once is enough");
            assert_eq!(escape(text), shown);
        }
        // A character that is dropped does not join them again.
        assert_eq!(escape("$\u{1}USERNAME"), "$ USERNAME");
    }

    proptest! {
        #[test]
        fn escaped_text_holds_no_markup(text in "\\PC{0,200}") {
            let html = escape(&text);
            prop_assert!(!html.contains('<') && !html.contains('>') && !html.contains('"'));
        }

        #[test]
        fn any_html_gives_bounded_text(html in "[<>a-z/ \"=!\\-&;é\n]{0,400}") {
            let text = from_html(&html);
            prop_assert!(text.len() <= MAX_TEXT);
            prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
        }
    }
}
