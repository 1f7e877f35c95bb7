//! The receiver process: the public listener. It holds no HaloPSA credentials, reads no Secret of
//! a tenant, and serves nothing else.

use super::certificate::certificate;
use super::{Outcome, ReceiverArgs};
use crate::k8s::names;
use crate::k8s::namespaces::Namespaces;
use crate::k8s::reflect::Reflector;
use crate::k8s::watches::{Hooks, Watches};
use crate::metrics::Metrics;
use crate::receiver::{self, Handed, Receiver};
use crate::server::{self, Limits, Ready};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::runtime::watcher;
use std::future::Future;
use std::sync::Arc;

/// Webhooks and verification callbacks.
pub async fn receiver(
    args: ReceiverArgs,
    stop: impl Future<Output = ()> + Clone + Send + Sync + 'static,
) -> Outcome {
    let kube = Client::try_default().await?;
    let common = &args.common;
    let scope = &Namespaces::new(common.namespaces.clone());
    let (ready, metrics) = (Ready::default(), Arc::<Metrics>::default());
    let mut watches = Watches::for_routing();
    let secrets = Reflector::<Secret>::default();
    let secret = names::receiver_secret(&common.service);
    let handed = Handed::new(secrets.store.clone(), &common.own_namespace, &secret);
    let receiver = Arc::new(Receiver::new(
        kube.clone(),
        &watches,
        handed,
        ready.clone(),
        metrics.clone(),
    ));
    // One Secret, by its name: the process may read no other.
    let config = watcher::Config::default().fields(&format!("metadata.name={secret}"));
    let own = &Namespaces::new([common.own_namespace.clone()]);
    watches.start(&kube, own, secrets, config, |_| ());
    let stores = watches.stores();
    let readiness = ready.clone();
    tokio::spawn(async move {
        // Nothing is answered before it is known whose it is.
        stores.filled().await;
        readiness.set(true);
        tracing::info!("ready for webhooks");
    });
    let mut watches = watches.run(&kube, scope, Hooks::default());
    if let Some(listen) = common.health_listen {
        server::serve_health(listen, ready, metrics, stop.clone())?;
    }
    tokio::select! {
        served = serve(&kube, &args, receiver, stop) => served?,
        _ = watches.join_next() => return Err("a watch ended".into()),
    }
    Ok(())
}

async fn serve(
    kube: &Client,
    args: &ReceiverArgs,
    receiver: Arc<Receiver>,
    stop: impl Future<Output = ()> + Clone + Send + Sync + 'static,
) -> std::io::Result<()> {
    let public = receiver::router(receiver);
    if !args.webhook_tls {
        return server::serve(args.listen, Limits::PUBLIC, public, stop).await;
    }
    let secret = names::server_secret(&args.common.service);
    let namespace = args.common.own_namespace.clone();
    let (tls, renewal) = certificate(kube.clone(), namespace, secret).await;
    tokio::select! {
        served = server::serve_tls(args.listen, Limits::PUBLIC, tls, public, stop) => served,
        () = renewal => Err(std::io::Error::other("the watch on the certificate ended")),
    }
}
