//! What somebody wrote in a reply themselves, without quotes and signature.

use crate::text;

/// How the HTML that a mail program appends or quotes begins, in lower case.
const HTML_ENDS: [&str; 11] = [
    "class=\"gmail_quote",
    "class=\"gmail_signature",
    "class=gmail_quote",
    "class=\"moz-cite-prefix",
    "class=\"moz-signature",
    "class=\"yahoo_quoted",
    "class=\"protonmail_quote",
    "class=\"outlookmessageheader",
    "id=\"appendonsend",
    "id=\"divrplyfwdmsg",
    "id=\"signature",
];

/// Elements with somebody else's words, or with words taken back.
const HTML_DROPPED: [&str; 4] = ["blockquote", "s", "del", "strike"];

/// HTML as text without what it quotes; true: something was left out.
pub fn own_html(html: &str) -> (String, bool) {
    // `note_html` may be of any size; a reply is short.
    let html = text::cut(html, 64 * 1024);
    let lower = html.to_ascii_lowercase();
    let mut end = html.len();
    for mark in HTML_ENDS {
        if let Some(at) = lower.find(mark) {
            // Where the element begins.
            end = end.min(lower[..at].rfind('<').unwrap_or(at));
        }
    }
    let mut cut = end < html.len();
    let (mut html, mut lower) = (html[..end].to_string(), lower[..end].to_string());
    for element in HTML_DROPPED {
        while let Some((from, to)) = element_at(&lower, element) {
            html.replace_range(from..to, " ");
            lower.replace_range(from..to, " ");
            cut = true;
        }
    }
    (text::from_html(&html), cut)
}

/// The first element of this name with its content; to the end if it is not closed.
fn element_at(lower: &str, name: &str) -> Option<(usize, usize)> {
    let is_tag = |rest: &str| {
        rest.strip_prefix(name)
            .is_some_and(|r| r.starts_with(['>', ' ', '/', '\n', '\t']))
    };
    let from = lower
        .match_indices('<')
        .map(|(at, _)| at)
        .find(|at| is_tag(&lower[at + 1..]))?;
    let mut depth = 0;
    for (at, _) in lower[from..].match_indices('<') {
        let rest = &lower[from + at + 1..];
        if is_tag(rest) {
            depth += 1;
        } else if rest.strip_prefix('/').is_some_and(is_tag) {
            depth -= 1;
            if depth == 0 {
                let close = lower[from + at..]
                    .find('>')
                    .map_or(lower.len(), |c| from + at + c + 1);
                return Some((from, close));
            }
        }
    }
    Some((from, lower.len()))
}

/// Whether a line begins a quoted mail: "On ... wrote:" in five languages, headers, rulers.
fn begins_quote(line: &str) -> bool {
    let line = line.trim().to_lowercase();
    let wrote = [
        ("on ", "wrote:"),
        ("am ", "schrieb"),
        ("le ", "a écrit"),
        ("el ", "escribió"),
        ("op ", "schreef"),
        ("am ", "geschrieben"),
    ];
    wrote
        .iter()
        .any(|(start, end)| line.starts_with(start) && line.contains(end))
        || line.ends_with("wrote:")
        || line.ends_with("schrieb:")
        || line.starts_with("-----")
        || line.starts_with("________")
        || line.starts_with("begin forwarded message")
        || [
            "from:",
            "von:",
            "de:",
            "de :",
            "van:",
            "sent:",
            "gesendet:",
            "envoyé",
            "enviado:",
            "verzonden:",
        ]
        .iter()
        .any(|h| line.starts_with(h))
}

/// Whether a line begins a signature.
fn begins_signature(line: &str) -> bool {
    let line = line.trim().to_lowercase();
    let line = line.trim_end_matches([',', '.', '!']);
    const ENDS: [&str; 30] = [
        "--",
        "—",
        "best",
        "best regards",
        "kind regards",
        "regards",
        "many regards",
        "warm regards",
        "br",
        "rgds",
        "kr",
        "cheers",
        "sincerely",
        "mit freundlichen grüßen",
        "mit freundlichen gruessen",
        "freundliche grüße",
        "viele grüße",
        "beste grüße",
        "lg",
        "vg",
        "mfg",
        "cordialement",
        "bien cordialement",
        "bien à vous",
        "saludos",
        "un saludo",
        "atentamente",
        "met vriendelijke groet",
        "groeten",
        "mvg",
    ];
    ENDS.contains(&line)
        || [
            "sent from my",
            "get outlook",
            "von meinem iphone",
            "gesendet von",
            "envoyé de mon",
            "envoyé depuis",
            "enviado desde",
            "verstuurd vanaf",
            "verzonden vanaf",
        ]
        .iter()
        .any(|start| line.starts_with(start))
}

/// Text without quoted lines and signature; true: something was left out.
pub fn own_text(text: &str) -> (String, bool) {
    let mut own = String::new();
    let mut cut = false;
    for line in text.lines() {
        if line.trim_start().starts_with('>') {
            cut = true;
            continue;
        }
        // A signature ends a text and never begins one.
        if begins_quote(line) || (begins_signature(line) && !own.trim().is_empty()) {
            cut = true;
            break;
        }
        own.push_str(line);
        own.push('\n');
    }
    (own, cut)
}
