//! Execute mode: plan, steps, approval by a reply, results.

use crate::harness::{ACME, Harness, eventually};
use halopsa_operator::api::ticket::{ApprovalState, StepState, Ticket, TicketStatus};
use halopsa_operator::ids::TechnicianId;
use halosim::store::Author;
use serde_json::{Value, json};
use std::time::Duration;

pub const DANA: i64 = 3;
pub const LUIS: i64 = 4;

/// A ticket assigned to Dana, whose agent has asked for approval; its id and name.
pub async fn asked(harness: &Harness, summary: &str) -> (i64, String) {
    let id = harness.open_ticket(ACME, summary);
    harness.assign(id, DANA);
    let name = format!("acme-dental-group-{id}");
    harness.ticket_in(&name, "AwaitingApproval").await;
    (id, name)
}

/// Dana approves the request as it is, by number and code.
pub async fn approve(harness: &Harness, ticket: i64, name: &str) {
    let stored = harness.api::<Ticket>().get(name).await.unwrap();
    let request = stored.status.unwrap().approval.unwrap();
    let reply = format!("<p>Approve {} {}</p>", request.number, request.code);
    harness.reply(ticket, DANA, &reply);
}

pub fn notes_with(harness: &Harness, ticket: i64, text: &str) -> usize {
    harness
        .our_actions(ticket)
        .iter()
        .filter(|a| a["note"].as_str().unwrap_or_default().contains(text))
        .count()
}

async fn journal(harness: &Harness, name: &str, event: &str) -> usize {
    let ticket = harness.api::<Ticket>().get(name).await.unwrap();
    ticket
        .status
        .unwrap()
        .journal
        .iter()
        .filter(|e| e.event == event)
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_assigned_technicians_yes_runs_exactly_what_was_asked() {
    let mut harness = Harness::start("yes").await;
    harness.execute(&[ACME], json!({})).await;
    harness.run_agent("acme-dental-group").await;
    let (id, name) = asked(&harness, "Label printer is offline").await;
    only_plan_and_request_so_far(&harness, id);
    others_words_change_nothing(&harness, id, &name).await;
    harness.reply(id, DANA, "<p>Approved, go ahead.</p>");
    let status = harness.ticket_in(&name, "Done").await.status.unwrap();
    everything_ran_once(&harness, id, &status);

    // The same yes again, and more of them, run nothing more.
    harness.reply(id, DANA, "<p>Approved</p>");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        harness.our_actions(id).len(),
        9,
        "three of them say why a reply does not count"
    );
    harness.stop().await;
}

/// First the plan, then the request; nothing has changed.
fn only_plan_and_request_so_far(harness: &Harness, id: i64) {
    let actions = harness.our_actions(id);
    assert_eq!(actions.len(), 2, "{actions:#?}");
    assert!(
        actions[0]["note"]
            .as_str()
            .unwrap()
            .contains("Diagnosis and plan")
    );
    let request = actions[1]["note_html"].as_str().unwrap();
    for part in [
        "approval needed",
        "Reply to the requester",
        "In Progress",
        "Dana Novak",
        "Valid until",
        &format!("ticket {id}"),
    ] {
        assert!(request.contains(part), "{part}: {request}");
    }
    assert!(actions.iter().all(|a| a["hiddenfromuser"] == true));
    assert_eq!(harness.halo(id, "status_id"), 1);
}

/// Another technician, an integration and an e-mail.
async fn others_words_change_nothing(harness: &Harness, id: i64, name: &str) {
    harness.reply(id, LUIS, "<p>Approved, go ahead</p>");
    let robot = Author::Agent {
        id: DANA,
        application: "Zapier".into(),
    };
    harness.act(
        &robot,
        json!({"ticket_id": id, "outcome": "Private Note", "note": "approved"}),
    );
    let mail = Author::Agent {
        id: DANA,
        application: "nethelpdesk-agent-web-application".into(),
    };
    harness.act(&mail, json!({"ticket_id": id, "outcome": "Email User", "note": "approved", "emaildirection": "I"}));
    eventually("the replies are seen and ignored", || async {
        (journal(harness, name, "ReplyIgnored").await == 3).then_some(())
    })
    .await;
    eventually("technicians are told why", || async {
        (notes_with(harness, id, "does not count") == 3).then_some(())
    })
    .await;
    assert_eq!(harness.halo(id, "status_id"), 1);
}

fn everything_ran_once(harness: &Harness, id: i64, status: &TicketStatus) {
    assert!(
        status.steps.iter().all(|s| s.state == StepState::Done),
        "{:#?}",
        status.steps
    );
    let approval = status.approval.as_ref().unwrap();
    assert_eq!(approval.state, ApprovalState::Executed);
    assert_eq!(approval.decided_by, Some(TechnicianId(DANA)));
    assert_eq!(harness.halo(id, "status_name"), "In Progress");
    let sent: Vec<_> = harness
        .our_actions(id)
        .into_iter()
        .filter(|a| a["hiddenfromuser"] == false)
        .collect();
    assert_eq!(sent.len(), 1, "one reply to the requester");
    assert_eq!(
        (&sent[0]["outcome"], &sent[0]["sendemail"]),
        (&json!("Email User"), &json!(true))
    );
    for (text, times) in [
        ("Diagnosis and plan", 1),
        ("approval needed", 1),
        ("the approved steps", 1),
        ("All approved steps are done", 1),
    ] {
        assert_eq!(notes_with(harness, id, text), times, "{text}");
    }
    assert!(
        status.steps.iter().all(|s| !s.arguments.contains("Hello")),
        "a finished ticket keeps no text: {:?}",
        status.steps
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_runs_nothing_and_a_question_is_answered() {
    let mut harness = Harness::start("no").await;
    harness.execute(&[ACME], json!({})).await;
    harness.run_agent("acme-dental-group").await;
    let (id, name) = asked(&harness, "Label printer is offline").await;
    harness.reply(id, DANA, "<p>Yes, but only the first step</p>");
    eventually("the agent's answer", || async {
        (notes_with(&harness, id, "neither a clear yes nor a clear no") == 1).then_some(())
    })
    .await;
    let ticket = harness.ticket_in(&name, "AwaitingApproval").await;
    assert_eq!(
        ticket.status.unwrap().approval.unwrap().state,
        ApprovalState::Requested,
        "the request is still open"
    );
    harness.reply(id, DANA, "<p>No, don't.</p>");
    let status = harness.ticket_in(&name, "Done").await.status.unwrap();
    assert!(status.steps.iter().all(|s| s.state == StepState::Denied));
    assert_eq!(harness.halo(id, "status_id"), 1);
    eventually("the note about it", || async {
        (notes_with(&harness, id, "the steps were denied") == 1).then_some(())
    })
    .await;
    assert_eq!(
        notes_with(&harness, id, "Understood: none of the steps was run"),
        1
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_answers() {
    let mut harness = Harness::start("expiry").await;
    harness
        .execute(
            &[ACME],
            json!({"approvals": {"validFor": "9s", "remindAfter": "3s"}}),
        )
        .await;
    harness.run_agent("acme-dental-group").await;
    let (id, name) = asked(&harness, "Label printer is offline").await;
    eventually("a reminder", || async {
        (notes_with(&harness, id, "still waiting for approval") == 1).then_some(())
    })
    .await;
    let status = harness.ticket_in(&name, "Done").await.status.unwrap();
    assert_eq!(
        (status.reason.as_deref(), status.approval.unwrap().state),
        (Some("ApprovalExpired"), ApprovalState::Expired)
    );
    eventually("the note about it", || async {
        (notes_with(&harness, id, "the request for approval has expired") == 1).then_some(())
    })
    .await;
    harness.reply(id, DANA, "<p>Approved</p>");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(harness.halo(id, "status_id"), 1, "too late");
    assert_eq!(
        harness.our_actions(id).len(),
        4,
        "plan, request, reminder, end"
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_say_what_runs_at_once_and_who_else_may_approve() {
    let mut harness = Harness::start("rules").await;
    harness.execute(&[ACME], json!({})).await;
    let policy = json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "ToolPolicy", "metadata": {"name": "p"}, "spec": {"connectionRef": {"name": "halo"}, "rules": [
        {"tools": ["halopsa_update_ticket"], "effect": "Auto", "when": "has(args.status) && args.status == 'In Progress'"},
        {"tools": ["halopsa_reply_*"], "effect": "ApprovalNeeded", "approvers": {"team": "2nd Line Support"}},
        {"tools": ["halopsa_close_ticket"], "effect": "Disabled"}]}});
    harness
        .apply::<halopsa_operator::api::ToolPolicy>("p", &policy)
        .await;
    let api = harness.api::<halopsa_operator::api::ToolPolicy>();
    let status = eventually("the policy's status", || async {
        api.get("p").await.unwrap().status
    })
    .await;
    assert_eq!(
        status
            .rules
            .iter()
            .map(|r| (r.tools, r.decides))
            .collect::<Vec<_>>(),
        [(1, 1), (1, 1), (1, 1)]
    );
    harness.run_agent("acme-dental-group").await;
    let (id, name) = asked(&harness, "Label printer is offline").await;
    assert_eq!(
        harness.halo(id, "status_name"),
        "In Progress",
        "ran at once"
    );
    let tools = harness
        .agent_gateway("acme-dental-group")
        .await
        .tools()
        .await
        .unwrap();
    assert!(
        !tools
            .names()
            .await
            .unwrap()
            .contains(&"halopsa_close_ticket".to_string())
    );
    // Luis is in the team.
    harness.reply(id, LUIS, "<p>ok, go ahead</p>");
    let status = harness.ticket_in(&name, "Done").await.status.unwrap();
    assert_eq!(
        status.approval.unwrap().decided_by,
        Some(TechnicianId(LUIS))
    );
    assert!(status.steps.iter().all(|s| s.state == StepState::Done));
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_tells_the_built_in_brain_what_to_do() {
    let mut harness = Harness::start("workflow").await;
    harness.execute(&[ACME], json!({})).await;
    let workflow = json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "Workflow", "metadata": {"name": "printers"}, "spec": {
        "connectionRef": {"name": "halo"}, "trigger": "A label printer is offline", "state": "Active", "instructions": "Log five minutes.\nTell the requester.",
        "steps": [
            {"tool": "halopsa_log_time", "arguments": {"minutes": 6, "note": "Looked at {{subject}}"}, "why": "as agreed"},
            {"tool": "halopsa_create_child_ticket", "arguments": {"summary": "Visit {{requester}}", "details": "Printer of ticket {{ticketId}}"}},
            {"tool": "halopsa_link_article", "arguments": {"articleId": 1}},
            {"tool": "halopsa_close_ticket", "arguments": {"closureNote": "Done by the book"}}]}});
    harness
        .apply::<halopsa_operator::api::Workflow>("printers", &workflow)
        .await;
    harness.run_agent("acme-dental-group").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (id, name) = asked(&harness, "Label printer is offline").await;
    assert!(
        harness.our_actions(id)[0]["note"]
            .as_str()
            .unwrap()
            .contains("Workflow printers: Log five minutes.")
    );
    harness.reply(id, DANA, "<p>Yes please</p>");
    let done = |s: &Ticket| {
        s.status
            .as_ref()
            .is_some_and(|s| s.steps.iter().all(|s| s.state == StepState::Done))
    };
    let api = harness.api::<Ticket>();
    eventually("every step is done", || async {
        Some(api.get(&name).await.unwrap()).filter(done)
    })
    .await;
    assert_eq!(harness.halo(id, "hasbeenclosed"), true);
    assert!(
        harness
            .halo(id, "closure_note")
            .as_str()
            .unwrap()
            .contains("Done by the book")
    );
    assert!((harness.halo(id, "timetaken").as_f64().unwrap() - 0.1).abs() < 1e-9);
    let child = harness
        .sim
        .shared
        .store()
        .kind("tickets")
        .unwrap()
        .values()
        .find(|t| t.get("parent_id") == Some(&json!(id)))
        .cloned()
        .unwrap();
    assert_eq!(
        (&child["client_id"], &child["summary"]),
        (&json!(ACME), &Value::from("Visit Kim Lee"))
    );
    harness.stop().await;
}
