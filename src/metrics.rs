//! Prometheus metrics. Labels are bounded: no ids, no names of people, no ticket text.

use crate::halopsa::Observer;
use crate::halopsa::limit::Limiter;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// The values of one label, in snake_case.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident => $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
        pub enum $name {
            $($(#[$about])* $variant),*
        }

        impl $name {
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $text),*
                }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(
                &self,
                encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
            ) -> Result<(), std::fmt::Error> {
                EncodeLabelValue::encode(&self.as_str(), encoder)
            }
        }
    };
}

label! {
    WebhookResult {
        /// A Ticket was stored or updated.
        Stored => "stored",
        /// Nothing to do: a repeat, our own event, a change that needs no work.
        Nothing => "nothing",
        NotImported => "not_imported",
        Unreadable => "unreadable",
        Unauthorized => "unauthorized",
        /// The apiserver could not store it; HaloPSA was told so.
        Failed => "failed",
    }
}
label! {
    /// What happened to a request for approval.
    ApprovalOutcome {
        Requested => "requested",
        Approved => "approved",
        Denied => "denied",
        Expired => "expired",
        /// A reply that looked like a decision and did not count.
        Ignored => "ignored",
    }
}
label! {
    StepOutcome {
        Done => "done",
        Failed => "failed",
        Unknown => "unknown",
    }
}
label! {
    ModelOutcome {
        Ok => "ok",
        /// Over budget, or not allowed.
        Refused => "refused",
        Failed => "failed",
    }
}
label! {
    VerificationOutcome {
        Started => "started",
        Sent => "sent",
        Verified => "verified",
        Denied => "denied",
        Expired => "expired",
        Failed => "failed",
        Skipped => "skipped",
        Overridden => "overridden",
    }
}
label! {
    ReconcileResult {
        Ok => "ok",
        Error => "error",
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct WebhookLabels {
    pub result: WebhookResult,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ToolLabels {
    pub tool: &'static str,
    pub outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ApprovalLabels {
    pub outcome: ApprovalOutcome,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StepLabels {
    pub outcome: StepOutcome,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ModelLabels {
    pub outcome: ModelOutcome,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct VerificationLabels {
    pub outcome: VerificationOutcome,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReconcileLabels {
    pub kind: String,
    pub result: ReconcileResult,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct KindLabels {
    pub kind: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    pub method: String,
    /// The path with `{id}` for ids.
    pub path: String,
    /// HTTP status; 0 without an answer.
    pub status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PathLabels {
    pub method: String,
    pub path: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ConnectionLabels {
    /// `namespace/name`
    pub connection: String,
}

/// The request windows of this process's connections, read when metrics are scraped.
#[derive(Clone, Debug, Default)]
struct Windows(Arc<Mutex<Vec<Window>>>);

/// A connection, and its window while it exists.
type Window = (String, Weak<Limiter>);

impl Collector for Windows {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (used, size) = (
            Family::<ConnectionLabels, Gauge>::default(),
            Family::<ConnectionLabels, Gauge>::default(),
        );
        for (connection, limiter) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let Some(limiter) = limiter.upgrade() else {
                continue;
            };
            let (taken, limit) = limiter.usage();
            let labels = ConnectionLabels {
                connection: connection.clone(),
            };
            used.get_or_create(&labels)
                .set(i64::try_from(taken).unwrap_or(i64::MAX));
            size.get_or_create(&labels)
                .set(i64::try_from(limit).unwrap_or(i64::MAX));
        }
        let about = "Requests to HaloPSA in the current window, sent by this process";
        used.encode(encoder.encode_descriptor(
            "request_window_used",
            about,
            None,
            used.metric_type(),
        )?)?;
        let about = "Requests this process may send in a window: its share of HaloPSA's limit";
        size.encode(encoder.encode_descriptor(
            "request_window_limit",
            about,
            None,
            size.metric_type(),
        )?)
    }
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// The metrics of a process, handed to whoever counts.
pub struct Metrics {
    registry: Registry,
    pub webhooks: Family<WebhookLabels, Counter>,
    pub webhook_duration_seconds: Histogram,
    pub claims: Counter,
    pub completions: Counter,
    pub tool_calls: Family<ToolLabels, Counter>,
    pub approvals: Family<ApprovalLabels, Counter>,
    pub approved_steps: Family<StepLabels, Counter>,
    pub model_calls: Family<ModelLabels, Counter>,
    pub model_tokens: Counter,
    pub verifications: Family<VerificationLabels, Counter>,
    reconciles: Family<ReconcileLabels, Counter>,
    reconcile_duration_seconds: Histograms<KindLabels>,
    requests: Family<RequestLabels, Counter>,
    request_duration_seconds: Histograms<PathLabels>,
    windows: Windows,
}

fn webhook_histogram() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ])
}

fn request_histogram() -> Histogram {
    Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
}

/// Registers metrics as they are made.
struct Registered(Registry);

impl Registered {
    fn metric<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }

    fn counter(&mut self, name: &str, help: &str) -> Counter {
        self.metric(name, help, Counter::default())
    }

    fn counters<L>(&mut self, name: &str, help: &str) -> Family<L, Counter>
    where
        L: EncodeLabelSet + Clone + Hash + Eq + Debug + Send + Sync + 'static,
    {
        self.metric(name, help, Family::default())
    }

    fn durations<L>(&mut self, name: &str, help: &str) -> Histograms<L>
    where
        L: EncodeLabelSet + Clone + Hash + Eq + Debug + Send + Sync + 'static,
    {
        let family = Family::new_with_constructor(request_histogram as fn() -> Histogram);
        self.metric(name, help, family)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut r = Registered(Registry::with_prefix("halopsa"));
        let windows = Windows::default();
        r.0.register_collector(Box::new(windows.clone()));
        Self {
            webhooks: r.counters("webhook_events", "Webhook events by result"),
            webhook_duration_seconds: r.metric(
                "webhook_duration_seconds",
                "Time from a webhook's arrival to its answer",
                webhook_histogram(),
            ),
            claims: r.counter("ticket_claims", "Tickets handed to agents"),
            completions: r.counter("ticket_completions", "Tickets agents finished"),
            tool_calls: r.counters("tool_calls", "Tool calls by agents"),
            approvals: r.counters("approvals", "Requests for approval by outcome"),
            approved_steps: r.counters("approved_steps", "Approved steps run, by outcome"),
            model_calls: r.counters("model_calls", "Calls to language models by outcome"),
            model_tokens: r.counter(
                "model_tokens",
                "Tokens used by language models, as their providers count them",
            ),
            verifications: r.counters(
                "verifications",
                "Identity verifications of requesters by outcome",
            ),
            reconciles: r.counters("reconciles", "Reconciliations by kind and result"),
            reconcile_duration_seconds: r.durations(
                "reconcile_duration_seconds",
                "Duration of one reconciliation",
            ),
            requests: r.counters(
                "requests",
                "Requests to HaloPSA by path and HTTP status (0: no answer)",
            ),
            request_duration_seconds: r.durations(
                "request_duration_seconds",
                "Duration of one request to HaloPSA",
            ),
            windows,
            registry: r.0,
        }
    }
}

impl Metrics {
    /// Counts one reconciliation.
    pub fn reconciled(&self, kind: &str, result: ReconcileResult, took: Duration) {
        let kind = kind.to_string();
        self.reconcile_duration_seconds
            .get_or_create(&KindLabels { kind: kind.clone() })
            .observe(took.as_secs_f64());
        self.reconciles
            .get_or_create(&ReconcileLabels { kind, result })
            .inc();
    }

    /// Shows how full a connection's request window is, for as long as it exists.
    pub fn watch_window(&self, connection: &str, limiter: &Arc<Limiter>) {
        let mut windows = self
            .windows
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        windows.retain(|(name, limiter)| name != connection && limiter.strong_count() > 0);
        windows.push((connection.to_string(), Arc::downgrade(limiter)));
    }

    /// In the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl Observer for Metrics {
    fn request(&self, call: &str, status: u16, took: Duration) {
        let (method, path) = call.split_once(' ').unwrap_or((call, ""));
        let (method, path) = (method.to_string(), path.to_string());
        self.request_duration_seconds
            .get_or_create(&PathLabels {
                method: method.clone(),
                path: path.clone(),
            })
            .observe(took.as_secs_f64());
        self.requests
            .get_or_create(&RequestLabels {
                method,
                path,
                status,
            })
            .inc();
    }
}

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
