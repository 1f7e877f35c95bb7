//! What the notes on a ticket look like, and the markers that find them again.

use super::plan::{MAX_LINE, MAX_LINES, Plan};
use crate::api::Mode;
use crate::api::ticket::VerificationState;
use crate::text::{self, escape, hex, one_line};
use sha2::{Digest, Sha256};

/// A value in a request is shown whole: a technician approves what is there.
const MAX_VALUE: usize = 8192;
pub const MAX_MESSAGE: usize = 8192;

/// Stands in a note's text so that it is found again after a crash. HaloPSA
/// rebuilds a note's text by stripping tags without adding white space, so it is
/// looked for as a substring. It depends on the connection and HaloPSA's ticket,
/// not on the Ticket resource, so that a Ticket stored anew finds the old note.
pub fn marker(connection_uid: &str, ticket_id: i64, run: i32, tag: &str) -> String {
    let hash = Sha256::digest(format!("{connection_uid}/{ticket_id}"));
    let id = hex::encode(&hash[..8]);
    format!("rallied-{id}-{run}-{tag}")
}

/// Ends of markers. Numbers have a fixed width: one marker is never the beginning of another.
pub const PLAN: &str = "plan";
pub const FAILURE: &str = "failure";

pub fn step_tag(number: i32) -> String {
    format!("step{number:03}")
}

pub fn turn_tag(turn: i32) -> String {
    format!("turn{turn:03}")
}

/// The beginning of the request's hash: the request on the ticket and the steps in the cluster have to agree.
pub fn request_tag(hash: &str) -> String {
    format!("ask-{}", hash.chars().take(16).collect::<String>())
}

/// The internal note with diagnosis and plan.
pub fn plan_html(plan: &Plan, mode: Mode, marker: &str) -> String {
    let mut html = String::with_capacity(2048);
    let title = match mode {
        Mode::Plan => "Diagnosis and plan (Plan mode: nothing was changed)",
        Mode::Execute => "Diagnosis and plan",
    };
    html.push_str(&format!("<p><b>Rallied: {title}</b></p>"));
    paragraph(&mut html, "What is asked", &plan.asked);
    list(&mut html, "What was found", "ul", &plan.findings);
    paragraph(&mut html, "Likely cause", &plan.likely_cause);
    list(&mut html, "Proposed steps", "ol", &plan.steps);
    list(&mut html, "Ask the requester", "ul", &plan.questions);
    paragraph(&mut html, "Confidence", plan.confidence.as_str());
    list(&mut html, "Looked at", "ul", &plan.looked_at);
    reference(&mut html, marker);
    html
}

/// The internal note that says why nobody worked on the ticket, and what had been done by then.
pub fn failure_html(reason: &str, done: &[Listed], marker: &str) -> String {
    let mut html = String::from("<p><b>Rallied: this ticket needs a technician</b></p>");
    let changed = if done.is_empty() {
        "Nothing was changed."
    } else {
        "Below is what was run; look at each before you go on."
    };
    html.push_str(&format!(
        "<p>The agent could not finish and has stopped. {changed} Reason: {}</p>",
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
    /// What is done, like `Reply to the requester`.
    pub what: String,
    /// On which record, like `ticket 4242`.
    pub record: String,
    /// With which values: (name, value).
    pub values: Vec<(String, String)>,
    pub why: String,
    /// What came of it.
    pub result: String,
}

/// Who decides, and how long.
#[derive(Clone, Debug, Default)]
pub struct Ask<'a> {
    /// Like `Dana Novak`; empty: the ticket is assigned to nobody.
    pub assigned: &'a str,
    /// Others who may approve, for people.
    pub also: &'a str,
    /// Like `2026-11-25 10:00 UTC`.
    pub until: &'a str,
    /// It replaces an earlier request.
    pub replaces: bool,
}

/// The action that asks for approval: what would be done, exactly.
pub fn request_html(steps: &[Listed], ask: &Ask<'_>, marker: &str) -> String {
    let mut html = String::from("<p><b>Rallied: approval needed</b></p>");
    if ask.replaces {
        html.push_str("<p>This replaces the earlier request; a reply to that one does not count any more.</p>");
    }
    html.push_str(&format!(
        "<p>{} would be carried out, in this order, and nothing else:</p>",
        count(steps.len(), "step")
    ));
    steps_html(&mut html, steps);
    let who = match (ask.assigned.is_empty(), ask.also.is_empty()) {
        (false, true) => format!(
            "<b>{}</b>, this ticket's assigned agent, decides.",
            escape(ask.assigned)
        ),
        (false, false) => format!(
            "<b>{}</b>, this ticket's assigned agent, decides, or {}.",
            escape(ask.assigned),
            escape(ask.also)
        ),
        (true, true) => {
            "<b>Nobody is assigned to this ticket.</b> Assign it: its assigned agent decides."
                .to_string()
        }
        (true, false) => format!(
            "<b>Nobody is assigned to this ticket.</b> Its assigned agent decides, once it has one, or {}.",
            escape(ask.also)
        ),
    };
    html.push_str(&format!("<p>{who} Reply on this ticket in your own words: a clear yes (\u{201c}approved\u{201d}, \u{201c}go ahead\u{201d}) runs all steps, a clear no runs none. Anything else goes to the agent as a message. Valid until {}.</p>", escape(ask.until)));
    reference(&mut html, marker);
    html
}

/// The note that repeats a request nobody has answered.
pub fn reminder_html(steps: usize, ask: &Ask<'_>, marker: &str) -> String {
    let who = if ask.assigned.is_empty() {
        "Nobody is assigned to this ticket; assign it, so that somebody can decide.".to_string()
    } else {
        format!("{}: please reply with a yes or a no.", escape(ask.assigned))
    };
    let mut html = format!(
        "<p><b>Rallied: still waiting for approval</b></p><p>{} wait for approval (see the request above). {who} Without an answer the request ends on {}.</p>",
        count(steps, "step"),
        escape(ask.until)
    );
    reference(&mut html, marker);
    html
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    Denied,
    Expired,
    Ran,
}

/// The note about what became of a request, with what each step came to.
pub fn decision_html(decided: Decided, by: &str, steps: &[Listed], marker: &str) -> String {
    let (title, text) = match decided {
        Decided::Denied => (
            "the steps were denied",
            format!("{} said no. Nothing was run.", escape(by)),
        ),
        Decided::Expired => (
            "the request for approval has ended",
            "Nobody answered in time. Nothing was run.".to_string(),
        ),
        Decided::Ran => ("the approved steps", format!("Approved by {}.", escape(by))),
    };
    let mut html = format!("<p><b>Rallied: {title}</b></p><p>{text}</p>");
    if decided == Decided::Ran {
        steps_html(&mut html, steps);
    }
    reference(&mut html, marker);
    html
}

/// The note that a challenge was sent.
pub fn challenge_html(method: &str, address: &str, reasons: &[String], marker: &str) -> String {
    let mut html = format!(
        "<p><b>Rallied: the requester is asked to prove who they are</b></p><p>This ticket is sensitive. A challenge was sent by {} to {}. Until it is answered no agent sees the ticket.</p>",
        escape(method),
        escape(address)
    );
    list(&mut html, "Why", "ul", reasons);
    reference(&mut html, marker);
    html
}

/// The note about what became of a verification.
pub fn verification_html(
    state: VerificationState,
    message: &str,
    reasons: &[String],
    by: &str,
    marker: &str,
) -> String {
    let (title, text) = match state {
        VerificationState::Verified => ("the requester is verified", "The requester has proved who they are; the agent starts.".to_string()),
        VerificationState::Overridden => ("verification overridden", format!("{} vouches for the requester; the agent starts.", escape(by))),
        VerificationState::Skipped => {
            ("verification skipped", "The verification provider could not be reached, and its failurePolicy is Ignore; the agent starts.".to_string())
        }
        _ => ("the requester is not verified", format!("{}. The agent does not start.", escape(message.trim_end_matches('.')))),
    };
    let mut html = format!("<p><b>Rallied: {title}</b></p><p>{text}</p>");
    if !state.passes() {
        list(&mut html, "Why this ticket is sensitive", "ul", reasons);
        html.push_str("<p>Reply \u{201c}verify again\u{201d} to have the requester asked once more. The ticket's assigned agent may reply \u{201c}override verification\u{201d} and answers for it.</p>");
    }
    reference(&mut html, marker);
    html
}

/// The agent's words at the end of a later round. Written by an untrusted agent.
pub fn turn_html(text: &str, marker: &str) -> String {
    let mut html = String::from("<p><b>Rallied</b></p>");
    for line in text::cut(text, MAX_MESSAGE)
        .lines()
        .map(|l| one_line(l, MAX_LINE))
        .filter(|l| !l.is_empty())
        .take(2 * MAX_LINES)
    {
        html.push_str(&format!("<p>{}</p>", escape(&line)));
    }
    reference(&mut html, marker);
    html
}

fn steps_html(html: &mut String, steps: &[Listed]) {
    html.push_str("<ol>");
    for step in steps {
        html.push_str(&format!(
            "<li><b>{}</b> ({})",
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
        "<p><small>Reference: {} </small></p>",
        escape(marker)
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticket::plan::Confidence;

    #[test]
    fn the_note_is_escaped_and_holds_its_marker() {
        let marker = marker("0f3c5f0a-1111-2222-3333-444455556666", 42, 0, PLAN);
        assert!(
            marker.starts_with("rallied-") && marker.ends_with("-0-plan"),
            "{marker}"
        );
        assert_eq!(marker.len(), "rallied-".len() + 16 + "-0-plan".len());
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
        // As HaloPSA gives it back: tags stripped, nothing put in their place.
        assert!(text::from_html(&html).contains(&marker));
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
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert!(request_html(&[step], &Ask::default(), "m").contains("Nobody is assigned"));
        // Our own words are never read as a reply; were they, they would not be a yes.
        assert_ne!(
            crate::ticket::reply::classify_html(&html).intent,
            crate::ticket::reply::Intent::Approve
        );
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
