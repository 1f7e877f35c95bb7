//! What somebody wrote in a reply themselves, without quotes and signature.

use crate::text;
use crate::text::words;
use html2text::{Comment, Element, Handle};

/// More than this is not read, in bytes: a reply is short.
pub const MAX_REPLY: usize = 64 * 1024;

/// Elements with somebody else's words, with words taken back, or with what is not text.
const DROPPED: [&str; 27] = [
    "blockquote",
    "q",
    "s",
    "del",
    "strike",
    "img",
    "picture",
    "svg",
    "math",
    "canvas",
    "video",
    "audio",
    "iframe",
    "object",
    "embed",
    "input",
    "button",
    "select",
    "textarea",
    "form",
    "details",
    "dialog",
    "template",
    "noscript",
    "script",
    "ruby",
    "table",
];

/// Classes and ids of what mail programs quote or append.
const QUOTES: [&str; 10] = [
    "gmail_quote",
    "gmail_signature",
    "moz-cite-prefix",
    "moz-signature",
    "yahoo_quoted",
    "protonmail_quote",
    "outlookmessageheader",
    "appendonsend",
    "divrplyfwdmsg",
    "signature",
];

/// HTML as text without what it quotes, strikes out or hides; true: something was left out.
pub fn own_html(html: &str) -> (String, bool) {
    if html.len() > MAX_REPLY || !text::is_simple_html(html) {
        return (text::from_html(text::cut(html, MAX_REPLY)), true);
    }
    let config = html2text::config::plain_no_decorate();
    let Ok(dom) = config.parse_html(html.as_bytes()) else {
        return (text::from_html(html), true);
    };
    let cut = prune(&dom.document);
    let rendered = config
        .dom_to_render_tree(&dom)
        .and_then(|tree| config.render_to_string(tree, 10_000));
    match rendered {
        Ok(text) => (text::plain(&text), cut),
        Err(_) => (text::from_html(html), true),
    }
}

/// Takes out of the tree what is not somebody's own visible text. The tree is not deep.
fn prune(node: &Handle) -> bool {
    let mut children = node.children.borrow_mut();
    let before = children.len();
    children.retain(|child| !is_dropped(child));
    let mut cut = children.len() < before;
    for child in children.iter() {
        cut |= prune(child);
    }
    cut
}

fn is_dropped(node: &Handle) -> bool {
    let (name, attrs) = match &node.data {
        Element { name, attrs, .. } => (name, attrs),
        Comment { .. } => return true,
        _ => return false,
    };
    if DROPPED.contains(&&*name.local) {
        return true;
    }
    attrs.borrow().iter().any(|attribute| {
        let value = attribute.value.to_ascii_lowercase();
        match &*attribute.name.local {
            "hidden" => true,
            "aria-hidden" => value != "false",
            "class" | "id" => QUOTES.iter().any(|quote| value.contains(quote)),
            "style" => value.split(';').any(hides),
            "color" => is_pale(value.trim()),
            "size" => value.trim().starts_with(['-', '0']),
            _ => false,
        }
    })
}

/// Whether a declaration of a style makes text unreadable, or may: what is not known to be
/// harmless is.
fn hides(declaration: &str) -> bool {
    let Some((property, value)) = declaration.split_once(':') else {
        return !declaration.trim().is_empty();
    };
    let (property, value) = (property.trim(), value.trim());
    match property {
        "color" => is_pale(value),
        "font-size" => is_tiny(value),
        "text-decoration" | "text-decoration-line" => value.contains("line-through"),
        "display" => !["block", "inline", "inline-block"].contains(&value),
        "text-align"
        | "line-height"
        | "font-family"
        | "font-weight"
        | "font-style"
        | "background"
        | "background-color"
        | "white-space"
        | "word-wrap"
        | "overflow-wrap"
        | "word-break"
        | "font"
        | "vertical-align"
        | "direction"
        | "font-variant-ligatures"
        | "caret-color"
        | "orphans"
        | "widows" => false,
        _ => ![
            "margin",
            "padding",
            "border",
            "mso-fareast",
            "mso-bidi",
            "-webkit-text-stroke",
        ]
        .iter()
        .any(|harmless| property.starts_with(harmless)),
    }
}

/// Text smaller than this is not read by anybody.
fn is_tiny(value: &str) -> bool {
    const WORDS: [&str; 7] = [
        "small", "medium", "large", "x-large", "smaller", "larger", "inherit",
    ];
    let digits = value.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = value.split_at(digits.unwrap_or(value.len()));
    match (number.parse::<f32>(), unit.trim()) {
        (Ok(size), "px" | "pt") => size < 7.0,
        (Ok(size), "em" | "rem") => size < 0.6,
        (Ok(size), "%") => size < 60.0,
        _ => !WORDS.contains(&value),
    }
}

/// Whether a colour may be that of the paper. Only dark ones are certain not to be.
fn is_pale(value: &str) -> bool {
    const DARK: [&str; 12] = [
        "black",
        "navy",
        "blue",
        "darkblue",
        "red",
        "darkred",
        "green",
        "darkgreen",
        "purple",
        "windowtext",
        "inherit",
        "maroon",
    ];
    let channels: Option<Vec<u32>> = if let Some(hex) = value.strip_prefix('#') {
        match hex.len() {
            3 => hex.chars().map(|c| Some(c.to_digit(16)? * 17)).collect(),
            6 if hex.is_ascii() => (0..3)
                .map(|i| u32::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok())
                .collect(),
            _ => None,
        }
    } else {
        value
            .strip_prefix("rgb(")
            .and_then(|rest| rest.strip_suffix(')'))
            .and_then(|list| list.split(',').map(|c| c.trim().parse().ok()).collect())
    };
    match channels {
        Some(rgb) if rgb.len() == 3 => rgb.iter().sum::<u32>() > 510,
        _ => !DARK.contains(&value),
    }
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
    const ENDS: [&str; 42] = [
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
        "mit freundlichen grüssen",
        "freundliche grüsse",
        "gruss",
        "gruß",
        "thanks & regards",
        "thanks and regards",
        "thanks",
        "many thanks",
        "met vriendelijke groeten",
        "gr",
        "thx",
        "cdt",
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

/// Lines of a signature, at most.
const SIGNATURE_LINES: usize = 8;
const SIGNATURE_WORDS: usize = 20;
/// What stands in a signature besides a name.
const TITLES: [&str; 62] = [
    "service",
    "desk",
    "servicedesk",
    "helpdesk",
    "help",
    "it",
    "lead",
    "team",
    "engineer",
    "eng",
    "technician",
    "tech",
    "technical",
    "support",
    "senior",
    "junior",
    "field",
    "system",
    "systems",
    "network",
    "administrator",
    "admin",
    "analyst",
    "consultant",
    "manager",
    "owner",
    "director",
    "head",
    "level",
    "line",
    "1st",
    "2nd",
    "3rd",
    "l1",
    "l2",
    "l3",
    "n1",
    "n2",
    "n3",
    "n",
    "msp",
    "ltd",
    "limited",
    "inc",
    "llc",
    "gmbh",
    "ag",
    "bv",
    "sa",
    "sl",
    "nv",
    "she",
    "her",
    "he",
    "him",
    "they",
    "them",
    "technicien",
    "techniker",
    "tecnico",
    "mesa",
    "ayuda",
];

/// Text without quoted lines and signature; true: more than a signature was left out.
pub fn own_text(text: &str) -> (String, bool) {
    let mut own = String::new();
    let mut cut = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with('>') {
            cut = true;
            continue;
        }
        if begins_quote(line) {
            return (own, true);
        }
        // A signature ends a text and never begins one.
        if begins_signature(line) && !own.trim().is_empty() {
            return (own, cut || !is_signature(lines));
        }
        own.push_str(line);
        own.push('\n');
    }
    let length = without_name(without_initials(&own)).len();
    own.truncate(length);
    (own, cut)
}

/// Capitals that say something, and are nobody's initials.
const NOT_INITIALS: [&str; 50] = [
    "AD", "AM", "AP", "API", "ASAP", "BTW", "CEO", "CFO", "COB", "CRM", "DC", "DNR", "DNS", "DO",
    "EOB", "EOD", "ERP", "ETA", "HOLD", "HR", "HQ", "IDK", "IT", "JK", "KO", "MFA", "MX", "NA",
    "NAS", "NEE", "NEIN", "NM", "NO", "NON", "NOT", "NOW", "OFF", "OOO", "PC", "PIN", "PM", "PS",
    "SQL", "TBA", "TBC", "TBD", "UPS", "VM", "VPN", "WIP",
];

/// Text without the initials it is signed with: "Go ahead. HW".
fn without_initials(text: &str) -> &str {
    const BREAKS: [char; 9] = ['.', ',', '!', ';', '\n', '-', '–', '—', '/'];
    let end = text.trim_end();
    let mut start = end.len();
    for _ in 0..2 {
        let rest = end[..start].trim_end();
        let at = rest
            .rfind(|c: char| c.is_whitespace() || ",-–—/".contains(c))
            .map_or(0, |at| {
                at + rest[at..].chars().next().map_or(1, char::len_utf8)
            });
        let letters: String = rest[at..].chars().filter(|c| *c != '.').collect();
        let initials = (1..=3).contains(&letters.len())
            && letters.chars().all(|c| c.is_ascii_uppercase())
            && !NOT_INITIALS.contains(&letters.as_str())
            && !super::decides(&rest[at..]);
        if !initials {
            break;
        }
        start = at;
    }
    let before = end[..start].trim_end_matches(' ');
    let said = before.chars().any(char::is_lowercase);
    if start < end.len() && said && before.ends_with(BREAKS) {
        before
    } else {
        text
    }
}

/// Text without the name that its thanks or greetings end with: "Thanks, Ananya".
fn without_name(text: &str) -> &str {
    const CLOSINGS: [&str; 30] = [
        "thanks",
        "thx",
        "ta",
        "cheers",
        "regards",
        "rgds",
        "br",
        "best",
        "lg",
        "vg",
        "mfg",
        "gruss",
        "gruess",
        "grusse",
        "gruesse",
        "danke",
        "merci",
        "cordialement",
        "cdt",
        "cdlt",
        "bises",
        "gracias",
        "saludos",
        "saludo",
        "abrazo",
        "bedankt",
        "groet",
        "groeten",
        "groetjes",
        "mvg",
    ];
    let end = text.trim_end();
    let is_break = |c: char| c.is_whitespace() || c == ',';
    let Some((at, sign)) = end.char_indices().rev().find(|(_, c)| is_break(*c)) else {
        return text;
    };
    let (before, name) = (
        &end[..at],
        end[at + sign.len_utf8()..].trim_end_matches('.'),
    );
    let mut letters = name.chars();
    let titled = letters.next().is_some_and(char::is_uppercase)
        && letters.clone().all(|c| c.is_lowercase() || c == '-')
        && (2..=11).contains(&letters.count());
    let words = words::split(before).words;
    let closes = words
        .last()
        .is_some_and(|w| CLOSINGS.contains(&w.text.as_str()));
    match titled && closes && words.len() > 1 && !super::decides(name) {
        true => before,
        false => text,
    }
}

/// Whether these lines are a name and what stands below one, and nothing else.
fn is_signature<'a>(lines: impl Iterator<Item = &'a str>) -> bool {
    let lines: Vec<&str> = lines.filter(|line| !line.trim().is_empty()).collect();
    let count = |line: &&str| line.split_whitespace().count();
    lines.len() <= SIGNATURE_LINES
        && lines.iter().map(count).sum::<usize>() <= SIGNATURE_WORDS
        && lines.iter().all(|line| is_contact(line) || is_name(line))
}

/// Names and titles: capitalised, and nothing that says anything about a decision.
fn is_name(line: &str) -> bool {
    let titled = |word: &str| {
        let folded = words::split(word).words;
        word.starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit() || "|&/+-(".contains(c))
            || folded.iter().all(|w| TITLES.contains(&w.text.as_str()))
    };
    line.split_whitespace().all(titled) && !super::decides(line)
}

/// A telephone number, or a mail or web address.
fn is_contact(line: &str) -> bool {
    let line = line.trim();
    let digits = line.chars().filter(char::is_ascii_digit).count();
    let number = |c: char| c.is_ascii_digit() || " +-()/.TtMmEel:".contains(c);
    let single = line.split_whitespace().count() == 1;
    (digits >= 6 && line.chars().all(number)) || (single && line.contains(['@', '.']))
}
