//! The controller: a reconciler a kind. Each observes, decides, acts, reports.
//!
//! - [`connection`]: signs in, keeps the [`registration`] of the webhook, [`import`]s clients
//! - [`client`]: keeps each client's agent [`workload`] at the right [`scale`]
//! - [`ticket`]: moves tickets on; [`sweep`] finds those whose webhook never came
//! - [`approval`]: reads replies on tickets that wait for a technician
//! - [`verification`]: has requesters of sensitive tickets prove who they are; [`provider`]: who asks them
//! - [`policy`], [`workflow`]: check ToolPolicies and Workflows; [`tool_server`] pins tools
//! - [`certificates`]: issues the gateway's certificate and hands its CA out

pub mod certificates;
pub mod client;
pub mod connection;
pub mod context;
pub mod policy;
pub mod provider;
pub mod ticket;
pub mod tool_server;
pub mod workflow;

use crate::api::{
    CLIENT_LABEL, HaloPSAConnection, ImportedClient, Ticket, ToolPolicy, ToolServer,
    VerificationProvider, Workflow,
};
use crate::k8s::reflect::Reflector;
use crate::k8s::{names, scoped};
use context::{Context, Options, Stores};
use futures::StreamExt;
use futures::channel::mpsc;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Config;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, watcher};
use kube::{Client, Resource, ResourceExt};
use std::future::Future;
use std::sync::Arc;

/// Reconciles of one kind under way at once.
const CONCURRENCY: u16 = 16;
/// Reconciles under way may finish for this long after the signal to stop.
const GRACE: std::time::Duration = std::time::Duration::from_secs(5);
/// Deletions waiting to be looked at.
const DELETIONS: usize = 4096;

/// Runs every reconciler until `stop` resolves. Call it as the leader only.
pub async fn run(
    kube: Client,
    options: Options,
    stop: impl Future<Output = ()> + Clone + Send + Sync + 'static,
) {
    let scope = options.namespace.clone();
    let connections = Reflector::<HaloPSAConnection>::default();
    let clients = Reflector::<ImportedClient>::default();
    let tickets = Reflector::<Ticket>::default();
    let policies = Reflector::<ToolPolicy>::default();
    let deployments = Reflector::<Deployment>::default();
    let servers = Reflector::<ToolServer>::default();
    let workflows = Reflector::<Workflow>::default();
    let providers = Reflector::<VerificationProvider>::default();
    let (fill, filled) = tokio::sync::watch::channel(false);
    let stores = Stores {
        connections: connections.store.clone(),
        clients: clients.store.clone(),
        tickets: tickets.store.clone(),
        deployments: deployments.store.clone(),
        servers: servers.store.clone(),
        providers: providers.store.clone(),
        filled,
    };
    let mut to_fill = [
        connections.filled(),
        clients.filled(),
        tickets.filled(),
        deployments.filled(),
        servers.filled(),
        providers.filled(),
    ];
    let context = Arc::new(Context::new(kube.clone(), options, stores));
    let config = || Config::default().concurrency(CONCURRENCY);

    let (client_deleted, client_deletions) = mpsc::channel(DELETIONS);
    let (conn_deleted, conn_deletions) = mpsc::channel(DELETIONS);

    let connection_controller = shared(&connections)
        .with_config(config())
        .watches_with(
            scoped::<PartialObjectMeta<Secret>>(&kube, scope.as_deref()),
            (),
            watcher::Config::default(),
            connection::of_secret(context.clone()),
        )
        .watches_shared_stream(subscribe(&clients), |client: Arc<ImportedClient>| {
            connection_of(&*client, &client.spec.connection_ref.name)
        })
        .watches_shared_stream(
            subscribe(&providers),
            connection::of_provider(context.clone()),
        )
        .reconcile_on(conn_deletions)
        .graceful_shutdown_on(stop.clone())
        .run(
            connection::reconcile,
            connection::error_policy,
            context.clone(),
        );

    let client_controller = shared(&clients)
        .with_config(config())
        .watches_shared_stream(subscribe(&tickets), |ticket: Arc<Ticket>| {
            client_of_ticket(&ticket)
        })
        .watches_shared_stream(subscribe(&deployments), |deployment: Arc<Deployment>| {
            client_of_label(&*deployment)
        })
        .watches_shared_stream(
            subscribe(&connections),
            client::of_connection(context.clone()),
        )
        .owns_stream(owned_metadata::<ServiceAccount>(&kube, scope.as_deref()))
        .owns_stream(owned_metadata::<NetworkPolicy>(&kube, scope.as_deref()))
        .reconcile_on(client_deletions)
        .reconcile_all_on(context.directory.changed())
        .graceful_shutdown_on(stop.clone())
        .run(client::reconcile, client::error_policy, context.clone());

    let ticket_controller = shared(&tickets)
        .with_config(config())
        .watches_shared_stream(subscribe(&clients), ticket::of_client(context.clone()))
        .watches_shared_stream(
            subscribe(&connections),
            ticket::of_connection(context.clone()),
        )
        .graceful_shutdown_on(stop.clone())
        .run(ticket::reconcile, ticket::error_policy, context.clone());

    let policy_controller = shared(&policies)
        .with_config(config())
        .watches_shared_stream(
            subscribe(&connections),
            policy::of_connection(policies.store.clone()),
        )
        .watches_shared_stream(
            subscribe(&clients),
            policy::of_client(policies.store.clone()),
        )
        .watches_shared_stream(
            subscribe(&servers),
            policy::of_server(policies.store.clone()),
        )
        .graceful_shutdown_on(stop.clone())
        .run(policy::reconcile, policy::error_policy, context.clone());

    let server_controller = shared(&servers)
        .with_config(config())
        .graceful_shutdown_on(stop.clone())
        .run(
            tool_server::reconcile,
            tool_server::error_policy,
            context.clone(),
        );

    let workflow_controller = shared(&workflows)
        .with_config(config())
        .watches_shared_stream(
            subscribe(&connections),
            workflow::of_connection(workflows.store.clone()),
        )
        .graceful_shutdown_on(stop.clone())
        .run(workflow::reconcile, workflow::error_policy, context.clone());

    let provider_controller = shared(&providers)
        .with_config(config())
        .graceful_shutdown_on(stop.clone())
        .run(provider::reconcile, provider::error_policy, context.clone());

    let index = context.clone();
    let by_id = context.clone();
    let tickets_gone = std::sync::Mutex::new(client_deleted.clone());
    let deployments_gone = std::sync::Mutex::new(client_deleted);
    let clients_gone = std::sync::Mutex::new(conn_deleted);
    let agents =
        watcher::Config::default().labels(&format!("{}={}", names::MANAGED_BY, names::OPERATOR));
    // A task each: they run on several threads, and none sits on another's stack.
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connections.run(
        scoped(&kube, scope.as_deref()),
        watcher::Config::default(),
        |_| (),
        || (),
    ));
    tasks.spawn(clients.run(
        scoped(&kube, scope.as_deref()),
        watcher::Config::default(),
        move |event| {
            by_id.clients.observe(event);
            if let watcher::Event::Delete(client) = event {
                send_all(
                    &clients_gone,
                    connection_of(client, &client.spec.connection_ref.name),
                );
            }
        },
        || (),
    ));
    tasks.spawn(tickets.run(
        scoped(&kube, scope.as_deref()),
        watcher::Config::default(),
        move |event| {
            index.index.observe(event);
            if let watcher::Event::Delete(ticket) = event {
                send_all(&tickets_gone, client_of_ticket(ticket));
            }
        },
        || (),
    ));
    tasks.spawn(policies.run(
        scoped(&kube, scope.as_deref()),
        watcher::Config::default(),
        |_| (),
        || (),
    ));
    tasks.spawn(deployments.run(
        scoped(&kube, scope.as_deref()),
        agents,
        move |event| {
            if let watcher::Event::Delete(deployment) = event {
                send_all(&deployments_gone, client_of_label(deployment));
            }
        },
        || (),
    ));
    tasks.spawn(servers.run(
        scoped(&kube, scope.as_deref()),
        watcher::Config::default(),
        |_| (),
        || (),
    ));
    tasks.spawn(workflows.run(
        scoped(&kube, scope.as_deref()),
        watcher::Config::default(),
        |_| (),
        || (),
    ));
    tasks.spawn(providers.run(
        scoped(&kube, scope.as_deref()),
        watcher::Config::default(),
        |_| (),
        || (),
    ));
    // One task waits for each store: their own wake-ups are for one.
    tasks.spawn(async move {
        for store in &mut to_fill {
            // An error is a watch that has ended, and with it everything here.
            let _ = store.wait_for(|filled| *filled).await;
        }
        fill.send_replace(true);
        std::future::pending::<()>().await;
    });
    let mut controllers = tokio::task::JoinSet::new();
    let work = async {
        // Agents need the CA before they start, so it comes first.
        certificates::prepare(&context).await;
        controllers.spawn(connection_controller.for_each(|_| std::future::ready(())));
        controllers.spawn(client_controller.for_each(|_| std::future::ready(())));
        controllers.spawn(ticket_controller.for_each(|_| std::future::ready(())));
        controllers.spawn(policy_controller.for_each(|_| std::future::ready(())));
        controllers.spawn(server_controller.for_each(|_| std::future::ready(())));
        controllers.spawn(workflow_controller.for_each(|_| std::future::ready(())));
        controllers.spawn(provider_controller.for_each(|_| std::future::ready(())));
        let finished = async {
            // Each ends after the signal to stop, when its reconciles are done.
            while let Some(ended) = controllers.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a controller ended");
                    return;
                }
            }
        };
        tokio::select! {
            () = finished => {}
            () = certificates::run(context.clone()) => {}
        }
    };
    let stopped = stop.clone();
    tokio::select! {
        () = work => {}
        _ = tasks.join_next() => tracing::error!("a watch ended"),
        () = async { stopped.await; tokio::time::sleep(GRACE).await } => {}
    }
}

fn shared<K>(reflector: &Reflector<K>) -> Controller<K>
where
    K: Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    Controller::for_shared_stream(subscribe(reflector), reflector.store.clone())
}

fn subscribe<K>(reflector: &Reflector<K>) -> impl futures::Stream<Item = Arc<K>> + Send + 'static
where
    K: Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    // A shared store always has subscribers; without one the stream is empty.
    futures::stream::iter(reflector.subscribe()).flatten()
}

/// Objects of this kind that the operator made, metadata only.
fn owned_metadata<K>(
    kube: &Client,
    namespace: Option<&str>,
) -> impl futures::Stream<Item = Result<PartialObjectMeta<K>, watcher::Error>> + Send + 'static
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    use kube::runtime::WatchStreamExt;
    let config =
        watcher::Config::default().labels(&format!("{}={}", names::MANAGED_BY, names::OPERATOR));
    watcher(scoped::<PartialObjectMeta<K>>(kube, namespace), config)
        .default_backoff()
        .touched_objects()
}

fn send_all<T>(channel: &std::sync::Mutex<mpsc::Sender<T>>, items: impl IntoIterator<Item = T>) {
    let mut channel = channel
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    for item in items {
        if channel.try_send(item).is_err() {
            tracing::warn!("too many deletions at once; one is seen at the next resync only");
        }
    }
}

fn connection_of<K: Resource>(object: &K, name: &str) -> Option<ObjectRef<HaloPSAConnection>> {
    Some(ObjectRef::new(name).within(&object.meta().namespace.clone()?))
}

fn client_of_ticket(ticket: &Ticket) -> Option<ObjectRef<ImportedClient>> {
    Some(ObjectRef::new(&ticket.spec.client_ref.as_ref()?.name).within(&ticket.namespace()?))
}

fn client_of_label<K: Resource>(object: &K) -> Option<ObjectRef<ImportedClient>> {
    let name = object.meta().labels.as_ref()?.get(CLIENT_LABEL)?;
    Some(ObjectRef::new(name).within(object.meta().namespace.as_deref()?))
}
