//! The built-in brain: read, compare, conclude. No language model, and the same
//! ticket gives the same plan.

use super::Conclusion;
use super::gateway::{Error, Gateway, Tools};
use super::runbooks::{self, Runbook};
use crate::gateway::wire::{
    Confidence, Context, Mode, Plan, ResumeReason, StepState, Work, WorkflowStep,
};
use crate::text::one_line;
use crate::ticket::workflow;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Past tickets named in a plan.
const MAX_SIMILAR: usize = 3;
/// Searches for past tickets, from the narrowest to the widest.
const MAX_SEARCHES: usize = 2;

/// What the tools brought to light.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    pub user: Option<Value>,
    pub assets: Vec<Value>,
    /// Past tickets of the client, most alike first.
    pub similar: Vec<Value>,
    pub articles: Vec<Value>,
    pub looked_at: Vec<String>,
    /// What could not be looked at, and why.
    pub failed: Vec<String>,
}

/// A call that says that it is not known yet what became of it is made again so often.
const MAX_WAIT: u32 = 5;

/// One turn: the first diagnoses and acts, a later one answers.
pub async fn think(work: &Work, gateway: &Gateway) -> Conclusion {
    if work.turn > 0 {
        return Conclusion {
            plan: None,
            message: Some(answer(work)),
        };
    }
    let plan = diagnose(work, gateway).await;
    if work.mode != Mode::Execute {
        return Conclusion {
            plan: Some(plan),
            message: None,
        };
    }
    let calls = intended(work);
    let plan = Plan {
        steps: announced(&plan.steps, work, &calls),
        ..plan
    };
    // Technicians read the plan before anything changes. If it cannot be handed in, nothing does.
    if let Err(error) = super::hand_in(gateway, work, &plan).await {
        tracing::warn!(ticket = %work.ticket, %error, "the plan could not be handed in; nothing is done");
        return Conclusion {
            plan: Some(plan),
            message: None,
        };
    }
    let mut failed = Vec::new();
    match gateway.tools().await {
        Ok(tools) => {
            for call in &calls {
                if let Err(error) = persist(&tools, call).await {
                    failed.push(format!("{}: {error}", call.tool));
                    break;
                }
            }
        }
        Err(error) => failed.push(error.to_string()),
    }
    let message = (!failed.is_empty()).then(|| {
        format!(
            "The plan was not carried out to its end. {}",
            failed.join("; ")
        )
    });
    Conclusion {
        plan: Some(plan),
        message,
    }
}

/// Makes a call, again while it is not known what became of it.
async fn persist(tools: &Tools, call: &WorkflowStep) -> Result<Value, Error> {
    let mut arguments = call.arguments.clone();
    if let Some(why) = &call.why
        && crate::tools::write::find(&call.tool).is_some()
    {
        arguments.insert(crate::tools::write::WHY.into(), why.as_str().into());
    }
    let mut tries = 0;
    loop {
        match tools
            .call(&call.tool, Value::Object(arguments.clone()))
            .await
        {
            Err(Error::Tool(text)) if text.contains("not known yet") && tries < MAX_WAIT => {
                tries += 1;
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            other => return other,
        }
    }
}

/// What this brain would do about a ticket: the steps of the workflow that fits
/// best; without one, what is safe in any case.
pub fn intended(work: &Work) -> Vec<WorkflowStep> {
    let context = &work.context;
    let id = context.ticket_id.to_string();
    let values = [
        ("ticketId", id.as_str()),
        ("requester", &context.requester.name),
        ("subject", &context.subject),
        ("client", &context.client),
    ];
    let fill = |step: &WorkflowStep| WorkflowStep {
        arguments: workflow::fill(&step.arguments, &values),
        ..step.clone()
    };
    if let Some(workflow) = context.workflows.iter().find(|w| !w.steps.is_empty()) {
        return workflow.steps.iter().map(fill).collect();
    }
    let questions: Vec<String> = match runbooks::find(&context.subject, &context.details) {
        Some((book, _)) => book.questions.iter().map(|q| q.to_string()).collect(),
        None => Vec::new(),
    };
    let mut calls = Vec::new();
    if !questions.is_empty() {
        let name = if context.requester.name.is_empty() {
            "there"
        } else {
            &context.requester.name
        };
        let list: Vec<String> = questions.iter().map(|q| format!("- {q}")).collect();
        let text = format!(
            "Hello {name},\n\nwe are looking into \"{}\". So that we can help you faster, please tell us:\n\n{}\n\nThank you",
            context.subject,
            list.join("\n")
        );
        calls.push(call(
            "halopsa_reply_to_requester",
            json!({"text": text}),
            "to have the answers when a technician starts",
        ));
    }
    calls.push(call(
        "halopsa_update_ticket",
        json!({"status": "In Progress"}),
        "it is being worked on",
    ));
    calls
}

fn call(tool: &str, arguments: Value, why: &str) -> WorkflowStep {
    let arguments = if let Value::Object(map) = arguments {
        map
    } else {
        Map::new()
    };
    WorkflowStep {
        tool: tool.into(),
        arguments,
        why: Some(why.into()),
    }
}

/// The plan's steps: what is about to be called, then what is left to people.
fn announced(advice: &[String], work: &Work, calls: &[WorkflowStep]) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    for workflow in &work.context.workflows {
        steps.extend(
            workflow
                .instructions
                .lines()
                .map(str::trim)
                .filter(|l| !l.is_empty())
                .map(|l| format!("By workflow {}: {l}", workflow.name)),
        );
    }
    steps.extend(calls.iter().map(|c| {
        let title = crate::tools::write::find(&c.tool).map_or(c.tool.as_str(), |t| t.title);
        let why = c
            .why
            .as_deref()
            .map(|w| format!(", {w}"))
            .unwrap_or_default();
        let values: Vec<String> = c
            .arguments
            .iter()
            .map(|(k, v)| {
                format!(
                    "{k}: {}",
                    one_line(
                        &v.as_str().map_or_else(|| v.to_string(), str::to_string),
                        160
                    )
                )
            })
            .collect();
        format!("The agent: {title} ({}){why}", values.join("; "))
    }));
    steps.extend(advice.iter().map(|a| format!("For the technician: {a}")));
    steps
}

/// What to say in a later round: pure.
pub fn answer(work: &Work) -> String {
    let in_state = |state: StepState| work.steps.iter().filter(|s| s.state == state).count();
    let reason = work.resumed.as_ref().map(|w| w.reason).unwrap_or_default();
    match reason {
        ResumeReason::StepsRun => {
            let open = in_state(StepState::Failed) + in_state(StepState::Unknown) + in_state(StepState::Superseded);
            if open == 0 {
                "All approved steps are done. Nothing more is planned by the agent; the ticket stays with its assigned technician.".into()
            } else {
                let lines: Vec<String> = work.steps.iter().filter(|s| matches!(s.state, StepState::Failed | StepState::Unknown)).map(|s| format!("Step {} ({}): {}", s.number, s.tool, s.result)).collect();
                format!("Not every approved step was done. Please take over from here.\n{}", lines.join("\n"))
            }
        }
        ResumeReason::Denied => "Understood: none of the steps was run, and the agent stops here. Its diagnosis above remains as a proposal.".into(),
        ResumeReason::Message if work.approval_pending => "Your message was read as neither a clear yes nor a clear no, so the request above stands unchanged. All of its steps are approved or denied together: reply with a plain yes to run every step as listed, or with a no to run none. To have only some of them done, or under a condition, reply no and do those by hand.".into(),
        ResumeReason::Message => "Your message was read. The built-in agent has nothing to add to its diagnosis above.".into(),
    }
}

/// Polls around and concludes. A tool that fails makes the plan poorer, not absent.
pub async fn diagnose(work: &Work, gateway: &Gateway) -> Plan {
    let context = &work.context;
    let evidence = match gateway.tools().await {
        Ok(tools) => gather(context, &tools).await,
        Err(error) => Evidence {
            failed: vec![format!("HaloPSA's records ({error})")],
            ..Evidence::default()
        },
    };
    with_workflows(work, conclude(context, &evidence))
}

/// In Plan mode a workflow's instructions are what would be done.
fn with_workflows(work: &Work, plan: Plan) -> Plan {
    if work.mode == Mode::Execute || work.context.workflows.is_empty() {
        return plan;
    }
    Plan {
        steps: announced(&plan.steps, work, &[])
            .into_iter()
            .map(|s| s.trim_start_matches("For the technician: ").to_string())
            .collect(),
        ..plan
    }
}

/// The end of a turn that could not be finished.
pub fn gave_up(work: &Work, why: &str) -> Conclusion {
    let plan = conclude(
        &work.context,
        &Evidence {
            failed: vec![format!("HaloPSA's records ({why})")],
            ..Evidence::default()
        },
    );
    let message = (work.turn > 0 || work.mode == Mode::Execute)
        .then(|| format!("The agent could not finish its turn: {why}."));
    Conclusion {
        plan: Some(plan),
        message,
    }
}

async fn gather(context: &Context, tools: &Tools) -> Evidence {
    let mut evidence = Evidence::default();
    let book = runbooks::find(&context.subject, &context.details).map(|(book, _)| book);
    if let Some(user_id) = context.requester.user_id {
        let user = tools
            .call("halopsa_get_user", json!({"userId": user_id}))
            .await;
        evidence.user = note(&mut evidence, "the requester's record", user)
            .and_then(|v| v.get("user").cloned());
    }
    if !context.requester.name.is_empty() {
        let assets = tools
            .call(
                "halopsa_list_assets",
                json!({"query": context.requester.name, "limit": 5}),
            )
            .await;
        evidence.assets = rows(
            note(&mut evidence, "the requester's assets", assets),
            "assets",
        );
    }
    for query in queries(context, book).into_iter().take(MAX_SEARCHES) {
        let found = tools
            .call(
                "halopsa_search_tickets",
                json!({"query": query, "limit": 20}),
            )
            .await;
        let found = rows(
            note(
                &mut evidence,
                &format!("this client's tickets with \"{query}\""),
                found,
            ),
            "tickets",
        );
        evidence.similar = similar(context, found);
        if !evidence.similar.is_empty() {
            break;
        }
    }
    if let Some(book) = book {
        let found = tools
            .call(
                "halopsa_search_knowledge_base",
                json!({"query": book.topic, "limit": 3}),
            )
            .await;
        evidence.articles = rows(
            note(
                &mut evidence,
                &format!("the knowledge base for \"{}\"", book.topic),
                found,
            ),
            "articles",
        );
    }
    evidence
}

fn note(evidence: &mut Evidence, what: &str, result: Result<Value, Error>) -> Option<Value> {
    match result {
        Ok(value) => {
            evidence.looked_at.push(what.to_string());
            Some(value)
        }
        Err(error) => {
            evidence.failed.push(format!("{what} ({error})"));
            None
        }
    }
}

fn rows(value: Option<Value>, key: &str) -> Vec<Value> {
    value
        .and_then(|v| v.get(key)?.as_array().cloned())
        .unwrap_or_default()
}

/// What to search past tickets for: the kind of trouble, else the subject's longest word.
fn queries(context: &Context, book: Option<&Runbook>) -> Vec<String> {
    let mut words = runbooks::keywords(&context.subject);
    words.sort_by_key(|w| std::cmp::Reverse(w.len()));
    let mut queries: Vec<String> = book.map(|b| b.topic.to_string()).into_iter().collect();
    queries.extend(words.into_iter().take(1));
    queries.dedup();
    queries
}

/// Solved tickets that have words of the subject in common, most alike first.
fn similar(context: &Context, found: Vec<Value>) -> Vec<Value> {
    let wanted = runbooks::keywords(&context.subject);
    let text = |v: &Value, key: &str| {
        v.get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_string()
    };
    let mut scored: Vec<(usize, Value)> = found
        .into_iter()
        .filter(|t| t.get("id").and_then(Value::as_i64) != Some(context.ticket_id))
        .filter(|t| !text(t, "closureNote").is_empty())
        .map(|t| {
            let have =
                runbooks::keywords(&format!("{} {}", text(&t, "summary"), text(&t, "details")));
            let same = wanted.iter().filter(|w| have.contains(w)).count();
            (same, t)
        })
        .filter(|(same, _)| *same > 0)
        .collect();
    scored.sort_by_key(|(same, _)| std::cmp::Reverse(*same));
    scored
        .into_iter()
        .take(MAX_SIMILAR)
        .map(|(_, t)| t)
        .collect()
}

/// The plan for a ticket, from what it says and what was found: pure.
pub fn conclude(context: &Context, evidence: &Evidence) -> Plan {
    let book = runbooks::find(&context.subject, &context.details);
    let text = |v: &Value, key: &str| {
        v.get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_string()
    };
    let mut findings = Vec::new();
    if let Some(user) = &evidence.user {
        let mut about = vec![
            text(user, "name"),
            text(user, "department"),
            text(user, "site"),
        ];
        about.retain(|s| !s.is_empty());
        let mut line = format!("Requester: {}", about.join(", "));
        if user.get("inactive").and_then(Value::as_bool) == Some(true) {
            line.push_str(" (inactive in HaloPSA: check who is asking)");
        }
        if user.get("important").and_then(Value::as_bool) == Some(true) {
            line.push_str(" (important contact)");
        }
        findings.push(line);
    }
    if let Some(verification) = &context.verification {
        findings.push(format!("The requester's identity: {verification}"));
    }
    for asset in evidence.assets.iter().take(3) {
        findings.push(format!(
            "Asset of the requester: {} ({}, {})",
            text(asset, "name"),
            text(asset, "model"),
            text(asset, "type")
        ));
    }
    for ticket in &evidence.similar {
        findings.push(format!(
            "Similar ticket {} \"{}\" was solved so: {}",
            ticket.get("id").and_then(Value::as_i64).unwrap_or_default(),
            text(ticket, "summary"),
            text(ticket, "closureNote")
        ));
    }
    for article in evidence.articles.iter().take(2) {
        findings.push(format!(
            "Knowledge base: \"{}\": {}",
            text(article, "name"),
            text(article, "resolution")
        ));
    }
    let replies = context.notes.iter().filter(|n| !n.text.is_empty()).count();
    if replies > 1 {
        findings.push(format!("{replies} notes are on the ticket already"));
    }
    findings.extend(
        evidence
            .failed
            .iter()
            .map(|what| format!("Could not be looked at: {what}")),
    );

    let mut steps = Vec::new();
    if let Some(best) = evidence.similar.first() {
        steps.push(format!(
            "Try first what solved ticket {}: {}",
            best.get("id").and_then(Value::as_i64).unwrap_or_default(),
            text(best, "closureNote")
        ));
    }
    let (cause, questions) = match book {
        Some((book, _)) => {
            steps.extend(book.steps.iter().map(|s| s.to_string()));
            (
                book.cause.to_string(),
                book.questions.iter().map(|q| q.to_string()).collect(),
            )
        }
        None => {
            steps.push("Read the ticket and call the requester: it is of no kind the built-in runbooks know".into());
            (
                "Not clear from the ticket".to_string(),
                vec![
                    "What exactly does not work, since when, and for whom?".to_string(),
                    "What does the screen say (a photo helps)?".to_string(),
                ],
            )
        }
    };
    let confidence = match (&book, evidence.similar.is_empty()) {
        (Some((_, score)), false) if *score >= 3 => Confidence::High,
        (Some((_, score)), true) if *score >= 4 => Confidence::Medium,
        (Some(_), false) => Confidence::Medium,
        _ => Confidence::Low,
    };
    let who = if context.requester.name.is_empty() {
        "The requester"
    } else {
        &context.requester.name
    };
    let kind = book.map_or("of no known kind".to_string(), |(b, _)| {
        format!("about {}", b.name)
    });
    let mut looked_at = vec!["the ticket and its notes".to_string()];
    looked_at.extend(evidence.looked_at.iter().cloned());
    Plan {
        asked: format!(
            "{who} reports: \"{}\". A request {kind}{}.",
            context.subject,
            priority(&context.priority)
        ),
        findings,
        likely_cause: cause,
        steps,
        questions,
        confidence,
        looked_at,
    }
}

fn priority(name: &str) -> String {
    if name.is_empty() {
        String::new()
    } else {
        format!(", priority {name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::wire::Requester;

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
    fn a_known_kind_with_a_precedent() {
        let found = vec![
            json!({"id": 4000, "summary": "Printer on reception is offline", "details": "", "closureNote": "Restarted the spooler."}),
            json!({"id": 4242, "summary": "Printer offline", "closureNote": "itself"}),
            json!({"id": 4001, "summary": "Printer toner", "closureNote": ""}),
        ];
        let context = context("Printer offline at reception", "nobody can print");
        let evidence = Evidence {
            user: Some(
                json!({"name": "Kim Lee", "department": "Front Office", "site": "Main", "important": true}),
            ),
            similar: similar(&context, found),
            looked_at: vec!["the knowledge base".into()],
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
    fn an_unknown_kind_is_said_so() {
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
                .any(|f| f.contains("Could not be looked at: x"))
        );
    }
}
