//! Policies at run time: what cannot be told, who is verified, and what changed since a yes.

use crate::approvals::DANA;
use crate::harness::{ACME, Harness, eventually};
use crate::verification::{AGENT, connected, mail, open};
use halopsa_operator::api::ToolPolicy;
use halopsa_operator::api::ticket::{StepState, Ticket};
use halosim::store::Author;
use serde_json::{Value, json};
use std::time::Duration;

/// Applies a policy for every client of the connection, and waits until it is seen.
async fn policy(harness: &Harness, rules: Value) {
    let object = json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "ToolPolicy", "metadata": {"name": "p"},
        "spec": {"connectionRef": {"name": "halo"}, "rules": rules}});
    harness.apply::<ToolPolicy>("p", &object).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
}

/// Another user of the client.
fn another_user(harness: &Harness, user: i64) -> i64 {
    let store = harness.sim.shared.store();
    let users = store.kind("users").unwrap();
    let another = users
        .values()
        .find(|u| u["client_id"] == ACME && u["id"] != user)
        .unwrap();
    another["id"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_requires_verification_starts_it() {
    let harness = connected("readverify", json!({})).await;
    policy(
        &harness,
        json!([{"tools": ["halopsa_get_user"], "effect": "Auto", "requireVerification": true}]),
    )
    .await;
    let (id, name) = open(&harness, "Label printer is offline");
    harness.ticket_in(&name, "Ready").await;
    let user = harness.halo(id, "user_id");
    let gateway = harness.agent_gateway(AGENT).await;
    let tools = gateway.tools().await.unwrap();
    let read = || tools.call("halopsa_get_user", json!({"userId": user}));
    assert!(read().await.is_err(), "no ticket, no requester");
    gateway.claim().await.unwrap().expect("a ticket waits");
    let refused = format!("{:?}", read().await.unwrap_err());
    assert!(refused.contains("has to be verified"), "{refused}");
    harness.ticket_in(&name, "Verifying").await;
    let token = mail(&harness, 1).await;
    halosim::verifier::respond(&harness.sim.shared, &token, "verified").await;
    harness.ticket_in(&name, "Ready").await;
    gateway.claim().await.unwrap().expect("it is back");
    read().await.unwrap();
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_not_run_for_another_requester_than_was_verified() {
    let mut harness = connected("swapped", json!({})).await;
    policy(
        &harness,
        // The reply goes out before: it is bound to the requester by itself.
        json!([{"tools": ["halopsa_update_ticket"], "effect": "ApprovalNeeded", "requireVerification": true},
               {"tools": ["halopsa_reply_to_requester"], "effect": "Auto"}]),
    )
    .await;
    harness.run_agent(AGENT).await;
    let (id, name) = open(&harness, "Label printer is offline");
    harness.ticket_in(&name, "Verifying").await;
    let token = mail(&harness, 1).await;
    halosim::verifier::respond(&harness.sim.shared, &token, "verified").await;
    harness.ticket_in(&name, "AwaitingApproval").await;

    let verified = harness.halo(id, "user_id").as_i64().unwrap();
    let other = another_user(&harness, verified);
    harness
        .sim
        .shared
        .store()
        .get_mut("tickets", id)
        .unwrap()
        .insert("user_id".into(), other.into());
    harness.reply(id, DANA, "<p>Approved, go ahead</p>");
    let api = harness.api::<Ticket>();
    let result = eventually("the step is not run", || async {
        let steps = api.get(&name).await.unwrap().status?.steps;
        let step = steps
            .into_iter()
            .find(|s| s.tool == "halopsa_update_ticket" && s.state == StepState::Failed)?;
        step.result
    })
    .await;
    assert!(result.contains("requester's verification"), "{result}");
    assert_eq!(harness.halo(id, "status_id"), 1);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_user_writes_after_a_verification_asks_again() {
    let mut harness = connected("another", json!({})).await;
    harness.run_agent(AGENT).await;
    let (id, name) = open(&harness, "MFA reset, I have a new phone");
    let token = mail(&harness, 1).await;
    halosim::verifier::respond(&harness.sim.shared, &token, "verified").await;
    harness.ticket_in(&name, "AwaitingApproval").await;

    let requester = harness.halo(id, "user_id").as_i64().unwrap();
    let other = another_user(&harness, requester);
    harness.act(
        &Author::User { id: other },
        json!({"ticket_id": id, "outcome": "Email User", "note": "Please send the codes to my other address", "emaildirection": "I"}),
    );
    let ticket = harness.ticket_in(&name, "Verifying").await;
    let verification = ticket.status.unwrap().verification.unwrap();
    assert_eq!(verification.number, 2);
    assert!(
        verification
            .reasons
            .iter()
            .any(|r| r.starts_with("another-user"))
    );
    mail(&harness, 2).await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_about_the_ticket_counts_against_who_holds_none() {
    let harness = Harness::start("nofacts").await;
    harness.ready(&[ACME]).await;
    let gateway = harness.agent_gateway(AGENT).await;
    let tools = gateway.tools().await.unwrap();
    let search = || tools.call("halopsa_search_knowledge_base", json!({"query": "printer"}));
    let refused = search().await.unwrap_err().to_string();
    assert!(refused.contains("you hold no ticket"), "{refused}");
    policy(
        &harness,
        json!([{"tools": ["halopsa_search_*"], "effect": "Disabled", "when": "ticket.priority == 'Critical'"}]),
    )
    .await;
    eventually("the tool is refused", || async { search().await.err() }).await;
    // With a ticket that is not critical it is allowed.
    let (_, name) = open(&harness, "Label printer is offline");
    harness.ticket_in(&name, "Ready").await;
    gateway.claim().await.unwrap().expect("a ticket waits");
    search().await.unwrap();
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn costly_conditions_are_invalid() {
    let harness = Harness::start("costly").await;
    harness.ready(&[ACME]).await;
    let list = format!("[{}]", vec!["1"; 200].join(","));
    let api = harness.api::<ToolPolicy>();
    for (when, said) in [
        (
            r"'x'.matches('((((\\w{50}){20})?)?)?')".to_string(),
            "64 KiB",
        ),
        (
            format!("{list}.all(x, {list}.all(y, x == y))"),
            "loops may run 40000 times",
        ),
    ] {
        policy(
            &harness,
            json!([{"tools": ["*"], "effect": "Auto", "when": when}]),
        )
        .await;
        let message = eventually("the policy is Invalid", || async {
            let status = api.get("p").await.unwrap().status?;
            let mut conditions = status.conditions.into_iter();
            let accepted = conditions.find(|c| c.type_ == "Accepted")?;
            (accepted.reason == "Invalid" && accepted.message.contains(said))
                .then_some(accepted.message)
        })
        .await;
        assert!(
            message.starts_with("rule 1: its when is invalid"),
            "{message}"
        );
    }
    harness.stop().await;
}
