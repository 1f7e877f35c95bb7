//! A verification provider posts an outcome: `POST /verifications/{namespace}/{provider}`.
//!
//! It has to be signed with the provider's key, and recent. The first answer to a challenge
//! counts, so a replay changes nothing. The signature covers the body, so the body is read before
//! it is known who sends it: few at a time, short, and only for a provider there is.

use super::{Answer, NOT_STORED, Receiver, STARTING};
use crate::api::VerificationProvider;
use crate::api::ticket::{Phase, Ticket};
use crate::k8s::key::Key;
use crate::k8s::name::ObjectName;
use crate::k8s::{names, reflect, tickets};
use crate::ticket::actor::Actor;
use crate::ticket::state::Event;
use crate::ticket::verification::{self, ProviderState};
use crate::verify::sign;
use axum::body::Bytes;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Api, ResourceExt};
use secrecy::SecretString;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// A provider is answered within this time, however slowly it sends.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A provider that does not exist looks like a wrong signature from outside.
const UNKNOWN: Answer = (StatusCode::UNAUTHORIZED, "");
const BUSY: Answer = (StatusCode::SERVICE_UNAVAILABLE, "busy, send it again\n");

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
    request: Request,
) -> Answer {
    let provider = Key::new(&*namespace, &*name);
    tokio::time::timeout(TIMEOUT, receiver.callback(provider, request))
        .await
        .unwrap_or(NOT_STORED)
}

fn is_signed(key: &SecretString, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> bool {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    };
    sign::is_valid(
        key,
        Timestamp::now().as_second(),
        header(sign::TIMESTAMP),
        header(sign::SIGNATURE),
        "POST",
        uri.path(),
        body,
    )
}

fn is_overdue(ticket: &Ticket, now: Timestamp) -> bool {
    let status = ticket.status.as_ref();
    status
        .and_then(|s| s.deadline.as_ref())
        .is_some_and(|deadline| deadline.0 <= now)
}

impl Receiver {
    async fn callback(&self, provider: Key, request: Request) -> Answer {
        if !self.ready.is_ready() {
            return STARTING;
        }
        let Some((signer, key)) = self.signer(&provider) else {
            return UNKNOWN;
        };
        let Ok(_permit) = self.callbacks.try_acquire() else {
            return BUSY;
        };
        let (uri, headers) = (request.uri().clone(), request.headers().clone());
        let body = match Bytes::from_request(request, &()).await {
            Ok(body) => body,
            Err(rejection) => return (rejection.status(), ""),
        };
        if !is_signed(&key, &uri, &headers, &body) {
            tracing::warn!(
                namespace = provider.namespace,
                provider = provider.name,
                "rejected a verification callback: invalid signature or stale timestamp"
            );
            return UNKNOWN;
        }
        let now = Timestamp::now();
        let Ok(callback) = serde_json::from_slice::<Callback>(&body) else {
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

    /// The provider, if it exists and signs its callbacks, and its key. Both from stores: strangers
    /// cost the apiserver nothing.
    fn signer(&self, provider: &Key) -> Option<(Arc<VerificationProvider>, SecretString)> {
        let found = reflect::get(&self.stores.providers, &provider.namespace, &provider.name)?;
        found.spec.http.as_ref()?;
        let key = self.handed.value(&names::signing_key(provider))?;
        Some((found, SecretString::from(String::from_utf8(key).ok()?)))
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
