use super::*;
use proptest::prelude::*;
use serde::Deserialize;

/// Tickets as requesters write them, each labelled by hand.
const LABELLED: &str = include_str!("../../../tests/data/tickets.jsonl");

#[derive(Deserialize)]
struct Sample {
    summary: String,
    #[serde(default)]
    details: String,
    sensitive: bool,
}

#[test]
fn the_labelled_set() {
    let samples: Vec<Sample> = LABELLED
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
        .collect();
    let (mut hits, mut missed, mut wrong) = (0, Vec::new(), Vec::new());
    for sample in &samples {
        let reasons = classify(&Text {
            subject: &sample.summary,
            details: &sample.details,
            ..Text::default()
        });
        match (sample.sensitive, reasons.is_empty()) {
            (true, false) => hits += 1,
            (true, true) => missed.push(format!(
                "{} / {}",
                sample.summary,
                sample.details.replace('\n', "⏎")
            )),
            (false, false) => wrong.push(format!(
                "{} / {}: {}",
                sample.summary,
                sample.details.replace('\n', "⏎"),
                reasons[0]
            )),
            (false, true) => {}
        }
    }
    let recall = f64::from(hits) / (hits as usize + missed.len()) as f64;
    let precision = f64::from(hits) / (hits as usize + wrong.len()) as f64;
    for line in &missed {
        println!("  missed: {line}");
    }
    for line in &wrong {
        println!("  wrongly: {line}");
    }
    println!(
        "{} labelled tickets, {} sensitive: precision {precision:.3}, recall {recall:.3}",
        samples.len(),
        hits as usize + missed.len()
    );
    assert!(samples.len() >= 600, "{} samples", samples.len());
    assert!(
        recall >= 0.98 && precision >= 0.90,
        "recall {recall:.3}, precision {precision:.3}"
    );
}

#[test]
fn reasons_quote_the_ticket() {
    let reasons = classify(&Text {
        subject: "Help",
        details: "I lost my phone with the authenticator on it.",
        ..Text::default()
    });
    assert_eq!(
        reasons[0].to_string(),
        "mfa-reset: 'phone with the authenticator'"
    );
}

#[test]
fn the_words_of_a_reason_can_be_left_out() {
    let reason = |evidence| Reason {
        kind: "mfa-reset".into(),
        evidence,
    };
    let words = reason(Evidence::Words("new phone: blue".into()));
    assert_eq!(words.to_string(), "mfa-reset: 'new phone: blue'");
    assert_eq!(words.without_words(), "mfa-reset");
    let rule = reason(Evidence::Rule);
    assert_eq!(rule.to_string(), "mfa-reset: its rule holds");
    assert_eq!(rule.without_words(), "mfa-reset");
}

/// Tickets of somebody who wants them to look harmless, and the kind each is all the same.
const DISGUISED: &str = include_str!("../../../tests/data/disguised.jsonl");

#[derive(Deserialize)]
struct Disguised {
    summary: String,
    details: String,
    kind: String,
}

fn kinds(subject: &str, details: &str) -> Vec<String> {
    let reasons = classify(&Text {
        subject,
        details,
        ..Text::default()
    });
    reasons.into_iter().map(|r| r.kind).collect()
}

#[test]
fn a_disguise_does_not_help() {
    let mut missed = Vec::new();
    for line in DISGUISED.lines() {
        let sample: Disguised = serde_json::from_str(line).unwrap();
        let kinds = kinds(&sample.summary, &sample.details);
        if !kinds.contains(&sample.kind) {
            missed.push(format!("{kinds:?}: {:.100}", sample.details));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn what_makes_a_match_harmless_stands_right_beside_it() {
    for (text, sensitive) in [
        ("please send me the password policy", false),
        ("please send me the password, policy and all", true),
        ("can you unlock the excel file", false),
        ("can you unlock it? I need the excel file", true),
        ("the file is locked by another user", false),
        ("my account is locked, said another user", true),
        ("reset my password policy", true),
        ("10 \u{b5}m of \u{3a9}", false),
        ("thanks \u{1f44d}\u{1f3fb}\u{200d}", false),
    ] {
        assert_eq!(!kinds("Question", text).is_empty(), sensitive, "{text}");
    }
}

#[test]
fn text_that_is_cut_is_sensitive() {
    let reasons = classify(&Text {
        details: "The printer is offline.",
        is_cut: true,
        ..Text::default()
    });
    assert_eq!(reasons[0].to_string(), "too-long: more text than is read");
    assert_eq!(reasons[0].without_words(), "too-long");
}

/// Sentences that are sensitive whatever stands around them.
const SENSITIVE: [&str; 8] = [
    "Please reset my password",
    "I need local admin rights on my laptop",
    "reset my MFA, I have a new phone",
    "unlock my account please",
    "please change my bank details",
    "give me the bitlocker recovery key",
    "please forward all her mail to my gmail",
    "disable the account of Tom",
];

fn sensitive() -> impl Strategy<Value = &'static str> {
    prop::sample::select(SENSITIVE.to_vec())
}

/// A phrase that makes some match harmless.
fn harmless() -> impl Strategy<Value = String> {
    let phrases = RULES.iter().flat_map(|r| r.not.split('|'));
    let phrases: Vec<String> = phrases.map(|p| p.replace('*', "")).collect();
    prop::sample::select(phrases)
}

proptest! {
    #[test]
    fn padding_hides_nothing(
        text in sensitive(),
        before in prop::collection::vec("[A-Za-z ]{0,30}[.!?\n]", 0..60),
        after in prop::collection::vec("[A-Za-z ]{0,30}[.!?\n]", 0..60),
        subject in "[a-z]{0,8}",
    ) {
        let padded = format!("{}\n{text}\n{}", before.concat(), after.concat());
        prop_assert!(!kinds(&subject, &padded).is_empty(), "{}", padded);
    }

    #[test]
    fn invisible_characters_hide_nothing(
        text in sensitive(),
        hidden in prop::collection::vec((0usize..40, "\\p{Cf}"), 0..6),
    ) {
        let mut disguised: Vec<char> = text.chars().collect();
        for (at, sign) in hidden {
            let at = at.min(disguised.len());
            disguised.splice(at..at, sign.chars());
        }
        let disguised: String = disguised.into_iter().collect();
        prop_assert!(!kinds("", &disguised).is_empty(), "{:?}", disguised);
    }

    #[test]
    fn harmless_words_elsewhere_hide_nothing(text in sensitive(), phrase in harmless()) {
        for disguised in [
            format!("{phrase}. {text}. {phrase}."),
            format!("{phrase}, {text}, {phrase}"),
            format!("{text} - as I said, it is about {phrase}"),
        ] {
            prop_assert!(!kinds(&phrase, &disguised).is_empty(), "{}", disguised);
        }
    }

    #[test]
    fn any_text_is_taken(subject in "\\PC{0,200}", details in "\\PC{0,2000}") {
        classify(&Text { subject: &subject, details: &details, ..Text::default() });
    }

    #[test]
    fn any_letters_are_taken(
        details in prop::collection::vec("a |b\\.|\n|pass|word|\u{200b}|\u{e0061}|я|, ", 0..200)
    ) {
        classify(&Text { details: &details.concat(), ..Text::default() });
    }
}
