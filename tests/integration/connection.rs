//! The reconcilers of connections and clients.

use crate::harness::{ACME, BLUE, Harness, eventually};
use halopsa_operator::api::{HaloPSAConnection, ImportedClient, ToolPolicy};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn connects_registers_imports_and_cleans_up() {
    let harness = Harness::start("connect").await;
    harness.ready(&[ACME, BLUE]).await;
    connected_with_a_webhook(&harness).await;
    agents_are_asleep(&harness).await;
    an_edit_and_a_deletion_are_undone(&harness).await;
    drift_in_halopsa_is_repaired(&harness).await;
    a_deleted_connection_removes_its_webhook(&harness).await;
    harness.stop().await;
}

async fn connected_with_a_webhook(harness: &Harness) {
    let connection = harness
        .api::<HaloPSAConnection>()
        .get("halo")
        .await
        .unwrap();
    let status = connection.status.unwrap();
    assert_eq!(status.api_agent.unwrap().name, "Rallied Agent");
    assert_eq!(status.imported_clients, Some(2));
    let webhook = {
        let store = harness.sim.shared.store();
        let id = store.webhooks.keys().next().unwrap().clone();
        store.read_webhook(&id).unwrap()
    };
    assert_eq!(
        webhook["name"],
        format!("Rallied ({}/halo)", harness.namespace)
    );
    assert_eq!(webhook["events"].as_array().unwrap().len(), 5);
    assert_eq!(
        (
            webhook["authentication_type"].as_i64(),
            webhook["content_type"].as_str()
        ),
        (Some(1), Some("application/json"))
    );
}

/// Each client has a Deployment for its agent, scaled to zero.
async fn agents_are_asleep(harness: &Harness) {
    let deployments = harness
        .api::<Deployment>()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    assert_eq!(
        deployments
            .iter()
            .map(ResourceExt::name_any)
            .collect::<Vec<_>>(),
        [
            "halopsa-agent-acme-dental-group",
            "halopsa-agent-blue-harbor-logistics"
        ]
    );
    assert!(
        deployments
            .iter()
            .all(|d| d.spec.as_ref().unwrap().replicas == Some(0))
    );
}

/// As with kubectl edit and kubectl delete.
async fn an_edit_and_a_deletion_are_undone(harness: &Harness) {
    let patch = json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}});
    harness
        .api::<Deployment>()
        .patch(
            "halopsa-agent-acme-dental-group",
            &PatchParams::default(),
            &Patch::Merge(patch),
        )
        .await
        .unwrap();
    harness
        .api::<ServiceAccount>()
        .delete("halopsa-agent-acme-dental-group", &DeleteParams::default())
        .await
        .unwrap();
    let (api, accounts) = (harness.api::<Deployment>(), harness.api::<ServiceAccount>());
    eventually("the Deployment is repaired", || async {
        let pod = api
            .get("halopsa-agent-acme-dental-group")
            .await
            .unwrap()
            .spec?
            .template
            .spec?;
        (pod.termination_grace_period_seconds == Some(30)).then_some(())
    })
    .await;
    eventually("the ServiceAccount is recreated", || async {
        accounts
            .get_opt("halopsa-agent-acme-dental-group")
            .await
            .unwrap()
    })
    .await;
}

/// Though nobody touched the resource.
async fn drift_in_halopsa_is_repaired(harness: &Harness) {
    harness
        .sim
        .shared
        .store()
        .webhooks
        .values_mut()
        .for_each(|w| {
            w.insert("active".into(), false.into());
            w.insert("url".into(), "https://elsewhere.example".into());
        });
    eventually("the webhook is repaired", || async {
        let store = harness.sim.shared.store();
        store
            .webhooks
            .values()
            .all(|w| {
                w["active"] == true && w["url"].as_str().unwrap().starts_with(&harness.webhooks)
            })
            .then_some(())
    })
    .await;
}

async fn a_deleted_connection_removes_its_webhook(harness: &Harness) {
    let api = harness.api::<HaloPSAConnection>();
    api.delete("halo", &DeleteParams::default()).await.unwrap();
    eventually("the connection is gone", || async {
        api.get_opt("halo").await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(
        harness.sim.shared.store().webhooks.is_empty(),
        "the webhook is removed from HaloPSA"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_trouble_is_a_condition_and_heals() {
    let harness = Harness::start("trouble").await;
    harness.credentials("wrong").await;
    harness.connect(&[ACME]).await;
    let said = harness
        .connection_is("CredentialsValid", "False", "InvalidCredentials")
        .await;
    assert!(
        said.contains("regenerated") && !said.contains("wrong"),
        "{said}"
    );
    harness.credentials(halosim::seed::CLIENT_SECRET).await;
    harness.connection_is("Ready", "True", "Connected").await;

    let scopes = |scopes: &[&str]| {
        let scopes = scopes.iter().map(|s| s.to_string()).collect();
        assert!(
            harness
                .sim
                .shared
                .auth
                .change(halosim::seed::CLIENT_ID, |a| a.scopes = scopes)
        );
        harness.sim.shared.auth.forget_tokens();
    };
    scopes(&["all:standard", "all:teams"]);
    let said = harness
        .connection_is("CredentialsValid", "False", "MissingScopes")
        .await;
    assert!(said.contains("not admin:webhooks"), "{said}");
    scopes(&["all", "all:standard", "all:teams", "admin:webhooks"]);
    harness.connection_is("Ready", "True", "Connected").await;
    // A warning. It shows with the next change: the scopes are checked only now and then.
    harness.credentials("wrong").await;
    harness
        .connection_is("CredentialsValid", "False", "InvalidCredentials")
        .await;
    harness.credentials(halosim::seed::CLIENT_SECRET).await;
    let said = harness
        .connection_is("CredentialsValid", "True", "ExcessiveScopes")
        .await;
    assert!(said.contains("also has all,"), "{said}");
    harness.connection_is("Ready", "True", "Connected").await;

    harness.sim.shared.engine().faults.down = true;
    let said = harness
        .connection_is("CredentialsValid", "Unknown", "HaloPSAUnavailable")
        .await;
    assert!(said.contains("503"), "{said}");
    harness.sim.shared.engine().faults.down = false;
    harness.connection_is("Ready", "True", "Connected").await;

    harness
        .api::<Secret>()
        .delete("credentials", &DeleteParams::default())
        .await
        .unwrap();
    let said = harness
        .connection_is("CredentialsValid", "False", "SecretInvalid")
        .await;
    assert!(said.contains("Secret credentials does not exist"), "{said}");
    harness.credentials(halosim::seed::CLIENT_SECRET).await;
    harness.connection_is("Ready", "True", "Connected").await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deselected_clients_are_drained_first() {
    let harness = Harness::start("drain").await;
    harness.ready(&[ACME, BLUE]).await;
    let id = harness.open_ticket(ACME, "Printer offline");
    // No agent runs, so the ticket stays open.
    harness
        .ticket_in(&format!("acme-dental-group-{id}"), "Ready")
        .await;
    harness.connect(&[]).await;
    let api = harness.api::<ImportedClient>();
    eventually("the idle client is removed", || async {
        api.get_opt("blue-harbor-logistics")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    let acme = eventually("the busy one is drained", || async {
        api.get_opt("acme-dental-group")
            .await
            .unwrap()
            .filter(|c| c.spec.suspend)
    })
    .await;
    assert_eq!(acme.metadata.deletion_timestamp, None);
    // Once its ticket has ended, it is removed.
    let (_, changes) = {
        let mut store = harness.sim.shared.store();
        store.delete_ticket(id).unwrap()
    };
    harness.sim.shared.publish(changes);
    eventually("the drained client is removed", || async {
        api.get_opt("acme-dental-group")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn applying_twice_changes_nothing_and_rest_writes_nothing() {
    let harness = Harness::start("quiet").await;
    harness.ready(&[ACME]).await;
    let versions = || async {
        let connection = harness
            .api::<HaloPSAConnection>()
            .get("halo")
            .await
            .unwrap();
        let client = harness
            .api::<ImportedClient>()
            .get("acme-dental-group")
            .await
            .unwrap();
        let deployment = harness
            .api::<Deployment>()
            .get("halopsa-agent-acme-dental-group")
            .await
            .unwrap();
        [
            connection.meta().resource_version.clone(),
            client.meta().resource_version.clone(),
            deployment.meta().resource_version.clone(),
        ]
    };
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let before = versions().await;
    harness.connect(&[ACME]).await;
    // Several resyncs.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    assert_eq!(before, versions().await);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_say_whether_they_are_in_force() {
    let harness = Harness::start("policy").await;
    let policy = json!({"apiVersion": "rallied.ai/v1alpha1", "kind": "ToolPolicy", "metadata": {"name": "p"},
        "spec": {"connectionRef": {"name": "halo"}, "rules": [{"tools": ["*"], "effect": "Auto"}]}});
    harness.apply::<ToolPolicy>("p", &policy).await;
    let api = harness.api::<ToolPolicy>();
    let accepted = |reason: &'static str| {
        let api = api.clone();
        async move {
            eventually(reason, || async {
                let found = api
                    .get("p")
                    .await
                    .unwrap()
                    .status?
                    .conditions
                    .into_iter()
                    .find(|c| c.type_ == "Accepted")?;
                (found.reason == reason).then_some(())
            })
            .await
        }
    };
    accepted("ConnectionNotFound").await;
    harness.ready(&[ACME]).await;
    accepted("Accepted").await;
    harness.stop().await;
}
