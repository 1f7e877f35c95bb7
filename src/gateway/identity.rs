//! Who an agent is: its projected ServiceAccount token, reviewed by the apiserver.

use crate::k8s::{self, names};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For this long a token is not reviewed again. An agent that is deleted is out after it.
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
    #[error("a bearer token of audience halopsa-gateway is needed")]
    NoToken,
    #[error(
        "the token is not valid for audience halopsa-gateway, or has expired; read it from its file again"
    )]
    Invalid,
    #[error("the token is not an agent's")]
    NotAnAgent,
    #[error("the token cannot be reviewed at the moment: {0}")]
    Unavailable(String),
}

/// Reviews tokens and remembers the verdict for a moment.
pub struct Reviewer {
    kube: Client,
    cache: Mutex<HashMap<[u8; 32], (Instant, Identity)>>,
}

impl Reviewer {
    pub fn new(kube: Client) -> Self {
        Self {
            kube,
            cache: Mutex::default(),
        }
    }

    pub async fn review(&self, token: &str) -> Result<Identity, Error> {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(Error::NoToken);
        }
        let key: [u8; 32] = Sha256::digest(token).into();
        let cached = self
            .cache()
            .get(&key)
            .filter(|(at, _)| at.elapsed() < CACHED_FOR)
            .map(|(_, identity)| identity.clone());
        if let Some(identity) = cached {
            return Ok(identity);
        }
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![names::GATEWAY_AUDIENCE.into()]),
                token: Some(token.into()),
            },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.kube.clone());
        let reviewed = match tokio::time::timeout(
            TIMEOUT,
            api.create(&PostParams::default(), &review),
        )
        .await
        {
            Ok(Ok(reviewed)) => reviewed,
            Ok(Err(error)) => return Err(Error::Unavailable(k8s::explain(&error))),
            Err(_) => return Err(Error::Unavailable("the apiserver does not answer".into())),
        };
        let identity = identity_of(&reviewed)?;
        let mut cache = self.cache();
        if cache.len() >= MAX_CACHED {
            cache.retain(|_, (at, _)| at.elapsed() < CACHED_FOR);
        }
        if cache.len() < MAX_CACHED {
            cache.insert(key, (Instant::now(), identity.clone()));
        }
        Ok(identity)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], (Instant, Identity)>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
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
    use serde_json::json;

    fn review(status: serde_json::Value) -> Result<Identity, Error> {
        identity_of(
            &serde_json::from_value(json!({"metadata": {}, "spec": {}, "status": status})).unwrap(),
        )
    }

    #[test]
    fn only_an_agents_pod_with_our_audience() {
        let user = |name: &str| json!({"username": name, "extra": {"authentication.kubernetes.io/pod-name": ["p-1"]}});
        let good = review(
            json!({"authenticated": true, "audiences": ["halopsa-gateway"], "user": user("system:serviceaccount:msp:halopsa-agent-acme")}),
        );
        assert_eq!(
            good.unwrap(),
            Identity {
                namespace: "msp".into(),
                client: "acme".into(),
                pod: "p-1".into()
            }
        );
        for bad in [
            json!({"authenticated": false, "audiences": ["halopsa-gateway"], "user": user("system:serviceaccount:msp:halopsa-agent-acme")}),
            json!({"authenticated": true, "audiences": ["other"], "user": user("system:serviceaccount:msp:halopsa-agent-acme")}),
            json!({"authenticated": true, "user": user("system:serviceaccount:msp:halopsa-agent-acme")}),
            json!({"authenticated": true, "audiences": ["halopsa-gateway"], "user": user("system:serviceaccount:msp:default")}),
            json!({"authenticated": true, "audiences": ["halopsa-gateway"], "user": user("admin")}),
            json!({"authenticated": true, "audiences": ["halopsa-gateway"], "user": {"username": "system:serviceaccount:msp:halopsa-agent-acme"}}),
        ] {
            assert!(review(bad.clone()).is_err(), "{bad}");
        }
    }
}
