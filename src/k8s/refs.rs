//! Secrets and ConfigMaps that resources refer to.

use super::name::ObjectName;
use crate::api::connection::CaConfigMapRef;
use crate::error::root_cause;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use secrecy::SecretString;
use std::collections::BTreeMap;

/// The longest value read from a Secret, in bytes.
const MAX_VALUE: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the reference names a {kind} that cannot exist; use its name")]
    Name { kind: &'static str },
    #[error("{kind} {name} does not exist; create it")]
    Missing { kind: &'static str, name: String },
    #[error(
        "{kind} {name} has no usable key {key}; add it as text of at most {MAX_VALUE} bytes, or \
         name another key"
    )]
    NoKey {
        kind: &'static str,
        name: String,
        key: String,
    },
    #[error("key {key} of ConfigMap {name} is not a CA bundle in PEM format: {detail}")]
    NotPem {
        name: String,
        key: String,
        detail: String,
    },
    #[error("cannot read {kind} {name}: {}", super::explain(.source))]
    Kube {
        kind: &'static str,
        name: String,
        source: kube::Error,
    },
}

/// A name that may stand in a request to the apiserver.
fn checked(kind: &'static str, name: &str) -> Result<String, Error> {
    ObjectName::try_from(name.to_string())
        .map(|name| name.to_string())
        .map_err(|_| Error::Name { kind })
}

/// All keys of a Secret.
pub async fn secret(
    kube: &Client,
    namespace: &str,
    name: &str,
) -> Result<BTreeMap<String, ByteString>, Error> {
    let kind = "Secret";
    let name = checked(kind, name)?;
    match Api::<Secret>::namespaced(kube.clone(), namespace)
        .get_opt(&name)
        .await
    {
        Ok(Some(secret)) => Ok(secret.data.unwrap_or_default()),
        Ok(None) => Err(Error::Missing { kind, name }),
        Err(source) => Err(Error::Kube { kind, name, source }),
    }
}

/// One key of a Secret's data, as text.
pub fn text(
    data: &BTreeMap<String, ByteString>,
    name: &str,
    key: &str,
) -> Result<SecretString, Error> {
    data.get(key)
        .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
        // A trailing newline is the commonest mistake in a Secret.
        .map(str::trim)
        .filter(|text| !text.is_empty() && text.len() <= MAX_VALUE)
        .map(SecretString::from)
        .ok_or_else(|| Error::NoKey {
            kind: "Secret",
            name: name.into(),
            key: key.into(),
        })
}

/// One key of a Secret.
pub async fn secret_key(
    kube: &Client,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<SecretString, Error> {
    text(&secret(kube, namespace, name).await?, name, key)
}

/// A CA bundle in PEM format.
pub async fn ca_bundle(
    kube: &Client,
    namespace: &str,
    reference: &CaConfigMapRef,
) -> Result<String, Error> {
    let kind = "ConfigMap";
    let name = checked(kind, &reference.name)?;
    match Api::<ConfigMap>::namespaced(kube.clone(), namespace)
        .get_opt(&name)
        .await
    {
        Ok(Some(map)) => map
            .data
            .and_then(|mut data| data.remove(&reference.key))
            .ok_or_else(|| Error::NoKey {
                kind,
                name,
                key: reference.key.clone(),
            }),
        Ok(None) => Err(Error::Missing { kind, name }),
        Err(source) => Err(Error::Kube { kind, name, source }),
    }
}

/// The certificates of a CA bundle.
pub async fn ca_certificates(
    kube: &Client,
    namespace: &str,
    reference: &CaConfigMapRef,
) -> Result<Vec<reqwest::Certificate>, Error> {
    let pem = ca_bundle(kube, namespace, reference).await?;
    reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(|e| Error::NotPem {
        name: reference.name.clone(),
        key: reference.key.clone(),
        detail: root_cause(&e),
    })
}
