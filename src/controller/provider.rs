//! The VerificationProvider's reconciler: says whether it can be asked.

use super::context::{Context, jitter};
use crate::api::condition::{self, ConditionUpdate};
use crate::api::reason::Reason;
use crate::api::{HaloPSAConnection, VerificationProvider};
use crate::k8s::key::Key;
use crate::k8s::{self, names, reflect};
use crate::verify::Provider;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", k8s::explain(.0))]
    Kube(#[from] kube::Error),
}

pub async fn reconcile(
    provider: Arc<VerificationProvider>,
    ctx: Arc<Context>,
) -> Result<Action, Error> {
    ctx.stores.filled().await;
    let (namespace, name) = (
        provider.namespace().unwrap_or_default(),
        provider.name_any(),
    );
    let checked = async { Provider::of(&ctx.kube, &provider).await?.check().await }.await;
    let verdict = match checked {
        Ok(()) => ConditionUpdate::yes(
            Reason::Connected,
            format!("requesters are asked by {}", provider.spec.method()),
        ),
        Err(error) => ConditionUpdate::no(error.reason(), error.to_string()),
    };
    let before = provider.status.clone().unwrap_or_default();
    let mut status = before.clone();
    status.observed_generation = provider.metadata.generation;
    condition::set(
        &mut status.conditions,
        condition::READY,
        &verdict,
        provider.metadata.generation,
        Timestamp::now(),
    );
    let api: Api<VerificationProvider> = Api::namespaced(ctx.kube.clone(), &namespace);
    if k8s::apply_status(
        &api,
        &*provider,
        provider.status.as_ref(),
        &status,
        names::CONTROLLER,
    )
    .await?
    {
        ctx.emit_if_changed(
            &provider.object_ref(&()),
            condition::get(&before.conditions, condition::READY),
            &verdict,
        )
        .await;
    }
    let key = Key::new(namespace, name);
    if verdict.is_true() {
        ctx.backoff.reset("VerificationProvider", &key);
        return Ok(Action::requeue(jitter(ctx.options.resync)));
    }
    Ok(Action::requeue(
        ctx.backoff
            .next("VerificationProvider", &key)
            .min(ctx.options.resync),
    ))
}

pub fn error_policy(
    provider: Arc<VerificationProvider>,
    error: &Error,
    ctx: Arc<Context>,
) -> Action {
    let (namespace, name) = (
        provider.namespace().unwrap_or_default(),
        provider.name_any(),
    );
    tracing::warn!(kind = "VerificationProvider", %namespace, %name, %error, "reconciliation failed; will retry");
    Action::requeue(
        ctx.backoff
            .next("VerificationProvider", &Key::new(namespace, name)),
    )
}

/// The provider of a connection, if it names one.
pub fn of_connection(
    connection: &HaloPSAConnection,
    ctx: &Context,
) -> Option<Arc<VerificationProvider>> {
    let name = &connection.spec.sensitivity.provider_ref.as_ref()?.name;
    reflect::get(
        &ctx.stores.providers,
        &connection.namespace().unwrap_or_default(),
        name,
    )
}
