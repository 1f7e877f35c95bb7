//! Listeners: TLS with a certificate that may change while serving, and plain HTTP
//! for health and metrics.

use crate::metrics::{self, Metrics};
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long requests in flight may take to finish on shutdown.
const GRACE: Duration = Duration::from_secs(10);

/// A server's TLS configuration from PEM.
pub fn tls_config(
    certificate: &[u8],
    key: &[u8],
) -> Result<Arc<rustls::ServerConfig>, Box<dyn std::error::Error + Send + Sync>> {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key)?;
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Serves with TLS until `stop`.
pub async fn serve_tls(
    address: SocketAddr,
    tls: RustlsConfig,
    app: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let handle = Handle::new();
    shut_down_on(stop, handle.clone());
    axum_server::bind_rustls(address, tls)
        .handle(handle)
        .serve(app.into_make_service())
        .await
}

/// Serves without TLS until `stop`.
pub async fn serve(
    address: SocketAddr,
    app: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let handle = Handle::new();
    shut_down_on(stop, handle.clone());
    axum_server::bind(address)
        .handle(handle)
        .serve(app.into_make_service())
        .await
}

fn shut_down_on(stop: impl Future<Output = ()> + Send + 'static, handle: Handle<SocketAddr>) {
    tokio::spawn(async move {
        stop.await;
        handle.graceful_shutdown(Some(GRACE));
    });
}

/// Whether a process is ready to serve.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// `/healthz`, `/readyz`, `/metrics`.
pub fn health(ready: Ready, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/healthz", get(move || async move { "ok\n" }))
        .route(
            "/readyz",
            get(move || async move {
                if ready.is_ready() {
                    (StatusCode::OK, "ok\n")
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
                }
            }),
        )
        .route(
            "/metrics",
            get(move || async move {
                (
                    [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)],
                    metrics.text(),
                )
                    .into_response()
            }),
        )
}
