//! The receiver process: the public listener, the agents' listener, and the watches both need.

use super::{Outcome, ReceiverArgs};
use crate::gateway::{self, Gateway};
use crate::halopsa_pool::HaloPool;
use crate::k8s::names;
use crate::k8s::reflect::Reflector;
use crate::k8s::watches::{Hooks, Watches};
use crate::metrics::Metrics;
use crate::net;
use crate::receiver::{self, Receiver};
use crate::server::{self, Ready};
use axum_server::tls_rustls::RustlsConfig;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher;
use kube::{Api, Client};
use std::future::Future;
use std::sync::Arc;
use tokio::sync::watch;

/// Receiver and gateway.
pub async fn receiver(
    args: ReceiverArgs,
    stop: impl Future<Output = ()> + Clone + Send + Sync + 'static,
) -> Outcome {
    let kube = Client::try_default().await?;
    let common = &args.common;
    net::install(common.addresses());
    let scope = common.namespace.as_deref();
    let (ready, metrics) = (Ready::default(), Arc::<Metrics>::default());
    let mut watches = Watches::default();
    let secrets = Reflector::<Secret>::default();
    let (changes, changed) = watch::channel(0u64);
    let receiver = Arc::new(Receiver::new(
        kube.clone(),
        &watches,
        secrets.store.clone(),
        ready.clone(),
        metrics.clone(),
    ));
    let gateway = Arc::new(gateway_of(
        &kube, &args, &watches, changed, &ready, &metrics,
    ));

    let webhook_secrets = watcher::Config::default()
        .labels(&format!("{}={}", names::MANAGED_BY, names::OPERATOR))
        .fields("type=kubernetes.io/basic-auth");
    watches.start(&kube, scope, secrets, webhook_secrets, |_| ());
    let stores = watches.stores();
    let readiness = ready.clone();
    tokio::spawn(async move {
        // Nothing is decided before every rule is known.
        stores.filled().await;
        readiness.set(true);
        tracing::info!("ready for webhooks and agents");
    });
    // Waiting agents read the store, so they are woken when it has the news.
    let hooks = Hooks {
        tickets_stored: Box::new(move || changes.send_modify(|n| *n += 1)),
        ..Hooks::default()
    };
    let mut watches = watches.run(&kube, scope, hooks);
    let steps = Box::pin(gateway::runner::run(gateway.clone()));
    if let Some(listen) = common.health_listen {
        let health = server::health(ready, metrics);
        tokio::spawn(server::serve(listen, health, stop.clone()));
    }
    tokio::select! {
        served = serve(&kube, &args, receiver, gateway, stop) => served?,
        _ = watches.join_next() => return Err("a watch ended".into()),
        () = steps => return Err("the runner of approved steps ended".into()),
    }
    Ok(())
}

fn gateway_of(
    kube: &Client,
    args: &ReceiverArgs,
    watches: &Watches,
    changed: watch::Receiver<u64>,
    ready: &Ready,
    metrics: &Arc<Metrics>,
) -> Gateway {
    let common = &args.common;
    Gateway {
        kube: kube.clone(),
        stores: watches.stores(),
        index: watches.ticket_index.clone(),
        halopsa: HaloPool::new(
            kube.clone(),
            common.rate_share,
            common.timeout,
            metrics.clone(),
        ),
        reviewer: gateway::identity::Reviewer::new(kube.clone()),
        changed,
        settle: common.settle,
        lease: common
            .lease
            .try_into()
            .unwrap_or(k8s_openapi::jiff::SignedDuration::from_secs(45)),
        ready: ready.clone(),
        metrics: metrics.clone(),
        listings: Default::default(),
        rows: Default::default(),
        journal: Default::default(),
        backoff: Default::default(),
    }
}

/// Both listeners, with the certificate once there is one.
async fn serve(
    kube: &Client,
    args: &ReceiverArgs,
    receiver: Arc<Receiver>,
    gateway: Arc<Gateway>,
    stop: impl Future<Output = ()> + Clone + Send + Sync + 'static,
) -> std::io::Result<()> {
    let common = &args.common;
    let (tls, renewal) = certificate(
        kube.clone(),
        common.own_namespace.clone(),
        names::server_secret(&common.service),
    )
    .await;
    let public = receiver::router(receiver);
    let webhooks = async {
        if args.webhook_tls {
            server::serve_tls(args.listen, tls.clone(), public, stop.clone()).await
        } else {
            server::serve(args.listen, public, stop.clone()).await
        }
    };
    let agents = gateway::router(gateway);
    let agents = server::serve_tls(args.gateway_listen, tls.clone(), agents, stop.clone());
    tokio::select! {
        served = async { tokio::try_join!(webhooks, agents) } => served.map(|_| ()),
        () = renewal => Err(std::io::Error::other("the watch on the certificate ended")),
    }
}

/// The gateway's certificate, once the controller has issued it, and a future
/// that serves each renewed one.
async fn certificate(
    kube: Client,
    namespace: String,
    secret: String,
) -> (RustlsConfig, impl Future<Output = ()>) {
    use futures::StreamExt;
    use kube::runtime::WatchStreamExt;
    let api: Api<Secret> = Api::namespaced(kube, &namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={secret}"));
    let mut stream = Box::pin(
        watcher(api, config)
            .default_backoff()
            .applied_objects()
            .filter_map(|event| async move { event.inspect_err(watch_failed).ok() })
            .filter_map(|secret| async move { tls_of(&secret) }),
    );
    let first = stream.next().await;
    // The stream has no end; without a first certificate there is nothing to serve with.
    let tls = match first {
        Some(config) => RustlsConfig::from_config(config),
        None => std::future::pending().await,
    };
    let reload = tls.clone();
    let renewal = async move {
        while let Some(config) = stream.next().await {
            reload.reload_from_config(config);
            tracing::info!("serving a renewed certificate");
        }
    };
    (tls, renewal)
}

fn watch_failed(error: &watcher::Error) {
    tracing::warn!(%error, "the watch on the certificate failed; restarting it");
}

/// The TLS set-up in the gateway's Secret, if it is usable.
fn tls_of(secret: &Secret) -> Option<Arc<rustls::ServerConfig>> {
    let part = |key: &str| secret.data.as_ref()?.get(key).map(|bytes| bytes.0.clone());
    server::tls_config(&part("tls.crt")?, &part("tls.key")?)
        .inspect_err(|error| {
            tracing::error!(%error,
                "the certificate in the Secret is unusable; delete the Secret and the operator \
                 will regenerate it");
        })
        .ok()
}
