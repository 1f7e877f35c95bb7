//! Input that no person writes: it is bounded where it comes in, and stops nobody else.

use crate::harness::{ACME, BLUE, Harness};
use halopsa_operator::api::{HaloPSAConnection, ImportedClient};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

/// The longest time the schema admits, and one that cannot be added to a timestamp.
const TIMES: [&str; 2] = ["999999999999999h", "80000000h"];

#[tokio::test(flavor = "multi_thread")]
async fn times_at_the_edge_of_the_schema_stop_nobody() {
    let mut harness = Harness::start("edges").await;
    harness.ready(&[ACME, BLUE]).await;
    for time in TIMES {
        let spec = json!({
            "agent": {"idleTime": time},
            "approvals": {"validFor": time, "remindAfter": time, "poll": time},
            "retention": {"finished": time},
        });
        patch::<HaloPSAConnection>(&harness, "halo", &spec).await;
        let agent = json!({"agent": {"idleTime": time}});
        patch::<ImportedClient>(&harness, "acme-dental-group", &agent).await;
    }
    harness.run_agent("acme-dental-group").await;
    let id = harness.open_ticket(ACME, "Printer is offline");
    harness
        .ticket_in(&format!("acme-dental-group-{id}"), "Done")
        .await;
    harness.stop().await;
}

async fn patch<K>(harness: &Harness, name: &str, spec: &Value)
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
{
    harness
        .api::<K>()
        .patch(
            name,
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": spec})),
        )
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_a_url_asks_the_apiserver_for_nothing_else() {
    let harness = Harness::start("names").await;
    harness.ready(&[ACME]).await;
    let (http, namespace) = (harness.http(), &harness.namespace);
    for path in [
        format!("/verifications/{namespace}%2Ftickets%3Fx%3D/y"),
        format!("/verifications/{namespace}/y%3Fwatch%3Dtrue"),
        format!("/verifications/{namespace}%2F..%2F..%2Fsecrets/y"),
        format!("/webhooks/{namespace}%2Ftickets%3Fx%3D/halo"),
    ] {
        let answer = http
            .post(format!("{}{path}", harness.webhooks))
            .body("{}")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 400, "{path}");
        assert!(answer.text().await.unwrap().len() < 200, "{path}");
    }
    let agent = harness.agent_gateway("acme-dental-group").await;
    let token = std::fs::read_to_string(&agent.token_file).unwrap();
    for work in ["heartbeat", "release", "plan", "complete"] {
        let answer = http
            .post(format!("{}/v1/work/%3Fx/{work}", harness.gateway))
            .bearer_auth(&token)
            .json(&json!({"leaseId": "x"}))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 400, "{work}");
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_nested_without_end_delays_no_other() {
    let mut harness = Harness::start("nested").await;
    harness.ready(&[ACME, BLUE]).await;
    harness.run_agent("acme-dental-group").await;
    let details = format!("{}printer", "<div>".repeat(100_000));
    let first = harness.open_ticket(ACME, "A very deep mail");
    {
        let mut store = harness.sim.shared.store();
        let ticket = store.get_mut("tickets", first).unwrap();
        ticket.insert("details".into(), "".into());
        ticket.insert("details_html".into(), details.into());
    }
    let second = harness.open_ticket(ACME, "Printer is offline");
    for id in [second, first] {
        harness
            .ticket_in(&format!("acme-dental-group-{id}"), "Done")
            .await;
    }
    harness.stop().await;
}
