//! Whatever the CRDs admit, at its edges, in every kind: nobody else's ticket waits for it.

use crate::harness::{ACME, Harness, eventually};
use halopsa_operator::api::{
    HaloPSAConnection, ImportedClient, Ticket, ToolPolicy, ToolServer, VerificationProvider,
    Workflow,
};
use halopsa_operator::k8s::guard::Guarded;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

/// The longest duration that is admitted, and the shortest.
const LONGEST: &str = "999999999999999h";
const SHORTEST: &str = "0s";
/// Nobody listens there.
const NOWHERE: &str = "https://localhost:1";

/// An object of a kind.
struct Extreme {
    resource: ApiResource,
    object: Value,
}

fn extreme<K: kube::Resource<DynamicType = ()>>(name: &str, spec: Value) -> Extreme {
    let object = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "metadata": {"name": name}, "spec": spec,
    });
    let resource = ApiResource::erase::<K>(&());
    Extreme { resource, object }
}

fn many(count: usize, length: usize) -> Vec<String> {
    (0..count).map(|n| format!("{n:0>length$}")).collect()
}

fn text(length: usize) -> String {
    "é".repeat(length)
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!({"a": 1}), |inner, _| json!({"a": inner}))
}

fn model(time: &str, tokens: i64, steps: u32) -> Value {
    json!({
        "baseURL": NOWHERE, "name": text(200),
        "limits": {"tokensPerTicket": tokens, "tokensPerDay": tokens, "stepsPerTurn": steps,
                   "timeout": time},
    })
}

fn connection(time: &str, highest: bool) -> Value {
    let pick = |low: i64, high: i64| if highest { high } else { low };
    let mut spec = json!({
        "instanceURL": NOWHERE,
        "credentialsSecretRef": {"name": "credentials"},
        "webhook": {"url": NOWHERE},
        "agent": {"idleTime": time, "maxReplicas": pick(1, 20),
                  "model": model(time, pick(1000, 100_000_000), pick(1, 200) as u32)},
        "approvals": {"validFor": time, "remindAfter": time, "poll": time},
        "notes": {"fallbackOutcomeId": pick(i64::MIN, i64::MAX)},
        "rateLimit": {"requests": pick(10, 1_000_000), "window": time},
        "retention": {"finished": time, "maxFinished": pick(0, 100_000)},
    });
    if highest {
        let rule = json!({"name": text(63), "keywords": many(100, 100)});
        spec["prompt"] = text(16384).into();
        spec["tenant"] = text(100).into();
        spec["clients"] = json!({
            "ids": (1..=10_000).collect::<Vec<i64>>(), "names": many(1000, 255),
            "patterns": vec!["*a*a*a*a*a*a*a*a*b"; 100], "exclude": many(500, 255),
        });
        spec["sensitivity"] = json!({
            "rules": vec![rule; 20], "exemptTicketTypes": many(100, 100),
            "providerRef": {"name": "n".repeat(253)},
        });
        spec["approvals"]["applications"] = many(20, 100).into();
    }
    spec
}

fn policy() -> Value {
    let when = format!("{}true{}", "(".repeat(510), ")".repeat(510));
    let rule = json!({
        "tools": many(100, 128), "effect": "ApprovalNeeded", "when": when,
        "approvers": {"agentIds": vec![i64::MAX; 50], "team": text(100)},
    });
    json!({
        "connectionRef": {"name": "halo"}, "rules": vec![rule; 40],
        "clientSelector": {"matchExpressions": [
            {"key": "a", "operator": "Nonsense", "values": many(100, 63)},
        ]},
    })
}

fn provider(time: &str) -> Value {
    json!({
        "http": {"url": NOWHERE, "signingSecretRef": {"name": "n".repeat(253), "key": text(253)}},
        "timeout": time, "poll": time, "validFor": time,
    })
}

fn workflow(depth: usize) -> Value {
    let step = json!({"tool": text(128), "arguments": nested(depth), "why": text(300)});
    json!({
        "connectionRef": {"name": "halo"}, "trigger": text(300), "instructions": text(8192),
        "clients": many(1000, 253), "state": "Active", "steps": vec![step; 10],
    })
}

fn client(name: &str, id: i64, time: &str) -> Value {
    json!({
        "connectionRef": {"name": name}, "haloClientId": id, "slug": "s".repeat(45),
        "prompt": text(16384),
        "agent": {"idleTime": time, "maxReplicas": 20, "image": text(500),
                  "resources": {"limits": {"cpu": text(1000)}, "requests": {"x": ""}},
                  "model": model(time, 1000, 1)},
    })
}

fn ticket(id: i64, halo_client: i64) -> Value {
    json!({
        "connectionRef": {"name": "halo"}, "clientRef": {"name": "n".repeat(253)},
        "ticketId": id, "haloClientId": halo_client, "subject": text(256),
    })
}

fn extremes() -> Vec<Extreme> {
    let tools: Vec<Value> = many(200, 128)
        .into_iter()
        .map(|name| json!({"name": name, "access": "Read"}))
        .collect();
    let server = json!({"connectionRef": {"name": "halo"}, "url": NOWHERE, "tools": tools});
    vec![
        extreme::<HaloPSAConnection>("lowest", connection(SHORTEST, false)),
        extreme::<HaloPSAConnection>("highest", connection(LONGEST, true)),
        extreme::<ImportedClient>("lowest", client("halo", 1, SHORTEST)),
        extreme::<ImportedClient>("highest", client("halo", 2_147_483_647, LONGEST)),
        extreme::<ImportedClient>("nowhere", client("none", 1, LONGEST)),
        extreme::<ToolPolicy>("highest", policy()),
        extreme::<ToolServer>("highest", server),
        extreme::<VerificationProvider>("lowest", provider(SHORTEST)),
        extreme::<VerificationProvider>("highest", provider(LONGEST)),
        extreme::<Workflow>("readable", workflow(20)),
        extreme::<Workflow>("deep", workflow(500)),
        extreme::<Ticket>("lowest", ticket(1, i64::MIN)),
        extreme::<Ticket>("highest", ticket(2_147_483_647, i64::MAX)),
    ]
}

async fn apply(harness: &Harness, extreme: &Extreme) {
    let api: Api<Guarded<DynamicObject>> =
        Api::namespaced_with(harness.kube.clone(), &harness.namespace, &extreme.resource);
    let name = extreme.object["metadata"]["name"].as_str().unwrap();
    let applied = api
        .patch(
            name,
            &PatchParams::apply("test").force(),
            &Patch::Apply(&extreme.object),
        )
        .await;
    if let Err(error) = applied {
        panic!("{} {name}: {error}", extreme.resource.kind);
    }
}

/// Somebody else's ticket, from HaloPSA to Done.
async fn one_ticket(harness: &Harness) {
    let id = harness.open_ticket(ACME, "Printer is offline");
    harness
        .ticket_in(&format!("acme-dental-group-{id}"), "Done")
        .await;
}

/// The condition `Accepted` of the Workflow that is nested too deeply.
async fn accepted(harness: &Harness) -> Option<(String, String)> {
    let api: Api<Guarded<Workflow>> = harness.api();
    let unreadable = api.get("deep").await.unwrap().0.unwrap_err();
    let accepted = unreadable.conditions.first()?;
    Some((accepted.reason.clone(), accepted.message.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_schema_admits_stops_nobody_else() {
    let mut harness = Harness::start("extreme").await;
    harness.ready(&[ACME]).await;
    harness.run_agent("acme-dental-group").await;
    for extreme in extremes() {
        apply(&harness, &extreme).await;
    }
    one_ticket(&harness).await;
    // Every list is read anew.
    harness.restart().await;
    one_ticket(&harness).await;

    let (reason, message) = eventually("the condition of what cannot be read", || async {
        accepted(&harness).await
    })
    .await;
    assert_eq!(reason, "Unreadable");
    assert!(
        message.starts_with("spec.steps[0].arguments") && message.contains("nested too deeply"),
        "{message}"
    );
    let events = harness.api::<Event>();
    let event = eventually("its Event", || async {
        let all = events.list(&Default::default()).await.unwrap();
        all.into_iter()
            .find(|e| e.reason.as_deref() == Some("Unreadable"))
    })
    .await;
    assert_eq!(event.regarding.unwrap().name.as_deref(), Some("deep"));
    assert_eq!(event.type_.as_deref(), Some("Warning"));

    // Nothing is written while nothing changes, also not by a process that knows nothing of it.
    let api: Api<Guarded<Workflow>> = harness.api();
    let version = |w: Guarded<Workflow>| w.0.unwrap_err().metadata.resource_version;
    let before = version(api.get("deep").await.unwrap());
    harness.restart().await;
    one_ticket(&harness).await;
    assert_eq!(before, version(api.get("deep").await.unwrap()));

    // Corrected, it is used again.
    apply(&harness, &extreme::<Workflow>("deep", workflow(2))).await;
    eventually("the corrected Workflow", || async {
        let status = api.get("deep").await.unwrap().0.ok()?.status?;
        let accepted = status.conditions.iter().find(|c| c.type_ == "Accepted")?;
        (accepted.reason != "Unreadable").then_some(())
    })
    .await;
    harness.stop().await;
}
