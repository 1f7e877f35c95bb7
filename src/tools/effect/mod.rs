//! What a tool of another server does to people and their accounts: the gate at the action. Pure.
//!
//! A sensitive tool needs the requester's verification, however harmless the ticket reads. It is
//! known by its name, title, description, input and hints. In doubt a tool that writes is
//! sensitive; what its server says about itself never makes it less so.
//!
//! - [`words`]: the words it is known by

pub mod words;

use crate::text::words::fold;
use rmcp::model::Tool;
use serde_json::{Map, Value};
use std::fmt;
use std::sync::LazyLock;

/// How much of a tool is read: the rest of a long text adds nothing.
const MAX_TEXT: usize = 4096;
const MAX_SENTENCES: usize = 3;
const MAX_WORDS: usize = 60;
const MAX_NODES: usize = 2000;
const MAX_DEPTH: usize = 16;
/// How far a verb's object may be from it, in words.
const REACH: usize = 6;
const REACH_IN_NAME: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Credentials,
    Factors,
    Privileges,
    MailFlow,
    Money,
    People,
    Identities,
    Security,
    Devices,
    Export,
    /// Reads secrets.
    Secrets,
    /// Passes on whatever its caller writes.
    Anything,
    /// Cannot be told.
    Unknown,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Effect::Credentials => "changes credentials",
            Effect::Factors => "changes sign-in factors",
            Effect::Privileges => "changes privileges",
            Effect::MailFlow => "changes where mail goes",
            Effect::Money => "moves money",
            Effect::People => "changes people's data",
            Effect::Identities => "changes identities",
            Effect::Security => "changes security settings",
            Effect::Devices => "takes over or wipes devices",
            Effect::Export => "gives data away",
            Effect::Secrets => "reads secrets",
            Effect::Anything => "does whatever it is told",
            Effect::Unknown => "does not say what it does",
        })
    }
}

/// Why a tool is sensitive, like `changes credentials (reset, password)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sensitive {
    pub effect: Effect,
    /// The words it was known by.
    pub words: Vec<String>,
}

impl fmt::Display for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words.is_empty() {
            true => self.effect.fmt(f),
            false => write!(f, "{} ({})", self.effect, self.words.join(", ")),
        }
    }
}

/// What a server says about a tool.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a> {
    pub name: &'a str,
    pub title: &'a str,
    pub description: &'a str,
    pub schema: &'a Map<String, Value>,
    pub read_only: Option<bool>,
    pub destructive: Option<bool>,
}

impl<'a> From<&'a Tool> for Described<'a> {
    fn from(tool: &'a Tool) -> Self {
        let hints = tool.annotations.as_ref();
        let title = hints.and_then(|h| h.title.as_deref());
        Self {
            name: &tool.name,
            title: tool.title.as_deref().or(title).unwrap_or_default(),
            description: tool.description.as_deref().unwrap_or_default(),
            schema: &tool.input_schema,
            read_only: hints.and_then(|h| h.read_only_hint),
            destructive: hints.and_then(|h| h.destructive_hint),
        }
    }
}

/// Whether a tool is sensitive, and why.
pub fn judge(tool: &Described<'_>) -> Option<Sensitive> {
    let words = &*WORDS;
    let text = Text::of(tool);
    if words.only_reads(tool, &text) {
        return words.reads(&text);
    }
    let input = Input::of(tool.schema);
    let names = text.names.iter().find_map(|name| words.in_name(name));
    names
        .or_else(|| text.sentences.iter().find_map(|s| words.in_sentence(s)))
        .or_else(|| input.values.iter().find_map(|v| words.in_name(v)))
        .or_else(|| words.in_properties(&input))
        .or_else(|| words.passes_on(&text, &input))
        .or_else(|| cannot_be_told(&text, &input))
}

fn sensitive(effect: Effect, words: impl IntoIterator<Item = String>) -> Option<Sensitive> {
    let words = words
        .into_iter()
        .map(|w| -> String { w.chars().take(40).collect() });
    Some(Sensitive {
        effect,
        words: words.collect(),
    })
}

/// A tool that writes says so in words that can be read.
fn cannot_be_told(text: &Text, input: &Input) -> Option<Sensitive> {
    let said: usize = text.sentences.iter().map(Vec::len).sum();
    let is_foreign = |word: &String| !word.is_ascii();
    let foreign = text.sentences.iter().flatten().any(is_foreign);
    match said < 2 || foreign || input.cut {
        true => sensitive(Effect::Unknown, []),
        false => None,
    }
}

/// Words that follow each other; `true`: the last letters are left out.
struct Pattern(Vec<(&'static str, bool)>);

impl Pattern {
    fn all(list: &'static str) -> Vec<Pattern> {
        let word = |w: &'static str| match w.strip_suffix('*') {
            Some(stem) => (stem, true),
            None => (w, false),
        };
        list.split_whitespace()
            .map(|p| Pattern(p.split('+').map(word).collect()))
            .collect()
    }

    fn is_at(&self, words: &[String], at: usize) -> bool {
        let Some(found) = words.get(at..at + self.0.len()) else {
            return false;
        };
        found.iter().zip(&self.0).all(|(word, (text, is_stem))| {
            if *is_stem {
                word.starts_with(text)
            } else {
                word == text
            }
        })
    }
}

/// Where the first of the patterns is, and how many words it takes.
fn find(words: &[String], patterns: &[Pattern]) -> Option<(usize, usize)> {
    (0..words.len()).find_map(|at| {
        let pattern = patterns.iter().find(|p| p.is_at(words, at))?;
        Some((at, pattern.0.len()))
    })
}

fn is_one(words: &[String], at: usize, patterns: &[Pattern]) -> bool {
    patterns.iter().any(|p| p.is_at(words, at))
}

struct Rule {
    effect: Effect,
    alone: Vec<Pattern>,
    verbs: Vec<Pattern>,
    objects: Vec<Pattern>,
}

struct Words {
    rules: Vec<Rule>,
    reads: Vec<Pattern>,
    writes: Vec<Pattern>,
    secrets: Vec<Pattern>,
    about: Vec<Pattern>,
    properties: Vec<Pattern>,
    ends: Vec<Pattern>,
    towards: Vec<Pattern>,
    moves: Vec<Pattern>,
}

static WORDS: LazyLock<Words> = LazyLock::new(|| {
    let rule = |rule: &words::Rule| Rule {
        effect: rule.effect,
        alone: Pattern::all(rule.alone),
        verbs: Pattern::all(rule.verbs),
        objects: Pattern::all(rule.objects),
    };
    Words {
        rules: words::RULES.iter().map(rule).collect(),
        reads: Pattern::all(words::READS),
        writes: Pattern::all(words::WRITES),
        secrets: Pattern::all(words::SECRETS),
        about: Pattern::all(words::ABOUT),
        properties: Pattern::all(words::PROPERTIES),
        ends: Pattern::all(words::ENDS),
        towards: Pattern::all(words::TOWARDS),
        moves: Pattern::all(words::MOVES),
    }
});

impl Words {
    /// Its name says so, its server does not deny it, and its description does not go on to
    /// change something.
    fn only_reads(&self, tool: &Described<'_>, text: &Text) -> bool {
        let name = text.names.first().map(Vec::as_slice).unwrap_or_default();
        let has = |patterns: &[Pattern]| find(name, patterns).is_some();
        let denied = tool.read_only == Some(false) || tool.destructive == Some(true);
        let said = has(&self.reads) || tool.read_only == Some(true);
        said && !denied && !has(&self.writes) && !text.sentences.iter().any(|s| self.changes(s))
    }

    /// Whether a sentence begins with a change, or goes on with one: `Gets a mail and forwards it`.
    fn changes(&self, sentence: &[String]) -> bool {
        (0..sentence.len()).any(|at| {
            let begins = at == 0 || matches!(sentence[at - 1].as_str(), "and" | "then" | "or");
            begins && is_one(sentence, at, &self.writes)
        })
    }

    fn reads(&self, text: &Text) -> Option<Sensitive> {
        let mut texts = text.names.iter().chain(text.sentences.first());
        let secret = texts.find_map(|words| self.secret(words));
        secret.or_else(|| {
            let export = self.rules.iter().filter(|r| r.effect == Effect::Export);
            let names = text.names.first().map(Vec::as_slice).unwrap_or_default();
            export
                .filter_map(|rule| self.pair(names, rule, true))
                .find_map(|words| sensitive(Effect::Export, words))
        })
    }

    fn secret(&self, words: &[String]) -> Option<Sensitive> {
        (0..words.len()).find_map(|at| {
            let pattern = self.secrets.iter().find(|p| p.is_at(words, at))?;
            let end = at + pattern.0.len();
            match is_one(words, end, &self.about) {
                true => None,
                false => sensitive(Effect::Secrets, [words[at..end].join(" ")]),
            }
        })
    }

    fn in_name(&self, name: &[String]) -> Option<Sensitive> {
        self.in_words(name, true)
    }

    fn in_sentence(&self, sentence: &[String]) -> Option<Sensitive> {
        self.in_words(sentence, false)
    }

    /// In a name the order does not matter: `dns_record_create`.
    fn in_words(&self, words: &[String], is_name: bool) -> Option<Sensitive> {
        let alone = self.rules.iter().find_map(|rule| {
            let (at, length) = find(words, &rule.alone)?;
            sensitive(rule.effect, [words[at..at + length].join(" ")])
        });
        alone.or_else(|| {
            self.rules.iter().find_map(|rule| {
                let pair = self.pair(words, rule, is_name)?;
                sensitive(rule.effect, pair)
            })
        })
    }

    /// A verb of the rule and its object.
    fn pair(&self, words: &[String], rule: &Rule, is_name: bool) -> Option<[String; 2]> {
        let reach = if is_name { REACH_IN_NAME } else { REACH };
        for at in 0..words.len() {
            if !is_one(words, at, &rule.verbs) {
                continue;
            }
            let moves = is_one(words, at, &self.moves);
            let after = at + 1..words.len().min(at + 1 + reach);
            let before = at.saturating_sub(if is_name { reach } else { 0 })..at;
            let found = self
                .object(words, after, rule, moves)
                .or_else(|| self.object(words, before.rev(), rule, moves));
            if let Some(object) = found {
                return Some([words[at].clone(), words[object].clone()]);
            }
        }
        None
    }

    fn object(
        &self,
        words: &[String],
        range: impl Iterator<Item = usize>,
        rule: &Rule,
        moves: bool,
    ) -> Option<usize> {
        for at in range {
            if is_one(words, at, &rule.objects) {
                return Some(at);
            }
            let towards = is_one(words, at, &self.towards) && !moves;
            if towards || is_one(words, at, &self.ends) {
                return None;
            }
        }
        None
    }

    fn in_properties(&self, input: &Input) -> Option<Sensitive> {
        input.properties.iter().chain(&input.texts).find_map(|p| {
            let (at, length) = find(p, &self.properties)?;
            let words = p[at..at + length].join(" ");
            // What is known by its input is known by the rules, too.
            let by_rule = self.in_name(&p[at..at + length]);
            let effect = by_rule.map_or(Effect::Credentials, |s| s.effect);
            sensitive(effect, [format!("takes {words}")])
        })
    }

    /// Whether the caller writes the request, or sends in somebody's name.
    fn passes_on(&self, text: &Text, input: &Input) -> Option<Sensitive> {
        let has = |word: &str| input.properties.iter().any(|p| p.iter().any(|w| w == word));
        let ends = |word: &str| {
            let last = |p: &Vec<String>| p.last().is_some_and(|w| w == word);
            input.properties.iter().any(last)
        };
        let request = has("method") && ["path", "endpoint", "url", "uri"].iter().any(|w| ends(w));
        if request {
            return sensitive(Effect::Anything, ["method".into()]);
        }
        if has("sql") {
            return sensitive(Effect::Anything, ["sql".into()]);
        }
        let mut names = text.names.iter().flatten();
        let sends = names.any(|word| word.starts_with("send"));
        match sends && has("from") {
            true => sensitive(Effect::MailFlow, ["send".into(), "from".into()]),
            false => None,
        }
    }
}

/// A tool's own words.
struct Text {
    /// Of its name and its title.
    names: Vec<Vec<String>>,
    /// The first of its description.
    sentences: Vec<Vec<String>>,
}

impl Text {
    fn of(tool: &Described<'_>) -> Self {
        let title = split(tool.title);
        let mut names = vec![split_name(tool.name)];
        if !title.is_empty() {
            names.push(title);
        }
        let description = crate::text::cut(tool.description, MAX_TEXT);
        let sentences = description
            .lines()
            .flat_map(|line| line.split(". "))
            .map(split)
            .filter(|s| !s.is_empty())
            .take(MAX_SENTENCES)
            .collect();
        Self { names, sentences }
    }
}

/// What a tool takes.
#[derive(Default)]
struct Input {
    properties: Vec<Vec<String>>,
    values: Vec<Vec<String>>,
    texts: Vec<Vec<String>>,
    nodes: usize,
    /// It is larger than what is read.
    cut: bool,
}

impl Input {
    fn of(schema: &Map<String, Value>) -> Self {
        let mut input = Self::default();
        input.walk_map(schema, 0);
        input
    }

    fn walk_map(&mut self, map: &Map<String, Value>, depth: usize) {
        for (key, value) in map {
            match (key.as_str(), value) {
                ("properties", Value::Object(properties)) => {
                    let names = properties.keys().take(MAX_NODES);
                    self.properties.extend(names.map(|name| split_name(name)));
                }
                ("enum", Value::Array(values)) => {
                    let texts = values.iter().take(MAX_NODES).filter_map(Value::as_str);
                    self.values.extend(texts.map(split_name));
                }
                ("const", Value::String(value)) => self.values.push(split_name(value)),
                ("description" | "title", Value::String(text)) => {
                    let mut words = split(text);
                    words.truncate(8);
                    self.texts.push(words);
                }
                _ => {}
            }
            self.walk(value, depth + 1);
        }
    }

    fn walk(&mut self, value: &Value, depth: usize) {
        self.nodes += 1;
        if self.nodes > MAX_NODES || depth > MAX_DEPTH {
            self.cut = true;
            return;
        }
        match value {
            Value::Object(map) => self.walk_map(map, depth),
            Value::Array(items) => items.iter().for_each(|item| self.walk(item, depth + 1)),
            _ => {}
        }
    }
}

/// The words of a name: `createUser`, `create_user`, `Create-User`.
fn split_name(name: &str) -> Vec<String> {
    let letters: Vec<char> = name.chars().take(200).collect();
    let mut spaced = String::with_capacity(name.len() + 8);
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|i| letters.get(i));
        let after = letters.get(at + 1);
        let is_new = letter.is_uppercase()
            && before.is_some_and(|b| {
                b.is_lowercase()
                    || b.is_ascii_digit()
                    || (b.is_uppercase() && after.is_some_and(|a| a.is_lowercase()))
            });
        if is_new {
            spaced.push(' ');
        }
        spaced.push(*letter);
    }
    split(&spaced)
}

/// Words in lower case without accents; a possessive `'s` and invisible characters are dropped.
fn split(text: &str) -> Vec<String> {
    let text = crate::text::cut(text, MAX_TEXT);
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    for letter in text.replace("'s ", " ").replace("’s ", " ").chars() {
        if letter.is_alphanumeric() {
            word.extend(fold(letter));
        } else if !is_invisible(letter) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if words.len() >= MAX_WORDS {
            return words;
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Accents that stand alone, soft hyphens, zero-width and direction characters.
fn is_invisible(letter: char) -> bool {
    matches!(
        letter,
        '\u{300}'..='\u{36f}'
            | '\u{ad}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}'
            | '\u{feff}'
    )
}

#[cfg(test)]
mod tests;
