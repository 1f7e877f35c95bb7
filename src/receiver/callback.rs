//! A verification provider posts an outcome: `POST /verifications/{namespace}/{provider}`.
//!
//! It has to be signed with the provider's key, and recent. The first answer to a challenge
//! counts, so a replay changes nothing.

use super::{Answer, NOT_STORED, Receiver, STARTING};
use crate::api::VerificationProvider;
use crate::api::connection::SecretKeyRef;
use crate::api::ticket::{Phase, Ticket};
use crate::k8s::key::Key;
use crate::k8s::name::ObjectName;
use crate::k8s::{reflect, refs, tickets};
use crate::ticket::actor::Actor;
use crate::ticket::state::Event;
use crate::ticket::verification::{self, ProviderState};
use crate::verify::sign;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Api, ResourceExt};
use secrecy::SecretString;
use serde::Deserialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A provider is answered within this time.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a signing key is used without reading it again.
const KEY_FRESH: Duration = Duration::from_secs(5);

const NOT_WAITING: Answer = (
    StatusCode::CONFLICT,
    "no ticket is waiting for this challenge\n",
);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Callback {
    challenge_id: String,
    state: ProviderState,
}

pub async fn take(
    State(receiver): State<Arc<Receiver>>,
    Path((namespace, name)): Path<(ObjectName, ObjectName)>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let provider = Key::new(&*namespace, &*name);
    tokio::time::timeout(TIMEOUT, receiver.callback(provider, &uri, &headers, &body))
        .await
        .unwrap_or(NOT_STORED)
}

fn is_overdue(ticket: &Ticket, now: Timestamp) -> bool {
    let status = ticket.status.as_ref();
    status
        .and_then(|s| s.deadline.as_ref())
        .is_some_and(|deadline| deadline.0 <= now)
}

impl Receiver {
    async fn callback(&self, provider: Key, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Answer {
        if !self.ready.is_ready() {
            return STARTING;
        }
        let signer = match self.signer(&provider, uri, headers, body).await {
            Ok(Some(signer)) => signer,
            // A provider that does not exist looks like a wrong signature from outside.
            Ok(None) => return (StatusCode::UNAUTHORIZED, ""),
            Err(_) => return NOT_STORED,
        };
        let now = Timestamp::now();
        let Ok(callback) = serde_json::from_slice::<Callback>(body) else {
            return (
                StatusCode::BAD_REQUEST,
                "challengeId and state are required\n",
            );
        };
        let namespace = provider.namespace.clone();
        let Some(ticket) = self.waiting_for(&namespace, &provider.name, &callback.challenge_id)
        else {
            return NOT_WAITING;
        };
        let valid_for = std::time::Duration::from(signer.spec.valid_for);
        let valid_until = now + SignedDuration::try_from(valid_for).unwrap_or_default();
        let outcome = verification::outcome(callback.state, &callback.challenge_id, valid_until);
        let Some(event) = outcome else {
            return (StatusCode::OK, "still pending\n");
        };
        // After the deadline no answer counts, whether the controller has noticed or not.
        if is_overdue(&ticket, now) {
            return (StatusCode::CONFLICT, "the challenge has expired\n");
        }
        self.store_outcome(&namespace, &ticket, event).await
    }

    /// The provider, if it exists and has signed this callback just now.
    async fn signer(
        &self,
        provider: &Key,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Option<Arc<VerificationProvider>>, kube::Error> {
        let Key { namespace, name } = provider;
        // From the store: strangers cost the apiserver nothing.
        let Some(found) = reflect::get(&self.stores.providers, namespace, name) else {
            return Ok(None);
        };
        let Some(http) = &found.spec.http else {
            return Ok(None);
        };
        let Some(key) = self
            .signing_key(namespace, &http.signing_secret_ref)
            .await?
        else {
            return Ok(None);
        };
        let header = |name: &str| {
            headers
                .get(name)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
        };
        let is_signed = sign::is_valid(
            &key,
            Timestamp::now().as_second(),
            header(sign::TIMESTAMP),
            header(sign::SIGNATURE),
            "POST",
            uri.path(),
            body,
        );
        if !is_signed {
            tracing::warn!(
                %namespace, provider = %name,
                "rejected a verification callback: invalid signature or stale timestamp"
            );
            return Ok(None);
        }
        Ok(Some(found))
    }

    /// The provider's key. Read again after a few seconds at the earliest, so that callbacks with a
    /// wrong signature cost the apiserver little.
    async fn signing_key(
        &self,
        namespace: &str,
        reference: &SecretKeyRef,
    ) -> Result<Option<SecretString>, kube::Error> {
        let of = (Key::new(namespace, &reference.name), reference.key.clone());
        if let Some((key, read_at)) = self.signing_keys.get(&of)
            && read_at.elapsed() < KEY_FRESH
        {
            return Ok(key);
        }
        let read = refs::secret_key(&self.kube, namespace, &reference.name, &reference.key).await;
        let key = match read {
            Ok(key) => Some(key),
            // Not known: the next callback asks again.
            Err(refs::Error::Kube { source, .. }) => return Err(source),
            Err(_) => None,
        };
        self.signing_keys.set(of, (key.clone(), Instant::now()));
        Ok(key)
    }

    /// The ticket that waits for this challenge, whose connection names this provider.
    fn waiting_for(
        &self,
        namespace: &str,
        provider: &str,
        challenge_id: &str,
    ) -> Option<Arc<Ticket>> {
        let asked = |t: &Ticket| {
            let connection = &t.spec.connection_ref.name;
            reflect::get(&self.stores.connections, namespace, connection).is_some_and(|c| {
                let named = c.spec.sensitivity.provider_ref.as_ref();
                named.is_some_and(|reference| reference.name == provider)
            })
        };
        let waits = |t: &Ticket| {
            t.namespace().as_deref() == Some(namespace)
                && t.status.as_ref().is_some_and(|s| {
                    s.phase == Phase::Verifying
                        && s.verification
                            .as_ref()
                            .is_some_and(|v| v.challenge_id == challenge_id)
                })
                && asked(t)
        };
        self.stores.tickets.state_filter(waits).into_iter().next()
    }

    async fn store_outcome(&self, namespace: &str, ticket: &Ticket, event: Event) -> Answer {
        let api: Api<Ticket> = Api::namespaced(self.kube.clone(), namespace);
        match tickets::transition(&api, ticket, &[event], Actor::Receiver).await {
            Ok(_) => (StatusCode::OK, "accepted\n"),
            Err(tickets::Error::Refused(_)) => NOT_WAITING,
            Err(error) => {
                tracing::warn!(
                    %namespace, %error,
                    "cannot store a verification callback; asked the provider to send it again"
                );
                NOT_STORED
            }
        }
    }
}
