//! Runs approved steps: exactly those, in their order, once.
//!
//! Every replica watches for them; the resourceVersion decides which one takes a
//! ticket. A gateway that dies loses its lease, and the next one goes on with the
//! step that was under way.

use super::outcome::Outcome;
use super::steps::{self, Ended, StepExecutor};
use super::{AgentScope, Gateway, SUSPENDED, catalog, facts};
use crate::api::Mode;
use crate::api::policy::Effect;
use crate::api::reason::Reason;
use crate::api::ticket::{
    Approval, ApprovalState, Phase, Step, StepState, Ticket, TicketStatus, ToolCall,
};
use crate::audit::{self, Subject};
use crate::failpoint;
use crate::fair::Fair;
use crate::halopsa::{self, technicians, types::Action};
use crate::k8s::cache::Remembered;
use crate::k8s::key::Key;
use crate::k8s::{reflect, tickets};
use crate::metrics::{StepLabels, StepOutcome};
use crate::outbox::{self, Postbox, Settled, until_settled};
use crate::policy::approvers::further_approvers;
use crate::policy::{self, Access};
use crate::text::{mask, one_line};
use crate::ticket::actor::Actor;
use crate::ticket::approval::{self, Reply, Window};
use crate::ticket::marker::{self, Tag};
use crate::ticket::note::{self, Decided, Listed};
use crate::ticket::ownership::still_ours;
use crate::ticket::state::{self, Event};
use crate::tools::write;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many tickets' steps this process runs at once, and of them in one namespace: a step may
/// wait for minutes, and holds up only its neighbours.
const CONCURRENCY: usize = 16;
const SHARE: usize = 2;
/// Delay before a failed run is retried.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How long a run waits for HaloPSA to show what may have been written already.
const MAX_WAIT: Duration = Duration::from_secs(120);

/// How much of a result the note shows, in characters.
const MAX_RESULT: usize = 280;

/// What the steps of this run have returned, by their number. The note on the ticket shows it; the
/// Ticket does not keep it, so after a crash the note only says how each step ended.
type Results = HashMap<i32, String>;

const NO_REPLY: &str = "no reply on the ticket says yes to these steps";
const TOO_FAR_BACK: &str = "the request is too far back on the ticket to read the reply to it";
const NOT_SHOWN: &str = "HaloPSA does not show the reply that approved the steps yet";

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Wait(&'static str),
    /// The steps are not the ones a technician was asked about.
    #[error("{0}")]
    Mismatch(&'static str),
    #[error(transparent)]
    Client(#[from] crate::halopsa_pool::Error),
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
    let busy: Arc<Remembered<Key, ()>> = Arc::default();
    let places = Arc::new(Fair::new(CONCURRENCY, SHARE));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        changed.borrow_and_update();
        if !gateway.ready.is_ready() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        }
        for ticket in approved(&gateway) {
            let key = Key::of(&*ticket);
            if busy.set(key.clone(), ()).is_some() {
                continue;
            }
            let (gateway, busy, places) = (gateway.clone(), busy.clone(), places.clone());
            tasks.spawn(async move {
                let _place = places.enter(key.namespace.clone()).await;
                if let Err(error) = run_one(&gateway, &ticket).await {
                    tracing::warn!(
                        namespace = %key.namespace, ticket = %key.name, %error,
                        "running approved steps failed; will retry"
                    );
                    tokio::time::sleep(RETRY_AFTER.mul_f64(rand::random_range(0.75..1.25))).await;
                }
                busy.forget(&key);
            });
        }
        // Failures are retried although nothing has changed.
        tokio::select! {
            outcome = changed.changed() => if outcome.is_err() { return },
            () = tokio::time::sleep(RETRY_AFTER) => {}
            _ = tasks.join_next(), if !tasks.is_empty() => {}
        }
    }
}

/// The tickets whose approved steps wait to be run.
fn approved(gateway: &Gateway) -> Vec<Arc<Ticket>> {
    let is_approved = |ticket: &Arc<Ticket>| {
        ticket.status.as_ref().is_some_and(|s| {
            s.phase == Phase::AwaitingApproval && s.approval_is(ApprovalState::Approved)
        })
    };
    let awaiting = gateway.index.awaiting().into_iter();
    awaiting
        .filter_map(|key| reflect::get(&gateway.stores.tickets, &key.namespace, &key.name))
        .filter(is_approved)
        .collect()
}

/// Takes one ticket's approved steps and runs them.
async fn run_one(gateway: &Gateway, ticket: &Ticket) -> Result<(), Error> {
    let key = Key::of(ticket);
    let Some(client) = ticket.spec.client_ref.as_ref() else {
        return Ok(());
    };
    let scope = gateway
        .scope(&key.namespace, &client.name)
        .map_err(Error::Wait)?;
    if scope.connection.spec.suspend {
        return Err(Error::Wait(SUSPENDED));
    }
    let halo = gateway.halopsa.client(&scope.connection).await?;
    let api: Api<Ticket> = Api::namespaced(gateway.kube.clone(), &key.namespace);
    let lease = uuid::Uuid::new_v4().to_string();
    let taken = Event::StepsTaken {
        lease: lease.clone(),
        holder: holder(),
        expires_at: Timestamp::now() + gateway.lease,
    };
    let ticket = match tickets::transition(&api, ticket, &[taken], Actor::Gateway).await {
        // Another replica was faster, or it is over.
        Err(tickets::Error::Refused(_) | tickets::Error::Contended(_)) => return Ok(()),
        other => other?,
    };
    failpoint::hit(&key.namespace, "steps.taken").await;
    let run = ApprovedRun {
        gateway,
        key: &key,
        client: &client.name,
        scope: &scope,
        halo: &halo,
        api: &api,
        lease: &lease,
    };
    tokio::select! {
        outcome = run.carry_out(ticket) => outcome,
        error = run.keep_lease() => Err(error),
    }
}

/// Nobody else's name: no Pod's has a slash, so an agent's Pod of whatever name holds nothing here.
fn holder() -> String {
    let pod = std::env::var("POD_NAME").unwrap_or_default();
    format!("{}/{pod}", Actor::Gateway)
}

/// One request's steps, held by this gateway.
struct ApprovedRun<'a> {
    gateway: &'a Gateway,
    /// The Ticket.
    key: &'a Key,
    /// The ImportedClient.
    client: &'a str,
    scope: &'a AgentScope,
    halo: &'a halopsa::Client,
    api: &'a Api<Ticket>,
    lease: &'a str,
}

impl ApprovedRun<'_> {
    async fn carry_out(&self, ticket: Ticket) -> Result<(), Error> {
        let request = ticket.status.as_ref().and_then(|s| s.approval.clone());
        let Some(request) = request else {
            return Ok(());
        };
        if let Some(gone) = self.gone(&ticket).await? {
            self.transition(&ticket, &[gone]).await?;
            return Ok(());
        }
        match self.check_binding(&ticket, &request).await {
            Err(Error::Mismatch(why)) => return self.reject(&ticket, why).await,
            checked => checked?,
        }
        let (ticket, results) = self.run_steps(ticket, &request).await?;
        failpoint::hit(&self.key.namespace, "steps.run").await;
        self.report(ticket, &request, &results).await
    }

    /// The event that ends work on a ticket that was moved or deleted since: not even a note is
    /// written on it. None: it is there, and this client's.
    async fn gone(&self, ticket: &Ticket) -> Result<Option<Event>, Error> {
        let found = self.halo.find_ticket(ticket.spec.ticket_id).await?;
        let ownership = still_ours(found.as_ref(), self.scope.halo_client_id);
        Ok(ownership.ignored().filter(|_| ownership.is_gone()))
    }

    /// Ends only when the lease is lost.
    async fn keep_lease(&self) -> Error {
        let every = Duration::from_secs((self.gateway.lease.as_secs() / 3).unsigned_abs().max(1));
        loop {
            tokio::time::sleep(every).await;
            let Ok(Some(ticket)) = self.api.get_opt(&self.key.name).await else {
                continue;
            };
            let event = Event::Heartbeat {
                lease: self.lease.to_string(),
                expires_at: Timestamp::now() + self.gateway.lease,
            };
            if let Err(error @ tickets::Error::Refused(_)) =
                self.transition(&ticket, &[event]).await
            {
                return error.into();
            }
        }
    }

    async fn transition(
        &self,
        ticket: &Ticket,
        events: &[Event],
    ) -> Result<Ticket, tickets::Error> {
        tickets::transition(self.api, ticket, events, Actor::Gateway).await
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            namespace: &self.key.namespace,
            client: self.client,
            ticket: &self.key.name,
            by: Some(Actor::Gateway),
        }
    }

    fn postbox(&self) -> Postbox<'_> {
        Postbox {
            api: self.api,
            halo: self.halo,
            connection: &self.scope.connection,
            by: Actor::Gateway,
            settle: self.gateway.settle,
            max_wait: MAX_WAIT,
        }
    }

    /// Checks that the steps stored now are those the technician was asked about, and that the
    /// technician's reply says so: both are on the HaloPSA ticket, out of reach of whoever writes
    /// to the Ticket.
    async fn check_binding(&self, ticket: &Ticket, request: &Approval) -> Result<(), Error> {
        let status = ticket.status.clone().unwrap_or_default();
        let Some(steps) = approval::steps_of(request, &status.steps) else {
            return Err(Error::Mismatch(
                "the request names a step that does not exist",
            ));
        };
        let ticket_id = ticket.spec.ticket_id;
        let (uid, number) = (self.scope.connection_uid(), request.number);
        let of_steps = steps.iter().copied();
        let hash = approval::hash(uid, ticket_id, status.run, number, &request.code, of_steps);
        if hash != request.hash {
            return Err(Error::Mismatch(
                "the steps are not those that were approved",
            ));
        }
        let actions = self.read_reply(ticket_id, request).await?;
        let tag = Tag::Request { hash };
        // The Ticket holds the marker; that it is one for these steps is checked here.
        let marker = state::intent(&status, &tag)
            .map(|intent| intent.marker.as_str())
            .filter(|marker| marker::is_for(marker, uid, ticket_id, status.run, &tag));
        let asked = marker.and_then(|m| outbox::find(&actions, m, self.scope.api_agent()));
        if asked.is_none_or(|a| Some(a.id) != request.action_id) {
            return Err(Error::Mismatch(
                "the request on the ticket is not for these steps",
            ));
        }
        self.check_reply(ticket_id, &status, request, &steps, &actions)
            .await
    }

    /// The ticket's actions from the request on. HaloPSA's reads lag: a reply that is missing is
    /// waited for until HaloPSA must show it.
    async fn read_reply(&self, ticket_id: i64, request: &Approval) -> Result<Vec<Action>, Error> {
        let (Some(asked), Some(reply)) = (request.action_id, request.decided_action) else {
            return Err(Error::Mismatch(NO_REPLY));
        };
        let search = || self.halo.replies_since(ticket_id, asked);
        let is_there = |actions: &Option<Vec<Action>>| {
            actions.iter().flatten().any(|action| action.id == reply)
        };
        let now = Timestamp::now();
        let decided_at = request.decided_at.as_ref().map_or(now, |at| at.0.min(now));
        match until_settled(decided_at, self.gateway.settle, MAX_WAIT, search, is_there).await? {
            Settled::Known(Some(actions)) => Ok(actions),
            Settled::Known(None) => Err(Error::Mismatch(TOO_FAR_BACK)),
            Settled::After(_) => Err(Error::Wait(NOT_SHOWN)),
        }
    }

    /// Judges the reply once more, as it is in HaloPSA now.
    async fn check_reply(
        &self,
        ticket_id: i64,
        status: &TicketStatus,
        request: &Approval,
        steps: &[&Step],
        actions: &[Action],
    ) -> Result<(), Error> {
        // A list that cannot be read now is no reason to doubt the reply: it is tried again.
        let by_team = |s: &&Step| s.approvers.as_ref().is_some_and(|a| a.team.is_some());
        let technicians = match steps.iter().any(by_team) {
            true => self.halo.agents().await?,
            false => Vec::new(),
        };
        let approvers = further_approvers(steps.iter().copied(), &technicians);
        let halo_ticket = self.halo.find_ticket(ticket_id).await?;
        let window = Window {
            seen: request.decided_after.unwrap_or_default(),
            assigned_now: halo_ticket.and_then(|t| t.agent_id),
            ourselves: self.scope.api_agent(),
            applications: &self.scope.connection.spec.approvals.applications,
            approvers: &approvers,
            ..Window::of(status, request)
        };
        let replies: Vec<Reply> = actions.iter().rev().map(Reply::from).collect();
        let decision = approval::judge(&replies, &window).decision;
        let is_it = decision.is_some_and(|d| {
            d.approve
                && Some(d.action) == request.decided_action
                && Some(d.by) == request.decided_by
        });
        match is_it {
            true => Ok(()),
            false => Err(Error::Mismatch(NO_REPLY)),
        }
    }

    async fn reject(&self, ticket: &Ticket, why: &str) -> Result<(), Error> {
        audit::event("ApprovalMismatch", self.subject(), why);
        let status = ticket.status.as_ref();
        let began = |s: &Step| {
            matches!(
                s.state,
                StepState::Running | StepState::Done | StepState::Failed | StepState::Unknown
            ) && status.is_some_and(|status| s.run == status.run)
        };
        let message = match status.is_some_and(|s| s.steps.iter().any(began)) {
            true => format!("{why}; no further step was run"),
            false => format!("{why}; nothing was run"),
        };
        let event = Event::Failed {
            reason: Reason::ApprovalMismatch,
            message,
        };
        self.transition(ticket, &[event]).await?;
        Ok(())
    }

    /// Stops at the first step that fails: the following ones may depend on it.
    async fn run_steps(
        &self,
        mut ticket: Ticket,
        request: &Approval,
    ) -> Result<(Ticket, Results), Error> {
        let mut results = Results::new();
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
                    if let Some(rule) = self.forbidden(&step, &ticket).await? {
                        let ended = Event::StepEnded {
                            number: *number,
                            state: StepState::Failed,
                            result: format!("forbidden by {rule} since it was requested; not run"),
                        };
                        let ticket = self.transition(&ticket, &[sent, ended]).await?;
                        return Ok((ticket, results));
                    }
                    ticket = self.transition(&ticket, &[sent]).await?;
                    true
                }
                // A gateway died while it ran the step.
                StepState::Running => false,
                StepState::Done => continue,
                _ => break,
            };
            let (stored, ended) = self.executor().run(&ticket, *number, fresh).await?;
            ticket = stored;
            self.record(&step, request, &ended, started.elapsed());
            results.insert(*number, one_line(&ended.full, MAX_RESULT));
            if ended.state != StepState::Done {
                break;
            }
        }
        Ok((ticket, results))
    }

    fn executor(&self) -> StepExecutor<'_> {
        StepExecutor {
            gateway: self.gateway,
            api: self.api.clone(),
            scope: self.scope,
            halo: self.halo,
            by: Actor::Gateway,
            lease: self.lease,
            max_wait: MAX_WAIT,
        }
    }

    /// What forbids a step now, although it was approved. The ticket is read again: its requester
    /// may have changed since, and a verification may have run out.
    async fn forbidden(&self, step: &Step, ticket: &Ticket) -> Result<Option<String>, Error> {
        let Some(tool) = catalog::find(self.gateway, self.scope, &step.tool) else {
            return Ok(Some("the list of tools (it is no longer there)".into()));
        };
        let status = ticket.status.clone().unwrap_or_default();
        let halo_ticket = self.halo.find_ticket(ticket.spec.ticket_id).await?;
        let facts = match &halo_ticket {
            Some(found) => {
                let (gateway, scope) = (self.gateway, self.scope);
                let facts = facts::gather(gateway, scope, self.halo, &status, found, &step.tool);
                Some(facts.await)
            }
            None => None,
        };
        let arguments = serde_json::from_str(&step.arguments).unwrap_or_default();
        let call = policy::Call {
            tool: &step.tool,
            access: tool.access(),
            sensitive: tool.sensitive(),
            arguments: &arguments,
            ticket: facts.as_ref(),
        };
        if status.mode == Some(Mode::Plan) && call.access != Access::Read {
            return Ok(Some("the ticket's Plan mode".into()));
        }
        let decision = catalog::decide(self.gateway, self.scope, &call);
        let requester = halo_ticket.as_ref().and_then(|t| t.user_id);
        let verified = state::is_verified(&status, requester, Timestamp::now());
        Ok(match decision.effect {
            Effect::Disabled => Some(decision.because()),
            _ if decision.require_verification && !verified => Some(format!(
                "{}, which requires the requester's verification,",
                decision.rule
            )),
            _ => None,
        })
    }

    /// Counts a step, and writes it to the audit stream and the journal.
    fn record(&self, step: &Step, request: &Approval, ended: &Ended, took: Duration) {
        let (outcome, counted) = match ended.state {
            StepState::Done => (Outcome::Ok, StepOutcome::Done),
            StepState::Unknown => (Outcome::UnknownResult, StepOutcome::Unknown),
            _ => (Outcome::Failed, StepOutcome::Failed),
        };
        let labels = StepLabels { outcome: counted };
        let metrics = &self.gateway.metrics;
        metrics.approved_steps.get_or_create(&labels).inc();
        let call = ToolCall {
            tool: step.tool.clone(),
            arguments: mask::arguments(&step.tool, &step.arguments, true),
            decision: "Approved".into(),
            rule: format!(
                "technician {}, reply {}",
                request.decided_by.unwrap_or_default(),
                request.decided_action.unwrap_or_default()
            ),
            step: Some(step.number),
            outcome: outcome.as_str().into(),
            ms: took.as_millis() as i64,
        };
        audit::call(self.subject(), &call);
        let (namespace, name) = (&self.key.namespace, &self.key.name);
        let by = Actor::Gateway.as_str();
        self.gateway.journal.add(namespace, name, by, call);
    }

    /// Posts the note with every step's result, and ends the run.
    async fn report(
        &self,
        ticket: Ticket,
        request: &Approval,
        results: &Results,
    ) -> Result<(), Error> {
        let status = ticket.status.clone().unwrap_or_default();
        let agents = technicians::agents(self.halo).await;
        let by = request
            .decided_by
            .map(|id| technicians::agent_name(id, &agents))
            .unwrap_or_default();
        let listed: Vec<Listed> = request
            .steps
            .iter()
            .filter_map(|n| status.steps.iter().find(|s| s.number == *n))
            .map(|s| {
                let mut listed = write::listed(ticket.spec.ticket_id, s);
                if let Some(result) = results.get(&s.number) {
                    listed.result = format!("{:?}: {result}", s.state);
                }
                if !s.state.is_final() {
                    listed.result = "not run, because an earlier step was not done".into();
                }
                listed
            })
            .collect();
        let tag = Tag::Decision(request.number);
        let html = |marker: &str| note::decision_html(Decided::Executed, &by, &listed, marker);
        let finished = Event::StepsFinished {
            lease: self.lease.to_string(),
        };
        let ticket = self.gateway.with_journal(&self.key.namespace, ticket);
        self.postbox()
            .post(&ticket, &tag, html, &[finished])
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_pod_is_called_as_the_runner() {
        // RFC 1123: letters, digits, dots and hyphens.
        let of_a_pod = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        assert!(!super::holder().chars().all(of_a_pod));
    }
}
