//! Sensitive tickets: the requester proves who they are before an agent sees them.

use crate::approvals::{DANA, LUIS, notes_with};
use crate::harness::{ACME, BLUE, Harness, eventually};
use halopsa_operator::api::ticket::{Phase, Ticket, VerificationState};
use halopsa_operator::api::{ToolPolicy, VerificationProvider};
use halopsa_operator::ids::TechnicianId;
use halosim::store::Author;
use k8s_openapi::api::core::v1::Secret;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;

pub const AGENT: &str = "acme-dental-group";

/// A connection in Execute mode with the simulator's provider.
pub async fn connected(name: &str, provider: Value) -> Harness {
    let harness = Harness::start(name).await;
    let key = halosim::verifier::KEY;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "verifier", "labels": {"rallied.ai/use": "true"}}, "stringData": {
        "key": key, "signingSecret": key, "organizationUUID": halosim::verifier::ORGANIZATION}});
    harness.apply::<Secret>("verifier", &secret).await;
    let mut object = json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "VerificationProvider", "metadata": {"name": "mail"}, "spec": {
        "http": {"url": format!("{}/verify", harness.sim.url.replace("127.0.0.1", "localhost")), "signingSecretRef": {"name": "verifier", "key": "key"},
            "caConfigMapRef": {"name": "halosim-ca"}}, "poll": "1s", "timeout": "20s"}});
    for (key, value) in provider.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    if let Some(traceless) = object["spec"].get_mut("traceless") {
        traceless["endpoint"] = format!(
            "{}/traceless",
            harness.sim.url.replace("127.0.0.1", "localhost")
        )
        .into();
        traceless["caConfigMapRef"] = json!({"name": "halosim-ca"});
        object["spec"].as_object_mut().unwrap().remove("http");
    }
    harness.apply::<VerificationProvider>("mail", &object).await;
    harness
        .execute(
            &[ACME],
            json!({"sensitivity": {"providerRef": {"name": "mail"}}}),
        )
        .await;
    provider_is(&harness, "True", "Connected").await;
    harness
}

async fn provider_is(harness: &Harness, status: &str, reason: &str) {
    let api = harness.api::<VerificationProvider>();
    eventually(&format!("the provider is {reason}"), || async {
        let found = api
            .get("mail")
            .await
            .unwrap()
            .status?
            .conditions
            .into_iter()
            .next()?;
        (found.status == status && found.reason == reason).then_some(())
    })
    .await;
}

pub fn open(harness: &Harness, summary: &str) -> (i64, String) {
    let id = harness.open_ticket(ACME, summary);
    harness.assign(id, DANA);
    (id, format!("{AGENT}-{id}"))
}

/// The token in the requester's e-mail.
pub async fn mail(harness: &Harness, count: usize) -> String {
    let mails = eventually("the e-mail", || async {
        Some(harness.sim.shared.verifier.mails()).filter(|m| m.len() == count)
    })
    .await;
    mails[count - 1]["token"].as_str().unwrap().to_string()
}

async fn state(harness: &Harness, name: &str) -> VerificationState {
    harness
        .api::<Ticket>()
        .get(name)
        .await
        .unwrap()
        .status
        .unwrap()
        .verification
        .unwrap()
        .state
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_sees_the_ticket_only_when_the_requester_is_verified() {
    let mut harness = connected("verify", json!({})).await;
    harness.run_agent(AGENT).await;
    let (id, name) = open(&harness, "MFA reset, I have a new phone");
    let ticket = harness.ticket_in(&name, "Verifying").await;
    assert!(ticket.status.unwrap().verification.unwrap().reasons[0].starts_with("mfa-reset: '"));
    let token = mail(&harness, 1).await;
    assert_eq!(
        harness.sim.shared.verifier.mails()[0]["to"],
        harness.halo(id, "user_email")
    );
    eventually("the note that a challenge was sent", || async {
        (notes_with(&harness, id, "was asked to prove who they are") == 1).then_some(())
    })
    .await;
    let note = harness.our_notes(id)[0].clone();
    assert!(
        note.contains("k***@acmedental.example") && !note.contains("kim.lee@"),
        "{note}"
    );

    // Whatever the agent requests, it learns nothing about the ticket.
    let gateway = harness.agent_gateway(AGENT).await;
    let claimed = tokio::time::timeout(Duration::from_secs(3), gateway.claim()).await;
    assert!(
        claimed.is_err() || matches!(claimed, Ok(Ok(None))),
        "it waits and gets no ticket"
    );
    let held = serde_json::from_value(
        json!({"ticket": name, "leaseId": "x", "leaseSeconds": 6, "mode": "Execute", "context": halopsa_operator::gateway::wire::Context::default()}),
    )
    .unwrap();
    assert!(
        gateway.heartbeat(&held).await.is_err()
            && gateway.complete(&held, None, Some("x")).await.is_err()
            && gateway.release(&held).await.is_err()
    );
    let tools = gateway.tools().await.unwrap();
    assert!(
        tools
            .call("halopsa_add_private_note", json!({"text": "x"}))
            .await
            .is_err()
    );
    assert_eq!(harness.our_actions(id).len(), 1);

    assert!(halosim::verifier::respond(&harness.sim.shared, &token, "verified").await);
    harness.ticket_in(&name, "AwaitingApproval").await;
    assert_eq!(state(&harness, &name).await, VerificationState::Verified);
    assert_eq!(notes_with(&harness, id, "the requester is verified"), 1);
    assert_eq!(
        harness.sim.shared.verifier.mails().len(),
        1,
        "one challenge"
    );
    assert!(
        !halosim::verifier::respond(&harness.sim.shared, &token, "denied").await,
        "the link is used"
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_refuses_and_technicians_may_ask_again_or_override() {
    let mut harness = connected("deny", json!({})).await;
    // Polled only: no callback arrives.
    harness.sim.shared.verifier.faults().no_callbacks = true;
    harness.run_agent(AGENT).await;
    let (id, name) = open(&harness, "Please reset my password");
    let token = mail(&harness, 1).await;
    halosim::verifier::respond(&harness.sim.shared, &token, "denied").await;
    harness.ticket_in(&name, "Refused").await;
    assert_eq!(state(&harness, &name).await, VerificationState::Denied);
    eventually("the note about it", || async {
        (notes_with(&harness, id, "treat this as an attack") == 1).then_some(())
    })
    .await;
    assert_eq!(
        notes_with(&harness, id, "Diagnosis and plan"),
        0,
        "the agent never started"
    );

    harness.reply(id, LUIS, "<p>Verify again please</p>");
    mail(&harness, 2).await;
    harness.ticket_in(&name, "Verifying").await;
    // Another technician's override does not count; the assigned one's does, and is recorded.
    harness.reply(id, LUIS, "<p>Override verification</p>");
    tokio::time::sleep(Duration::from_secs(3)).await;
    harness.ticket_in(&name, "Verifying").await;
    harness.reply(id, DANA, "<p>Override verification, I know her voice</p>");
    harness.ticket_in(&name, "AwaitingApproval").await;
    let verification = harness
        .api::<Ticket>()
        .get(&name)
        .await
        .unwrap()
        .status
        .unwrap()
        .verification
        .unwrap();
    assert_eq!(
        (verification.state, verification.decided_by),
        (VerificationState::Overridden, Some(TechnicianId(DANA)))
    );
    assert_eq!(
        notes_with(&harness, id, "Dana Novak vouches for the requester"),
        1
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_answers_the_provider_is_down_or_the_requester_cannot_be_asked() {
    let mut harness = connected("noanswer", json!({"timeout": "5s"})).await;
    harness.run_agent(AGENT).await;
    let (_, name) = open(&harness, "Please reset my password");
    harness.ticket_in(&name, "Refused").await;
    assert_eq!(state(&harness, &name).await, VerificationState::Expired);
    // An answer after the deadline does not count.
    let token = mail(&harness, 1).await;
    halosim::verifier::respond(&harness.sim.shared, &token, "verified").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    harness.ticket_in(&name, "Refused").await;

    harness.sim.shared.verifier.faults().down = true;
    let (id, name) = open(&harness, "Please reset my password again");
    harness.sim.shared.verifier.faults().latency_ms = 200;
    let ticket = harness.ticket_in(&name, "Refused").await;
    assert!(
        ticket
            .status
            .unwrap()
            .message
            .unwrap()
            .contains("could not be reached in time")
    );
    eventually("the note about it", || async {
        (notes_with(&harness, id, "could not be reached in time") == 1).then_some(())
    })
    .await;
    provider_is(&harness, "False", "ProviderUnavailable").await;
    harness.sim.shared.verifier.faults().down = false;

    // Only HaloPSA's record counts: inactive, of another client, two addresses, no address.
    let user = harness.halo(id, "user_id").as_i64().unwrap();
    for (field, value, said) in [
        ("inactive", json!(true), "is inactive"),
        ("client_id", json!(BLUE), "a user of another client"),
        (
            "emailaddress",
            json!("kim@x.example, evil@y.example"),
            "no usable e-mail address",
        ),
        ("emailaddress", json!(""), "no usable e-mail address"),
    ] {
        let before = harness
            .sim
            .shared
            .store()
            .get_mut("users", user)
            .unwrap()
            .insert(field.into(), value)
            .unwrap();
        let id = harness.open_ticket_by(ACME, user, "Unlock my account, write to evil@y.example");
        let name = format!("{AGENT}-{id}");
        let ticket = harness.ticket_in(&name, "Refused").await;
        assert!(
            ticket.status.unwrap().message.unwrap().contains(said),
            "{said}"
        );
        eventually("the note about it", || async {
            (notes_with(&harness, id, said) == 1).then_some(())
        })
        .await;
        harness
            .sim
            .shared
            .store()
            .get_mut("users", user)
            .unwrap()
            .insert(field.into(), before);
    }
    assert_eq!(harness.sim.shared.verifier.mails().len(), 1);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_may_be_ignored_by_choice() {
    let mut harness = connected(
        "ignore",
        json!({"timeout": "5s", "failurePolicy": "Ignore"}),
    )
    .await;
    harness.run_agent(AGENT).await;
    harness.sim.shared.verifier.faults().down = true;
    let (id, name) = open(&harness, "Please reset my password");
    harness.ticket_in(&name, "AwaitingApproval").await;
    assert_eq!(state(&harness, &name).await, VerificationState::Skipped);
    eventually("the note about it", || async {
        (notes_with(&harness, id, "verification skipped") == 1).then_some(())
    })
    .await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_are_signed_of_now_and_taken_once() {
    let harness = connected("callback", json!({})).await;
    harness.sim.shared.verifier.faults().no_callbacks = true;
    let (_, name) = open(&harness, "Please reset my password");
    mail(&harness, 1).await;
    harness.ticket_in(&name, "Verifying").await;
    let id = harness.sim.shared.verifier.mails()[0]["challengeId"]
        .as_str()
        .unwrap()
        .to_string();
    let now = k8s_openapi::jiff::Timestamp::now().as_second();
    let send = |(url, headers, body): (String, Vec<(&'static str, String)>, String)| {
        let mut request = harness.http().post(url).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        async { request.send().await.unwrap().status() }
    };
    let verifier = &harness.sim.shared.verifier;
    assert_eq!(
        send(verifier.callback(&id, "verified", now - 400).unwrap()).await,
        StatusCode::UNAUTHORIZED,
        "old"
    );
    verifier.faults().bad_signature = true;
    assert_eq!(
        send(verifier.callback(&id, "verified", now).unwrap()).await,
        StatusCode::UNAUTHORIZED,
        "signed by somebody else"
    );
    verifier.faults().bad_signature = false;
    let good = verifier.callback(&id, "verified", now).unwrap();
    let mut forged = good.clone();
    forged.2 = forged.2.replace(&id, "rv-other");
    assert_eq!(
        send(forged).await,
        StatusCode::UNAUTHORIZED,
        "another challenge"
    );
    let mut elsewhere = good.clone();
    elsewhere.0 = elsewhere.0.replace("/mail", "/other");
    assert_eq!(
        send(elsewhere).await,
        StatusCode::UNAUTHORIZED,
        "another provider"
    );
    assert_eq!(state(&harness, &name).await, VerificationState::Sent);
    assert_eq!(send(good.clone()).await, StatusCode::OK);
    harness.ticket_in(&name, "Ready").await;
    assert_eq!(send(good).await, StatusCode::CONFLICT, "replayed");
    assert_eq!(
        send(verifier.callback(&id, "denied", now).unwrap()).await,
        StatusCode::CONFLICT,
        "two answers: the first counts"
    );
    assert_eq!(state(&harness, &name).await, VerificationState::Verified);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_becomes_sensitive_is_paused_and_so_is_a_sensitive_call() {
    let mut harness = connected("later", json!({})).await;
    harness.run_agent(AGENT).await;
    let (id, name) = open(&harness, "Label printer is offline");
    harness.ticket_in(&name, "AwaitingApproval").await;
    assert!(harness.sim.shared.verifier.mails().is_empty());
    let user = harness.halo(id, "user_id").as_i64().unwrap();
    harness.act(
        &Author::User { id: user },
        json!({"ticket_id": id, "outcome": "Email User", "note": "Also please reset my MFA, new phone", "emaildirection": "I"}),
    );
    harness.ticket_in(&name, "Verifying").await;
    // The queued request waits, whoever approves meanwhile.
    harness.reply(id, DANA, "<p>Approved</p>");
    let token = mail(&harness, 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(harness.halo(id, "status_id"), 1);
    halosim::verifier::respond(&harness.sim.shared, &token, "verified").await;
    harness.ticket_in(&name, "Done").await;
    assert_eq!(
        harness.halo(id, "status_name"),
        "In Progress",
        "then it counts"
    );

    let policy = json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "ToolPolicy", "metadata": {"name": "p"}, "spec": {"connectionRef": {"name": "halo"},
        "rules": [{"tools": ["halopsa_update_ticket"], "effect": "Auto", "requireVerification": true}]}});
    harness.apply::<ToolPolicy>("p", &policy).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let (id, name) = open(&harness, "Label printer is offline again");
    let ticket = harness.ticket_in(&name, "Verifying").await;
    assert!(
        ticket.status.unwrap().verification.unwrap().reasons[0].contains("halopsa_update_ticket")
    );
    assert_eq!(harness.halo(id, "status_id"), 1);
    let token = mail(&harness, 2).await;
    halosim::verifier::respond(&harness.sim.shared, &token, "verified").await;
    eventually("the call is made", || async {
        (harness.halo(id, "status_name") == "In Progress").then_some(())
    })
    .await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_provider_sensitive_tickets_are_only_planned() {
    let mut harness = Harness::start("noprovider").await;
    harness.execute(&[ACME], json!({})).await;
    harness
        .connection_is("VerificationAvailable", "False", "NoProvider")
        .await;
    harness.run_agent(AGENT).await;
    let (id, name) = open(&harness, "Please reset my password");
    let status = harness.ticket_in(&name, "Done").await.status.unwrap();
    assert_eq!(status.mode, Some(halopsa_operator::api::Mode::Plan));
    assert!(status.steps.is_empty());
    assert_eq!(harness.our_actions(id).len(), 1);
    assert!(harness.our_notes(id)[0].contains("no verification provider is connected"));
    let (_, name) = open(&harness, "Label printer is offline");
    harness.ticket_in(&name, "AwaitingApproval").await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_at_any_point_sends_one_challenge() {
    // Before and after the challenge and each note about it. Concurrently: each waits for its
    // settle time.
    let points = [
        ("challenge.intended", 1),
        ("challenge.sent", 1),
        ("outbox.intended", 1),
        ("outbox.posted", 1),
        ("outbox.intended", 2),
        ("outbox.posted", 2),
    ];
    let runs = points.map(|(point, nth)| tokio::spawn(restarted_at(point, nth)));
    for run in runs {
        run.await.unwrap();
    }
}

async fn restarted_at(point: &'static str, nth: u32) {
    let mut harness = connected("vcrash", json!({"timeout": "60s"})).await;
    let ended = tokio::time::timeout(
        Duration::from_secs(40),
        halopsa_operator::failpoint::arm(&harness.namespace, point, nth),
    );
    harness.run_agent(AGENT).await;
    let (id, name) = open(&harness, "MFA reset, I have a new phone");
    let mut ended = Some(ended);
    if nth == 1 {
        ended
            .take()
            .unwrap()
            .await
            .unwrap_or_else(|_| panic!("{point} {nth} was never reached"))
            .unwrap();
        harness.restart().await;
    }
    let token = mail(&harness, 1).await;
    let sent = || async {
        (notes_with(&harness, id, "was asked to prove who they are") == 1).then_some(())
    };
    eventually("the note that a challenge was sent", sent).await;
    halosim::verifier::respond(&harness.sim.shared, &token, "verified").await;
    if let Some(ended) = ended {
        ended
            .await
            .unwrap_or_else(|_| panic!("{point} {nth} was never reached"))
            .unwrap();
        harness.restart().await;
    }
    let status = harness
        .ticket_in(&name, "AwaitingApproval")
        .await
        .status
        .unwrap();
    assert_eq!(status.phase, Phase::AwaitingApproval);
    assert_eq!(harness.sim.shared.verifier.mails().len(), 1, "{point}");
    for text in [
        "was asked to prove who they are",
        "the requester is verified",
        "Diagnosis and plan",
    ] {
        eventually(text, || async {
            (notes_with(&harness, id, text) == 1).then_some(())
        })
        .await;
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traceless_as_its_adapter_assumes_it() {
    let mut harness = connected(
        "traceless",
        json!({"traceless": {"secretRef": {"name": "verifier"}, "pushMethod": "DuoPush"}}),
    )
    .await;
    harness.run_agent(AGENT).await;
    let (id, name) = open(&harness, "MFA reset, I have a new phone");
    let token = mail(&harness, 1).await;
    harness.ticket_in(&name, "Verifying").await;
    eventually("the note that names the push", || async {
        (notes_with(&harness, id, "Duo Push") == 1).then_some(())
    })
    .await;
    assert!(halosim::verifier::respond(&harness.sim.shared, &token, "verified").await);
    harness.ticket_in(&name, "AwaitingApproval").await;
    let (_, name) = open(&harness, "MFA reset for another phone");
    let token = mail(&harness, 2).await;
    assert!(halosim::verifier::respond(&harness.sim.shared, &token, "denied").await);
    harness.ticket_in(&name, "Refused").await;
    assert_eq!(state(&harness, &name).await, VerificationState::Denied);

    // A wrong organisation, then a wrong secret: the provider's condition says so.
    for (field, value, reason) in [
        (
            "organizationUUID",
            "00000000-0000-4000-8000-000000000000",
            "ProviderUnavailable",
        ),
        (
            "signingSecret",
            "another-signing-key-0123456789abcdef",
            "Unauthorized",
        ),
    ] {
        let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "verifier", "labels": {"rallied.ai/use": "true"}}, "stringData": {
            "key": halosim::verifier::KEY, "signingSecret": halosim::verifier::KEY, "organizationUUID": halosim::verifier::ORGANIZATION}});
        secret["stringData"][field] = value.into();
        harness.apply::<Secret>("verifier", &secret).await;
        provider_is(&harness, "False", reason).await;
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_provider_gets_its_time_and_a_stuck_one_an_end() {
    let mut harness = connected("slow", json!({"timeout": "12s"})).await;
    harness.run_agent(AGENT).await;
    harness.sim.shared.verifier.faults().latency_ms = 2_000;
    let (_, name) = open(&harness, "MFA reset, I have a new phone");
    let token = mail(&harness, 1).await;
    harness.ticket_in(&name, "Verifying").await;
    assert!(halosim::verifier::respond(&harness.sim.shared, &token, "verified").await);
    harness.ticket_in(&name, "AwaitingApproval").await;

    // It accepts the challenge and never answers: one challenge, and a note about the outcome.
    harness.sim.shared.verifier.faults().latency_ms = 600_000;
    let (id, name) = open(&harness, "MFA reset for another phone");
    let ticket = harness.ticket_in(&name, "Refused").await;
    assert!(
        ticket
            .status
            .unwrap()
            .message
            .unwrap()
            .contains("could not be reached in time")
    );
    eventually("the note about it", || async {
        (notes_with(&harness, id, "could not be reached in time") == 1).then_some(())
    })
    .await;
    assert_eq!(harness.sim.shared.verifier.mails().len(), 1);
    harness.stop().await;
}
