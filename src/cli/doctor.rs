//! `kubectl halopsa doctor CONNECTION`: what is wrong, and what to do.

use super::cluster::Cluster;
use super::error::Error;
use super::findings::{self, ExpectedWebhook, HaloAccess, HaloState, Mark, Observed, WebhookState};
use crate::api::{HaloPSAConnection, ImportedClient, VerificationProvider};
use crate::halopsa::Client;
use crate::halopsa::registration;
use crate::k8s::names;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

/// Deliveries read.
const DELIVERIES: usize = 20;

pub struct Report {
    pub text: String,
    /// Nothing is bad; there may be warnings.
    pub healthy: bool,
}

pub async fn run(cluster: &Cluster, name: &str) -> Result<Report, Error> {
    let observed = observe(cluster, cluster.connection(name).await?).await?;
    let findings = findings::findings(&observed);
    Ok(Report {
        text: findings::report(&findings),
        healthy: findings.iter().all(|f| f.mark != Mark::Bad),
    })
}

/// Reads everything the diagnosis is made from.
async fn observe(cluster: &Cluster, connection: HaloPSAConnection) -> Result<Observed, Error> {
    let halo = match cluster.halo(&connection).await {
        Err(error) => HaloAccess::NoCredentials(error.to_string()),
        Ok(halo) => sign_in(cluster, &connection, &halo).await?,
    };
    let provider = match &connection.spec.sensitivity.provider_ref {
        None => None,
        Some(reference) => {
            Api::<VerificationProvider>::namespaced(cluster.kube.clone(), &cluster.namespace)
                .get_opt(&reference.name)
                .await?
        }
    };
    let name = connection.name_any();
    let clients = Api::<ImportedClient>::namespaced(cluster.kube.clone(), &cluster.namespace)
        .list(&ListParams::default())
        .await?
        .items
        .into_iter()
        .filter(|c| c.spec.connection_ref.name == name)
        .collect();
    Ok(Observed {
        connection,
        halo,
        provider,
        clients,
    })
}

async fn sign_in(
    cluster: &Cluster,
    connection: &HaloPSAConnection,
    halo: &Client,
) -> Result<HaloAccess, Error> {
    let scopes = match halo.sign_in().await {
        Ok(scopes) => scopes,
        Err(error) => return Ok(HaloAccess::NoSignIn(error.to_string())),
    };
    let excess_scopes = halo.excess_scopes().await.unwrap_or_default();
    let api_agent = halo.me().await.map_err(|e| e.to_string());
    let username = webhook_username(cluster, connection).await?;
    let expected = ExpectedWebhook::new(connection, username);
    let webhook = webhook(connection, halo, &expected).await;
    Ok(HaloAccess::SignedIn(Box::new(HaloState {
        scopes,
        excess_scopes,
        api_agent,
        expected,
        webhook,
    })))
}

/// The user name in the webhook's Secret; empty if there is none.
async fn webhook_username(
    cluster: &Cluster,
    connection: &HaloPSAConnection,
) -> Result<String, Error> {
    let namespace = connection.namespace().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(cluster.kube.clone(), &namespace);
    let username = secrets
        .get_opt(&names::webhook_secret(&connection.name_any()))
        .await?
        .and_then(|s| s.data?.remove("username"))
        .map(|b| String::from_utf8_lossy(&b.0).into_owned());
    Ok(username.unwrap_or_default())
}

/// The connection's webhook, with its subscriptions and last deliveries.
async fn webhook(
    connection: &HaloPSAConnection,
    halo: &Client,
    expected: &ExpectedWebhook,
) -> Result<Option<WebhookState>, String> {
    let webhooks = halo.webhooks().await.map_err(|e| e.to_string())?;
    let status = connection.status.as_ref();
    let known = status.and_then(|s| s.webhook.as_ref());
    let known = known.map(|w| w.id.as_str());
    let Some(webhook) = registration::ours(&webhooks, known, &expected.spec()) else {
        return Ok(None);
    };
    let notifications = halo.notifications(&webhook.id).await;
    let deliveries = halo.deliveries(&webhook.id, DELIVERIES).await;
    Ok(Some(WebhookState {
        webhook: webhook.clone(),
        notifications: notifications.map_err(|e| e.to_string()),
        deliveries: deliveries.map_err(|e| e.to_string()),
    }))
}
