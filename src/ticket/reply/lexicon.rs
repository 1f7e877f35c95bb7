//! Phrases of replies, by what they do to a decision: `lexicon.txt`, in English, German, French,
//! Spanish and Dutch. First names, for signatures: `names.txt`.
//!
//! Written as [`crate::text::words`] leaves them: lower case, no accents, no
//! apostrophes (`dont`, `daccord`). Spanish `sí` is `si!`, so that it differs from `si`.

use std::collections::HashSet;
use std::sync::LazyLock;

/// What a phrase does to a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Says yes wherever it is in a sentence.
    Yes,
    /// Says yes at the start of a sentence only, and weakly: `ok` is an answer there, a state
    /// elsewhere.
    YesAtStart,
    /// Orders it, at the start of a sentence: `run it`.
    Order,
    /// Says no.
    No,
    /// Says no at the start of a sentence, negates elsewhere.
    NoAtStart,
    /// `Don't ...` at the start of a sentence: says no, unless [`Kind::Harmless`] follows.
    Forbids,
    Negates,
    /// What may follow `don't` without forbidding anything.
    Harmless,
    Condition,
    Part,
    /// Another time, or the writer does it.
    Later,
    Wait,
    Hedge,
    Question,
    /// Somebody else's words or decision.
    Others,
    /// Something beyond the steps.
    More,
    /// Reports the state of things.
    Report,
    /// Asks for an approval instead of giving one.
    Asks,
    Irony,
    /// Says nothing either way.
    Polite,
    /// Joins words: `with all of it`. Behind a mere "fine" it may name whose yes it is.
    Link,
    /// Says that the plan is right, which may also answer a question.
    Fact,
    /// What a step is about. Named beside a yes, it may be a yes to that step only.
    Topic,
    /// Somebody else. Beside a yes, it may be their yes.
    Person,
    /// Tells why, in a sentence of its own: `she has been locked out all morning`.
    Story,
}

const PHRASES: &str = include_str!("lexicon.txt");
const NAMES: &str = include_str!("names.txt");

const KINDS: [(&str, Kind); 25] = [
    ("Yes", Kind::Yes),
    ("Order", Kind::Order),
    ("YesAtStart", Kind::YesAtStart),
    ("No", Kind::No),
    ("NoAtStart", Kind::NoAtStart),
    ("Forbids", Kind::Forbids),
    ("Negates", Kind::Negates),
    ("Harmless", Kind::Harmless),
    ("Condition", Kind::Condition),
    ("Part", Kind::Part),
    ("Later", Kind::Later),
    ("Wait", Kind::Wait),
    ("Hedge", Kind::Hedge),
    ("Question", Kind::Question),
    ("Others", Kind::Others),
    ("More", Kind::More),
    ("Report", Kind::Report),
    ("Asks", Kind::Asks),
    ("Irony", Kind::Irony),
    ("Polite", Kind::Polite),
    ("Link", Kind::Link),
    ("Fact", Kind::Fact),
    ("Topic", Kind::Topic),
    ("Person", Kind::Person),
    ("Story", Kind::Story),
];

/// Every phrase with its kind.
pub fn phrases() -> impl Iterator<Item = (Kind, &'static str)> {
    PHRASES
        .split('[')
        .filter_map(|section| {
            let (name, list) = section.split_once(']')?;
            let (_, kind) = KINDS.iter().find(|(n, _)| *n == name)?;
            Some(list.split('|').map(move |phrase| (*kind, phrase)))
        })
        .flatten()
}

/// Whether a folded word is a first name.
pub fn is_first_name(word: &str) -> bool {
    static SET: LazyLock<HashSet<&str>> = LazyLock::new(|| NAMES.split_whitespace().collect());
    SET.contains(word)
}

/// Emoji and signs, by what they say.
pub const SIGNS: &[(Kind, &str)] = &[
    (Kind::Yes, "👍✅👌✔☑🆗🟢👏"),
    (Kind::No, "👎❌🚫⛔🛑🙅✖❎"),
    (Kind::Wait, "✋⏳⏸⌛🤚"),
    (Kind::Irony, "🙄😂🤣😏🤡😬😆"),
    (Kind::Hedge, "🤔🤷😕😐🤨😟😳👀❓❔"),
    (Kind::Polite, "🙂😀😊🙏😁🎉❤☺😃😄🚀💯🙌✨💪😉🎯"),
];
