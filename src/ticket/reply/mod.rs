//! Does a reply approve, deny, or neither? Deterministic and offline.
//!
//! A reply approves only if it is understood to the last word and nothing in it
//! could mean anything else: no question, no condition, no part of the steps, no
//! other time, nobody else's words. Everything in doubt is neutral and goes to
//! the agent, which may ask again; a wrong yes cannot be taken back.
//!
//! - [`own`]: what somebody wrote themselves
//! - `lexicon`: phrases, and what they do to a decision
//! - here: which phrases a reply holds, and which of them say yes or no
//! - `rules`: what they decide together

mod lexicon;
pub mod own;
mod rules;

use crate::text::words::{self, Word, Words};
use lexicon::{Kind, SIGNS};
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

/// An intent, and what it was recognized by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Classification {
    pub intent: Intent,
    pub reason: String,
}

/// A negation this many words before a yes turns it into a no.
const REACH: usize = 3;

/// After these words an imperative describes what somebody does; it is not an order.
const SUBJECTS: [&str; 30] = [
    "i", "we", "you", "it", "they", "this", "that", "the", "a", "to", "can", "may", "ich", "wir",
    "du", "je", "nous", "vous", "tu", "yo", "ik", "wij", "zu", "de", "te", "por", "con", "para",
    "y", "and",
];
/// After these words some phrases describe a yes and do not give one: "I need to proceed".
const TELLERS: [&str; 10] = [
    "to", "i", "we", "they", "he", "she", "ich", "wir", "ik", "wij",
];
/// The phrases that may only describe a yes.
const TOLD: [&str; 5] = ["proceed", "go ahead", "carry on", "execute", "approve"];
/// After an unknown word these are somebody else's decision: "Kim approved".
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
/// These may confirm a fact ("confirmed phishing") rather than agree to the steps.
const CONFIRM: [&str; 16] = [
    "confirmed",
    "i confirm",
    "agreed",
    "i agree",
    "i concur",
    "concur",
    "accepted",
    "noted",
    "bestatigt",
    "ich bestatige",
    "je confirme",
    "confirmado",
    "lo confirmo",
    "bevestigd",
    "ik bevestig",
    "mee eens",
];
/// A surname follows these.
const HONORIFICS: [&str; 18] = [
    "mr", "mrs", "ms", "miss", "dr", "frau", "herr", "herrn", "madame", "mme", "monsieur",
    "senora", "senor", "sra", "mevrouw", "mevr", "meneer", "dhr",
];
/// Negations that follow what they negate, in German, Dutch and French.
const AFTER: [&str; 6] = ["nicht", "niet", "pas", "nie", "nooit", "jamais"];

struct Phrases {
    /// By first word: (the rest, kind), longest first.
    by_first: HashMap<String, Vec<(Vec<String>, Kind)>>,
    signs: HashMap<String, Kind>,
    /// Single words that clearly say yes, for typing mistakes.
    clear: Vec<String>,
}

static PHRASES: LazyLock<Phrases> = LazyLock::new(|| {
    let mut by_first: HashMap<String, Vec<(Vec<String>, Kind)>> = HashMap::new();
    let mut clear = Vec::new();
    for (kind, phrase) in lexicon::phrases() {
        let mut parts = phrase.split_whitespace().map(str::to_string);
        let Some(first) = parts.next() else { continue };
        let rest: Vec<String> = parts.collect();
        if kind == Kind::Yes && rest.is_empty() && first.len() >= 6 {
            clear.push(first.clone());
        }
        by_first.entry(first).or_default().push((rest, kind));
    }
    for phrases in by_first.values_mut() {
        // The longest phrase counts; of equally long ones, the one that is less of a yes.
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

/// Of two meanings of one phrase, the more cautious one wins.
fn rank(kind: Kind, several: bool) -> u8 {
    match kind {
        Kind::Harmless => 0,
        Kind::Asks | Kind::Irony => 1,
        Kind::No | Kind::Forbids => 2,
        Kind::NoAtStart | Kind::Negates => 3,
        Kind::Yes => 4,
        Kind::Order | Kind::YesAtStart => 5,
        // Small words of one language that mean something in another.
        Kind::Polite if !several => 6,
        Kind::Polite => 9,
        Kind::Link => 8,
        Kind::Fact | Kind::Topic | Kind::Person | Kind::Story => 10,
        _ => 7,
    }
}

/// A phrase of a reply, or an unknown word.
struct Hit {
    /// None: the word is unknown.
    kind: Option<Kind>,
    /// Its first word, counted in words.
    at: usize,
    /// It begins a sentence.
    first: bool,
    /// It is in quotation marks.
    quoted: bool,
    text: String,
}

/// A phrase that says yes.
#[derive(Clone, Copy)]
struct Yes {
    /// Its place in [`Hits::all`].
    hit: usize,
    /// It says yes wherever it is in a sentence.
    clear: bool,
    /// It cannot be the answer to a question: "go ahead", not "yes".
    strong: bool,
}

/// A reply as phrases, and which of them say yes or no.
struct Hits {
    all: Vec<Hit>,
    /// The number of words.
    words: usize,
    /// It contains a question mark.
    question: bool,
    /// Something was left out: a quote, hidden text, an image.
    cut: bool,
    /// What says yes, in order.
    yes: Vec<Yes>,
    /// What says no: its place in `all`.
    no: Option<usize>,
    /// Somebody else's decision, like "kim approved".
    others: Option<String>,
}

impl Hits {
    fn of(words: &Words, cut: bool) -> Self {
        let all = find(&words.words);
        let (mut yes, mut no) = decisions(&all);
        let others = others_decision(&all, &yes);
        yes.retain(|yes| !is_told(&all, yes.hit));
        // "Not approved" and "we can't go ahead" are a no.
        yes.retain(|yes| {
            let negated = negation_of(&all, *yes);
            no = no.or(negated);
            negated.is_none()
        });
        Self {
            words: words.words.len(),
            question: words.question,
            all,
            cut,
            yes,
            no,
            others,
        }
    }

    /// The first phrase of this kind.
    fn first(&self, kind: Kind) -> Option<&Hit> {
        self.all.iter().find(|hit| hit.kind == Some(kind))
    }

    /// The phrase that says no.
    fn no(&self) -> Option<&Hit> {
        Some(&self.all[self.no?])
    }

    /// The phrase that says yes: the last clear one, or else the last one.
    fn yes(&self) -> Option<(&Hit, Yes)> {
        let yes = *self.yes.iter().max_by_key(|yes| yes.clear)?;
        Some((&self.all[yes.hit], yes))
    }
}

/// Classifies a reply's plain text.
pub fn classify_text(text: &str) -> Classification {
    let whole = text.len() <= own::MAX_REPLY;
    let (own, cut) = own::own_text(&crate::text::plain(text));
    judge(&own, cut || !whole)
}

/// Classifies a reply's HTML.
pub fn classify_html(html: &str) -> Classification {
    let (text, cut_html) = own::own_html(html);
    let (own, cut) = own::own_text(&text);
    judge(&own, cut || cut_html)
}

fn judge(own: &str, cut: bool) -> Classification {
    let hits = Hits::of(&words::split(own), cut);
    rules::RULES
        .iter()
        .find_map(|(_, rule)| rule(&hits))
        .unwrap_or_else(|| neutral("no decision".into()))
}

fn neutral(reason: String) -> Classification {
    Classification {
        intent: Intent::Neutral,
        reason,
    }
}

/// Every phrase that says yes, and the first that says no.
fn decisions(hits: &[Hit]) -> (Vec<Yes>, Option<usize>) {
    let (mut yes, mut no) = (Vec::new(), None);
    for (i, hit) in hits.iter().enumerate() {
        match hit.kind {
            Some(Kind::Yes) => yes.push(Yes {
                hit: i,
                clear: true,
                strong: !CONFIRM.contains(&hit.text.as_str()),
            }),
            Some(kind @ (Kind::Order | Kind::YesAtStart)) if leads(hits, i) => yes.push(Yes {
                hit: i,
                clear: false,
                strong: kind == Kind::Order,
            }),
            Some(Kind::No) => no = no.or(Some(i)),
            Some(Kind::NoAtStart | Kind::Forbids) if leads(hits, i) => no = no.or(Some(i)),
            _ => {}
        }
    }
    (yes, no)
}

/// "Kim approved" is not the writer's decision.
fn others_decision(hits: &[Hit], yes: &[Yes]) -> Option<String> {
    let i = yes.iter().map(|yes| yes.hit).find(|i| {
        *i > 0
            && !hits[*i].first
            && matches!(hits[*i - 1].kind, None | Some(Kind::Person | Kind::Topic))
            && DECIDED.contains(&hits[*i].text.as_str())
    })?;
    Some(format!("{} {}", hits[i - 1].text, hits[i].text))
}

/// Whether a yes is only described: "I need to proceed".
fn is_told(hits: &[Hit], i: usize) -> bool {
    i > 0
        && !hits[i].first
        && TELLERS.contains(&hits[i - 1].text.as_str())
        && TOLD.contains(&hits[i].text.as_str())
}

/// What turns a yes into a no: a negation before it, or one after it where a language has it
/// there ("ich genehmige das nicht").
fn negation_of(hits: &[Hit], yes: Yes) -> Option<usize> {
    let hit = &hits[yes.hit];
    let before = (0..yes.hit)
        .rev()
        .take_while(|i| !hits[*i + 1].first && hit.at - hits[*i].at <= REACH)
        .find(|i| matches!(hits[*i].kind, Some(Kind::Negates | Kind::Forbids)));
    let after = (yes.hit + 1..hits.len())
        .take_while(|i| !hits[*i].first && hits[*i].at - hit.at <= REACH + 2)
        .find(|i| AFTER.contains(&hits[*i].text.as_str()));
    let negatable = yes.clear || hit.text.starts_with("mach") || hit.text.starts_with("doe");
    before.or(after.filter(|_| negatable))
}

/// Whether nothing but polite words and other yeses precede it in its sentence.
fn leads(hits: &[Hit], i: usize) -> bool {
    for (at, hit) in hits[..=i].iter().enumerate().rev() {
        if at < i {
            let harmless = matches!(
                hit.kind,
                Some(Kind::Polite | Kind::Yes | Kind::Order | Kind::YesAtStart)
            );
            if !harmless || SUBJECTS.contains(&hit.text.as_str()) {
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
        let named = HONORIFICS.contains(&word.text.as_str())
            && words.get(at + 1).is_some_and(is_plain_name);
        let (kind, length) = match known {
            _ if named => (Some(Kind::Person), 2),
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
        // Typed without its accent, Spanish "sí" (yes) is a sentence of its own; "si" (if) is not.
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

/// Whether anything in a text could be part of a decision.
fn decides(text: &str) -> bool {
    use Kind::{Fact, Link, Person, Polite, Story, Topic};
    let harmless = |hit: &Hit| {
        matches!(
            hit.kind,
            None | Some(Fact | Link | Person | Polite | Story | Topic)
        )
    };
    !find(&words::split(text).words).iter().all(harmless)
}

/// A word that may be a surname: nothing else is known of it.
fn is_plain_name(word: &Word) -> bool {
    !word.first
        && word.text.chars().all(char::is_alphabetic)
        && !PHRASES.by_first.contains_key(&word.text)
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
