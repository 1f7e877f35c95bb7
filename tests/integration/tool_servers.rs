//! Other MCP servers, under the same rules.

use crate::approvals::{approve, asked, notes_with};
use crate::fake::{Fake, Tools};
use crate::harness::{ACME, BLUE, Harness, eventually};
use halopsa_operator::agent::gateway;
use halopsa_operator::api::ticket::StepState;
use halopsa_operator::api::{ToolPolicy, ToolServer, Workflow};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::{Value, json};

/// Applies a ToolServer `m365` for this fake and waits until it is connected.
pub async fn server(harness: &Harness, fake: &Fake, more: Value) {
    let ca = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m365-ca"}, "data": {"ca.crt": fake.ca}});
    harness.apply::<ConfigMap>("m365-ca", &ca).await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "m365", "labels": {"rallied.ai/use": "true"}}, "stringData": {"x-api-key": "k1"}});
    harness.apply::<Secret>("m365", &secret).await;
    let mut object = json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "ToolServer", "metadata": {"name": "m365"}, "spec": {
        "connectionRef": {"name": "halo"}, "url": format!("{}/mcp", fake.url), "headersSecretRef": {"name": "m365"}, "caConfigMapRef": {"name": "m365-ca"},
        "tools": [{"name": "get_*", "access": "Read"}, {"name": "reset_password"}, {"name": "delete_*", "access": "Destructive"}]}});
    for (key, value) in more.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    harness.apply::<ToolServer>("m365", &object).await;
    ready(harness, "True", "Connected").await;
}

pub async fn ready(harness: &Harness, status: &str, reason: &str) -> String {
    let api = harness.api::<ToolServer>();
    eventually(&format!("the ToolServer is {reason}"), || async {
        let found = api
            .get("m365")
            .await
            .unwrap()
            .status?
            .conditions
            .into_iter()
            .next()?;
        (found.status == status && found.reason == reason).then_some(found.message)
    })
    .await
}

/// Applies a workflow that resets a password with the server's tool.
/// Approval is enough for a sensitive tool: what is tested is not the verification.
pub async fn lift(harness: &Harness) {
    let object = json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "ToolPolicy", "metadata": {"name": "lift"}, "spec": {
        "connectionRef": {"name": "halo"},
        "rules": [{"tools": ["m365__reset_password"], "effect": "ApprovalNeeded", "requireVerification": false}]}});
    harness.apply::<ToolPolicy>("lift", &object).await;
}

pub async fn workflow(harness: &Harness) {
    lift(harness).await;
    let object = json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "Workflow", "metadata": {"name": "reset"}, "spec": {
        "connectionRef": {"name": "halo"}, "trigger": "user profile is stuck", "state": "Active", "instructions": "Reset it.",
        "steps": [{"tool": "m365__reset_password", "arguments": {"user": "{{requester}}"}}]}});
    harness.apply::<Workflow>("reset", &object).await;
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
}

const TOOLS: [(&str, &str); 4] = [
    ("get_user", "Reads a user"),
    ("reset_password", "Resets a password"),
    ("delete_user", "Deletes a user"),
    ("hidden", "Is not listed"),
];

#[tokio::test(flavor = "multi_thread")]
async fn their_tools_are_prefixed_pinned_and_under_policy() {
    let mut harness = Harness::start("tools").await;
    harness.execute(&[ACME, BLUE], json!({})).await;
    let (tools, fake) = Tools::start(&TOOLS).await;
    server(&harness, &fake, json!({"clients": ["acme-dental-group"]})).await;
    assert!(tools.keys.lock().unwrap().iter().all(|k| k == "k1"));
    let agent = tools_of(&harness, "acme-dental-group").await;
    let other = tools_of(&harness, "blue-harbor-logistics").await;
    only_its_own_client_has_the_listed_tools(&agent, &other).await;
    assert!(tools.called.lock().unwrap().is_empty());
    a_write_runs_once_approved(&mut harness, &tools).await;
    a_policy_hides_them(&harness, &agent).await;
    harness.stop().await;
}

/// The tools of a client's agent.
async fn tools_of(harness: &Harness, client: &str) -> gateway::Tools {
    let gateway = harness.agent_gateway(client).await;
    gateway.tools().await.unwrap()
}

/// Those of the tools that are the ToolServer's.
async fn prefixed(tools: &gateway::Tools) -> Vec<String> {
    let names = tools.names().await.unwrap();
    names
        .into_iter()
        .filter(|n| n.starts_with("m365"))
        .collect()
}

async fn only_its_own_client_has_the_listed_tools(agent: &gateway::Tools, other: &gateway::Tools) {
    let names = eventually("the tools", || async {
        Some(prefixed(agent).await).filter(|n| !n.is_empty())
    })
    .await;
    assert_eq!(
        names,
        ["m365__get_user", "m365__reset_password"],
        "what cannot be undone is hidden, what is not listed does not exist"
    );
    assert!(
        prefixed(other).await.is_empty(),
        "another client's agent has none"
    );
    for name in [
        "m365__delete_user",
        "m365__hidden",
        "m365__GET_USER",
        "M365__get_user",
        "m365__",
        "x__get_user",
        "get_user",
    ] {
        assert!(agent.call(name, json!({})).await.is_err(), "{name}");
    }
    assert!(
        other
            .call("m365__get_user", json!({"user": "kim"}))
            .await
            .is_err()
    );
}

/// A write waits for a technician; a read only needs a held ticket.
async fn a_write_runs_once_approved(harness: &mut Harness, tools: &Tools) {
    workflow(harness).await;
    harness.run_agent("acme-dental-group").await;
    let (id, name) = asked(harness, "User profile is stuck").await;
    assert!(tools.called.lock().unwrap().is_empty());
    assert!(
        harness.our_actions(id)[1]["note_html"]
            .as_str()
            .unwrap()
            .contains("Call m365__reset_password")
    );
    approve(harness, id, &name).await;
    let status = harness.ticket_in(&name, "Done").await.status.unwrap();
    assert_eq!(status.steps[0].state, StepState::Done);
    assert_eq!(
        *tools.called.lock().unwrap(),
        [("reset_password".to_string(), json!({"user": "Kim Lee"}))],
        "once"
    );
    assert_eq!(notes_with(harness, id, "the approved steps"), 1);
}

/// A policy matches them by their prefixed names.
async fn a_policy_hides_them(harness: &Harness, agent: &gateway::Tools) {
    let policy = json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "ToolPolicy", "metadata": {"name": "p"},
        "spec": {"connectionRef": {"name": "halo"}, "rules": [{"tools": ["m365__*"], "effect": "Disabled"}]}});
    harness.apply::<ToolPolicy>("p", &policy).await;
    eventually("they are hidden", || async {
        prefixed(agent).await.is_empty().then_some(())
    })
    .await;
    let api = harness.api::<ToolPolicy>();
    eventually("the rule is counted", || async {
        api.get("p")
            .await
            .unwrap()
            .status
            .filter(|s| s.rules.first().is_some_and(|r| r.tools == 3))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_or_refuses_is_reported() {
    let harness = Harness::start("noserver").await;
    harness.execute(&[ACME], json!({})).await;
    let (_, fake) = Tools::start(&[]).await;
    let object = |url: &str| {
        json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "ToolServer", "metadata": {"name": "m365"}, "spec": {
        "connectionRef": {"name": "halo"}, "url": url, "caConfigMapRef": {"name": "m365-ca"}, "tools": [{"name": "*"}]}})
    };
    harness
        .apply::<ToolServer>("m365", &object("https://localhost:1/mcp"))
        .await;
    assert!(
        ready(&harness, "False", "Unreachable")
            .await
            .contains("ConfigMap m365-ca")
    );
    let ca = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m365-ca"}, "data": {"ca.crt": fake.ca}});
    harness.apply::<ConfigMap>("m365-ca", &ca).await;
    let api = harness.api::<ToolServer>();
    eventually("it cannot be reached", || async {
        let message = api
            .get("m365")
            .await
            .unwrap()
            .status?
            .conditions
            .into_iter()
            .next()?
            .message;
        message.contains("does not speak MCP").then_some(())
    })
    .await;
    harness
        .apply::<ToolServer>("m365", &object(&format!("{}/mcp", fake.url)))
        .await;
    ready(&harness, "False", "NoTools").await;
    harness.stop().await;
}
