//! Where log lines and spans go: standard error, and an OpenTelemetry collector
//! if `OTEL_EXPORTER_OTLP_ENDPOINT` names one (OTLP over HTTP, protobuf).

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
];
/// The spans that are exported: one per tool call.
const SPANS: &str = "audit";

/// Sends the remaining spans when dropped.
#[derive(Default)]
pub struct Guard(Option<SdkTracerProvider>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = &self.0 {
            let _ = provider.shutdown();
        }
    }
}

/// kube's client logs whole responses of the apiserver at WARN, tickets among them; rmcp logs
/// answers of other MCP servers at ERROR. No filter a user sets brings those lines back.
fn is_ours_to_log(line: &Metadata<'_>) -> bool {
    let (target, is_error) = (line.target(), *line.level() == Level::ERROR);
    !target.starts_with("rmcp") && (is_error || !target.starts_with("kube_client"))
}

/// Sets up logging. Call it once, before a runtime starts: the exporter has its own thread.
pub fn init(json: bool) -> Result<Guard, ExporterBuildError> {
    let filter = || {
        EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| "info,kube_lease_manager=warn,opentelemetry=warn".into())
    };
    let lines = match json {
        true => fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr)
            .boxed(),
        false => fmt::layer()
            .with_ansi(false)
            .with_writer(std::io::stderr)
            .boxed(),
    };
    let wanted = ENDPOINTS
        .iter()
        .any(|name| std::env::var(name).is_ok_and(|v| !v.is_empty()));
    let provider = if wanted {
        Some(provider(SpanExporter::builder().with_http().build()?))
    } else {
        None
    };
    let spans = provider.as_ref().map(layer);
    tracing_subscriber::registry()
        .with(lines.with_filter(filter().and(filter_fn(is_ours_to_log))))
        .with(spans)
        .init();
    Ok(Guard(provider))
}

fn provider(exporter: SpanExporter) -> SdkTracerProvider {
    let name = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "halopsa-operator".into());
    SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name(name).build())
        .build()
}

fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("halopsa-operator"))
        .with_filter(filter_fn(|m| m.is_span() && m.target() == SPANS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_otlp::WithExportConfig;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn a_tool_call_reaches_the_collector() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let collector = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/v1/traces", collector.local_addr().unwrap());
        let received = std::thread::spawn(move || {
            let (mut stream, _) = collector.accept().unwrap();
            let (mut all, mut part) = (Vec::new(), [0; 4096]);
            loop {
                let read = stream.read(&mut part).unwrap();
                all.extend_from_slice(&part[..read]);
                let text = String::from_utf8_lossy(&all);
                let head = text.find("\r\n\r\n");
                let length = text
                    .to_lowercase()
                    .split("content-length: ")
                    .nth(1)
                    .and_then(|l| l.lines().next()?.trim().parse::<usize>().ok());
                if read == 0
                    || head
                        .zip(length)
                        .is_some_and(|(h, l)| all.len() >= h + 4 + l)
                {
                    break;
                }
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .unwrap();
            String::from_utf8_lossy(&all).into_owned()
        });
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(endpoint)
            .build()
            .unwrap();
        let provider = provider(exporter);
        tracing::subscriber::with_default(
            tracing_subscriber::registry().with(layer(&provider)),
            || {
                let span = tracing::info_span!(
                    target: "audit",
                    "tool_call",
                    otel.name = "tool halopsa_log_time",
                    rule = tracing::field::Empty
                );
                span.record("rule", "built-in");
                span.in_scope(|| tracing::info_span!("not exported").in_scope(|| ()));
            },
        );
        provider.shutdown().unwrap();
        let received = received.join().unwrap();
        assert!(
            received.contains("tool halopsa_log_time") && received.contains("built-in"),
            "{received}"
        );
        assert!(!received.contains("not exported"));
    }

    /// Counts the lines a layer lets through.
    #[derive(Clone, Default)]
    struct Count(std::sync::Arc<std::sync::atomic::AtomicUsize>);

    impl<S: Subscriber> Layer<S> for Count {
        fn on_event(&self, _: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[test]
    fn no_filter_brings_the_apiservers_responses_into_the_log() {
        let count = Count::default();
        let filter = EnvFilter::new("kube_client=trace,kube_client::client=trace");
        let layer = count
            .clone()
            .with_filter(filter.and(filter_fn(is_ours_to_log)));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(target: "kube_client::client", "{{\"items\": []}}, Error(..)");
            tracing::debug!(target: "kube_client", "a response");
            tracing::error!(target: "kube_client", "an error");
            tracing::error!(target: "rmcp::transport::worker", "an answer");
        });
        assert_eq!(count.0.load(std::sync::atomic::Ordering::Relaxed), 1);
    }
}
