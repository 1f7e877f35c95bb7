//! A faithful simulator of the HaloPSA REST API: real HTTPS, real webhooks.
//!
//! - [`store`]: entities and the rules HaloPSA keeps between them
//! - [`seed`]: realistic and large data sets
//! - [`auth`]: applications, tokens, scopes, the request limit
//! - [`api`]: the REST API, [`query`]: its list filters and paging, [`fields`]: its many nulls
//! - [`faults`]: deliberate faults
//! - [`deliver`]: outgoing webhooks and their Deliveries
//! - [`web`]: the web pages
//! - [`admin`]: for scripts: what a person does in the pages, and faults on demand
//! - [`verifier`]: the reference verification provider
//! - [`tls`]: the simulator's own CA
//!
//! Where HaloPSA's behaviour is not public, it is a setting; see `docs/halosim.md`.

pub mod admin;
pub mod api;
pub mod auth;
pub mod deliver;
pub mod faults;
pub mod fields;
pub mod query;
pub mod seed;
pub mod store;
pub mod tls;
pub mod verifier;
pub mod web;

use faults::Engine;
pub use faults::Faults;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::Store;
use store::journal::{Journal, Kept};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How to start a simulator.
#[derive(Clone, Debug)]
pub struct Options {
    pub listen: SocketAddr,
    /// Where the admin API listens; plain HTTP, keep it on loopback.
    pub admin: Option<SocketAddr>,
    pub seed: seed::Seed,
    /// Host names in the certificate, besides localhost and 127.0.0.1.
    pub names: Vec<String>,
    /// Requests per rolling five minutes.
    pub rate_limit: usize,
    pub token_life: Duration,
    /// Delay from a change to its webhook.
    pub webhook_delay: Duration,
    /// The file that keeps the state; in memory if not set.
    pub data: Option<PathBuf>,
    /// The tenant's name; any other in `?tenant=` is refused.
    pub tenant: Option<String>,
    pub faults: Faults,
    pub settings: store::Settings,
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
            data: None,
            tenant: None,
            faults: Faults::default(),
            settings: store::Settings::default(),
        }
    }
}

/// Most ignored query parameters remembered.
const MAX_IGNORED: usize = 1_000;
/// Deliveries waiting to be posted.
const MAX_QUEUE: usize = 10_000;

/// State shared by all handlers.
#[derive(Debug)]
pub struct Shared {
    store: Mutex<Store>,
    pub auth: auth::Auth,
    engine: Mutex<Engine>,
    journal: Mutex<Option<Journal>>,
    /// Query parameters that were never read: path and name, and how often.
    ignored: Mutex<BTreeMap<String, u64>>,
    pub sessions: web::session::Sessions,
    pub tenant: Option<String>,
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

    /// Faults and their random numbers.
    pub fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.store().clock_skew = jiff::SignedDuration::from_secs(faults.clock_skew_seconds);
        self.engine().set(faults);
    }

    /// Writes changes to the state file, if there is one.
    pub fn commit(&self) {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        self.store().write_journal(journal.as_mut());
    }

    /// Changes an application as its page under Configuration would, and saves it.
    /// False if there is none.
    pub fn change_application(
        &self,
        client_id: &str,
        change: impl FnOnce(&mut auth::Application),
    ) -> bool {
        let changed = self.auth.change(client_id, change);
        self.keep_application(client_id);
        changed
    }

    pub fn add_application(&self, application: auth::Application) {
        let client_id = application.client_id.clone();
        self.auth.add(application);
        self.keep_application(&client_id);
    }

    fn keep_application(&self, client_id: &str) {
        if let Some(application) = self
            .auth
            .applications()
            .into_iter()
            .find(|a| a.client_id == client_id)
            && let Some(journal) = self
                .journal
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_mut()
        {
            journal.write_application(&application);
        }
    }

    fn note_ignored(&self, path: &str, names: &[String]) {
        let mut ignored = self.ignored.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            let key = format!("{path}?{name}");
            if ignored.len() < MAX_IGNORED || ignored.contains_key(&key) {
                *ignored.entry(key).or_default() += 1;
            }
        }
    }

    /// Query parameters that were ignored, as HaloPSA ignores them, and how often.
    pub fn ignored(&self) -> BTreeMap<String, u64> {
        self.ignored
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn batch(&self) -> MutexGuard<'_, Vec<i64>> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Trusts a CA for webhook receivers' certificates, besides the system's.
    pub fn trust(&self, pem: String) {
        *self
            .webhook_ca
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(pem);
    }

    fn webhook_ca(&self) -> Option<String> {
        self.webhook_ca
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Queues the webhooks for changes to the store.
    pub fn publish(&self, changes: Vec<store::Change>) {
        for change in changes {
            let deliveries = deliver::deliveries(&self.store(), &change);
            deliveries
                .into_iter()
                .for_each(|delivery| self.queue(delivery));
        }
        self.commit();
    }

    pub fn queue(&self, delivery: deliver::Delivery) {
        if self.queue.try_send(delivery).is_err() {
            tracing::warn!("the webhook queue is full; dropped a delivery");
        }
    }
}

/// A running simulator; it stops when dropped.
#[derive(Debug)]
pub struct Sim {
    pub url: String,
    pub admin_url: Option<String>,
    pub shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Sim {
    pub async fn start(options: Options) -> std::io::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let seed_name = options.seed.to_string();
        let (ca, kept) = read_state(options.data.as_deref(), &seed_name)?;
        let tls = tls::issue(&options.names, ca).map_err(std::io::Error::other)?;
        let (queue, deliveries) = mpsc::channel(MAX_QUEUE);
        let mut store = seed::make(&options.seed);
        store.seeded();
        store.restore(&kept);
        store.settings = options.settings;
        let auth = auth::Auth::new(options.token_life, options.rate_limit);
        if !kept.applications.is_empty() {
            auth.set_applications(kept.applications.clone());
        }
        let journal = match &options.data {
            Some(path) => Some(Journal::start(
                path,
                &store::journal::head(&seed_name, &tls.ca_pem, &tls.ca_key),
                &kept,
            )?),
            None => None,
        };
        let shared = Arc::new(Shared {
            store: Mutex::new(store),
            auth,
            engine: Mutex::default(),
            journal: Mutex::new(journal),
            ignored: Mutex::default(),
            sessions: web::session::Sessions::default(),
            tenant: options.tenant,
            webhook_ca: Mutex::default(),
            batch: Mutex::default(),
            verifier: verifier::Verifier::default(),
            queue,
            ca_pem: tls.ca_pem,
        });
        shared.set_faults(options.faults);
        let mut tasks = vec![tokio::spawn(deliver::run(
            shared.clone(),
            deliveries,
            options.webhook_delay,
        ))];
        if options.data.is_some() {
            tasks.push(tokio::spawn(sync(shared.clone())));
        }
        let (address, task) = serve_api(&shared, options.listen, tls.server)?;
        tasks.push(task);
        let admin_url = match options.admin {
            None => None,
            Some(admin) => {
                let (url, task) = serve_admin(&shared, admin).await?;
                tasks.push(task);
                Some(url)
            }
        };
        let host = if address.ip().is_unspecified() {
            "127.0.0.1".to_string()
        } else {
            address.ip().to_string()
        };
        Ok(Self {
            url: format!("https://{host}:{}", address.port()),
            admin_url,
            shared,
            tasks,
        })
    }
}

/// The CA (certificate and key) and the rest of a kept state, which has to be of this seed.
fn read_state(
    data: Option<&Path>,
    seed: &str,
) -> std::io::Result<(Option<(String, String)>, Kept)> {
    let state = match data {
        Some(path) => Journal::read(path)?,
        None => None,
    };
    match state {
        Some((head, _)) if head.seed != seed => Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            format!(
                "the state was created with --seed {}; use that seed or another file",
                head.seed
            ),
        )),
        Some((head, kept)) => Ok((Some((head.ca_pem, head.ca_key)), kept)),
        None => Ok((None, Kept::default())),
    }
}

/// Serves the API, the pages and the verification provider over TLS.
fn serve_api(
    shared: &Arc<Shared>,
    listen: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
) -> std::io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = std::net::TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let server = axum_server::from_tcp_rustls(
        listener,
        axum_server::tls_rustls::RustlsConfig::from_config(tls),
    )?;
    let app = verifier::router(shared.clone())
        .merge(web::router(shared.clone()))
        .merge(api::router(shared.clone()))
        .into_make_service();
    let task = tokio::spawn(async move {
        if let Err(error) = server.serve(app).await {
            tracing::error!(%error, "the API server stopped");
        }
    });
    Ok((address, task))
}

/// Serves the admin API over plain HTTP; its URL.
async fn serve_admin(
    shared: &Arc<Shared>,
    listen: SocketAddr,
) -> std::io::Result<(String, JoinHandle<()>)> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let app = admin::router(shared.clone());
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "the admin server stopped");
        }
    });
    Ok((url, task))
}

/// Syncs the state to disk every second.
async fn sync(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let shared = shared.clone();
        let _ = tokio::task::spawn_blocking(move || {
            if let Some(journal) = shared
                .journal
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
            {
                journal.sync();
            }
        })
        .await;
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
