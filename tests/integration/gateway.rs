//! The gateway against agents that want more than they are allowed.

use crate::harness::{ACME, BLUE, Harness};
use crate::walls::hold;
use halopsa_operator::agent::gateway::Error;
use halopsa_operator::gateway::wire::{Context, Plan, Work};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use reqwest::StatusCode;
use serde_json::{Value, json};

async fn claim(harness: &Harness, token: &str) -> StatusCode {
    let url = format!("{}/v1/work/claim", harness.gateway);
    harness
        .http()
        .post(url)
        .bearer_auth(token)
        .json(&json!({}))
        .send()
        .await
        .unwrap()
        .status()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_agents_of_this_cluster_and_audience_come_in() {
    let harness = Harness::start("identity").await;
    harness.ready(&[ACME]).await;
    let account: ServiceAccount =
        serde_json::from_value(json!({"metadata": {"name": "visitor"}})).unwrap();
    harness
        .api::<ServiceAccount>()
        .create(&PostParams::default(), &account)
        .await
        .unwrap();
    for (why, token) in [
        ("no token", String::new()),
        ("nonsense", "eyJhbGciOiJub25lIn0.e30.".into()),
        (
            "another audience",
            harness
                .token(
                    "halopsa-agent-acme-dental-group",
                    "https://kubernetes.default.svc",
                )
                .await,
        ),
        (
            "another ServiceAccount",
            harness.token("visitor", "halopsa-gateway").await,
        ),
    ] {
        assert_eq!(
            claim(&harness, &token).await,
            StatusCode::UNAUTHORIZED,
            "{why}"
        );
    }
    // Plain HTTP is refused.
    let plain = harness.gateway.replace("https://", "http://");
    assert!(
        reqwest::Client::builder()
            .no_proxy()
            .build()
            .unwrap()
            .post(plain)
            .send()
            .await
            .is_err()
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_sees_its_own_client_only() {
    let harness = Harness::start("bounds").await;
    harness.ready(&[ACME, BLUE]).await;
    let acme = harness.agent_gateway("acme-dental-group").await;
    let blue_ticket = harness.open_ticket(BLUE, "Printer offline");
    let name = format!("blue-harbor-logistics-{blue_ticket}");
    harness.ticket_in(&name, "Ready").await;

    // The work API: another client's ticket is not found.
    let work: Work =
        serde_json::from_value(json!({"ticket": name, "leaseId": "x", "leaseSeconds": 45, "mode": "Plan", "context": Context::default()})).unwrap();
    assert!(matches!(
        acme.heartbeat(&work).await,
        Err(Error::Refused(_))
    ));
    let plan = Plan {
        asked: "x".into(),
        steps: vec!["y".into()],
        ..Plan::default()
    };
    assert!(matches!(
        acme.complete(&work, Some(&plan), None).await,
        Err(Error::Refused(_))
    ));
    assert!(harness.our_notes(blue_ticket).is_empty());

    // The tools: the same, whatever the arguments.
    hold(&harness, &acme, "Scanner is slow").await;
    let tools = acme.tools().await.unwrap();
    let names = tools.names().await.unwrap();
    assert_eq!(names.len(), 6, "{names:?}");
    let theirs = harness
        .sim
        .shared
        .store()
        .kind("users")
        .unwrap()
        .values()
        .find(|u| u["client_id"] == BLUE)
        .unwrap()["id"]
        .clone();
    for (tool, arguments) in [
        ("halopsa_get_ticket", json!({"ticketId": blue_ticket})),
        (
            "halopsa_list_ticket_notes",
            json!({"ticketId": blue_ticket}),
        ),
        ("halopsa_get_user", json!({"userId": theirs})),
        (
            "halopsa_get_ticket",
            json!({"ticketId": blue_ticket, "clientId": BLUE}),
        ),
        ("halopsa_delete_ticket", json!({"ticketId": blue_ticket})),
        ("HALOPSA_GET_TICKET", json!({"ticketId": blue_ticket})),
    ] {
        let result = tools.call(tool, arguments.clone()).await;
        assert!(
            matches!(result, Err(Error::Tool(_))),
            "{tool} {arguments}: {result:?}"
        );
    }
    let found = tools
        .call(
            "halopsa_search_tickets",
            json!({"query": "printer", "limit": 20}),
        )
        .await
        .unwrap();
    let found = found["tickets"].as_array().unwrap().clone();
    assert!(!found.is_empty());
    {
        let store = harness.sim.shared.store();
        let client = |t: &Value| {
            store.get("tickets", t["id"].as_i64().unwrap()).unwrap()["client_id"].clone()
        };
        assert!(found.iter().all(|t| client(t) == ACME));
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_hide_tools_from_the_next_call_on() {
    let harness = Harness::start("hide").await;
    harness.ready(&[ACME]).await;
    let acme = harness.agent_gateway("acme-dental-group").await;
    hold(&harness, &acme, "Scanner is slow").await;
    let tools = acme.tools().await.unwrap();
    tools
        .call("halopsa_search_knowledge_base", json!({"query": "printer"}))
        .await
        .unwrap();
    let policy = json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "ToolPolicy", "metadata": {"name": "p"},
        "spec": {"connectionRef": {"name": "halo"}, "rules": [{"tools": ["halopsa_search_*"], "effect": "Disabled"}]}});
    harness
        .apply::<halopsa_operator::api::ToolPolicy>("p", &policy)
        .await;
    crate::harness::eventually("the tool is refused", || async {
        tools
            .call("halopsa_search_knowledge_base", json!({"query": "printer"}))
            .await
            .err()
    })
    .await;
    let names = tools.names().await.unwrap();
    assert_eq!(names.len(), 4, "{names:?}");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_and_an_empty_plan_write_nothing() {
    let harness = Harness::start("lease").await;
    harness.ready(&[ACME]).await;
    let id = harness.open_ticket(ACME, "Printer offline");
    harness
        .ticket_in(&format!("acme-dental-group-{id}"), "Ready")
        .await;
    let (one, two) = (
        harness.agent_gateway("acme-dental-group").await,
        harness.agent_gateway("acme-dental-group").await,
    );
    let work = one.claim().await.unwrap().expect("a ticket waits");
    assert_eq!(work.context.requester.name, "Kim Lee");
    assert!(work.context.details.contains("It does not work."));
    assert!(
        matches!(
            one.complete(&work, Some(&Plan::default()), None).await,
            Err(Error::Refused(_))
        ),
        "an empty plan"
    );
    one.release(&work).await.unwrap();
    let again = two.claim().await.unwrap().expect("handed back");
    let plan = Plan {
        asked: "x".into(),
        steps: vec!["y".into()],
        ..Plan::default()
    };
    assert!(matches!(
        one.complete(&work, Some(&plan), None).await,
        Err(Error::LeaseLost)
    ));
    assert!(harness.our_notes(id).is_empty());
    two.complete(&again, Some(&plan), None).await.unwrap();
    assert!(
        matches!(
            two.complete(&again, Some(&plan), None).await,
            Err(Error::LeaseLost)
        ),
        "done is done"
    );
    assert_eq!(harness.our_notes(id).len(), 1);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_served_without_a_restart() {
    let harness = Harness::start("renewal").await;
    harness.ready(&[ACME]).await;
    let served = || async {
        let ca = reqwest::Certificate::from_pem(harness.ca.as_bytes()).unwrap();
        let http = reqwest::Client::builder()
            .tls_certs_only([ca])
            .tls_info(true)
            .no_proxy()
            .build()
            .unwrap();
        let answer = http
            .get(format!("{}/healthz", harness.webhooks))
            .send()
            .await
            .unwrap();
        answer
            .extensions()
            .get::<reqwest::tls::TlsInfo>()
            .unwrap()
            .peer_certificate()
            .unwrap()
            .to_vec()
    };
    let first = served().await;
    // Due for renewal, as after two thirds of its life.
    let patch =
        json!({"metadata": {"annotations": {"rallied.ai/renew-after": "2020-01-01T00:00:00Z"}}});
    harness
        .api::<Secret>()
        .patch(
            "operator-tls",
            &PatchParams::default(),
            &Patch::Merge(patch),
        )
        .await
        .unwrap();
    crate::harness::eventually("another certificate of the same CA", || async {
        (served().await != first).then_some(())
    })
    .await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_out_while_suspended() {
    let harness = Harness::start("suspended").await;
    harness.ready(&[ACME]).await;
    let id = harness.open_ticket(ACME, "Printer offline");
    harness
        .ticket_in(&format!("acme-dental-group-{id}"), "Ready")
        .await;
    let acme = harness.agent_gateway("acme-dental-group").await;
    let work = acme.claim().await.unwrap().expect("a ticket waits");
    let suspend = |on: bool| {
        let api = harness.api::<halopsa_operator::api::HaloPSAConnection>();
        async move {
            api.patch(
                "halo",
                &PatchParams::default(),
                &Patch::Merge(json!({"spec": {"suspend": on}})),
            )
            .await
            .unwrap()
        }
    };
    suspend(true).await;
    let tools = acme.tools().await.unwrap();
    crate::harness::eventually("tools are refused", || async {
        tools
            .call("halopsa_get_ticket", json!({"ticketId": id}))
            .await
            .err()
    })
    .await;
    let plan = Plan {
        asked: "x".into(),
        steps: vec!["y".into()],
        ..Plan::default()
    };
    assert!(matches!(
        acme.complete(&work, Some(&plan), None).await,
        Err(Error::Unavailable(_))
    ));
    assert!(harness.our_notes(id).is_empty());
    suspend(false).await;
    crate::harness::eventually("the plan is accepted", || async {
        acme.complete(&work, Some(&plan), None).await.ok()
    })
    .await;
    assert_eq!(harness.our_notes(id).len(), 1);
    harness.stop().await;
}
