//! HaloPSA's worst days: each kind of fault hits each kind of request once, on the way
//! from YAML to the note on the ticket. Everything recovers, and nothing is written twice.

use crate::harness::{ACME, Harness, within};
use futures::StreamExt;
use halopsa_operator::api::{HaloPSAConnection, ImportedClient, Ticket, condition};
use halosim::Faults;
use halosim::faults::Kind;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::time::Duration;

/// What the operator requests from HaloPSA, from the sign-in to the note.
const REQUESTS: [(&str, &str); 9] = [
    ("POST", "/auth/token"),
    ("GET", "/api/agent/me"),
    ("GET", "/api/client"),
    ("GET", "/api/webhook"),
    ("POST", "/api/webhook"),
    ("POST", "/api/notification"),
    ("GET", "/api/tickets/"),
    ("GET", "/api/actions"),
    ("POST", "/api/actions"),
];

/// Backoffs and settle times add up; nothing here waits for a timer of its own.
const MAX_WAIT: Duration = Duration::from_secs(180);

async fn day(kind: Kind) {
    let name = format!(
        "day-{}",
        serde_json::to_value(kind)
            .unwrap()
            .as_str()
            .unwrap()
            .replace('_', "-")
    );
    let mut harness = Harness::start_with(&name, Duration::from_secs(2)).await;
    harness.sim.shared.set_faults(one_per_request(kind));
    harness.connect(&[ACME]).await;
    connection_and_client_are_ready(&harness, kind).await;
    one_webhook_with_its_events(&harness, kind).await;
    harness.run_agent("acme-dental-group").await;
    a_ticket_gets_one_note(&harness, kind).await;
    let left = harness.sim.shared.engine().faults.next.clone();
    assert!(left.is_empty(), "{kind:?}: these never occurred: {left:?}");
    harness.stop().await;
}

fn one_per_request(kind: Kind) -> Faults {
    // A refused request was not carried out; after any other fault it may have been.
    let refusal = matches!(
        kind,
        Kind::Unauthorized | Kind::RateLimited | Kind::RateLimitedSilently
    );
    // A 429 without Retry-After stops everything for a minute; one is enough.
    let requests = if kind == Kind::RateLimitedSilently {
        &REQUESTS[8..]
    } else {
        &REQUESTS[..]
    };
    let next: Vec<Value> = requests
        .iter()
        .map(|(method, path)| json!({"kind": kind, "method": method, "path": path, "carried_out": *method == "POST" && !refusal}))
        .collect();
    serde_json::from_value(json!({"next": next})).unwrap()
}

async fn connection_and_client_are_ready(harness: &Harness, kind: Kind) {
    let connections = harness.api::<HaloPSAConnection>();
    let clients = harness.api::<ImportedClient>();
    within(MAX_WAIT, &format!("{kind:?}: ready"), || async {
        let connection = connections.get("halo").await.unwrap();
        let ready = condition::is_true(&connection.status?.conditions, "Ready");
        let all = clients.list(&Default::default()).await.unwrap().items;
        (ready
            && all.len() == 1
            && condition::is_true(&all[0].status.as_ref()?.conditions, "Ready"))
        .then_some(())
    })
    .await;
}

async fn one_webhook_with_its_events(harness: &Harness, kind: Kind) {
    within(
        MAX_WAIT,
        &format!("{kind:?}: one webhook with its events"),
        || async {
            let store = harness.sim.shared.store();
            let ids: Vec<&String> = store.webhooks.keys().collect();
            let events: Vec<i64> = store
                .notifications_of(ids.first()?)
                .filter_map(|n| n["eventno"].as_i64())
                .collect();
            (ids.len() == 1 && events.len() == 5).then_some(())
        },
    )
    .await;
}

async fn a_ticket_gets_one_note(harness: &Harness, kind: Kind) {
    let id = harness.open_ticket(ACME, "Label printer is offline");
    within(MAX_WAIT, &format!("{kind:?}: done"), || async {
        let ticket = harness
            .api::<Ticket>()
            .get_opt(&format!("acme-dental-group-{id}"))
            .await
            .unwrap()?;
        let status = ticket.status.as_ref()?;
        assert!(
            !status.phase.is_terminal() || status.phase.as_str() == "Done",
            "{kind:?}: {} {:?}",
            ticket.name_any(),
            status.message
        );
        (status.phase.as_str() == "Done").then_some(())
    })
    .await;
    let notes = harness.our_notes(id);
    assert_eq!(notes.len(), 1, "{kind:?}: {notes:#?}");
    assert!(notes[0].contains("Diagnosis and plan"), "{kind:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_on_the_way_from_yaml_to_the_note() {
    futures::stream::iter(Kind::ALL)
        .map(day)
        .buffer_unordered(5)
        .collect::<Vec<_>>()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_twice_and_out_of_order_from_a_clock_that_is_off() {
    let mut harness = Harness::start("disorder").await;
    harness.ready(&[ACME]).await;
    let faults =
        json!({"duplicate_webhooks": true, "reorder_webhooks": true, "clock_skew_seconds": -1800});
    harness
        .sim
        .shared
        .set_faults(serde_json::from_value(faults).unwrap());
    harness.run_agent("acme-dental-group").await;
    let ids: Vec<i64> = (0..6)
        .map(|n| harness.open_ticket(ACME, &format!("Printer {n} is offline")))
        .collect();
    for id in ids {
        harness
            .ticket_in(&format!("acme-dental-group-{id}"), "Done")
            .await;
        assert_eq!(harness.our_notes(id).len(), 1);
    }
    harness.stop().await;
}
