//! The client's reconciler: resolves the HaloPSA client, keeps its agent.

pub mod scale;
pub mod workload;

use crate::api::condition::{self, ConditionUpdate};
use crate::api::reason::Reason;
use crate::api::{AgentPhase, HaloPSAConnection, ImportedClient};
use crate::controller::connection::import;
use crate::controller::context::{Context, jitter};
use crate::k8s::key::Key;
use crate::k8s::{self, names, reflect};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use workload::Agent;

/// The agent's objects are compared with the cluster again after this time.
const RESYNC: Duration = Duration::from_secs(3600);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", k8s::explain(.0))]
    Kube(#[from] kube::Error),
}

/// The clients of a connection, when something about it changed that matters to them.
pub fn of_connection(
    context: Arc<Context>,
) -> impl Fn(Arc<HaloPSAConnection>) -> Vec<ObjectRef<ImportedClient>> {
    let seen: Mutex<HashMap<(String, String), (Option<i64>, Option<String>)>> = Mutex::default();
    move |connection| {
        let key = (
            connection.namespace().unwrap_or_default(),
            connection.name_any(),
        );
        let ready = connection
            .status
            .as_ref()
            .and_then(|s| condition::get(&s.conditions, condition::READY))
            .map(|c| c.reason.clone());
        let now = (connection.metadata.generation, ready);
        let mut seen = seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if seen.insert(key.clone(), now.clone()) == Some(now) {
            return Vec::new();
        }
        let of_it = |c: &ImportedClient| {
            c.namespace().as_deref() == Some(&key.0) && c.spec.connection_ref.name == key.1
        };
        context
            .stores
            .clients
            .state_filter(of_it)
            .iter()
            .map(|c| ObjectRef::from_obj(&**c))
            .collect()
    }
}

pub async fn reconcile(client: Arc<ImportedClient>, ctx: Arc<Context>) -> Result<Action, Error> {
    ctx.stores.filled().await;
    let (namespace, name) = (client.namespace().unwrap_or_default(), client.name_any());
    if client.metadata.deletion_timestamp.is_some() {
        // What the agent is made of is owned by the client and goes with it.
        ctx.applied.forget(&namespace, &names::agent(&name));
        return Ok(Action::await_change());
    }
    let api: Api<ImportedClient> = Api::namespaced(ctx.kube.clone(), &namespace);
    let before = client.status.clone().unwrap_or_default();
    let mut status = before.clone();
    let load = ctx.index.load(&namespace, &name);
    status.open_tickets = Some(load.open() as i64);
    status.observed_generation = client.metadata.generation;

    let connection = reflect::get(
        &ctx.stores.connections,
        &namespace,
        &client.spec.connection_ref.name,
    );
    let found = find(&client, connection.as_deref(), &ctx);
    let mut next_look = RESYNC;
    let (found, available, phase) = match (found, &connection) {
        (Ok(halo), Some(connection)) => {
            status.halo_client_id = Some(halo.id);
            status.halo_client_name = Some(halo.name.clone());
            status.mode = Some(client.spec.mode.unwrap_or(connection.spec.agent.mode));
            let deployment = reflect::get(&ctx.deployments, &namespace, &names::agent(&name));
            let current = deployment
                .as_ref()
                .and_then(|d| d.spec.as_ref()?.replicas)
                .unwrap_or_default();
            let idle = workload::setting(&client, connection, |s| s.idle_time)
                .map_or(workload::DEFAULT_IDLE, Duration::from);
            let max = workload::setting(&client, connection, |s| s.max_replicas)
                .unwrap_or(workload::DEFAULT_MAX_REPLICAS);
            let now = Timestamp::now();
            let scale = scale::wanted(&load, current, max, idle, now);
            if let Some(at) = scale.look_again_at {
                // A moment later, so that the time has certainly come.
                next_look = Duration::try_from(at.duration_since(now)).unwrap_or_default()
                    + Duration::from_millis(500);
            }
            status.replicas = Some(scale.replicas);
            match keep_agent(
                &client,
                connection,
                deployment.as_deref(),
                scale.replicas,
                &ctx,
            )
            .await
            {
                Ok(()) => {
                    let (available, phase) = agent_verdict(deployment.as_deref(), scale.replicas);
                    (
                        ConditionUpdate::yes(
                            Reason::Found,
                            format!("HaloPSA client {} \"{}\"", halo.id, halo.name),
                        ),
                        available,
                        phase,
                    )
                }
                // An object the apiserver refuses is the user's to mend; anything else is tried again.
                Err(kube::Error::Api(refusal))
                    if (400..500).contains(&refusal.code)
                        && !matches!(refusal.code, 404 | 409 | 429) =>
                {
                    (
                        ConditionUpdate::yes(
                            Reason::Found,
                            format!("HaloPSA client {} \"{}\"", halo.id, halo.name),
                        ),
                        ConditionUpdate::no(
                            Reason::AgentRefused,
                            format!(
                                "the apiserver does not take the agent's objects: {}; check spec.agent",
                                refusal.message
                            ),
                        ),
                        AgentPhase::Error,
                    )
                }
                Err(error) => return Err(error.into()),
            }
        }
        (Ok(_), None) => return Ok(Action::requeue(Duration::from_secs(5))),
        (Err(verdict), _) => {
            let phase = if verdict.status == condition::Status::Unknown {
                AgentPhase::Pending
            } else {
                AgentPhase::Error
            };
            (
                verdict,
                ConditionUpdate::unknown(Reason::Pending, "waits for ClientFound"),
                phase,
            )
        }
    };
    status.agent = Some(phase);
    let now = Timestamp::now();
    let generation = client.metadata.generation;
    condition::set(
        &mut status.conditions,
        condition::CLIENT_FOUND,
        &found,
        generation,
        now,
    );
    condition::set(
        &mut status.conditions,
        condition::AGENT_AVAILABLE,
        &available,
        generation,
        now,
    );
    let ready = match [&found, &available].into_iter().find(|v| !v.is_true()) {
        None if client.spec.suspend => ConditionUpdate::yes(
            Reason::Suspended,
            "takes no new tickets: spec.suspend is true",
        ),
        None => ConditionUpdate::yes(Reason::Ready, available.message.clone()),
        Some(bad) if bad.status == condition::Status::Unknown => {
            ConditionUpdate::unknown(bad.reason, bad.message.clone())
        }
        Some(bad) => ConditionUpdate::no(bad.reason, bad.message.clone()),
    };
    condition::set(
        &mut status.conditions,
        condition::READY,
        &ready,
        generation,
        now,
    );
    if k8s::apply_status(
        &api,
        &*client,
        client.status.as_ref(),
        &status,
        names::CONTROLLER,
    )
    .await?
    {
        ctx.emit_transitions(
            &client.object_ref(&()),
            &before.conditions,
            &status.conditions,
        )
        .await;
    }
    ctx.backoff
        .reset("ImportedClient", &Key::new(namespace, name));
    Ok(Action::requeue(if next_look == RESYNC {
        jitter(RESYNC)
    } else {
        next_look
    }))
}

pub fn error_policy(client: Arc<ImportedClient>, error: &Error, ctx: Arc<Context>) -> Action {
    let (namespace, name) = (client.namespace().unwrap_or_default(), client.name_any());
    tracing::warn!(kind = "ImportedClient", %namespace, %name, %error, "reconciling failed, it is tried again");
    Action::requeue(
        ctx.backoff
            .next("ImportedClient", &Key::new(namespace, name)),
    )
}

/// The HaloPSA client that is meant, or why there is none.
fn find(
    client: &ImportedClient,
    connection: Option<&HaloPSAConnection>,
    ctx: &Context,
) -> Result<crate::halopsa::types::HaloClient, ConditionUpdate> {
    let namespace = client.namespace().unwrap_or_default();
    let reference = &client.spec.connection_ref.name;
    let Some(connection) = connection else {
        return Err(ConditionUpdate::no(
            Reason::ConnectionNotFound,
            format!(
                "there is no HaloPSAConnection {reference} in namespace {namespace}; apply it, or correct spec.connectionRef"
            ),
        ));
    };
    let Some(listing) = ctx.directory.get(&namespace, reference) else {
        return Err(ConditionUpdate::unknown(
            Reason::ConnectionNotReady,
            format!(
                "HaloPSAConnection {reference} has not listed its clients yet; see kubectl describe halo {}",
                connection.name_any()
            ),
        ));
    };
    let found = import::resolve(
        &listing,
        client.spec.halo_client_id,
        client.spec.halo_client_name.as_deref(),
    )
    .map_err(|unresolved| ConditionUpdate::no(Reason::ClientNotFound, unresolved.to_string()))?;
    if found.inactive {
        return Err(ConditionUpdate::no(
            Reason::ClientInactive,
            format!(
                "HaloPSA client {} \"{}\" is inactive; reactivate it in HaloPSA or delete this ImportedClient",
                found.id, found.name
            ),
        ));
    }
    let same = |other: &ImportedClient| {
        other.namespace() == client.namespace()
            && other.spec.connection_ref == client.spec.connection_ref
            && other.name_any() != client.name_any()
            && (other.spec.halo_client_id == Some(found.id)
                || (other.spec.halo_client_id.is_none()
                    && other
                        .status
                        .as_ref()
                        .is_some_and(|s| s.halo_client_id == Some(found.id))))
    };
    let age = |c: &ImportedClient| {
        (
            c.metadata.creation_timestamp.as_ref().map(|t| t.0),
            c.name_any(),
        )
    };
    let clash = ctx
        .stores
        .clients
        .state_filter(same)
        .into_iter()
        .find(|other| age(other) < age(client));
    if let Some(older) = clash {
        return Err(ConditionUpdate::no(
            Reason::Duplicate,
            format!(
                "ImportedClient {} is for HaloPSA client {} already and is older; delete one of the two",
                older.name_any(),
                found.id
            ),
        ));
    }
    Ok(found.clone())
}

/// Applies what is not as it has to be.
async fn keep_agent(
    client: &ImportedClient,
    connection: &HaloPSAConnection,
    deployment: Option<&Deployment>,
    replicas: i32,
    ctx: &Context,
) -> Result<(), kube::Error> {
    let namespace = client.namespace().unwrap_or_default();
    let name = names::agent(&client.name_any());
    let image = workload::setting(client, connection, |s| s.image.as_deref())
        .unwrap_or(&ctx.options.agent_image);
    let agent = Agent {
        connection,
        client,
        image,
        gateway_url: &ctx.options.gateway_url,
        gateway_namespace: &ctx.options.own_namespace,
        replicas,
    };
    super::certificates::publish_ca(ctx, &namespace).await?;
    apply_metadata::<ServiceAccount>(
        ctx,
        &namespace,
        &name,
        "ServiceAccount",
        &agent.service_account(),
    )
    .await?;
    apply_metadata::<NetworkPolicy>(
        ctx,
        &namespace,
        &name,
        "NetworkPolicy",
        &agent.network_policy(),
    )
    .await?;
    let wanted = agent.deployment();
    let observed = deployment.map(workload::version_of_deployment);
    if !ctx.applied.is_current(
        &namespace,
        &name,
        "Deployment",
        &wanted,
        observed.as_deref(),
    ) {
        let api: Api<Deployment> = Api::namespaced(ctx.kube.clone(), &namespace);
        let stored = api
            .patch(
                &name,
                &PatchParams::apply(names::CONTROLLER).force(),
                &Patch::Apply(&wanted),
            )
            .await?;
        ctx.applied.remember(
            &namespace,
            &name,
            "Deployment",
            &wanted,
            workload::version_of_deployment(&stored),
        );
    }
    Ok(())
}

async fn apply_metadata<K>(
    ctx: &Context,
    namespace: &str,
    name: &str,
    kind: &'static str,
    wanted: &Value,
) -> Result<(), kube::Error>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + serde::Serialize
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(ctx.kube.clone(), namespace);
    let observed: Option<PartialObjectMeta<K>> = api.get_metadata_opt(name).await?;
    if ctx.applied.is_current(
        namespace,
        name,
        kind,
        wanted,
        observed
            .as_ref()
            .map(workload::version_of_metadata)
            .as_deref(),
    ) {
        return Ok(());
    }
    let stored = api
        .patch(
            name,
            &PatchParams::apply(names::CONTROLLER).force(),
            &Patch::Apply(wanted),
        )
        .await?;
    ctx.applied.remember(
        namespace,
        name,
        kind,
        wanted,
        stored.meta().resource_version.clone().unwrap_or_default(),
    );
    Ok(())
}

/// What the Deployment says of the agent.
fn agent_verdict(deployment: Option<&Deployment>, replicas: i32) -> (ConditionUpdate, AgentPhase) {
    let status = deployment.and_then(|d| d.status.as_ref());
    let available = status
        .and_then(|s| s.available_replicas)
        .unwrap_or_default();
    if replicas == 0 {
        return (
            ConditionUpdate::yes(
                Reason::Idle,
                "no ticket waits; the agent starts with the next one",
            ),
            AgentPhase::Idle,
        );
    }
    if available > 0 {
        return (
            ConditionUpdate::yes(
                Reason::Running,
                format!("{available} of {replicas} agents run"),
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
