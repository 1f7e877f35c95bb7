//! A verification provider posts an outcome: `POST /verifications/{namespace}/{provider}`.
//!
//! Signed with the provider's key, of now, and taken once: the first answer to a
//! challenge counts, so a replay changes nothing.

use super::Receiver;
use crate::api::VerificationProvider;
use crate::api::ticket::{Phase, Ticket, VerificationState};
use crate::k8s::tickets;
use crate::ticket::actor::Actor;
use crate::ticket::state::Event;
use crate::verify::{self, State, sign};
use axum::body::Bytes;
use axum::extract::{Path, State as App};
use axum::http::{HeaderMap, StatusCode, Uri};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Api, ResourceExt};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    challenge_id: String,
    state: State,
}

type Answer = (StatusCode, &'static str);

pub async fn take(
    App(receiver): App<Arc<Receiver>>,
    Path((namespace, name)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    if !receiver.ready.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting, send it again\n");
    }
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    };
    // A provider that is not there looks like a wrong signature from outside.
    let refused = (StatusCode::UNAUTHORIZED, "");
    let Ok(Some(provider)) =
        Api::<VerificationProvider>::namespaced(receiver.kube.clone(), &namespace)
            .get_opt(&name)
            .await
    else {
        return refused;
    };
    let Some(http) = &provider.spec.http else {
        return refused;
    };
    let reference = &http.signing_secret_ref;
    let Ok(key) = verify::secret(&receiver.kube, &namespace, &reference.name, &reference.key).await
    else {
        return refused;
    };
    let now = Timestamp::now();
    if !sign::is_valid(
        &key,
        now.as_second(),
        header(sign::TIMESTAMP),
        header(sign::SIGNATURE),
        "POST",
        uri.path(),
        &body,
    ) {
        tracing::warn!(%namespace, provider = %name, "a verification callback is not signed rightly, or is old; it is not taken");
        return refused;
    }
    let Ok(outcome) = serde_json::from_slice::<Outcome>(&body) else {
        return (
            StatusCode::BAD_REQUEST,
            "challengeId and state are needed\n",
        );
    };
    let waits = |t: &Ticket| {
        t.namespace().as_deref() == Some(&namespace)
            && t.status.as_ref().is_some_and(|s| {
                s.phase == Phase::Verifying
                    && s.verification
                        .as_ref()
                        .is_some_and(|v| v.challenge_id == outcome.challenge_id)
            })
    };
    let Some(ticket) = receiver.tickets.state_filter(waits).into_iter().next() else {
        return (
            StatusCode::CONFLICT,
            "no ticket waits for this challenge (any more)\n",
        );
    };
    let failed = |state, message: &str| Event::VerificationFailed {
        challenge_id: outcome.challenge_id.clone(),
        state,
        message: message.into(),
    };
    let event = match outcome.state {
        State::Pending => return (StatusCode::OK, "still pending\n"),
        State::Verified => Event::Verified {
            challenge_id: outcome.challenge_id.clone(),
            valid_until: now
                + SignedDuration::try_from(Duration::from(provider.spec.valid_for))
                    .unwrap_or_default(),
        },
        State::Denied => failed(
            VerificationState::Denied,
            "the requester denied that it was them; treat the ticket as an attack until you know better",
        ),
        State::Expired => failed(
            VerificationState::Expired,
            "the requester did not answer in time",
        ),
        State::Failed => failed(
            VerificationState::Failed,
            "the verification provider could not ask the requester; see its own log",
        ),
    };
    // An answer after the deadline is none, whoever is faster.
    if ticket
        .status
        .as_ref()
        .and_then(|s| s.deadline.as_ref())
        .is_some_and(|d| d.0 <= now)
    {
        return (StatusCode::CONFLICT, "the challenge has expired\n");
    }
    let api: Api<Ticket> = Api::namespaced(receiver.kube.clone(), &namespace);
    match tickets::transition(&api, &ticket, &[event], Actor::Receiver).await {
        Ok(_) => (StatusCode::OK, "taken\n"),
        Err(tickets::Error::Refused(_)) => (
            StatusCode::CONFLICT,
            "no ticket waits for this challenge (any more)\n",
        ),
        Err(error) => {
            tracing::warn!(%namespace, %error, "a verification callback could not be stored; the provider was asked to send it again");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "not stored, send it again\n",
            )
        }
    }
}
