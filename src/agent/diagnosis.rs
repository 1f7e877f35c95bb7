//! The built-in brain's conclusion: a plan from the ticket and the evidence. Pure.

use super::evidence::{Evidence, text};
use super::runbooks::{self, Runbook};
use crate::gateway::wire::{Confidence, Context, Plan};
use serde_json::Value;

/// Assets and articles named in a plan.
const MAX_ASSETS: usize = 3;
const MAX_ARTICLES: usize = 2;

/// The plan for a ticket.
pub fn conclude(context: &Context, evidence: &Evidence) -> Plan {
    let matched = runbooks::find(&context.subject, &context.details);
    let book = matched.map(|(book, _)| book);
    let score = matched.map(|(_, score)| score);
    let mut looked_at = vec!["the ticket and its notes".to_string()];
    looked_at.extend(evidence.checked.iter().cloned());
    Plan {
        asked: asked(context, book),
        findings: findings(context, evidence),
        likely_cause: book
            .map_or("Not clear from the ticket", |b| b.cause)
            .to_string(),
        steps: steps(book, evidence),
        questions: questions(book),
        confidence: confidence(score, !evidence.similar.is_empty()),
        looked_at,
    }
}

fn asked(context: &Context, book: Option<&Runbook>) -> String {
    let who = match context.requester.name.as_str() {
        "" => "The requester",
        name => name,
    };
    let topic = book.map_or("unknown", |b| b.name);
    let priority = match context.priority.as_str() {
        "" => String::new(),
        name => format!(", priority {name}"),
    };
    format!(
        "{who} reports: \"{}\". Topic: {topic}{priority}.",
        context.subject
    )
}

fn findings(context: &Context, evidence: &Evidence) -> Vec<String> {
    let mut findings: Vec<String> = evidence.user.iter().map(requester).collect();
    if let Some(verification) = &context.verification {
        findings.push(format!("The requester's identity: {verification}"));
    }
    findings.extend(evidence.assets.iter().take(MAX_ASSETS).map(|asset| {
        format!(
            "Requester's asset: {} ({}, {})",
            text(asset, "name"),
            text(asset, "model"),
            text(asset, "type")
        )
    }));
    findings.extend(evidence.similar.iter().map(|ticket| {
        format!(
            "Resolution of similar ticket {} \"{}\": {}",
            id(ticket),
            text(ticket, "summary"),
            text(ticket, "closureNote")
        )
    }));
    findings.extend(evidence.articles.iter().take(MAX_ARTICLES).map(|article| {
        format!(
            "Knowledge base: \"{}\": {}",
            text(article, "name"),
            text(article, "resolution")
        )
    }));
    let notes = context.notes.iter().filter(|n| !n.text.is_empty()).count();
    if notes > 1 {
        findings.push(format!("The ticket already has {notes} notes"));
    }
    let failed = evidence.failed.iter();
    findings.extend(failed.map(|what| format!("Could not check: {what}")));
    findings
}

/// The requester, from HaloPSA's record.
fn requester(user: &Value) -> String {
    let mut about = vec![
        text(user, "name"),
        text(user, "department"),
        text(user, "site"),
    ];
    about.retain(|s| !s.is_empty());
    let is = |flag: &str| user.get(flag).and_then(Value::as_bool) == Some(true);
    let mut line = format!("Requester: {}", about.join(", "));
    if is("inactive") {
        line.push_str(" (inactive in HaloPSA: check who is asking)");
    }
    if is("important") {
        line.push_str(" (important contact)");
    }
    line
}

fn id(ticket: &Value) -> i64 {
    ticket.get("id").and_then(Value::as_i64).unwrap_or_default()
}

/// What solved a similar ticket comes first, then the runbook.
fn steps(book: Option<&Runbook>, evidence: &Evidence) -> Vec<String> {
    let precedent = evidence.similar.first().map(|ticket| {
        let solution = text(ticket, "closureNote");
        format!("First try what solved ticket {}: {solution}", id(ticket))
    });
    let mut steps: Vec<String> = precedent.into_iter().collect();
    match book {
        Some(book) => steps.extend(book.steps.iter().map(|s| s.to_string())),
        None => steps.push("Read the ticket and call the requester: no runbook matches".into()),
    }
    steps
}

fn questions(book: Option<&Runbook>) -> Vec<String> {
    let questions: &[&str] = match book {
        Some(book) => book.questions,
        None => &[
            "What exactly does not work, since when, and for whom?",
            "What does the screen say (a photo helps)?",
        ],
    };
    questions.iter().map(|q| q.to_string()).collect()
}

/// From the runbook's score, if one matches, and whether a similar ticket was solved.
fn confidence(score: Option<usize>, precedent: bool) -> Confidence {
    match (score, precedent) {
        (Some(score), true) if score >= 3 => Confidence::High,
        (Some(score), false) if score >= 4 => Confidence::Medium,
        (Some(_), true) => Confidence::Medium,
        _ => Confidence::Low,
    }
}

#[cfg(test)]
mod tests {
    use super::super::evidence::similar;
    use super::*;
    use crate::gateway::wire::Requester;
    use serde_json::json;

    fn context(subject: &str, details: &str) -> Context {
        Context {
            ticket_id: 4242,
            subject: subject.into(),
            details: details.into(),
            requester: Requester {
                user_id: Some(77),
                name: "Kim Lee".into(),
                email: String::new(),
            },
            priority: "Medium".into(),
            ..Context::default()
        }
    }

    #[test]
    fn a_known_topic_with_a_precedent() {
        let found = vec![
            json!({"id": 4000, "summary": "Printer on reception is offline", "details": "",
                "closureNote": "Restarted the spooler."}),
            json!({"id": 4242, "summary": "Printer offline", "closureNote": "itself"}),
            json!({"id": 4001, "summary": "Printer toner", "closureNote": ""}),
        ];
        let context = context("Printer offline at reception", "nobody can print");
        let user = json!({
            "name": "Kim Lee", "department": "Front Office", "site": "Main", "important": true
        });
        let evidence = Evidence {
            user: Some(user),
            similar: similar(&context, found),
            checked: vec!["the knowledge base".into()],
            ..Evidence::default()
        };
        assert_eq!(evidence.similar.len(), 1);
        let plan = conclude(&context, &evidence);
        assert!(
            plan.steps[0].contains("4000") && plan.steps[0].contains("spooler"),
            "{:?}",
            plan.steps
        );
        assert_eq!(plan.confidence, Confidence::High);
        assert!(plan.findings[0].contains("important contact"));
        assert_eq!(
            plan,
            conclude(&context, &evidence),
            "the same ticket gives the same plan"
        );
    }

    #[test]
    fn an_unknown_topic_is_stated() {
        let plan = conclude(
            &context("Question", "hello"),
            &Evidence {
                failed: vec!["x (y)".into()],
                ..Evidence::default()
            },
        );
        assert_eq!(plan.confidence, Confidence::Low);
        assert!(!plan.is_empty());
        assert!(
            plan.findings
                .iter()
                .any(|f| f.contains("Could not check: x"))
        );
    }
}
