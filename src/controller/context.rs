//! What the reconcilers share.

use super::memory::{Applied, Directory, Handed, Polls, Published, Sweeps, Verified};
use crate::api::condition;
use crate::api::reason::Reason;
use crate::halopsa_pool::HaloPool;
use crate::k8s::cache::Remembered;
use crate::k8s::index::{ClientIndex, TicketIndex};
use crate::k8s::key::Key;
use crate::k8s::names;
use crate::k8s::namespaces::Namespaces;
use crate::k8s::watches::{Stores, Watches};
use crate::metrics::Metrics;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::Store;
use kube::{Client, Resource};
use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

/// How the controller is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which namespaces are watched.
    pub namespaces: Namespaces,
    /// The operator's own namespace.
    pub own_namespace: String,
    /// Image of the agents unless a resource names another.
    pub agent_image: String,
    /// The gateway as agents reach it.
    pub gateway_url: String,
    /// Name of the operator's Service, after which the gateway's and the certificates are named.
    pub service: String,
    /// How often a connection is compared with HaloPSA.
    pub resync: Duration,
    /// How often to search for tickets whose webhook was never received.
    pub sweep: Duration,
    /// Maximum delay before HaloPSA's reads reflect a write.
    pub settle: Duration,
    /// The controller's share of a tenant's request limit.
    pub rate_share: f64,
    /// Timeout of one request to HaloPSA.
    pub timeout: Duration,
}

pub struct Context {
    pub kube: Client,
    pub options: Options,
    pub stores: Stores,
    pub deployments: Store<Deployment>,
    pub index: Arc<TicketIndex>,
    pub clients: Arc<ClientIndex>,
    pub metrics: Arc<Metrics>,
    pub halopsa: HaloPool,
    pub directory: Directory,
    pub backoff: Backoff,
    pub sweeps: Sweeps,
    pub polls: Polls,
    pub verified: Verified,
    pub applied: Applied,
    pub published: Published,
    pub handed: Handed,
    recorder: Recorder,
}

impl Context {
    pub fn new(
        kube: Client,
        options: Options,
        watches: &Watches,
        deployments: Store<Deployment>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let reporter = Reporter {
            controller: names::OPERATOR.into(),
            instance: std::env::var("POD_NAME").ok(),
        };
        Self {
            recorder: Recorder::new(kube.clone(), reporter),
            halopsa: HaloPool::new(
                kube.clone(),
                options.rate_share,
                options.timeout,
                metrics.clone(),
            ),
            metrics,
            directory: Directory::default(),
            index: watches.ticket_index.clone(),
            clients: watches.client_index.clone(),
            deployments,
            backoff: Backoff::default(),
            sweeps: Sweeps::default(),
            polls: Polls::default(),
            verified: Verified::default(),
            applied: Applied::default(),
            published: Published::default(),
            handed: Handed::default(),
            kube,
            options,
            stores: watches.stores(),
        }
    }

    /// An Event for each condition whose status or reason has changed.
    pub async fn emit_transitions(
        &self,
        about: &ObjectReference,
        before: &[Condition],
        after: &[Condition],
    ) {
        for condition in after {
            let old = condition::get(before, &condition.type_);
            let same =
                old.is_some_and(|o| o.status == condition.status && o.reason == condition.reason);
            // A condition that was not checked yet is not news.
            let is_unchecked =
                condition.reason == Reason::NotChecked || condition.reason == Reason::Pending;
            if condition.type_ == condition::READY || same || is_unchecked {
                continue;
            }
            let wanted = condition.status == "True"
                || [Reason::Provisioning, Reason::Suspended, Reason::NoProvider]
                    .iter()
                    .any(|r| condition.reason == *r);
            let Condition {
                type_,
                reason,
                message,
                ..
            } = condition;
            log(about, wanted, Some(type_), reason, message);
            self.event_as(about, event_type(wanted), reason, type_, message)
                .await;
        }
    }

    /// An Event for a kind with one condition, when that has changed.
    pub async fn emit_if_changed(
        &self,
        about: &ObjectReference,
        before: Option<&Condition>,
        update: &condition::ConditionUpdate,
    ) {
        if before.is_some_and(|b| b.status == update.status.as_str() && b.reason == update.reason) {
            return;
        }
        log(about, true, None, update.reason.as_str(), &update.message);
        let type_ = event_type(update.is_true());
        self.event(about, type_, update.reason, "Reconcile", &update.message)
            .await;
    }

    /// What every kind does after a reconciliation that failed.
    pub fn retry<K>(&self, object: &K, error: &impl Display) -> Action
    where
        K: Resource<DynamicType = ()>,
    {
        let (kind, key) = (K::kind(&()), Key::of(object));
        tracing::warn!(%kind, namespace = key.namespace, name = key.name, %error,
            "reconciliation failed; will retry");
        Action::requeue(self.backoff.next(kind, &key))
    }

    /// Publishes an Event. Best effort: a failure to write one fails nothing.
    pub async fn event(
        &self,
        about: &ObjectReference,
        type_: EventType,
        reason: Reason,
        action: &str,
        note: &str,
    ) {
        self.event_as(about, type_, reason.as_str(), action, note)
            .await;
    }

    /// As [`Context::event`], with a reason as an object stores it.
    pub async fn event_as(
        &self,
        about: &ObjectReference,
        type_: EventType,
        reason: &str,
        action: &str,
        note: &str,
    ) {
        let event = Event {
            type_,
            reason: reason.into(),
            note: Some(note.chars().take(1000).collect()),
            action: action.into(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            tracing::debug!(%error, reason, "could not write an Event");
        }
    }
}

/// The error policy of every kind that has none of its own.
pub fn error_policy<K, E>(object: Arc<K>, error: &E, ctx: Arc<Context>) -> Action
where
    K: Resource<DynamicType = ()>,
    E: Display,
{
    ctx.retry(&*object, error)
}

fn event_type(wanted: bool) -> EventType {
    if wanted {
        EventType::Normal
    } else {
        EventType::Warning
    }
}

/// A condition that changed, in the log as in the Event.
fn log(
    about: &ObjectReference,
    wanted: bool,
    condition: Option<&str>,
    reason: &str,
    message: &str,
) {
    let kind = about.kind.as_deref();
    let (namespace, name) = (about.namespace.as_deref(), about.name.as_deref());
    if wanted {
        tracing::info!(kind, namespace, name, condition, reason, "{message}");
    } else {
        tracing::warn!(kind, namespace, name, condition, reason, "{message}");
    }
}

/// Counts consecutive failures, for increasing waits.
#[derive(Debug, Default)]
pub struct Backoff(Remembered<(Cow<'static, str>, Key), u32>);

impl Backoff {
    /// The wait after one more failure: 1 s, 2 s, 4 s ... 60 s, each with jitter.
    pub fn next(&self, kind: impl Into<Cow<'static, str>>, key: &Key) -> Duration {
        let mut failures = self.0.lock();
        let count = failures.entry((kind.into(), key.clone())).or_default();
        *count += 1;
        Duration::from_secs(1 << (*count - 1).min(6))
            .min(Duration::from_secs(60))
            .mul_f64(rand::random_range(0.75..1.25))
    }

    pub fn reset(&self, kind: impl Into<Cow<'static, str>>, key: &Key) {
        self.0.forget(&(kind.into(), key.clone()));
    }
}

/// A time with jitter, so that many objects do not become due at once.
pub fn jitter(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.9..1.1))
}
