//! Is a ticket sensitive: does it ask for what an attacker would ask for?
//! Deterministic, offline, and in doubt yes: a false alarm costs the requester a
//! tap on a phone.

mod rules;

use crate::text;
use crate::text::words::fold;
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
}

/// At most this many words between a thing and what is to be done with it.
const WINDOW: usize = 9;
/// Sentences of a text that are read.
const MAX_SENTENCES: usize = 400;
/// Words of a sentence that are read.
const MAX_WORDS: usize = 200;
/// Only words of at least this many letters may be misspelt.
const MISSPELT: usize = 7;

/// A phrase: its words; true: any ending may follow.
type Phrase = Vec<(String, bool)>;

struct Compiled {
    kind: Kind,
    what: Index,
    deed: Option<Index>,
    not: Index,
}

/// Phrases by the first two letters of their first word.
struct Index(HashMap<String, Vec<Phrase>>);

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
        let mut index: HashMap<String, Vec<Phrase>> = HashMap::new();
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

    /// Where phrases are: (first word, words).
    fn find(&self, words: &[String]) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for at in 0..words.len() {
            let fits = |phrase: &&Phrase| {
                words.len() - at >= phrase.len()
                    && phrase
                        .iter()
                        .zip(&words[at..])
                        .all(|((word, open), given)| same(word, *open, given))
            };
            if let Some(phrase) = self
                .0
                .get(&beginning(&words[at]))
                .and_then(|phrases| phrases.iter().find(fits))
            {
                found.push((at, phrase.len()));
            }
        }
        found
    }
}

fn beginning(word: &str) -> String {
    word.chars().take(2).collect()
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

/// Why a ticket is sensitive; empty: it is not.
pub fn classify(text: &Text<'_>) -> Vec<Reason> {
    let subject = sentences(text.subject);
    let details = sentences(text.details);
    let mut units: Vec<Vec<String>> = Vec::new();
    // "Password" in the subject and "please reset it" below belong together.
    let head: Vec<String> = subject.iter().flatten().cloned().collect();
    for first in details.iter().take(3) {
        units.push(head.iter().chain(first).take(MAX_WORDS).cloned().collect());
    }
    units.push(head);
    units.extend(sentences(text.category));
    units.extend(sentences(text.ticket_type));
    // Short sentences refer to the one before: "I forgot my password. Can you reset it?"
    for pair in details.windows(2) {
        if pair[0].len() + pair[1].len() <= 24 {
            units.push(pair[0].iter().chain(&pair[1]).cloned().collect());
        }
    }
    units.extend(details);
    let mut found: Vec<(Kind, String)> = Vec::new();
    for words in &units {
        for rule in COMPILED.iter() {
            if found.iter().any(|(kind, _)| *kind == rule.kind) {
                continue;
            }
            if let Some(words) = rule.applies(words) {
                found.push((rule.kind, words));
            }
        }
    }
    found.sort_by_key(|(kind, _)| *kind);
    found
        .into_iter()
        .map(|(kind, words)| Reason {
            kind: kind.as_str().into(),
            evidence: Evidence::Words(words),
        })
        .collect()
}

impl Compiled {
    /// The words by which the rule applies.
    fn applies(&self, words: &[String]) -> Option<String> {
        let what = self.what.find(words);
        if what.is_empty() || !self.not.find(words).is_empty() {
            return None;
        }
        let Some(deed) = &self.deed else {
            let (at, length) = what[0];
            return Some(words[at..at + length].join(" "));
        };
        let deeds = deed.find(words);
        let mut best: Option<(usize, usize, usize)> = None;
        for (w, wl) in &what {
            for (d, dl) in &deeds {
                // A word is not near itself.
                if w < &(d + dl) && d < &(w + wl) {
                    continue;
                }
                let gap = if d > w {
                    d.saturating_sub(w + wl)
                } else {
                    w.saturating_sub(d + dl)
                };
                if gap <= WINDOW && best.is_none_or(|(g, _, _)| gap < g) {
                    best = Some((gap, *w.min(d), (w + wl).max(d + dl)));
                }
            }
        }
        best.map(|(_, from, to)| words[from..to].join(" "))
    }
}

/// Sentences as words, folded.
fn sentences(text: &str) -> Vec<Vec<String>> {
    let mut sentences: Vec<Vec<String>> = Vec::new();
    let (mut sentence, mut word) = (Vec::new(), String::new());
    for c in text.chars().chain(['\n']) {
        match c {
            '\'' | '’' | '`' | '´' => {}
            c if c.is_alphanumeric() => {
                if word.len() < 40 {
                    word.extend(fold(c));
                }
            }
            c => {
                if !word.is_empty() && sentence.len() < MAX_WORDS {
                    sentence.push(std::mem::take(&mut word));
                }
                word.clear();
                if matches!(c, '.' | '!' | '?' | '\n' | ';') && !sentence.is_empty() {
                    sentences.push(std::mem::take(&mut sentence));
                    if sentences.len() >= MAX_SENTENCES {
                        return sentences;
                    }
                }
            }
        }
    }
    sentences
}

#[cfg(test)]
mod tests;
