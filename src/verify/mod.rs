//! Asks a requester, through a provider, to prove who they are.
//!
//! - [`http`]: the documented HTTP contract (`docs/verification.md`)
//! - [`traceless`]: Traceless, whose wire format is not public
//! - [`sign`]: timestamped HMAC signatures, both ways

pub mod http;
pub mod sign;
pub mod traceless;

use crate::api::VerificationProvider;
use crate::api::connection::CaConfigMapRef;
use crate::api::reason::Reason;
use crate::error::root_cause;
use crate::k8s::{refs, services};
use kube::{Client, ResourceExt};
use serde::Serialize;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(15);
/// Longest response accepted; a provider's is a few hundred bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// What a challenge asks, and whom.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Challenge {
    /// The idempotency key: one challenge is sent per id.
    pub challenge_id: String,
    pub email: String,
    pub name: String,
    /// Like `a password reset`: no ticket text.
    pub reason: String,
    /// Like `2026-11-25T10:00:00Z`.
    pub expires_at: String,
    /// Where the outcome may be posted, signed.
    pub callback_url: String,
}

pub use crate::ticket::verification::ProviderState as State;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Reference(#[from] refs::Error),
    #[error("its URL: {0}")]
    Address(#[from] services::Error),
    #[error("spec is unusable: {0}")]
    Spec(String),
    #[error("cannot reach the verification provider: {0}; check its URL and the network")]
    Unreachable(String),
    #[error("the verification provider returned HTTP {0}; check its log")]
    Refused(u16),
    #[error("unexpected response from the verification provider: {0}; check its URL and its log")]
    Answer(String),
}

impl Error {
    pub fn reason(&self) -> Reason {
        match self {
            Error::Reference(_) | Error::Address(_) | Error::Spec(_) => Reason::ReferenceInvalid,
            Error::Unreachable(_) => Reason::Unreachable,
            Error::Refused(401 | 403) => Reason::Unauthorized,
            Error::Refused(_) => Reason::ProviderUnavailable,
            Error::Answer(_) => Reason::UnexpectedResponse,
        }
    }
}

/// A provider that is ready to use.
pub enum Provider {
    Http(http::Http),
    Traceless(traceless::Traceless),
}

impl Provider {
    pub async fn of(kube: &Client, provider: &VerificationProvider) -> Result<Self, Error> {
        let namespace = provider.namespace().unwrap_or_default();
        let spec = &provider.spec;
        if let Some(http) = &spec.http {
            let reference = &http.signing_secret_ref;
            let key = refs::secret_key(kube, &namespace, &reference.name, &reference.key).await?;
            return Ok(Provider::Http(http::Http::new(
                client(kube, &namespace, &http.url, http.ca_config_map_ref.as_ref()).await?,
                &http.url,
                key,
            )?));
        }
        if let Some(traceless) = &spec.traceless {
            let key = refs::secret_key(
                kube,
                &namespace,
                &traceless.secret_ref.name,
                "signingSecret",
            )
            .await?;
            let organization = refs::secret_key(
                kube,
                &namespace,
                &traceless.secret_ref.name,
                "organizationUUID",
            )
            .await?;
            let ca = traceless.ca_config_map_ref.as_ref();
            let http = client(kube, &namespace, &traceless.endpoint, ca).await?;
            return Ok(Provider::Traceless(traceless::Traceless::new(
                http,
                &traceless.endpoint,
                traceless.push_method,
                key,
                organization,
            )));
        }
        Err(Error::Spec("it sets neither http nor traceless".into()))
    }

    /// Sends the challenge, unless it was sent before.
    pub async fn start(&self, challenge: &Challenge) -> Result<State, Error> {
        match self {
            Provider::Http(http) => http.start(challenge).await,
            Provider::Traceless(traceless) => traceless.start(challenge).await,
        }
    }

    pub async fn state(&self, challenge_id: &str) -> Result<State, Error> {
        match self {
            Provider::Http(http) => http.state(challenge_id).await,
            Provider::Traceless(traceless) => traceless.state(challenge_id).await,
        }
    }

    /// Whether it is reachable and accepts our signature.
    pub async fn check(&self) -> Result<(), Error> {
        match self {
            Provider::Http(http) => http.check().await,
            Provider::Traceless(traceless) => traceless.check().await,
        }
    }
}

async fn client(
    kube: &Client,
    namespace: &str,
    url: &str,
    ca: Option<&CaConfigMapRef>,
) -> Result<reqwest::Client, Error> {
    let mut builder = reqwest::Client::builder()
        .https_only(true)
        .dns_resolver(services::guard(kube, namespace, url).await?)
        .connect_timeout(Duration::from_secs(5))
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none());
    if let Some(reference) = ca {
        let certificates = refs::ca_certificates(kube, namespace, reference).await?;
        builder = builder.tls_certs_only(certificates);
    }
    builder
        .build()
        .map_err(|e| Error::Unreachable(root_cause(&e)))
}

/// Sends a request; returns the response as JSON, bounded.
async fn answer(request: reqwest::RequestBuilder) -> Result<serde_json::Value, Error> {
    let mut response = request
        .send()
        .await
        .map_err(|e| Error::Unreachable(root_cause(&e)))?;
    let status = response.status();
    let mut bytes = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|e| Error::Unreachable(root_cause(&e)))?
    {
        if bytes.len() + chunk.len() > MAX_ANSWER {
            return Err(Error::Answer("it is too long".into()));
        }
        bytes.extend_from_slice(&chunk);
    }
    if !status.is_success() {
        return Err(Error::Refused(status.as_u16()));
    }
    serde_json::from_slice(&bytes).map_err(|_| Error::Answer("it is not JSON".into()))
}

/// An address as shown in notes and statuses: `k***@acme.example`.
pub fn masked(email: &str) -> String {
    match email.split_once('@') {
        Some((user, domain)) => format!("{}***@{domain}", user.chars().take(1).collect::<String>()),
        None => "***".into(),
    }
}

/// Whether a challenge can be sent to the address: bounded, a single one, plain characters only.
pub fn is_address(email: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '\'');
    email.len() <= 254
        && email.split_once('@').is_some_and(|(user, domain)| {
            !user.is_empty()
                && user.chars().all(plain)
                && domain.contains('.')
                && domain.split('.').all(|part| !part.is_empty())
                && domain
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(masked("kim.lee@acme.example"), "k***@acme.example");
        assert_eq!(masked("nonsense"), "***");
        assert!(is_address("kim.lee+x@acme.example"));
        for bad in [
            "",
            "kim",
            "@x.example",
            "kim@",
            "kim@x",
            "a@b.example, c@d.example",
            "a b@c.example",
            "kim@x..example",
            "kim@x.example\n",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
