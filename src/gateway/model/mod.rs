//! The language model: an OpenAI-compatible endpoint, reached on behalf of the agent.
//!
//! The gateway adds the key, names the model, counts tokens as the provider reports them, and
//! enforces the budget. The agent sees neither key nor address.
//!
//! - [`request`]: what an agent may ask (pure)
//! - [`budget`]: reserved before a call, settled after it (pure)
//! - [`upstream`]: the endpoint
//! - [`daily`]: the client's use in a day

mod budget;
mod daily;
mod request;
mod upstream;

use super::identity::Identity;
use super::wire::CALL_UNDER_WAY;
use super::{AgentScope, Gateway, SUSPENDED, work};
use crate::api::connection::ModelLimits;
use crate::api::ticket::{ModelUse, Ticket, TicketStatus};
use crate::audit::{self, ModelCall, Subject};
use crate::error::root_cause;
use crate::k8s::tickets;
use crate::metrics::{Metrics, ModelLabels, ModelOutcome};
use crate::text::hex;
use crate::ticket::actor::Actor;
use crate::ticket::state::Refused;
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use budget::{Used, Wanted};
use futures::StreamExt;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant as Deadline, timeout, timeout_at};
use upstream::Upstream;

/// The longest answer of a model, in bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// The longest line of a stream that is searched for the token count, in bytes.
const MAX_LINE: usize = 64 * 1024;
/// How long a call may take beyond the provider's answer.
const GRACE: Duration = Duration::from_secs(30);

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

/// A call that is reserved and not sent yet.
struct Call {
    gateway: Arc<Gateway>,
    identity: Identity,
    /// As it was stored with the reservation.
    ticket: Ticket,
    upstream: Upstream,
    /// The request as it goes out.
    body: Vec<u8>,
    stream: bool,
    reserved: Reserved,
    started: Instant,
}

/// What a call may use, in tokens.
struct Reserved {
    id: String,
    today: String,
    prompt: i64,
    /// With the longest answer.
    tokens: i64,
}

type Answer = Result<Response, Refusal>;

/// `POST /v1/model/chat/completions`
pub async fn completions(
    State(gateway): State<Arc<Gateway>>,
    Extension(identity): Extension<Identity>,
    body: Bytes,
) -> Response {
    let call = match Call::reserve(&gateway, &identity, &body).await {
        Ok(call) => call,
        Err(refusal) => {
            count(&gateway.metrics, refusal.outcome());
            audit::event("ModelRefused", subject(&identity, ""), refusal.kind);
            return refusal.into_response();
        }
    };
    // A task of its own: what the call used is recorded even if the agent hangs up.
    let (sender, answer) = oneshot::channel();
    tokio::spawn(call.run(sender));
    match answer.await {
        Ok(Ok(response)) => response,
        Ok(Err(refusal)) => refusal.into_response(),
        Err(_) => Refusal::unavailable("the call ended without a result").into_response(),
    }
}

fn subject<'a>(identity: &'a Identity, ticket: &'a str) -> Subject<'a> {
    Subject {
        namespace: &identity.namespace,
        client: &identity.client,
        ticket,
        by: Some(Actor::Agent(&identity.pod)),
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

/// The use of the client's other tickets.
fn other_tickets(gateway: &Gateway, identity: &Identity, except: &str) -> Vec<ModelUse> {
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
        .filter_map(|t| t.status.as_ref()?.model.clone())
        .collect()
}

impl Call {
    /// Checks the request and reserves what it may use.
    async fn reserve(
        gateway: &Arc<Gateway>,
        identity: &Identity,
        body: &[u8],
    ) -> Result<Self, Refusal> {
        let scope = gateway.scope_of(identity).map_err(Refusal::unavailable)?;
        let spec = scope.model().ok_or_else(|| {
            let why = "no language model is configured for this client (agent.model)";
            Refusal::new(StatusCode::NOT_FOUND, "no_model", why)
        })?;
        if scope.connection.spec.suspend {
            return Err(Refusal::unavailable(SUSPENDED));
        }
        let request = request::parse(body).map_err(|why| {
            let why = why.to_string();
            Refusal::new(StatusCode::BAD_REQUEST, "invalid_request_error", why)
        })?;
        let ticket = held_ticket(gateway, identity).await?;
        let upstream = Upstream::of(&gateway.kube, &identity.namespace, spec)
            .await
            .map_err(Refusal::unavailable)?;
        let wanted = Wanted {
            id: uuid::Uuid::new_v4().to_string(),
            today: Timestamp::now().strftime("%Y-%m-%d").to_string(),
            prompt: budget::estimate(body.len()),
            answer: request.answer,
            until: after(upstream.timeout.saturating_add(GRACE)),
        };
        let ticket = store(gateway, identity, &scope, &spec.limits, &ticket, &wanted).await?;
        let reserved = Reserved {
            tokens: reserved_tokens(&ticket),
            id: wanted.id,
            today: wanted.today,
            prompt: wanted.prompt,
        };
        let answer = reserved.tokens.saturating_sub(reserved.prompt);
        let stream = request.stream;
        let outgoing = request.outgoing(&spec.name, spec.max_tokens_parameter, answer);
        Ok(Self {
            gateway: gateway.clone(),
            identity: identity.clone(),
            ticket,
            upstream,
            body: outgoing.to_string().into_bytes(),
            stream,
            reserved,
            started: Instant::now(),
        })
    }

    /// Sends the call, answers the agent, and records what was used.
    async fn run(self, reply: oneshot::Sender<Answer>) {
        let deadline = Deadline::now() + self.upstream.timeout.saturating_add(GRACE);
        let sent = timeout_at(deadline, self.upstream.send(self.body.clone())).await;
        let too_late = upstream::Failed::timeout(self.upstream.timeout);
        match sent.unwrap_or(Err(too_late)) {
            Ok(answer) if self.stream => self.pass_on(answer, reply, deadline).await,
            Ok(answer) => {
                let read = timeout_at(deadline, whole(answer)).await;
                let whole = read.unwrap_or_else(|_| Whole::broken(0, "it took too long"));
                let outcome = outcome_of(&whole.answer);
                self.settle(whole.used, whole.bytes, outcome).await;
                // An agent that has hung up does not want it any more.
                let _ = reply.send(whole.answer);
            }
            Err(failed) => {
                let refusal = self.refused(failed.status, failed.refusal);
                self.settle(failed.used, 0, refusal.outcome()).await;
                let _ = reply.send(Err(refusal));
            }
        }
    }

    /// Says in the log what an administrator has to look at.
    fn refused(&self, status: Option<u16>, refusal: Refusal) -> Refusal {
        if let Some(status) = status {
            tracing::warn!(
                namespace = %self.identity.namespace, client = %self.identity.client, status,
                "the language model refused a call; check agent.model and its key"
            );
        }
        refusal
    }

    /// Passes a stream on as it comes. Its end is held back until the call is settled, so that the
    /// agent's next call does not find this one under way.
    async fn pass_on(
        self,
        answer: reqwest::Response,
        reply: oneshot::Sender<Answer>,
        deadline: Deadline,
    ) {
        let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(16);
        let body = Body::from_stream(futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|item| (item, receiver))
        }));
        let head = [(header::CONTENT_TYPE, "text/event-stream")];
        // An agent that has hung up is noticed with the first chunk.
        let _ = reply.send(Ok((head, body).into_response()));
        let mut passed = Passed::default();
        let _ = timeout_at(deadline, passed.forward(answer, &sender)).await;
        self.settle(passed.used(), passed.bytes, ModelOutcome::Ok)
            .await;
        for chunk in passed.end {
            let sent = timeout(GRACE, sender.send(Ok(chunk))).await;
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    }

    /// Records what the call used. What cannot be recorded stays reserved, and thus counted.
    async fn settle(&self, used: Used, bytes: usize, outcome: ModelOutcome) {
        let tokens = used.tokens(self.reserved.prompt, self.reserved.tokens);
        count(&self.gateway.metrics, outcome);
        let metric = &self.gateway.metrics.model_tokens;
        metric.inc_by(tokens.unsigned_abs());
        let name = self.ticket.name_any();
        audit::model_call(
            subject(&self.identity, &name),
            &ModelCall {
                model: &self.upstream.model,
                provider: &self.upstream.host,
                request: &hex::encode(Sha256::digest(&self.body)),
                bytes_in: self.body.len(),
                bytes_out: bytes,
                tokens,
                outcome: outcome.as_str(),
                ms: self.started.elapsed().as_millis(),
            },
        );
        let record = async {
            // The day first: for a moment the call is counted twice rather than not at all.
            let day = daily::record(&self.gateway, &self.identity, &self.reserved.today, tokens);
            if let Err(error) = day.await {
                let error = crate::k8s::explain(&error);
                tracing::warn!(ticket = %name, %error, tokens, "cannot record the day's tokens");
            }
            let change = |status: &TicketStatus, _: Timestamp| {
                let used = status.model.clone().unwrap_or_default();
                let mut next = status.clone();
                next.model = Some(budget::settle(&used, &self.reserved.id, tokens));
                Ok(next)
            };
            let api = work::api(&self.gateway, &self.identity);
            let by = Actor::Agent(&self.identity.pod);
            if let Err(error) = tickets::update(&api, &self.ticket, by, change).await {
                tracing::warn!(
                    ticket = %name, %error, tokens,
                    "cannot record what a model call used; it stays counted in full"
                );
            }
        };
        if timeout(GRACE, record).await.is_err() {
            tracing::warn!(
                ticket = %name, tokens,
                "the apiserver does not answer; a model call stays counted in full"
            );
        }
    }
}

fn reserved_tokens(ticket: &Ticket) -> i64 {
    let model = ticket.status.as_ref().and_then(|s| s.model.as_ref());
    model
        .and_then(|m| m.reserved.as_ref())
        .map_or(0, |r| r.tokens)
}

fn after(time: Duration) -> Timestamp {
    let now = Timestamp::now();
    SignedDuration::try_from(time)
        .ok()
        .and_then(|time| now.checked_add(time).ok())
        .unwrap_or(now)
}

/// Stores the reservation on the Ticket, if the budget allows it.
async fn store(
    gateway: &Gateway,
    identity: &Identity,
    scope: &AgentScope,
    limits: &ModelLimits,
    ticket: &Ticket,
    wanted: &Wanted,
) -> Result<Ticket, Refusal> {
    let others = other_tickets(gateway, identity, &ticket.name_any());
    let recorded = scope.client.status.as_ref();
    let recorded = recorded.and_then(|s| s.model_usage.as_ref());
    let change = |status: &TicketStatus, now: Timestamp| {
        // Another agent may have the ticket by now.
        let lease = status.lease.as_ref();
        if lease.is_none_or(|lease| lease.holder != identity.pod) {
            return Err(Refused::LeaseLost);
        }
        let own = status.model.clone().unwrap_or_default();
        let used_today = budget::used_today(recorded, &others, &own, &wanted.today);
        let mut next = status.clone();
        next.model = Some(budget::reserve(status, limits, used_today, wanted, now)?);
        Ok(next)
    };
    let api = work::api(gateway, identity);
    let by = Actor::Agent(&identity.pod);
    tickets::update(&api, ticket, by, change)
        .await
        .map_err(Refusal::from)
}

impl From<tickets::Error> for Refusal {
    fn from(error: tickets::Error) -> Self {
        let why = error.to_string();
        let too_many = StatusCode::TOO_MANY_REQUESTS;
        match error {
            tickets::Error::Refused(Refused::OverBudget(_)) => {
                Self::new(too_many, "budget_exceeded", why)
            }
            tickets::Error::Refused(Refused::ModelBusy) => Self {
                retry_after: Some(HeaderValue::from_static("1")),
                ..Self::new(too_many, CALL_UNDER_WAY, why)
            },
            tickets::Error::Refused(_) => Self::no_ticket(&why),
            tickets::Error::Kube(_) | tickets::Error::Contended(_) => Self::unavailable(why),
        }
    }
}

fn outcome_of(answer: &Answer) -> ModelOutcome {
    match answer {
        Ok(_) => ModelOutcome::Ok,
        Err(refusal) => refusal.outcome(),
    }
}

/// An answer that came in one piece.
struct Whole {
    answer: Answer,
    used: Used,
    bytes: usize,
}

impl Whole {
    fn broken(bytes: usize, why: &str) -> Self {
        let why = format!("the model's answer broke off: {why}");
        Self {
            answer: Err(Refusal::bad_gateway("unreachable", why)),
            used: Used::Unknown,
            bytes,
        }
    }
}

async fn whole(mut answer: reqwest::Response) -> Whole {
    let mut bytes = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > MAX_ANSWER => {
                let why = format!("the model's answer is longer than {} MiB", MAX_ANSWER >> 20);
                return Whole {
                    answer: Err(Refusal::bad_gateway("too_long", why)),
                    used: Used::Unknown,
                    bytes: bytes.len(),
                };
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => return Whole::broken(bytes.len(), &root_cause(&error)),
        }
    }
    let value: Option<Value> = serde_json::from_slice(&bytes).ok();
    let used = value
        .as_ref()
        .and_then(usage)
        .map_or(Used::Answer(bytes.len()), Used::Counted);
    let answer = match value {
        Some(value) if value.is_object() => Ok(axum::Json(value).into_response()),
        _ => Err(Refusal::bad_gateway(
            "not_understood",
            "the model's answer is not JSON",
        )),
    };
    Whole {
        answer,
        used,
        bytes: bytes.len(),
    }
}

/// A stream on its way to the agent.
#[derive(Default)]
struct Passed {
    seen: StreamUsage,
    bytes: usize,
    /// What came with and after the mark of its end.
    end: Vec<Bytes>,
    is_complete: bool,
}

impl Passed {
    /// Until the stream ends, grows too long, or the agent hangs up.
    async fn forward(
        &mut self,
        answer: reqwest::Response,
        agent: &mpsc::Sender<Result<Bytes, std::io::Error>>,
    ) {
        let mut chunks = answer.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let Ok(chunk) = chunk else {
                return;
            };
            self.bytes += chunk.len();
            if self.bytes > MAX_ANSWER {
                return;
            }
            self.seen.read(&chunk);
            if !self.end.is_empty() || chunk.windows(END.len()).any(|part| part == END) {
                self.end.push(chunk);
            } else if agent.send(Ok(chunk)).await.is_err() {
                return;
            }
        }
        self.is_complete = true;
    }

    fn used(&self) -> Used {
        match (self.is_complete, self.seen.reported) {
            (false, _) => Used::Unknown,
            (true, Some(tokens)) => Used::Counted(tokens),
            (true, None) => Used::Answer(self.bytes),
        }
    }
}

/// The last event of a stream.
const END: &[u8] = b"[DONE]";

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

/// The tokens as the provider counts them.
fn usage(value: &Value) -> Option<i64> {
    let tokens = value.get("usage")?.get("total_tokens")?.as_i64()?;
    (1..=MAX_TOKENS).contains(&tokens).then_some(tokens)
}

/// No call has more.
const MAX_TOKENS: i64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_from_a_stream_in_any_pieces() {
        let stream = b"data: {\"choices\":[]}\n\ndata: {\"usage\":{\"total_tokens\":42}}\n\n";
        for size in [1, 7, stream.len()] {
            let mut seen = StreamUsage::default();
            stream.chunks(size).for_each(|chunk| seen.read(chunk));
            assert_eq!(seen.reported, Some(42));
        }
    }

    #[test]
    fn a_count_that_cannot_be_is_none() {
        for (tokens, read) in [(json!(7), Some(7)), (json!(0), None), (json!(-5), None)] {
            assert_eq!(usage(&json!({"usage": {"total_tokens": tokens}})), read);
        }
        assert_eq!(usage(&json!({"usage": {"total_tokens": i64::MAX}})), None);
        assert_eq!(usage(&json!({})), None);
    }

    #[test]
    fn a_stream_that_broke_off_stays_reserved() {
        let mut passed = Passed::default();
        passed.seen.reported = Some(3);
        assert_eq!(passed.used(), Used::Unknown);
        passed.is_complete = true;
        assert_eq!(passed.used(), Used::Counted(3));
    }
}
