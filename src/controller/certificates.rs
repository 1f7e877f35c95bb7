//! The certificates of receiver and gateway: issued, renewed, and their CA published to the agents.
//!
//! The operator's own CA is in one Secret, each listener's certificate in another: the public
//! process never holds the gateway's key. Each reads its own through the API and serves a renewed
//! one at once; agents read the CA from a ConfigMap in their namespace.

use super::address;
use super::context::Context;
use crate::k8s::{self, names, own};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::Api;
use kube::{Client, ResourceExt};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Three reads; also how soon a deleted certificate is back.
const CHECK_EVERY: Duration = Duration::from_secs(15);
const RETRY_AFTER: Duration = Duration::from_secs(2);
const CA_DAYS: i64 = 3650;
const SERVER_DAYS: i64 = 90;
/// A certificate is renewed when a third of its life is left.
const RENEW_AT: i64 = 60;
const RENEW_ANNOTATION: &str = "rallied.ai/renew-after";
/// A namespace's copy of the CA is compared again after this time.
const PUBLISHED_FOR: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", k8s::explain(.0))]
    Kube(#[from] kube::Error),
    #[error(transparent)]
    Own(#[from] own::Error),
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    #[error("Secret {0} is corrupt; delete it and the operator will regenerate it")]
    Corrupt(String),
}

fn ca_secret(service: &str) -> String {
    format!("{service}-ca")
}

/// Waits until there is a certificate, and looks where the gateway is.
pub async fn prepare(ctx: &Context) {
    while !refresh(ctx).await {
        tokio::time::sleep(super::context::jitter(RETRY_AFTER)).await;
    }
    address::refresh(ctx).await;
}

/// Keeps the certificate fresh.
pub async fn run(ctx: Arc<Context>) {
    loop {
        tokio::time::sleep(super::context::jitter(CHECK_EVERY)).await;
        prepare(&ctx).await;
    }
}

/// Checks CA and certificate; false if that failed.
async fn refresh(ctx: &Context) -> bool {
    match ensure(&ctx.kube, &ctx.options.own_namespace, &ctx.options.service).await {
        Ok(ca) => {
            let mut known = ctx.published.ca.write().await;
            if known.as_ref() != Some(&ca) {
                ctx.published.namespaces.lock().await.clear();
                *known = Some(ca);
            }
            true
        }
        Err(error) => {
            tracing::error!(%error,
                "checking the certificates failed, so HaloPSA and agents may be unable to connect; \
                 will retry");
            false
        }
    }
}

/// The operator's own CA.
struct Ca {
    certificate: String,
    key: String,
}

/// Issues CA and certificates where needed; returns the CA's certificate.
async fn ensure(kube: &Client, namespace: &str, service: &str) -> Result<String, Error> {
    let secrets: Api<Secret> = Api::namespaced(kube.clone(), namespace);
    let ca = ensure_ca(&secrets, service).await?;
    for service in [names::gateway_service(service), service.to_string()] {
        ensure_server(&secrets, &ca, &service, namespace).await?;
    }
    Ok(ca.certificate)
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone()).ok()
}

async fn ensure_ca(secrets: &Api<Secret>, service: &str) -> Result<Ca, Error> {
    let name = ca_secret(service);
    if let Some(secret) = secrets.get_opt(&name).await? {
        let part = |key: &str| text(&secret, key).ok_or_else(|| Error::Corrupt(name.clone()));
        return Ok(Ca {
            certificate: part("ca.crt")?,
            key: part("ca.key")?,
        });
    }
    let key = KeyPair::generate()?;
    let ca = Ca {
        certificate: ca_params()?.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    };
    let data = json!({"ca.crt": ca.certificate, "ca.key": ca.key});
    put(secrets, None, secret(&name, "Opaque", data, None)).await?;
    tracing::info!("created the operator's CA");
    Ok(ca)
}

async fn ensure_server(
    secrets: &Api<Secret>,
    ca: &Ca,
    service: &str,
    namespace: &str,
) -> Result<(), Error> {
    let name = names::server_secret(service);
    let current = secrets.get_opt(&name).await?;
    let renew = current.as_ref().is_none_or(|secret| {
        let after = secret
            .annotations()
            .get(RENEW_ANNOTATION)
            .and_then(|t| t.parse::<Timestamp>().ok());
        after.is_none_or(|t| t <= Timestamp::now())
            || text(secret, "ca.crt").as_ref() != Some(&ca.certificate)
    });
    if !renew {
        return Ok(());
    }
    // The CA's parameters are fixed, so its key alone makes the issuer.
    let issuer = Issuer::new(ca_params()?, KeyPair::from_pem(&ca.key)?);
    let key = KeyPair::generate()?;
    let certificate = server_params(service, namespace)?.signed_by(&key, &issuer)?;
    let data = json!({
        "tls.crt": certificate.pem(), "tls.key": key.serialize_pem(), "ca.crt": ca.certificate,
    });
    let after = Timestamp::now() + SignedDuration::from_hours(24 * RENEW_AT);
    let wanted = secret(&name, "kubernetes.io/tls", data, Some(after));
    put(secrets, current.as_ref(), wanted).await?;
    tracing::info!(service, "issued a certificate");
    Ok(())
}

fn ca_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params
        .distinguished_name
        .push(DnType::CommonName, "halopsa-operator CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    (params.not_before, params.not_after) = life(CA_DAYS);
    Ok(params)
}

fn server_params(service: &str, namespace: &str) -> Result<CertificateParams, rcgen::Error> {
    let names = vec![
        service.to_string(),
        format!("{service}.{namespace}"),
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
        "localhost".to_string(),
    ];
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, service);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = life(SERVER_DAYS);
    Ok(params)
}

/// From yesterday, for clocks that differ.
fn life(days: i64) -> (time::OffsetDateTime, time::OffsetDateTime) {
    let now = time::OffsetDateTime::now_utc();
    (
        now - time::Duration::days(1),
        now + time::Duration::days(days),
    )
}

fn secret(
    name: &str,
    type_: &str,
    data: serde_json::Value,
    renew_after: Option<Timestamp>,
) -> serde_json::Value {
    let mut secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": type_, "stringData": data,
        "metadata": {"name": name, "labels": {names::MANAGED_BY: names::OPERATOR}},
    });
    if let Some(after) = renew_after {
        secret["metadata"]["annotations"] = json!({RENEW_ANNOTATION: after.to_string()});
    }
    secret
}

async fn put(
    secrets: &Api<Secret>,
    current: Option<&Secret>,
    wanted: serde_json::Value,
) -> Result<(), own::Error> {
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
    own::apply(secrets, name, current.map(|s| &s.metadata), &wanted).await?;
    Ok(())
}

/// Publishes the CA to a namespace's agents. Reads it now and then, writes it if it differs.
pub async fn publish_ca(ctx: &Context, namespace: &str) -> Result<(), own::Error> {
    let mut namespaces = ctx.published.namespaces.lock().await;
    if namespaces
        .get(namespace)
        .is_some_and(|at| at.elapsed() < PUBLISHED_FOR)
    {
        return Ok(());
    }
    // Not issued yet: the Pods wait for the ConfigMap, and the next pass brings it.
    let Some(ca) = ctx.published.ca.read().await.clone() else {
        return Ok(());
    };
    let maps: Api<ConfigMap> = Api::namespaced(ctx.kube.clone(), namespace);
    let current = maps.get_opt(names::GATEWAY_CA).await?;
    let data = current.as_ref().and_then(|m| m.data.as_ref());
    if data.and_then(|d| d.get(names::CA_KEY)) != Some(&ca) {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {names::CA_KEY: ca},
            "metadata": {"name": names::GATEWAY_CA, "labels": {names::MANAGED_BY: names::OPERATOR}},
        });
        let observed = current.as_ref().map(|m| &m.metadata);
        own::apply(&maps, names::GATEWAY_CA, observed, &map).await?;
    }
    namespaces.insert(namespace.to_string(), Instant::now());
    Ok(())
}
