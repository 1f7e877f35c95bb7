//! The client's reconciler: resolves the HaloPSA client, runs its agent.
//!
//! - [`scale`]: how many agents there should be (pure)
//! - [`workload`]: the agent's objects (pure)

pub mod scale;
pub mod workload;

use crate::api::client::ImportedClientStatus;
use crate::api::condition::{self, ConditionUpdate};
use crate::api::reason::Reason;
use crate::api::{AgentPhase, HaloPSAConnection, ImportedClient};
use crate::controller::context::{Context, jitter};
use crate::controller::{address, certificates, connection};
use crate::halopsa::types::HaloClient;
use crate::k8s::cache::Remembered;
use crate::k8s::index::Load;
use crate::k8s::key::Key;
use crate::k8s::{self, names, own, reflect};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use workload::Agent;

const KIND: &str = "ImportedClient";
/// The agent's objects are compared with the cluster again after this time.
const RESYNC: Duration = Duration::from_secs(3600);
/// When a name that is taken is tried again.
const TAKEN_AGAIN: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", k8s::explain(.0))]
    Kube(#[from] kube::Error),
}

/// The clients of a connection, when its generation or readiness changed.
pub fn of_connection(
    context: Arc<Context>,
) -> impl Fn(Arc<HaloPSAConnection>) -> Vec<ObjectRef<ImportedClient>> {
    let seen: Remembered<Key, Seen> = Remembered::default();
    move |connection| {
        let key = Key::of(&*connection);
        let status = connection.status.as_ref();
        let now = Seen {
            generation: connection.metadata.generation,
            ready: status
                .and_then(|s| condition::get(&s.conditions, condition::READY))
                .map(|c| c.reason.clone()),
        };
        if !seen.changed(key.clone(), now) {
            return Vec::new();
        }
        let of_it = |c: &ImportedClient| {
            c.namespace().as_deref() == Some(&key.namespace)
                && c.spec.connection_ref.name == key.name
        };
        let clients = context.stores.clients.state_filter(of_it);
        clients.iter().map(|c| ObjectRef::from_obj(&**c)).collect()
    }
}

/// What about a connection matters to its clients.
#[derive(PartialEq)]
struct Seen {
    generation: Option<i64>,
    ready: Option<String>,
}

/// What a pass found and did.
struct Outcome {
    found: ConditionUpdate,
    available: ConditionUpdate,
    phase: AgentPhase,
    requeue: Duration,
}

pub async fn reconcile(client: Arc<ImportedClient>, ctx: Arc<Context>) -> Result<Action, Error> {
    ctx.stores.filled().await;
    let key = Key::of(&*client);
    if client.metadata.deletion_timestamp.is_some() {
        // The agent's objects are owned by the client and are deleted with it.
        let agent = Key::new(&key.namespace, names::agent(&key.name));
        ctx.applied.forget(&agent);
        return Ok(Action::await_change());
    }
    let load = ctx.index.load(&key.namespace, &key.name);
    let mut status = client.status.clone().unwrap_or_default();
    status.open_tickets = Some(load.open() as i64);
    status.observed_generation = client.metadata.generation;
    let reference = &client.spec.connection_ref.name;
    let connection = reflect::get(&ctx.stores.connections, &key.namespace, reference);
    let outcome = match (find(&client, connection.as_deref(), &ctx), &connection) {
        (Ok(halo), Some(connection)) => {
            status.halo_client_id = Some(halo.id);
            status.halo_client_name = Some(halo.name.clone());
            status.mode = Some(client.spec.mode.unwrap_or(connection.spec.agent.mode));
            keep_agent(&client, connection, &halo, &load, &mut status, &ctx).await?
        }
        (Ok(_), None) => return Ok(Action::requeue(Duration::from_secs(5))),
        (Err(found), _) => Outcome {
            phase: match found.status {
                condition::Status::Unknown => AgentPhase::Pending,
                _ => AgentPhase::Error,
            },
            found,
            available: ConditionUpdate::unknown(Reason::Pending, "waiting for ClientFound"),
            requeue: RESYNC,
        },
    };
    report(&client, status, &outcome, &ctx).await?;
    ctx.backoff.reset(KIND, &key);
    Ok(Action::requeue(if outcome.requeue == RESYNC {
        jitter(RESYNC)
    } else {
        outcome.requeue
    }))
}

/// Writes the status if it changed, and an Event per condition that did.
async fn report(
    client: &ImportedClient,
    mut status: ImportedClientStatus,
    outcome: &Outcome,
    ctx: &Context,
) -> Result<(), Error> {
    let parts = [&outcome.found, &outcome.available];
    let ready = match parts.into_iter().find(|part| !part.is_true()) {
        None if client.spec.suspend => ConditionUpdate::yes(
            Reason::Suspended,
            "takes no new tickets: spec.suspend is true",
        ),
        None => ConditionUpdate::yes(Reason::Ready, outcome.available.message.clone()),
        Some(bad) if bad.status == condition::Status::Unknown => {
            ConditionUpdate::unknown(bad.reason, bad.message.clone())
        }
        Some(bad) => ConditionUpdate::no(bad.reason, bad.message.clone()),
    };
    let (generation, now) = (client.metadata.generation, Timestamp::now());
    for (type_, update) in [
        (condition::CLIENT_FOUND, &outcome.found),
        (condition::AGENT_AVAILABLE, &outcome.available),
        (condition::READY, &ready),
    ] {
        condition::set(&mut status.conditions, type_, update, generation, now);
    }
    status.agent = Some(outcome.phase);
    let namespace = client.namespace().unwrap_or_default();
    let api: Api<ImportedClient> = Api::namespaced(ctx.kube.clone(), &namespace);
    // The gateway's own; applied from here it would be set back.
    status.model_usage = None;
    let before = client.status.clone().map(|status| ImportedClientStatus {
        model_usage: None,
        ..status
    });
    let before = before.as_ref();
    if k8s::apply_status(&api, client, before, &status, names::CONTROLLER).await? {
        let conditions = before.map(|s| s.conditions.as_slice()).unwrap_or_default();
        ctx.emit_transitions(&client.object_ref(&()), conditions, &status.conditions)
            .await;
    }
    Ok(())
}

/// The HaloPSA client that the spec names, or why there is none.
fn find(
    client: &ImportedClient,
    connection: Option<&HaloPSAConnection>,
    ctx: &Context,
) -> Result<HaloClient, ConditionUpdate> {
    let namespace = client.namespace().unwrap_or_default();
    let reference = &client.spec.connection_ref.name;
    let Some(connection) = connection else {
        return Err(ConditionUpdate::no(
            Reason::ConnectionNotFound,
            format!(
                "HaloPSAConnection {reference} does not exist in namespace {namespace}; create it, \
                 or correct spec.connectionRef"
            ),
        ));
    };
    let Some(listing) = ctx.directory.get(&Key::of(connection)) else {
        return Err(ConditionUpdate::unknown(
            Reason::ConnectionNotReady,
            format!(
                "HaloPSAConnection {reference} has not listed its clients yet; see kubectl \
                 describe halo {reference}"
            ),
        ));
    };
    let found = connection::resolve(
        &listing,
        client.spec.halo_client_id,
        client.spec.halo_client_name.as_deref(),
    )
    .map_err(|unresolved| ConditionUpdate::no(Reason::ClientNotFound, unresolved.to_string()))?;
    if found.inactive {
        return Err(ConditionUpdate::no(
            Reason::ClientInactive,
            format!(
                "HaloPSA client {} \"{}\" is inactive; reactivate it in HaloPSA or delete this \
                 ImportedClient",
                found.id, found.name
            ),
        ));
    }
    match older_twin(client, found.id, ctx) {
        None => Ok(found.clone()),
        Some(older) => Err(ConditionUpdate::no(
            Reason::Duplicate,
            format!(
                "ImportedClient {} already exists for HaloPSA client {} and is older; delete one \
                 of the two",
                older.name_any(),
                found.id
            ),
        )),
    }
}

/// An older ImportedClient of the same HaloPSA client.
fn older_twin(client: &ImportedClient, halo_id: i64, ctx: &Context) -> Option<Arc<ImportedClient>> {
    let same = |other: &ImportedClient| {
        let resolved = other.status.as_ref().and_then(|s| s.halo_client_id);
        other.namespace() == client.namespace()
            && other.spec.connection_ref == client.spec.connection_ref
            && other.name_any() != client.name_any()
            && other.spec.halo_client_id.or(resolved) == Some(halo_id)
    };
    let age = |c: &ImportedClient| {
        let created = c.metadata.creation_timestamp.as_ref().map(|t| t.0);
        (created, c.name_any())
    };
    let twins = ctx.stores.clients.state_filter(same);
    twins.into_iter().find(|other| age(other) < age(client))
}

/// Scales the agent, and applies its objects.
async fn keep_agent(
    client: &ImportedClient,
    connection: &HaloPSAConnection,
    halo: &HaloClient,
    load: &Load,
    status: &mut ImportedClientStatus,
    ctx: &Context,
) -> Result<Outcome, Error> {
    let namespace = client.namespace().unwrap_or_default();
    let name = names::agent(&client.name_any());
    let deployment = reflect::get(&ctx.deployments, &namespace, &name);
    let deployment = deployment.as_deref();
    let current = deployment.and_then(|d| d.spec.as_ref()?.replicas);
    let idle = workload::setting(client, connection, |s| s.idle_time)
        .map_or(workload::DEFAULT_IDLE, Duration::from);
    let max = workload::setting(client, connection, |s| s.max_replicas)
        .unwrap_or(workload::DEFAULT_MAX_REPLICAS);
    let now = Timestamp::now();
    let scale = scale::wanted(load, current.unwrap_or_default(), max, idle, now);
    status.replicas = Some(scale.replicas);
    let mut requeue = scale.recheck_at.map_or(RESYNC, |at| {
        // A moment later, so that the time has certainly come.
        Duration::try_from(at.duration_since(now)).unwrap_or_default() + Duration::from_millis(500)
    });
    let applied = apply_agent(client, connection, deployment, scale.replicas, ctx).await;
    let (available, phase) = match applied {
        Ok(()) => agent_condition(deployment, scale.replicas),
        Err(taken @ own::Error::NameTaken { .. }) => {
            // Nothing tells when another's object is gone.
            requeue = requeue.min(TAKEN_AGAIN);
            let update = ConditionUpdate::no(Reason::NameTaken, taken.to_string());
            (update, AgentPhase::Error)
        }
        // An object the apiserver refuses is the user's to fix; anything else is retried.
        Err(own::Error::Kube(kube::Error::Api(refusal)))
            if (400..500).contains(&refusal.code) && !matches!(refusal.code, 404 | 409 | 429) =>
        {
            let message = format!(
                "the apiserver rejected the agent's objects: {}; check spec.agent",
                refusal.message
            );
            let update = ConditionUpdate::no(Reason::AgentRefused, message);
            (update, AgentPhase::Error)
        }
        Err(own::Error::Kube(error)) => return Err(error.into()),
    };
    let found = format!("HaloPSA client {} \"{}\"", halo.id, halo.name);
    Ok(Outcome {
        found: ConditionUpdate::yes(Reason::Found, found),
        available,
        phase,
        requeue,
    })
}

/// Applies those of the agent's objects that differ.
async fn apply_agent(
    client: &ImportedClient,
    connection: &HaloPSAConnection,
    deployment: Option<&Deployment>,
    replicas: i32,
    ctx: &Context,
) -> Result<(), own::Error> {
    let namespace = client.namespace().unwrap_or_default();
    let key = Key::new(&namespace, names::agent(&client.name_any()));
    let image = workload::setting(client, connection, |s| s.image.as_deref())
        .unwrap_or(&ctx.options.agent_image);
    let options = &ctx.options;
    let (url, gateway_namespace) = (&options.gateway_url, &options.own_namespace);
    let service = names::gateway_service(&options.service);
    let addresses = match address::is_service(url, &service, gateway_namespace) {
        true => ctx.published.addresses.get().unwrap_or_default(),
        false => Vec::new(),
    };
    let agent = Agent {
        connection,
        client,
        image,
        gateway_url: url,
        gateway_namespace,
        gateway_addresses: &addresses,
        replicas,
    };
    certificates::publish_ca(ctx, &namespace).await?;
    apply_metadata::<ServiceAccount>(ctx, &key, "ServiceAccount", &agent.service_account()).await?;
    apply_metadata::<NetworkPolicy>(ctx, &key, "NetworkPolicy", &agent.network_policy()).await?;
    let wanted = agent.deployment();
    let observed = deployment.map(workload::version_of_deployment);
    let kind = "Deployment";
    if !ctx
        .applied
        .is_current(&key, kind, &wanted, observed.as_deref())
    {
        let api: Api<Deployment> = Api::namespaced(ctx.kube.clone(), &namespace);
        let observed = deployment.map(|d| &d.metadata);
        let stored = own::apply(&api, &key.name, observed, &wanted).await?;
        let version = workload::version_of_deployment(&stored);
        ctx.applied.remember(&key, kind, &wanted, version);
    }
    Ok(())
}

async fn apply_metadata<K>(
    ctx: &Context,
    key: &Key,
    kind: &'static str,
    wanted: &Value,
) -> Result<(), own::Error>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + serde::Serialize
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(ctx.kube.clone(), &key.namespace);
    let observed: Option<PartialObjectMeta<K>> = api.get_metadata_opt(&key.name).await?;
    let version = observed.as_ref().map(workload::version_of_metadata);
    if ctx
        .applied
        .is_current(key, kind, wanted, version.as_deref())
    {
        return Ok(());
    }
    let observed = observed.as_ref().map(|o| &o.metadata);
    let stored = own::apply(&api, &key.name, observed, wanted).await?;
    let version = stored.meta().resource_version.clone().unwrap_or_default();
    ctx.applied.remember(key, kind, wanted, version);
    Ok(())
}

/// The agent's condition, from its Deployment.
fn agent_condition(
    deployment: Option<&Deployment>,
    replicas: i32,
) -> (ConditionUpdate, AgentPhase) {
    let status = deployment.and_then(|d| d.status.as_ref());
    let available = status
        .and_then(|s| s.available_replicas)
        .unwrap_or_default();
    if replicas == 0 {
        return (
            ConditionUpdate::yes(
                Reason::Idle,
                "no ticket is waiting; the agent starts with the next one",
            ),
            AgentPhase::Idle,
        );
    }
    if available > 0 {
        return (
            ConditionUpdate::yes(
                Reason::Running,
                format!("{available} of {replicas} agents are running"),
            ),
            AgentPhase::Active,
        );
    }
    let stuck = status
        .and_then(|s| s.conditions.as_ref())
        .and_then(|conditions| {
            conditions.iter().find(|c| {
                (c.type_ == "Progressing" && c.status == "False")
                    || (c.type_ == "ReplicaFailure" && c.status == "True")
            })
        });
    match stuck {
        Some(condition) => (
            ConditionUpdate::no(
                Reason::AgentFailed,
                format!(
                    "the agent does not start: {}; see kubectl describe pods -l {}",
                    condition.message.as_deref().unwrap_or("no reason given"),
                    crate::api::CLIENT_LABEL
                ),
            ),
            AgentPhase::Error,
        ),
        None => (
            ConditionUpdate::unknown(Reason::Provisioning, "the agent is starting"),
            AgentPhase::Provisioning,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_an_agent() {
        let deployment = |status: serde_json::Value| -> Deployment {
            serde_json::from_value(serde_json::json!({
                "metadata": {}, "spec": {"selector": {}, "template": {}}, "status": status,
            }))
            .unwrap()
        };
        let failing = serde_json::json!({"conditions": [{
            "type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods",
        }]});
        let said = [
            agent_condition(None, 0),
            agent_condition(Some(&deployment(serde_json::json!({}))), 1),
            agent_condition(
                Some(&deployment(serde_json::json!({"availableReplicas": 2}))),
                3,
            ),
            agent_condition(Some(&deployment(failing)), 1),
        ]
        .map(|(update, phase)| format!("{phase:?}: {update}"));
        condition::snapshot("agent", &said);
    }
}
