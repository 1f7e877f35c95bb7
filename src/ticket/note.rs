//! What the notes on a ticket look like, and the markers that find them again.

use super::text::{self, escape, one_line};
use crate::api::Mode;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What an agent found out and would do. Written by an untrusted agent: every
/// field is bounded by [`Plan::bounded`] and escaped where it is shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Plan {
    /// What is asked, one or two sentences.
    pub asked: String,
    /// Facts found.
    pub findings: Vec<String>,
    pub likely_cause: String,
    /// What the agent would do, in order.
    pub steps: Vec<String>,
    /// What to ask the requester.
    pub questions: Vec<String>,
    pub confidence: Confidence,
    /// What was looked at to come to this.
    pub looked_at: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Confidence {
    #[default]
    Low,
    Medium,
    High,
}

impl Confidence {
    pub fn as_str(self) -> &'static str {
        match self {
            Confidence::Low => "low",
            Confidence::Medium => "medium",
            Confidence::High => "high",
        }
    }
}

const MAX_LINES: usize = 20;
const MAX_LINE: usize = 600;

impl Plan {
    /// The plan cut to what a technician reads and HaloPSA stores.
    pub fn bounded(self) -> Self {
        let line = |s: String| one_line(text::cut(&s, 4 * MAX_LINE), MAX_LINE);
        let lines = |v: Vec<String>| v.into_iter().take(MAX_LINES).map(line).filter(|l| !l.is_empty()).collect();
        Self {
            asked: line(self.asked),
            findings: lines(self.findings),
            likely_cause: line(self.likely_cause),
            steps: lines(self.steps),
            questions: lines(self.questions),
            confidence: self.confidence,
            looked_at: lines(self.looked_at),
        }
    }

    /// A plan without these says nothing to anyone.
    pub fn is_empty(&self) -> bool {
        self.asked.trim().is_empty() || (self.steps.is_empty() && self.questions.is_empty() && self.findings.is_empty())
    }
}

/// Stands in a note's text so that it is found again after a crash. HaloPSA
/// rebuilds a note's text by stripping tags without adding white space, so it is
/// looked for as a substring. It depends on the connection and HaloPSA's ticket,
/// not on the Ticket resource, so that a Ticket stored anew finds the old note.
pub fn marker(connection_uid: &str, ticket_id: i64, turn: i32, tag: &str) -> String {
    let hash = Sha256::digest(format!("{connection_uid}/{ticket_id}"));
    let id: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("rallied-{id}-{turn}-{tag}")
}

/// Ends of markers. Numbers have a fixed width: one marker is never the beginning of another.
pub const PLAN: &str = "plan";
pub const FAILURE: &str = "failure";

pub fn step_tag(number: i32) -> String {
    format!("step{number:03}")
}

pub fn round_tag(round: i32) -> String {
    format!("round{round:03}")
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

/// The internal note that says why nobody worked on the ticket.
pub fn failure_html(reason: &str, marker: &str) -> String {
    let mut html = String::from("<p><b>Rallied: this ticket needs a technician</b></p>");
    html.push_str(&format!(
        "<p>The agent could not finish its diagnosis and has stopped. Nothing was changed. Reason: {}</p>",
        escape(&one_line(reason, MAX_LINE))
    ));
    reference(&mut html, marker);
    html
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
    html.push_str(&format!("<p><small>Reference: {} </small></p>", escape(marker)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_is_escaped_and_holds_its_marker() {
        let marker = marker("0f3c5f0a-1111-2222-3333-444455556666", 42, 0, PLAN);
        assert!(marker.starts_with("rallied-") && marker.ends_with("-0-plan"), "{marker}");
        assert_eq!(marker.len(), "rallied-".len() + 16 + "-0-plan".len());
        let plan =
            Plan { asked: "<script>alert(1)</script>".into(), steps: vec!["Restart & wait".into()], confidence: Confidence::High, ..Plan::default() };
        let html = plan_html(&plan.bounded(), Mode::Plan, &marker);
        assert!(!html.contains("<script>"));
        assert!(html.contains("Restart &amp; wait"));
        assert!(html.contains(&marker));
        // As HaloPSA gives it back: tags stripped, nothing put in their place.
        assert!(text::from_html(&html).contains(&marker));
        assert!(failure_html("a < b", &marker).contains("a &lt; b"));
    }

    #[test]
    fn an_agent_cannot_write_without_end() {
        let plan = Plan { asked: "x".repeat(1_000_000), steps: vec!["y".repeat(10_000); 1000], ..Plan::default() }.bounded();
        assert!(plan_html(&plan, Mode::Plan, "m").len() < 64 * 1024);
        assert!(Plan::default().is_empty());
    }
}
