//! The process ends before and after every write, at every step of an approval:
//! each write is in HaloPSA once, and everything is done in the end.

use crate::approvals::{DANA, asked, notes_with};
use crate::fake::Tools;
use crate::harness::{ACME, Harness};
use crate::tool_servers;
use futures::StreamExt;
use halopsa_operator::api::ticket::{Phase, StepState, Ticket};
use halopsa_operator::failpoint;
use serde_json::json;
use std::time::Duration;

/// Each place, and the how-manieth time it is come to.
const POINTS: [(&str, u32); 19] = [
    // The plan, the request, what was run, the agent's last words.
    ("outbox.intended", 1),
    ("outbox.posted", 1),
    ("outbox.intended", 2),
    ("outbox.posted", 2),
    ("outbox.intended", 3),
    ("outbox.posted", 3),
    ("outbox.intended", 4),
    ("outbox.posted", 4),
    ("request.prepared", 1),
    ("reply.decided", 1),
    ("steps.taken", 1),
    ("step.recorded", 1),
    ("step.sent", 1),
    ("step.stored", 1),
    ("step.recorded", 2),
    ("step.sent", 2),
    ("step.stored", 2),
    ("steps.run", 1),
    ("nowhere", 1),
];
/// Operators at once.
const AT_ONCE: usize = 7;

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_anywhere_writes_nothing_twice() {
    let wrong: Vec<String> = futures::stream::iter(POINTS)
        .map(|(point, nth)| async move {
            tokio::spawn(one(point, nth))
                .await
                .unwrap_or_else(|e| Err(format!("{point} {nth}: {e}")))
                .err()
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

async fn one(point: &'static str, nth: u32) -> Result<(), String> {
    let mut harness = Harness::start("crash").await;
    let ended = failpoint::arm(&harness.namespace, point, nth);
    harness.execute(&[ACME], json!({})).await;
    harness.run_agent("acme-dental-group").await;
    let id = harness.open_ticket(ACME, "Label printer is offline");
    harness.assign(id, DANA);
    let name = format!("acme-dental-group-{id}");
    let api = harness.api::<Ticket>();
    tokio::pin!(ended);
    let mut crashed = point == "nowhere";
    let mut answered = false;
    let finished = async {
        for _ in 0..900 {
            if !crashed && futures::poll!(&mut ended).is_ready() {
                crashed = true;
                harness.restart().await;
            }
            // The apiserver may be busy; that is not what is tested here.
            let status = api
                .get_opt(&name)
                .await
                .ok()
                .flatten()
                .and_then(|t| t.status);
            match status.map(|s| s.phase) {
                Some(Phase::AwaitingApproval) if !answered => {
                    answered = true;
                    harness.reply(id, DANA, "<p>Approved</p>");
                }
                Some(Phase::Done) if crashed => return true,
                Some(phase) if phase.is_terminal() && crashed => return false,
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    };
    let finished = finished.await;
    let ticket = api.get(&name).await.map_err(|e| e.to_string())?;
    let status = ticket.status.unwrap_or_default();
    let outcome = || {
        if !crashed {
            return Err("never came there".to_string());
        }
        if !finished {
            return Err(format!("not done: {:?} {:?}", status.phase, status.message));
        }
        // The note before the last one may come a moment after the phase.
        for text in [
            "Diagnosis and plan",
            "approval needed",
            "the approved steps",
            "All approved steps are done",
        ] {
            let times = notes_with(&harness, id, text);
            if times != 1 {
                return Err(format!(
                    "{times} notes with '{text}'; steps: {:?}",
                    status.steps
                ));
            }
        }
        let actions = harness.our_actions(id);
        let replies = actions
            .iter()
            .filter(|a| a["hiddenfromuser"] == false)
            .count();
        let changes = actions
            .iter()
            .filter(|a| {
                a["note"]
                    .as_str()
                    .unwrap_or_default()
                    .contains("Changed by Rallied")
            })
            .count();
        if (replies, changes, actions.len()) != (1, 1, 6) {
            let notes: Vec<String> = actions
                .iter()
                .map(|a| {
                    format!(
                        "{} {} {} {:.70}",
                        a["id"],
                        a["outcome"],
                        a["datetime"],
                        a["note"].as_str().unwrap_or_default()
                    )
                })
                .collect();
            return Err(format!(
                "{replies} replies, {changes} changes, {} actions: {notes:#?} {:#?} {:#?}",
                actions.len(),
                status.steps,
                status
                    .journal
                    .iter()
                    .map(|j| format!(
                        "{} {} {}",
                        j.event,
                        j.by.clone().unwrap_or_default(),
                        j.detail.clone().unwrap_or_default()
                    ))
                    .collect::<Vec<_>>()
            ));
        }
        match status
            .steps
            .iter()
            .filter(|s| s.state != StepState::Superseded)
            .all(|s| s.state == StepState::Done)
        {
            true => Ok(()),
            false => Err(format!("{:?}", status.steps)),
        }
    };
    let outcome = outcome().map_err(|why| format!("{point} {nth}: {why}"));
    harness.stop().await;
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn another_servers_tool_that_was_interrupted_is_unknown_and_not_repeated() {
    let mut harness = Harness::start("unknown").await;
    harness.execute(&[ACME], json!({})).await;
    let (tools, fake) = Tools::start(&[("reset_password", "Resets a password")]).await;
    tool_servers::server(&harness, &fake, json!({})).await;
    tool_servers::workflow(&harness).await;
    harness.run_agent("acme-dental-group").await;
    let (id, name) = asked(&harness, "User profile is stuck").await;
    let ended = failpoint::arm(&harness.namespace, "step.sent", 1);
    harness.reply(id, DANA, "<p>Approved</p>");
    ended.await.unwrap();
    harness.restart().await;
    let status = harness.ticket_in(&name, "Done").await.status.unwrap();
    assert_eq!(status.steps[0].state, StepState::Unknown);
    assert_eq!(tools.called.lock().unwrap().len(), 1, "not a second time");
    assert!(
        notes_with(&harness, id, "cannot be found out from here") >= 1,
        "a human is told"
    );
    assert_eq!(
        notes_with(&harness, id, "Not every approved step was done"),
        1
    );
    harness.stop().await;
}
