//! What one pass finds out about a connection, step by step: each needs the one before.

use super::{Error, Failure, import, sweep, webhook};
use crate::api::HaloPSAConnection;
use crate::api::condition::{self, ConditionUpdate};
use crate::api::connection::{ApiAgent, HaloPSAConnectionStatus};
use crate::api::reason::Reason;
use crate::controller::context::Context;
use crate::halopsa::{self, missing_scopes};
use crate::halopsa_pool;
use crate::k8s::key::Key;
use std::time::Duration;

/// Scopes beyond those needed are checked again after this time: it takes a sign-in of its own.
const EXCESS_EVERY: Duration = Duration::from_secs(600);

pub struct Findings {
    pub status: HaloPSAConnectionStatus,
    pub credentials: ConditionUpdate,
    pub webhook: ConditionUpdate,
    pub clients: ConditionUpdate,
    /// A part failed: try again soon.
    pub failed: bool,
}

/// Signs in, keeps the webhook, imports clients, sweeps.
pub async fn observe(
    connection: &HaloPSAConnection,
    before: &HaloPSAConnectionStatus,
    ctx: &Context,
) -> Result<Findings, Error> {
    let key = Key::of(connection);
    let generation = connection.metadata.generation.unwrap_or_default();
    let mut findings = Findings {
        status: before.clone(),
        credentials: ConditionUpdate::unknown(Reason::NotChecked, "not checked yet"),
        webhook: ConditionUpdate::unknown(Reason::NotChecked, "waiting for CredentialsValid"),
        clients: ConditionUpdate::unknown(Reason::NotChecked, "waiting for CredentialsValid"),
        failed: true,
    };
    let fresh = ctx
        .verified
        .is_fresh(&key, generation, ctx.options.resync * 4 / 5);
    let halo = match client(connection, fresh, ctx).await {
        Ok(halo) => halo,
        Err(halopsa_pool::Error::Kube(error)) => return Err(error.into()),
        Err(error) => {
            findings.credentials = ConditionUpdate::no(error.reason(), error.to_string());
            return Ok(findings);
        }
    };
    if fresh {
        findings.credentials = kept(
            before,
            condition::CREDENTIALS_VALID,
            &[Reason::SignedIn, Reason::ExcessiveScopes],
        );
        findings.webhook = kept(before, condition::WEBHOOK_REGISTERED, &[Reason::Registered]);
    } else {
        findings.credentials =
            match credentials(&halo, &mut findings.status, &key, generation, ctx).await {
                Ok(update) => update,
                Err(error) => Failure::from(error).condition()?,
            };
        if !findings.credentials.is_true() {
            return Ok(findings);
        }
        findings.webhook =
            match webhook::register(connection, &halo, &mut findings.status, ctx).await {
                Ok(update) => update,
                Err(failure) => failure.condition()?,
            };
        if !findings.webhook.is_true() {
            return Ok(findings);
        }
        ctx.verified.set(key.clone(), generation);
    }
    findings.clients = match import::sync(connection, &halo, &mut findings.status, ctx).await {
        Ok(update) => update,
        Err(failure) => {
            findings.clients = failure.condition()?;
            return Ok(findings);
        }
    };
    match sweep::sweep_if_due(connection, &halo, ctx).await {
        Err(Failure::Kube(error)) => return Err(error.into()),
        Err(Failure::Halo(error)) => tracing::warn!(
            namespace = key.namespace, name = key.name, %error,
            "searching for tickets without a webhook failed; will retry"
        ),
        Ok(()) => {}
    }
    findings.failed = false;
    Ok(findings)
}

async fn client(
    connection: &HaloPSAConnection,
    fresh: bool,
    ctx: &Context,
) -> Result<halopsa::Client, halopsa_pool::Error> {
    if fresh {
        ctx.halopsa.client(connection).await
    } else {
        ctx.halopsa.fresh_client(connection).await
    }
}

/// Signs in, and compares the scopes with those needed.
async fn credentials(
    halo: &halopsa::Client,
    status: &mut HaloPSAConnectionStatus,
    key: &Key,
    generation: i64,
    ctx: &Context,
) -> Result<ConditionUpdate, halopsa::Error> {
    let scopes = halo.sign_in().await?;
    status.granted_scopes = scopes.clone();
    let missing = missing_scopes(&scopes);
    if !missing.is_empty() {
        // Permissions are baked into the token: the next attempt needs a new one.
        halo.sign_out().await;
        let granted = match scopes.is_empty() {
            true => "no scope".to_string(),
            false => scopes.join(" "),
        };
        return Ok(ConditionUpdate::no(
            Reason::MissingScopes,
            format!(
                "HaloPSA granted {granted} but not {}; tick it in the application's permissions \
                 under Configuration > Integrations > HaloPSA API",
                missing.join(" ")
            ),
        ));
    }
    let agent = halo.me().await?;
    status.api_agent = Some(ApiAgent {
        id: agent.id,
        name: agent.name,
    });
    let excess = excess(halo, key, generation, ctx).await?;
    if excess.is_empty() {
        return Ok(ConditionUpdate::yes(
            Reason::SignedIn,
            "signed in with all:standard, all:teams and admin:webhooks",
        ));
    }
    Ok(ConditionUpdate::yes(
        Reason::ExcessiveScopes,
        format!(
            "signed in, but the application also has {}, more than needed; untick it in its \
             permissions",
            excess.join(" and ")
        ),
    ))
}

/// Scopes beyond those needed.
async fn excess(
    halo: &halopsa::Client,
    key: &Key,
    generation: i64,
    ctx: &Context,
) -> Result<Vec<String>, halopsa::Error> {
    if let Some(known) = ctx.verified.excess(key, generation, EXCESS_EVERY) {
        return Ok(known);
    }
    let excess = halo.excess_scopes().await?;
    ctx.verified
        .set_excess(key.clone(), generation, excess.clone());
    Ok(excess)
}

/// A condition that still holds from the last pass.
fn kept(before: &HaloPSAConnectionStatus, type_: &str, reasons: &[Reason]) -> ConditionUpdate {
    match condition::get(&before.conditions, type_) {
        Some(c) if c.status == "True" => {
            let reason = reasons.iter().find(|r| c.reason == **r).copied();
            ConditionUpdate::yes(reason.unwrap_or(reasons[0]), c.message.clone())
        }
        _ => ConditionUpdate::unknown(Reason::NotChecked, "not checked yet"),
    }
}
