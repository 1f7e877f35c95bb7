//! The connection's reconciler.
//!
//! - [`observe`]: signs in, checks scopes, and calls the others
//! - [`webhook`]: keeps the webhook in HaloPSA, and its Secret
//! - [`import`]: which of HaloPSA's clients are imported
//! - [`sweep`]: finds tickets whose webhook was never received
//! - [`cleanup`]: removes the webhook when the connection is deleted

mod cleanup;
mod import;
mod observe;
mod sweep;
mod webhook;

pub use import::resolve;

use crate::api::condition::{self, ConditionUpdate};
use crate::api::connection::HaloPSAConnectionStatus;
use crate::api::reason::Reason;
use crate::api::{HaloPSAConnection, VerificationProvider};
use crate::controller::context::{Context, jitter};
use crate::controller::provider;
use crate::halopsa;
use crate::halopsa_pool;
use crate::k8s::{self, key::Key, names};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{self, Event as Finalizer};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use observe::Findings;
use std::sync::Arc;

const KIND: &str = "HaloPSAConnection";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", k8s::explain(.0))]
    Kube(#[from] kube::Error),
    #[error("the webhook is not removed from HaloPSA yet: {0}")]
    Cleanup(String),
    #[error("{0}")]
    Finalizer(String),
}

/// Why a part of a pass failed. HaloPSA's failures become conditions, Kubernetes' fail the pass.
enum Failure {
    Halo(halopsa::Error),
    Kube(kube::Error),
}

impl From<halopsa::Error> for Failure {
    fn from(error: halopsa::Error) -> Self {
        Failure::Halo(error)
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        Failure::Kube(error)
    }
}

impl Failure {
    /// Unknown if HaloPSA could not be asked, false if it said no.
    fn condition(self) -> Result<ConditionUpdate, Error> {
        match self {
            Failure::Halo(error) => {
                let (reason, message) = (halopsa_pool::reason(&error), error.to_string());
                Ok(match error.is_transient() {
                    true => ConditionUpdate::unknown(reason, message),
                    false => ConditionUpdate::no(reason, message),
                })
            }
            Failure::Kube(error) => Err(error.into()),
        }
    }
}

/// The connections that use a Secret; what was verified with it no longer counts.
pub fn of_secret(
    context: Arc<Context>,
) -> impl Fn(PartialObjectMeta<Secret>) -> Vec<ObjectRef<HaloPSAConnection>> {
    move |secret| {
        let name = secret.name_any();
        let uses = |c: &HaloPSAConnection| {
            c.namespace() == secret.namespace()
                && (c.spec.credentials_secret_ref.name == name
                    || names::webhook_secret(&c.name_any()) == name)
        };
        context
            .stores
            .connections
            .state_filter(uses)
            .into_iter()
            .map(|connection| {
                context.verified.forget(&Key::of(&*connection));
                ObjectRef::from_obj(&*connection)
            })
            .collect()
    }
}

/// The connections that name a provider, when it changes.
pub fn of_provider(
    context: Arc<Context>,
) -> impl Fn(Arc<VerificationProvider>) -> Vec<ObjectRef<HaloPSAConnection>> {
    move |provider| {
        let names = |c: &HaloPSAConnection| {
            c.namespace() == provider.namespace()
                && c.spec
                    .sensitivity
                    .provider_ref
                    .as_ref()
                    .is_some_and(|r| r.name == provider.name_any())
        };
        context
            .stores
            .connections
            .state_filter(names)
            .iter()
            .map(|c| ObjectRef::from_obj(&**c))
            .collect()
    }
}

pub async fn reconcile(
    connection: Arc<HaloPSAConnection>,
    ctx: Arc<Context>,
) -> Result<Action, Error> {
    ctx.stores.filled().await;
    let namespace = connection.namespace().unwrap_or_default();
    let api: Api<HaloPSAConnection> = Api::namespaced(ctx.kube.clone(), &namespace);
    let result = finalizer::finalizer(&api, names::WEBHOOK_FINALIZER, connection, |event| async {
        match event {
            Finalizer::Apply(connection) => apply(&api, &connection, &ctx).await,
            Finalizer::Cleanup(connection) => cleanup::cleanup(&connection, &ctx).await,
        }
    })
    .await;
    result.map_err(|error| match error {
        finalizer::Error::ApplyFailed(error) | finalizer::Error::CleanupFailed(error) => error,
        finalizer::Error::AddFinalizer(error) | finalizer::Error::RemoveFinalizer(error) => {
            Error::Kube(error)
        }
        other => Error::Finalizer(other.to_string()),
    })
}

/// Observe, decide, report: acting is part of observing, since each part needs the one before.
async fn apply(
    api: &Api<HaloPSAConnection>,
    connection: &HaloPSAConnection,
    ctx: &Context,
) -> Result<Action, Error> {
    let key = Key::of(connection);
    let before = connection.status.clone().unwrap_or_default();
    if connection.spec.suspend {
        ctx.verified.forget(&key);
        report(api, connection, suspended(connection, before), ctx).await?;
        return Ok(Action::await_change());
    }
    let findings = observe::observe(connection, &before, ctx).await?;
    let failed = findings.failed;
    let verification = verification(connection, ctx);
    report(
        api,
        connection,
        decide(connection, findings, verification),
        ctx,
    )
    .await?;
    if failed {
        return Ok(Action::requeue(ctx.backoff.next(KIND, &key)));
    }
    ctx.backoff.reset(KIND, &key);
    Ok(Action::requeue(jitter(
        ctx.options.resync.min(ctx.options.sweep),
    )))
}

/// The status of a suspended connection: what was known stays.
fn suspended(
    connection: &HaloPSAConnection,
    mut status: HaloPSAConnectionStatus,
) -> HaloPSAConnectionStatus {
    let update = ConditionUpdate::unknown(
        Reason::Suspended,
        "spec.suspend is true: the operator does nothing outside the cluster; set it to false to \
         resume",
    );
    let generation = connection.metadata.generation;
    condition::set(
        &mut status.conditions,
        condition::READY,
        &update,
        generation,
        Timestamp::now(),
    );
    status.observed_generation = generation;
    status
}

/// The status that follows from what a pass found.
fn decide(
    connection: &HaloPSAConnection,
    findings: Findings,
    verification: ConditionUpdate,
) -> HaloPSAConnectionStatus {
    let parts = [&findings.credentials, &findings.webhook, &findings.clients];
    let ready = match parts.into_iter().find(|part| !part.is_true()) {
        None => ConditionUpdate::yes(
            Reason::Connected,
            "signed in, webhook registered, clients synced",
        ),
        Some(bad) => ConditionUpdate::no(bad.reason, bad.message.clone()),
    };
    let mut status = findings.status;
    let (generation, now) = (connection.metadata.generation, Timestamp::now());
    for (type_, update) in [
        (condition::CREDENTIALS_VALID, &findings.credentials),
        (condition::WEBHOOK_REGISTERED, &findings.webhook),
        (condition::CLIENTS_SYNCED, &findings.clients),
        (condition::VERIFICATION_AVAILABLE, &verification),
        (condition::READY, &ready),
    ] {
        condition::set(&mut status.conditions, type_, update, generation, now);
    }
    status.observed_generation = generation;
    status
}

/// Whether requesters of sensitive tickets can be verified. Not part of Ready: without it agents
/// only plan.
fn verification(connection: &HaloPSAConnection, ctx: &Context) -> ConditionUpdate {
    let Some(reference) = &connection.spec.sensitivity.provider_ref else {
        return ConditionUpdate::no(
            Reason::NoProvider,
            "agents work on sensitive tickets in Plan mode only; set spec.sensitivity.providerRef \
             to have requesters verified",
        );
    };
    let name = &reference.name;
    match provider::of_connection(connection, ctx) {
        None => ConditionUpdate::no(
            Reason::ProviderNotFound,
            format!(
                "VerificationProvider {name} does not exist; sensitive tickets are refused until \
                 it does"
            ),
        ),
        Some(provider) => {
            let ready = provider
                .status
                .as_ref()
                .and_then(|s| condition::get(&s.conditions, condition::READY));
            match ready {
                Some(ready) if ready.status == "True" => {
                    ConditionUpdate::yes(Reason::Connected, ready.message.clone())
                }
                Some(ready) => ConditionUpdate::no(
                    Reason::ProviderNotReady,
                    format!("VerificationProvider {name}: {}", ready.message),
                ),
                None => ConditionUpdate::unknown(
                    Reason::NotChecked,
                    format!("VerificationProvider {name} has not been checked yet"),
                ),
            }
        }
    }
}

/// Writes the status if it changed, and an Event per condition that did.
async fn report(
    api: &Api<HaloPSAConnection>,
    connection: &HaloPSAConnection,
    status: HaloPSAConnectionStatus,
    ctx: &Context,
) -> Result<(), Error> {
    let before = connection.status.as_ref();
    if k8s::apply_status(api, connection, before, &status, names::CONTROLLER).await? {
        let conditions = before.map(|s| s.conditions.as_slice()).unwrap_or_default();
        ctx.emit_transitions(&connection.object_ref(&()), conditions, &status.conditions)
            .await;
    }
    Ok(())
}
