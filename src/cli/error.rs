//! Why a command failed.

use crate::{halopsa, halopsa_pool};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", crate::k8s::explain(.0))]
    Kube(#[from] kube::Error),
    #[error(transparent)]
    Pool(#[from] halopsa_pool::Error),
    #[error(transparent)]
    Halo(#[from] halopsa::Error),
    #[error(
        "there is no HaloPSAConnection {name} in namespace {namespace}; see kubectl get halo -A"
    )]
    NoConnection { namespace: String, name: String },
    #[error("cannot open a tunnel into the cluster: {0}")]
    Tunnel(String),
    #[error("{0}")]
    Other(String),
    #[error("problems found")]
    Unhealthy,
}
