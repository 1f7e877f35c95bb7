//! The work API: tickets are claimed, held, and completed.
//!
//! - `claim`: finds a ticket for an agent and hands it out
//! - `context`: what the agent starts with
//! - `turn`: its plan, and the end of its turn
//! - `journal`: tool calls that are not in their Ticket's journal yet

mod claim;
mod context;
mod journal;
mod turn;

pub use claim::ConnectionBackoff;
pub use journal::PendingJournal;

use super::identity::Identity;
use super::wire::{Completion, LeaseRef, PlanHandIn};
use super::{Gateway, problem};
use crate::api::ticket::{Phase, Ticket};
use crate::audit;
use crate::k8s::key::Key;
use crate::k8s::name::ObjectName;
use crate::k8s::{self, reflect, tickets};
use crate::text;
use crate::ticket::actor::Actor;
use crate::ticket::state::Event;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use turn::Turn;

/// How late the watch may bring a claim.
const STORE_LAG: Duration = Duration::from_secs(3);

type App = State<Arc<Gateway>>;

/// Waits for a ticket of the agent's client and hands it out.
pub async fn claim(
    State(gateway): App,
    Extension(identity): Extension<Identity>,
) -> Result<Response, Refusal> {
    Ok(match claim::wait(&gateway, &identity).await? {
        Some(work) => {
            gateway.metrics.claims.inc();
            Json(work).into_response()
        }
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

pub async fn heartbeat(
    State(gateway): App,
    Extension(identity): Extension<Identity>,
    Path(name): Path<ObjectName>,
    Json(lease): Json<LeaseRef>,
) -> Result<StatusCode, Refusal> {
    let ticket = own_ticket(&gateway, &identity, &name).await?;
    let event = Event::Heartbeat {
        lease: lease.lease_id,
        expires_at: Timestamp::now() + gateway.lease,
    };
    transition(&gateway, &identity, &ticket, event).await
}

pub async fn release(
    State(gateway): App,
    Extension(identity): Extension<Identity>,
    Path(name): Path<ObjectName>,
    Json(lease): Json<LeaseRef>,
) -> Result<StatusCode, Refusal> {
    let ticket = own_ticket(&gateway, &identity, &name).await?;
    let event = Event::Released {
        lease: lease.lease_id,
        holder: identity.pod.clone(),
    };
    transition(&gateway, &identity, &ticket, event).await
}

/// Posts the plan as one internal note. The turn goes on.
pub async fn plan(
    State(gateway): App,
    Extension(identity): Extension<Identity>,
    Path(name): Path<ObjectName>,
    Json(given): Json<PlanHandIn>,
) -> Result<StatusCode, Refusal> {
    if let Some(turn) = Turn::begin(&gateway, &identity, &name, &given.lease_id).await? {
        turn.hand_in(given.plan).await?;
    }
    Ok(StatusCode::OK)
}

/// Ends the agent's turn: posts its plan and message, and asks for approval of its queued steps.
pub async fn complete(
    State(gateway): App,
    Extension(identity): Extension<Identity>,
    Path(name): Path<ObjectName>,
    Json(given): Json<Completion>,
) -> Result<StatusCode, Refusal> {
    let plan = given.plan.map(|p| p.bounded()).filter(|p| !p.is_empty());
    let message = given
        .message
        .map(|m| text::plain(&m))
        .filter(|m| !m.trim().is_empty());
    if let Some(turn) = Turn::begin(&gateway, &identity, &name, &given.lease_id).await? {
        turn.end(plan, message).await?;
        gateway.metrics.completions.inc();
    }
    Ok(StatusCode::OK)
}

/// Why a request is not carried out, as the agent is told.
#[derive(Debug)]
pub enum Refusal {
    /// Try again after these seconds.
    Later { why: String, retry_after: u64 },
    /// Trying again does not help.
    Final { status: StatusCode, why: String },
}

impl Refusal {
    fn later(why: impl Display, retry_after: u64) -> Self {
        Refusal::Later {
            why: why.to_string(),
            retry_after,
        }
    }

    fn invalid(why: &str) -> Self {
        Refusal::Final {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            why: why.into(),
        }
    }
}

impl From<tickets::Error> for Refusal {
    fn from(error: tickets::Error) -> Self {
        match error {
            tickets::Error::Refused(refused) => Refusal::Final {
                status: StatusCode::CONFLICT,
                why: refused.to_string(),
            },
            error => Refusal::later(error, 2),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::Final { status, why } => problem(status, why),
            Refusal::Later { why, retry_after } => {
                let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, why);
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, retry_after.into());
                response
            }
        }
    }
}

pub fn api(gateway: &Gateway, identity: &Identity) -> Api<Ticket> {
    Api::namespaced(gateway.kube.clone(), &identity.namespace)
}

async fn transition(
    gateway: &Gateway,
    identity: &Identity,
    ticket: &Ticket,
    event: Event,
) -> Result<StatusCode, Refusal> {
    let api = api(gateway, identity);
    tickets::transition(&api, ticket, &[event], Actor::Agent(&identity.pod)).await?;
    Ok(StatusCode::OK)
}

/// A Ticket of the agent's own client, read from the apiserver.
async fn own_ticket(gateway: &Gateway, identity: &Identity, name: &str) -> Result<Ticket, Refusal> {
    let ticket = api(gateway, identity)
        .get_opt(name)
        .await
        .map_err(|error| Refusal::later(k8s::explain(&error), 2))?;
    let is_own = |t: &Ticket| {
        t.spec
            .client_ref
            .as_ref()
            .is_some_and(|c| c.name == identity.client)
    };
    ticket.filter(is_own).ok_or_else(|| {
        let subject = audit::Subject {
            namespace: &identity.namespace,
            client: &identity.client,
            ticket: &text::one_line(name, 100),
            by: Some(Actor::Agent(&identity.pod)),
        };
        audit::event("Refused", subject, "not a ticket of this client");
        // It must not learn whether another client has a ticket of this name.
        Refusal::Final {
            status: StatusCode::NOT_FOUND,
            why: "your client has no such ticket".into(),
        }
    })
}

/// The Ticket an agent's Pod holds. A claim may be newer than what the watch has brought.
pub async fn holding(gateway: &Gateway, identity: &Identity) -> Option<Ticket> {
    let until = tokio::time::Instant::now() + STORE_LAG;
    let client = Key::new(&identity.namespace, &identity.client);
    let mut changed = gateway.wakeups.of(client);
    loop {
        changed.borrow_and_update();
        if let Some(name) = held_by(gateway, identity) {
            return reflect::get(&gateway.stores.tickets, &identity.namespace, &name)
                .map(|t| (*t).clone());
        }
        if tokio::time::timeout_at(until, changed.changed())
            .await
            .is_err()
        {
            return None;
        }
    }
}

/// The name of the Ticket an agent's Pod holds, as the watch knows it.
pub fn held_by(gateway: &Gateway, identity: &Identity) -> Option<String> {
    gateway
        .index
        .in_phase(&identity.namespace, &identity.client, Phase::Working)
        .into_iter()
        .find(|name| {
            reflect::get(&gateway.stores.tickets, &identity.namespace, name).is_some_and(|t| {
                t.status
                    .as_ref()
                    .and_then(|s| s.lease.as_ref())
                    .is_some_and(|l| l.holder == identity.pod)
            })
        })
}
