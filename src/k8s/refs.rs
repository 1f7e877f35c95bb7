//! Secrets and ConfigMaps that resources refer to.
//!
//! Whoever may write our kinds says where a Secret's values are sent. That must not be a way to
//! read every Secret of the namespace, so a Secret takes part only if its owner has labelled it.

use super::name::ObjectName;
use super::names;
use crate::api::connection::CaConfigMapRef;
use crate::error::root_cause;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, ResourceExt};
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
        "Secret {name} lacks the label {}=true; add it to allow the operator to send its values to \
         where this object says (kubectl label secret {name} {}=true)",
        names::USE,
        names::USE
    )]
    NotLabelled { name: String },
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

/// All keys of a Secret that may be used.
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
        Ok(Some(secret)) if may_use(&secret) => Ok(secret.data.unwrap_or_default()),
        Ok(Some(_)) => Err(Error::NotLabelled { name }),
        Ok(None) => Err(Error::Missing { kind, name }),
        Err(source) => Err(Error::Kube { kind, name, source }),
    }
}

/// Our own Secrets do not count: nobody sends those elsewhere.
fn may_use(secret: &Secret) -> bool {
    let label = |key: &str| secret.labels().get(key).map(String::as_str);
    label(names::USE) == Some("true") && label(names::MANAGED_BY) != Some(names::OPERATOR)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_used_only_if_its_owner_says_so() {
        let ours = (names::MANAGED_BY, names::OPERATOR);
        for (labels, used) in [
            (vec![], false),
            (vec![(names::USE, "true")], true),
            (vec![(names::USE, "false")], false),
            (vec![(names::USE, "")], false),
            (vec![("rallied.ai/connection", "halo")], false),
            (vec![ours], false),
            (vec![ours, (names::USE, "true")], false),
        ] {
            let mut secret = Secret::default();
            let pairs = labels.iter().map(|(k, v)| (k.to_string(), v.to_string()));
            secret.metadata.labels = Some(pairs.collect());
            assert_eq!(may_use(&secret), used, "{labels:?}");
        }
        assert!(!may_use(&Secret::default()));
        let said = Error::NotLabelled { name: "x".into() }.to_string();
        assert!(said.starts_with("Secret x lacks the label rallied.ai/use=true"));
    }
}
