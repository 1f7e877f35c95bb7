//! The process ends before and after every write, at every step of an approval:
//! each write is in HaloPSA once, and everything is done in the end.

use crate::approvals::{DANA, approve, asked, notes_with};
use crate::fake::Tools;
use crate::harness::{ACME, Harness};
use crate::tool_servers;
use futures::StreamExt;
use halopsa_operator::api::ticket::{Phase, StepState, Ticket, TicketStatus};
use halopsa_operator::failpoint;
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::sync::oneshot;

/// Each failpoint, and the occurrence of it that ends the process.
const POINTS: [(&str, u32); 19] = [
    // The plan, the request, the executed steps, the agent's last note.
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
    (NOWHERE, 1),
];
/// The process does not end at all.
const NOWHERE: &str = "nowhere";
/// How many operators run concurrently.
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
    let mut crash = Crash {
        ended,
        restarted: point == NOWHERE,
    };
    let finished = approve_and_wait(&mut harness, id, &name, &mut crash).await;
    let ticket = harness.api::<Ticket>().get(&name).await;
    let status = ticket
        .map_err(|e| e.to_string())?
        .status
        .unwrap_or_default();
    let outcome = if !crash.restarted {
        Err("failpoint never hit".to_string())
    } else if !finished {
        Err(format!("not done: {:?} {:?}", status.phase, status.message))
    } else {
        everything_once(&harness, id, &status)
    };
    harness.stop().await;
    outcome.map_err(|why| format!("{point} {nth}: {why}"))
}

/// The end of the process that a test waits for.
struct Crash {
    ended: oneshot::Receiver<()>,
    /// It has ended, and the operator runs again.
    restarted: bool,
}

impl Crash {
    /// Restarts the operator once it has ended.
    async fn recover(&mut self, harness: &mut Harness) {
        if !self.restarted && futures::poll!(&mut self.ended).is_ready() {
            self.restarted = true;
            harness.restart().await;
        }
    }
}

/// Approves when asked, through the crash; returns whether the ticket is done at the end.
async fn approve_and_wait(harness: &mut Harness, id: i64, name: &str, crash: &mut Crash) -> bool {
    let api = harness.api::<Ticket>();
    let mut answered = false;
    for _ in 0..900 {
        crash.recover(harness).await;
        // The apiserver may be busy; that is not what this tests.
        let ticket = api.get_opt(name).await.ok().flatten();
        let status = ticket.and_then(|t| t.status);
        let request = status.as_ref().and_then(|s| s.approval.clone());
        match status.map(|s| s.phase) {
            Some(Phase::AwaitingApproval) if !answered => {
                answered = true;
                let number = request.map_or(1, |r| r.number);
                harness.reply(id, DANA, &format!("<p>Approve {number}</p>"));
            }
            Some(Phase::Done) if crash.restarted => return true,
            Some(phase) if phase.is_terminal() && crash.restarted => return false,
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}

/// Every note, reply and change is in HaloPSA once, and every step is done.
fn everything_once(harness: &Harness, id: i64, status: &TicketStatus) -> Result<(), String> {
    // The note before the last one may come a moment after the phase.
    for text in [
        "Diagnosis and plan",
        "approval needed",
        "the approved steps",
        "All approved steps are done",
    ] {
        let times = notes_with(harness, id, text);
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
    let changes = notes_with(harness, id, "Changed by Rallied");
    if (replies, changes, actions.len()) != (1, 1, 6) {
        return Err(format!(
            "{replies} replies, {changes} changes, {} actions: {:#?} {:#?} {:#?}",
            actions.len(),
            action_lines(&actions),
            status.steps,
            journal_lines(status)
        ));
    }
    let mut steps = status
        .steps
        .iter()
        .filter(|s| s.state != StepState::Superseded);
    match steps.all(|s| s.state == StepState::Done) {
        true => Ok(()),
        false => Err(format!("{:?}", status.steps)),
    }
}

fn action_lines(actions: &[Map<String, Value>]) -> Vec<String> {
    let line = |a: &Map<String, Value>| {
        format!(
            "{} {} {} {:.70}",
            a["id"],
            a["outcome"],
            a["datetime"],
            a["note"].as_str().unwrap_or_default()
        )
    };
    actions.iter().map(line).collect()
}

fn journal_lines(status: &TicketStatus) -> Vec<String> {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    status
        .journal
        .iter()
        .map(|j| format!("{} {} {}", j.event, text(&j.by), text(&j.detail)))
        .collect()
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
    approve(&harness, id, &name).await;
    ended.await.unwrap();
    harness.restart().await;
    let status = harness.ticket_in(&name, "Done").await.status.unwrap();
    assert_eq!(status.steps[0].state, StepState::Unknown);
    assert_eq!(tools.called.lock().unwrap().len(), 1, "not repeated");
    assert!(
        notes_with(&harness, id, "cannot be found out from here") >= 1,
        "a technician is told"
    );
    assert_eq!(
        notes_with(&harness, id, "Not every approved step was done"),
        1
    );
    harness.stop().await;
}
