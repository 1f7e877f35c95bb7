//! The reference verification provider: the HTTP contract of
//! `docs/verification.md`, at `/verify` of the simulator. It sends a one-time link
//! to an e-mail sink, which tests and the demo read.
//!
//! At `/traceless`, the same challenges in the wire format that the operator's
//! Traceless adapter assumes: a push instead of an e-mail, answered the same way.

use crate::Shared;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The key of the demo; not a secret.
pub const KEY: &str = "demo-signing-key-0123456789abcdef";
/// The organisation that `/traceless` knows.
pub const ORGANIZATION: &str = "7d0f3a52-1c9e-4b8e-9d57-2a6c0e4f8b11";
/// A signature is valid for this long, in seconds.
const TOLERANCE: i64 = 300;
const MAX_CHALLENGES: usize = 10_000;

/// Deliberate faults.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Every request is answered 500.
    pub down: bool,
    pub latency_ms: u64,
    /// Outcomes are not posted back; the operator has to poll.
    pub no_callbacks: bool,
    /// Callbacks carry a wrong signature.
    pub bad_signature: bool,
}

#[derive(Clone, Debug)]
struct Challenge {
    token: String,
    state: &'static str,
    callback: String,
}

/// The URL, headers and body of a signed callback.
pub type Callback = (String, Vec<(&'static str, String)>, String);

#[derive(Debug, Default)]
pub struct Verifier {
    challenges: Mutex<BTreeMap<String, Challenge>>,
    /// E-mails sent, oldest first: address and link.
    mails: Mutex<Vec<Value>>,
    faults: Mutex<Faults>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn sign(key: &str, timestamp: i64, method: &str, path: &str, body: &[u8]) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else {
        return String::new();
    };
    mac.update(format!("{timestamp}\n{method}\n{path}\n").as_bytes());
    mac.update(body);
    format!("v1={}", hex(&mac.finalize().into_bytes()))
}

impl Verifier {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Challenge>> {
        self.challenges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn mails(&self) -> Vec<Value> {
        self.mails
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The signed callback for a challenge, to be sent or replayed.
    pub fn callback(&self, id: &str, state: &str, at: i64) -> Option<Callback> {
        let url = self
            .all()
            .get(id)
            .map(|c| c.callback.clone())
            .filter(|url| !url.is_empty())?;
        let path = url.splitn(4, '/').nth(3).map(|p| format!("/{p}"))?;
        let body = json!({"challengeId": id, "state": state}).to_string();
        let key = if self.faults().bad_signature {
            "another-signing-key-0123456789abcdef"
        } else {
            KEY
        };
        let signature = sign(key, at, "POST", &path, body.as_bytes());
        Some((
            url,
            vec![
                ("x-rallied-timestamp", at.to_string()),
                ("x-rallied-signature", signature),
            ],
            body,
        ))
    }

    /// The state of a challenge, which is sent if it is new: one e-mail per id, however often
    /// it is requested. None if there are too many.
    fn challenge(&self, id: &str, email: String, callback: String) -> Option<&'static str> {
        let mut all = self.all();
        if let Some(challenge) = all.get(id) {
            return Some(challenge.state);
        }
        if all.len() >= MAX_CHALLENGES {
            return None;
        }
        let token = uuid::Uuid::new_v4().simple().to_string();
        let mail = json!({"to": email, "challengeId": id, "token": token, "link": format!("/verify/link/{token}")});
        all.insert(
            id.to_string(),
            Challenge {
                token,
                state: "pending",
                callback,
            },
        );
        self.mails
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(mail);
        Some("pending")
    }

    /// Records the requester's answer; a link works once.
    fn answer(&self, token: &str, state: &'static str) -> Option<String> {
        let mut all = self.all();
        let (id, challenge) = all
            .iter_mut()
            .find(|(_, c)| c.token == token && c.state == "pending")?;
        challenge.state = state;
        Some(id.clone())
    }
}

pub fn router(shared: Arc<Shared>) -> Router<()> {
    Router::new()
        .route("/verify/health", get(health))
        .route("/verify/challenges", post(start))
        .route("/verify/challenges/{id}", get(state))
        .route("/verify/link/{token}", get(page))
        .route("/verify/link/{token}/{answer}", post(answered))
        .route(
            "/traceless/organizations/{organization}",
            get(traceless_organization),
        )
        .route(
            "/traceless/organizations/{organization}/verifications",
            post(traceless_start),
        )
        .route(
            "/traceless/organizations/{organization}/verifications/{id}",
            get(traceless_state),
        )
        .with_state(shared)
}

type App = State<Arc<Shared>>;

/// Faults first, then the signature.
async fn admit(
    shared: &Shared,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), Response> {
    let faults = shared.verifier.faults().clone();
    if faults.latency_ms > 0 {
        tokio::time::sleep(Duration::from_millis(faults.latency_ms)).await;
    }
    if faults.down {
        return Err(StatusCode::INTERNAL_SERVER_ERROR.into_response());
    }
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_string()
    };
    let timestamp = header("x-rallied-timestamp")
        .parse::<i64>()
        .unwrap_or_default();
    let wanted = sign(KEY, timestamp, method.as_str(), uri.path(), body);
    if (Timestamp::now().as_second() - timestamp).abs() > TOLERANCE
        || header("x-rallied-signature") != wanted
    {
        return Err(StatusCode::UNAUTHORIZED.into_response());
    }
    Ok(())
}

async fn health(State(shared): App, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    match admit(&shared, &method, &uri, &headers, &[]).await {
        Ok(()) => Json(json!({"ok": true})).into_response(),
        Err(response) => response,
    }
}

async fn start(
    State(shared): App,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(response) = admit(&shared, &method, &uri, &headers, &body).await {
        return response;
    }
    let given: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |key: &str| {
        given
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_string()
    };
    let id = headers
        .get("idempotency-key")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .to_string();
    if id.is_empty() || id != text("challengeId") || text("email").is_empty() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    match shared
        .verifier
        .challenge(&id, text("email"), text("callbackUrl"))
    {
        Some(state) => Json(json!({"challengeId": id, "state": state})).into_response(),
        None => StatusCode::TOO_MANY_REQUESTS.into_response(),
    }
}

async fn state(
    State(shared): App,
    Path(id): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if let Err(response) = admit(&shared, &method, &uri, &headers, &[]).await {
        return response;
    }
    match shared.verifier.all().get(&id) {
        Some(challenge) => {
            Json(json!({"challengeId": id, "state": challenge.state})).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn traceless_admit(
    shared: &Shared,
    organization: &str,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), Response> {
    admit(shared, method, uri, headers, body).await?;
    if organization == ORGANIZATION {
        Ok(())
    } else {
        Err(StatusCode::NOT_FOUND.into_response())
    }
}

async fn traceless_organization(
    State(shared): App,
    Path(org): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    match traceless_admit(&shared, &org, &method, &uri, &headers, &[]).await {
        Ok(()) => Json(json!({"id": org})).into_response(),
        Err(response) => response,
    }
}

async fn traceless_start(
    State(shared): App,
    Path(org): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(response) = traceless_admit(&shared, &org, &method, &uri, &headers, &body).await {
        return response;
    }
    let given: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |key: &str| {
        given
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_string()
    };
    let (id, method) = (text("externalId"), text("method"));
    if id.is_empty()
        || text("email").is_empty()
        || !["microsoft_authenticator", "duo_push"].contains(&method.as_str())
    {
        return StatusCode::BAD_REQUEST.into_response();
    }
    match shared.verifier.challenge(&id, text("email"), String::new()) {
        Some(state) => {
            Json(json!({"externalId": id, "status": traceless_status(state)})).into_response()
        }
        None => StatusCode::TOO_MANY_REQUESTS.into_response(),
    }
}

async fn traceless_state(
    State(shared): App,
    Path((org, id)): Path<(String, String)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if let Err(response) = traceless_admit(&shared, &org, &method, &uri, &headers, &[]).await {
        return response;
    }
    match shared.verifier.all().get(&id) {
        Some(challenge) => {
            Json(json!({"externalId": id, "status": traceless_status(challenge.state)}))
                .into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn traceless_status(state: &'static str) -> &'static str {
    if state == "verified" {
        "approved"
    } else {
        state
    }
}

/// The page the requester sees. Opening the link decides nothing: mail scanners open links.
async fn page(State(shared): App, Path(token): Path<String>) -> Response {
    if !shared
        .verifier
        .all()
        .values()
        .any(|c| c.token == token && c.state == "pending")
    {
        return (StatusCode::GONE, "This link is used or has expired.\n").into_response();
    }
    Html(format!(
        "<!doctype html><title>Was it you?</title><h1>Was it you who asked the service desk?</h1>\
         <form method=post action=\"/verify/link/{token}/verified\"><button>Yes, it was me</button></form>\
         <form method=post action=\"/verify/link/{token}/denied\"><button>No</button></form>"
    ))
    .into_response()
}

async fn answered(State(shared): App, Path((token, answer)): Path<(String, String)>) -> Response {
    match respond(&shared, &token, &answer).await {
        true => "Thank you. You can close this page.\n".into_response(),
        false => (StatusCode::GONE, "This link is used or has expired.\n").into_response(),
    }
}

/// Records an answer and posts it back. False if the link was already used.
pub async fn respond(shared: &Shared, token: &str, answer: &str) -> bool {
    let state = match answer {
        "verified" => "verified",
        "denied" => "denied",
        _ => return false,
    };
    let Some(id) = shared.verifier.answer(token, state) else {
        return false;
    };
    if shared.verifier.faults().no_callbacks {
        return true;
    }
    let Some((url, headers, body)) =
        shared
            .verifier
            .callback(&id, state, Timestamp::now().as_second())
    else {
        return true;
    };
    let mut client = reqwest::Client::builder().timeout(Duration::from_secs(10));
    if let Some(ca) = shared
        .webhook_ca()
        .and_then(|pem| reqwest::Certificate::from_pem(pem.as_bytes()).ok())
    {
        client = client.tls_certs_merge([ca]);
    }
    let Ok(client) = client.build() else {
        return true;
    };
    let mut request = client
        .post(url)
        .header("content-type", "application/json")
        .body(body);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    if let Err(error) = request.send().await {
        tracing::warn!(%error, "a callback failed; the operator has to poll");
    }
    true
}
