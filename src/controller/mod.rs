//! The controller: one reconciler per kind. Each observes, decides, acts, reports.
//!
//! - [`connection`]: signs in, registers the webhook, imports clients, sweeps for missed tickets
//! - [`client`]: keeps each client's agent workload at the right scale
//! - [`ticket`]: moves tickets on, reads replies, has requesters verified
//! - [`policy`], [`workflow`]: check ToolPolicies and Workflows; [`tool_server`] pins tools
//! - [`provider`]: checks VerificationProviders
//! - [`context`], [`memory`]: what they share, and what they remember
//! - [`certificates`]: issues the listeners' certificates and publishes their CA; [`address`]:
//!   where agents find the gateway
//! - [`receiver_secret`]: what the receiver may know of the tenants' Secrets
//! - [`unreadable`]: tells whose object cannot be read

pub mod address;
pub mod certificates;
pub mod client;
pub mod connection;
pub mod context;
pub mod memory;
pub mod policy;
pub mod provider;
pub mod receiver_secret;
pub mod ticket;
pub mod tool_server;
pub mod unreadable;
pub mod workflow;

use crate::api::{CLIENT_LABEL, HaloPSAConnection, ImportedClient, Ticket};
use crate::fair::Fair;
use crate::k8s::key::Key;
use crate::k8s::names;
use crate::k8s::namespaces::{self, Namespaces};
use crate::k8s::reflect::Reflector;
use crate::k8s::watches::{Hooks, Watches};
use crate::metrics::{Metrics, ReconcileResult};
use context::{Context, Options, error_policy};
use futures::channel::mpsc;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, watcher};
use kube::{Client, Resource, ResourceExt};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Concurrent reconciliations per kind, and of them in one namespace: whoever waits for a HaloPSA
/// that hangs leaves places to the others.
const CONCURRENCY: u16 = 32;
const SHARE: usize = 4;
/// How long running reconciliations may take to finish after the signal to stop.
const GRACE: std::time::Duration = std::time::Duration::from_secs(5);
/// How long an object waits whose reconciliation panicked.
const AFTER_PANIC: std::time::Duration = std::time::Duration::from_secs(60);
/// Deletions waiting to be handled.
const DELETIONS: usize = 4096;

/// Runs every reconciler until `stop` resolves. Call it as the leader only.
pub async fn run(
    kube: Client,
    options: Options,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()> + Clone + Send + Sync + 'static,
) {
    let scope = &options.namespaces.clone();
    let mut watches = Watches::default();
    let deployments = Reflector::<Deployment>::default();
    let context = Arc::new(Context::new(
        kube.clone(),
        options,
        &watches,
        deployments.store.clone(),
        metrics,
    ));
    let (clients, client_deletions) = mpsc::channel(DELETIONS);
    let (connections, connection_deletions) = mpsc::channel(DELETIONS);
    let running = Reconcilers {
        kube: &kube,
        scope,
        context: &context,
        watches: &watches,
        running: Vec::new(),
        stop: stop.clone().boxed().shared(),
    }
    .all(&deployments, connection_deletions, client_deletions);
    let gone = Mutex::new(clients.clone());
    let agents =
        watcher::Config::default().labels(&format!("{}={}", names::MANAGED_BY, names::OPERATOR));
    watches.start(&kube, scope, deployments, agents, move |event| {
        if let watcher::Event::Delete(deployment) = event {
            send_all(&gone, client_of_label(deployment));
        }
    });
    let (clients, connections) = (Mutex::new(clients), Mutex::new(connections));
    let hooks = Hooks {
        client_deleted: Box::new(move |client| {
            send_all(
                &connections,
                connection_of(client, &client.spec.connection_ref.name),
            );
        }),
        ticket_deleted: Box::new(move |ticket| send_all(&clients, client_of_ticket(ticket))),
        ..Hooks::default()
    };
    let mut tasks = watches.run(&kube, scope, hooks);
    tokio::select! {
        () = reconcile_all(&context, running) => {}
        _ = tasks.join_next() => tracing::error!("a watch ended"),
        () = async { stop.await; tokio::time::sleep(GRACE).await } => {}
    }
}

/// Runs the reconcilers until they end, each after the signal to stop, when its work is done.
async fn reconcile_all(context: &Arc<Context>, running: Vec<BoxFuture<'static, ()>>) {
    // Agents need the CA before they start, so it comes first.
    certificates::prepare(context).await;
    // A task each: they run on several threads.
    let mut controllers: tokio::task::JoinSet<()> = running.into_iter().collect();
    let finished = async {
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
        () = unreadable::run(context.clone()) => {}
    }
}

/// Which events wake which reconciler.
struct Reconcilers<'a, S> {
    kube: &'a Client,
    scope: &'a Namespaces,
    context: &'a Arc<Context>,
    watches: &'a Watches,
    running: Vec<BoxFuture<'static, ()>>,
    stop: S,
}

impl<S: Future<Output = ()> + Clone + Send + Sync + 'static> Reconcilers<'_, S> {
    fn all(
        mut self,
        deployments: &Reflector<Deployment>,
        connection_deletions: mpsc::Receiver<ObjectRef<HaloPSAConnection>>,
        client_deletions: mpsc::Receiver<ObjectRef<ImportedClient>>,
    ) -> Vec<BoxFuture<'static, ()>> {
        self.connections(connection_deletions);
        self.clients(deployments, client_deletions);
        self.tickets();
        self.rules();
        self.running
    }

    fn connections(&mut self, deletions: mpsc::Receiver<ObjectRef<HaloPSAConnection>>) {
        let (ctx, watches) = (self.context.clone(), self.watches);
        let secrets = self.scope.apis::<PartialObjectMeta<Secret>>(self.kube);
        let controller = secrets
            .into_iter()
            .fold(shared(&watches.connections), |controller, api| {
                let of_secret = connection::of_secret(ctx.clone());
                controller.watches_with(api, (), watcher::Config::default(), of_secret)
            })
            .watches_shared_stream(
                subscribe(&watches.clients),
                |client: Arc<ImportedClient>| {
                    connection_of(&*client, &client.spec.connection_ref.name)
                },
            )
            .watches_shared_stream(
                subscribe(&watches.providers),
                connection::of_provider(ctx.clone()),
            )
            .reconcile_on(deletions);
        self.add(controller, connection::reconcile, error_policy);
    }

    fn clients(
        &mut self,
        deployments: &Reflector<Deployment>,
        deletions: mpsc::Receiver<ObjectRef<ImportedClient>>,
    ) {
        let (ctx, watches) = (self.context.clone(), self.watches);
        let controller = shared(&watches.clients)
            .watches_shared_stream(subscribe(&watches.tickets), |ticket: Arc<Ticket>| {
                client_of_ticket(&ticket)
            })
            .watches_shared_stream(subscribe(deployments), |deployment: Arc<Deployment>| {
                client_of_label(&*deployment)
            })
            .watches_shared_stream(
                subscribe(&watches.connections),
                client::of_connection(ctx.clone()),
            )
            .owns_stream(owned_metadata::<ServiceAccount>(self.kube, self.scope))
            .owns_stream(owned_metadata::<NetworkPolicy>(self.kube, self.scope))
            .reconcile_on(deletions)
            .reconcile_all_on(ctx.directory.changed())
            .reconcile_all_on(ctx.published.addresses.changed());
        self.add(controller, client::reconcile, error_policy);
    }

    fn tickets(&mut self) {
        let (ctx, watches) = (self.context.clone(), self.watches);
        let controller = shared(&watches.tickets)
            .watches_shared_stream(subscribe(&watches.clients), ticket::of_client(ctx.clone()))
            .watches_shared_stream(
                subscribe(&watches.connections),
                ticket::of_connection(ctx.clone()),
            );
        self.add(controller, ticket::reconcile, ticket::error_policy);
    }

    /// The kinds that only say what is allowed, and with what.
    fn rules(&mut self) {
        let watches = self.watches;
        let stores = watches.stores();
        let policies = shared(&watches.policies)
            .watches_shared_stream(
                subscribe(&watches.connections),
                policy::of_connection(stores.policies.clone()),
            )
            .watches_shared_stream(
                subscribe(&watches.clients),
                policy::of_client(stores.policies.clone()),
            )
            .watches_shared_stream(
                subscribe(&watches.servers),
                policy::of_server(stores.policies),
            );
        self.add(policies, policy::reconcile, error_policy);
        self.add(
            shared(&watches.servers),
            tool_server::reconcile,
            error_policy,
        );
        let workflows = shared(&watches.workflows).watches_shared_stream(
            subscribe(&watches.connections),
            workflow::of_connection(stores.workflows),
        );
        self.add(workflows, workflow::reconcile, error_policy);
        self.add(
            shared(&watches.providers),
            provider::reconcile,
            error_policy,
        );
    }

    /// Adds a reconciler, counted and timed.
    fn add<K, F, R, E>(
        &mut self,
        controller: Controller<K>,
        reconcile: F,
        error_policy: fn(Arc<K>, &E, Arc<Context>) -> Action,
    ) where
        K: Resource<DynamicType = ()>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
        F: Fn(Arc<K>, Arc<Context>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Action, E>> + Send + 'static,
        E: std::error::Error + Send + 'static,
    {
        let kind = K::kind(&());
        let fair = Arc::new(Fair::new(usize::from(CONCURRENCY), SHARE));
        let measured = move |object: Arc<K>, ctx: Arc<Context>| {
            let (about, fair) = (Key::of(&*object), fair.clone());
            let (kind, run) = (kind.clone(), reconcile(object, ctx.clone()));
            async move {
                let Some(_place) = fair.try_enter(about.namespace.clone()) else {
                    return Ok(Action::requeue(fair.come_again(about.namespace)));
                };
                let started = Instant::now();
                let result = caught(&kind, &about, run).await;
                let label = match &result {
                    Some(Ok(_)) => ReconcileResult::Ok,
                    Some(Err(_)) | None => ReconcileResult::Error,
                };
                ctx.metrics.reconciled(&kind, label, started.elapsed());
                result.unwrap_or(Ok(Action::requeue(AFTER_PANIC)))
            }
        };
        self.running.push(
            controller
                .with_config(Config::default().concurrency(CONCURRENCY))
                .graceful_shutdown_on(self.stop.clone())
                .run(measured, error_policy, self.context.clone())
                .for_each(|_| std::future::ready(()))
                .boxed(),
        );
    }
}

/// A reconcile that panics takes nobody with it: its object is tried again later, the rest goes on.
async fn caught<E>(
    kind: &str,
    about: &Key,
    run: impl Future<Output = Result<Action, E>>,
) -> Option<Result<Action, E>> {
    match AssertUnwindSafe(run).catch_unwind().await {
        Ok(result) => Some(result),
        Err(_) => {
            tracing::error!(
                kind,
                namespace = about.namespace,
                name = about.name,
                "a reconciliation panicked; will retry in {} s; please report this with the panic's \
                 lines above",
                AFTER_PANIC.as_secs()
            );
            None
        }
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

/// Metadata of the objects of this kind that the operator created.
fn owned_metadata<K>(
    kube: &Client,
    scope: &Namespaces,
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
    let apis = scope.apis::<PartialObjectMeta<K>>(kube);
    namespaces::either(apis.into_iter().map(move |api| {
        watcher(api, config.clone())
            .default_backoff()
            .touched_objects()
    }))
}

fn send_all<T>(channel: &Mutex<mpsc::Sender<T>>, items: impl IntoIterator<Item = T>) {
    let mut channel = channel
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    for item in items {
        if channel.try_send(item).is_err() {
            tracing::warn!("too many deletions at once; one will only be seen at the next resync");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_caught_and_a_result_passes() {
        let about = Key::new("msp", "halo");
        let panics = async { panic!("as a bug would") };
        assert!(caught::<String>("Kind", &about, panics).await.is_none());
        let fails = async { Err::<Action, _>("no".to_string()) };
        assert_eq!(
            caught("Kind", &about, fails).await,
            Some(Err("no".to_string()))
        );
    }
}
