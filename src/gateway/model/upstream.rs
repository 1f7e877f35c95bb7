//! The model's endpoint.

use super::Refusal;
use super::budget::Used;
use crate::api::connection::ModelSpec;
use crate::error::root_cause;
use crate::k8s::{refs, services};
use axum::http::{StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The endpoint, with its key.
pub struct Upstream {
    http: reqwest::Client,
    url: String,
    key: Option<SecretString>,
    /// The longest wait for an answer.
    pub timeout: Duration,
    /// Name of the model.
    pub model: String,
    pub host: String,
}

/// A call without an answer.
pub struct Failed {
    pub refusal: Refusal,
    pub used: Used,
    /// HTTP status, if the endpoint refused it.
    pub status: Option<u16>,
}

impl Failed {
    pub fn timeout(timeout: Duration) -> Self {
        let why = format!("the model did not answer within {} s", timeout.as_secs());
        Self {
            refusal: Refusal::new(StatusCode::GATEWAY_TIMEOUT, "timeout", why),
            used: Used::Unknown,
            status: None,
        }
    }
}

impl Upstream {
    pub async fn of(
        kube: &kube::Client,
        namespace: &str,
        spec: &ModelSpec,
    ) -> Result<Self, String> {
        let key = match &spec.api_key_secret_ref {
            Some(reference) => {
                let key = refs::secret_key(kube, namespace, &reference.name, &reference.key).await;
                Some(key.map_err(|e| format!("the model's key: {e}"))?)
            }
            None => None,
        };
        let host = reqwest::Url::parse(&spec.base_url).ok();
        let host = host.and_then(|url| url.host_str().map(str::to_string));
        Ok(Self {
            http: http_client(kube, namespace, spec).await?,
            url: format!("{}/chat/completions", spec.base_url),
            key,
            timeout: spec.limits.timeout.into(),
            model: spec.name.clone(),
            host: host.unwrap_or_default(),
        })
    }

    pub async fn send(&self, body: Vec<u8>) -> Result<reqwest::Response, Failed> {
        let mut call = self
            .http
            .post(&self.url)
            .timeout(self.timeout)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body);
        if let Some(key) = &self.key {
            call = call.bearer_auth(key.expose_secret());
        }
        let answer = call.send().await.map_err(|error| self.failed(&error))?;
        match answer.status().is_success() {
            true => Ok(answer),
            false => Err(refused(&answer)),
        }
    }

    fn failed(&self, error: &reqwest::Error) -> Failed {
        if error.is_timeout() && !error.is_connect() {
            return Failed::timeout(self.timeout);
        }
        let why = format!("cannot reach the model: {}", root_cause(error));
        Failed {
            refusal: Refusal::bad_gateway("unreachable", why),
            used: match error.is_connect() {
                true => Used::Nothing,
                false => Used::Unknown,
            },
            status: None,
        }
    }
}

/// The provider's own words may quote the key, so the agent does not see them.
fn refused(answer: &reqwest::Response) -> Failed {
    let status = answer.status();
    let is_transient = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    let code = match is_transient {
        true => StatusCode::BAD_GATEWAY,
        false => StatusCode::FAILED_DEPENDENCY,
    };
    let why = format!("the model's endpoint answered HTTP {}", status.as_u16());
    Failed {
        refusal: Refusal {
            retry_after: answer.headers().get(header::RETRY_AFTER).cloned(),
            ..Refusal::new(code, "upstream_error", why)
        },
        used: Used::Nothing,
        status: Some(status.as_u16()),
    }
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
