//! The gateway process: the agents' listener, and the runner of approved steps.

use super::certificate::certificate;
use super::{GatewayArgs, Outcome};
use crate::gateway::{self, Gateway};
use crate::halopsa_pool::HaloPool;
use crate::k8s::names;
use crate::k8s::namespaces::Namespaces;
use crate::k8s::watches::{Hooks, Watches};
use crate::metrics::Metrics;
use crate::net;
use crate::server::{self, Limits, Ready};
use kube::Client;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::watch;

/// Work, tools and models for agents.
pub async fn gateway(
    args: GatewayArgs,
    stop: impl Future<Output = ()> + Clone + Send + Sync + 'static,
) -> Outcome {
    let kube = Client::try_default().await?;
    let common = &args.common;
    net::install(args.halopsa.addresses());
    let scope = &Namespaces::new(common.namespaces.clone());
    let (ready, metrics) = (Ready::default(), Arc::<Metrics>::default());
    let watches = Watches::default();
    let (changes, changed) = watch::channel(0u64);
    let gateway = Arc::new(gateway_of(
        &kube, &args, &watches, changed, &ready, &metrics,
    ));
    let stores = watches.stores();
    let readiness = ready.clone();
    tokio::spawn(async move {
        // Nothing is decided before every rule is known.
        stores.filled().await;
        readiness.set(true);
        tracing::info!("ready for agents");
    });
    // Waiting agents read the store, so they are woken when it has the news.
    let wakeups = gateway.wakeups.clone();
    let hooks = Hooks {
        tickets_stored: Box::new(move |event| {
            changes.send_modify(|n| *n += 1);
            wakeups.wake(event);
        }),
        ..Hooks::default()
    };
    let mut watches = watches.run(&kube, scope, hooks);
    let steps = Box::pin(gateway::runner::run(gateway.clone()));
    if let Some(listen) = common.health_listen {
        server::serve_health(listen, ready, metrics, stop.clone())?;
    }
    tokio::select! {
        served = serve(&kube, &args, gateway, stop) => served?,
        _ = watches.join_next() => return Err("a watch ended".into()),
        () = steps => return Err("the runner of approved steps ended".into()),
    }
    Ok(())
}

fn gateway_of(
    kube: &Client,
    args: &GatewayArgs,
    watches: &Watches,
    changed: watch::Receiver<u64>,
    ready: &Ready,
    metrics: &Arc<Metrics>,
) -> Gateway {
    let halopsa = &args.halopsa;
    Gateway {
        kube: kube.clone(),
        stores: watches.stores(),
        index: watches.ticket_index.clone(),
        halopsa: HaloPool::new(
            kube.clone(),
            halopsa.rate_share,
            halopsa.timeout,
            metrics.clone(),
        ),
        reviewer: gateway::identity::Reviewer::new(kube.clone()),
        changed,
        settle: halopsa.settle,
        lease: args
            .lease
            .try_into()
            .unwrap_or(k8s_openapi::jiff::SignedDuration::from_secs(45)),
        ready: ready.clone(),
        metrics: metrics.clone(),
        listings: Default::default(),
        rows: Default::default(),
        quotas: Default::default(),
        wakeups: Default::default(),
        journal: Default::default(),
        backoff: Default::default(),
    }
}

/// The agents' listener, with the certificate once there is one.
async fn serve(
    kube: &Client,
    args: &GatewayArgs,
    gateway: Arc<Gateway>,
    stop: impl Future<Output = ()> + Clone + Send + Sync + 'static,
) -> std::io::Result<()> {
    let service = names::gateway_service(&args.common.service);
    let namespace = args.common.own_namespace.clone();
    let (tls, renewal) = certificate(kube.clone(), namespace, names::server_secret(&service)).await;
    let agents = gateway::router(gateway);
    tokio::select! {
        served = server::serve_tls(args.listen, Limits::AGENTS, tls, agents, stop) => served,
        () = renewal => Err(std::io::Error::other("the watch on the certificate ended")),
    }
}
