//! Runs approved steps: exactly those, in their order, once.
//!
//! Every replica looks; who takes a ticket is decided by its resourceVersion. A
//! gateway that dies loses its lease, and the next goes on with the step that was
//! under way.

use super::steps::{self, StepExecutor};
use super::{AgentScope, Gateway, SUSPENDED, catalog};
use crate::api::policy::Effect;
use crate::api::reason::Reason;
use crate::api::ticket::{ApprovalState, IntentKind, Phase, StepState, Ticket, ToolCall};
use crate::audit::{self, Subject};
use crate::failpoint;
use crate::gateway::identity::Identity;
use crate::halopsa::{self, technicians};
use crate::k8s::{reflect, tickets};
use crate::metrics::{METRICS, StepLabels};
use crate::outbox::{self, Note};
use crate::policy::facts::TicketFacts;
use crate::text::mask;
use crate::ticket::actor::Actor;
use crate::ticket::note::{self, Decided};
use crate::ticket::state::{self, Event};
use crate::tools::write;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Tickets whose steps are run at once by this process.
const CONCURRENCY: usize = 8;
/// A ticket that could not be run is looked at again after this time.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a run waits for HaloPSA to show what may have been written already.
const MAX_WAIT: Duration = Duration::from_secs(120);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Wait(&'static str),
    #[error(transparent)]
    Tenant(#[from] crate::halopsa_pool::Error),
    #[error(transparent)]
    Halo(#[from] halopsa::Error),
    #[error(transparent)]
    Ticket(#[from] tickets::Error),
    #[error(transparent)]
    Step(#[from] steps::Error),
    #[error(transparent)]
    Outbox(#[from] outbox::Error),
}

/// Runs until dropped.
pub async fn run(gateway: Arc<Gateway>) {
    let mut changed = gateway.changed.clone();
    let busy: Arc<Mutex<HashSet<(String, String)>>> = Arc::default();
    let places = Arc::new(tokio::sync::Semaphore::new(CONCURRENCY));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        changed.borrow_and_update();
        if !gateway.ready.is_ready() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        }
        for key in gateway.index.awaiting() {
            let Some(ticket) = reflect::get(&gateway.tickets, &key.0, &key.1) else {
                continue;
            };
            let approved = ticket.status.as_ref().is_some_and(|s| {
                s.phase == Phase::AwaitingApproval && s.approval_is(ApprovalState::Approved)
            });
            if !approved
                || !busy
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(key.clone())
            {
                continue;
            }
            let (gateway, busy, places) = (gateway.clone(), busy.clone(), places.clone());
            tasks.spawn(async move {
                let _place = places.acquire().await;
                if let Err(error) = run_one(&gateway, &ticket).await {
                    tracing::warn!(namespace = %key.0, ticket = %key.1, %error, "approved steps could not be run; it is tried again");
                    tokio::time::sleep(AGAIN.mul_f64(rand::random_range(0.75..1.25))).await;
                }
                busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            });
        }
        // Failures are looked at again although nothing has changed.
        tokio::select! {
            outcome = changed.changed() => if outcome.is_err() { return },
            () = tokio::time::sleep(AGAIN) => {}
            _ = tasks.join_next(), if !tasks.is_empty() => {}
        }
    }
}

/// Takes one ticket's approved steps and runs them.
async fn run_one(gateway: &Gateway, ticket: &Ticket) -> Result<(), Error> {
    let namespace = ticket.namespace().unwrap_or_default();
    let Some(client) = ticket.spec.client_ref.as_ref().map(|c| c.name.clone()) else {
        return Ok(());
    };
    let identity = Identity {
        namespace: namespace.clone(),
        client,
        pod: holder(),
    };
    let bound = gateway.bound(&identity).map_err(Error::Wait)?;
    if bound.connection.spec.suspend {
        return Err(Error::Wait(SUSPENDED));
    }
    let halo = gateway.halopsa.client(&bound.connection).await?;
    let api: Api<Ticket> = Api::namespaced(gateway.kube.clone(), &namespace);
    let lease = uuid::Uuid::new_v4().to_string();
    let taken = Event::StepsTaken {
        lease: lease.clone(),
        holder: identity.pod.clone(),
        expires_at: Timestamp::now() + gateway.lease,
    };
    let ticket = match tickets::transition(&api, ticket, &[taken], Actor::Gateway).await {
        // Another replica was faster, or it is over.
        Err(tickets::Error::Refused(_) | tickets::Error::Contended(_)) => return Ok(()),
        other => other?,
    };
    failpoint::hit(&namespace, "steps.taken").await;
    let job = Job {
        gateway,
        identity: &identity,
        bound: &bound,
        halo: &halo,
        api: &api,
        lease: &lease,
    };
    tokio::select! {
        outcome = job.run(ticket) => outcome,
        error = heartbeats(&api, &job) => Err(error),
    }
}

fn holder() -> String {
    std::env::var("POD_NAME").unwrap_or_else(|_| "gateway".into())
}

/// Keeps the lease until it is lost.
async fn heartbeats(api: &Api<Ticket>, job: &Job<'_>) -> Error {
    let every = Duration::from_secs((job.gateway.lease.as_secs() / 3).unsigned_abs().max(1));
    let mut name = None;
    loop {
        tokio::time::sleep(every).await;
        let key = name.get_or_insert_with(|| job.held_name());
        let Some(key) = key else { continue };
        let Ok(Some(ticket)) = api.get_opt(key).await else {
            continue;
        };
        let event = Event::Heartbeat {
            lease: job.lease.to_string(),
            expires_at: Timestamp::now() + job.gateway.lease,
        };
        if let Err(error @ tickets::Error::Refused(_)) =
            tickets::transition(api, &ticket, &[event], Actor::Gateway).await
        {
            return error.into();
        }
    }
}

struct Job<'a> {
    gateway: &'a Gateway,
    identity: &'a Identity,
    bound: &'a AgentScope,
    halo: &'a halopsa::Client,
    api: &'a Api<Ticket>,
    lease: &'a str,
}

impl Job<'_> {
    fn held_name(&self) -> Option<String> {
        self.gateway
            .index
            .in_phase(
                &self.identity.namespace,
                &self.identity.client,
                Phase::Working,
            )
            .into_iter()
            .find(|name| {
                reflect::get(&self.gateway.tickets, &self.identity.namespace, name).is_some_and(
                    |t| {
                        t.status
                            .as_ref()
                            .and_then(|s| s.lease.as_ref())
                            .is_some_and(|l| l.id == self.lease)
                    },
                )
            })
    }

    async fn run(&self, mut ticket: Ticket) -> Result<(), Error> {
        let status = ticket.status.clone().unwrap_or_default();
        let Some(request) = status.approval.clone() else {
            return Ok(());
        };
        if let Err(why) = self.bound_to_what_was_asked(&ticket).await? {
            let subject = Subject {
                namespace: &self.identity.namespace,
                client: &self.identity.client,
                ticket: &ticket.name_any(),
                by: Some(Actor::Gateway),
            };
            audit::event("ApprovalMismatch", subject, why);
            let event = Event::Failed {
                reason: Reason::ApprovalMismatch,
                message: format!("{why}; nothing was run"),
            };
            tickets::transition(self.api, &ticket, &[event], Actor::Gateway).await?;
            return Ok(());
        }
        let facts = match self.halo.ticket(ticket.spec.ticket_id).await {
            Ok(ticket) => TicketFacts::from(&ticket),
            Err(halopsa::Error::NotFound { .. }) => TicketFacts::default(),
            Err(error) => return Err(error.into()),
        };
        for number in &request.steps {
            let Some(step) = steps::step_of(&ticket, *number) else {
                continue;
            };
            let started = Instant::now();
            let fresh = match step.state {
                StepState::Waiting => {
                    let sent = Event::StepSent {
                        lease: self.lease.into(),
                        number: *number,
                    };
                    if let Some(rule) = self.forbidden(&step, &facts) {
                        let text = format!("forbidden by {rule} since it was asked for; not run");
                        let ended = Event::StepEnded {
                            number: *number,
                            state: StepState::Failed,
                            result: text,
                        };
                        ticket =
                            tickets::transition(self.api, &ticket, &[sent, ended], Actor::Gateway)
                                .await?;
                        break;
                    }
                    ticket =
                        tickets::transition(self.api, &ticket, &[sent], Actor::Gateway).await?;
                    true
                }
                // A gateway died over it.
                StepState::Running => false,
                StepState::Done => continue,
                _ => break,
            };
            let desk = StepExecutor {
                gateway: self.gateway,
                api: self.api.clone(),
                bound: self.bound,
                halo: self.halo,
                by: Actor::Gateway,
                lease: self.lease,
                max_wait: MAX_WAIT,
            };
            let (stored, ended) = desk.run(&ticket, *number, fresh).await?;
            ticket = stored;
            let outcome = match ended.state {
                StepState::Done => "ok",
                StepState::Unknown => "unknown",
                _ => "failed",
            };
            METRICS
                .approved_steps
                .get_or_create(&StepLabels { outcome })
                .inc();
            let call = ToolCall {
                tool: step.tool.clone(),
                arguments: mask::arguments(&step.arguments),
                decision: "Approved".into(),
                rule: format!(
                    "agent {}, reply {}",
                    request.decided_by.unwrap_or_default(),
                    request.decided_action.unwrap_or_default()
                ),
                step: Some(*number),
                outcome: outcome.into(),
                ms: started.elapsed().as_millis() as i64,
            };
            let name = ticket.name_any();
            audit::call(
                Subject {
                    namespace: &self.identity.namespace,
                    client: &self.identity.client,
                    ticket: &name,
                    by: Some(Actor::Gateway),
                },
                &call,
            );
            self.gateway
                .journal
                .add(&self.identity.namespace, &name, "gateway", call);
            // Stops at the first that fails: what follows may depend on it.
            if ended.state != StepState::Done {
                break;
            }
        }
        failpoint::hit(&self.identity.namespace, "steps.run").await;
        let status = ticket.status.clone().unwrap_or_default();
        let agents = technicians::agents(self.halo).await;
        let by = request
            .decided_by
            .map(|id| technicians::agent_name(id, &agents))
            .unwrap_or_default();
        let listed: Vec<note::Listed> = request
            .steps
            .iter()
            .filter_map(|n| status.steps.iter().find(|s| s.number == *n))
            .map(|s| {
                let mut listed = write::listed(ticket.spec.ticket_id, s);
                if !s.state.is_final() {
                    listed.result = "not run, because an earlier step was not done".into();
                }
                listed
            })
            .collect();
        let tag = state::decision_tag(&request);
        let uid = self
            .bound
            .connection
            .metadata
            .uid
            .as_deref()
            .unwrap_or_default();
        let marker = note::marker(uid, ticket.spec.ticket_id, status.run, &tag);
        let html = note::decision_html(Decided::Ran, &by, &listed, &marker);
        let note = Note {
            kind: IntentKind::DecisionNote,
            marker: &marker,
            html: &html,
            outcome: &self.bound.connection.spec.notes,
            api_agent: self.bound.api_agent(),
            by: Actor::Gateway,
            settle: self.gateway.settle,
            max_wait: MAX_WAIT,
        };
        let ticket = self.gateway.with_journal(&self.identity.namespace, ticket);
        let finished = Event::StepsFinished {
            lease: self.lease.to_string(),
        };
        outbox::post_once(self.api, self.halo, &ticket, &note, &[finished]).await?;
        Ok(())
    }

    /// Whether the steps stored now are those the technician was asked about: the
    /// request's hash in the cluster and on the ticket have to be theirs.
    async fn bound_to_what_was_asked(
        &self,
        ticket: &Ticket,
    ) -> Result<Result<(), &'static str>, Error> {
        let status = ticket.status.clone().unwrap_or_default();
        let Some(request) = &status.approval else {
            return Ok(Err("there is no request"));
        };
        let open = |n: &i32| {
            status
                .steps
                .iter()
                .find(|s| s.number == *n)
                .is_some_and(|s| !s.state.is_final())
        };
        // Steps that are over were cut; a run that goes on after a crash was checked when it began.
        if !request.steps.iter().all(open) {
            return Ok(Ok(()));
        }
        let uid = self
            .bound
            .connection
            .metadata
            .uid
            .as_deref()
            .unwrap_or_default();
        let hash = super::mcp::request_hash(uid, ticket, &request.steps);
        if hash.as_deref() != Some(request.hash.as_str()) {
            return Ok(Err("the steps are not those that were approved"));
        }
        let marker = note::marker(
            uid,
            ticket.spec.ticket_id,
            status.run,
            &note::request_tag(&request.hash),
        );
        let actions = self.halo.actions(ticket.spec.ticket_id, 200).await?;
        let asked = outbox::find(&actions, &marker, self.bound.api_agent());
        Ok(if asked.is_some_and(|a| Some(a.id) == request.action_id) {
            Ok(())
        } else {
            Err("the request on the ticket is not for these steps")
        })
    }

    /// The rule that forbids a step now, although it was approved.
    fn forbidden(&self, step: &crate::api::ticket::Step, facts: &TicketFacts) -> Option<String> {
        let Some(found) = catalog::find(self.gateway, self.identity, self.bound, &step.tool) else {
            return Some("the list of tools (it is not there any more)".into());
        };
        let arguments = serde_json::from_str(&step.arguments).unwrap_or_default();
        let decision = catalog::decide(
            self.gateway,
            self.identity,
            self.bound,
            &step.tool,
            found.access(),
            &arguments,
            facts,
        );
        (decision.effect == Effect::Disabled).then_some(decision.rule)
    }
}
