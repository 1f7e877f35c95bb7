//! The language model: an OpenAI-compatible endpoint, reached for the agent.
//!
//! The gateway adds the key, names the model, counts tokens as the provider
//! reports them, and ends at the budget. The agent sees neither key nor address.

use super::identity::Identity;
use super::{Gateway, SUSPENDED, work};
use crate::api::connection::ModelSpec;
use crate::api::ticket::{ModelUse, Ticket, TicketStatus};
use crate::error::root_cause;
use crate::k8s::tickets;
use crate::metrics::{METRICS, StepLabels};
use crate::ticket::actor::Actor;
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The longest answer of a model, in bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
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
/// Characters of a token, where the provider does not count.
const CHARACTERS_PER_TOKEN: usize = 4;

/// Why a call is not made, or gave nothing. In OpenAI's form.
fn refused(status: StatusCode, kind: &str, message: impl Into<String>) -> Response {
    METRICS
        .model_calls
        .get_or_create(&StepLabels {
            outcome: if status.is_client_error() {
                "refused"
            } else {
                "failed"
            },
        })
        .inc();
    (
        status,
        axum::Json(json!({"error": {"message": message.into(), "type": kind}})),
    )
        .into_response()
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
        return Err("the body is a JSON object, as OpenAI's chat completions take it");
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
    let bound = match gateway.bound(&identity) {
        Ok(bound) => bound,
        Err(why) => return refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why),
    };
    let Some(spec) = bound.model().cloned() else {
        return refused(
            StatusCode::NOT_FOUND,
            "no_model",
            "no language model is configured for this client (agent.model)",
        );
    };
    if bound.connection.spec.suspend {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable", SUSPENDED);
    }
    // Models are for tickets: an agent without one has no use for them.
    let Some(ticket) = work::holding(&gateway, &identity).await else {
        return refused(
            StatusCode::CONFLICT,
            "no_ticket",
            "you hold no ticket: claim one first",
        );
    };
    let given = serde_json::from_slice(&body).unwrap_or_default();
    let (request, stream) = match outgoing(given, &spec.name) {
        Ok(outgoing) => outgoing,
        Err(why) => return refused(StatusCode::BAD_REQUEST, "invalid_request_error", why),
    };
    let api: Api<Ticket> = work::api(&gateway, &identity);
    // The store may be behind with what the last call used.
    let ticket = match api.get_opt(&ticket.name_any()).await {
        Ok(Some(ticket)) => ticket,
        Ok(None) => return refused(StatusCode::CONFLICT, "no_ticket", "the ticket is gone"),
        Err(error) => {
            return refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                crate::k8s::explain(&error),
            );
        }
    };
    let status = ticket.status.clone().unwrap_or_default();
    let used = status.model.clone().unwrap_or_default();
    let today = Timestamp::now().strftime("%Y-%m-%d").to_string();
    let turn = TurnId {
        run: status.run,
        turn: status.turn,
    };
    let used_today = tokens_today(&gateway, &identity, &ticket.name_any(), &today)
        + if used.day == today {
            used.tokens_on_day
        } else {
            0
        };
    let estimate = (body.len() / CHARACTERS_PER_TOKEN) as i64;
    if let Err(why) = within_budget(&spec, &used, &today, used_today, turn, estimate) {
        return refused(StatusCode::TOO_MANY_REQUESTS, "budget_exceeded", why);
    }
    let (http, key) = match client(&gateway, &identity.namespace, &spec).await {
        Ok(client) => client,
        Err(why) => return refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why),
    };
    let timeout = Duration::from(spec.limits.timeout);
    let mut call = http
        .post(format!("{}/chat/completions", spec.base_url))
        .timeout(timeout)
        .json(&request);
    if let Some(key) = key {
        call = call.bearer_auth(key);
    }
    let answer = match call.send().await {
        Ok(answer) => answer,
        Err(error) if error.is_timeout() => {
            return refused(
                StatusCode::GATEWAY_TIMEOUT,
                "timeout",
                format!("the model does not answer in {} s", timeout.as_secs()),
            );
        }
        Err(error) => {
            return refused(
                StatusCode::BAD_GATEWAY,
                "unreachable",
                format!("cannot reach the model: {}", root_cause(&error)),
            );
        }
    };
    if !answer.status().is_success() {
        // What a provider says of a key is not for the agent, and may quote it.
        let status = answer.status();
        let retry = answer.headers().get(header::RETRY_AFTER).cloned();
        let passing = status.is_server_error() || status.as_u16() == 429;
        let code = if passing {
            StatusCode::BAD_GATEWAY
        } else {
            StatusCode::FAILED_DEPENDENCY
        };
        tracing::warn!(namespace = %identity.namespace, client = %identity.client, status = status.as_u16(), "the language model refused a call; check agent.model and its key");
        let mut response = refused(
            code,
            "upstream_error",
            format!("the model's endpoint answered HTTP {}", status.as_u16()),
        );
        response
            .headers_mut()
            .extend(retry.map(|r| (header::RETRY_AFTER, r)));
        return response;
    }
    let meter = Meter {
        api,
        ticket,
        today,
        turn,
        by: identity.pod.clone(),
        estimate,
    };
    if stream {
        streamed(answer, meter)
    } else {
        whole(answer, meter).await
    }
}

/// Tokens of the client's other tickets on that day.
fn tokens_today(gateway: &Gateway, identity: &Identity, except: &str, today: &str) -> i64 {
    let of_client = |t: &Ticket| {
        t.namespace().as_deref() == Some(&identity.namespace)
            && t.spec
                .client_ref
                .as_ref()
                .is_some_and(|c| c.name == identity.client)
            && t.name_any() != except
    };
    let tickets = gateway.tickets.state_filter(of_client);
    tickets
        .iter()
        .filter_map(|t| t.status.as_ref()?.model.as_ref())
        .filter(|m| m.day == today)
        .map(|m| m.tokens_on_day)
        .sum()
}

async fn client(
    gateway: &Gateway,
    namespace: &str,
    spec: &ModelSpec,
) -> Result<(reqwest::Client, Option<String>), String> {
    let key = match &spec.api_key_secret_ref {
        None => None,
        Some(reference) => {
            let secret = Api::<Secret>::namespaced(gateway.kube.clone(), namespace)
                .get_opt(&reference.name)
                .await;
            let data = secret
                .map_err(|e| crate::k8s::explain(&e))?
                .and_then(|s| s.data?.remove(&reference.key));
            let bytes = data.ok_or_else(|| {
                format!(
                    "the Secret {} with the model's key has no key {}",
                    reference.name, reference.key
                )
            })?;
            Some(String::from_utf8_lossy(&bytes.0).trim().to_string())
        }
    };
    // A redirect would carry the key to whoever the endpoint names.
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none());
    if let Some(reference) = &spec.ca_config_map_ref {
        let map = Api::<ConfigMap>::namespaced(gateway.kube.clone(), namespace)
            .get_opt(&reference.name)
            .await;
        let pem = map
            .map_err(|e| crate::k8s::explain(&e))?
            .and_then(|m| m.data?.remove(&reference.key));
        let pem = pem.ok_or_else(|| {
            format!(
                "the ConfigMap {} with the model's CA has no key {}",
                reference.name, reference.key
            )
        })?;
        builder = builder.tls_certs_only(
            reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(|e| root_cause(&e))?,
        );
    }
    Ok((builder.build().map_err(|e| root_cause(&e))?, key))
}

/// Writes down what a call used.
struct Meter {
    api: Api<Ticket>,
    ticket: Ticket,
    today: String,
    turn: TurnId,
    by: String,
    estimate: i64,
}

impl Meter {
    async fn record(self, reported: Option<i64>, answer_bytes: usize) {
        let tokens = reported
            .filter(|t| *t > 0)
            .unwrap_or(self.estimate + (answer_bytes / CHARACTERS_PER_TOKEN) as i64);
        METRICS
            .model_calls
            .get_or_create(&StepLabels { outcome: "ok" })
            .inc();
        METRICS.model_tokens.inc_by(tokens.unsigned_abs());
        let change = |status: &TicketStatus, _| {
            let mut next = status.clone();
            next.model = Some(counted(
                &status.model.clone().unwrap_or_default(),
                &self.today,
                self.turn,
                tokens,
            ));
            Ok(next)
        };
        if let Err(error) =
            tickets::update(&self.api, &self.ticket, Actor::Agent(&self.by), change).await
        {
            tracing::warn!(ticket = %self.ticket.name_any(), %error, tokens, "what a model call used could not be written down");
        }
    }
}

async fn whole(mut answer: reqwest::Response, meter: Meter) -> Response {
    let mut bytes = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > MAX_ANSWER => {
                meter.record(None, bytes.len()).await;
                return refused(
                    StatusCode::BAD_GATEWAY,
                    "too_long",
                    format!("the model's answer is longer than {} MiB", MAX_ANSWER >> 20),
                );
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => {
                meter.record(None, bytes.len()).await;
                return refused(
                    StatusCode::BAD_GATEWAY,
                    "unreachable",
                    format!("the model's answer broke off: {}", root_cause(&error)),
                );
            }
        }
    }
    let value: Option<Value> = serde_json::from_slice(&bytes).ok();
    meter
        .record(value.as_ref().and_then(usage), bytes.len())
        .await;
    match value {
        Some(value) if value.is_object() => axum::Json(value).into_response(),
        _ => refused(
            StatusCode::BAD_GATEWAY,
            "not_understood",
            "the model's answer is not JSON",
        ),
    }
}

/// Passes a stream on as it comes, and looks for the count at its end.
fn streamed(answer: reqwest::Response, meter: Meter) -> Response {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(16);
    tokio::spawn(async move {
        let mut stream = answer.bytes_stream();
        let (mut total, mut reported, mut line) = (0, None, Vec::new());
        while let Some(Ok(chunk)) = stream.next().await {
            total += chunk.len();
            for byte in &chunk {
                if *byte == b'\n' {
                    let data = line
                        .strip_prefix(b"data:")
                        .and_then(|d| serde_json::from_slice::<Value>(d).ok());
                    reported = data.as_ref().and_then(usage).or(reported);
                    line.clear();
                } else if line.len() < 64 * 1024 {
                    line.push(*byte);
                }
            }
            if total > MAX_ANSWER || sender.send(Ok(chunk)).await.is_err() {
                break;
            }
        }
        meter.record(reported, total).await;
    });
    let body = Body::from_stream(futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|item| (item, receiver))
    }));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
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
        // The next round and the next day count anew; the ticket does not.
        assert!(within_budget(&spec, &used, "d", 200, turn(1), 1).is_ok());
        let next = counted(&used, "e", turn(1), 50);
        assert_eq!(
            (next.tokens, next.tokens_on_day, next.turn_calls),
            (250, 50, 1)
        );
    }

    #[test]
    fn an_agent_sets_only_what_it_may() {
        let given = json!({"messages": [], "model": "gpt-expensive", "n": 50, "user": "x", "stream": true, "store": true});
        let (out, stream) = outgoing(given, "ours").unwrap();
        assert!(stream);
        assert_eq!(
            Value::Object(out),
            json!({"messages": [], "model": "ours", "stream": true, "stream_options": {"include_usage": true}})
        );
        assert!(outgoing(json!([]), "ours").is_err() && outgoing(json!({}), "ours").is_err());
    }
}
