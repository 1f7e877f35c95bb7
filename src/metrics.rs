//! Prometheus metrics. Labels are bounded: no ids, no names of people, no ticket text.

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::LazyLock;

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

/// The metrics of a process.
pub struct Metrics {
    registry: Registry,
    pub webhooks: Family<WebhookLabels, Counter>,
    /// Seconds from the request to the answer.
    pub webhook_seconds: Histogram,
    pub claims: Counter,
    pub completions: Counter,
    pub tool_calls: Family<ToolLabels, Counter>,
    pub approvals: Family<ApprovalLabels, Counter>,
    pub approved_steps: Family<StepLabels, Counter>,
    pub model_calls: Family<StepLabels, Counter>,
    pub model_tokens: Counter,
    pub verifications: Family<ApprovalLabels, Counter>,
}

pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::with_prefix("halopsa");
        let metrics = Self {
            webhooks: Family::default(),
            webhook_seconds: Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
            claims: Counter::default(),
            completions: Counter::default(),
            tool_calls: Family::default(),
            approvals: Family::default(),
            approved_steps: Family::default(),
            model_calls: Family::default(),
            model_tokens: Counter::default(),
            verifications: Family::default(),
            registry: Registry::default(),
        };
        registry.register("webhook_events", "Events in webhooks received, by what became of them", metrics.webhooks.clone());
        registry.register("webhook_seconds", "From a webhook's arrival to its answer, in seconds", metrics.webhook_seconds.clone());
        registry.register("ticket_claims", "Tickets handed to agents", metrics.claims.clone());
        registry.register("ticket_completions", "Tickets agents finished", metrics.completions.clone());
        registry.register("tool_calls", "Tool calls by agents", metrics.tool_calls.clone());
        registry.register("approvals", "Requests for approval, by what became of them", metrics.approvals.clone());
        registry.register("approved_steps", "Approved steps run, by what came of them", metrics.approved_steps.clone());
        registry.register("model_calls", "Calls to language models, by what came of them", metrics.model_calls.clone());
        registry.register("model_tokens", "Tokens used by language models, as their providers count", metrics.model_tokens.clone());
        registry.register("verifications", "Requesters asked to prove who they are, by what came of it", metrics.verifications.clone());
        Self { registry, ..metrics }
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
