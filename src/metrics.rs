//! Prometheus metrics. Labels are bounded: no ids, no names of people, no ticket text.

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
use prometheus_client::registry::Registry;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum WebhookResult {
    /// A Ticket was stored or brought up to date.
    Stored,
    /// Nothing to do: a repeat, our own event, a change that is no work.
    Nothing,
    NotImported,
    Unreadable,
    Unauthorized,
    /// The apiserver could not store it; HaloPSA was told so.
    Failed,
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
    /// requested, approved, denied, expired, ignored
    pub outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StepLabels {
    pub outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    pub method: String,
    /// The path with `{id}` for ids.
    pub path: String,
    /// HTTP status; 0 when none came.
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

/// The request windows of all connections of this process, looked at when metrics are read.
#[derive(Clone, Debug, Default)]
struct Windows(Arc<Mutex<Vec<(String, Weak<Limiter>)>>>);

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
            let (taken, of) = limiter.usage();
            let labels = ConnectionLabels {
                connection: connection.clone(),
            };
            used.get_or_create(&labels)
                .set(i64::try_from(taken).unwrap_or(i64::MAX));
            size.get_or_create(&labels)
                .set(i64::try_from(of).unwrap_or(i64::MAX));
        }
        let about = "Requests to HaloPSA in the current window, of this process";
        used.encode(encoder.encode_descriptor(
            "request_window_used",
            about,
            None,
            used.metric_type(),
        )?)?;
        let about = "Requests this process may send in a window, its share of HaloPSA's limit";
        size.encode(encoder.encode_descriptor(
            "request_window_limit",
            about,
            None,
            size.metric_type(),
        )?)
    }
}

/// The metrics of a process.
pub struct Metrics {
    registry: Registry,
    pub webhooks: Family<WebhookLabels, Counter>,
    /// Seconds from the request to the answer.
    pub webhook_duration_seconds: Histogram,
    pub claims: Counter,
    pub completions: Counter,
    pub tool_calls: Family<ToolLabels, Counter>,
    pub approvals: Family<ApprovalLabels, Counter>,
    pub approved_steps: Family<StepLabels, Counter>,
    pub model_calls: Family<StepLabels, Counter>,
    pub model_tokens: Counter,
    pub verifications: Family<ApprovalLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    request_duration_seconds: Family<PathLabels, Histogram, fn() -> Histogram>,
    windows: Windows,
}

fn request_histogram() -> Histogram {
    Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
}

pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::with_prefix("halopsa");
        let metrics = Self {
            webhooks: Family::default(),
            webhook_duration_seconds: Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
            ]),
            claims: Counter::default(),
            completions: Counter::default(),
            tool_calls: Family::default(),
            approvals: Family::default(),
            approved_steps: Family::default(),
            model_calls: Family::default(),
            model_tokens: Counter::default(),
            verifications: Family::default(),
            requests: Family::default(),
            request_duration_seconds: Family::new_with_constructor(
                request_histogram as fn() -> Histogram,
            ),
            windows: Windows::default(),
            registry: Registry::default(),
        };
        registry.register(
            "webhook_events",
            "Events in webhooks received, by what became of them",
            metrics.webhooks.clone(),
        );
        registry.register(
            "webhook_duration_seconds",
            "From a webhook's arrival to its answer, in seconds",
            metrics.webhook_duration_seconds.clone(),
        );
        registry.register(
            "ticket_claims",
            "Tickets handed to agents",
            metrics.claims.clone(),
        );
        registry.register(
            "ticket_completions",
            "Tickets agents finished",
            metrics.completions.clone(),
        );
        registry.register(
            "tool_calls",
            "Tool calls by agents",
            metrics.tool_calls.clone(),
        );
        registry.register(
            "approvals",
            "Requests for approval, by what became of them",
            metrics.approvals.clone(),
        );
        registry.register(
            "approved_steps",
            "Approved steps run, by what came of them",
            metrics.approved_steps.clone(),
        );
        registry.register(
            "model_calls",
            "Calls to language models, by what came of them",
            metrics.model_calls.clone(),
        );
        registry.register(
            "model_tokens",
            "Tokens used by language models, as their providers count",
            metrics.model_tokens.clone(),
        );
        registry.register(
            "verifications",
            "Requesters asked to prove who they are, by what came of it",
            metrics.verifications.clone(),
        );
        registry.register(
            "requests",
            "Requests to HaloPSA, by path and HTTP status (0: no answer)",
            metrics.requests.clone(),
        );
        registry.register(
            "request_duration_seconds",
            "Time of one request to HaloPSA, in seconds",
            metrics.request_duration_seconds.clone(),
        );
        registry.register_collector(Box::new(metrics.windows.clone()));
        Self {
            registry,
            ..metrics
        }
    }

    /// Counts one request to HaloPSA, named like `GET /Tickets/{id}`.
    pub fn halopsa_request(&self, call: &str, status: u16, took: Duration) {
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

    /// Shows how full a connection's request window is, as long as it lives.
    pub fn watch_window(&self, connection: &str, limiter: &Arc<Limiter>) {
        let mut windows = self
            .windows
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        windows.retain(|(name, limiter)| name != connection && limiter.strong_count() > 0);
        windows.push((connection.to_string(), Arc::downgrade(limiter)));
    }

    /// In OpenMetrics text form.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
