//! The cluster as kubectl sees it.

use super::error::Error;
use super::tunnel;
use crate::api::HaloPSAConnection;
use crate::halopsa;
use crate::halopsa_pool::HaloPool;
use kube::{Api, Client};

/// The whole request window: a command makes only a few requests.
const SHARE: f64 = 1.0;

pub struct Cluster {
    pub kube: Client,
    pub namespace: String,
}

impl Cluster {
    pub async fn connect(namespace: Option<String>) -> Result<Self, Error> {
        let config = kube::Config::infer().await.map_err(|e| {
            Error::Other(format!(
                "cannot find a cluster: {e}; set KUBECONFIG or a kubectl context"
            ))
        })?;
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self {
            kube: Client::try_from(config)?,
            namespace,
        })
    }

    pub async fn connection(&self, name: &str) -> Result<HaloPSAConnection, Error> {
        let api: Api<HaloPSAConnection> = Api::namespaced(self.kube.clone(), &self.namespace);
        api.get_opt(name).await?.ok_or_else(|| Error::NoConnection {
            namespace: self.namespace.clone(),
            name: name.into(),
        })
    }

    /// A client of the connection's HaloPSA, through the cluster if there is no other way.
    pub async fn halo(&self, connection: &HaloPSAConnection) -> Result<halopsa::Client, Error> {
        let timeout = halopsa::client::ATTEMPT_TIMEOUT;
        let mut config = HaloPool::unobserved(self.kube.clone(), SHARE, timeout)
            .config(connection)
            .await?;
        tunnel::open(&self.kube, &mut config).await?;
        Ok(halopsa::Client::new(config)?)
    }
}
