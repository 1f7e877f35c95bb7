//! The work API: tickets are claimed, held, and completed.

use super::identity::Identity;
use super::wire::{Completion, Context, Held, Requester, TicketNote, Work};
use super::{Bound, Gateway, SUSPENDED, problem};
use crate::api::ticket::{IntentKind, Phase, Ticket};
use crate::halopsa;
use crate::k8s::{reflect, tickets};
use crate::metrics::METRICS;
use crate::outbox::{self, Note};
use crate::ticket::state::{Event, Refused};
use crate::ticket::{note, text};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Api, ResourceExt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a claim waits for a ticket.
const LONG_POLL: Duration = Duration::from_secs(25);
/// A lease without a heartbeat ends after this time.
pub const LEASE: SignedDuration = SignedDuration::from_secs(45);
/// How long a completion waits for HaloPSA to show what may have been written already.
const PATIENCE: Duration = Duration::from_secs(20);
const NOTES: usize = 50;
const MAX_NOTE: usize = 4096;
/// Journal entries kept for a ticket until its next write.
const MAX_PENDING: usize = 50;

type App = State<Arc<Gateway>>;

/// Tool calls not written to their Ticket yet: they go with its next write.
#[derive(Debug, Default)]
pub struct PendingJournal(Mutex<HashMap<(String, String), Vec<(String, String, Timestamp)>>>);

impl PendingJournal {
    pub fn add(&self, namespace: &str, ticket: &str, by: &str, detail: String) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = map.entry((namespace.into(), ticket.into())).or_default();
        if entries.len() < MAX_PENDING {
            entries.push((by.into(), detail, Timestamp::now()));
        }
    }

    fn take(&self, namespace: &str, ticket: &str) -> Vec<(String, String, Timestamp)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(namespace.into(), ticket.into())).unwrap_or_default()
    }
}

/// Connections whose HaloPSA failed just now: their tickets wait rather than
/// being claimed and handed back over and over.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<HashMap<(String, String), (Instant, u32)>>);

impl Troubles {
    fn failed(&self, namespace: &str, connection: &str) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = map.entry((namespace.into(), connection.into())).or_insert((Instant::now(), 0));
        entry.1 += 1;
        let wait = Duration::from_secs(1 << entry.1.min(5)).mul_f64(rand::random_range(0.75..1.25));
        entry.0 = Instant::now() + wait;
    }

    fn succeeded(&self, namespace: &str, connection: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(namespace.into(), connection.into()));
    }

    fn until(&self, namespace: &str, connection: &str) -> Option<Instant> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(&(namespace.to_string(), connection.to_string())).map(|(until, _)| *until).filter(|until| *until > Instant::now())
    }
}

fn api(gateway: &Gateway, identity: &Identity) -> Api<Ticket> {
    Api::namespaced(gateway.kube.clone(), &identity.namespace)
}

/// Waits for a ticket of the agent's client and hands it out.
pub async fn claim(State(gateway): App, Extension(identity): Extension<Identity>) -> Response {
    let deadline = tokio::time::Instant::now() + LONG_POLL;
    let mut changed = gateway.changed.clone();
    loop {
        changed.borrow_and_update();
        let bound = match gateway.bound(&identity) {
            Ok(bound) => bound,
            Err(why) => return unavailable(why, 5),
        };
        let namespace = &identity.namespace;
        let connection = bound.connection.name_any();
        let mut hold = gateway.troubles.until(namespace, &connection);
        if !bound.connection.spec.suspend && hold.is_none() {
            for name in gateway.index.in_phase(namespace, &identity.client, Phase::Ready) {
                let Some(ticket) = reflect::get(&gateway.tickets, namespace, &name) else { continue };
                match hand_out(&gateway, &identity, &bound, &ticket).await {
                    Ok(Some(work)) => {
                        gateway.troubles.succeeded(namespace, &connection);
                        METRICS.claims.inc();
                        return Json(work).into_response();
                    }
                    Ok(None) => {}
                    Err(error) => {
                        gateway.troubles.failed(namespace, &connection);
                        hold = gateway.troubles.until(namespace, &connection);
                        tracing::warn!(%namespace, ticket = %name, %error, "a ticket could not be handed out; it waits");
                        break;
                    }
                }
            }
        }
        let wake = hold.map_or(deadline, |until| deadline.min(until.into()));
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep_until(wake) => {
                if tokio::time::Instant::now() >= deadline {
                    return StatusCode::NO_CONTENT.into_response();
                }
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ClaimError {
    #[error(transparent)]
    Halo(#[from] halopsa::Error),
    #[error(transparent)]
    Tenant(#[from] crate::tenant::Error),
    #[error(transparent)]
    Ticket(#[from] tickets::Error),
}

/// Claims one ticket and gathers its context. None: it is somebody else's now, or no work any more.
async fn hand_out(gateway: &Gateway, identity: &Identity, bound: &Bound, ticket: &Ticket) -> Result<Option<Work>, ClaimError> {
    let api = api(gateway, identity);
    let halo = gateway.tenants.client(&bound.connection).await?;
    let lease = uuid::Uuid::new_v4().to_string();
    let claimed = Event::Claimed { lease: lease.clone(), holder: identity.pod.clone(), expires_at: Timestamp::now() + LEASE, mode: bound.mode };
    let ticket = match tickets::transition(&api, ticket, &[claimed], &identity.pod).await {
        Ok(ticket) => ticket,
        Err(tickets::Error::Refused(_) | tickets::Error::Contended(_)) => return Ok(None),
        Err(tickets::Error::Kube(error)) if crate::k8s::is_not_found(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut unclaimed =
        Unclaimed { held: Some((api.clone(), ticket.clone(), Event::Released { lease: lease.clone(), holder: identity.pod.clone() })) };
    let gathered = gather(bound, &halo, ticket.spec.ticket_id).await?;
    unclaimed.held = None;
    match gathered {
        Gathered::Context(context) => Ok(Some(Work {
            ticket: ticket.name_any(),
            lease_id: lease,
            lease_seconds: LEASE.as_secs().unsigned_abs(),
            mode: bound.mode,
            context: *context,
        })),
        Gathered::NoWork { reason, message } => {
            tickets::transition(&api, &ticket, &[Event::Ignored { reason, message }], "gateway").await?;
            Ok(None)
        }
    }
}

/// Hands a ticket back whose context could not be gathered, or whose agent hung
/// up meanwhile: the next agent need not wait for the lease to run out.
struct Unclaimed {
    held: Option<(Api<Ticket>, Ticket, Event)>,
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        let Some((api, ticket, released)) = self.held.take() else { return };
        tokio::spawn(async move {
            if let Err(error) = tickets::transition(&api, &ticket, &[released], "gateway").await {
                tracing::warn!(ticket = %ticket.name_any(), %error, "a ticket could not be handed back; its lease runs out");
            }
        });
    }
}

enum Gathered {
    Context(Box<Context>),
    NoWork { reason: &'static str, message: String },
}

/// What an agent starts with, read from HaloPSA now.
async fn gather(bound: &Bound, halo: &halopsa::Client, ticket_id: i64) -> Result<Gathered, halopsa::Error> {
    let ticket = match halo.ticket(ticket_id).await {
        Ok(ticket) => ticket,
        Err(halopsa::Error::NotFound { .. }) => {
            return Ok(Gathered::NoWork { reason: "Deleted", message: "HaloPSA does not have the ticket (any more)".into() });
        }
        Err(error) => return Err(error),
    };
    if ticket.client_id != Some(bound.halo_client_id) {
        return Ok(Gathered::NoWork { reason: "Moved", message: "the ticket belongs to another client in HaloPSA".into() });
    }
    if ticket.hasbeenclosed {
        return Ok(Gathered::NoWork { reason: "Closed", message: "the ticket is closed in HaloPSA".into() });
    }
    let mut actions = halo.actions(ticket_id, NOTES).await?;
    actions.reverse();
    let notes = actions
        .into_iter()
        .filter(|a| !a.note.trim().is_empty())
        .map(|a| TicketNote {
            who: text::one_line(&a.who, 100),
            internal: a.hiddenfromuser,
            at: a.datetime.map(|t| t.to_string()),
            text: text::cut(&text::plain(&a.note), MAX_NOTE).to_string(),
        })
        .collect();
    let details = if ticket.details.trim().is_empty() { text::from_html(&ticket.details_html) } else { text::from_html(&ticket.details) };
    let prompts = [bound.connection.spec.prompt.clone(), bound.client.spec.prompt.clone()];
    Ok(Gathered::Context(Box::new(Context {
        ticket_id,
        subject: text::one_line(&ticket.summary, 500),
        details,
        requester: Requester {
            user_id: ticket.user_id,
            name: text::one_line(&ticket.user_name, 200),
            email: text::one_line(&ticket.user_email, 200),
        },
        priority: text::one_line(&ticket.priority_name, 100),
        status: text::one_line(&ticket.status_name, 100),
        site: text::one_line(&ticket.site_name, 200),
        client: text::one_line(&ticket.client_name, 200),
        category: text::one_line(&ticket.category_1, 200),
        notes,
        prompts: prompts.into_iter().flatten().collect(),
    })))
}

pub async fn heartbeat(State(gateway): App, Extension(identity): Extension<Identity>, Path(name): Path<String>, Json(held): Json<Held>) -> Response {
    let ticket = match own_ticket(&gateway, &identity, &name).await {
        Ok(ticket) => ticket,
        Err(response) => return *response,
    };
    let event = Event::Heartbeat { lease: held.lease_id, expires_at: Timestamp::now() + LEASE };
    answer(tickets::transition(&api(&gateway, &identity), &ticket, &[event], &identity.pod).await)
}

pub async fn release(State(gateway): App, Extension(identity): Extension<Identity>, Path(name): Path<String>, Json(held): Json<Held>) -> Response {
    let ticket = match own_ticket(&gateway, &identity, &name).await {
        Ok(ticket) => ticket,
        Err(response) => return *response,
    };
    let event = Event::Released { lease: held.lease_id, holder: identity.pod.clone() };
    answer(tickets::transition(&api(&gateway, &identity), &ticket, &[event], &identity.pod).await)
}

/// Writes the plan as one internal note and ends the work.
pub async fn complete(
    State(gateway): App,
    Extension(identity): Extension<Identity>,
    Path(name): Path<String>,
    Json(completion): Json<Completion>,
) -> Response {
    let plan = completion.plan.bounded();
    if plan.is_empty() {
        return problem(
            StatusCode::UNPROCESSABLE_ENTITY,
            "the plan is empty: say what is asked, and what was found, would be done, or has to be asked",
        );
    }
    let (bound, ticket) = match (gateway.bound(&identity), own_ticket(&gateway, &identity, &name).await) {
        (Ok(bound), Ok(ticket)) => (bound, ticket),
        (Err(why), _) => return unavailable(why, 5),
        (_, Err(response)) => return *response,
    };
    if bound.connection.spec.suspend {
        return unavailable(SUSPENDED, 10);
    }
    let api = api(&gateway, &identity);
    let status = ticket.status.clone().unwrap_or_default();
    let held = status.phase == Phase::Working && status.lease.as_ref().is_some_and(|l| l.id == completion.lease_id);
    if !held {
        return problem(StatusCode::CONFLICT, Refused::LeaseLost.to_string());
    }
    let halo = match gateway.tenants.client(&bound.connection).await {
        Ok(halo) => halo,
        Err(error) => return unavailable(&error.to_string(), 5),
    };
    // A ticket that was moved or closed while the agent thought gets no note.
    match gather_again(&bound, &halo, ticket.spec.ticket_id).await {
        Ok(None) => {}
        Ok(Some((reason, message))) => return answer(tickets::transition(&api, &ticket, &[Event::Ignored { reason, message }], "gateway").await),
        Err(error) => return unavailable(&error.to_string(), 5),
    }
    let entries = gateway.journal.take(&identity.namespace, &name);
    let ticket = if entries.is_empty() { ticket } else { journaled(ticket, &entries) };
    let uid = bound.connection.metadata.uid.as_deref().unwrap_or_default();
    let marker = note::marker(uid, ticket.spec.ticket_id, status.turn, note::PLAN);
    let html = note::plan_html(&plan, status.mode.unwrap_or(bound.mode), &marker);
    let note = Note {
        kind: IntentKind::PlanNote,
        marker: &marker,
        html: &html,
        outcome: &bound.connection.spec.notes,
        api_agent: bound.connection.status.as_ref().and_then(|s| s.api_agent.as_ref()).map(|a| a.id),
        by: &identity.pod,
        settle: gateway.settle,
        patience: PATIENCE,
    };
    match outbox::post_once(&api, &halo, &ticket, &note, &[Event::Completed { lease: completion.lease_id }]).await {
        Ok(_) => {
            METRICS.completions.inc();
            StatusCode::OK.into_response()
        }
        Err(outbox::Error::Ticket(error)) => answer(Err(error)),
        Err(error) => {
            tracing::warn!(namespace = %identity.namespace, ticket = %name, %error, "the note is not posted yet");
            unavailable(&error.to_string(), 3)
        }
    }
}

/// Whether the ticket is no work any more: (reason, message).
async fn gather_again(bound: &Bound, halo: &halopsa::Client, ticket_id: i64) -> Result<Option<(&'static str, String)>, halopsa::Error> {
    match halo.ticket(ticket_id).await {
        Ok(ticket) if ticket.client_id != Some(bound.halo_client_id) => {
            Ok(Some(("Moved", "the ticket was moved to another client in HaloPSA".into())))
        }
        Ok(_) => Ok(None),
        Err(halopsa::Error::NotFound { .. }) => Ok(Some(("Deleted", "HaloPSA does not have the ticket any more".into()))),
        Err(error) => Err(error),
    }
}

/// The tool calls of this work in the Ticket's journal, to be stored with its next write.
fn journaled(mut ticket: Ticket, entries: &[(String, String, Timestamp)]) -> Ticket {
    let mut status = ticket.status.clone().unwrap_or_default();
    for (by, detail, at) in entries {
        status.record("ToolCalled", by, Some(detail.clone()), *at);
    }
    ticket.status = Some(status);
    ticket
}

/// A Ticket of the agent's own client, read from the apiserver.
async fn own_ticket(gateway: &Gateway, identity: &Identity, name: &str) -> Result<Ticket, Box<Response>> {
    let ticket = match api(gateway, identity).get_opt(name).await {
        Ok(ticket) => ticket,
        Err(error) => return Err(Box::new(unavailable(&crate::k8s::explain(&error), 2))),
    };
    let own = ticket.filter(|t| t.spec.client_ref.as_ref().is_some_and(|c| c.name == identity.client));
    own.ok_or_else(|| {
        // Whether another client has a ticket of this name is none of its business.
        tracing::info!(target: "audit", event = "Refused", namespace = %identity.namespace, client = %identity.client, pod = %identity.pod, ticket = %text::one_line(name, 100), reason = "not a ticket of this client");
        Box::new(problem(StatusCode::NOT_FOUND, "your client has no such ticket"))
    })
}

fn answer(outcome: Result<Ticket, tickets::Error>) -> Response {
    match outcome {
        Ok(_) => StatusCode::OK.into_response(),
        Err(tickets::Error::Refused(refused)) => problem(StatusCode::CONFLICT, refused.to_string()),
        Err(error) => unavailable(&error.to_string(), 2),
    }
}

fn unavailable(why: &str, retry_after: u64) -> Response {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, why);
    response.headers_mut().insert(header::RETRY_AFTER, retry_after.into());
    response
}

/// Where an agent's Pod works at the moment: the Ticket it holds.
pub fn held_by(gateway: &Gateway, identity: &Identity) -> Option<String> {
    gateway.index.in_phase(&identity.namespace, &identity.client, Phase::Working).into_iter().find(|name| {
        reflect::get(&gateway.tickets, &identity.namespace, name)
            .is_some_and(|t| t.status.as_ref().and_then(|s| s.lease.as_ref()).is_some_and(|l| l.holder == identity.pod))
    })
}
