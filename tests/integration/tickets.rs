//! Tickets from webhook to note, with an agent in this process.

use crate::harness::{ACME, BLUE, Harness, eventually};
use halopsa_operator::api::HaloPSAConnection;
use halopsa_operator::api::ticket::{
    Intent, IntentKind, IntentState, Phase, REOPEN_ANNOTATION, Ticket,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn one_note_and_one_only() {
    let mut harness = Harness::start("note").await;
    harness.ready(&[ACME]).await;
    harness.run_agent("acme-dental-group").await;
    let id = harness.open_ticket(ACME, "Label printer is offline");
    let name = format!("acme-dental-group-{id}");
    let ticket = harness.ticket_in(&name, "Done").await;
    let notes = harness.our_notes(id);
    assert_eq!(notes.len(), 1);
    assert!(
        notes[0].contains("Restart the Print Spooler") && notes[0].contains("spooler"),
        "{}",
        notes[0]
    );
    let status = ticket.status.unwrap();
    assert_eq!(status.intents.len(), 1);
    assert!(status.journal.iter().any(|e| {
        e.call
            .as_ref()
            .is_some_and(|c| c.tool == "halopsa_search_tickets" && c.outcome == "ok")
    }));
    assert!(
        !serde_json::to_string(&status)
            .unwrap()
            .contains("does not work"),
        "no ticket text in the status"
    );

    // Reopened by a human: a new run, one more note.
    let patch = json!({"metadata": {"annotations": {REOPEN_ANNOTATION: "1"}}});
    harness
        .api::<Ticket>()
        .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    eventually("a second note", || async {
        (harness.our_notes(id).len() == 2).then_some(())
    })
    .await;
    harness.ticket_in(&name, "Done").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(harness.our_notes(id).len(), 2);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_and_late_reads_make_no_second_note() {
    let mut harness = Harness::start("lost").await;
    harness.ready(&[ACME]).await;
    {
        let mut engine = harness.sim.shared.engine();
        let faults = &mut engine.faults;
        faults.lose_replies = 1;
        faults.read_lag_ms = 1500;
    }
    harness.run_agent("acme-dental-group").await;
    let id = harness.open_ticket(ACME, "Outlook keeps asking for my password");
    harness
        .ticket_in(&format!("acme-dental-group-{id}"), "Done")
        .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(harness.our_notes(id).len(), 1);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_share_the_tickets() {
    let mut harness = Harness::start("two").await;
    harness.ready(&[ACME]).await;
    harness.run_agent("acme-dental-group").await;
    harness.run_agent("acme-dental-group").await;
    let ids: Vec<i64> = (0..12)
        .map(|n| harness.open_ticket(ACME, &format!("Printer {n} is offline")))
        .collect();
    for id in &ids {
        harness
            .ticket_in(&format!("acme-dental-group-{id}"), "Done")
            .await;
    }
    assert!(ids.iter().all(|id| harness.our_notes(*id).len() == 1));
    harness.stop().await;
}

/// A technician moves the ticket to another client in HaloPSA.
fn move_to(harness: &Harness, ticket: i64, client: i64, status: i64) {
    let input = json!({"id": ticket, "tickettype_id": 1, "client_id": client, "status_id": status});
    let author = halosim::store::Author::Agent {
        id: 3,
        application: "web".into(),
    };
    let (_, changes) = harness
        .sim
        .shared
        .store()
        .write_ticket(input.as_object().unwrap(), &author)
        .unwrap();
    harness.sim.shared.publish(changes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_ticket_leaves_at_once_and_may_come_back() {
    let mut harness = Harness::start("moved").await;
    harness.ready(&[ACME, BLUE]).await;
    let id = harness.open_ticket(ACME, "Printer offline");
    harness
        .ticket_in(&format!("acme-dental-group-{id}"), "Ready")
        .await;
    move_to(&harness, id, BLUE, 2);
    let left = harness
        .ticket_in(&format!("acme-dental-group-{id}"), "Ignored")
        .await;
    assert_eq!(left.status.unwrap().reason.as_deref(), Some("Moved"));
    // And back, before an agent has worked on it.
    harness
        .ticket_in(&format!("blue-harbor-logistics-{id}"), "Ready")
        .await;
    move_to(&harness, id, ACME, 1);
    harness
        .ticket_in(&format!("blue-harbor-logistics-{id}"), "Ignored")
        .await;
    harness
        .ticket_in(&format!("acme-dental-group-{id}"), "Ready")
        .await;
    harness.run_agent("blue-harbor-logistics").await;
    harness.run_agent("acme-dental-group").await;
    harness
        .ticket_in(&format!("acme-dental-group-{id}"), "Done")
        .await;
    assert_eq!(harness.our_notes(id).len(), 1);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subjects_stay_in_halopsa_when_told_so() {
    let harness = Harness::start("private").await;
    harness.ready(&[ACME]).await;
    let patch = json!({"spec": {"privacy": {"hideSubjects": true}}});
    harness
        .api::<HaloPSAConnection>()
        .patch("halo", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let id = harness.open_ticket(ACME, "A very private matter");
    let ticket = harness
        .ticket_in(&format!("acme-dental-group-{id}"), "Ready")
        .await;
    assert!(
        !serde_json::to_string(&ticket)
            .unwrap()
            .contains("private matter")
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn halopsa_down_while_tickets_wait() {
    let mut harness = Harness::start("down").await;
    harness.ready(&[ACME]).await;
    let id = harness.open_ticket(ACME, "Printer offline");
    harness
        .ticket_in(&format!("acme-dental-group-{id}"), "Ready")
        .await;
    harness.sim.shared.engine().faults.down = true;
    harness.run_agent("acme-dental-group").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    harness.sim.shared.engine().faults.down = false;
    let ticket = harness
        .ticket_in(&format!("acme-dental-group-{id}"), "Done")
        .await;
    assert_eq!(
        ticket.status.unwrap().attempts,
        1,
        "a HaloPSA outage costs no attempt"
    );
    assert_eq!(harness.our_notes(id).len(), 1);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_told_to_stop_hands_back() {
    let mut harness = Harness::start("stop").await;
    harness.ready(&[ACME]).await;
    harness.sim.shared.engine().faults.latency_ms = 700;
    let stop = harness.run_agent("acme-dental-group").await;
    let id = harness.open_ticket(ACME, "Printer offline");
    let name = format!("acme-dental-group-{id}");
    harness.ticket_in(&name, "Working").await;
    tokio::time::sleep(Duration::from_millis(1700)).await;
    stop.send(true).unwrap();
    harness.ticket_in(&name, "Ready").await;
    harness.sim.shared.engine().faults.latency_ms = 0;
    harness.run_agent("acme-dental-group").await;
    harness.ticket_in(&name, "Done").await;
    assert_eq!(harness.our_notes(id).len(), 1);
    harness.stop().await;
}

/// Puts a Ticket in the state it has after five agents have died on it.
async fn fail(harness: &Harness, name: &str, with_plan: Option<&str>) {
    let api = harness.api::<Ticket>();
    let mut ticket = harness.ticket_in(name, "Ready").await;
    let status = ticket.status.as_mut().unwrap();
    status.phase = Phase::Failed;
    status.message = Some("5 agents took the ticket and none finished".into());
    status.intents = with_plan
        .map(|marker| Intent {
            kind: IntentKind::PlanNote,
            run: 0,
            tag: "plan".into(),
            marker: marker.into(),
            state: IntentState::Intended,
            recorded_at: Time(Timestamp::now()),
            action_id: None,
        })
        .into_iter()
        .collect();
    api.replace_status(name, &PostParams::default(), &ticket)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_ticket_gets_one_note_that_says_so() {
    let harness = Harness::start("failed").await;
    harness.ready(&[ACME]).await;
    let id = harness.open_ticket(ACME, "Printer offline");
    fail(&harness, &format!("acme-dental-group-{id}"), None).await;
    eventually("the failure note", || async {
        (harness.our_notes(id).len() == 1).then_some(())
    })
    .await;
    assert!(harness.our_notes(id)[0].contains("needs a technician"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(harness.our_notes(id).len(), 1);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_agents_last_note_is_the_note() {
    let harness = Harness::start("lastnote").await;
    harness.ready(&[ACME]).await;
    let id = harness.open_ticket(ACME, "Printer offline");
    let name = format!("acme-dental-group-{id}");
    harness.ticket_in(&name, "Ready").await;
    {
        let mut store = harness.sim.shared.store();
        let input = json!({"ticket_id": id, "outcome": "Private Note", "note_html": "<p>the plan</p><p>Reference: rallied-x-0-plan</p>"});
        let author = halosim::store::Author::Agent {
            id: halosim::seed::API_AGENT,
            application: "Rallied Agent".into(),
        };
        store
            .write_action(
                input.as_object().unwrap(),
                &author,
                std::time::Instant::now(),
            )
            .unwrap();
    }
    fail(&harness, &name, Some("rallied-x-0-plan")).await;
    let api = harness.api::<Ticket>();
    eventually("the intent is recorded as posted", || async {
        (api.get(&name).await.unwrap().status?.intents.first()?.state == IntentState::Posted)
            .then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(harness.our_notes(id).len(), 1, "no additional failure note");
    harness.stop().await;
}
