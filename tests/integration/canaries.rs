//! What an agent sends and what a tool returns is in no Ticket and in no audit line.

use crate::approvals::{DANA, approve};
use crate::attacks::{obedient, open};
use crate::fake::{Script, Tools, calls, plan};
use crate::harness::Harness;
use crate::tool_servers;
use halopsa_operator::api::ToolPolicy;
use halopsa_operator::api::ticket::{StepState, Ticket};
use serde_json::{Map, Value, json};

/// In values, under keys that a list of secret words would not know.
const CANARY: &str = "canary-7f3a91";
const KEYS: [&str; 20] = [
    "pwd",
    "value",
    "password",
    "passphrase",
    "answer",
    "ssn",
    "iban",
    "kennwort",
    "geheimnis",
    "antwort",
    "kontonummer",
    "motDePasse",
    "reponse",
    "secret",
    "contraseña",
    "clave",
    "respuesta",
    "wachtwoord",
    "antwoord",
    "rekeningnummer",
];

fn arguments() -> Value {
    let pairs = KEYS.map(|key| (key.to_string(), Value::from(CANARY)));
    Value::Object(Map::from_iter(pairs))
}

/// Asserts that neither the Ticket's status nor the audit stream holds the canary.
async fn no_canary(harness: &Harness, name: &str) {
    let ticket = harness.api::<Ticket>().get(name).await.unwrap();
    let status = serde_json::to_string(&ticket.status).unwrap();
    assert!(!status.contains(CANARY), "{status}");
    for line in harness.audit() {
        assert!(!line.contains(CANARY), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_argument_and_no_result_is_kept() {
    let script: Script = Box::new(|n, _| match n {
        0 => calls(&[
            (CANARY, arguments()),
            ("halopsa_search_tickets", json!({"query": CANARY})),
            ("halopsa_update_ticket", json!({"status": CANARY})),
            ("submit_plan", plan()),
        ]),
        1 => calls(&[("m365__get_user", arguments())]),
        2 => calls(&[("m365__rebuild_index", arguments())]),
        _ => calls(&[("finish", json!({"message": "It is done."}))]),
    });
    let (harness, _) = obedient("canaries", script).await;
    let (tools, fake) = Tools::start(&[
        ("get_user", "Reads a user"),
        ("rebuild_index", "Rebuilds the index"),
    ])
    .await;
    let offered = json!([{"name": "get_*", "access": "Read"}, {"name": "rebuild_index"}]);
    tool_servers::server(&harness, &fake, json!({"tools": offered})).await;
    let policy = json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "ToolPolicy", "metadata": {"name": "p"},
        "spec": {"connectionRef": {"name": "halo"}, "rules": [
            {"tools": ["m365__get_user"], "effect": "Auto"},
            {"tools": ["m365__rebuild_index"], "effect": "ApprovalNeeded", "requireVerification": false}]}});
    harness.apply::<ToolPolicy>("p", &policy).await;
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    let (id, name) = open(&harness, "Label printer is offline").await;
    harness.assign(id, DANA);
    harness.ticket_in(&name, "AwaitingApproval").await;
    approve(&harness, id, &name).await;
    let status = harness.ticket_in(&name, "Done").await.status.unwrap();
    assert_eq!(tools.called.lock().unwrap().len(), 2);
    let step = status.steps.iter().find(|s| s.tool.starts_with("m365"));
    assert_eq!(step.unwrap().state, StepState::Done);
    let result = step.unwrap().result.as_deref().unwrap_or_default();
    assert!(result.contains("characters"), "{result}");
    no_canary(&harness, &name).await;
    // Technicians read what the tool returned on the ticket.
    assert!(
        harness
            .our_notes(id)
            .iter()
            .any(|n| n.contains("results of the approved steps") && n.contains(CANARY))
    );
    harness.stop().await;
}
