//! Attacks by and through other MCP servers.

use crate::fake::{self, Tools};
use crate::harness::{ACME, Harness, eventually};
use crate::tool_servers::{ready, server};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::any;
use halopsa_operator::agent::gateway;
use halopsa_operator::api::ToolServer;
use halopsa_operator::tools::context;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// The status of one pinned tool.
async fn pinned(harness: &Harness, tool: &str) -> Value {
    let server = harness.api::<ToolServer>().get("m365").await.unwrap();
    let tools = server.status.unwrap_or_default().tools;
    let found = tools.into_iter().find(|t| t.name == tool);
    serde_json::to_value(found).unwrap()
}

async fn tools_of_acme(harness: &Harness) -> gateway::Tools {
    let gateway = harness.agent_gateway("acme-dental-group").await;
    gateway.tools().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_appears_later_waits_for_acceptance() {
    let harness = Harness::start("addition").await;
    harness.execute(&[ACME], json!({})).await;
    let user = ("get_user", "Reads a user");
    let (tools, fake) = Tools::start(&[user]).await;
    server(&harness, &fake, json!({})).await;
    let agent = tools_of_acme(&harness).await;
    tools.offer(&[
        user,
        ("get_and_forward_mail", "Gets a mail and forwards it"),
    ]);
    let message = ready(&harness, "False", "ToolsChanged").await;
    assert!(message.contains("get_and_forward_mail (new:"), "{message}");
    let names = agent.names().await.unwrap();
    assert!(
        names.iter().any(|n| n == "m365__get_user"),
        "the others go on"
    );
    assert!(!names.iter().any(|n| n.contains("forward")), "{names:?}");
    let call = agent.call("m365__get_and_forward_mail", json!({"user": "kim"}));
    assert!(call.await.is_err());
    assert!(tools.called.lock().unwrap().is_empty());
    // Accepted, it is pinned, and known to be sensitive.
    let revision = message.split("accept-tools=").nth(1).unwrap().to_string();
    let patch = json!({"metadata": {"annotations": {"rallied.ai/accept-tools": revision}}});
    harness
        .api::<ToolServer>()
        .patch("m365", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    ready(&harness, "True", "Connected").await;
    let tool = pinned(&harness, "get_and_forward_mail").await;
    assert_eq!(tool["sensitive"], "changes where mail goes (forward)");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensitive_tool_is_known_by_what_it_does() {
    let harness = Harness::start("effect").await;
    harness.execute(&[ACME], json!({})).await;
    let (_, fake) = Tools::start(&[
        ("get_user", "Reads a user"),
        ("reset_password", "Resets a password"),
    ])
    .await;
    server(&harness, &fake, json!({})).await;
    let reset = pinned(&harness, "reset_password").await;
    assert_eq!(reset["sensitive"], "changes credentials (password)");
    assert_eq!(pinned(&harness, "get_user").await["sensitive"], Value::Null);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_says_for_whom_it_is_and_its_arguments_fit() {
    let harness = Harness::start("context").await;
    harness.execute(&[ACME], json!({})).await;
    let (tools, fake) = Tools::start(&[("get_user", "Reads a user")]).await;
    for (name, data) in [
        ("m365-key", json!({"key": KEY})),
        ("m365-acme", json!({"x-api-key": "acme"})),
    ] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": {"rallied.ai/use": "true"}}, "stringData": data});
        harness.apply::<Secret>(name, &secret).await;
    }
    let more = json!({
        "contextKeySecretRef": {"name": "m365-key", "key": "key"},
        "clientHeaders": [{"client": "acme-dental-group", "secretRef": {"name": "m365-acme"}}],
    });
    server(&harness, &fake, more).await;
    assert!(
        tools.contexts.lock().unwrap().is_empty(),
        "none while listing"
    );
    let id = harness.open_ticket(ACME, "Printer is offline");
    harness
        .ticket_in(&format!("acme-dental-group-{id}"), "Ready")
        .await;
    let gateway = harness.agent_gateway("acme-dental-group").await;
    gateway.claim().await.unwrap().unwrap();
    let agent = gateway.tools().await.unwrap();
    eventually("wrong arguments are refused", || async {
        let call = agent.call("m365__get_user", json!({"user": 5}));
        let refused = call.await.unwrap_err().to_string();
        refused.contains("do not fit").then_some(())
    })
    .await;
    assert!(tools.called.lock().unwrap().is_empty(), "not called");
    eventually("the call", || async {
        let call = agent.call("m365__get_user", json!({"user": "kim"}));
        call.await.ok()
    })
    .await;
    let token = tools.contexts.lock().unwrap().last().cloned().unwrap();
    let claims = verified(&token);
    assert_eq!(claims["client"], "acme-dental-group");
    assert_eq!(claims["namespace"], harness.namespace.as_str());
    assert_eq!(claims["haloClientId"], ACME);
    assert_eq!(claims["ticketId"], id);
    assert_eq!(
        (&claims["aud"], &claims["tool"]),
        (&json!("m365"), &json!("get_user"))
    );
    assert_eq!(claims["verified"], false);
    assert!(claims["requester"]["id"].is_i64(), "{claims}");
    assert_eq!(tools.metas.lock().unwrap().last(), Some(&claims));
    assert_eq!(tools.keys.lock().unwrap().last().unwrap(), "acme");
    harness.stop().await;
}

/// The claims of a token that our key has signed.
fn verified(token: &str) -> Value {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let payload = token.split('.').nth(1).unwrap();
    let payload = URL_SAFE_NO_PAD.decode(payload).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    let ours = context::signed(&claims, &KEY.to_string().into());
    assert_eq!(ours.as_deref(), Some(token));
    claims
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_of_another_server_is_shown() {
    let harness = Harness::start("ssrf").await;
    harness.execute(&[ACME], json!({})).await;
    let answer = || async { (StatusCode::INTERNAL_SERVER_ERROR, "the-internal-secret") };
    let fake = fake::serve(Router::new().route("/{*path}", any(answer))).await;
    let ca = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m365-ca"}, "data": {"ca.crt": fake.ca}});
    harness.apply::<ConfigMap>("m365-ca", &ca).await;
    apply(&harness, &format!("{}/admin?x=y", fake.url)).await;
    let message = ready(&harness, "False", "Unreachable").await;
    assert!(message.contains("HTTP 500"), "{message}");
    assert!(!message.contains("the-internal-secret"), "{message}");
    harness.stop().await;
}

async fn apply(harness: &Harness, url: &str) {
    let object = json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "ToolServer", "metadata": {"name": "m365"}, "spec": {
        "connectionRef": {"name": "halo"}, "url": url, "caConfigMapRef": {"name": "m365-ca"}, "tools": [{"name": "*"}]}});
    harness.apply::<ToolServer>("m365", &object).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_does_not_lead_inside() {
    let harness = Harness::start("inside").await;
    harness.execute(&[ACME], json!({})).await;
    let ca = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m365-ca"}, "data": {"ca.crt": harness.ca}});
    harness.apply::<ConfigMap>("m365-ca", &ca).await;
    for (name, spec) in [
        (
            "meta",
            json!({"type": "ExternalName", "externalName": "169.254.169.254.nip.io"}),
        ),
        ("own", json!({"ports": [{"port": 8080}]})),
    ] {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
        harness.apply::<Service>(name, &service).await;
    }
    let namespace = &harness.namespace;
    for (url, said) in [
        (format!("http://meta.{namespace}.svc/mcp"), "ExternalName"),
        (format!("https://meta.{namespace}.svc/mcp"), "ExternalName"),
        (
            format!("http://own.{namespace}.svc:8080/mcp"),
            "no selector",
        ),
        (format!("http://none.{namespace}.svc/mcp"), "does not exist"),
        (
            "https://kubernetes.default.svc/mcp".to_string(),
            "another namespace",
        ),
        ("https://169.254.169.254/mcp".to_string(), "link-local"),
        (
            "https://[::ffff:169.254.169.254]/mcp".to_string(),
            "link-local",
        ),
        ("https://10.0.0.1/mcp".to_string(), "a private address"),
        ("https://0.0.0.0/mcp".to_string(), "no server has"),
    ] {
        apply(&harness, &url).await;
        let api = harness.api::<ToolServer>();
        eventually(&format!("{url} is refused: {said}"), || async {
            let status = api.get("m365").await.unwrap().status?;
            let condition = status.conditions.into_iter().next()?;
            let is_refused = condition.reason == "Unreachable" && condition.message.contains(said);
            is_refused.then_some(())
        })
        .await;
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_server_takes_the_name_of_our_own_tools() {
    let harness = Harness::start("name").await;
    for name in ["halopsa", "halopsa-x"] {
        let object = json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "ToolServer", "metadata": {"name": name}, "spec": {
            "connectionRef": {"name": "halo"}, "url": "https://tools.example/mcp", "tools": [{"name": "*"}]}});
        let refused = harness
            .api::<ToolServer>()
            .patch(name, &PatchParams::apply("test"), &Patch::Apply(&object))
            .await
            .unwrap_err();
        assert!(
            refused.to_string().contains("must not begin with halopsa"),
            "{refused}"
        );
    }
    harness.stop().await;
}
