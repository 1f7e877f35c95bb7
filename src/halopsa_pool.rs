//! One HaloPSA client per connection, made from the objects it refers to and kept
//! while they stay the same, so that its token and request window are kept too.

use crate::api::HaloPSAConnection;
use crate::api::reason::Reason;
use crate::halopsa::{self, Observer, client::Config};
use crate::k8s::{self, cache::Remembered, key::Key, refs, services};
use crate::metrics::Metrics;
use crate::net::Guard;
use kube::{Client, ResourceExt};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a client is handed out without reading its Secret again.
const FRESH: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "spec.credentialsSecretRef, the HaloPSA application's Client ID and Client Secret: {0}"
    )]
    Credentials(refs::Error),
    #[error("spec.caConfigMapRef, the CA of HaloPSA's certificate: {0}")]
    Ca(refs::Error),
    #[error("spec.instanceURL: {0}")]
    Address(services::Error),
    #[error(transparent)]
    Halo(#[from] halopsa::Error),
    #[error("{}", k8s::explain(.0))]
    Kube(#[from] kube::Error),
}

impl Error {
    /// The reason for a condition.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Credentials(_) => Reason::SecretInvalid,
            Error::Ca(_) => Reason::CAInvalid,
            Error::Address(_) => Reason::InvalidConfiguration,
            Error::Halo(error) => reason(error),
            Error::Kube(_) => Reason::APIServerUnavailable,
        }
    }
}

/// The reason for a condition after a failed call to HaloPSA.
pub fn reason(error: &halopsa::Error) -> Reason {
    use halopsa::Error;
    match error {
        Error::Unreachable { .. } | Error::Broken { .. } => Reason::HaloPSAUnreachable,
        Error::Timeout { .. } => Reason::HaloPSATimeout,
        Error::InvalidClient { .. } | Error::Revoked { .. } => Reason::InvalidCredentials,
        Error::InvalidScope { .. } => Reason::InvalidScope,
        Error::SignIn { .. } | Error::Server { .. } => Reason::HaloPSAUnavailable,
        Error::Forbidden { .. } => Reason::Forbidden,
        Error::NotFound { .. } => Reason::NotFound,
        Error::RateLimited { .. } => Reason::RateLimited,
        Error::Rejected { .. } => Reason::Rejected,
        Error::Answer { .. } => Reason::UnexpectedResponse,
        Error::Setup(_) => Reason::InvalidConfiguration,
    }
}

/// The clients of all connections of this process.
pub struct HaloPool {
    kube: Client,
    /// This process's share of every tenant's request limit.
    share: f64,
    /// The longest one request may take.
    timeout: Duration,
    metrics: Option<Arc<Metrics>>,
    cache: Remembered<Key, Entry>,
}

/// The application's credentials at HaloPSA.
struct Credentials {
    client_id: String,
    client_secret: SecretString,
}

#[derive(Clone)]
struct Entry {
    fingerprint: [u8; 32],
    client: halopsa::Client,
    checked: Instant,
}

impl HaloPool {
    pub fn new(kube: Client, share: f64, timeout: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            metrics: Some(metrics),
            ..Self::unobserved(kube, share, timeout)
        }
    }

    /// For a process that does not count its requests.
    pub fn unobserved(kube: Client, share: f64, timeout: Duration) -> Self {
        Self {
            kube,
            share,
            timeout,
            metrics: None,
            cache: Remembered::default(),
        }
    }

    /// The connection's client, checked against its Secret recently.
    pub async fn client(&self, connection: &HaloPSAConnection) -> Result<halopsa::Client, Error> {
        match self.cache.get(&Key::of(connection)) {
            Some(entry) if entry.checked.elapsed() < FRESH => Ok(entry.client),
            _ => self.fresh_client(connection).await,
        }
    }

    /// The connection's client, checked against its Secret now.
    pub async fn fresh_client(
        &self,
        connection: &HaloPSAConnection,
    ) -> Result<halopsa::Client, Error> {
        let config = self.config(connection).await?;
        let fingerprint = fingerprint(&config);
        let key = Key::of(connection);
        let mut cache = self.cache.lock();
        if let Some(entry) = cache.get_mut(&key)
            && entry.fingerprint == fingerprint
        {
            entry.checked = Instant::now();
            return Ok(entry.client.clone());
        }
        let client = match cache.get(&key) {
            Some(before) => before.client.with_credentials(config)?,
            None => halopsa::Client::new(config)?,
        };
        if let Some(metrics) = &self.metrics {
            metrics.watch_window(&key.to_string(), client.limiter());
        }
        cache.insert(
            key,
            Entry {
                fingerprint,
                client: client.clone(),
                checked: Instant::now(),
            },
        );
        Ok(client)
    }

    /// Forgets a connection that is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.cache.forget(&Key::new(namespace, name));
    }

    /// The configuration of a connection's client, from the objects the connection refers to.
    pub async fn config(&self, connection: &HaloPSAConnection) -> Result<Config, Error> {
        let spec = &connection.spec;
        let Credentials {
            client_id,
            client_secret,
        } = self.credentials(connection).await?;
        Ok(Config {
            name: Key::of(connection).to_string(),
            instance_url: spec.instance_url.clone(),
            tenant: spec.tenant.clone(),
            client_id,
            client_secret,
            ca: self.ca(connection).await?,
            requests: spec.rate_limit.requests,
            window: spec.rate_limit.window.into(),
            share: self.share,
            timeout: self.timeout,
            max_wait: halopsa::client::LIMIT_WAIT,
            addresses: self.addresses(connection).await?,
            resolve: None,
            observer: self.metrics.clone().map(|m| m as Arc<dyn Observer>),
        })
    }

    async fn credentials(&self, connection: &HaloPSAConnection) -> Result<Credentials, Error> {
        let reference = &connection.spec.credentials_secret_ref;
        let namespace = connection.namespace().unwrap_or_default();
        let read = async {
            let data = refs::secret(&self.kube, &namespace, &reference.name).await?;
            let id = refs::text(&data, &reference.name, &reference.client_id_key)?;
            Ok(Credentials {
                client_id: id.expose_secret().to_string(),
                client_secret: refs::text(&data, &reference.name, &reference.client_secret_key)?,
            })
        };
        read.await.map_err(|error| match error {
            refs::Error::Kube { source, .. } => Error::Kube(source),
            error => Error::Credentials(error),
        })
    }

    async fn addresses(&self, connection: &HaloPSAConnection) -> Result<Guard, Error> {
        let namespace = connection.namespace().unwrap_or_default();
        let url = &connection.spec.instance_url;
        let guard = services::guard(&self.kube, &namespace, url).await;
        guard.map_err(|error| match error {
            services::Error::Kube { source, .. } => Error::Kube(source),
            error => Error::Address(error),
        })
    }

    /// The CA bundle, in PEM format; none: public CAs are trusted.
    async fn ca(&self, connection: &HaloPSAConnection) -> Result<Option<String>, Error> {
        let Some(reference) = &connection.spec.ca_config_map_ref else {
            return Ok(None);
        };
        let namespace = connection.namespace().unwrap_or_default();
        match refs::ca_bundle(&self.kube, &namespace, reference).await {
            Ok(pem) => Ok(Some(pem)),
            Err(refs::Error::Kube { source, .. }) => Err(Error::Kube(source)),
            Err(error) => Err(Error::Ca(error)),
        }
    }
}

/// Changes with the configuration of a client, without keeping the secret.
fn fingerprint(config: &Config) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [
        config.instance_url.as_str(),
        config.tenant.as_deref().unwrap_or_default(),
        &config.client_id,
        config.client_secret.expose_secret(),
        config.ca.as_deref().unwrap_or_default(),
        &format!("{}/{:?}", config.requests, config.window),
        &format!("{:?}", config.addresses),
    ] {
        hash.update(part.len().to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}
