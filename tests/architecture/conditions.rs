//! `docs/conditions.md` is a contract: it names every reason, and no other.

use halopsa_operator::api::reason::Reason;
use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../docs/conditions.md");

/// CamelCase words in backticks that are not reasons: condition types, states, phases, kinds.
const OTHER: &str = include_str!("not_reasons.txt");

fn words() -> BTreeSet<&'static str> {
    PAGE.split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase()))
        .filter(|word| word.chars().all(|c| c.is_ascii_alphanumeric()))
        .collect()
}

#[test]
fn the_page_names_every_reason() {
    let words = words();
    let missing: Vec<&str> = Reason::ALL
        .iter()
        .map(|r| r.as_str())
        .filter(|r| !words.contains(r))
        .collect();
    assert!(missing.is_empty(), "docs/conditions.md lacks {missing:?}");
}

#[test]
fn the_page_names_no_other() {
    let known: BTreeSet<&str> = Reason::ALL
        .iter()
        .map(|r| r.as_str())
        .chain(OTHER.split_whitespace())
        .collect();
    let unknown: Vec<_> = words().difference(&known).copied().collect();
    assert!(unknown.is_empty(), "docs/conditions.md names {unknown:?}");
}
