//! What the reconcilers share.

use super::connection::import::Directory;
use crate::api::condition;
use crate::api::reason::Reason;
use crate::api::{HaloPSAConnection, ImportedClient, Ticket, ToolServer, VerificationProvider};
use crate::halopsa_pool::HaloPool;
use crate::k8s::index::{ClientIndex, TicketIndex};
use crate::k8s::names;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::Store;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How the controller is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Watch this namespace only.
    pub namespace: Option<String>,
    /// The operator's own namespace.
    pub own_namespace: String,
    /// Image of the agents unless a resource names another.
    pub agent_image: String,
    /// The gateway as agents reach it.
    pub gateway_url: String,
    /// Name of the Service of the gateway; its certificate is named after it.
    pub service: String,
    /// How often a connection is compared with HaloPSA.
    pub resync: Duration,
    /// How often tickets whose webhook never came are looked for.
    pub sweep: Duration,
    /// How late HaloPSA may show a write.
    pub settle: Duration,
    /// The controller's part of a tenant's request limit.
    pub rate_share: f64,
    /// The longest one request to HaloPSA may take.
    pub timeout: Duration,
}

#[derive(Clone)]
pub struct Stores {
    pub connections: Store<HaloPSAConnection>,
    pub clients: Store<ImportedClient>,
    pub tickets: Store<Ticket>,
    pub deployments: Store<Deployment>,
    pub servers: Store<ToolServer>,
    pub providers: Store<VerificationProvider>,
    /// True once all of them are filled.
    pub filled: tokio::sync::watch::Receiver<bool>,
}

impl Stores {
    /// Waits until every watch has brought what there is. Before that, something
    /// that is merely not known yet would be taken for gone.
    pub async fn filled(&self) {
        // Only the end of the controller drops the sender, and then nothing is decided any more.
        if self
            .filled
            .clone()
            .wait_for(|filled| *filled)
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    }
}

pub struct Context {
    pub kube: Client,
    pub options: Options,
    pub stores: Stores,
    pub index: TicketIndex,
    pub clients: ClientIndex,
    pub halopsa: HaloPool,
    pub directory: Directory,
    pub backoff: Backoff<(String, String, &'static str)>,
    pub sweeps: super::connection::sweep::Sweeps,
    pub polls: super::ticket::approval::Polls,
    pub verified: super::connection::Verified,
    pub applied: super::client::workload::Applied,
    pub published: super::certificates::Published,
    recorder: Recorder,
}

impl Context {
    pub fn new(kube: Client, options: Options, stores: Stores) -> Self {
        let reporter = Reporter {
            controller: names::OPERATOR.into(),
            instance: std::env::var("POD_NAME").ok(),
        };
        Self {
            recorder: Recorder::new(kube.clone(), reporter),
            halopsa: HaloPool::new(kube.clone(), options.rate_share, options.timeout),
            directory: Directory::default(),
            index: TicketIndex::default(),
            clients: ClientIndex::default(),
            backoff: Backoff::default(),
            sweeps: super::connection::sweep::Sweeps::default(),
            polls: super::ticket::approval::Polls::default(),
            verified: super::connection::Verified::default(),
            applied: super::client::workload::Applied::default(),
            published: super::certificates::Published::default(),
            kube,
            options,
            stores,
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
            if condition.type_ == condition::READY
                || old.is_some_and(|o| o.status == condition.status && o.reason == condition.reason)
            {
                continue;
            }
            let wanted = condition.status == "True"
                || [Reason::Provisioning, Reason::Suspended, Reason::NoProvider]
                    .iter()
                    .any(|r| condition.reason == *r);
            let type_ = if wanted {
                EventType::Normal
            } else {
                EventType::Warning
            };
            // What has not been looked at yet is no news.
            if condition.reason != Reason::NotChecked && condition.reason != Reason::Pending {
                let (kind, namespace, name) = (
                    about.kind.as_deref(),
                    about.namespace.as_deref(),
                    about.name.as_deref(),
                );
                match type_ {
                    EventType::Normal => {
                        tracing::info!(
                            kind,
                            namespace,
                            name,
                            condition = condition.type_,
                            reason = condition.reason,
                            "{}",
                            condition.message
                        )
                    }
                    EventType::Warning => {
                        tracing::warn!(
                            kind,
                            namespace,
                            name,
                            condition = condition.type_,
                            reason = condition.reason,
                            "{}",
                            condition.message
                        )
                    }
                }
                self.event_as(
                    about,
                    type_,
                    &condition.reason,
                    &condition.type_,
                    &condition.message,
                )
                .await;
            }
        }
    }

    /// An Event for a kind with one condition, when that has changed.
    pub async fn emit_if_changed(
        &self,
        about: &ObjectReference,
        before: Option<&Condition>,
        verdict: &condition::ConditionUpdate,
    ) {
        if before.is_some_and(|b| b.status == verdict.status.as_str() && b.reason == verdict.reason)
        {
            return;
        }
        let (kind, namespace, name) = (
            about.kind.as_deref(),
            about.namespace.as_deref(),
            about.name.as_deref(),
        );
        tracing::info!(
            kind,
            namespace,
            name,
            reason = verdict.reason.as_str(),
            "{}",
            verdict.message
        );
        let type_ = if verdict.is_true() {
            EventType::Normal
        } else {
            EventType::Warning
        };
        self.event(about, type_, verdict.reason, "Reconcile", &verdict.message)
            .await;
    }

    /// Publishes an Event. Events are a courtesy: that one could not be written fails nothing.
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
            tracing::debug!(%error, reason, "an Event was not written");
        }
    }
}

/// Counts failures in a row, for waits that grow.
#[derive(Debug)]
pub struct Backoff<K>(Mutex<HashMap<K, u32>>);

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq> Backoff<K> {
    /// The wait after one more failure: 1 s, 2 s, 4 s ... 60 s, each with jitter.
    pub fn next(&self, key: K) -> Duration {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key).or_default();
        *count += 1;
        Duration::from_secs(1 << (*count - 1).min(6))
            .min(Duration::from_secs(60))
            .mul_f64(rand::random_range(0.75..1.25))
    }

    pub fn reset(&self, key: &K) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

/// A time with jitter, so that many objects do not come due together.
pub fn jitter(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.9..1.1))
}
