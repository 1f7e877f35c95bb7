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

proptest! {
    #[test]
    fn any_text_is_taken(subject in "\\PC{0,200}", details in "\\PC{0,2000}") {
        classify(&Text { subject: &subject, details: &details, ..Text::default() });
    }
}
