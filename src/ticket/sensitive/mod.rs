//! Is a ticket sensitive: does it ask for what an attacker would ask for?
//! Deterministic, offline, and in doubt yes: a false alarm costs the requester a
//! tap on a phone.
//!
//! Whoever writes a ticket may want it to look harmless. So everything is read ([`reading`]), what
//! cannot be read counts as sensitive, and words that make a match harmless have to stand right
//! beside it. Time is linear in the length of the text.

mod reading;
mod rules;

use crate::text;
use crate::text::invisible::is_invisible;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use reading::{Invisible, Reading};
use rules::{RULES, Rule};
use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    PasswordReset,
    AccountUnlock,
    MfaReset,
    AdminRights,
    MailboxAccess,
    PayrollChange,
    RemoteAccess,
    OffBoarding,
    RecoveryCodes,
    VipChange,
    /// Letters of another script.
    Unreadable,
    /// More than is read.
    TooLong,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::PasswordReset => "password-reset",
            Kind::AccountUnlock => "account-unlock",
            Kind::MfaReset => "mfa-reset",
            Kind::AdminRights => "admin-rights",
            Kind::MailboxAccess => "mailbox-access",
            Kind::PayrollChange => "payroll-change",
            Kind::RemoteAccess => "remote-access",
            Kind::OffBoarding => "off-boarding",
            Kind::RecoveryCodes => "recovery-codes",
            Kind::VipChange => "vip-change",
            Kind::Unreadable => "unreadable",
            Kind::TooLong => "too-long",
        }
    }
}

/// Why a ticket is sensitive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// A built-in [`Kind`], like `mfa-reset`, or the name of one of the MSP's rules.
    pub kind: String,
    pub evidence: Evidence,
}

/// What makes a ticket sensitive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Words on the ticket: they are the requester's.
    Words(String),
    /// The rule's `when` holds.
    Rule,
    /// Not everything was read.
    Length,
}

impl Reason {
    /// The kind alone, for where the requester's words must not appear.
    pub fn without_words(&self) -> String {
        self.kind.clone()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.evidence {
            Evidence::Words(words) => write!(f, "{}: '{words}'", self.kind),
            Evidence::Rule => write!(f, "{}: its rule holds", self.kind),
            Evidence::Length => write!(f, "{}: more text than is read", self.kind),
        }
    }
}

/// What a ticket says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Text<'a> {
    pub subject: &'a str,
    /// Plain text.
    pub details: &'a str,
    pub category: &'a str,
    pub ticket_type: &'a str,
    /// There is more, which is not here.
    pub is_cut: bool,
}

/// At most this many words between a thing and what is to be done with it.
const WINDOW: usize = 9;
/// More words than any phrase has.
const LONGEST: usize = 16;
/// Only words of at least this many letters may be misspelt.
const MISSPELT: usize = 7;
/// Base64 shorter than this hides nothing.
const ENCODED: usize = 16;
/// The longest quotation, in characters.
const MAX_QUOTE: usize = 200;

/// Between a thing and what makes it harmless: "unlock the file".
const ARTICLES: [&str; 28] = [
    "the", "a", "an", "this", "that", "these", "der", "die", "das", "den", "dem", "ein", "eine",
    "einen", "le", "la", "les", "un", "une", "el", "los", "las", "una", "de", "het", "een", "il",
    "uma",
];
/// Before a thing of somebody's own, of which nothing makes it harmless.
const POSSESSIVES: [&str; 37] = [
    "my", "his", "her", "their", "your", "mein", "meine", "meinen", "meinem", "meiner", "sein",
    "seine", "seinen", "ihr", "ihre", "ihren", "mon", "ma", "mes", "son", "sa", "ses", "mi", "mis",
    "su", "sus", "tu", "mijn", "zijn", "haar", "hun", "minha", "meu", "mia", "mio", "jouw",
    "votre",
];

/// A phrase: its words; true: any ending may follow.
type Phrase = Vec<(String, bool)>;

struct Compiled {
    kind: Kind,
    what: Index,
    deed: Option<Index>,
    not: Index,
}

/// Phrases by the first two letters of their first word.
struct Index(HashMap<[char; 2], Vec<Phrase>>);

/// The words of a phrase in a reading: the first, and the one after the last.
#[derive(Clone, Copy, Debug)]
struct Found {
    from: usize,
    to: usize,
}

static COMPILED: LazyLock<Vec<Compiled>> = LazyLock::new(|| {
    let compile = |rule: &Rule| Compiled {
        kind: rule.kind,
        what: Index::new(rule.what),
        deed: (!rule.deed.is_empty()).then(|| Index::new(rule.deed)),
        not: Index::new(rule.not),
    };
    RULES.iter().map(compile).collect()
});

impl Index {
    fn new(list: &str) -> Self {
        let mut index: HashMap<[char; 2], Vec<Phrase>> = HashMap::new();
        for phrase in list.split('|').filter(|p| !p.is_empty()) {
            let words: Phrase = phrase
                .split(' ')
                .map(|w| (w.trim_end_matches('*').to_string(), w.ends_with('*')))
                .collect();
            if let Some((first, _)) = words.first() {
                index.entry(beginning(first)).or_default().push(words);
            }
        }
        for phrases in index.values_mut() {
            phrases.sort_by_key(|p| std::cmp::Reverse(p.len()));
        }
        Self(index)
    }

    /// Where phrases are, in their order. `close`: nothing stands between their words.
    fn find(&self, reading: &Reading, close: bool) -> Vec<Found> {
        let words = &reading.words;
        let mut found = Vec::new();
        for (from, first) in words.iter().enumerate() {
            let fits = |phrase: &&Phrase| {
                let Some(given) = words.get(from..from + phrase.len()) else {
                    return false;
                };
                let mut pairs = phrase.iter().zip(given);
                pairs.all(|((word, open), given)| same(word, *open, &given.text))
                    && given
                        .iter()
                        .all(|w| reading.related(first.sentence, w.sentence))
                    && !(close && given.iter().skip(1).any(|w| w.apart))
            };
            let phrases = self.0.get(&beginning(&first.text));
            if let Some(phrase) = phrases.and_then(|phrases| phrases.iter().find(fits)) {
                let to = from + phrase.len();
                found.push(Found { from, to });
            }
        }
        found
    }
}

fn beginning(word: &str) -> [char; 2] {
    let mut letters = word.chars();
    let mut next = || letters.next().unwrap_or(' ');
    [next(), next()]
}

/// Whether the given word is this one, begins with it, or has one letter wrong.
fn same(word: &str, open: bool, given: &str) -> bool {
    if word == given || (open && given.starts_with(word)) {
        return true;
    }
    let long = word.len() >= MISSPELT && given.len() >= MISSPELT;
    let given = if open {
        text::cut(given, word.len() + 1)
    } else {
        given
    };
    long && super::reply::one_off(word, given)
}

/// Text as it is searched for keywords.
pub fn folded(text: &str) -> String {
    reading::folded(text)
}

/// Why a ticket is sensitive; empty: it is not.
pub fn classify(text: &Text<'_>) -> Vec<Reason> {
    let mut found: Vec<(Kind, Evidence)> = Vec::new();
    let mut add = |kind: Kind, evidence: Option<Evidence>| {
        if let Some(evidence) = evidence
            && !found.iter().any(|(known, _)| *known == kind)
        {
            found.push((kind, evidence));
        }
    };
    let hidden = decoded(text.details);
    let others = [text.category, text.ticket_type, hidden.as_str()];
    let mut readings = vec![Invisible::Nothing];
    if [text.subject, text.details, text.category]
        .iter()
        .any(|t| t.chars().any(is_invisible))
    {
        readings.push(Invisible::Blank);
    }
    for invisible in readings {
        let reading = Reading::new(text.subject, text.details, &others, invisible);
        for rule in COMPILED.iter() {
            add(rule.kind, rule.applies(&reading).map(Evidence::Words));
        }
        add(Kind::Unreadable, reading.unreadable.map(Evidence::Words));
    }
    add(Kind::TooLong, text.is_cut.then_some(Evidence::Length));
    found.sort_by_key(|(kind, _)| *kind);
    found
        .into_iter()
        .map(|(kind, evidence)| Reason {
            kind: kind.as_str().into(),
            evidence,
        })
        .collect()
}

/// The text in a text's base64, which a language model reads like any other.
fn decoded(text: &str) -> String {
    let mut decoded = String::new();
    for token in text.split_whitespace() {
        let token = token.trim_matches(|c: char| !c.is_ascii_alphanumeric() && !"+/".contains(c));
        if token.len() < ENCODED {
            continue;
        }
        let bytes = STANDARD_NO_PAD
            .decode(token)
            .or_else(|_| URL_SAFE_NO_PAD.decode(token));
        let hidden = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some(hidden) = hidden.filter(|h| is_prose(h)) {
            decoded.push_str(&hidden);
            decoded.push(' ');
        }
    }
    decoded
}

fn is_prose(text: &str) -> bool {
    let of_prose = |c: &char| c.is_alphabetic() || *c == ' ';
    let (of_prose, all) = (text.chars().filter(of_prose).count(), text.chars().count());
    of_prose * 5 >= all * 4
}

impl Compiled {
    /// The words by which the rule applies.
    fn applies(&self, reading: &Reading) -> Option<String> {
        let mut what = self.what.find(reading, false);
        if what.is_empty() {
            return None;
        }
        let harmless = reading.covered(&self.not.find(reading, true));
        what.retain(|thing| !reading.is_harmless(*thing, &harmless));
        let first = *what.first()?;
        match &self.deed {
            None => Some(reading.quote(first.from, first.to)),
            Some(deed) => nearest(reading, &what, &deed.find(reading, false)),
        }
    }
}

/// The words of the closest pair of a thing and what is to be done with it, if one is close enough.
fn nearest(reading: &Reading, what: &[Found], deeds: &[Found]) -> Option<String> {
    let mut best: Option<(usize, Found, Found)> = None;
    let mut consider = |gap: usize, thing: Found, deed: Found| {
        if gap <= WINDOW && best.is_none_or(|(least, _, _)| gap < least) {
            best = Some((gap, thing, deed));
        }
    };
    for thing in what {
        let (start, end) = reading.span(*thing);
        let too_early = |deed: &Found| reading.span(*deed).0 + LONGEST + WINDOW < start;
        for deed in &deeds[deeds.partition_point(too_early)..] {
            let (from, to) = reading.span(*deed);
            if from > end + WINDOW {
                break;
            }
            // A word is not near itself.
            if (from >= end || start >= to) && reading.belong(*thing, *deed) {
                let gap = from.saturating_sub(end).max(start.saturating_sub(to));
                consider(gap, *thing, *deed);
            }
        }
    }
    // "Password" in the subject and "please reset it" below belong together.
    let last = |all: &[Found]| {
        let tails = all.iter().filter_map(|f| Some((reading.tail(*f)?, *f)));
        tails.min_by_key(|(tail, _)| *tail)
    };
    if let Some((tail, thing)) = last(what) {
        for deed in deeds {
            if let Some(lead) = reading.lead(*deed) {
                consider(tail + lead, thing, *deed);
            }
        }
    }
    if let Some((tail, deed)) = last(deeds) {
        for thing in what {
            if let Some(lead) = reading.lead(*thing) {
                consider(tail + lead, *thing, deed);
            }
        }
    }
    let (_, thing, deed) = best?;
    if reading.belong(thing, deed) {
        return Some(reading.quote(thing.from.min(deed.from), thing.to.max(deed.to)));
    }
    let (first, second) = match thing.from < deed.from {
        true => (thing, deed),
        false => (deed, thing),
    };
    let quote = |found: Found| reading.quote(found.from, found.to);
    Some(format!("{} … {}", quote(first), quote(second)))
}

impl Reading {
    /// The positions of a phrase: the first, and the one after the last.
    fn span(&self, found: Found) -> (usize, usize) {
        (self.words[found.from].at, self.words[found.to - 1].at + 1)
    }

    fn belong(&self, one: Found, other: Found) -> bool {
        let (first, last) = match one.from < other.from {
            true => (one.from, other.to - 1),
            false => (other.from, one.to - 1),
        };
        self.related(self.words[first].sentence, self.words[last].sentence)
    }

    /// Words between a phrase of the subject and the subject's end.
    fn tail(&self, found: Found) -> Option<usize> {
        self.head?.checked_sub(self.span(found).1)
    }

    /// Words before a phrase of the details in its sentence.
    fn lead(&self, found: Found) -> Option<usize> {
        let (start, end) = self.span(found);
        let began = self.sentences[self.words[found.from].sentence].0;
        let is_below = self.head.is_none_or(|head| start >= head) && end <= self.body;
        is_below.then(|| start - began)
    }

    /// Which words are part of one of the phrases.
    fn covered(&self, phrases: &[Found]) -> Vec<bool> {
        let mut covered = vec![false; self.words.len()];
        for phrase in phrases {
            covered[phrase.from..phrase.to].fill(true);
        }
        covered
    }

    /// Whether a thing is part of a harmless phrase, or one stands right beside it.
    fn is_harmless(&self, thing: Found, harmless: &[bool]) -> bool {
        if harmless[thing.from..thing.to].contains(&true) {
            return true;
        }
        if self.is_somebodys(thing) {
            return false;
        }
        let beside = |at: usize, step: isize| {
            let next = self.beside(at, step)?;
            let is_article = ARTICLES.contains(&self.words[next].text.as_str());
            match harmless[next] {
                false if is_article => self.beside(next, step).map(|next| harmless[next]),
                found => Some(found),
            }
        };
        beside(thing.from, -1) == Some(true) || beside(thing.to - 1, 1) == Some(true)
    }

    /// The next word in a direction, if no sign stands between.
    fn beside(&self, at: usize, step: isize) -> Option<usize> {
        let next = at.checked_add_signed(step)?;
        let later = self.words.get(next.max(at))?;
        (!later.apart).then_some(next)
    }

    /// Whether "my" or the like stands before a thing, or is its first word.
    fn is_somebodys(&self, thing: Found) -> bool {
        let one = self.beside(thing.from, -1);
        let two = one.and_then(|one| self.beside(one, -1));
        [Some(thing.from), one, two]
            .into_iter()
            .flatten()
            .any(|at| POSSESSIVES.contains(&self.words[at].text.as_str()))
    }

    /// Words as they are quoted, without the parts of a spelt one.
    fn quote(&self, from: usize, to: usize) -> String {
        let mut words: Vec<&str> = Vec::new();
        let mut last = None;
        for word in &self.words[from..to] {
            if last != Some(word.at) {
                words.push(&word.text);
            }
            last = Some(word.at);
        }
        text::one_line(&words.join(" "), MAX_QUOTE)
    }
}

#[cfg(test)]
mod tests;
