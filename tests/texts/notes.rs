//! Notes on a ticket: the HTML as HaloPSA gets it, and the text as a technician reads it.

use halopsa_operator::api::Mode;
use halopsa_operator::api::ticket::VerificationState;
use halopsa_operator::text;
use halopsa_operator::ticket::approval::WhyNot;
use halopsa_operator::ticket::note::{self, Ask, Decided, Listed};
use halopsa_operator::ticket::plan::{Confidence, Plan};

const MARKER: &str = "rallied-0011223344556677-0-tag";

fn shown(html: &str) -> String {
    format!("{}\n\n----\n{html}\n", text::from_html(html))
}

fn plan() -> Plan {
    Plan {
        asked: "The printer on floor 2 prints nothing.".into(),
        findings: vec!["Printer PRN-02 is offline since 09:12".into()],
        likely_cause: "The print queue is stuck".into(),
        steps: vec!["Restart the queue".into(), "Print a test page".into()],
        questions: vec!["What does the display show?".into()],
        confidence: Confidence::Medium,
        looked_at: vec!["ticket 4198".into()],
    }
}

fn steps() -> Vec<Listed> {
    vec![
        Listed {
            what: "Reply to the requester".into(),
            record: "ticket 4242".into(),
            values: vec![("Text".into(), "Please restart the printer.".into())],
            why: "They asked for the next step".into(),
            result: "done".into(),
            high_risk: false,
        },
        Listed {
            what: "Change the ticket".into(),
            record: "ticket 4242".into(),
            values: vec![("Status".into(), "In Progress".into())],
            ..Listed::default()
        },
    ]
}

fn ask<'a>(assigned: &'a str, also: &'a str) -> Ask<'a> {
    Ask {
        assigned,
        also,
        until: "2026-11-25 10:00 UTC",
        replaces: false,
        number: 2,
        code: "K7QF",
        needs_code: false,
    }
}

#[test]
fn plan_notes() {
    insta::assert_snapshot!("plan", shown(&note::plan_html(&plan(), Mode::Plan, MARKER)));
    let execute = note::plan_html(&plan(), Mode::Execute, MARKER);
    insta::assert_snapshot!("plan_execute", shown(&execute));
    let turn = note::turn_html("The steps were run.\nThe printer is back.", MARKER);
    insta::assert_snapshot!("turn", shown(&turn));
}

#[test]
fn failure_notes() {
    let reason = "5 agents stopped responding";
    insta::assert_snapshot!("failure", shown(&note::failure_html(reason, &[], MARKER)));
    let after_steps = note::failure_html(reason, &steps(), MARKER);
    insta::assert_snapshot!("failure_after_steps", shown(&after_steps));
}

#[test]
fn approval_notes() {
    for (name, ask) in [
        ("request", ask("Dana Novak", "")),
        ("request_also", ask("Dana Novak", "Sam Reed, Kim Oh")),
        ("request_unassigned", ask("", "")),
        ("request_unassigned_also", ask("", "Sam Reed")),
    ] {
        insta::assert_snapshot!(name, shown(&note::request_html(&steps(), &ask, MARKER)));
    }
    let replaces = Ask {
        replaces: true,
        ..ask("Dana Novak", "")
    };
    let replacement = note::request_html(&steps(), &replaces, MARKER);
    insta::assert_snapshot!("request_replaces", shown(&replacement));
    let reminder = note::reminder_html(2, &ask("Dana Novak", ""), MARKER);
    insta::assert_snapshot!("reminder", shown(&reminder));
    let reminder = note::reminder_html(1, &ask("", ""), MARKER);
    insta::assert_snapshot!("reminder_unassigned", shown(&reminder));
    let mut risky = steps();
    risky[1].high_risk = true;
    let needs_code = Ask {
        needs_code: true,
        ..ask("Dana Novak", "")
    };
    let request = note::request_html(&risky, &needs_code, MARKER);
    insta::assert_snapshot!("request_high_risk", shown(&request));
    let reminder = note::reminder_html(2, &needs_code, MARKER);
    insta::assert_snapshot!("reminder_high_risk", shown(&reminder));
    let why = WhyNot::Between.to_string();
    let uncounted = note::uncounted_html(&why, &ask("Dana Novak", ""), MARKER);
    insta::assert_snapshot!("reply_does_not_count", shown(&uncounted));
    let turn = note::waiting_turn_html("It reads the log.", &ask("Dana Novak", ""), MARKER);
    insta::assert_snapshot!("turn_while_waiting", shown(&turn));
}

#[test]
fn decision_notes() {
    for (name, decided) in [
        ("denied", Decided::Denied),
        ("expired", Decided::Expired),
        ("executed", Decided::Executed),
    ] {
        let html = note::decision_html(decided, "Dana Novak", &steps(), MARKER);
        insta::assert_snapshot!(name, shown(&html));
    }
}

#[test]
fn verification_notes() {
    let reasons = ["mfa-reset: 'new phone'".to_string()];
    let sent = note::challenge_html("e-mail", "a.baker@acme.example", &reasons, MARKER);
    insta::assert_snapshot!("challenge", shown(&sent));
    for (name, state) in [
        ("verified", VerificationState::Verified),
        ("overridden", VerificationState::Overridden),
        ("skipped", VerificationState::Skipped),
        ("not_verified", VerificationState::Denied),
    ] {
        let said = "the requester says it was not them";
        let html = note::verification_html(state, said, &reasons, "Dana Novak", MARKER);
        insta::assert_snapshot!(name, shown(&html));
    }
}
