//! The notes on a ticket, as HTML. Technicians read them in HaloPSA, where "agent" means
//! technician: here our agent is the "AI agent".

use super::plan::{MAX_LINE, MAX_LINES, Plan};
use crate::api::Mode;
use crate::api::ticket::VerificationState;
use crate::text::{self, one_line, visible, without_markers};
use crate::ticket::marker::REFERENCE;

/// A value in a request is shown in full: a technician approves what is shown.
const MAX_VALUE: usize = 8192;
const MAX_MESSAGE: usize = 8192;
/// A step's name in the summary of a request.
const MAX_NAME: usize = 100;

/// Somebody's text for a note: as HTML, with what would be invisible written out, and without
/// markers.
fn escape(text: &str) -> String {
    text::escape(&without_markers(&visible(text)))
}

/// The internal note with diagnosis and plan.
pub fn plan_html(plan: &Plan, mode: Mode, marker: &str) -> String {
    let mut html = String::with_capacity(2048);
    let title = match mode {
        Mode::Plan => "Diagnosis and plan (Plan mode: nothing was changed)",
        Mode::Execute => "Diagnosis and plan",
    };
    html.push_str(&format!("<p><b>Rallied: {title}</b></p>"));
    paragraph(&mut html, "What is being asked", &plan.asked);
    list(&mut html, "Findings", "ul", &plan.findings);
    paragraph(&mut html, "Likely cause", &plan.likely_cause);
    list(&mut html, "Proposed steps", "ol", &plan.steps);
    list(
        &mut html,
        "Questions for the requester",
        "ul",
        &plan.questions,
    );
    paragraph(&mut html, "Confidence", plan.confidence.as_str());
    list(&mut html, "Checked", "ul", &plan.looked_at);
    reference(&mut html, marker);
    html
}

/// The internal note that says why no agent finished the ticket, and what had been done by then.
pub fn failure_html(reason: &str, done: &[Listed], marker: &str) -> String {
    let mut html = String::from("<p><b>Rallied: this ticket needs a technician</b></p>");
    let changed = if done.is_empty() {
        "Nothing was changed."
    } else {
        "The steps below were run. Check each of them before you continue."
    };
    html.push_str(&format!(
        "<p>The AI agent could not finish and has stopped. {changed} Reason: {}</p>",
        escape(&one_line(reason, MAX_LINE))
    ));
    if !done.is_empty() {
        steps_html(&mut html, done);
    }
    reference(&mut html, marker);
    html
}

/// A step as a request or an outcome lists it.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// The action, like `Reply to the requester`.
    pub what: String,
    /// The record it changes, like `ticket 4242`.
    pub record: String,
    /// (name, value)
    pub values: Vec<(String, String)>,
    pub why: String,
    pub result: String,
    /// A yes has to name the request's number and code.
    pub high_risk: bool,
}

/// Who decides, and until when.
#[derive(Clone, Debug, Default)]
pub struct Ask<'a> {
    /// Like `Dana Novak`; empty: the ticket is assigned to nobody.
    pub assigned: &'a str,
    /// Names of others who may approve.
    pub also: &'a str,
    /// Like `2026-11-25 10:00 UTC`.
    pub until: &'a str,
    /// The request's number and code.
    pub number: i32,
    pub code: &'a str,
    /// A yes has to name the code.
    pub needs_code: bool,
    /// It replaces an earlier request.
    pub replaces: bool,
}

impl Ask<'_> {
    /// Who decides, in one or two sentences.
    fn who(&self) -> String {
        let mut who = if self.assigned.is_empty() {
            "<b>Nobody is assigned to this ticket.</b> Assign a technician, who then decides."
                .to_string()
        } else {
            format!(
                "<b>{}</b>, the technician assigned to this ticket, decides.",
                escape(self.assigned)
            )
        };
        if !self.also.is_empty() {
            who.push_str(&format!(" Also allowed to decide: {}.", escape(self.also)));
        }
        who
    }

    /// What to reply, in a few sentences.
    fn how(&self) -> String {
        let (number, code) = (self.number, escape(self.code));
        if self.needs_code {
            format!(
                "A step is high-risk, so only a private note on this ticket with number and code \
                 is a yes: <b>approve {number} {code}</b> runs everything above; <b>deny \
                 {number}</b> runs nothing."
            )
        } else {
            format!(
                "Reply with a private note on this ticket: <b>approve {number}</b> runs everything \
                 above; <b>deny {number}</b> runs nothing. Your own words count, too, as long as \
                 they are a clear yes or a clear no."
            )
        }
    }
}

/// The action that asks for approval: exactly what would be done.
pub fn request_html(steps: &[Listed], ask: &Ask<'_>, marker: &str) -> String {
    let mut html = format!(
        "<p><b>Rallied: approval needed</b> (request {}, code {})</p>",
        ask.number,
        escape(ask.code)
    );
    if ask.replaces {
        html.push_str(
            "<p>This replaces the earlier request. Replies to that one no longer count.</p>",
        );
    }
    let order = if steps.len() == 1 {
        ""
    } else {
        " in this order,"
    };
    html.push_str(&format!(
        "<p><b>{}</b></p><p>{} would run,{order} and nothing else:</p>",
        summary(steps),
        count(steps.len(), "step")
    ));
    steps_html(&mut html, steps);
    html.push_str(&format!(
        "<p>{} {} Any other reply goes to the AI agent as a message. Valid until {}.</p>",
        ask.who(),
        ask.how(),
        escape(ask.until)
    ));
    reference(&mut html, marker);
    html
}

/// The request in one line, like `3 steps, 1 high-risk: Reply to the requester; ...`: a long value
/// cannot push a step out of sight.
fn summary(steps: &[Listed]) -> String {
    let risky = steps.iter().filter(|s| s.high_risk).count();
    let risky = match risky {
        0 => String::new(),
        risky => format!(", {risky} high-risk"),
    };
    let names: Vec<String> = steps
        .iter()
        .map(|s| escape(&one_line(&s.what, MAX_NAME)))
        .collect();
    format!(
        "{}{risky}: {}.",
        count(steps.len(), "step"),
        names.join("; ")
    )
}

/// The note that reminds technicians of a request nobody has answered.
pub fn reminder_html(steps: usize, ask: &Ask<'_>, marker: &str) -> String {
    let who = if ask.assigned.is_empty() {
        "Nobody is assigned to this ticket. Assign a technician, who then decides.".to_string()
    } else {
        format!("{}, please decide.", escape(ask.assigned))
    };
    let verb = if steps == 1 { "is" } else { "are" };
    let mut html = format!(
        "<p><b>Rallied: still waiting for approval</b></p><p>{} {verb} waiting for approval; see \
         request {} above. {who} {} Without an answer, the request expires at {}.</p>",
        count(steps, "step"),
        ask.number,
        standing(ask),
        escape(ask.until)
    );
    reference(&mut html, marker);
    html
}

/// How to answer a request that is further up. The code is not repeated: who names it has read
/// the request.
fn standing(ask: &Ask<'_>) -> String {
    let number = ask.number;
    let code = if ask.needs_code { " CODE" } else { "" };
    let with = if ask.needs_code {
        ", with the code that the request shows,"
    } else {
        ""
    };
    format!("Reply <b>approve {number}{code}</b>{with} or <b>deny {number}</b>, as a private note.")
}

/// The note that tells technicians why a reply does not count.
pub fn uncounted_html(why: &str, ask: &Ask<'_>, marker: &str) -> String {
    let mut html = format!(
        "<p><b>Rallied: a reply does not count</b></p><p>A reply on this ticket reads like a \
         decision about request {}, but it does not count: {}.</p><p>{} {}</p>",
        ask.number,
        escape(&one_line(why, MAX_LINE)),
        ask.who(),
        standing(ask)
    );
    reference(&mut html, marker);
    html
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    Denied,
    Expired,
    Executed,
}

/// The note about the end of a request; with the result of each step, if they were run.
pub fn decision_html(decided: Decided, by: &str, steps: &[Listed], marker: &str) -> String {
    let (title, text) = match decided {
        Decided::Denied => (
            "the steps were denied",
            format!("{} said no. Nothing was run.", escape(by)),
        ),
        Decided::Expired => (
            "the request for approval has expired",
            "Nobody answered in time. Nothing was run.".to_string(),
        ),
        Decided::Executed => (
            "results of the approved steps",
            format!("Approved by {}.", escape(by)),
        ),
    };
    let mut html = format!("<p><b>Rallied: {title}</b></p><p>{text}</p>");
    if decided == Decided::Executed {
        steps_html(&mut html, steps);
    }
    reference(&mut html, marker);
    html
}

const WHY_SENSITIVE: &str = "Why this ticket is sensitive";

/// The note that a challenge was sent.
pub fn challenge_html(method: &str, address: &str, reasons: &[String], marker: &str) -> String {
    let mut html = format!(
        "<p><b>Rallied: the requester was asked to prove who they are</b></p><p>This ticket is \
         sensitive. A challenge was sent by {} to {}. Until it is answered, the AI agent does not \
         see the ticket.</p>",
        escape(method),
        escape(address)
    );
    list(&mut html, WHY_SENSITIVE, "ul", reasons);
    reference(&mut html, marker);
    html
}

/// The note about the result of a verification.
pub fn verification_html(
    state: VerificationState,
    message: &str,
    reasons: &[String],
    by: &str,
    marker: &str,
) -> String {
    let (title, text) = match state {
        VerificationState::Verified => (
            "the requester is verified",
            "The requester has proved who they are. The AI agent starts now.".to_string(),
        ),
        VerificationState::Overridden => (
            "verification overridden",
            format!(
                "{} vouches for the requester. The AI agent starts now.",
                escape(by)
            ),
        ),
        VerificationState::Skipped => (
            "verification skipped",
            "The verification provider could not be reached, and its failurePolicy is Ignore. The \
             AI agent starts now."
                .to_string(),
        ),
        _ => (
            "the requester is not verified",
            format!(
                "{}. The AI agent does not start.",
                escape(&sentence(message))
            ),
        ),
    };
    let mut html = format!("<p><b>Rallied: {title}</b></p><p>{text}</p>");
    if !state.passes() {
        list(&mut html, WHY_SENSITIVE, "ul", reasons);
        html.push_str(
            "<p>To ask the requester again, reply \u{201c}verify again\u{201d}. The technician \
             assigned to this ticket may reply \u{201c}override verification\u{201d} and takes \
             responsibility for it.</p>",
        );
    }
    reference(&mut html, marker);
    html
}

/// A status message as the beginning of a sentence: with a capital letter, without a full stop.
fn sentence(message: &str) -> String {
    let mut rest = message.trim_end_matches('.').chars();
    rest.next()
        .map(|first| first.to_uppercase().chain(rest).collect())
        .unwrap_or_default()
}

/// The agent's words at the end of a later turn. Written by an untrusted agent.
pub fn turn_html(text: &str, marker: &str) -> String {
    turn(text, None, marker)
}

/// The same while a request waits: the note ends with how that one is answered, so that nobody
/// answers the agent and decides about the request.
pub fn waiting_turn_html(text: &str, ask: &Ask<'_>, marker: &str) -> String {
    turn(text, Some(ask), marker)
}

fn turn(text: &str, ask: Option<&Ask<'_>>, marker: &str) -> String {
    let mut html = String::from("<p><b>Rallied</b></p>");
    for line in text::cut(text, MAX_MESSAGE)
        .lines()
        .map(|l| one_line(l, MAX_LINE))
        .filter(|l| !l.is_empty())
        .take(2 * MAX_LINES)
    {
        html.push_str(&format!("<p>{}</p>", escape(&line)));
    }
    if let Some(ask) = ask {
        html.push_str(&format!(
            "<p><b>Rallied: request {} still waits.</b> An answer to this note does not decide \
             about it. {}</p>",
            ask.number,
            standing(ask)
        ));
    }
    reference(&mut html, marker);
    html
}

fn steps_html(html: &mut String, steps: &[Listed]) {
    html.push_str("<ol>");
    for step in steps {
        let risk = if step.high_risk { "HIGH RISK: " } else { "" };
        html.push_str(&format!(
            "<li><b>{risk}{}</b> ({})",
            escape(&step.what),
            escape(&step.record)
        ));
        for (name, value) in &step.values {
            let value: Vec<String> = text::cut(value, MAX_VALUE).lines().map(escape).collect();
            html.push_str(&format!("<br>{}: {}", escape(name), value.join("<br>")));
        }
        for (name, text) in [("Why", &step.why), ("Result", &step.result)] {
            if !text.is_empty() {
                html.push_str(&format!(
                    "<br><i>{name}:</i> {}",
                    escape(&one_line(text, MAX_LINE))
                ));
            }
        }
        html.push_str("</li>");
    }
    html.push_str("</ol>");
}

fn count(n: usize, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}

fn paragraph(html: &mut String, title: &str, text: &str) {
    if !text.is_empty() {
        html.push_str(&format!("<p><b>{title}:</b> {}</p>", escape(text)));
    }
}

fn list(html: &mut String, title: &str, tag: &str, items: &[String]) {
    if items.is_empty() {
        return;
    }
    html.push_str(&format!("<p><b>{title}:</b></p><{tag}>"));
    for item in items {
        html.push_str(&format!("<li>{}</li>", escape(item)));
    }
    html.push_str(&format!("</{tag}>"));
}

fn reference(html: &mut String, marker: &str) {
    html.push_str(&format!(
        "<p><small>{REFERENCE}{} </small></p>",
        text::escape(marker)
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticket::marker::{Tag, is_reference, marker};
    use crate::ticket::plan::Confidence;
    use proptest::prelude::*;

    #[test]
    fn the_note_is_escaped_and_holds_its_marker() {
        let marker = marker("0f3c5f0a-1111-2222-3333-444455556666", 42, 0, &Tag::Plan, 1);
        let plan = Plan {
            asked: "<script>alert(1)</script>".into(),
            steps: vec!["Restart & wait".into()],
            confidence: Confidence::High,
            ..Plan::default()
        };
        let html = plan_html(&plan.bounded(), Mode::Plan, &marker);
        assert!(!html.contains("<script>"));
        assert!(html.contains("Restart &amp; wait"));
        assert!(html.contains(&marker));
        // As HaloPSA returns it: without tags, and with nothing in their place.
        assert!(is_reference(&text::from_html(&html), &marker));
        assert!(failure_html("a < b", &[], &marker).contains("a &lt; b"));
    }

    #[test]
    fn a_request_says_what_who_and_how_long() {
        let step = Listed {
            what: "Reply to the requester".into(),
            record: "ticket 7".into(),
            values: vec![("text".into(), "<b>Hi</b>\nKim".into())],
            why: "to ask".into(),
            ..Listed::default()
        };
        let ask = Ask {
            assigned: "Dana Novak",
            until: "2026-11-25 10:00 UTC",
            number: 2,
            code: "K7QF",
            ..Ask::default()
        };
        let html = request_html(std::slice::from_ref(&step), &ask, "rallied-x-0-ask-abc");
        for part in [
            "1 step would",
            "&lt;b&gt;Hi&lt;/b&gt;<br>Kim",
            "Dana Novak",
            "2026-11-25 10:00 UTC",
            "rallied-x-0-ask-abc",
            "Why:</i> to ask",
            "(request 2, code K7QF)",
            "1 step: Reply to the requester.",
            "<b>approve 2</b> runs everything",
            "<b>deny 2</b> runs nothing",
            "Your own words count",
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert!(request_html(&[step], &Ask::default(), "m").contains("Nobody is assigned"));
        // Our own notes are never read as replies. Even if they were, this is not a yes.
        assert_ne!(
            crate::ticket::reply::classify_html(&html).intent,
            crate::ticket::reply::Intent::Approve
        );
    }

    #[test]
    fn a_high_risk_step_is_marked_and_needs_the_code() {
        let step = |what: &str, high_risk| Listed {
            what: what.into(),
            high_risk,
            ..Listed::default()
        };
        let steps = [
            step("Add a private note", false),
            step("Call m365__delete_user", true),
        ];
        let ask = Ask {
            number: 2,
            code: "K7QF",
            needs_code: true,
            ..Ask::default()
        };
        let html = request_html(&steps, &ask, "m");
        for part in [
            "2 steps, 1 high-risk: Add a private note; Call m365__delete_user.",
            "<b>HIGH RISK: Call m365__delete_user</b>",
            "<b>approve 2 K7QF</b>",
            "<b>deny 2</b>",
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert!(!html.contains("Your own words"), "{html}");
        // Only the request itself shows its code.
        for other in [
            reminder_html(2, &ask, "m"),
            uncounted_html("it came within a minute of a new request", &ask, "m"),
            waiting_turn_html("Shall I?", &ask, "m"),
        ] {
            assert!(other.contains("approve 2 CODE"), "{other}");
            assert!(!other.contains("K7QF"), "{other}");
        }
    }

    proptest! {
        /// A technician approves what is shown: nothing in it is invisible.
        #[test]
        fn nothing_in_a_request_is_invisible(hidden in "\\p{Cf}{1,20}", name in "[a-z]{0,5}") {
            let text = format!("{name}{hidden}{name}");
            let step = Listed {
                what: text.clone(),
                record: text.clone(),
                values: vec![(text.clone(), text.clone())],
                why: text.clone(),
                result: text.clone(),
                high_risk: false,
            };
            let ask = Ask {
                assigned: &text,
                also: &text,
                until: &text,
                code: &text,
                ..Ask::default()
            };
            for html in [
                request_html(std::slice::from_ref(&step), &ask, "m"),
                reminder_html(1, &ask, "m"),
                uncounted_html(&text, &ask, "m"),
                waiting_turn_html(&text, &ask, "m"),
                decision_html(Decided::Executed, &text, std::slice::from_ref(&step), "m"),
                failure_html(&text, std::slice::from_ref(&step), "m"),
                challenge_html(&text, &text, std::slice::from_ref(&text), "m"),
            ] {
                prop_assert!(!html.chars().any(text::invisible::is_invisible), "{:?}", html);
            }
        }
    }

    #[test]
    fn nobody_else_writes_a_marker() {
        let theirs = "rallied-0011223344556677-0-failure";
        let text = format!("Reference: {theirs} rallied-0011223344556677-1-plan-aaaaaaaaaa");
        let ours = "rallied-0011223344556677-0-turn001-bbbbbbbbbb";
        let plan = Plan {
            asked: text.clone(),
            findings: vec![text.clone()],
            ..Plan::default()
        };
        let step = Listed {
            what: text.clone(),
            record: text.clone(),
            values: vec![(text.clone(), text.clone())],
            why: text.clone(),
            result: text.clone(),
            high_risk: false,
        };
        let (steps, reasons) = (std::slice::from_ref(&step), std::slice::from_ref(&text));
        let ask = Ask {
            assigned: &text,
            ..Ask::default()
        };
        let denied = VerificationState::Denied;
        for html in [
            plan_html(&plan, Mode::Plan, ours),
            turn_html(&text, ours),
            waiting_turn_html(&text, &ask, ours),
            request_html(steps, &ask, ours),
            uncounted_html(&text, &ask, ours),
            decision_html(Decided::Executed, &text, steps, ours),
            failure_html(&text, steps, ours),
            challenge_html(&text, &text, reasons, ours),
            verification_html(denied, &text, reasons, &text, ours),
        ] {
            assert!(html.contains("rallied-…"), "{html}");
            assert_eq!(html.matches("rallied-0011").count(), 1, "{html}");
            assert!(is_reference(&text::from_html(&html), ours), "{html}");
        }
    }

    #[test]
    fn an_agent_cannot_write_without_end() {
        let plan = Plan {
            asked: "x".repeat(1_000_000),
            steps: vec!["y".repeat(10_000); 1000],
            ..Plan::default()
        }
        .bounded();
        assert!(plan_html(&plan, Mode::Plan, "m").len() < 64 * 1024);
        assert!(Plan::default().is_empty());
    }
}
