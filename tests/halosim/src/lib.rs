//! A faithful simulator of the HaloPSA REST API: real HTTPS, real webhooks.
//!
//! - [`store`]: entities and the rules HaloPSA keeps between them
//! - [`seed`]: believable and large data sets
//! - [`auth`]: applications, tokens, scopes
//! - [`api`]: the REST API, [`query`]: its list filters and paging
//! - [`deliver`]: webhooks out, with their Deliveries
//! - [`admin`]: what a person would do in HaloPSA's pages, and faults on demand
//! - [`verifier`]: the reference verification provider
//! - [`tls`]: a CA of its own
//!
//! Facts that are not public are switches; see `docs/halosim.md`.

pub mod admin;
pub mod api;
pub mod auth;
pub mod deliver;
pub mod query;
pub mod seed;
pub mod store;
pub mod tls;
pub mod verifier;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::Store;
use tokio::sync::mpsc;

/// How a simulator starts.
#[derive(Clone, Debug)]
pub struct Options {
    pub listen: SocketAddr,
    /// Where the admin API listens; plain HTTP, keep it on loopback.
    pub admin: Option<SocketAddr>,
    pub seed: seed::Seed,
    /// Host names in the certificate, besides localhost and 127.0.0.1.
    pub names: Vec<String>,
    /// Requests in a rolling five minutes.
    pub rate_limit: usize,
    pub token_life: Duration,
    /// From the change to the webhook.
    pub webhook_delay: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: None,
            seed: seed::Seed::Demo,
            names: Vec::new(),
            rate_limit: 300,
            token_life: Duration::from_secs(3600),
            webhook_delay: Duration::from_millis(20),
        }
    }
}

/// What goes wrong on purpose.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Every request is answered 503 with an HTML page.
    pub down: bool,
    /// Every answer takes this long.
    pub latency_ms: u64,
    /// A write can be read only after this time.
    pub read_lag_ms: u64,
    /// Webhooks are recorded but not sent.
    pub lose_webhooks: bool,
    /// So many of the next writes are carried out and then answered 504.
    pub lose_replies: u32,
    /// So many of the next requests are answered 500.
    pub fail_next: u32,
}

/// State shared by all handlers.
#[derive(Debug)]
pub struct Shared {
    store: Mutex<Store>,
    pub auth: auth::Auth,
    faults: Mutex<Faults>,
    webhook_ca: Mutex<Option<String>>,
    batch: Mutex<Vec<i64>>,
    pub verifier: verifier::Verifier,
    queue: mpsc::Sender<deliver::Delivery>,
    pub ca_pem: String,
}

impl Shared {
    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn batch(&self) -> MutexGuard<'_, Vec<i64>> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The CA that webhook receivers' certificates are checked against, besides the system's.
    pub fn trust(&self, pem: String) {
        *self.webhook_ca.lock().unwrap_or_else(PoisonError::into_inner) = Some(pem);
    }

    fn webhook_ca(&self) -> Option<String> {
        self.webhook_ca.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Queues the webhooks that a change of the store caused.
    pub fn publish(&self, changes: Vec<store::Change>) {
        for change in changes {
            for delivery in deliver::deliveries(&self.store(), &change) {
                if self.queue.try_send(delivery).is_err() {
                    tracing::warn!("the webhook queue is full, a delivery is lost");
                }
            }
        }
    }
}

/// A running simulator; it stops when dropped.
#[derive(Debug)]
pub struct Sim {
    pub url: String,
    pub admin_url: Option<String>,
    pub shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Sim {
    pub async fn start(options: Options) -> std::io::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = tls::issue(&options.names).map_err(std::io::Error::other)?;
        let (queue, deliveries) = mpsc::channel(10_000);
        let store = seed::make(&options.seed);
        let shared = Arc::new(Shared {
            store: Mutex::new(store),
            auth: auth::Auth::new(options.token_life, options.rate_limit),
            faults: Mutex::default(),
            webhook_ca: Mutex::default(),
            batch: Mutex::default(),
            verifier: verifier::Verifier::default(),
            queue,
            ca_pem: tls.ca_pem,
        });
        let mut tasks = vec![tokio::spawn(deliver::run(shared.clone(), deliveries, options.webhook_delay))];
        let listener = std::net::TcpListener::bind(options.listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let server = axum_server::from_tcp_rustls(listener, axum_server::tls_rustls::RustlsConfig::from_config(tls.server))?;
        let app = verifier::router(shared.clone()).merge(api::router(shared.clone())).into_make_service();
        tasks.push(tokio::spawn(async move {
            if let Err(error) = server.serve(app).await {
                tracing::error!(%error, "the API server ended");
            }
        }));
        let admin_url = match options.admin {
            None => None,
            Some(admin) => {
                let listener = tokio::net::TcpListener::bind(admin).await?;
                let url = format!("http://{}", listener.local_addr()?);
                let app = admin::router(shared.clone());
                tasks.push(tokio::spawn(async move {
                    if let Err(error) = axum::serve(listener, app).await {
                        tracing::error!(%error, "the admin server ended");
                    }
                }));
                Some(url)
            }
        };
        let host = if address.ip().is_unspecified() { "127.0.0.1".to_string() } else { address.ip().to_string() };
        Ok(Self { url: format!("https://{host}:{}", address.port()), admin_url, shared, tasks })
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
