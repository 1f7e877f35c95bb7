//! A HaloPSA client for each connection, made from the objects it refers to and
//! kept as long as they stay the same, so that token and request window live on.

use crate::api::HaloPSAConnection;
use crate::api::reason::Reason;
use crate::halopsa::{self, client::Config};
use crate::k8s;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, ResourceExt};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For this long a client is handed out without reading its Secret again.
const FRESH: Duration = Duration::from_secs(10);
const MAX_SECRET: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "Secret {0} is missing; create it with the Client ID and Client Secret of the HaloPSA application"
    )]
    SecretMissing(String),
    #[error(
        "Secret {secret} has no usable key {key}; put the application's value there, or name the key in spec.credentialsSecretRef"
    )]
    KeyMissing { secret: String, key: String },
    #[error(
        "ConfigMap {name} with key {key} is missing; create it with HaloPSA's CA certificate, or drop spec.caConfigMapRef"
    )]
    CaMissing { name: String, key: String },
    #[error(transparent)]
    Halo(#[from] halopsa::Error),
    #[error("{}", k8s::explain(.0))]
    Kube(#[from] kube::Error),
}

impl Error {
    /// A condition's reason.
    pub fn reason(&self) -> Reason {
        match self {
            Error::SecretMissing(_) | Error::KeyMissing { .. } => Reason::SecretInvalid,
            Error::CaMissing { .. } => Reason::CAInvalid,
            Error::Halo(error) => reason(error),
            Error::Kube(_) => Reason::APIServerUnavailable,
        }
    }
}

/// The condition reason for a failed call to HaloPSA.
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
    /// This process's part of every tenant's request limit.
    share: f64,
    /// The longest one request may take.
    timeout: Duration,
    cache: Mutex<HashMap<(String, String), Entry>>,
}

#[derive(Clone)]
struct Entry {
    fingerprint: [u8; 32],
    client: halopsa::Client,
    checked: Instant,
}

impl HaloPool {
    pub fn new(kube: Client, share: f64, timeout: Duration) -> Self {
        Self {
            kube,
            share,
            timeout,
            cache: Mutex::default(),
        }
    }

    /// The connection's client, checked against its Secret not long ago.
    pub async fn client(&self, connection: &HaloPSAConnection) -> Result<halopsa::Client, Error> {
        let cached = self.cache().get(&key(connection)).cloned();
        match cached {
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
        let mut cache = self.cache();
        if let Some(entry) = cache.get_mut(&key(connection))
            && entry.fingerprint == fingerprint
        {
            entry.checked = Instant::now();
            return Ok(entry.client.clone());
        }
        let client = match cache.get(&key(connection)) {
            Some(before) => before.client.with_credentials(config)?,
            None => halopsa::Client::new(config)?,
        };
        cache.insert(
            key(connection),
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
        self.cache()
            .remove(&(namespace.to_string(), name.to_string()));
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Entry>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a connection's client is made of, from the objects it refers to.
    pub async fn config(&self, connection: &HaloPSAConnection) -> Result<Config, Error> {
        let namespace = connection.namespace().unwrap_or_default();
        let spec = &connection.spec;
        let reference = &spec.credentials_secret_ref;
        let secrets: Api<Secret> = Api::namespaced(self.kube.clone(), &namespace);
        let secret = secrets
            .get_opt(&reference.name)
            .await?
            .ok_or_else(|| Error::SecretMissing(reference.name.clone()))?;
        let value = |key: &str| {
            secret
                .data
                .as_ref()
                .and_then(|data| data.get(key))
                .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
                // A trailing newline is the commonest mistake in a Secret.
                .map(|text| text.trim().to_string())
                .filter(|text| !text.is_empty() && text.len() <= MAX_SECRET)
                .ok_or_else(|| Error::KeyMissing {
                    secret: reference.name.clone(),
                    key: key.to_string(),
                })
        };
        let (client_id, client_secret) = (
            value(&reference.client_id_key)?,
            value(&reference.client_secret_key)?,
        );
        let ca = match &spec.ca_config_map_ref {
            None => None,
            Some(reference) => {
                let maps: Api<ConfigMap> = Api::namespaced(self.kube.clone(), &namespace);
                let map = maps.get_opt(&reference.name).await?;
                let pem = map.and_then(|m| m.data?.remove(&reference.key));
                Some(pem.ok_or_else(|| Error::CaMissing {
                    name: reference.name.clone(),
                    key: reference.key.clone(),
                })?)
            }
        };
        Ok(Config {
            name: format!("{namespace}/{}", connection.name_any()),
            instance_url: spec.instance_url.clone(),
            tenant: spec.tenant.clone(),
            client_id,
            client_secret: client_secret.into(),
            ca,
            requests: spec.rate_limit.requests,
            window: spec.rate_limit.window.into(),
            share: self.share,
            timeout: self.timeout,
            max_wait: halopsa::client::LIMIT_WAIT,
            resolve: None,
        })
    }
}

fn key(connection: &HaloPSAConnection) -> (String, String) {
    (
        connection.namespace().unwrap_or_default(),
        connection.name_any(),
    )
}

/// Tells whether anything a client is made of has changed, without keeping the secret.
fn fingerprint(config: &Config) -> [u8; 32] {
    use secrecy::ExposeSecret;
    let mut hash = Sha256::new();
    for part in [
        config.instance_url.as_str(),
        config.tenant.as_deref().unwrap_or_default(),
        &config.client_id,
        config.client_secret.expose_secret(),
        config.ca.as_deref().unwrap_or_default(),
        &format!("{}/{:?}", config.requests, config.window),
    ] {
        hash.update(part.len().to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}
