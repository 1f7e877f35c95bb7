//! What the finalizer does: the webhook is removed from HaloPSA.

use super::{Error, KIND, webhook};
use crate::api::HaloPSAConnection;
use crate::api::reason::Reason;
use crate::controller::context::Context;
use crate::controller::receiver_secret;
use crate::halopsa::api::WebhookSpec;
use crate::halopsa::registration;
use crate::k8s::key::Key;
use crate::k8s::names;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Resource;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use std::time::Duration;

/// A deleted connection waits this long for a HaloPSA that does not respond.
const GIVE_UP_AFTER: SignedDuration = SignedDuration::from_secs(60);
/// Timeout of one attempt.
const ATTEMPT: Duration = Duration::from_secs(30);

/// Removes the webhook. A HaloPSA that is gone for good does not block the deletion forever.
pub async fn cleanup(connection: &HaloPSAConnection, ctx: &Context) -> Result<Action, Error> {
    let key = Key::of(connection);
    let known = connection.status.as_ref().and_then(|s| s.webhook.as_ref());
    let id = known.map(|w| w.id.as_str());
    let removed = tokio::time::timeout(ATTEMPT, remove(connection, id, ctx))
        .await
        .unwrap_or_else(|_| Err("HaloPSA does not respond".into()));
    let about = connection.object_ref(&());
    match removed {
        Ok(()) => {
            let note = "the webhook is removed from HaloPSA";
            let reason = Reason::WebhookRemoved;
            ctx.event(&about, EventType::Normal, reason, "Cleanup", note)
                .await;
        }
        // Nothing was ever registered.
        Err(_) if known.is_none() => {}
        Err(message) if !is_given_up(connection) => return Err(Error::Cleanup(message)),
        Err(message) => {
            let note = format!(
                "the webhook stays in HaloPSA: {message}. Delete it by hand under Configuration > \
                 Integrations > Webhooks"
            );
            tracing::warn!(namespace = key.namespace, name = key.name, "{note}");
            let reason = Reason::WebhookLeftBehind;
            ctx.event(&about, EventType::Warning, reason, "Cleanup", &note)
                .await;
        }
    }
    receiver_secret::hand_over(ctx, &key, names::login_key(&key), None).await?;
    ctx.halopsa.forget(&key.namespace, &key.name);
    ctx.directory.forget(&key);
    ctx.verified.forget(&key);
    ctx.backoff.reset(KIND, &key);
    Ok(Action::await_change())
}

async fn remove(
    connection: &HaloPSAConnection,
    id: Option<&str>,
    ctx: &Context,
) -> Result<(), String> {
    let halo = ctx
        .halopsa
        .fresh_client(connection)
        .await
        .map_err(|e| e.to_string())?;
    let spec = WebhookSpec {
        name: &webhook::name(connection),
        url: &webhook::url(connection),
        username: "",
        password: "",
    };
    registration::remove(&halo, id, &spec)
        .await
        .map_err(|e| e.to_string())
}

fn is_given_up(connection: &HaloPSAConnection) -> bool {
    let now = Timestamp::now();
    let deletion = connection.metadata.deletion_timestamp.as_ref();
    let since = deletion.map_or(now, |t| t.0);
    now.duration_since(since) >= GIVE_UP_AFTER
}
