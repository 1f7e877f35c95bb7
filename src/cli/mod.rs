//! What `kubectl halopsa` does, on the user's machine with the user's rights.
//!
//! - [`activity`]: what agents did
//! - [`classify`]: how replies are read
//! - [`clients`]: what there is to import, and what is imported
//! - [`policy`]: what may be called, and by which rule
//! - [`doctor`]: what is wrong, and what to do
//! - [`tunnel`]: HaloPSA at an address only the cluster can reach

pub mod activity;
pub mod classify;
pub mod clients;
pub mod doctor;
pub mod policy;
pub mod tunnel;

use crate::api::HaloPSAConnection;
use crate::halopsa;
use crate::halopsa_pool::HaloPool;
use kube::{Api, Client};

/// The whole request window: a person asks a few times only.
const SHARE: f64 = 1.0;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", crate::k8s::explain(.0))]
    Kube(#[from] kube::Error),
    #[error(transparent)]
    Tenant(#[from] crate::halopsa_pool::Error),
    #[error(transparent)]
    Halo(#[from] halopsa::Error),
    #[error(
        "there is no HaloPSAConnection {name} in namespace {namespace}; see kubectl get halo -A"
    )]
    NoConnection { namespace: String, name: String },
    #[error("cannot open a way into the cluster: {0}")]
    Tunnel(String),
    #[error("{0}")]
    Other(String),
    #[error("something has to be mended")]
    Unhealthy,
}

/// The cluster as kubectl sees it.
pub struct Cluster {
    pub kube: Client,
    pub namespace: String,
}

impl Cluster {
    pub async fn connect(namespace: Option<String>) -> Result<Self, Error> {
        let config = kube::Config::infer().await.map_err(|e| {
            Error::Other(format!(
                "no cluster: {e}; set KUBECONFIG or a kubectl context"
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

    /// A client of the connection's HaloPSA, through the cluster where that is the only way.
    pub async fn halo(&self, connection: &HaloPSAConnection) -> Result<halopsa::Client, Error> {
        let mut config = HaloPool::new(self.kube.clone(), SHARE, halopsa::client::ATTEMPT_TIMEOUT)
            .config(connection)
            .await?;
        tunnel::open(&self.kube, &mut config).await?;
        Ok(halopsa::Client::new(config)?)
    }
}

/// Rows as columns, as kubectl shows them.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|c| {
            rows.iter()
                .filter_map(|r| r.get(c))
                .map(|s| s.chars().count())
                .max()
                .unwrap_or_default()
        })
        .collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        out.push_str(cells.join("   ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["ID".to_string(), "NAME".into()],
            vec!["12".into(), "Müller".into()],
            vec!["1".into(), "x".into()],
        ];
        assert_eq!(super::table(&rows), "ID   NAME\n12   Müller\n1    x\n");
    }
}
