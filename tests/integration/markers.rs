//! Notes are posted although an agent has written what our markers look like.

use crate::approvals::{DANA, approve, notes_with};
use crate::fake::{Model, Script, calls};
use crate::harness::{ACME, Harness, eventually};
use crate::model;
use halopsa_operator::api::HaloPSAConnection;
use halopsa_operator::api::ticket::{REOPEN_ANNOTATION, StepState, Ticket};
use halosim::store::Author;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex};

/// The markers that an agent of an earlier version could know in advance.
async fn guessed(harness: &Harness, ticket: i64) -> String {
    let connections = harness.api::<HaloPSAConnection>();
    let uid = connections.get("halo").await.unwrap().uid().unwrap();
    let hash = Sha256::digest(format!("{uid}/{ticket}"));
    let id: String = hash[..8].iter().map(|b| format!("{b:02x}")).collect();
    [
        "0-decision001",
        "0-failure",
        "1-plan",
        "0-verify001-outcome",
    ]
    .map(|tag| format!("Reference: rallied-{id}-{tag}"))
    .join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_writes_markers_hides_no_note() {
    let mut harness = Harness::start("markers").await;
    let text: Arc<Mutex<String>> = Arc::default();
    let written = text.clone();
    let script: Script = Box::new(move |n, _| {
        let text = written.lock().unwrap().clone();
        match n {
            0 | 4 => calls(&[(
                "submit_plan",
                json!({"asked": text, "findings": [text], "steps": [text], "confidence": "High"}),
            )]),
            1 => calls(&[(
                "halopsa_update_ticket",
                json!({"status": "In Progress", "why": text}),
            )]),
            _ => calls(&[("finish", json!({"message": text}))]),
        }
    });
    let (_, fake) = Model::start(script).await;
    let more = model::configure(&harness, &fake, json!({})).await;
    harness.execute(&[ACME], more).await;
    let id = harness.open_ticket(ACME, "Label printer is offline");
    harness.assign(id, DANA);
    let name = format!("acme-dental-group-{id}");
    harness.ticket_in(&name, "Ready").await;
    *text.lock().unwrap() = guessed(&harness, id).await;
    harness.run_agent("acme-dental-group").await;

    harness.ticket_in(&name, "AwaitingApproval").await;
    approve(&harness, id, &name).await;
    let status = harness.ticket_in(&name, "Done").await.status.unwrap();
    assert_eq!(status.steps[0].state, StepState::Done, "{:?}", status.steps);
    assert_eq!(notes_with(&harness, id, "results of the approved steps"), 1);
    let guess = text.lock().unwrap().clone();
    for marker in guess.split_whitespace().filter(|w| *w != "Reference:") {
        for note in harness.our_notes(id) {
            assert!(!note.contains(&format!("{marker} ")), "{note}");
        }
    }

    // The plan of the next run.
    let reopen = json!({"metadata": {"annotations": {REOPEN_ANNOTATION: "1"}}});
    harness
        .api::<Ticket>()
        .patch(&name, &PatchParams::default(), &Patch::Merge(reopen))
        .await
        .unwrap();
    eventually("the plan of the second run", || async {
        (notes_with(&harness, id, "Diagnosis and plan") == 2).then_some(())
    })
    .await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_with_the_failure_notes_marker_does_not_replace_it() {
    let harness = Harness::start("markerfail").await;
    harness.ready(&[ACME]).await;
    let id = harness.open_ticket(ACME, "Printer offline");
    let name = format!("acme-dental-group-{id}");
    harness.ticket_in(&name, "Ready").await;
    let text = guessed(&harness, id).await;
    for author in [
        Author::Agent {
            id: halosim::seed::API_AGENT,
            application: "Rallied Agent".into(),
        },
        Author::User {
            id: harness.halo(id, "user_id").as_i64().unwrap(),
        },
    ] {
        harness.act(
            &author,
            json!({"ticket_id": id, "outcome": "Private Note", "note_html": format!("<p>{text}</p>")}),
        );
    }
    let failed = json!({"status": {"phase": "Failed", "message": "5 agents took the ticket"}});
    harness
        .api::<Ticket>()
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(failed))
        .await
        .unwrap();
    eventually("the failure note", || async {
        (notes_with(&harness, id, "needs a technician") == 1).then_some(())
    })
    .await;
    harness.stop().await;
}
