//! Approval means what the technician saw: replies that were written for something else, and
//! yeses that nobody gave.

use crate::approvals::{DANA, LUIS, approve, notes_with};
use crate::attacks::{obedient, open, still_waits, waiting};
use crate::fake::{Script, Tools, calls, plan};
use crate::harness::{Harness, eventually};
use crate::tool_servers;
use halopsa_operator::api::ToolPolicy;
use halopsa_operator::api::ticket::{Approval, ApprovalState, StepState, Ticket, TicketStatus};
use halopsa_operator::ids::{ActionId, TechnicianId};
use halosim::store::Author;
use kube::api::PostParams;
use serde_json::json;
use std::time::{Duration, Instant};

const AGAIN: &str = "does not count";

async fn told(harness: &Harness, id: i64, times: usize) {
    eventually(
        "technicians are told why a reply does not count",
        || async { (notes_with(harness, id, AGAIN) == times).then_some(()) },
    )
    .await;
}

async fn in_progress(harness: &Harness, id: i64) {
    eventually("the approved change is made", || async {
        (harness.halo(id, "status_name") == "In Progress").then_some(())
    })
    .await;
}

async fn approval(harness: &Harness, name: &str) -> Approval {
    let ticket = harness.api::<Ticket>().get(name).await.unwrap();
    ticket.status.unwrap().approval.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_to_what_the_agent_said_last() {
    let script: Script = Box::new(|n, _| match n {
        0 => calls(&[("submit_plan", plan())]),
        1 => calls(&[("halopsa_update_ticket", json!({"status": "In Progress"}))]),
        2 => calls(&[("finish", json!({}))]),
        _ => calls(&[(
            "finish",
            json!({"message": "Only to read the log. Shall I tell Kim that we are on it?"}),
        )]),
    });
    let (harness, _) = obedient("spokelast", script).await;
    let (id, name) = open(&harness, "The spooler hangs").await;
    harness.ticket_in(&name, "AwaitingApproval").await;
    harness.reply(id, DANA, "<p>What is this for?</p>");
    eventually("the agent's answer", || async {
        (notes_with(&harness, id, "Shall I tell Kim") == 1).then_some(())
    })
    .await;
    assert_eq!(notes_with(&harness, id, "request 1 still waits"), 1);
    harness.ticket_in(&name, "AwaitingApproval").await;
    harness.reply(id, DANA, "<p>yes please</p>");
    told(&harness, id, 1).await;
    still_waits(&harness, id, &name).await;
    harness.reply(id, DANA, "<p>approve 1</p>");
    in_progress(&harness, id).await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_to_a_request_that_was_replaced_meanwhile() {
    let script: Script = Box::new(|n, _| match n {
        0 => calls(&[("submit_plan", plan())]),
        1 => calls(&[("halopsa_update_ticket", json!({"status": "In Progress"}))]),
        2 => calls(&[("finish", json!({}))]),
        3 => calls(&[("halopsa_log_time", json!({"minutes": 5, "note": "More"}))]),
        _ => calls(&[("finish", json!({"message": "Asked again."}))]),
    });
    let (harness, _) = obedient("replaced", script).await;
    let (id, name) = open(&harness, "The spooler hangs").await;
    harness.ticket_in(&name, "AwaitingApproval").await;
    let first = approval(&harness, &name).await;
    let user = harness.halo(id, "user_id").as_i64().unwrap();
    harness.act(
        &Author::User { id: user },
        json!({"ticket_id": id, "outcome": "Email User", "note": "Any news?", "emaildirection": "I"}),
    );
    eventually("the second request", || async {
        (notes_with(&harness, id, "approval needed") == 2).then_some(())
    })
    .await;
    // Written with the first one on the screen.
    harness.reply(id, DANA, "<p>Approved</p>");
    told(&harness, id, 1).await;
    let code = format!("<p>approve 1 {}</p>", first.code);
    harness.reply(id, DANA, &code);
    told(&harness, id, 2).await;
    still_waits(&harness, id, &name).await;
    let second = approval(&harness, &name).await;
    assert_eq!((first.number, second.number), (1, 2));
    assert_ne!(first.code, second.code);
    harness.reply(id, DANA, "<p>approve 2</p>");
    in_progress(&harness, id).await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_to_the_requester() {
    let (harness, id, name) = waiting("publicyes").await;
    let dana = Author::Agent {
        id: DANA,
        application: "nethelpdesk-agent-web-application".into(),
    };
    harness.act(
        &dana,
        json!({"ticket_id": id, "outcome": "Email User", "note": "Yes, go ahead.", "sendemail": true}),
    );
    told(&harness, id, 1).await;
    still_waits(&harness, id, &name).await;
    // A note of ours between does no harm: nothing in it is the agent's.
    harness.reply(id, DANA, "<p>Approved</p>");
    in_progress(&harness, id).await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_high_risk_step_is_approved_by_number_and_code_only() {
    let script: Script = Box::new(|n, _| match n {
        0 => calls(&[("submit_plan", plan())]),
        1 => calls(&[("m365__delete_user", json!({"user": "kim"}))]),
        2 => calls(&[("finish", json!({}))]),
        _ => calls(&[("finish", json!({"message": "Over."}))]),
    });
    let (harness, _) = obedient("highrisk", script).await;
    let (tools, fake) = Tools::start(&[("delete_user", "Deletes a user")]).await;
    tool_servers::server(&harness, &fake, json!({})).await;
    let policy = json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "ToolPolicy", "metadata": {"name": "p"},
        "spec": {"connectionRef": {"name": "halo"}, "rules": [{"tools": ["m365__delete_user"], "effect": "ApprovalNeeded", "requireVerification": false}]}});
    harness.apply::<ToolPolicy>("p", &policy).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let (id, name) = open(&harness, "An old entry is shown twice").await;
    harness.ticket_in(&name, "AwaitingApproval").await;
    assert_eq!(notes_with(&harness, id, "HIGH RISK"), 1);
    for (times, text) in [
        (1, "Approved, go ahead"),
        (2, "approve 1"),
        (3, "approve 1 2C2C"),
    ] {
        harness.reply(id, DANA, &format!("<p>{text}</p>"));
        told(&harness, id, times).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(tools.called.lock().unwrap().is_empty());
    approve(&harness, id, &name).await;
    eventually("it is called", || async {
        (tools.called.lock().unwrap().len() == 1).then_some(())
    })
    .await;
    let code = approval(&harness, &name).await.code;
    assert!(
        harness.audit().iter().all(|line| !line.contains(&code)),
        "the code is for the ticket only"
    );
    harness.stop().await;
}

/// Someone with write access to the cluster writes this into the Ticket's status.
async fn forge(harness: &Harness, name: &str, forged: impl Fn(&mut TicketStatus)) {
    let api = harness.api::<Ticket>();
    eventually("the forged status is stored", || async {
        let mut ticket = api.get(name).await.unwrap();
        forged(ticket.status.as_mut().unwrap());
        let params = PostParams::default();
        api.replace_status(name, &params, &ticket).await.ok()
    })
    .await;
}

async fn nothing_ran(harness: &Harness, id: i64, name: &str) {
    let status = harness.ticket_in(name, "Failed").await.status.unwrap();
    assert_eq!(status.reason.as_deref(), Some("ApprovalMismatch"));
    let over = |state| state == StepState::Superseded;
    assert!(status.steps.iter().all(|s| over(s.state)));
    assert_eq!(harness.halo(id, "status_id"), 1);
    eventually("a technician is told", || async {
        (notes_with(harness, id, "needs a technician") == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_nobody_gave() {
    let (harness, id, name) = waiting("forgedyes").await;
    forge(&harness, &name, |status| {
        status.approval.as_mut().unwrap().state = ApprovalState::Approved;
    })
    .await;
    nothing_ran(&harness, id, &name).await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_by_a_reply_that_does_not_exist() {
    let (harness, id, name) = waiting("forgedid").await;
    forge(&harness, &name, |status| {
        let approval = status.approval.as_mut().unwrap();
        approval.state = ApprovalState::Approved;
        approval.decided_by = Some(TechnicianId(DANA));
        approval.decided_action = Some(ActionId(999));
        approval.decided_after = approval.action_id;
    })
    .await;
    nothing_ran(&harness, id, &name).await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_by_somebody_elses_reply() {
    let (harness, id, name) = waiting("forgedby").await;
    let reply = harness.reply(id, LUIS, "<p>Approved</p>");
    told(&harness, id, 1).await;
    forge(&harness, &name, |status| {
        let approval = status.approval.as_mut().unwrap();
        approval.state = ApprovalState::Approved;
        approval.assigned_agent = Some(TechnicianId(LUIS));
        approval.decided_by = Some(TechnicianId(LUIS));
        approval.decided_action = Some(ActionId(reply));
        approval.decided_after = approval.action_id;
    })
    .await;
    nothing_ran(&harness, id, &name).await;
    harness.stop().await;
}

/// A no is not lost behind what is written after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_no_before_hundreds_of_other_actions() {
    let (harness, id, name) = waiting("manyactions").await;
    let author = |id, application: &str| Author::Agent {
        id,
        application: application.into(),
    };
    let (dana, robot) = (
        author(DANA, "nethelpdesk-agent-web-application"),
        author(LUIS, "Zapier"),
    );
    {
        // Under one lock, so that all of it is read at once.
        let mut store = harness.sim.shared.store();
        let mut write = |author: &Author, note: &str| {
            let action = json!({"ticket_id": id, "outcome": "Private Note", "note": note});
            let action = action.as_object().unwrap();
            store.write_action(action, author, Instant::now()).unwrap();
        };
        write(&dana, "No");
        for n in 0..250 {
            write(&robot, &format!("Synchronised record {n}"));
        }
        write(&dana, "Approved");
    }
    eventually("the no is read", || async {
        (notes_with(&harness, id, "the steps were denied") == 1).then_some(())
    })
    .await;
    let status = harness.api::<Ticket>().get(&name).await.unwrap().status;
    let steps = status.unwrap().steps;
    assert!(steps.iter().all(|s| s.state == StepState::Denied));
    assert_eq!(harness.halo(id, "status_id"), 1);
    harness.stop().await;
}
