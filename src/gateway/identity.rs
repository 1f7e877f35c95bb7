//! Who an agent is: its projected ServiceAccount token, reviewed by the apiserver.

use crate::fair::{Fair, Rates};
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
/// For this long a refused token is refused without asking again.
const REFUSED_FOR: Duration = Duration::from_secs(10);
const MAX_REFUSED: usize = 2000;
/// Reviews at once, and the longest wait for one of them.
const REVIEWS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(5);
/// Reviews of tokens never seen before, for all that call: whoever tries many does not keep the
/// apiserver busy.
const UNKNOWN_PER_SECOND: f64 = 20.0;
const UNKNOWN_BURST: u32 = 50;
/// Reviews of tokens that were good before.
const KNOWN_PER_SECOND: f64 = 100.0;
const KNOWN_BURST: u32 = 500;
/// Records of refused tokens in the audit stream.
const RECORDS_PER_SECOND: f64 = 1.0;
const RECORDS_BURST: u32 = 50;
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
    #[error("too many tokens are waiting to be reviewed; try again in a moment")]
    Busy(Duration),
}

/// Why a token is refused, whenever it is reviewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Invalid,
    NotAnAgent,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Invalid => Error::Invalid,
            Refused::NotAnAgent => Error::NotAnAgent,
        }
    }
}

/// Reviews tokens and remembers whose they are for a moment.
pub struct Reviewer {
    kube: Client,
    /// By SHA-256 of the token. Those that are no longer fresh show which were good once.
    reviewed: Remembered<[u8; 32], Reviewed>,
    refused: Remembered<[u8; 32], (Refused, Instant)>,
    /// One token is reviewed once, however many requests come with it.
    reviewing: Fair<[u8; 32]>,
    unknown: Rates<()>,
    known: Rates<()>,
    records: Rates<()>,
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
            refused: Remembered::default(),
            reviewing: Fair::new(REVIEWS, 1),
            unknown: Rates::new(UNKNOWN_PER_SECOND, UNKNOWN_BURST),
            known: Rates::new(KNOWN_PER_SECOND, KNOWN_BURST),
            records: Rates::new(RECORDS_PER_SECOND, RECORDS_BURST),
        }
    }

    /// Whether one more refused token goes to the audit stream.
    pub fn is_recorded(&self) -> bool {
        self.records.take(()).is_ok()
    }

    pub async fn review(&self, token: &str) -> Result<Identity, Error> {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(Error::NoToken);
        }
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(verdict) = self.verdict(&key) {
            return verdict.map_err(Error::from);
        }
        let place = tokio::time::timeout(PATIENCE, self.reviewing.enter(key));
        let _place = place.await.map_err(|_| Error::Busy(PATIENCE))?;
        // Another request may have brought it meanwhile.
        if let Some(verdict) = self.verdict(&key) {
            return verdict.map_err(Error::from);
        }
        let rates = match self.reviewed.get(&key) {
            Some(_) => &self.known,
            None => &self.unknown,
        };
        rates.take(()).map_err(Error::Busy)?;
        match identity_of(&self.ask(token).await?) {
            Ok(identity) => {
                self.remember(key, &identity);
                Ok(identity)
            }
            Err(refused) => {
                self.reviewed.forget(&key);
                self.refuse(key, refused);
                Err(refused.into())
            }
        }
    }

    /// What is known of a token; none: it has to be reviewed.
    fn verdict(&self, key: &[u8; 32]) -> Option<Result<Identity, Refused>> {
        if let Some(known) = self.reviewed.get(key).filter(Reviewed::is_fresh) {
            return Some(Ok(known.identity));
        }
        let (refused, at) = self.refused.get(key)?;
        (at.elapsed() < REFUSED_FOR).then_some(Err(refused))
    }

    fn refuse(&self, key: [u8; 32], why: Refused) {
        let mut refused = self.refused.lock();
        if refused.len() >= MAX_REFUSED {
            refused.retain(|_, (_, at)| at.elapsed() < REFUSED_FOR);
        }
        if refused.len() < MAX_REFUSED {
            refused.insert(key, (why, Instant::now()));
        }
    }

    fn remember(&self, key: [u8; 32], identity: &Identity) {
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
fn identity_of(review: &TokenReview) -> Result<Identity, Refused> {
    let status = review.status.as_ref().ok_or(Refused::Invalid)?;
    // An apiserver that does not know audiences returns none: then it proves nothing.
    let for_us = status
        .audiences
        .as_ref()
        .is_some_and(|a| a.iter().any(|a| a == names::GATEWAY_AUDIENCE));
    if status.authenticated != Some(true) || !for_us {
        return Err(Refused::Invalid);
    }
    let user = status.user.as_ref().ok_or(Refused::NotAnAgent)?;
    let account = user
        .username
        .as_deref()
        .and_then(|u| u.strip_prefix("system:serviceaccount:"))
        .ok_or(Refused::NotAnAgent)?;
    let (namespace, name) = account.split_once(':').ok_or(Refused::NotAnAgent)?;
    let client = names::client_of_agent(name).ok_or(Refused::NotAnAgent)?;
    let pod = user
        .extra
        .as_ref()
        .and_then(|e| e.get("authentication.kubernetes.io/pod-name")?.first())
        .ok_or(Refused::NotAnAgent)?;
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

    fn review(status: &Value) -> Result<Identity, Refused> {
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
    #[tokio::test]
    async fn a_refused_token_is_not_reviewed_again_at_once() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Nobody answers there: whatever is asked fails.
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let reviewer = Reviewer::new(Client::try_from(config).unwrap());
        let key: [u8; 32] = Sha256::digest("bad").into();
        reviewer.refuse(key, Refused::Invalid);
        assert!(matches!(reviewer.review("bad").await, Err(Error::Invalid)));
        for n in 0..MAX_REFUSED * 2 {
            reviewer.refuse(Sha256::digest(n.to_string()).into(), Refused::NotAnAgent);
        }
        assert!(reviewer.refused.lock().len() <= MAX_REFUSED);
        // Many unknown tokens: most are turned away before the apiserver is asked.
        while reviewer.unknown.take(()).is_ok() {}
        assert!(matches!(reviewer.review("new").await, Err(Error::Busy(_))));
    }
}
