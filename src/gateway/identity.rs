//! Who an agent is: its projected ServiceAccount token, reviewed by the apiserver.

use crate::k8s::cache::Remembered;
use crate::k8s::{self, names};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};

/// For this long a token is not reviewed again. A deleted agent loses access after it.
const CACHED_FOR: Duration = Duration::from_secs(30);
const MAX_CACHED: usize = 20_000;
const MAX_TOKEN: usize = 8192;
const TIMEOUT: Duration = Duration::from_secs(10);

/// An agent's Pod and the client it works for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub namespace: String,
    /// The ImportedClient.
    pub client: String,
    pub pod: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a bearer token of audience halopsa-gateway is required")]
    NoToken,
    #[error(
        "the token is not valid for audience halopsa-gateway, or has expired; \
         read it from its file again"
    )]
    Invalid,
    #[error("the token is not an agent's")]
    NotAnAgent,
    #[error("the token cannot be reviewed right now: {0}")]
    Unavailable(String),
}

/// Reviews tokens and remembers whose they are for a moment.
pub struct Reviewer {
    kube: Client,
    /// By SHA-256 of the token.
    reviewed: Remembered<[u8; 32], Reviewed>,
}

#[derive(Clone)]
struct Reviewed {
    at: Instant,
    identity: Identity,
}

impl Reviewed {
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < CACHED_FOR
    }
}

impl Reviewer {
    pub fn new(kube: Client) -> Self {
        Self {
            kube,
            reviewed: Remembered::default(),
        }
    }

    pub async fn review(&self, token: &str) -> Result<Identity, Error> {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(Error::NoToken);
        }
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.reviewed.get(&key).filter(Reviewed::is_fresh) {
            return Ok(known.identity);
        }
        let identity = identity_of(&self.ask(token).await?)?;
        let mut reviewed = self.reviewed.lock();
        if reviewed.len() >= MAX_CACHED {
            reviewed.retain(|_, known| known.is_fresh());
        }
        if reviewed.len() < MAX_CACHED {
            let known = Reviewed {
                at: Instant::now(),
                identity: identity.clone(),
            };
            reviewed.insert(key, known);
        }
        Ok(identity)
    }

    async fn ask(&self, token: &str) -> Result<TokenReview, Error> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![names::GATEWAY_AUDIENCE.into()]),
                token: Some(token.into()),
            },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.kube.clone());
        match tokio::time::timeout(TIMEOUT, api.create(&PostParams::default(), &review)).await {
            Ok(Ok(reviewed)) => Ok(reviewed),
            Ok(Err(error)) => Err(Error::Unavailable(k8s::explain(&error))),
            Err(_) => Err(Error::Unavailable("the apiserver does not answer".into())),
        }
    }
}

/// The agent in a reviewed token: pure.
fn identity_of(review: &TokenReview) -> Result<Identity, Error> {
    let status = review.status.as_ref().ok_or(Error::Invalid)?;
    // An apiserver that does not know audiences returns none: then it proves nothing.
    let for_us = status
        .audiences
        .as_ref()
        .is_some_and(|a| a.iter().any(|a| a == names::GATEWAY_AUDIENCE));
    if status.authenticated != Some(true) || !for_us {
        return Err(Error::Invalid);
    }
    let user = status.user.as_ref().ok_or(Error::NotAnAgent)?;
    let account = user
        .username
        .as_deref()
        .and_then(|u| u.strip_prefix("system:serviceaccount:"))
        .ok_or(Error::NotAnAgent)?;
    let (namespace, name) = account.split_once(':').ok_or(Error::NotAnAgent)?;
    let client = names::client_of_agent(name).ok_or(Error::NotAnAgent)?;
    let pod = user
        .extra
        .as_ref()
        .and_then(|e| e.get("authentication.kubernetes.io/pod-name")?.first())
        .ok_or(Error::NotAnAgent)?;
    Ok(Identity {
        namespace: namespace.into(),
        client: client.into(),
        pod: pod.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const AGENT: &str = "system:serviceaccount:msp:halopsa-agent-acme";

    fn review(status: &Value) -> Result<Identity, Error> {
        identity_of(
            &serde_json::from_value(json!({"metadata": {}, "spec": {}, "status": status})).unwrap(),
        )
    }

    fn status(authenticated: bool, audience: &str, user: Value) -> Value {
        json!({"authenticated": authenticated, "audiences": [audience], "user": user})
    }

    #[test]
    fn only_an_agents_pod_with_our_audience() {
        let pod = json!({"authentication.kubernetes.io/pod-name": ["p-1"]});
        let user = |name: &str| json!({"username": name, "extra": pod});
        assert_eq!(
            review(&status(true, "halopsa-gateway", user(AGENT))).unwrap(),
            Identity {
                namespace: "msp".into(),
                client: "acme".into(),
                pod: "p-1".into()
            }
        );
        let other = "system:serviceaccount:msp:default";
        for bad in [
            status(false, "halopsa-gateway", user(AGENT)),
            status(true, "other", user(AGENT)),
            json!({"authenticated": true, "user": user(AGENT)}),
            status(true, "halopsa-gateway", user(other)),
            status(true, "halopsa-gateway", user("admin")),
            status(true, "halopsa-gateway", json!({"username": AGENT})),
        ] {
            assert!(review(&bad).is_err(), "{bad}");
        }
    }
}
