//! Requests to HaloPSA: sign-in, rate limit, retries, time limits.

use super::error::{self, Error};
pub use super::limit::Priority;
use super::limit::{Caller, Limiter};
use super::reply::Reply;
use crate::fair::{Fair, Place};
use crate::net::Guard;
use reqwest::{Method, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tracing::Instrument;

/// Longest response accepted, in bytes. A full ticket is about 100 kB.
const MAX_BODY: usize = 4 * 1024 * 1024;
/// The same for a ticket's actions with their HTML.
const MAX_LONG_BODY: usize = 8 * 1024 * 1024;
/// The same for the answer to a sign-in.
const MAX_TOKEN: usize = 256 * 1024;
/// A response longer than this needs one of [`LARGE`]'s places.
const LARGE_BODY: usize = 1024 * 1024;
/// Large responses in memory at once, in this process and for one namespace.
static LARGE: LazyLock<Fair<String>> = LazyLock::new(|| Fair::new(12, 2));
/// Requests in flight per connection, and of them for one caller.
const IN_FLIGHT: usize = 8;
const IN_FLIGHT_SHARE: usize = 6;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Default limit for one attempt. HaloPSA ends its own heavy queries after about 60 s.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 3;
/// Limit for a whole call, including retries and the wait for room.
const CALL_TIMEOUT: Duration = Duration::from_secs(300);
/// A token is renewed this long before it expires.
const RENEW_BEFORE: Duration = Duration::from_secs(300);
/// Default for the longest wait for room in the request window.
pub const LIMIT_WAIT: Duration = Duration::from_secs(120);
/// After a rejected sign-in nobody retries for this long; callers get the same error.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// On a 403, a token at least this old is renewed: permissions are baked into it.
const STALE_AFTER: Duration = Duration::from_secs(30);

/// Where a tenant is and how to sign in.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its label in metrics, like `msp/acme`.
    pub name: String,
    pub instance_url: String,
    pub tenant: Option<String>,
    pub client_id: String,
    pub client_secret: SecretString,
    /// CA bundle in PEM, if the server's certificate is not signed by a public CA.
    pub ca: Option<String>,
    pub requests: u32,
    pub window: Duration,
    /// This process's share of the request limit.
    pub share: f64,
    /// Limit for one attempt.
    pub timeout: Duration,
    /// Longest wait for room in the request window.
    pub max_wait: Duration,
    /// Which addresses may be connected to.
    pub addresses: Guard,
    /// Connects to this host at this address, as through a tunnel.
    pub resolve: Option<(String, std::net::SocketAddr)>,
    pub observer: Option<Arc<dyn Observer>>,
}

/// Sees every request; how a process counts them is up to it.
pub trait Observer: Send + Sync {
    /// `call` is like `GET /Tickets/{id}`; `status` is 0 without a response.
    fn request(&self, call: &str, status: u16, took: Duration);
}

impl std::fmt::Debug for dyn Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

/// A signed-in client of one tenant. Cheap to clone; clones share token and limit.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
    caller: Caller,
}

#[derive(Debug)]
struct Inner {
    http: reqwest::Client,
    config: Config,
    host: String,
    limiter: Arc<Limiter>,
    in_flight: Fair<Caller>,
    session: Mutex<Session>,
}

/// The sign-in of a process. Whoever holds the lock signs in for all.
#[derive(Debug, Default)]
struct Session {
    token: Option<Token>,
    /// Counts sign-ins, so that an old refusal is not taken for the new token's.
    generation: u64,
    /// HaloPSA has accepted these credentials before.
    accepted: bool,
    /// A rejected sign-in, and until when it is remembered.
    refused: Option<(Error, Instant)>,
}

#[derive(Clone, Debug)]
struct Token {
    secret: SecretString,
    since: Instant,
    renew_at: Instant,
    scopes: Vec<String>,
    generation: u64,
}

#[derive(Deserialize)]
struct TokenReply {
    access_token: Option<String>,
    expires_in: Option<Value>,
    scope: Option<String>,
}

/// A request to HaloPSA.
struct Call<'a> {
    /// Like `GET /Tickets/{id}`.
    name: String,
    method: Method,
    path: &'a str,
    query: &'a [(&'a str, String)],
    body: Option<Value>,
    priority: Priority,
    /// The longest response.
    longest: usize,
}

/// A response, read whole.
struct Answer {
    status: StatusCode,
    headers: header::HeaderMap,
    body: Vec<u8>,
    /// If it is large: until its text has been read.
    place: Option<Place>,
}

impl Client {
    pub fn new(config: Config) -> Result<Self, Error> {
        let limiter = Arc::new(Limiter::new(config.requests, config.window, config.share));
        Self::with_limiter(config, limiter)
    }

    /// A client with other credentials or another CA. For the same tenant, requests already
    /// sent in the window still count.
    pub fn with_credentials(&self, config: Config) -> Result<Self, Error> {
        let before = &self.inner.config;
        let same = (before.requests, before.window, &before.instance_url)
            == (config.requests, config.window, &config.instance_url);
        if same {
            Self::with_limiter(config, self.inner.limiter.clone())
        } else {
            Self::new(config)
        }
    }

    fn with_limiter(config: Config, limiter: Arc<Limiter>) -> Result<Self, Error> {
        let url = reqwest::Url::parse(&config.instance_url)
            .map_err(|e| Error::Setup(format!("the instance URL is not a valid URL: {e}")))?;
        if url.scheme() != "https" {
            return Err(Error::Setup(
                "the instance URL must start with https://".into(),
            ));
        }
        let host = url.host_str().unwrap_or_default().to_string();
        if config.resolve.is_none() {
            let checked = config.addresses.check(&url);
            checked.map_err(|e| Error::Setup(format!("the instance URL: {e}")))?;
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("halopsa-operator/", env!("CARGO_PKG_VERSION")))
            .https_only(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(60))
            .dns_resolver(config.addresses.clone())
            // A redirect would send the token to whatever host HaloPSA names.
            .redirect(reqwest::redirect::Policy::none());
        if let Some((host, address)) = &config.resolve {
            builder = builder.resolve(host, *address).no_proxy();
        }
        if let Some(pem) = &config.ca {
            let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes())
                .map_err(|_| Error::Setup("the CA bundle is not valid PEM; replace it".into()))?;
            if certificates.is_empty() {
                return Err(Error::Setup(
                    "the CA bundle contains no certificate; add one in PEM".into(),
                ));
            }
            builder = builder.tls_certs_only(certificates);
        }
        let http = builder
            .build()
            .map_err(|e| Error::Setup(format!("cannot set up TLS: {e}")))?;
        Ok(Self {
            inner: Arc::new(Inner {
                http,
                host,
                limiter,
                config,
                in_flight: Fair::new(IN_FLIGHT, IN_FLIGHT_SHARE),
                session: Mutex::default(),
            }),
            caller: None,
        })
    }

    /// The same client on behalf of an ImportedClient, which has a share of the request window.
    pub fn for_caller(&self, caller: &str) -> Self {
        Self {
            inner: self.inner.clone(),
            caller: Some(caller.into()),
        }
    }

    /// The connection's namespace.
    pub fn namespace(&self) -> &str {
        self.inner.config.name.split('/').next().unwrap_or_default()
    }

    /// The request window, which clones share.
    pub fn limiter(&self) -> &Arc<Limiter> {
        &self.inner.limiter
    }

    /// Signs in if necessary; returns the scopes HaloPSA granted.
    pub async fn sign_in(&self) -> Result<Vec<String>, Error> {
        Ok(self.token(None).await?.scopes)
    }

    /// Which scopes beyond those needed the application would grant. The token
    /// that shows it is not kept. If HaloPSA rejects the request, it grants none.
    pub async fn excess_scopes(&self) -> Result<Vec<String>, Error> {
        match self
            .request_token(&super::EXCESSIVE_SCOPES.join(" "), 0)
            .await
        {
            Ok(token) => Ok(token
                .scopes
                .into_iter()
                .filter(|s| super::EXCESSIVE_SCOPES.contains(&s.as_str()))
                .collect()),
            Err(error) if error.is_transient() => Err(error),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// Drops the token. Permissions are baked into it, so a change only shows with the next one.
    pub async fn sign_out(&self) {
        let mut session = self.inner.session.lock().await;
        session.token = None;
        session.refused = None;
    }

    pub async fn get(
        &self,
        path: &str,
        query: &[(&str, String)],
        priority: Priority,
    ) -> Result<Reply, Error> {
        self.call(Method::GET, path, query, None, priority, MAX_BODY)
            .await
    }

    /// As [`Client::get`], where long answers are expected.
    pub async fn get_long(
        &self,
        path: &str,
        query: &[(&str, String)],
        priority: Priority,
    ) -> Result<Reply, Error> {
        self.call(Method::GET, path, query, None, priority, MAX_LONG_BODY)
            .await
    }

    /// POSTs an array, as HaloPSA expects. Not repeated once it may have arrived.
    pub async fn post(
        &self,
        path: &str,
        objects: Vec<Value>,
        priority: Priority,
    ) -> Result<Reply, Error> {
        let body = Some(Value::Array(objects));
        self.call(Method::POST, path, &[], body, priority, MAX_BODY)
            .await
    }

    pub async fn delete(&self, path: &str, priority: Priority) -> Result<(), Error> {
        let called = self.call(Method::DELETE, path, &[], None, priority, MAX_BODY);
        match called.await {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<Value>,
        priority: Priority,
        longest: usize,
    ) -> Result<Reply, Error> {
        let template = template(path);
        let call = Call {
            name: format!("{method} {template}"),
            method,
            path,
            query,
            body,
            priority,
            longest,
        };
        let span = tracing::info_span!(
            "halopsa",
            otel.kind = "client",
            http.request.method = %call.method,
            url.template = %template,
            server.address = %self.inner.host,
            http.response.status_code = tracing::field::Empty,
            http.request.resend_count = tracing::field::Empty,
            error.type = tracing::field::Empty,
        );
        let started = Instant::now();
        let all = self.attempts(&call).instrument(span.clone());
        let outcome = match tokio::time::timeout(CALL_TIMEOUT, all).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Timeout {
                host: self.inner.host.clone(),
                call: call.name.clone(),
                seconds: CALL_TIMEOUT.as_secs(),
            }),
        };
        let (call, ms) = (call.name, started.elapsed().as_millis() as u64);
        match &outcome {
            Ok(_) => tracing::debug!(parent: &span, %call, ms, "HaloPSA responded"),
            Err(error) => {
                span.record("error.type", error.kind());
                tracing::debug!(parent: &span, %call, ms, %error, "HaloPSA call failed");
            }
        }
        outcome
    }

    async fn attempts(&self, call: &Call<'_>) -> Result<Reply, Error> {
        let mut refused_token = None;
        let mut failures = 0;
        loop {
            let token = self.token(refused_token).await?;
            self.admit(call.priority).await?;
            let error = match self.attempt(call, &token).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match &error {
                Error::Forbidden { status, .. }
                    if refused_token.is_none()
                        && (*status == 401 || token.since.elapsed() >= STALE_AFTER) =>
                {
                    refused_token = Some(token.generation);
                    continue;
                }
                Error::RateLimited { .. } => {}
                error if !error.is_transient() => return Err(error.clone()),
                // A write whose response was lost may have been applied: the caller looks it up.
                error if call.method != Method::GET && !error.definitely_not_applied() => {
                    return Err(error.clone());
                }
                _ => {}
            }
            failures += 1;
            if failures >= ATTEMPTS {
                return Err(error);
            }
            tracing::Span::current().record("http.request.resend_count", failures);
            if !matches!(error, Error::RateLimited { .. }) {
                backoff(failures).await;
            }
        }
    }

    /// Waits for room in the window, unless that takes longer than `max_wait`.
    async fn admit(&self, priority: Priority) -> Result<(), Error> {
        let (limiter, max_wait) = (&self.inner.limiter, self.inner.config.max_wait);
        let wait = limiter.wait(priority, &self.caller);
        if wait > max_wait {
            return Err(Error::RateLimited { wait });
        }
        match tokio::time::timeout(max_wait, limiter.admit(priority, &self.caller)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Error::RateLimited {
                wait: limiter
                    .wait(priority, &self.caller)
                    .max(Duration::from_secs(1)),
            }),
        }
    }

    async fn attempt(&self, call: &Call<'_>, token: &Token) -> Result<Reply, Error> {
        // A HaloPSA that hangs holds a few requests, not all that were ever asked for.
        let _place = self.inner.in_flight.enter(self.caller.clone()).await;
        let url = format!("{}/api{}", self.inner.config.instance_url, call.path);
        let mut request = self
            .inner
            .http
            .request(call.method.clone(), url)
            .query(call.query);
        if let Some(tenant) = &self.inner.config.tenant {
            request = request.query(&[("tenant", tenant)]);
        }
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        let request = request.bearer_auth(token.secret.expose_secret());
        let answer = self.send(request, &call.name, call.longest).await?;
        let status = answer.status;
        tracing::Span::current().record("http.response.status_code", status.as_u16());
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(self.limited(&answer.headers, &answer.body));
        }
        check_answer(status.as_u16(), &answer.body, &call.name)?;
        Ok(Reply::new(call.name.clone(), answer.body).holding(answer.place))
    }

    fn limited(&self, headers: &header::HeaderMap, body: &[u8]) -> Error {
        let retry_after = headers
            .get(header::RETRY_AFTER)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.trim().parse().ok())
            .map(Duration::from_secs);
        Error::RateLimited {
            wait: self
                .inner
                .limiter
                .on_429(&String::from_utf8_lossy(body), retry_after),
        }
    }

    /// Sends a request and reads the whole response, bounded in time and size.
    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        call: &str,
        longest: usize,
    ) -> Result<Answer, Error> {
        let host = || self.inner.host.clone();
        let reply = async {
            let mut response = request.send().await?;
            let mut answer = Answer {
                status: response.status(),
                headers: response.headers().clone(),
                body: Vec::new(),
                place: None,
            };
            while let Some(chunk) = response.chunk().await? {
                let length = answer.body.len() + chunk.len();
                if length > longest {
                    return Ok((answer, false));
                }
                if length > LARGE_BODY && answer.place.is_none() {
                    answer.place = Some(LARGE.enter(self.namespace().to_string()).await);
                }
                answer.body.extend_from_slice(&chunk);
            }
            Ok((answer, true))
        };
        let (limit, started) = (self.inner.config.timeout, Instant::now());
        let reply = tokio::time::timeout(limit, reply).await;
        let status = if let Ok(Ok((answer, _))) = &reply {
            answer.status.as_u16()
        } else {
            0
        };
        if let Some(observer) = &self.inner.config.observer {
            observer.request(call, status, started.elapsed());
        }
        match reply {
            Err(_) => Err(Error::Timeout {
                host: host(),
                call: call.into(),
                seconds: limit.as_secs(),
            }),
            Ok(Ok((answer, true))) => Ok(answer),
            Ok(Ok((_, false))) => Err(Error::Answer {
                call: call.into(),
                detail: format!("it is longer than {} MiB", longest >> 20),
            }),
            Ok(Err(e)) => Err(self.transport_error(&e, call)),
        }
    }

    fn transport_error(&self, e: &reqwest::Error, call: &str) -> Error {
        // reqwest's own text names the URL; the root cause says what happened.
        let (host, detail) = (self.inner.host.clone(), crate::error::root_cause(e));
        if e.is_connect() {
            Error::Unreachable { host, detail }
        } else if e.is_timeout() {
            Error::Timeout {
                host,
                call: call.into(),
                seconds: self.inner.config.timeout.as_secs(),
            }
        } else {
            Error::Broken {
                host,
                call: call.into(),
                detail,
            }
        }
    }

    /// The current token, or a new one. One caller signs in; the others wait
    /// for it. `refused` is the generation HaloPSA no longer accepts.
    async fn token(&self, refused: Option<u64>) -> Result<Token, Error> {
        let mut session = self.inner.session.lock().await;
        if let Some(token) = &session.token
            && Instant::now() < token.renew_at
            && refused.is_none_or(|generation| token.generation > generation)
        {
            return Ok(token.clone());
        }
        if let Some((error, until)) = &session.refused
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        session.generation += 1;
        match self
            .request_token(&super::REQUIRED_SCOPES.join(" "), session.generation)
            .await
        {
            Ok(token) => {
                session.accepted = true;
                session.refused = None;
                session.token = Some(token.clone());
                Ok(token)
            }
            Err(error) => {
                let error = match error {
                    Error::InvalidClient { detail } if session.accepted => {
                        Error::Revoked { detail }
                    }
                    error => error,
                };
                session.token = None;
                session.refused = Some((error.clone(), Instant::now() + REFUSED_FOR));
                Err(error)
            }
        }
    }

    async fn request_token(&self, scope: &str, generation: u64) -> Result<Token, Error> {
        let config = &self.inner.config;
        let call = "POST /auth/token";
        let mut failures = 0;
        loop {
            let mut request = self
                .inner
                .http
                .post(format!("{}/auth/token", config.instance_url))
                .form(&[
                    ("grant_type", "client_credentials"),
                    ("client_id", &config.client_id),
                    ("client_secret", config.client_secret.expose_secret()),
                    ("scope", scope),
                ]);
            if let Some(tenant) = &config.tenant {
                request = request.query(&[("tenant", tenant)]);
            }
            let error = match self.send(request, call, MAX_TOKEN).await {
                Ok(answer) if answer.status.is_success() => {
                    return token_from(&answer.body, generation);
                }
                Ok(answer) if answer.status == StatusCode::TOO_MANY_REQUESTS => {
                    return Err(self.limited(&answer.headers, &answer.body));
                }
                Ok(answer) => refusal(answer.status, &answer.body),
                Err(error) => error,
            };
            failures += 1;
            if !error.is_transient() || failures >= ATTEMPTS {
                return Err(error);
            }
            backoff(failures).await;
        }
    }
}

/// What a response means: JSON that may be read, or an error.
pub fn check_answer(status: u16, bytes: &[u8], call: &str) -> Result<(), Error> {
    let (call, detail) = (call.to_string(), || error::detail(bytes));
    match status {
        200..=299 if bytes.iter().all(u8::is_ascii_whitespace) => Ok(()),
        200..=299 => match serde_json::from_slice::<&RawValue>(bytes) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Answer {
                call,
                detail: detail(),
            }),
        },
        300..=399 => Err(redirects(call, status)),
        401 | 403 => Err(Error::Forbidden {
            call,
            status,
            detail: detail(),
        }),
        404 => Err(Error::NotFound { call }),
        429 => Err(Error::RateLimited {
            wait: super::limit::DEFAULT_RETRY_AFTER,
        }),
        500.. => Err(Error::Server {
            call,
            status,
            detail: detail(),
        }),
        status => Err(Error::Rejected {
            call,
            status,
            detail: detail(),
        }),
    }
}

fn redirects(call: String, status: u16) -> Error {
    Error::Answer {
        call,
        detail: format!(
            "it redirects (HTTP {status}); use the address it redirects to as the instance URL"
        ),
    }
}

/// Longer each time, with jitter so that callers do not retry all at once.
async fn backoff(failures: u32) {
    let base = Duration::from_millis(250) * 4u32.pow(failures - 1);
    tokio::time::sleep(base.mul_f64(rand::random_range(0.5..1.5))).await;
}

fn token_from(bytes: &[u8], generation: u64) -> Result<Token, Error> {
    let answer = |detail: String| Error::Answer {
        call: "POST /auth/token".into(),
        detail,
    };
    let reply: TokenReply =
        serde_json::from_slice(bytes).map_err(|_| answer(error::detail(bytes)))?;
    let Some(secret) = reply.access_token.filter(|t| !t.is_empty()) else {
        return Err(answer(format!(
            "it has no access_token: {}",
            error::detail(bytes)
        )));
    };
    let seconds = reply
        .expires_in
        .as_ref()
        .and_then(super::lenient::integer)
        .unwrap_or(3600)
        .clamp(10, 86_400) as u64;
    let life = Duration::from_secs(seconds);
    Ok(Token {
        secret: secret.into(),
        since: Instant::now(),
        renew_at: Instant::now() + life.saturating_sub(RENEW_BEFORE.min(life / 5)),
        // If the reply names no scopes, the requested ones are assumed: the calls will show.
        scopes: reply
            .scope
            .as_deref()
            .unwrap_or(&super::REQUIRED_SCOPES.join(" "))
            .split_whitespace()
            .map(str::to_string)
            .collect(),
        generation,
    })
}

fn refusal(status: StatusCode, bytes: &[u8]) -> Error {
    let detail = error::detail(bytes);
    let code = serde_json::from_slice::<Value>(bytes)
        .ok()
        .and_then(|v| v.get("error")?.as_str().map(str::to_string));
    match code.as_deref() {
        Some("invalid_scope") => Error::InvalidScope { detail },
        Some("invalid_client" | "unauthorized_client" | "invalid_grant") => {
            Error::InvalidClient { detail }
        }
        _ if status == StatusCode::NOT_FOUND => Error::Answer {
            call: "POST /auth/token".into(),
            detail: "HTTP 404".into(),
        },
        _ if status.is_redirection() => redirects("POST /auth/token".into(), status.as_u16()),
        _ if status.is_client_error() => Error::InvalidClient { detail },
        _ => Error::SignIn {
            status: status.as_u16(),
            detail,
        },
    }
}

/// `/Tickets/42` as `/Tickets/{id}`: for logs and metrics, where ids would be noise.
pub fn template(path: &str) -> String {
    let path = path.split('?').next().unwrap_or(path);
    path.split('/')
        .map(|part| {
            if part.bytes().any(|b| b.is_ascii_digit()) {
                "{id}"
            } else {
                part
            }
        })
        .collect::<Vec<_>>()
        .join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_templates() {
        assert_eq!(template("/Tickets/42?x=1"), "/Tickets/{id}");
        assert_eq!(
            template("/Webhook/53232637-7724-4a19-b126-3c7267a292aa"),
            "/Webhook/{id}"
        );
        assert_eq!(template("/Agent/me"), "/Agent/me");
    }

    #[test]
    fn sign_in_refusals_are_distinguished() {
        let refusal = |status: u16, body: &str| {
            refusal(StatusCode::from_u16(status).unwrap(), body.as_bytes()).kind()
        };
        assert_eq!(
            refusal(401, r#"{"error":"invalid_client"}"#),
            "invalid_client"
        );
        assert_eq!(
            refusal(400, r#"{"error":"invalid_scope"}"#),
            "invalid_scope"
        );
        assert_eq!(refusal(401, ""), "invalid_client");
        assert_eq!(refusal(503, "<html>"), "unavailable");
        assert_eq!(refusal(302, ""), "unexpected_response");
    }
}
