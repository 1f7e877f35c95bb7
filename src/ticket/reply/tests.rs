use super::*;
use proptest::prelude::*;

/// Replies as technicians write them, each labelled by hand.
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
        let seen = classify(sample);
        *table
            .entry((format!("{:?}", sample.intent), format!("{:?}", seen.intent)))
            .or_default() += 1;
        if seen.intent != sample.intent {
            let text = sample.text.as_ref().or(sample.html.as_ref()).unwrap();
            wrong.push((
                sample.intent,
                format!(
                    "{:?} as {:?} ({}): {}",
                    sample.intent,
                    seen.intent,
                    seen.reason,
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
    assert!(recall >= 0.8, "recall of approvals {recall:.3}");
    let wrong_no = wrong
        .iter()
        .filter(|(_, line)| line.contains("as Deny"))
        .count();
    assert!(wrong_no <= 5, "{wrong_no} read as a no");
}

/// Replies of people whose words are in no list here: the phrases were not made from them.
const HELD_OUT: &str = include_str!("../../../tests/data/replies-held-out.jsonl");

#[test]
fn the_held_out_set() {
    let (mut approvals, mut understood) = (0usize, 0usize);
    for line in HELD_OUT.lines() {
        let sample: Sample = serde_json::from_str(line).unwrap();
        let seen = classify(&sample);
        if sample.intent == Intent::Approve {
            approvals += 1;
            understood += usize::from(seen.intent == Intent::Approve);
        } else {
            assert_ne!(seen.intent, Intent::Approve, "{line}: {}", seen.reason);
        }
    }
    println!("{understood} of {approvals} plain approvals understood");
    assert!(
        understood * 100 >= approvals * 75,
        "{understood} of {approvals}"
    );
}

/// What one rule decides.
struct RuleTable {
    rule: &'static str,
    /// (reply, reason)
    replies: &'static [(&'static str, &'static str)],
}

const RULE_TABLES: &[RuleTable] = &[
    RuleTable {
        rule: "nothing_written",
        replies: &[
            ("", "empty"),
            ("...", "empty"),
            ("??", "a question"),
            ("> approved", "nothing but a quote or a signature"),
        ],
    },
    RuleTable {
        rule: "irony",
        replies: &[
            ("yeah right", "possibly ironic ('yeah right')"),
            ("sure 🙄", "possibly ironic ('🙄')"),
            ("Ja hoor", "possibly ironic ('ja hoor')"),
        ],
    },
    RuleTable {
        rule: "harmless",
        replies: &[
            ("I don't know", "no decision ('dont know')"),
            ("No idea", "no decision ('no idea')"),
            ("No update from the user", "no decision ('no update')"),
        ],
    },
    RuleTable {
        rule: "asks_for_approval",
        replies: &[
            ("Please approve", "asks for approval ('please approve')"),
            ("yes or no?", "asks for approval ('yes or no')"),
            ("Bitte genehmigen", "asks for approval ('bitte genehmigen')"),
        ],
    },
    RuleTable {
        rule: "wait",
        replies: &[
            ("Hold on", "wants to wait ('hold on')"),
            ("not yet", "wants to wait ('not yet')"),
            ("✋", "wants to wait ('✋')"),
        ],
    },
    RuleTable {
        rule: "hedge",
        replies: &[
            ("maybe", "not sure ('maybe')"),
            ("hmm ok", "not sure ('hmm')"),
            ("No sé", "not sure ('no se')"),
        ],
    },
    RuleTable {
        rule: "question_mark",
        replies: &[
            ("Approve?", "a question ('?')"),
            ("yes, go ahead?", "a question ('?')"),
            ("¿Es seguro?", "a question ('?')"),
        ],
    },
    RuleTable {
        rule: "others_decision",
        replies: &[
            ("Kim approved", "somebody else's decision ('kim approved')"),
            (
                "Approve once Kim confirmed",
                "somebody else's decision ('kim confirmed')",
            ),
        ],
    },
    RuleTable {
        rule: "yes_and_no",
        replies: &[
            ("Approved. Denied.", "yes ('approved') and no ('denied')"),
            ("Yes to 1, no to 2", "yes ('yes') and no ('no')"),
            (
                "Ja, nicht genehmigt",
                "yes ('ja') and no ('nicht genehmigt')",
            ),
        ],
    },
    RuleTable {
        rule: "quoted_no",
        replies: &[
            ("Dana: \"denied\"", "quotes somebody ('denied')"),
            ("«Rejected»", "quotes somebody ('rejected')"),
        ],
    },
    RuleTable {
        rule: "conditional_no",
        replies: &[
            ("Please deny it if she asks", "conditional ('if')"),
            ("We deny this unless she calls", "conditional ('unless')"),
        ],
    },
    RuleTable {
        rule: "partial_no",
        replies: &[("Deny only step 2", "only a part ('only')")],
    },
    RuleTable {
        rule: "later_no",
        replies: &[
            ("Denied until tomorrow", "another time ('tomorrow')"),
            ("Not approved tonight", "another time ('tonight')"),
        ],
    },
    RuleTable {
        rule: "more_than_a_no",
        replies: &[
            ("It is denied", "more than a no ('denied')"),
            (
                "The user tried it and the login is denied",
                "more than a no ('denied')",
            ),
        ],
    },
    RuleTable {
        rule: "plain_no",
        replies: &[
            ("No", "'no'"),
            ("Not approved", "'not approved'"),
            ("We cannot go ahead", "'cannot'"),
            ("Ich genehmige das nicht", "'nicht'"),
            ("No, I will do it by hand", "'no'"),
            ("No, not if she agrees", "'no'"),
        ],
    },
    RuleTable {
        rule: "question",
        replies: &[
            ("is this safe", "a question ('is this')"),
            ("Sure, what do you need", "a question ('what')"),
        ],
    },
    RuleTable {
        rule: "conditional_yes",
        replies: &[
            ("If it helps, go ahead", "conditional ('if')"),
            ("ok mais demain", "conditional ('mais')"),
        ],
    },
    RuleTable {
        rule: "partial_yes",
        replies: &[
            ("yes (only the first)", "only a part ('only')"),
            ("go ahead with step one only", "only a part ('one')"),
        ],
    },
    RuleTable {
        rule: "later_yes",
        replies: &[
            (
                "yes, tomorrow",
                "another time, or done by somebody else ('tomorrow')",
            ),
            (
                "Ok will do",
                "another time, or done by somebody else ('will do')",
            ),
        ],
    },
    RuleTable {
        rule: "others_yes",
        replies: &[
            (
                "She said go ahead",
                "somebody else's words or decision ('she said')",
            ),
            (
                "On behalf of Kim, approved",
                "somebody else's words or decision ('on behalf')",
            ),
        ],
    },
    RuleTable {
        rule: "wants_more",
        replies: &[
            (
                "yes and also reset her MFA",
                "wants something else as well ('and also')",
            ),
            (
                "Ja, und bitte auch MFA zurücksetzen",
                "wants something else as well ('auch')",
            ),
        ],
    },
    RuleTable {
        rule: "report",
        replies: &[
            ("ok now it works", "a status report ('works')"),
            ("Yes, all resolved", "a status report ('resolved')"),
        ],
    },
    RuleTable {
        rule: "negation",
        replies: &[
            ("Approved not", "a negation ('not')"),
            ("Go ahead, the printer is not here", "a negation ('not')"),
        ],
    },
    RuleTable {
        rule: "no_elsewhere",
        replies: &[
            ("Yes and no", "a negation ('no')"),
            ("Approved and no", "a negation ('no')"),
        ],
    },
    RuleTable {
        rule: "quoted_yes",
        replies: &[
            (
                "Reply \"approve\" to run the steps",
                "quotes somebody ('approve')",
            ),
            ("the note \"go ahead\"", "quotes somebody ('go ahead')"),
        ],
    },
    RuleTable {
        rule: "number",
        replies: &[
            ("Approved 1/2", "a number in it ('1')"),
            ("yes, printer 7", "a number in it ('7')"),
        ],
    },
    RuleTable {
        rule: "too_long",
        replies: &[(
            "ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok \
             ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok \
             ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok ok",
            "much more than a yes",
        )],
    },
    RuleTable {
        rule: "not_understood",
        replies: &[
            ("ok I see", "more than a yes ('see')"),
            ("Confirmed phishing", "more than a yes ('phishing')"),
            ("Go ahead with her laptop", "more than a yes ('her')"),
            ("Yes, that is correct", "more than a yes ('is correct')"),
            ("Go ahead zorbing", "more than a yes ('zorbing')"),
            ("Yes, she is on the phone", "more than a yes ('she')"),
        ],
    },
    RuleTable {
        rule: "left_out",
        replies: &[
            (
                "Approved\n\nOn Tue Rallied wrote:\n> 1. Reset it",
                "beside a quote, an image, or text that does not count ('approved')",
            ),
            (
                "Approved\nCheers\nPS: please do not run step 2",
                "beside a quote, an image, or text that does not count ('approved')",
            ),
        ],
    },
    RuleTable {
        rule: "perhaps_only_seen",
        replies: &[
            ("Ok thanks", "may only mean seen ('ok')"),
            ("okay, danke", "may only mean seen ('okay')"),
        ],
    },
    RuleTable {
        rule: "plain_yes",
        replies: &[
            ("OK", "'ok'"),
            ("Yes, go ahead", "'go ahead'"),
            ("Genehmigt, danke", "'genehmigt'"),
            ("Sí", "'si!'"),
            ("👍", "'👍'"),
            ("Aproved", "'aproved'"),
            ("Yes. Dana Novak", "'yes'"),
            (
                "Go ahead, she has been locked out all morning",
                "'go ahead'",
            ),
            (
                "Approved.\n\nKind regards\nDana Novak\nService Desk",
                "'approved'",
            ),
        ],
    },
];

/// The rule that decides about a reply, and its result.
fn decided_by(text: &str) -> (&'static str, Classification) {
    let (own, cut) = own::own_text(&crate::text::plain(text));
    let hits = Hits::of(&words::split(&own), cut);
    rules::RULES
        .iter()
        .find_map(|(name, rule)| Some((*name, rule(&hits)?)))
        .unwrap_or_else(|| ("none", neutral("no decision".into())))
}

#[test]
fn each_rule_decides_its_replies() {
    let mut wrong = Vec::new();
    for RuleTable { rule, replies } in RULE_TABLES {
        let intent = match *rule {
            "plain_yes" => Intent::Approve,
            "plain_no" => Intent::Deny,
            _ => Intent::Neutral,
        };
        for (text, reason) in *replies {
            let expected = Classification {
                intent,
                reason: reason.to_string(),
            };
            let seen = decided_by(text);
            if seen != (*rule, expected.clone()) || classify_text(text) != expected {
                wrong.push(format!("{rule}: {text:?} is {seen:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_rule_is_tested_in_its_order() {
    let rules: Vec<&str> = rules::RULES.iter().map(|(name, _)| *name).collect();
    let tested: Vec<&str> = RULE_TABLES.iter().map(|table| table.rule).collect();
    assert_eq!(rules, tested);
}

#[test]
fn without_a_rule_there_is_no_decision() {
    for text in ["Hi", "thanks", "I need to proceed", "the printer"] {
        assert_eq!(decided_by(text).0, "none", "{text}");
        assert_eq!(classify_text(text), neutral("no decision".into()));
    }
}

const YES: &[&str] = &[
    "approved",
    "go ahead",
    "yes, go ahead",
    "ja, genehmigt",
    "oui, allez-y",
    "adelante",
    "akkoord",
];

const DOUBTS: &[&str] = &[
    "?",
    " if she agrees",
    " but wait",
    ", wenn er da ist",
    " sauf le deuxième",
    " si está de acuerdo",
    " mits ze belt",
    ", only step 1",
];

/// What else may stand beside a yes is never known in full, so nothing unknown may.
#[test]
fn an_unknown_word_is_not_a_yes() {
    for yes in YES {
        for word in [
            "zorbing",
            "phishing",
            "xcept",
            "нет",
            "いいえ",
            "ｎｏｔ",
            "¬",
            "🤦",
            ":(",
        ] {
            for text in [
                format!("{yes} {word}"),
                format!("{word} {yes}"),
                format!("{yes}, {word}"),
                format!("{yes}. {word}"),
                format!("{yes}\n\n{word}"),
            ] {
                assert_ne!(classify_text(&text).intent, Intent::Approve, "{text}");
            }
        }
    }
}

#[test]
fn what_is_not_seen_makes_a_reply_neutral() {
    let screenshot = format!(
        "<p>Approved</p><img src=\"data:image/png;base64,{}\"><p>No, wait!</p>",
        "A".repeat(own::MAX_REPLY)
    );
    let deep = format!("{}Approved", "<div>".repeat(150));
    for html in [
        screenshot.as_str(),
        deep.as_str(),
        "<p>Approved</p><img src=\"cid:1\">",
        "<p>Approved</p><p style=\"display:none\">not</p>",
        "<p>Approved</p><p style=\"color:#fefefe\">not</p>",
        "<p>Approved</p><p style=\"position:absolute;left:-999px\">not step 2</p>",
        "<p>Approved</p><p style=\"font-size:1px\">not</p>",
        "<p>Approved</p><details>not</details>",
        "<p>Approved</p><s>do not</s>",
        "<p>Approved</p><span style=\"TEXT-DECORATION: line-through\">x</span>",
        "<p style=\"text-decoration:line-through\">Approved</p>",
        "<p hidden>Approved</p>",
        "<p>Approved</p><!-- not -->",
        "<p>yes<br>no</p>",
    ] {
        let seen = classify_html(html);
        assert_ne!(
            seen.intent,
            Intent::Approve,
            "{} {}",
            seen.reason,
            crate::text::cut(html, 200)
        );
    }
    for html in [
        "<p>Approved</p>",
        "<div style=\"font-family: Calibri; font-size: 11pt; color: rgb(0,0,0)\">Go ahead</div>",
        "<p><span style=\"color:#1f497d;mso-fareast-language:EN-US\">Approved, thanks</span></p>",
        "Approved<br><br>Thanks,<br>Dana",
        "<p class=\"MsoNormal\">Go ahead<o:p></o:p></p>",
    ] {
        assert_eq!(classify_html(html).intent, Intent::Approve, "{html}");
    }
}

#[test]
fn the_lexicon_is_written_as_words_are_read() {
    let sections = include_str!("lexicon.txt").matches('[').count();
    let mut kinds: Vec<Kind> = Vec::new();
    for (kind, phrase) in lexicon::phrases() {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
        let read: Vec<String> = words::split(phrase)
            .words
            .into_iter()
            .map(|w| w.text)
            .collect();
        let written: Vec<&str> = phrase.split_whitespace().collect();
        let special = phrase.contains("si!") || phrase.contains('+') || phrase.contains('%');
        assert!(special || read == written, "{kind:?}: {phrase}");
    }
    assert_eq!(kinds.len(), sections);
}

proptest! {
    #[test]
    fn a_word_nobody_knows_is_not_a_yes(
        yes in prop::sample::select(YES),
        word in "[b-df-hj-np-tv-xz]{7,12}",
        before in any::<bool>(),
    ) {
        let text = if before { format!("{word} {yes}") } else { format!("{yes} {word}") };
        prop_assert_ne!(classify_text(&text).intent, Intent::Approve, "{}", text);
    }

    #[test]
    fn any_text_is_taken(text in "\\PC{0,300}", html in "[<>a-z/ \"=!\\-&;éí?.\n👍]{0,300}") {
        classify_text(&text);
        classify_html(&html);
    }

    #[test]
    fn a_question_or_a_condition_is_never_a_yes(
        yes in prop::sample::select(YES),
        doubt in prop::sample::select(DOUBTS),
        before in any::<bool>(),
    ) {
        let text = if before { format!("{doubt} {yes}") } else { format!("{yes}{doubt}") };
        prop_assert_ne!(classify_text(&text).intent, Intent::Approve, "{}", text);
    }

    #[test]
    fn a_quoted_yes_is_not_a_yes(yes in prop::sample::select(YES)) {
        let quoted = format!("> {yes}\n> {yes}");
        prop_assert_ne!(classify_text(&quoted).intent, Intent::Approve);
        let wrote = "On Tue, 3 Nov 2026 at 10:01, Dana Novak <dana@msp.example> wrote:";
        let mail = format!("Thanks\n\n{wrote}\n{yes}");
        prop_assert_ne!(classify_text(&mail).intent, Intent::Approve);
        let html = format!("<p>Thanks</p><blockquote><p>{yes}</p></blockquote>");
        prop_assert_ne!(classify_html(&html).intent, Intent::Approve);
        let html = format!("<p>Thanks</p><div class=\"gmail_quote\"><p>{yes}</p></div>");
        prop_assert_ne!(classify_html(&html).intent, Intent::Approve);
    }
}
