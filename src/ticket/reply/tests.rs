use super::*;
use proptest::prelude::*;

/// Replies as people write them, each labelled by hand.
const LABELLED: &str = include_str!("../../../tests/data/replies.jsonl");

#[derive(Deserialize)]
struct Sample {
    text: Option<String>,
    html: Option<String>,
    intent: Intent,
}

fn classify(sample: &Sample) -> Classification {
    match (&sample.text, &sample.html) {
        (_, Some(html)) => classify_html(html),
        (text, None) => classify_text(text.as_deref().unwrap_or_default()),
    }
}

#[test]
fn the_labelled_set() {
    let samples: Vec<Sample> = LABELLED
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
        .collect();
    let mut table: HashMap<(String, String), usize> = HashMap::new();
    let mut wrong = Vec::new();
    for sample in &samples {
        let verdict = classify(sample);
        *table
            .entry((
                format!("{:?}", sample.intent),
                format!("{:?}", verdict.intent),
            ))
            .or_default() += 1;
        if verdict.intent != sample.intent {
            let text = sample.text.as_ref().or(sample.html.as_ref()).unwrap();
            wrong.push((
                sample.intent,
                format!(
                    "{:?} as {:?} ({}): {}",
                    sample.intent,
                    verdict.intent,
                    verdict.reason,
                    text.replace('\n', "⏎")
                ),
            ));
        }
    }
    let count = |is: &str, seen: &str| {
        table
            .get(&(is.to_string(), seen.to_string()))
            .copied()
            .unwrap_or_default()
    };
    println!("{} labelled replies", samples.len());
    for (_, line) in &wrong {
        println!("  {line}");
    }
    for intent in ["Approve", "Deny", "Neutral"] {
        let all = ["Approve", "Deny", "Neutral"];
        let (hit, is, seen) = (
            count(intent, intent),
            all.iter().map(|s| count(intent, s)).sum::<usize>(),
            all.iter().map(|s| count(s, intent)).sum::<usize>(),
        );
        println!(
            "{intent:8} precision {:.3} recall {:.3} ({is} of them)",
            hit as f64 / seen.max(1) as f64,
            hit as f64 / is.max(1) as f64
        );
    }
    assert!(samples.len() >= 600, "{} samples", samples.len());
    let false_yes: Vec<&String> = wrong
        .iter()
        .map(|(_, line)| line)
        .filter(|line| line.contains("as Approve"))
        .collect();
    assert!(false_yes.is_empty(), "false approvals: {false_yes:#?}");
    let recall = count("Approve", "Approve") as f64
        / ["Approve", "Deny", "Neutral"]
            .iter()
            .map(|s| count("Approve", s))
            .sum::<usize>() as f64;
    assert!(recall >= 0.9, "recall of approvals {recall:.3}");
    assert!(
        wrong.len() * 20 <= samples.len(),
        "{} of {} wrong",
        wrong.len(),
        samples.len()
    );
}

proptest! {
    #[test]
    fn any_text_is_taken(text in "\\PC{0,300}", html in "[<>a-z/ \"=!\\-&;éí?.\n👍]{0,300}") {
        classify_text(&text);
        classify_html(&html);
    }

    #[test]
    fn a_question_or_a_condition_is_never_a_yes(
        yes in prop_oneof![Just("approved"), Just("go ahead"), Just("ja, genehmigt"), Just("oui, allez-y"), Just("adelante"), Just("akkoord")],
        string in prop_oneof![Just("?"), Just(" if she agrees"), Just(" but wait"), Just(", wenn er da ist"), Just(" sauf le deuxième"), Just(" si está de acuerdo"), Just(" mits ze belt"), Just(", only step 1")],
        before in any::<bool>(),
    ) {
        let text = if before { format!("{string} {yes}") } else { format!("{yes}{string}") };
        prop_assert_ne!(classify_text(&text).intent, Intent::Approve, "{}", text);
    }

    #[test]
    fn quoting_a_yes_is_no_yes(yes in prop_oneof![Just("approved"), Just("yes, go ahead"), Just("genehmigt")]) {
        let quoted = format!("> {yes}\n> {yes}");
        prop_assert_ne!(classify_text(&quoted).intent, Intent::Approve);
        let mail = format!("Thanks\n\nOn Tue, 3 Nov 2026 at 10:01, Dana Novak <dana@msp.example> wrote:\n{yes}");
        prop_assert_ne!(classify_text(&mail).intent, Intent::Approve);
        let html = format!("<p>Thanks</p><blockquote><p>{yes}</p></blockquote>");
        prop_assert_ne!(classify_html(&html).intent, Intent::Approve);
        let html = format!("<p>Thanks</p><div class=\"gmail_quote\"><p>{yes}</p></div>");
        prop_assert_ne!(classify_html(&html).intent, Intent::Approve);
    }
}
