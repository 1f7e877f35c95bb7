//! A listener's certificate: read from its Secret, and again whenever the controller renews it.

use crate::server;
use axum_server::tls_rustls::RustlsConfig;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use std::sync::Arc;

/// The certificate in a Secret, once the controller has issued it, and a future that serves each
/// renewed one.
pub async fn certificate(
    kube: Client,
    namespace: String,
    secret: String,
) -> (RustlsConfig, impl Future<Output = ()>) {
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

/// The TLS set-up in the Secret, if it is usable.
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
