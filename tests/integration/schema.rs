//! What the apiserver rejects, and with which message.

use crate::harness::Harness;
use halopsa_operator::api::{
    HaloPSAConnection, ImportedClient, ToolPolicy, ToolServer, VerificationProvider, Workflow,
};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

async fn refusal<K>(api: &Api<K>, object: &Value) -> String
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let params = PatchParams {
        dry_run: true,
        ..PatchParams::apply("test").force()
    };
    let name = object["metadata"]["name"].as_str().unwrap();
    match api.patch(name, &params, &Patch::Apply(object)).await {
        Err(kube::Error::Api(status)) => status.message,
        other => panic!("accepted: {object}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_refused_with_a_sentence_that_helps() {
    let harness = Harness::start("schema").await;
    connections(&harness).await;
    imported_clients(&harness).await;
    tool_policies(&harness).await;
    tool_servers(&harness).await;
    verification_providers(&harness).await;
    workflows(&harness).await;
    harness.stop().await;
}

/// The pointer to a field of a connection, a bad value for it, and what the refusal says.
fn bad_connections() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        (
            "/spec/instanceURL",
            json!("https://x.example/"),
            "must have no trailing slash",
        ),
        (
            "/spec/instanceURL",
            json!("http://x.example"),
            "must start with https://",
        ),
        (
            "/spec/instanceURL",
            json!("https://user@x.example"),
            "must be a plain URL",
        ),
        ("/spec/instanceURL", json!("https://"), "instanceURL"),
        (
            "/spec/webhook/url",
            json!("http://x.example"),
            "must start with https://",
        ),
        (
            "/spec/webhook/url",
            json!("https://x.example/"),
            "must have no trailing slash",
        ),
        ("/spec/credentialsSecretRef", json!({}), "name"),
        (
            "/spec/clients",
            json!({"all": true, "ids": [1]}),
            "imports every client",
        ),
        (
            "/spec/clients",
            json!({"ids": [0]}),
            "greater than or equal to 1",
        ),
        ("/spec/agent", json!({"mode": "Wild"}), "Unsupported value"),
        ("/spec/agent", json!({"idleTime": "-5m"}), "idleTime"),
        ("/spec/agent", json!({"maxReplicas": 0}), "maxReplicas"),
        (
            "/spec/agent",
            json!({"model": {"baseURL": "http://models.example/v1", "name": "m"}}),
            "must start with https://",
        ),
        (
            "/spec/agent",
            json!({"model": {"baseURL": "https://models.example/v1/", "name": "m"}}),
            "without a trailing slash",
        ),
        (
            "/spec/agent",
            json!({"model": {"baseURL": "https://models.example/v1", "name": "m", "limits": {"tokensPerTicket": 1}}}),
            "greater than or equal to 1000",
        ),
        ("/spec/approvals", json!({"validFor": "soon"}), "validFor"),
        ("/metadata/name", json!("n".repeat(64)), "at most 63"),
    ]
}

async fn connections(harness: &Harness) {
    let good = harness.connection(&[12]);
    let api = harness.api::<HaloPSAConnection>();
    for (path, value, sentence) in bad_connections() {
        let mut bad = good.clone();
        let (parent, field) = path.rsplit_once('/').unwrap();
        bad.pointer_mut(parent).unwrap()[field] = value.clone();
        let said = refusal(&api, &bad).await;
        assert!(said.contains(sentence), "{path} = {value}: {said}");
    }
}

async fn imported_clients(harness: &Harness) {
    let client = |name: &str, spec: Value| json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "ImportedClient", "metadata": {"name": name}, "spec": spec});
    let api = harness.api::<ImportedClient>();
    for (name, spec, sentence) in [
        (
            "a",
            json!({"connectionRef": {"name": "halo"}}),
            "set exactly one of haloClientId and haloClientName",
        ),
        (
            "a",
            json!({"connectionRef": {"name": "halo"}, "haloClientId": 1, "haloClientName": "x"}),
            "set exactly one of haloClientId and haloClientName",
        ),
        (
            "a",
            json!({"connectionRef": {"name": "halo"}, "haloClientId": 1, "slug": "Not A Slug"}),
            "slug",
        ),
        (
            "a.b",
            json!({"connectionRef": {"name": "halo"}, "haloClientId": 1}),
            "lowercase letters, digits and hyphens",
        ),
    ] {
        let said = refusal(&api, &client(name, spec.clone())).await;
        assert!(said.contains(sentence), "{spec}: {said}");
    }
    harness
        .apply::<ImportedClient>(
            "a",
            &client(
                "a",
                json!({"connectionRef": {"name": "halo"}, "haloClientId": 1}),
            ),
        )
        .await;
    let said = refusal(
        &api,
        &client(
            "a",
            json!({"connectionRef": {"name": "other"}, "haloClientId": 1}),
        ),
    )
    .await;
    assert!(said.contains("connectionRef is immutable"), "{said}");
}

async fn tool_policies(harness: &Harness) {
    let policy = |rules: Value| json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "ToolPolicy", "metadata": {"name": "p"}, "spec": {"connectionRef": {"name": "halo"}, "rules": rules}});
    let api = harness.api::<ToolPolicy>();
    for (rules, sentence) in [
        (json!([]), "at least 1"),
        (json!([{"tools": [], "effect": "Auto"}]), "at least 1"),
        (json!([{"tools": ["a b"], "effect": "Auto"}]), "tools"),
        (
            json!([{"tools": ["a"], "effect": "Maybe"}]),
            "Unsupported value",
        ),
        (
            json!([{"tools": ["a"], "effect": "Auto", "approvers": {"team": "x"}}]),
            "requires effect ApprovalNeeded",
        ),
        (
            json!([{"tools": ["a"], "effect": "ApprovalNeeded", "approvers": {}}]),
            "set agentIds, team or both",
        ),
        (
            json!([{"tools": ["a"], "effect": "ApprovalNeeded", "approvers": {"agentIds": [1]}}]),
            "greater than or equal to 2",
        ),
        (
            json!([{"tools": ["a"], "effect": "Auto", "when": "x".repeat(1025)}]),
            "1024",
        ),
    ] {
        let said = refusal(&api, &policy(rules.clone())).await;
        assert!(said.contains(sentence), "{rules}: {said}");
    }
    let mut both = policy(json!([{"tools": ["a"], "effect": "Auto"}]));
    both["spec"]["clients"] = json!(["x"]);
    both["spec"]["clientSelector"] = json!({"matchLabels": {"a": "b"}});
    assert!(refusal(&api, &both).await.contains("mutually exclusive"));
}

async fn tool_servers(harness: &Harness) {
    let server = |name: &str, url: &str, tools: Value| {
        json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "ToolServer", "metadata": {"name": name},
        "spec": {"connectionRef": {"name": "halo"}, "url": url, "tools": tools}})
    };
    let tools = || json!([{"name": "a"}]);
    let api = harness.api::<ToolServer>();
    for (object, sentence) in [
        (
            server("s", "http://tools.example/mcp", tools()),
            "must start with https://",
        ),
        (
            server("s", "https://user:pw@tools.example/mcp", tools()),
            "must be a plain URL",
        ),
        (
            server(
                "n".repeat(25).as_str(),
                "https://tools.example/mcp",
                tools(),
            ),
            "at most 24",
        ),
        (
            server("s", "https://tools.example/mcp", json!([])),
            "at least 1",
        ),
        (
            server("s", "https://tools.example/mcp", json!([{"name": "a b"}])),
            "name",
        ),
    ] {
        let said = refusal(&api, &object).await;
        assert!(said.contains(sentence), "{object}: {said}");
    }
    harness
        .apply::<ToolServer>("s", &server("s", "http://tools.apps.svc:8080/mcp", tools()))
        .await;
}

async fn verification_providers(harness: &Harness) {
    let provider = |spec: Value| json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "VerificationProvider", "metadata": {"name": "v"}, "spec": spec});
    let http = |url: &str| json!({"url": url, "signingSecretRef": {"name": "s", "key": "k"}});
    let api = harness.api::<VerificationProvider>();
    for (spec, sentence) in [
        (json!({}), "set exactly one of http and traceless"),
        (
            json!({"http": http("https://v.example"), "traceless": {"secretRef": {"name": "t"}, "endpoint": "https://t.example"}}),
            "set exactly one of http and traceless",
        ),
        (json!({"http": http("http://v.example")}), "plain https URL"),
        (
            json!({"http": http("https://v.example/")}),
            "without a trailing slash",
        ),
        (
            json!({"traceless": {"secretRef": {"name": "t"}, "endpoint": "http://t.example"}}),
            "must start with https://",
        ),
        (
            json!({"http": http("https://v.example"), "failurePolicy": "Shrug"}),
            "Unsupported value",
        ),
    ] {
        let said = refusal(&api, &provider(spec.clone())).await;
        assert!(said.contains(sentence), "{spec}: {said}");
    }
}

async fn workflows(harness: &Harness) {
    let workflow = |spec: Value| json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "Workflow", "metadata": {"name": "w"}, "spec": spec});
    let api = harness.api::<Workflow>();
    for (spec, sentence) in [
        (
            json!({"connectionRef": {"name": "halo"}, "trigger": "x", "instructions": "y"}),
            "at least 3",
        ),
        (
            json!({"connectionRef": {"name": "halo"}, "trigger": "printer", "instructions": "y", "state": "On"}),
            "Unsupported value",
        ),
    ] {
        let said = refusal(&api, &workflow(spec.clone())).await;
        assert!(said.contains(sentence), "{spec}: {said}");
    }
}
