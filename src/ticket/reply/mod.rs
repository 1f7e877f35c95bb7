//! Does a reply approve, deny, or neither? Deterministic, offline, careful.
//!
//! A reply approves only when nothing in it could mean anything else: no
//! question, no condition, no part of the steps, no other time, nobody else's
//! words, and few words that are not known. Everything in doubt is neutral and
//! goes to the agent, which may ask again; a wrong yes cannot be taken back.

mod lexicon;
pub mod own;

use crate::text::words::{self, Word};
use lexicon::{Kind, LEXICON, SIGNS};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::LazyLock;

/// What a reply says about a request for approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    Approve,
    Deny,
    Neutral,
}

/// An intent and what it was seen by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Classification {
    pub intent: Intent,
    pub reason: String,
}

/// A yes of more words than this is not only a yes.
const MAX_YES: usize = 40;
/// Unknown words beside a clear yes: names, what it is about.
const UNKNOWN_BESIDE_CLEAR: usize = 2;
/// Words of a name, on its own before or after what is said.
const NAME: usize = 3;
/// A negation this many words before a yes turns it into a no.
const REACH: usize = 3;

/// Words after which an imperative is somebody's doing, not an order.
const SUBJECTS: [&str; 30] = [
    "i", "we", "you", "it", "they", "this", "that", "the", "a", "to", "can", "may", "ich", "wir",
    "du", "je", "nous", "vous", "tu", "yo", "ik", "wij", "zu", "de", "te", "por", "con", "para",
    "y", "and",
];
/// Words a yes only follows when somebody tells about it: "I need to proceed".
const TELLERS: [&str; 10] = [
    "to", "i", "we", "they", "he", "she", "ich", "wir", "ik", "wij",
];
/// What somebody else may have done.
const DECIDED: [&str; 11] = [
    "approved",
    "agreed",
    "confirmed",
    "accepted",
    "authorised",
    "authorized",
    "genehmigt",
    "freigegeben",
    "approuve",
    "aprobado",
    "goedgekeurd",
];
/// Negations that follow what they negate, in German, Dutch and French.
const AFTER: [&str; 6] = ["nicht", "niet", "pas", "nie", "nooit", "jamais"];
/// With nothing but thanks, rather "seen" than "yes".
const SEEN: [&str; 6] = ["ok", "okay", "okey", "oki", "oke", "alright"];

struct Phrases {
    /// By first word: (the rest, kind), longest first.
    by_first: HashMap<String, Vec<(Vec<String>, Kind)>>,
    signs: HashMap<String, Kind>,
    /// Single clear words, for typing mistakes.
    clear: Vec<String>,
}

static PHRASES: LazyLock<Phrases> = LazyLock::new(|| {
    let mut by_first: HashMap<String, Vec<(Vec<String>, Kind)>> = HashMap::new();
    let mut clear = Vec::new();
    for (kind, list) in LEXICON {
        for phrase in list.split('|') {
            let mut parts = phrase
                .split([' ', '-'])
                .filter(|p| !p.is_empty())
                .map(str::to_string);
            let Some(first) = parts.next() else { continue };
            let rest: Vec<String> = parts.collect();
            if *kind == Kind::Yes && rest.is_empty() && first.len() >= 6 {
                clear.push(first.clone());
            }
            by_first.entry(first).or_default().push((rest, *kind));
        }
    }
    for phrases in by_first.values_mut() {
        // The longest phrase counts; of equal ones the one that is less of a yes.
        phrases.sort_by_key(|(rest, kind)| {
            (std::cmp::Reverse(rest.len()), rank(*kind, !rest.is_empty()))
        });
    }
    let signs = SIGNS
        .iter()
        .flat_map(|(kind, signs)| signs.chars().map(move |c| (c.to_string(), *kind)))
        .collect();
    Phrases {
        by_first,
        signs,
        clear,
    }
});

/// Of two meanings of one word the one that holds up more wins.
fn rank(kind: Kind, several: bool) -> u8 {
    match kind {
        Kind::Polite if several => 8,
        Kind::Harmless => 0,
        Kind::Asks | Kind::Irony => 1,
        Kind::No | Kind::Forbids => 2,
        Kind::NoAtStart | Kind::Negates => 3,
        Kind::Yes => 4,
        Kind::YesAtStart => 5,
        // Small words of one language that mean something in another.
        Kind::Polite => 6,
        _ => 7,
    }
}

/// A phrase found, and where.
struct Hit {
    kind: Option<Kind>,
    at: usize,
    first: bool,
    quoted: bool,
    text: String,
}

/// Classifies a reply's plain text.
pub fn classify_text(text: &str) -> Classification {
    let text = crate::text::plain(text);
    let (own, cut) = own::own_text(&text);
    judge(&own, cut)
}

/// Classifies a reply's HTML.
pub fn classify_html(html: &str) -> Classification {
    let (text, cut_html) = own::own_html(html);
    let (own, cut) = own::own_text(&text);
    judge(&own, cut || cut_html)
}

fn judge(own: &str, cut: bool) -> Classification {
    let words = words::split(own);
    if words.words.is_empty() {
        return neutral(if words.question {
            "a question".into()
        } else if cut {
            "nothing but a quote or a signature".into()
        } else {
            "empty".into()
        });
    }
    let hits = find(&words.words);
    let is = |kind: Kind| hits.iter().find(move |h| h.kind == Some(kind));

    let mut yes = Vec::new();
    let mut no: Option<&Hit> = None;
    for (i, hit) in hits.iter().enumerate() {
        match hit.kind {
            Some(Kind::Yes) => yes.push((i, true)),
            Some(Kind::YesAtStart) if leads(&hits, i) => yes.push((i, false)),
            Some(Kind::No) => no = no.or(Some(hit)),
            Some(Kind::NoAtStart | Kind::Forbids) if hit.first || leads(&hits, i) => {
                no = no.or(Some(hit))
            }
            _ => {}
        }
    }
    // "Kim approved": not the writer's decision.
    let others = yes.iter().find(|(i, _)| {
        *i > 0
            && !hits[*i].first
            && hits[*i - 1].kind.is_none()
            && DECIDED.contains(&hits[*i].text.as_str())
    });
    let others = others.map(|(i, _)| format!("{} {}", hits[*i - 1].text, hits[*i].text));
    yes.retain(|(i, _)| {
        let told = *i > 0 && !hits[*i].first && TELLERS.contains(&hits[*i - 1].text.as_str());
        !(told
            && matches!(
                hits[*i].text.as_str(),
                "proceed" | "go ahead" | "carry on" | "execute" | "approve"
            ))
    });
    // "Not approved", "we can't go ahead": a yes with a negation before it is a no;
    // "ich genehmige das nicht": in some languages with one after it.
    yes.retain(|(i, clear)| {
        let mut before = hits[..*i]
            .iter()
            .rev()
            .take_while(|h| hits[*i].at - h.at <= REACH);
        let after = hits[*i + 1..]
            .iter()
            .take_while(|h| !h.first && h.at - hits[*i].at <= REACH + 2)
            .find(|h| AFTER.contains(&h.text.as_str()));
        let denies = before
            .find(|h| matches!(h.kind, Some(Kind::Negates | Kind::Forbids)))
            .or(after.filter(|_| {
                *clear || hits[*i].text.starts_with("mach") || hits[*i].text.starts_with("doe")
            }));
        no = no.or(denies);
        denies.is_none()
    });

    for (kind, why) in [
        (Kind::Irony, "perhaps not meant so"),
        (Kind::Harmless, "no decision"),
        (Kind::Asks, "asks for an approval"),
        (Kind::Wait, "wants to wait"),
        (Kind::Hedge, "not sure"),
    ] {
        if let Some(hit) = is(kind).filter(|_| kind != Kind::Harmless || no.is_none()) {
            return neutral(format!("{why} ('{}')", hit.text));
        }
    }
    if words.question {
        return neutral("a question ('?')".into());
    }
    if let Some(others) = others {
        return neutral(format!("somebody else's decision ('{others}')"));
    }
    if let Some(no) = no {
        if !yes.is_empty() {
            return neutral(format!(
                "yes ('{}') and no ('{}')",
                hits[yes[0].0].text, no.text
            ));
        }
        if no.quoted {
            return neutral(format!("quotes somebody ('{}')", no.text));
        }
        for (kind, why) in [
            (Kind::Condition, "conditional"),
            (Kind::Part, "a part of it"),
            (Kind::Later, "another time"),
        ] {
            // "No, I will do it by hand" is a no.
            let does_it = |h: &&Hit| {
                no.first
                    && matches!(
                        h.text.as_str(),
                        "i will" | "ill" | "i am going to" | "im going to"
                    )
            };
            if let Some(hit) =
                is(kind).filter(|h| (!no.first || kind != Kind::Condition) && !does_it(h))
            {
                return neutral(format!("{why} ('{}')", hit.text));
            }
        }
        let unknown = hits.iter().filter(|h| h.kind.is_none()).count();
        let clear = no.at == 0
            || leads(
                &hits,
                hits.iter()
                    .position(|h| std::ptr::eq(h, no))
                    .unwrap_or_default(),
            );
        if !clear && (unknown > 6 || is(Kind::Report).is_some()) {
            return neutral(format!("more than a no ('{}')", no.text));
        }
        return Classification {
            intent: Intent::Deny,
            reason: format!("'{}'", no.text),
        };
    }
    if let Some(hit) = is(Kind::Question) {
        return neutral(format!("a question ('{}')", hit.text));
    }
    let Some((at, clear)) = yes.iter().max_by_key(|(_, clear)| *clear).copied() else {
        return neutral("no decision in it".into());
    };
    for (kind, why) in [
        (Kind::Condition, "conditional"),
        (Kind::Part, "a part of it"),
        (Kind::Later, "another time, or done by somebody else"),
        (Kind::Others, "somebody else's words or decision"),
        (Kind::More, "wants something else as well"),
        (Kind::Report, "tells how things stand"),
        (Kind::Negates, "a negation"),
        (Kind::NoAtStart, "a negation"),
    ] {
        if let Some(hit) = is(kind) {
            return neutral(format!("{why} ('{}')", hit.text));
        }
    }
    if yes.iter().all(|(i, _)| hits[*i].quoted) {
        return neutral(format!("quotes somebody ('{}')", hits[at].text));
    }
    if let Some(number) = hits
        .iter()
        .find(|h| h.kind.is_none() && h.text.chars().any(|c| c.is_ascii_digit()))
    {
        return neutral(format!("a number in it ('{}')", number.text));
    }
    if words.words.len() > MAX_YES {
        return neutral("much more than a yes".into());
    }
    let unknown = beside_names(&hits);
    if unknown.len() > if clear { UNKNOWN_BESIDE_CLEAR } else { 0 } {
        return neutral(format!("more than a yes ('{}')", unknown[0]));
    }
    // "Ok thanks" may mean that it was seen, no more.
    let thanks = hits.iter().any(|h| {
        matches!(
            h.text.as_str(),
            "thanks" | "thank you" | "thx" | "danke" | "merci" | "gracias" | "bedankt"
        )
    });
    if thanks
        && yes
            .iter()
            .all(|(i, _)| SEEN.contains(&hits[*i].text.as_str()))
    {
        return neutral(format!("perhaps only seen ('{}')", hits[at].text));
    }
    Classification {
        intent: Intent::Approve,
        reason: format!("'{}'", hits[at].text),
    }
}

fn neutral(reason: String) -> Classification {
    Classification {
        intent: Intent::Neutral,
        reason,
    }
}

/// Unknown words, but for a name that stands on its own before or after what is said.
fn beside_names(hits: &[Hit]) -> Vec<&str> {
    let mut sentences: Vec<&[Hit]> = Vec::new();
    let mut from = 0;
    for i in 1..=hits.len() {
        if i == hits.len() || hits[i].first {
            sentences.push(&hits[from..i]);
            from = i;
        }
    }
    let last = sentences.len().saturating_sub(1);
    let is_name = |s: &[Hit]| s.len() <= NAME && s.iter().all(|h| h.kind.is_none());
    let beside = sentences
        .iter()
        .enumerate()
        .filter(|(i, s)| !((*i == 0 || *i == last) && is_name(s)));
    beside
        .flat_map(|(_, s)| s.iter())
        .filter(|h| h.kind.is_none())
        .map(|h| h.text.as_str())
        .collect()
}

/// Whether only polite words or another yes stand before it in the whole reply's sentence.
fn leads(hits: &[Hit], i: usize) -> bool {
    for (at, hit) in hits[..=i].iter().enumerate().rev() {
        if at < i {
            let harmless = matches!(hit.kind, Some(Kind::Polite | Kind::Yes | Kind::YesAtStart))
                && !SUBJECTS.contains(&hit.text.as_str());
            if !harmless {
                return false;
            }
        }
        if hit.first {
            return true;
        }
    }
    true
}

/// Cuts the words into known phrases, the longest first.
fn find(words: &[Word]) -> Vec<Hit> {
    let mut hits = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let word = &words[at];
        let known = PHRASES.by_first.get(&word.text).and_then(|phrases| {
            phrases.iter().find(|(rest, _)| {
                words[at + 1..].len() >= rest.len()
                    && words[at + 1..]
                        .iter()
                        .zip(rest)
                        .all(|(w, r)| w.text == *r && !w.first)
            })
        });
        let (kind, length) = match known {
            Some((rest, kind)) => (Some(*kind), rest.len() + 1),
            None => (
                PHRASES
                    .signs
                    .get(&word.text)
                    .copied()
                    .or_else(|| misspelt(&word.text)),
                1,
            ),
        };
        // Typed without its accent, Spanish yes stands alone in its sentence; if does not.
        let alone = word.text == "si" && word.first && words.get(at + 1).is_none_or(|w| w.first);
        let kind = if alone { Some(Kind::YesAtStart) } else { kind };
        let text: Vec<&str> = words[at..at + length]
            .iter()
            .map(|w| w.text.as_str())
            .collect();
        hits.push(Hit {
            kind,
            at,
            first: word.first,
            quoted: word.quoted,
            text: text.join(" "),
        });
        at += length;
    }
    hits
}

/// A clear yes with one letter wrong, missing, doubled or swapped.
fn misspelt(word: &str) -> Option<Kind> {
    // "unapproved" and the like are words of their own.
    let fits = word.len() >= 5
        && !word.starts_with("un")
        && !word.starts_with("dis")
        && !word.starts_with("ab");
    (fits && PHRASES.clear.iter().any(|clear| one_off(clear, word))).then_some(Kind::Yes)
}

/// Whether two words differ by one letter more, less, other, or swapped.
pub fn one_off(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 1 || a == b {
        return false;
    }
    let same = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let (ra, rb) = (&a[same..], &b[same..]);
    match ra.len().cmp(&rb.len()) {
        std::cmp::Ordering::Equal => {
            ra[1..] == rb[1..]
                || (ra.len() > 1 && ra[0] == rb[1] && ra[1] == rb[0] && ra[2..] == rb[2..])
        }
        std::cmp::Ordering::Greater => ra[1..] == *rb,
        std::cmp::Ordering::Less => *ra == rb[1..],
    }
}

#[cfg(test)]
mod tests;
