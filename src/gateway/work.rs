//! The work API: tickets are claimed, held, and completed.

use super::identity::Identity;
use super::steps::{self, StepExecutor};
use super::wire::{
    Completion, Context, Held, MatchedWorkflow, ModelOffer, PlanHandIn, Requester, StepSeen,
    TicketNote, Woken, Work,
};
use super::{AgentScope, Gateway, SUSPENDED, approval, problem};
use crate::api::Mode;
use crate::api::reason::Reason;
use crate::api::ticket::{
    ApprovalState, IntentKind, IntentState, Phase, StepState, Ticket, ToolCall,
};
use crate::audit;
use crate::halopsa;
use crate::k8s::{reflect, tickets};
use crate::metrics::METRICS;
use crate::outbox::{self, Note};
use crate::policy::sensitivity;
use crate::text;
use crate::ticket::actor::Actor;
use crate::ticket::plan::Plan;
use crate::ticket::state::{self, Event, Refused};
use crate::ticket::verification;
use crate::ticket::{note, workflow};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a claim waits for a ticket.
const LONG_POLL: Duration = Duration::from_secs(25);
/// How long a completion waits for HaloPSA to show what may have been written already.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// A watch may be this late with the news of a claim.
const STORE_LAG: Duration = Duration::from_secs(3);
const NOTES: usize = 50;
const MAX_NOTE: usize = 4096;
/// Journal entries kept for a ticket until its next write.
const MAX_PENDING: usize = 50;

type App = State<Arc<Gateway>>;

/// Tool calls not written to their Ticket yet: they go with its next write.
#[derive(Debug, Default)]
pub struct PendingJournal(Mutex<HashMap<(String, String), Vec<Called>>>);

/// A tool call by a Pod.
type Called = (String, ToolCall, Timestamp);

impl PendingJournal {
    pub fn add(&self, namespace: &str, ticket: &str, by: &str, call: ToolCall) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = map.entry((namespace.into(), ticket.into())).or_default();
        if entries.len() < MAX_PENDING {
            entries.push((by.into(), call, Timestamp::now()));
        }
    }

    fn take(&self, namespace: &str, ticket: &str) -> Vec<Called> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(namespace.into(), ticket.into()))
            .unwrap_or_default()
    }
}

/// Connections whose HaloPSA failed just now: their tickets wait rather than
/// being claimed and handed back over and over.
#[derive(Debug, Default)]
pub struct ConnectionBackoff(Mutex<HashMap<(String, String), (Instant, u32)>>);

impl ConnectionBackoff {
    fn failed(&self, namespace: &str, connection: &str) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = map
            .entry((namespace.into(), connection.into()))
            .or_insert((Instant::now(), 0));
        entry.1 += 1;
        let wait = Duration::from_secs(1 << entry.1.min(5)).mul_f64(rand::random_range(0.75..1.25));
        entry.0 = Instant::now() + wait;
    }

    fn succeeded(&self, namespace: &str, connection: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(namespace.into(), connection.into()));
    }

    fn until(&self, namespace: &str, connection: &str) -> Option<Instant> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(&(namespace.to_string(), connection.to_string()))
            .map(|(until, _)| *until)
            .filter(|until| *until > Instant::now())
    }
}

pub fn api(gateway: &Gateway, identity: &Identity) -> Api<Ticket> {
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
        let mut hold = gateway.backoff.until(namespace, &connection);
        if !bound.connection.spec.suspend && hold.is_none() {
            for name in gateway
                .index
                .in_phase(namespace, &identity.client, Phase::Ready)
            {
                let Some(ticket) = reflect::get(&gateway.tickets, namespace, &name) else {
                    continue;
                };
                match hand_out(&gateway, &identity, &bound, &ticket).await {
                    Ok(Some(work)) => {
                        gateway.backoff.succeeded(namespace, &connection);
                        METRICS.claims.inc();
                        return Json(work).into_response();
                    }
                    Ok(None) => {}
                    Err(error) => {
                        gateway.backoff.failed(namespace, &connection);
                        hold = gateway.backoff.until(namespace, &connection);
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
    Tenant(#[from] crate::halopsa_pool::Error),
    #[error(transparent)]
    Ticket(#[from] tickets::Error),
}

/// Claims one ticket and gathers its context. None: it is somebody else's now, or no work any more.
async fn hand_out(
    gateway: &Gateway,
    identity: &Identity,
    bound: &AgentScope,
    ticket: &Ticket,
) -> Result<Option<Work>, ClaimError> {
    let api = api(gateway, identity);
    let halo = gateway.halopsa.client(&bound.connection).await?;
    let lease = uuid::Uuid::new_v4().to_string();
    let claimed = Event::Claimed {
        lease: lease.clone(),
        holder: identity.pod.clone(),
        expires_at: Timestamp::now() + gateway.lease,
        mode: bound.mode,
    };
    let ticket = match tickets::transition(&api, ticket, &[claimed], Actor::Agent(&identity.pod))
        .await
    {
        Ok(ticket) => ticket,
        Err(tickets::Error::Refused(_) | tickets::Error::Contended(_)) => return Ok(None),
        Err(tickets::Error::Kube(error)) if crate::k8s::is_not_found(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut unclaimed = Unclaimed {
        held: Some((
            api.clone(),
            ticket.clone(),
            Event::Released {
                lease: lease.clone(),
                holder: identity.pod.clone(),
            },
        )),
    };
    let status = ticket.status.clone().unwrap_or_default();
    let wake = status.resume.clone();
    let gathered = gather(
        gateway,
        bound,
        &halo,
        &ticket,
        wake.as_ref()
            .map(|w| w.replies.as_slice())
            .unwrap_or_default(),
    )
    .await?;
    let mut mode = bound.mode;
    let gathered = match gathered {
        Gathered::Sensitive {
            reasons,
            mut context,
            replies,
        } => match bound.verification_timeout(gateway) {
            // Nobody gets it until the requester has proved who they are.
            Some(timeout) => {
                let event = verification::start(
                    &status,
                    &bound.connection,
                    &ticket,
                    &reasons,
                    timeout,
                    Some(lease),
                );
                tickets::transition(&api, &ticket, &[event], Actor::Gateway).await?;
                unclaimed.held = None;
                return Ok(None);
            }
            None => {
                tickets::transition(
                    &api,
                    &ticket,
                    &[Event::PlanOnly {
                        lease: lease.clone(),
                    }],
                    Actor::Gateway,
                )
                .await?;
                mode = Mode::Plan;
                context.sensitive = reasons;
                Gathered::Context(context, replies)
            }
        },
        other => other,
    };
    unclaimed.held = None;
    match gathered {
        Gathered::Sensitive { .. } => Ok(None),
        Gathered::Context(context, replies) => {
            let model = bound.model().map(|m| ModelOffer {
                name: m.name.clone(),
                steps_per_turn: m.limits.steps_per_turn,
                timeout_seconds: std::time::Duration::from(m.limits.timeout).as_secs(),
            });
            Ok(Some(Work {
                ticket: ticket.name_any(),
                lease_id: lease,
                lease_seconds: gateway.lease.as_secs().unsigned_abs(),
                mode,
                turn: status.turn,
                resumed: wake.map(|w| Woken {
                    reason: w.reason,
                    replies,
                }),
                steps: status
                    .steps
                    .iter()
                    .filter(|s| s.run == status.run)
                    .map(|s| StepSeen {
                        number: s.number,
                        tool: s.tool.clone(),
                        state: s.state,
                        result: s.result.clone().unwrap_or_default(),
                    })
                    .collect(),
                approval_pending: status.approval_is(ApprovalState::Requested),
                model,
                context: *context,
            }))
        }
        Gathered::NoWork { reason, message } => {
            tickets::transition(
                &api,
                &ticket,
                &[Event::Ignored { reason, message }],
                Actor::Gateway,
            )
            .await?;
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
        let Some((api, ticket, released)) = self.held.take() else {
            return;
        };
        tokio::spawn(async move {
            if let Err(error) =
                tickets::transition(&api, &ticket, &[released], Actor::Gateway).await
            {
                tracing::warn!(ticket = %ticket.name_any(), %error, "a ticket could not be handed back; its lease runs out");
            }
        });
    }
}

enum Gathered {
    Context(Box<Context>, Vec<TicketNote>),
    /// It asks for what an attacker would ask for, and the requester is not verified.
    Sensitive {
        reasons: Vec<String>,
        context: Box<Context>,
        replies: Vec<TicketNote>,
    },
    NoWork {
        reason: Reason,
        message: String,
    },
}

/// What an agent starts with, read from HaloPSA now.
async fn gather(
    gateway: &Gateway,
    bound: &AgentScope,
    halo: &halopsa::Client,
    stored: &Ticket,
    wanted: &[i64],
) -> Result<Gathered, halopsa::Error> {
    let ticket_id = stored.spec.ticket_id;
    let ticket = match halo.ticket(ticket_id).await {
        Ok(ticket) => ticket,
        Err(halopsa::Error::NotFound { .. }) => {
            return Ok(Gathered::NoWork {
                reason: Reason::Deleted,
                message: "HaloPSA does not have the ticket (any more)".into(),
            });
        }
        Err(error) => return Err(error),
    };
    if ticket.client_id != Some(bound.halo_client_id) {
        return Ok(Gathered::NoWork {
            reason: Reason::Moved,
            message: "the ticket belongs to another client in HaloPSA".into(),
        });
    }
    if ticket.hasbeenclosed {
        return Ok(Gathered::NoWork {
            reason: Reason::Closed,
            message: "the ticket is closed in HaloPSA".into(),
        });
    }
    let mut actions = halo.actions(ticket_id, NOTES).await?;
    actions.reverse();
    // What an agent of ours has created is for people: it would make work for itself without end.
    let ours = bound.api_agent().is_some()
        && actions
            .first()
            .is_some_and(|a| a.who_agentid == bound.api_agent());
    if ours && ticket.parent_id.is_some_and(|parent| parent > 0) {
        return Ok(Gathered::NoWork {
            reason: Reason::OwnTicket,
            message: "a child ticket our agent created; it is left to the technicians".into(),
        });
    }
    let shown = |a: &halopsa::types::Action| TicketNote {
        who: text::one_line(&a.who, 100),
        internal: a.hiddenfromuser,
        at: a.datetime.map(|t| t.to_string()),
        text: text::cut(&text::plain(&a.note), MAX_NOTE).to_string(),
    };
    let replies = actions
        .iter()
        .filter(|a| wanted.contains(&a.id))
        .map(shown)
        .collect();
    let notes = actions
        .iter()
        .filter(|a| !a.note.trim().is_empty())
        .map(shown)
        .collect();
    let details = if ticket.details.trim().is_empty() {
        text::from_html(&ticket.details_html)
    } else {
        text::from_html(&ticket.details)
    };
    let prompts = [
        bound.connection.spec.prompt.clone(),
        bound.client.spec.prompt.clone(),
    ];
    let subject = text::one_line(&ticket.summary, 500);
    let workflows = workflows_for(gateway, bound, &subject, &details);
    let mut context = Box::new(Context {
        ticket_id,
        subject,
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
        workflows,
        verification: None,
        sensitive: Vec::new(),
    });
    let status = stored.status.clone().unwrap_or_default();
    // What end users wrote later counts too: a ticket may become sensitive.
    let said: Vec<String> = actions
        .iter()
        .filter(|a| a.who_agentid.is_none_or(|id| id <= 0))
        .map(|a| text::plain(&a.note))
        .collect();
    let reasons = sensitivity::of_ticket(&ticket, &said, &bound.connection.spec.sensitivity);
    if state::is_verified(&status, ticket.user_id, Timestamp::now()) {
        context.verification = status.verification.as_ref().map(|v| {
            format!(
                "{:?}{}",
                v.state,
                v.method
                    .as_ref()
                    .map(|m| format!(" by {m}"))
                    .unwrap_or_default()
            )
        });
    } else if !reasons.is_empty() {
        return Ok(Gathered::Sensitive {
            reasons,
            context,
            replies,
        });
    }
    Ok(Gathered::Context(context, replies))
}

/// The active workflows whose trigger describes the ticket.
fn workflows_for(
    gateway: &Gateway,
    bound: &AgentScope,
    subject: &str,
    details: &str,
) -> Vec<MatchedWorkflow> {
    let (namespace, connection) = (bound.connection.namespace(), bound.connection.name_any());
    let all = gateway
        .workflows
        .state_filter(|w| w.namespace() == namespace && w.spec.connection_ref.name == connection);
    let names: Vec<String> = all.iter().map(|w| w.name_any()).collect();
    let named: Vec<(&str, &crate::api::WorkflowSpec)> = names
        .iter()
        .map(String::as_str)
        .zip(all.iter().map(|w| &w.spec))
        .collect();
    workflow::matching(&named, &bound.client.name_any(), subject, details)
        .into_iter()
        .map(|(name, spec)| MatchedWorkflow {
            name: name.to_string(),
            trigger: spec.trigger.clone(),
            instructions: spec.instructions.clone(),
            steps: spec.steps.clone().unwrap_or_default(),
        })
        .collect()
}

pub async fn heartbeat(
    State(gateway): App,
    Extension(identity): Extension<Identity>,
    Path(name): Path<String>,
    Json(held): Json<Held>,
) -> Response {
    let ticket = match own_ticket(&gateway, &identity, &name).await {
        Ok(ticket) => ticket,
        Err(response) => return *response,
    };
    let event = Event::Heartbeat {
        lease: held.lease_id,
        expires_at: Timestamp::now() + gateway.lease,
    };
    answer(
        tickets::transition(
            &api(&gateway, &identity),
            &ticket,
            &[event],
            Actor::Agent(&identity.pod),
        )
        .await,
    )
}

pub async fn release(
    State(gateway): App,
    Extension(identity): Extension<Identity>,
    Path(name): Path<String>,
    Json(held): Json<Held>,
) -> Response {
    let ticket = match own_ticket(&gateway, &identity, &name).await {
        Ok(ticket) => ticket,
        Err(response) => return *response,
    };
    let event = Event::Released {
        lease: held.lease_id,
        holder: identity.pod.clone(),
    };
    answer(
        tickets::transition(
            &api(&gateway, &identity),
            &ticket,
            &[event],
            Actor::Agent(&identity.pod),
        )
        .await,
    )
}

/// Writes the plan as one internal note. The work goes on.
pub async fn plan(
    State(gateway): App,
    Extension(identity): Extension<Identity>,
    Path(name): Path<String>,
    Json(given): Json<PlanHandIn>,
) -> Response {
    let turn = match Turn::begin(&gateway, &identity, &name, &given.lease_id).await {
        Ok(turn) => turn,
        Err(response) => return *response,
    };
    if turn.bound.mode != Mode::Execute || turn.status().mode != Some(Mode::Execute) {
        return problem(
            StatusCode::UNPROCESSABLE_ENTITY,
            "the ticket is worked on in Plan mode: hand the plan in with complete",
        );
    }
    let plan = given.plan.bounded();
    if plan.is_empty() {
        return problem(StatusCode::UNPROCESSABLE_ENTITY, EMPTY_PLAN);
    }
    match turn.post_plan(&plan, &[]).await {
        Ok(_) => StatusCode::OK.into_response(),
        Err(response) => *response,
    }
}

const EMPTY_PLAN: &str =
    "the plan is empty: say what is asked, and what was found, would be done, or has to be asked";

/// Ends the agent's turn: its words on the ticket, its queued steps before a technician.
pub async fn complete(
    State(gateway): App,
    Extension(identity): Extension<Identity>,
    Path(name): Path<String>,
    Json(completion): Json<Completion>,
) -> Response {
    let plan = completion
        .plan
        .map(|p| p.bounded())
        .filter(|p| !p.is_empty());
    let message = completion
        .message
        .map(|m| text::plain(&m))
        .filter(|m| !m.trim().is_empty());
    let mut turn = match Turn::begin(&gateway, &identity, &name, &completion.lease_id).await {
        Ok(turn) => turn,
        Err(response) => return *response,
    };
    match turn.end(plan, message).await {
        Ok(()) => {
            METRICS.completions.inc();
            StatusCode::OK.into_response()
        }
        Err(response) => *response,
    }
}

/// An agent's turn on the ticket it holds.
struct Turn<'a> {
    gateway: &'a Gateway,
    identity: &'a Identity,
    lease: &'a str,
    bound: AgentScope,
    halo: halopsa::Client,
    api: Api<Ticket>,
    ticket: Ticket,
}

impl<'a> Turn<'a> {
    /// Checks that the lease is held and the ticket still work.
    async fn begin(
        gateway: &'a Gateway,
        identity: &'a Identity,
        name: &str,
        lease: &'a str,
    ) -> Result<Self, Box<Response>> {
        let (bound, ticket) = match (
            gateway.bound(identity),
            own_ticket(gateway, identity, name).await,
        ) {
            (Ok(bound), Ok(ticket)) => (bound, ticket),
            (Err(why), _) => return Err(Box::new(unavailable(why, 5))),
            (_, Err(response)) => return Err(response),
        };
        if bound.connection.spec.suspend {
            return Err(Box::new(unavailable(SUSPENDED, 10)));
        }
        let status = ticket.status.clone().unwrap_or_default();
        if status.phase != Phase::Working || status.lease.as_ref().is_none_or(|l| l.id != lease) {
            return Err(Box::new(problem(
                StatusCode::CONFLICT,
                Refused::LeaseLost.to_string(),
            )));
        }
        let halo = gateway
            .halopsa
            .client(&bound.connection)
            .await
            .map_err(|error| Box::new(unavailable(&error.to_string(), 5)))?;
        let api = api(gateway, identity);
        // A ticket that was moved or closed while the agent thought gets no note.
        match gather_again(&bound, &halo, ticket.spec.ticket_id).await {
            Ok(None) => {}
            Ok(Some((reason, message))) => {
                return Err(Box::new(answer(
                    tickets::transition(
                        &api,
                        &ticket,
                        &[Event::Ignored { reason, message }],
                        Actor::Gateway,
                    )
                    .await,
                )));
            }
            Err(error) => return Err(Box::new(unavailable(&error.to_string(), 5))),
        }
        let ticket = gateway.with_journal(&identity.namespace, ticket);
        Ok(Self {
            gateway,
            identity,
            lease,
            bound,
            halo,
            api,
            ticket,
        })
    }

    fn status(&self) -> crate::api::TicketStatus {
        self.ticket.status.clone().unwrap_or_default()
    }

    fn uid(&self) -> &str {
        self.bound
            .connection
            .metadata
            .uid
            .as_deref()
            .unwrap_or_default()
    }

    fn marker(&self, tag: &str) -> String {
        note::marker(
            self.uid(),
            self.ticket.spec.ticket_id,
            self.status().run,
            tag,
        )
    }

    fn planned(&self) -> bool {
        let status = self.status();
        status.intents.iter().any(|i| {
            i.run == status.run && i.kind == IntentKind::PlanNote && i.state == IntentState::Posted
        })
    }

    /// Posts a note of ours once, whatever crashes, and applies what follows from it.
    async fn post(
        &self,
        kind: IntentKind,
        tag: &str,
        html: &str,
        then: &[Event],
    ) -> Result<Ticket, Box<Response>> {
        let marker = self.marker(tag);
        let spec = &self.bound.connection.spec;
        let mut notes = spec.notes.clone();
        if let (IntentKind::ApprovalRequest, Some(outcome)) = (kind, &spec.approvals.outcome) {
            notes.outcome.clone_from(outcome);
        }
        let note = Note {
            kind,
            marker: &marker,
            html,
            outcome: &notes,
            api_agent: self.bound.api_agent(),
            by: Actor::Agent(&self.identity.pod),
            settle: self.gateway.settle,
            max_wait: MAX_WAIT,
        };
        outbox::post_once(&self.api, &self.halo, &self.ticket, &note, then).await.map_err(|error| match error {
            outbox::Error::Ticket(error) => Box::new(answer(Err(error))),
            error => {
                tracing::warn!(namespace = %self.identity.namespace, ticket = %self.ticket.name_any(), %error, "the note is not posted yet");
                Box::new(unavailable(&error.to_string(), 3))
            }
        })
    }

    async fn post_plan(&self, plan: &Plan, then: &[Event]) -> Result<Ticket, Box<Response>> {
        let mode = self.status().mode.unwrap_or(self.bound.mode);
        let mut plan = plan.clone();
        if self.bound.mode == Mode::Execute && mode == Mode::Plan {
            plan.findings.insert(0, "This ticket is sensitive, and no verification provider is connected that could ask the requester who they are: nothing was changed (Plan mode).".into());
        }
        let html = note::plan_html(&plan, mode, &self.marker(note::PLAN));
        self.post(IntentKind::PlanNote, note::PLAN, &html, then)
            .await
    }

    async fn end(
        &mut self,
        plan: Option<Plan>,
        message: Option<String>,
    ) -> Result<(), Box<Response>> {
        let completed = Event::Completed {
            lease: self.lease.to_string(),
        };
        let status = self.status();
        if status.mode != Some(Mode::Execute) && self.planned() {
            // It has become sensitive after its plan was posted, and nobody can verify: the agent only answers.
            if let Some(message) = message {
                let tag = note::turn_tag(status.turn);
                let html = note::turn_html(&message, &self.marker(&tag));
                self.ticket = self.post(IntentKind::TurnNote, &tag, &html, &[]).await?;
            }
            let outcome = tickets::transition(
                &self.api,
                &self.ticket,
                &[completed],
                Actor::Agent(&self.identity.pod),
            )
            .await;
            return outcome
                .map(|_| ())
                .map_err(|error| Box::new(answer(Err(error))));
        }
        if status.mode != Some(Mode::Execute) {
            let Some(plan) = plan else {
                return Err(Box::new(problem(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    EMPTY_PLAN,
                )));
            };
            self.post_plan(&plan, &[completed]).await?;
            return Ok(());
        }
        if !self.planned() {
            let Some(plan) = plan else {
                return Err(Box::new(problem(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    EMPTY_PLAN,
                )));
            };
            self.ticket = self.post_plan(&plan, &[]).await?;
        }
        // What may or may not have been sent is found out before the turn ends.
        let running: Vec<i32> = self
            .status()
            .steps
            .iter()
            .filter(|s| s.state == StepState::Running)
            .map(|s| s.number)
            .collect();
        for number in running {
            let desk = StepExecutor {
                gateway: self.gateway,
                api: self.api.clone(),
                bound: &self.bound,
                halo: &self.halo,
                by: Actor::Agent(&self.identity.pod),
                lease: self.lease,
                max_wait: MAX_WAIT,
            };
            match desk.run(&self.ticket, number, false).await {
                Ok((ticket, _)) => self.ticket = ticket,
                Err(steps::Error::Ticket(error)) => return Err(Box::new(answer(Err(error)))),
                Err(error) => return Err(Box::new(unavailable(&error.to_string(), 3))),
            }
        }
        if let Some(message) = message {
            let tag = note::turn_tag(status.turn);
            let html = note::turn_html(&message, &self.marker(&tag));
            self.ticket = self.post(IntentKind::TurnNote, &tag, &html, &[]).await?;
        }
        let status = self.status();
        let proposed = status
            .steps
            .iter()
            .any(|s| s.run == status.run && s.state == StepState::Proposed);
        let stands = status.approval_is(ApprovalState::Requested);
        if proposed || status.approval_is(ApprovalState::Preparing) {
            return self.ask(stands).await;
        }
        let event = if stands {
            Event::TurnEnded {
                lease: self.lease.to_string(),
            }
        } else {
            completed
        };
        let outcome = tickets::transition(
            &self.api,
            &self.ticket,
            &[event],
            Actor::Agent(&self.identity.pod),
        )
        .await;
        outcome
            .map(|_| ())
            .map_err(|error| Box::new(answer(Err(error))))
    }

    /// Puts the queued steps before the assigned technician: one action that lists them exactly.
    async fn ask(&mut self, replaces: bool) -> Result<(), Box<Response>> {
        let later = |error: String| Box::new(unavailable(&error, 3));
        let request = approval::prepare(&self.bound, &self.halo, &self.ticket, replaces)
            .await
            .map_err(|e| later(e.to_string()))?;
        let tag = note::request_tag(&request.approval.hash);
        if !self
            .status()
            .approval
            .as_ref()
            .is_some_and(|a| a.state == ApprovalState::Preparing && a.hash == request.approval.hash)
        {
            let event = Event::ApprovalPrepared {
                lease: self.lease.to_string(),
                approval: Box::new(request.approval.clone()),
            };
            let prepared = tickets::transition(
                &self.api,
                &self.ticket,
                &[event],
                Actor::Agent(&self.identity.pod),
            )
            .await;
            self.ticket = prepared.map_err(|error| Box::new(answer(Err(error))))?;
            crate::failpoint::hit(&self.identity.namespace, "request.prepared").await;
        }
        let html = request.html(&self.marker(&tag));
        let posted = self
            .post(IntentKind::ApprovalRequest, &tag, &html, &[])
            .await?;
        let marker = self.marker(&tag);
        let action_id = posted
            .status
            .as_ref()
            .and_then(|s| s.intents.iter().find(|i| i.marker == marker)?.action_id);
        // Replies count from the request on, so its id has to be known.
        let action_id = match action_id {
            Some(id) => id,
            None => {
                let actions = self
                    .halo
                    .actions(self.ticket.spec.ticket_id, 100)
                    .await
                    .map_err(|e| later(e.to_string()))?;
                outbox::find(&actions, &marker, self.bound.api_agent())
                    .map(|a| a.id)
                    .ok_or_else(|| later("HaloPSA does not show the request yet".into()))?
            }
        };
        let event = Event::ApprovalRequested {
            lease: self.lease.to_string(),
            action_id: Some(action_id),
        };
        let stored = tickets::transition(
            &self.api,
            &posted,
            &[event],
            Actor::Agent(&self.identity.pod),
        )
        .await
        .map_err(|error| Box::new(answer(Err(error))))?;
        METRICS
            .approvals
            .get_or_create(&crate::metrics::ApprovalLabels {
                outcome: "requested",
            })
            .inc();
        let detail = format!(
            "request {} for {} steps, action {action_id}",
            request.approval.number,
            request.approval.steps.len()
        );
        let subject = audit::Subject {
            namespace: &self.identity.namespace,
            client: &self.identity.client,
            ticket: &stored.name_any(),
            by: Some(Actor::Agent(&self.identity.pod)),
        };
        audit::event("ApprovalRequested", subject, &detail);
        Ok(())
    }
}

/// Whether the ticket is no work any more: (reason, message).
async fn gather_again(
    bound: &AgentScope,
    halo: &halopsa::Client,
    ticket_id: i64,
) -> Result<Option<(Reason, String)>, halopsa::Error> {
    match halo.ticket(ticket_id).await {
        Ok(ticket) if ticket.client_id != Some(bound.halo_client_id) => Ok(Some((
            Reason::Moved,
            "the ticket was moved to another client in HaloPSA".into(),
        ))),
        Ok(_) => Ok(None),
        Err(halopsa::Error::NotFound { .. }) => Ok(Some((
            Reason::Deleted,
            "HaloPSA does not have the ticket any more".into(),
        ))),
        Err(error) => Err(error),
    }
}

impl Gateway {
    /// A Ticket with the tool calls that are not in its journal yet.
    pub fn with_journal(&self, namespace: &str, ticket: Ticket) -> Ticket {
        let entries = self.journal.take(namespace, &ticket.name_any());
        if entries.is_empty() {
            ticket
        } else {
            journaled(ticket, &entries)
        }
    }
}

/// The tool calls of this work in the Ticket's journal, to be stored with its next write.
fn journaled(mut ticket: Ticket, entries: &[Called]) -> Ticket {
    let mut status = ticket.status.clone().unwrap_or_default();
    for (by, call, at) in entries {
        status.record_call(call, Actor::Agent(by), *at);
    }
    ticket.status = Some(status);
    ticket
}

/// A Ticket of the agent's own client, read from the apiserver.
async fn own_ticket(
    gateway: &Gateway,
    identity: &Identity,
    name: &str,
) -> Result<Ticket, Box<Response>> {
    let ticket = match api(gateway, identity).get_opt(name).await {
        Ok(ticket) => ticket,
        Err(error) => return Err(Box::new(unavailable(&crate::k8s::explain(&error), 2))),
    };
    let own = ticket.filter(|t| {
        t.spec
            .client_ref
            .as_ref()
            .is_some_and(|c| c.name == identity.client)
    });
    own.ok_or_else(|| {
        // Whether another client has a ticket of this name is none of its business.
        let shown = text::one_line(name, 100);
        let subject = audit::Subject {
            namespace: &identity.namespace,
            client: &identity.client,
            ticket: &shown,
            by: Some(Actor::Agent(&identity.pod)),
        };
        audit::event("Refused", subject, "not a ticket of this client");
        Box::new(problem(
            StatusCode::NOT_FOUND,
            "your client has no such ticket",
        ))
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
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, retry_after.into());
    response
}

/// The Ticket an agent's Pod holds. A claim may be newer than what the watch has brought.
pub async fn holding(gateway: &Gateway, identity: &Identity) -> Option<Ticket> {
    let until = tokio::time::Instant::now() + STORE_LAG;
    let mut changed = gateway.changed.clone();
    loop {
        changed.borrow_and_update();
        if let Some(name) = held_by(gateway, identity) {
            return reflect::get(&gateway.tickets, &identity.namespace, &name)
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

/// Where an agent's Pod works at the moment: the Ticket it holds.
pub fn held_by(gateway: &Gateway, identity: &Identity) -> Option<String> {
    gateway
        .index
        .in_phase(&identity.namespace, &identity.client, Phase::Working)
        .into_iter()
        .find(|name| {
            reflect::get(&gateway.tickets, &identity.namespace, name).is_some_and(|t| {
                t.status
                    .as_ref()
                    .and_then(|s| s.lease.as_ref())
                    .is_some_and(|l| l.holder == identity.pod)
            })
        })
}
