//! The client's walls: what an agent may read, where it may send, which Secrets leave the cluster.

use crate::fake::{self, Fake, Model, words};
use crate::harness::{ACME, BLUE, Harness, eventually, within};
use crate::{model, verification};
use axum::routing::post;
use axum::{Json, Router};
use halopsa_operator::agent::gateway::{Gateway, Tools};
use halopsa_operator::api::ticket::{ModelUse, Ticket};
use halopsa_operator::api::{ImportedClient, ToolPolicy};
use halopsa_operator::gateway::wire::{Plan, Work};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const AGENT: &str = "acme-dental-group";
const BLUE_AGENT: &str = "blue-harbor-logistics";

/// A new ticket of Acme's that this agent holds from now on.
pub async fn hold(harness: &Harness, agent: &Gateway, summary: &str) -> Work {
    hold_of(harness, agent, (ACME, AGENT), summary).await
}

async fn hold_of(
    harness: &Harness,
    agent: &Gateway,
    (client, slug): (i64, &str),
    summary: &str,
) -> Work {
    let id = harness.open_ticket(client, summary);
    harness.ticket_in(&format!("{slug}-{id}"), "Ready").await;
    let work = agent.claim().await.unwrap().expect("a ticket waits");
    assert_eq!(work.ticket, format!("{slug}-{id}"));
    let (agent, held) = (agent.clone(), work.clone());
    tokio::spawn(async move {
        while agent.heartbeat(&held).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    });
    work
}

/// A model that answers after a while, and how often it was asked.
async fn slow(delay: Duration, tokens: i64) -> (Arc<AtomicUsize>, Fake) {
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = asked.clone();
    let answer = move |Json(_): Json<Value>| {
        let seen = seen.clone();
        async move {
            seen.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(delay).await;
            let (_, mut answer) = words("hm");
            answer["usage"]["total_tokens"] = tokens.into();
            Json(answer)
        }
    };
    let router = Router::new().route("/v1/chat/completions", post(answer));
    (asked, fake::serve(router).await)
}

/// Asks the model through the gateway.
async fn ask(harness: &Harness, agent: &Gateway, body: &Value) -> reqwest::Response {
    let token = std::fs::read_to_string(&agent.token_file).unwrap();
    harness
        .http()
        .post(format!("{}/v1/model/chat/completions", harness.gateway))
        .bearer_auth(token)
        .json(body)
        .send()
        .await
        .unwrap()
}

fn question() -> Value {
    json!({"messages": [{"role": "user", "content": "a canary that nobody may log"}]})
}

async fn use_of(harness: &Harness, name: &str) -> ModelUse {
    let ticket = harness.api::<Ticket>().get(name).await.unwrap();
    ticket.status.unwrap().model.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_text_and_functions_reach_the_model() {
    let harness = Harness::start("textonly").await;
    let (model, fake) = Model::start(Box::new(|_, _| words("hm"))).await;
    harness
        .execute(&[ACME], model::configure(&harness, &fake, json!({})).await)
        .await;
    let agent = harness.agent_gateway(AGENT).await;
    hold(&harness, &agent, "Scanner is slow").await;
    let url = "https://evil.example/?d=payroll";
    let image = json!([{"type": "image_url", "image_url": {"url": url}}]);
    for bad in [
        json!({"messages": [{"role": "user", "content": image}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}),
        json!({"messages": [], "tools": [{"type": "web_search"}]}),
        json!({"messages": [], "tools": [{"type": "mcp", "server_url": url}]}),
    ] {
        let answer = ask(&harness, &agent, &bad).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{bad}");
        let said = answer.json::<Value>().await.unwrap();
        let said = said["error"]["message"].as_str().unwrap().to_string();
        assert!(said.contains("is not passed on"), "{said}");
    }
    assert_eq!(model.asked(), 0, "nothing was sent");
    let mut good = question();
    good["web_search_options"] = json!({});
    good["max_tokens"] = 10_000_000.into();
    assert!(ask(&harness, &agent, &good).await.status().is_success());
    let sent = model.requests.lock().unwrap()[0].1.clone();
    assert!(sent.get("web_search_options").is_none() && sent.get("max_tokens").is_none());
    assert!(sent["max_completion_tokens"].as_i64().unwrap() < 200_000);
    // Every call is recorded, and no text.
    let audit = harness.audit().join("\n");
    assert!(audit.contains("ModelRefused") && audit.contains("invalid_request_error"));
    assert!(audit.contains("ModelCalled") && audit.contains("requestSha256="));
    assert!(audit.contains("tokens=50 outcome=ok"), "{audit}");
    assert!(!audit.contains("canary") && !audit.contains("payroll"));
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_calls_at_once_are_one() {
    let harness = Harness::start("fifty").await;
    let (asked, fake) = slow(Duration::from_secs(1), 100).await;
    let limits = json!({"stepsPerTurn": 1});
    harness
        .execute(&[ACME], model::configure(&harness, &fake, limits).await)
        .await;
    let agent = harness.agent_gateway(AGENT).await;
    let work = hold(&harness, &agent, "Scanner is slow").await;
    let question = question();
    let calls = (0..50).map(|_| ask(&harness, &agent, &question));
    let answers = futures::future::join_all(calls).await;
    let made = answers.iter().filter(|a| a.status().is_success()).count();
    let refused = answers.iter().map(|a| a.status().as_u16());
    assert_eq!((made, asked.load(Ordering::SeqCst)), (1, 1));
    assert!(refused.clone().all(|s| matches!(s, 200 | 429 | 503)));
    assert!(refused.filter(|s| *s == 429).count() > 40);
    let used = use_of(&harness, &work.ticket).await;
    assert_eq!((used.calls, used.tokens, used.reserved), (1, 100, None));
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_the_agent_hangs_up_on_is_counted() {
    let harness = Harness::start("hangup").await;
    let (asked, fake) = slow(Duration::from_secs(1), 900).await;
    let limits = json!({"tokensPerTicket": 1000, "tokensPerDay": 1000});
    harness
        .execute(&[ACME], model::configure(&harness, &fake, limits).await)
        .await;
    let agent = harness.agent_gateway(AGENT).await;
    let work = hold(&harness, &agent, "Scanner is slow").await;
    let question = question();
    tokio::select! {
        _ = ask(&harness, &agent, &question) => panic!("it waits a second"),
        () = eventually("the provider has it", || async {
            (asked.load(Ordering::SeqCst) == 1).then_some(())
        }) => {}
    }
    // While it is under way all of it is reserved.
    assert!(use_of(&harness, &work.ticket).await.tokens > 900);
    let used = eventually("the call is settled", || async {
        let used = use_of(&harness, &work.ticket).await;
        used.reserved.is_none().then_some(used)
    })
    .await;
    assert_eq!((used.calls, used.tokens, used.tokens_on_day), (1, 900, 900));

    // Nor does a deleted Ticket take it away.
    let clients = harness.api::<ImportedClient>();
    let usage = clients
        .get(AGENT)
        .await
        .unwrap()
        .status
        .unwrap()
        .model_usage;
    assert_eq!(usage.unwrap().tokens, 900);
    let tickets = harness.api::<Ticket>();
    tickets
        .delete(&work.ticket, &DeleteParams::default())
        .await
        .unwrap();
    let next = harness.agent_gateway(AGENT).await;
    hold(&harness, &next, "Keyboard is sticky").await;
    let answer = ask(&harness, &next, &question).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(
        answer
            .text()
            .await
            .unwrap()
            .contains("client's budget of 1000")
    );
    // The controller's own writes leave it alone.
    let client = clients.get(AGENT).await.unwrap();
    assert_eq!(client.status.unwrap().model_usage.unwrap().tokens, 900);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    harness.stop().await;
}

async fn articles(tools: &Tools) -> Vec<String> {
    let arguments = json!({"query": "printer", "limit": 20});
    let found = tools.call("halopsa_search_knowledge_base", arguments).await;
    let found = found.unwrap();
    let rows = found["articles"].as_array().unwrap();
    rows.iter()
        .map(|a| a["name"].as_str().unwrap().to_string())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_clients_article_does_not_exist() {
    let harness = Harness::start("articles").await;
    harness.execute(&[ACME, BLUE], json!({})).await;
    let policy = json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "ToolPolicy", "metadata": {"name": "p"},
        "spec": {"connectionRef": {"name": "halo"}, "rules": [{"tools": ["halopsa_link_article"], "effect": "Auto"}]}});
    harness.apply::<ToolPolicy>("p", &policy).await;
    let acme = harness.agent_gateway(AGENT).await;
    let work = hold(&harness, &acme, "Scanner is slow").await;
    let blue = harness.agent_gateway(BLUE_AGENT).await;
    hold_of(&harness, &blue, (BLUE, BLUE_AGENT), "Scanner is slow").await;
    let (for_all, for_blue) = (
        "Printer offline: first checks",
        "Printer codes of Blue Harbor",
    );
    let names = articles(&blue.tools().await.unwrap()).await;
    assert!(names.iter().any(|n| n == for_all) && names.iter().any(|n| n == for_blue));
    let tools = acme.tools().await.unwrap();
    assert_eq!(articles(&tools).await, [for_all]);

    let plan = Plan {
        asked: "x".into(),
        steps: vec!["y".into()],
        ..Plan::default()
    };
    acme.plan(&work, &plan).await.unwrap();
    let link = |id: i64| {
        let arguments = json!({"articleId": id});
        tools.call_until_settled("halopsa_link_article", arguments)
    };
    let refused = link(4).await.unwrap_err().to_string();
    assert!(
        refused.contains("there is no knowledge base article 4"),
        "{refused}"
    );
    link(1).await.unwrap();
    let notes = harness.our_notes(work.context.ticket_id);
    assert!(notes.iter().all(|n| !n.contains(for_blue)));
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_a_ticket_reads_nothing() {
    let harness = Harness::start("idlereads").await;
    harness.ready(&[ACME]).await;
    let agent = harness.agent_gateway(AGENT).await;
    let tools = agent.tools().await.unwrap();
    assert_eq!(tools.names().await.unwrap().len(), 6, "it may list them");
    for (tool, arguments) in [
        ("halopsa_search_tickets", json!({"query": "printer"})),
        ("halopsa_search_knowledge_base", json!({"query": "printer"})),
        ("halopsa_list_assets", json!({})),
    ] {
        let refused = tools.call(tool, arguments).await.unwrap_err().to_string();
        assert!(refused.contains("you hold no ticket"), "{tool}: {refused}");
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_is_not_verified_does_not_exist() {
    let harness = verification::connected("unverified", json!({})).await;
    let agent = harness.agent_gateway(AGENT).await;
    hold(&harness, &agent, "Scanner is slow").await;
    let tools = agent.tools().await.unwrap();
    let id = harness.open_ticket(ACME, "MFA reset, I have a new phone");
    let name = format!("{AGENT}-{id}");
    harness.ticket_in(&name, "Verifying").await;
    let hidden = || async {
        for tool in ["halopsa_get_ticket", "halopsa_list_ticket_notes"] {
            let arguments = json!({"ticketId": id});
            let refused = tools.call(tool, arguments).await.err()?.to_string();
            if !refused.contains("your client has no such ticket") {
                return None;
            }
        }
        let arguments = json!({"query": "MFA reset", "limit": 20});
        let found = tools.call("halopsa_search_tickets", arguments).await;
        let found = found.unwrap();
        let rows = found["tickets"].as_array().unwrap();
        rows.iter().all(|t| t["id"] != id).then_some(())
    };
    eventually("it is hidden", hidden).await;
    let token = verification::mail(&harness, 1).await;
    halosim::verifier::respond(&harness.sim.shared, &token, "denied").await;
    harness.ticket_in(&name, "Refused").await;
    eventually("it stays hidden", hidden).await;
    // The agent's own ticket is there.
    let own = json!({"query": "Scanner", "limit": 20});
    let found = tools.call("halopsa_search_tickets", own).await.unwrap();
    assert!(!found["tickets"].as_array().unwrap().is_empty());
    harness.stop().await;
}

async fn egress_rules(harness: &Harness) -> Option<Value> {
    let policy = harness.api::<NetworkPolicy>();
    let policy = policy.get_opt("halopsa-agent-acme-dental-group").await;
    serde_json::to_value(policy.unwrap()?.spec?.egress?).ok()
}

async fn pod_of(harness: &Harness) -> Option<Value> {
    let deployment = harness.api::<Deployment>();
    let deployment = deployment.get_opt("halopsa-agent-acme-dental-group").await;
    let pod = deployment.unwrap()?.spec?.template.spec?;
    serde_json::to_value(pod).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_reach_the_gateway_without_dns() {
    let harness = Harness::start("nodns").await;
    harness.ready(&[ACME]).await;
    // Without a Service: the cluster's own DNS, not every pod with its label.
    let rules = egress_rules(&harness).await.unwrap();
    assert_eq!(
        rules[1]["to"][0]["namespaceSelector"]["matchLabels"],
        json!({"kubernetes.io/metadata.name": "kube-system"})
    );
    let services = harness.api::<Service>();
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "operator-gateway"},
        "spec": {"selector": {"a": "b"}, "ports": [{"port": 9443}]},
    }))
    .unwrap();
    let name = format!("operator-gateway.{}.svc", harness.namespace);
    for _ in 0..2 {
        let created = services.create(&PostParams::default(), &service).await;
        let address = created.unwrap().spec.unwrap().cluster_ip.unwrap();
        let aliases = json!([{"ip": address, "hostnames": [name]}]);
        let what = format!("agents know {address}");
        let pod = within(Duration::from_secs(60), &what, || async {
            pod_of(&harness)
                .await
                .filter(|p| p["hostAliases"] == aliases)
        })
        .await;
        assert_eq!(pod["dnsPolicy"], "None");
        let rules = egress_rules(&harness).await.unwrap();
        assert_eq!(rules.as_array().unwrap().len(), 1, "{rules}");
        // It may come back with another address.
        let params = DeleteParams::default();
        services.delete("operator-gateway", &params).await.unwrap();
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_without_the_label_is_not_used() {
    let harness = Harness::start("label").await;
    let secrets = harness.api::<Secret>();
    let label = |value: Value| {
        let patch = json!({"metadata": {"labels": {"rallied.ai/use": value}}});
        let secrets = secrets.clone();
        async move {
            let params = PatchParams::default();
            let patch = Patch::Merge(patch);
            secrets.patch("credentials", &params, &patch).await.unwrap();
        }
    };
    label(Value::Null).await;
    harness.connect(&[ACME]).await;
    let said = harness
        .connection_is("CredentialsValid", "False", "SecretInvalid")
        .await;
    assert!(
        said.contains("lacks the label rallied.ai/use=true"),
        "{said}"
    );
    label("true".into()).await;
    harness.connection_is("Ready", "True", "Connected").await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anothers_objects_are_left_as_they_are() {
    let harness = Harness::start("taken").await;
    let (secrets, accounts) = (harness.api::<Secret>(), harness.api::<ServiceAccount>());
    let (webhook, agent) = ("halo-webhook", "halopsa-agent-acme-dental-group");
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": webhook}, "stringData": {"username": "u", "password": "theirs"},
    }))
    .unwrap();
    let account: ServiceAccount =
        serde_json::from_value(json!({"metadata": {"name": agent}})).unwrap();
    let params = PostParams::default();
    let secret = secrets.create(&params, &secret).await.unwrap();
    let account = accounts.create(&params, &account).await.unwrap();
    harness.connect(&[ACME]).await;
    let said = harness
        .connection_is("WebhookRegistered", "False", "NameTaken")
        .await;
    assert!(said.contains("Secret halo-webhook exists"), "{said}");
    let now = secrets.get(webhook).await.unwrap();
    assert_eq!(
        now.metadata.resource_version,
        secret.metadata.resource_version
    );
    secrets
        .delete(webhook, &DeleteParams::default())
        .await
        .unwrap();
    harness.connection_is("Ready", "True", "Connected").await;

    let clients = harness.api::<ImportedClient>();
    let available = |reason: &'static str| {
        let clients = clients.clone();
        async move {
            let status = clients.get_opt(AGENT).await.unwrap()?.status?;
            let mut conditions = status.conditions.into_iter();
            let found = conditions.find(|c| c.type_ == "AgentAvailable")?;
            (found.reason == reason).then_some(())
        }
    };
    eventually("the name is taken", || available("NameTaken")).await;
    let now = accounts.get(agent).await.unwrap();
    assert_eq!(
        now.metadata.resource_version,
        account.metadata.resource_version
    );
    let params = DeleteParams::default();
    accounts.delete(agent, &params).await.unwrap();
    let free = || available("Idle");
    within(Duration::from_secs(60), "the name is free", free).await;
    // What is ours is healed as before.
    let patch = Patch::Merge(json!({"metadata": {"labels": {"rallied.ai/client": "other"}}}));
    let params = PatchParams::default();
    accounts.patch(agent, &params, &patch).await.unwrap();
    eventually("it is healed", || async {
        let labels = accounts.get(agent).await.unwrap().metadata.labels?;
        (labels.get("rallied.ai/client")? == AGENT).then_some(())
    })
    .await;
    harness.stop().await;
}
