//! The language model: an OpenAI-compatible endpoint, reached on behalf of the agent.
//!
//! The gateway adds the key, names the model, counts tokens as the provider
//! reports them, and enforces the budget. The agent sees neither key nor address.

use super::identity::Identity;
use super::{Gateway, SUSPENDED, work};
use crate::api::connection::ModelSpec;
use crate::api::ticket::{ModelUse, Ticket, TicketStatus};
use crate::error::root_cause;
use crate::k8s::{refs, services, tickets};
use crate::metrics::{Metrics, ModelLabels, ModelOutcome};
use crate::ticket::actor::Actor;
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The longest answer of a model, in bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// The longest line of a stream that is searched for the token count, in bytes.
const MAX_LINE: usize = 64 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What an agent may set; the rest of its request is dropped.
const PASSED: [&str; 13] = [
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "response_format",
    "stop",
    "seed",
    "stream",
    "reasoning_effort",
];
/// Characters per token, for providers that do not count.
const CHARACTERS_PER_TOKEN: usize = 4;

/// Why a call was not made, or has no result.
struct Refusal {
    status: StatusCode,
    kind: &'static str,
    message: String,
    retry_after: Option<HeaderValue>,
}

impl Refusal {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
            retry_after: None,
        }
    }

    fn unavailable(why: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why)
    }

    fn no_ticket(why: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "no_ticket", why)
    }

    fn bad_gateway(kind: &'static str, why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, kind, why)
    }

    fn outcome(&self) -> ModelOutcome {
        match self.status.is_client_error() {
            true => ModelOutcome::Refused,
            false => ModelOutcome::Failed,
        }
    }
}

/// In OpenAI's form.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"error": {"message": self.message, "type": self.kind}});
        let mut response = (self.status, axum::Json(body)).into_response();
        let retry_after = self.retry_after.map(|value| (header::RETRY_AFTER, value));
        response.headers_mut().extend(retry_after);
        response
    }
}

fn count(metrics: &Metrics, outcome: ModelOutcome) {
    let labels = ModelLabels { outcome };
    metrics.model_calls.get_or_create(&labels).inc();
}

/// Whether the budget allows one more call: pure.
fn within_budget(
    spec: &ModelSpec,
    used: &ModelUse,
    today: &str,
    used_today: i64,
    at: TurnId,
    estimate: i64,
) -> Result<(), String> {
    let limits = &spec.limits;
    if used.tokens + estimate > limits.tokens_per_ticket {
        return Err(format!(
            "this ticket's budget of {} tokens is used up ({} used)",
            limits.tokens_per_ticket, used.tokens
        ));
    }
    if used_today + estimate > limits.tokens_per_day {
        return Err(format!(
            "the client's budget of {} tokens for {today} is used up ({used_today} used)",
            limits.tokens_per_day
        ));
    }
    if TurnId::of(used) == at && used.turn_calls >= i64::from(limits.steps_per_turn) {
        return Err(format!(
            "the model was asked {} times in this turn, which is the limit",
            limits.steps_per_turn
        ));
    }
    Ok(())
}

/// One turn of an agent on a ticket.
#[derive(Clone, Copy, PartialEq, Eq)]
struct TurnId {
    run: i32,
    turn: i32,
}

impl TurnId {
    fn of(used: &ModelUse) -> Self {
        Self {
            run: used.run,
            turn: used.turn,
        }
    }
}

/// The use after one more call: pure.
fn counted(used: &ModelUse, today: &str, at: TurnId, tokens: i64) -> ModelUse {
    let mut next = used.clone();
    next.tokens += tokens;
    next.calls += 1;
    next.tokens_on_day = if next.day == today {
        next.tokens_on_day
    } else {
        0
    } + tokens;
    next.day = today.to_string();
    next.turn_calls = if TurnId::of(&next) == at {
        next.turn_calls
    } else {
        0
    } + 1;
    (next.run, next.turn) = (at.run, at.turn);
    next
}

/// The request as it goes out: only what may be set, our model, one answer.
fn outgoing(given: Value, model: &str) -> Result<(Map<String, Value>, bool), &'static str> {
    let Value::Object(mut given) = given else {
        return Err("the body must be a JSON object, as OpenAI's chat completions take it");
    };
    if !given.get("messages").is_some_and(Value::is_array) {
        return Err("messages is missing");
    }
    given.retain(|key, _| PASSED.contains(&key.as_str()));
    let stream = given
        .get("stream")
        .and_then(Value::as_bool)
        .unwrap_or_default();
    given.insert("model".into(), model.into());
    if stream {
        given.insert("stream_options".into(), json!({"include_usage": true}));
    } else {
        given.remove("stream");
    }
    Ok((given, stream))
}

/// `POST /v1/model/chat/completions`
pub async fn completions(
    State(gateway): State<Arc<Gateway>>,
    Extension(identity): Extension<Identity>,
    body: Bytes,
) -> Response {
    match complete(&gateway, &identity, &body).await {
        Ok(response) => response,
        Err(refusal) => {
            count(&gateway.metrics, refusal.outcome());
            refusal.into_response()
        }
    }
}

async fn complete(
    gateway: &Gateway,
    identity: &Identity,
    body: &[u8],
) -> Result<Response, Refusal> {
    let scope = gateway.scope_of(identity).map_err(Refusal::unavailable)?;
    let spec = scope.model().ok_or_else(|| {
        let why = "no language model is configured for this client (agent.model)";
        Refusal::new(StatusCode::NOT_FOUND, "no_model", why)
    })?;
    if scope.connection.spec.suspend {
        return Err(Refusal::unavailable(SUSPENDED));
    }
    let ticket = held_ticket(gateway, identity).await?;
    let given = serde_json::from_slice(body).unwrap_or_default();
    let (request, stream) = outgoing(given, &spec.name)
        .map_err(|why| Refusal::new(StatusCode::BAD_REQUEST, "invalid_request_error", why))?;
    let meter = Meter::within_budget(gateway, identity, spec, ticket, body.len())?;
    let answer = ask(gateway, identity, spec, &request).await?;
    match stream {
        true => Ok(streamed(answer, meter)),
        false => whole(answer, meter).await,
    }
}

/// The ticket the agent holds: without one it may not use the model. Read again, because the watch
/// may be behind with what the last call used.
async fn held_ticket(gateway: &Gateway, identity: &Identity) -> Result<Ticket, Refusal> {
    let held = work::holding(gateway, identity)
        .await
        .ok_or_else(|| Refusal::no_ticket("you hold no ticket: claim one first"))?;
    work::api(gateway, identity)
        .get_opt(&held.name_any())
        .await
        .map_err(|error| Refusal::unavailable(crate::k8s::explain(&error)))?
        .ok_or_else(|| Refusal::no_ticket("the ticket no longer exists"))
}

/// Sends the request to the model's endpoint.
async fn ask(
    gateway: &Gateway,
    identity: &Identity,
    spec: &ModelSpec,
    request: &Map<String, Value>,
) -> Result<reqwest::Response, Refusal> {
    let (kube, namespace) = (&gateway.kube, &identity.namespace);
    let key = api_key(kube, namespace, spec)
        .await
        .map_err(Refusal::unavailable)?;
    let http = http_client(kube, namespace, spec)
        .await
        .map_err(Refusal::unavailable)?;
    let timeout = Duration::from(spec.limits.timeout);
    let mut call = http
        .post(format!("{}/chat/completions", spec.base_url))
        .timeout(timeout)
        .json(request);
    if let Some(key) = key {
        call = call.bearer_auth(key);
    }
    let answer = call.send().await.map_err(|error| {
        if error.is_timeout() {
            let why = format!("the model did not answer within {} s", timeout.as_secs());
            return Refusal::new(StatusCode::GATEWAY_TIMEOUT, "timeout", why);
        }
        let why = format!("cannot reach the model: {}", root_cause(&error));
        Refusal::bad_gateway("unreachable", why)
    })?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    tracing::warn!(
        namespace = %identity.namespace, client = %identity.client,
        status = answer.status().as_u16(),
        "the language model refused a call; check agent.model and its key"
    );
    Err(refused_upstream(&answer))
}

/// The provider's own words may quote the key, so the agent does not see them.
fn refused_upstream(answer: &reqwest::Response) -> Refusal {
    let status = answer.status();
    let is_transient = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    let code = match is_transient {
        true => StatusCode::BAD_GATEWAY,
        false => StatusCode::FAILED_DEPENDENCY,
    };
    let why = format!("the model's endpoint answered HTTP {}", status.as_u16());
    Refusal {
        retry_after: answer.headers().get(header::RETRY_AFTER).cloned(),
        ..Refusal::new(code, "upstream_error", why)
    }
}

/// Tokens that day on the client's other tickets.
fn tokens_today(gateway: &Gateway, identity: &Identity, except: &str, today: &str) -> i64 {
    let of_client = |t: &Ticket| {
        t.namespace().as_deref() == Some(&identity.namespace)
            && t.spec
                .client_ref
                .as_ref()
                .is_some_and(|c| c.name == identity.client)
            && t.name_any() != except
    };
    let tickets = gateway.stores.tickets.state_filter(of_client);
    tickets
        .iter()
        .filter_map(|t| t.status.as_ref()?.model.as_ref())
        .filter(|m| m.day == today)
        .map(|m| m.tokens_on_day)
        .sum()
}

async fn api_key(
    kube: &kube::Client,
    namespace: &str,
    spec: &ModelSpec,
) -> Result<Option<String>, String> {
    let Some(reference) = &spec.api_key_secret_ref else {
        return Ok(None);
    };
    let key = refs::secret_key(kube, namespace, &reference.name, &reference.key)
        .await
        .map_err(|e| format!("the model's key: {e}"))?;
    Ok(Some(key.expose_secret().to_string()))
}

async fn http_client(
    kube: &kube::Client,
    namespace: &str,
    spec: &ModelSpec,
) -> Result<reqwest::Client, String> {
    let guard = services::guard(kube, namespace, &spec.base_url)
        .await
        .map_err(|e| format!("the model's URL: {e}"))?;
    // A redirect would carry the key to whoever the endpoint names.
    let mut builder = reqwest::Client::builder()
        .dns_resolver(guard)
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none());
    if let Some(reference) = &spec.ca_config_map_ref {
        let certificates = refs::ca_certificates(kube, namespace, reference)
            .await
            .map_err(|e| format!("the model's CA: {e}"))?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|e| root_cause(&e))
}

/// Records what a call used.
struct Meter {
    metrics: Arc<Metrics>,
    api: Api<Ticket>,
    ticket: Ticket,
    today: String,
    turn: TurnId,
    by: String,
    estimate: i64,
}

impl Meter {
    /// For a call whose request has this length, if the budget allows it.
    fn within_budget(
        gateway: &Gateway,
        identity: &Identity,
        spec: &ModelSpec,
        ticket: Ticket,
        length: usize,
    ) -> Result<Self, Refusal> {
        let status = ticket.status.as_ref();
        let used = status.and_then(|s| s.model.clone()).unwrap_or_default();
        let turn = TurnId {
            run: status.map(|s| s.run).unwrap_or_default(),
            turn: status.map(|s| s.turn).unwrap_or_default(),
        };
        let today = Timestamp::now().strftime("%Y-%m-%d").to_string();
        let others = tokens_today(gateway, identity, &ticket.name_any(), &today);
        let own = match used.day == today {
            true => used.tokens_on_day,
            false => 0,
        };
        let estimate = (length / CHARACTERS_PER_TOKEN) as i64;
        within_budget(spec, &used, &today, others + own, turn, estimate)
            .map_err(|why| Refusal::new(StatusCode::TOO_MANY_REQUESTS, "budget_exceeded", why))?;
        Ok(Self {
            metrics: gateway.metrics.clone(),
            api: work::api(gateway, identity),
            ticket,
            today,
            turn,
            by: identity.pod.clone(),
            estimate,
        })
    }

    async fn record(self, reported: Option<i64>, answer_bytes: usize) {
        let tokens = reported
            .filter(|t| *t > 0)
            .unwrap_or(self.estimate + (answer_bytes / CHARACTERS_PER_TOKEN) as i64);
        count(&self.metrics, ModelOutcome::Ok);
        self.metrics.model_tokens.inc_by(tokens.unsigned_abs());
        let change = |status: &TicketStatus, _| {
            let used = status.model.clone().unwrap_or_default();
            let mut next = status.clone();
            next.model = Some(counted(&used, &self.today, self.turn, tokens));
            Ok(next)
        };
        let by = Actor::Agent(&self.by);
        if let Err(error) = tickets::update(&self.api, &self.ticket, by, change).await {
            tracing::warn!(
                ticket = %self.ticket.name_any(), %error, tokens,
                "cannot record what a model call used"
            );
        }
    }
}

async fn whole(mut answer: reqwest::Response, meter: Meter) -> Result<Response, Refusal> {
    let mut bytes = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > MAX_ANSWER => {
                meter.record(None, bytes.len()).await;
                let limit = MAX_ANSWER >> 20;
                let why = format!("the model's answer is longer than {limit} MiB");
                return Err(Refusal::bad_gateway("too_long", why));
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => {
                meter.record(None, bytes.len()).await;
                let why = format!("the model's answer broke off: {}", root_cause(&error));
                return Err(Refusal::bad_gateway("unreachable", why));
            }
        }
    }
    let value: Option<Value> = serde_json::from_slice(&bytes).ok();
    let reported = value.as_ref().and_then(usage);
    meter.record(reported, bytes.len()).await;
    match value {
        Some(value) if value.is_object() => Ok(axum::Json(value).into_response()),
        _ => Err(Refusal::bad_gateway(
            "not_understood",
            "the model's answer is not JSON",
        )),
    }
}

/// Passes a stream on as it comes, and looks for the token count at its end.
fn streamed(answer: reqwest::Response, meter: Meter) -> Response {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(16);
    tokio::spawn(async move {
        let mut stream = answer.bytes_stream();
        let mut total = 0;
        let mut seen = StreamUsage::default();
        while let Some(Ok(chunk)) = stream.next().await {
            total += chunk.len();
            seen.read(&chunk);
            if total > MAX_ANSWER || sender.send(Ok(chunk)).await.is_err() {
                break;
            }
        }
        meter.record(seen.reported, total).await;
    });
    let body = Body::from_stream(futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|item| (item, receiver))
    }));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// The last token count in a stream's events.
#[derive(Default)]
struct StreamUsage {
    line: Vec<u8>,
    reported: Option<i64>,
}

impl StreamUsage {
    fn read(&mut self, chunk: &[u8]) {
        for byte in chunk {
            if *byte != b'\n' {
                if self.line.len() < MAX_LINE {
                    self.line.push(*byte);
                }
                continue;
            }
            let data = self.line.strip_prefix(b"data:");
            let event = data.and_then(|d| serde_json::from_slice::<Value>(d).ok());
            self.reported = event.as_ref().and_then(usage).or(self.reported);
            self.line.clear();
        }
    }
}

fn usage(value: &Value) -> Option<i64> {
    value.get("usage")?.get("total_tokens")?.as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(turn: i32) -> TurnId {
        TurnId { run: 0, turn }
    }

    #[test]
    fn budgets_end() {
        let mut spec = ModelSpec::default();
        spec.limits.tokens_per_ticket = 1000;
        spec.limits.tokens_per_day = 1500;
        spec.limits.steps_per_turn = 2;
        let mut used = ModelUse::default();
        assert!(within_budget(&spec, &used, "d", 0, turn(0), 500).is_ok());
        assert!(
            within_budget(&spec, &used, "d", 0, turn(0), 1001)
                .unwrap_err()
                .contains("ticket's budget")
        );
        assert!(
            within_budget(&spec, &used, "d", 1400, turn(0), 200)
                .unwrap_err()
                .contains("client's budget")
        );
        used = counted(&counted(&used, "d", turn(0), 100), "d", turn(0), 100);
        assert_eq!(
            (used.tokens, used.tokens_on_day, used.calls, used.turn_calls),
            (200, 200, 2, 2)
        );
        assert!(
            within_budget(&spec, &used, "d", 200, turn(0), 1)
                .unwrap_err()
                .contains("in this turn")
        );
        // The next turn and the next day start at zero; the ticket does not.
        assert!(within_budget(&spec, &used, "d", 200, turn(1), 1).is_ok());
        let next = counted(&used, "e", turn(1), 50);
        assert_eq!(
            (next.tokens, next.tokens_on_day, next.turn_calls),
            (250, 50, 1)
        );
    }

    #[test]
    fn an_agent_sets_only_what_it_may() {
        let given = json!({
            "messages": [],
            "model": "gpt-expensive",
            "n": 50,
            "user": "x",
            "stream": true,
            "store": true,
        });
        let (out, stream) = outgoing(given, "ours").unwrap();
        assert!(stream);
        let expected = json!({
            "messages": [],
            "model": "ours",
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        assert_eq!(Value::Object(out), expected);
        assert!(outgoing(json!([]), "ours").is_err() && outgoing(json!({}), "ours").is_err());
    }
}
