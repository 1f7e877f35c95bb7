//! Deliberate faults: standing, for the next requests, or at random.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// The faults in force.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Every request is answered 503 with an HTML page.
    pub down: bool,
    /// Every response takes this long.
    pub latency_ms: u64,
    /// Response times follow a log-normal distribution.
    pub latency: Option<Latency>,
    /// A write is visible to reads only after this time.
    pub read_lag_ms: u64,
    /// HaloPSA's clock is ahead by this, or behind if negative.
    pub clock_skew_seconds: i64,
    /// Webhooks are recorded but not sent.
    pub lose_webhooks: bool,
    /// Webhooks are sent twice.
    pub duplicate_webhooks: bool,
    /// Every other webhook is held back until the next one has been sent.
    pub reorder_webhooks: bool,
    /// This many of the next writes are carried out, then answered 504.
    pub lose_replies: u32,
    /// This many of the next requests are answered 500.
    pub fail_next: u32,
    /// Faults for the next requests; an entry is used up after `times` of them.
    pub next: Vec<Next>,
    /// Probability of each kind of fault per request, from 0 to 1.
    pub chance: BTreeMap<Kind, f64>,
    /// The same seed and the same requests give the same faults.
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    pub p50_ms: f64,
    pub p99_ms: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Next {
    pub kind: Kind,
    #[serde(default = "once")]
    pub times: u32,
    /// Only requests with this method.
    #[serde(default)]
    pub method: Option<String>,
    /// Only paths with this prefix, like `/api/actions`.
    #[serde(default)]
    pub path: Option<String>,
    /// The request is carried out before it goes wrong.
    #[serde(default)]
    pub carried_out: bool,
}

fn once() -> u32 {
    1
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// 500, 502, 503, 504 with an HTML page, as a proxy sends it.
    Http500,
    Http502,
    Http503,
    Http504,
    /// 500 with a .NET exception.
    Exception,
    /// 200 and an HTML page.
    HtmlPage,
    /// 200 and an error as JSON.
    ErrorIn200,
    /// 200 and an empty body.
    Empty,
    /// The token is rejected before it expires.
    Unauthorized,
    /// The request limit is reached, with `Retry-After: 1`.
    RateLimited,
    /// The same without `Retry-After`, and without naming the limit.
    RateLimitedSilently,
    /// The connection closes without a response.
    Reset,
    /// The connection closes in the middle of the response.
    HalfBody,
    /// The response trickles in over 3 s.
    SlowBody,
    /// The response begins and never ends.
    Hang,
    /// The response is longer than any client should read.
    Endless,
    /// 302 to another host.
    Redirect,
}

impl Kind {
    pub const ALL: [Kind; 17] = [
        Kind::Http500,
        Kind::Http502,
        Kind::Http503,
        Kind::Http504,
        Kind::Exception,
        Kind::HtmlPage,
        Kind::ErrorIn200,
        Kind::Empty,
        Kind::Unauthorized,
        Kind::RateLimited,
        Kind::RateLimitedSilently,
        Kind::Reset,
        Kind::HalfBody,
        Kind::SlowBody,
        Kind::Hang,
        Kind::Endless,
        Kind::Redirect,
    ];

    /// These corrupt the response to a request that was carried out.
    fn needs_answer(self) -> bool {
        matches!(self, Kind::HalfBody | Kind::SlowBody | Kind::Hang)
    }
}

/// A fault that hits a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    pub kind: Kind,
    pub carried_out: bool,
}

/// Faults, with the random numbers they need.
#[derive(Debug)]
pub struct Engine {
    pub faults: Faults,
    dice: StdRng,
    /// Faults that hit so far.
    pub hits: u64,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            faults: Faults::default(),
            dice: StdRng::seed_from_u64(0),
            hits: 0,
        }
    }
}

impl Engine {
    pub fn set(&mut self, faults: Faults) {
        self.dice = StdRng::seed_from_u64(faults.seed);
        self.faults = faults;
    }

    /// How long this response takes.
    pub fn latency(&mut self) -> Duration {
        let fixed = Duration::from_millis(self.faults.latency_ms);
        let Some(latency) = self.faults.latency else {
            return fixed;
        };
        // Box-Muller transform; p99 is 2.326 standard deviations from the median.
        let (a, b): (f64, f64) = (
            self.dice.random_range(f64::EPSILON..1.0),
            self.dice.random(),
        );
        let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
        let p50 = latency.p50_ms.max(0.01);
        let deviation = (latency.p99_ms.max(p50) / p50).ln() / 2.326;
        fixed + Duration::from_secs_f64((p50 * (deviation * normal).exp()).min(600_000.0) / 1000.0)
    }

    /// The fault for this request, if any.
    pub fn hit(&mut self, method: &str, path: &str) -> Option<Hit> {
        let hit = self.next(method, path);
        self.hits += u64::from(hit.is_some());
        hit
    }

    fn next(&mut self, method: &str, path: &str) -> Option<Hit> {
        let faults = &mut self.faults;
        if faults.down {
            return Some(Hit {
                kind: Kind::Http503,
                carried_out: false,
            });
        }
        if faults.fail_next > 0 {
            faults.fail_next -= 1;
            return Some(Hit {
                kind: Kind::Http500,
                carried_out: false,
            });
        }
        let fits = |next: &Next| {
            next.times > 0
                && next
                    .method
                    .as_ref()
                    .is_none_or(|m| m.eq_ignore_ascii_case(method))
                && next
                    .path
                    .as_ref()
                    .is_none_or(|p| path.starts_with(&p.to_ascii_lowercase()))
        };
        if let Some(next) = faults.next.iter_mut().find(|n| fits(n)) {
            next.times -= 1;
            let hit = Hit {
                kind: next.kind,
                carried_out: next.carried_out || next.kind.needs_answer(),
            };
            faults.next.retain(|n| n.times > 0);
            return Some(hit);
        }
        if faults.lose_replies > 0 && method != "GET" && path.starts_with("/api/") {
            faults.lose_replies -= 1;
            return Some(Hit {
                kind: Kind::Http504,
                carried_out: true,
            });
        }
        for (kind, chance) in &faults.chance {
            if self.dice.random_bool(chance.clamp(0.0, 1.0)) {
                return Some(Hit {
                    kind: *kind,
                    carried_out: kind.needs_answer(),
                });
            }
        }
        None
    }
}

fn page(status: StatusCode) -> Response {
    let title = format!(
        "{} {}",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default()
    );
    (
        status,
        axum::response::Html(format!(
            "<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
        )),
    )
        .into_response()
}

/// What the client gets instead of `answer`.
pub async fn spoil(kind: Kind, answer: Response) -> Response {
    match kind {
        Kind::Http500 => page(StatusCode::INTERNAL_SERVER_ERROR),
        Kind::Http502 => page(StatusCode::BAD_GATEWAY),
        Kind::Http503 => page(StatusCode::SERVICE_UNAVAILABLE),
        Kind::Http504 => page(StatusCode::GATEWAY_TIMEOUT),
        Kind::HtmlPage => page(StatusCode::OK),
        Kind::Exception => {
            let body = json!({"ClassName": "System.Data.SqlClient.SqlException", "Message": "Execution Timeout Expired.", "HResult": -2146232060i64});
            (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(body)).into_response()
        }
        Kind::ErrorIn200 => axum::Json(json!({"error": "the query was too heavy", "error_description": "try again with fewer rows"})).into_response(),
        Kind::Empty => StatusCode::OK.into_response(),
        Kind::Unauthorized => (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "").into_response(),
        Kind::RateLimited => {
            let text = "Rate Limit Reached - 300 Requests per rolling 5 minute window";
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")], text).into_response()
        }
        Kind::RateLimitedSilently => StatusCode::TOO_MANY_REQUESTS.into_response(),
        // Unwinding silently ends the connection's task and so the connection. No panic hook runs.
        Kind::Reset => std::panic::resume_unwind(Box::new("a fault: the connection ends")),
        Kind::Redirect => (StatusCode::FOUND, [(header::LOCATION, "https://elsewhere.example/api")], "").into_response(),
        Kind::Endless => endless(),
        Kind::HalfBody | Kind::SlowBody | Kind::Hang => broken_body(kind, answer).await,
    }
}

/// A gigabyte of JSON, or as much of it as is read.
fn endless() -> Response {
    let (send, receive) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(4);
    tokio::spawn(async move {
        let _ = send.send(Ok(Bytes::from_static(b"[0"))).await;
        let chunk = Bytes::from(",0".repeat(32 << 10));
        for _ in 0..(1 << 30) / chunk.len() {
            if send.send(Ok(chunk.clone())).await.is_err() {
                return;
            }
        }
    });
    (
        [(header::CONTENT_TYPE, "application/json")],
        Body::from_stream(Chunks(receive)),
    )
        .into_response()
}

async fn broken_body(kind: Kind, answer: Response) -> Response {
    let (mut parts, body) = answer.into_parts();
    let bytes = axum::body::to_bytes(body, 64 << 20)
        .await
        .unwrap_or_default();
    parts
        .headers
        .insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let half = bytes.len() / 2;
    let (send, receive) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    tokio::spawn(async move {
        match kind {
            Kind::HalfBody => {
                let _ = send.send(Ok(bytes.slice(..half))).await;
                // What was sent has to go out before the connection breaks.
                tokio::time::sleep(Duration::from_millis(20)).await;
                let _ = send
                    .send(Err(std::io::Error::other("a fault: half a body")))
                    .await;
            }
            Kind::SlowBody => {
                for chunk in bytes.chunks(bytes.len().div_ceil(10).max(1)) {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    if send.send(Ok(Bytes::copy_from_slice(chunk))).await.is_err() {
                        return;
                    }
                }
            }
            _ => {
                let _ = send.send(Ok(bytes.slice(..half))).await;
                send.closed().await;
            }
        }
    });
    Response::from_parts(parts, Body::from_stream(Chunks(receive)))
}

struct Chunks(tokio::sync::mpsc::Receiver<Result<Bytes, std::io::Error>>);

impl futures_core::Stream for Chunks {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_requests_are_chosen_and_counted() {
        let mut engine = Engine::default();
        engine.set(
            serde_json::from_value(json!({"next": [{"kind": "http502", "times": 2, "method": "POST", "path": "/api/Actions"}], "lose_replies": 1}))
                .unwrap(),
        );
        assert_eq!(engine.hit("GET", "/api/actions"), None);
        let hit = Hit {
            kind: Kind::Http502,
            carried_out: false,
        };
        assert_eq!(
            (
                engine.hit("POST", "/api/actions"),
                engine.hit("POST", "/api/actions")
            ),
            (Some(hit), Some(hit))
        );
        assert_eq!(
            engine.hit("POST", "/api/actions"),
            Some(Hit {
                kind: Kind::Http504,
                carried_out: true
            })
        );
        assert_eq!(engine.hit("POST", "/api/actions"), None);
    }

    #[test]
    fn chance_repeats_with_its_seed() {
        let faults: Faults =
            serde_json::from_value(json!({"chance": {"reset": 0.2, "http500": 0.1}, "seed": 7}))
                .unwrap();
        let run = || {
            let mut engine = Engine::default();
            engine.set(faults.clone());
            (0..1000)
                .map(|_| engine.hit("GET", "/api/tickets"))
                .collect::<Vec<_>>()
        };
        let hits = run();
        assert_eq!(hits, run());
        assert!((200..400).contains(&hits.iter().flatten().count()));
    }

    #[test]
    fn latency_has_its_distribution() {
        let mut engine = Engine::default();
        engine.set(
            serde_json::from_value(json!({"latency": {"p50_ms": 20, "p99_ms": 900}})).unwrap(),
        );
        let mut all: Vec<Duration> = (0..20_000).map(|_| engine.latency()).collect();
        all.sort();
        assert!(
            (18..=22).contains(&all[10_000].as_millis())
                && (700..=1200).contains(&all[19_800].as_millis())
        );
    }
}
