//! The VerificationProvider's reconciler: says whether it can be used.

use super::context::{Context, jitter};
use super::receiver_secret;
use crate::api::condition::{self, ConditionUpdate};
use crate::api::reason::Reason;
use crate::api::{HaloPSAConnection, VerificationProvider};
use crate::k8s::key::Key;
use crate::k8s::{self, names, reflect, refs};
use crate::verify::Provider;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use secrecy::ExposeSecret;
use std::sync::Arc;

const KIND: &str = "VerificationProvider";

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
    hand_over_key(&provider, &ctx).await?;
    let checked = async { Provider::of(&ctx.kube, &provider).await?.check().await }.await;
    let ready = match checked {
        Ok(()) => ConditionUpdate::yes(
            Reason::Connected,
            format!("requesters are verified by {}", provider.spec.method()),
        ),
        Err(error) => ConditionUpdate::no(error.reason(), error.to_string()),
    };
    report(&provider, &ready, &ctx).await?;
    let key = Key::of(&*provider);
    if ready.is_true() {
        ctx.backoff.reset(KIND, &key);
        return Ok(Action::requeue(jitter(ctx.options.resync)));
    }
    let wait = ctx.backoff.next(KIND, &key);
    Ok(Action::requeue(wait.min(ctx.options.resync)))
}

/// The receiver checks callbacks with the signing key.
async fn hand_over_key(provider: &VerificationProvider, ctx: &Context) -> Result<(), kube::Error> {
    let Some(http) = &provider.spec.http else {
        return Ok(());
    };
    let (key, reference) = (Key::of(provider), &http.signing_secret_ref);
    let read = refs::secret_key(&ctx.kube, &key.namespace, &reference.name, &reference.key).await;
    let secret = match read {
        Ok(secret) => Some(secret),
        Err(refs::Error::Kube { source, .. }) => return Err(source),
        Err(_) => None,
    };
    let value = secret.as_ref().map(|secret| secret.expose_secret());
    receiver_secret::hand_over(ctx, &key, names::signing_key(&key), value).await
}

async fn report(
    provider: &VerificationProvider,
    ready: &ConditionUpdate,
    ctx: &Context,
) -> Result<(), Error> {
    let before = provider.status.as_ref();
    let mut status = before.cloned().unwrap_or_default();
    let generation = provider.metadata.generation;
    status.observed_generation = generation;
    condition::set(
        &mut status.conditions,
        condition::READY,
        ready,
        generation,
        Timestamp::now(),
    );
    let namespace = provider.namespace().unwrap_or_default();
    let api: Api<VerificationProvider> = Api::namespaced(ctx.kube.clone(), &namespace);
    if k8s::apply_status(&api, provider, before, &status, names::CONTROLLER).await? {
        let before = before.and_then(|s| condition::get(&s.conditions, condition::READY));
        ctx.emit_if_changed(&provider.object_ref(&()), before, ready)
            .await;
    }
    Ok(())
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
