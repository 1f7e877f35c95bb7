//! The ticket's reconciler: moves tickets on when nobody else does.
//!
//! A [`Pass`] over a Ticket is a pipeline, one file per step:
//! - [`advance`]: the transitions that are due
//! - [`debts`]: the notes the Ticket owes to technicians
//! - [`approval`], [`verification`]: what technicians and the verification provider have answered
//! - [`retention`]: how long a finished Ticket is kept
//!
//! [`routing`] is for Tickets whose client is not known yet.

mod advance;
pub mod approval;
mod debts;
mod retention;
mod routing;
pub mod verification;

pub use routing::{client_for, store};

use crate::api::reason::Reason;
use crate::api::ticket::{ApprovalState, Phase, Ticket, TicketStatus};
use crate::api::{HaloPSAConnection, ImportedClient, condition};
use crate::audit::Subject;
use crate::controller::context::{Context, jitter};
use crate::halopsa;
use crate::ids::TechnicianId;
use crate::k8s::cache::Remembered;
use crate::k8s::key::Key;
use crate::k8s::{self, reflect, tickets};
use crate::outbox::{self, Postbox};
use crate::ticket::actor::Actor;
use crate::ticket::marker::Tag;
use crate::ticket::state::{self, Event};
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use std::sync::Arc;
use std::time::Duration;

const KIND: &str = "Ticket";
/// A ticket that somebody else moved on is read again after this.
const MOVED_ON: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", k8s::explain(.0))]
    Kube(#[from] kube::Error),
    #[error(transparent)]
    Ticket(#[from] tickets::Error),
    #[error(transparent)]
    Outbox(#[from] outbox::Error),
    #[error(transparent)]
    Pool(#[from] crate::halopsa_pool::Error),
    #[error(transparent)]
    Halo(#[from] halopsa::Error),
    #[error(transparent)]
    Busy(#[from] crate::blocking::Busy),
}

impl Error {
    /// An event no longer applies: somebody else moved the ticket on.
    fn is_refused(&self) -> bool {
        matches!(
            self,
            Error::Ticket(tickets::Error::Refused(_))
                | Error::Outbox(outbox::Error::Ticket(tickets::Error::Refused(_)))
        )
    }
}

pub async fn reconcile(ticket: Arc<Ticket>, ctx: Arc<Context>) -> Result<Action, Error> {
    ctx.stores.filled().await;
    if ticket.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let key = Key::of(&*ticket);
    let spec = &ticket.spec;
    let api: Api<Ticket> = Api::namespaced(ctx.kube.clone(), &key.namespace);
    let Some(connection) = reflect::get(
        &ctx.stores.connections,
        &key.namespace,
        &spec.connection_ref.name,
    ) else {
        // The connection owns the Ticket, which goes with it.
        return Ok(Action::requeue(jitter(Duration::from_secs(60))));
    };
    let Some(client) = &spec.client_ref else {
        return routing::route(&ticket, &connection, &api, &ctx).await;
    };
    let of = Key::new(&key.namespace, &client.name);
    if ctx.stores.unreadables.has::<ImportedClient>(&of) {
        // It is not gone: its tickets wait until it can be read.
        return Ok(Action::requeue(jitter(Duration::from_secs(60))));
    }
    let pass = Pass {
        client: reflect::get(&ctx.stores.clients, &key.namespace, &client.name),
        ticket: (*ticket).clone(),
        connection,
        requeue: None,
        key,
        api,
        ctx,
    };
    match pass.run().await {
        // The watch brings the news.
        Err(error) if error.is_refused() => Ok(Action::requeue(MOVED_ON)),
        result => result,
    }
}

/// One pass over a ticket.
struct Pass {
    /// As it was stored last.
    ticket: Ticket,
    connection: Arc<HaloPSAConnection>,
    client: Option<Arc<ImportedClient>>,
    /// When to poll again; none: no answer is awaited.
    requeue: Option<Duration>,
    key: Key,
    api: Api<Ticket>,
    ctx: Arc<Context>,
}

impl Pass {
    /// What talks to HaloPSA is boxed: those futures are large, and many reconciles share a
    /// worker's stack.
    async fn run(mut self) -> Result<Action, Error> {
        if self.advance().await? {
            self.announce().await;
        }
        if !self.connection.spec.suspend {
            self.settle_debts().await?;
            self.poll_replies().await?;
        }
        self.ctx.backoff.reset(KIND, &self.key);
        self.next_requeue().await
    }

    /// An Event for a ticket that has just ended.
    async fn announce(&self) {
        let status = self.status();
        if !status.phase.is_terminal() {
            return;
        }
        let type_ = match status.phase {
            Phase::Failed => EventType::Warning,
            _ => EventType::Normal,
        };
        let about = self.ticket.object_ref(&());
        let reason = status.reason.as_deref().unwrap_or("Finished");
        let message = status.message.as_deref().unwrap_or_default();
        self.ctx
            .event_as(&about, type_, reason, "Finish", message)
            .await;
    }

    /// Reads what was answered since, where the ticket waits for an answer.
    async fn poll_replies(&mut self) -> Result<(), Error> {
        let Some(client) = self.client.clone() else {
            return Ok(());
        };
        if matches!(self.phase(), Phase::Verifying | Phase::Refused) {
            let again = Box::pin(verification::listen(self)).await?;
            self.requeue = again;
        }
        if self.phase() == Phase::Verifying {
            let again = Box::pin(verification::poll(self, &client)).await?;
            self.requeue = Some(self.requeue.map_or(again, |listen| listen.min(again)));
        }
        if self.phase() == Phase::AwaitingApproval
            && self.status().approval_is(ApprovalState::Requested)
        {
            Box::pin(approval::remind(self, &client)).await?;
        }
        if self.phase() == Phase::AwaitingApproval
            && self.status().approval_is(ApprovalState::Requested)
        {
            let again = Box::pin(approval::poll(self, &client)).await?;
            self.requeue = Some(again);
        }
        Ok(())
    }

    /// When to reconcile again, should nothing happen.
    async fn next_requeue(&self) -> Result<Action, Error> {
        let status = self.status();
        let poll = self.requeue.map(|again| again + Duration::from_millis(50));
        // A suspended connection's tickets wait for its change, which wakes them.
        if self.connection.spec.suspend && !status.phase.is_terminal() {
            return Ok(Action::requeue(retention::SUSPENDED));
        }
        if !status.phase.is_terminal() {
            return Ok(Action::requeue(wait(&status, poll, Timestamp::now())));
        }
        match poll {
            // Refused: a technician may still have the requester asked again.
            Some(again) => Ok(Action::requeue(again)),
            None => retention::keep(self).await,
        }
    }

    fn status(&self) -> TicketStatus {
        self.ticket.status.clone().unwrap_or_default()
    }

    fn phase(&self) -> Phase {
        let status = self.ticket.status.as_ref();
        status.map(|s| s.phase).unwrap_or_default()
    }

    /// The API agent we act as.
    fn ourselves(&self) -> Option<TechnicianId> {
        let status = self.connection.status.as_ref()?;
        status.api_agent.as_ref().map(|agent| agent.id)
    }

    fn subject(&self) -> Subject<'_> {
        let client = self.ticket.spec.client_ref.as_ref();
        Subject {
            namespace: &self.key.namespace,
            client: client.map_or("", |c| c.name.as_str()),
            ticket: &self.key.name,
            by: Some(Actor::Controller),
        }
    }

    async fn halo(&self) -> Result<halopsa::Client, Error> {
        Ok(self.ctx.halopsa.client(&self.connection).await?)
    }

    async fn transition(&mut self, events: &[Event]) -> Result<(), Error> {
        self.ticket =
            tickets::transition(&self.api, &self.ticket, events, Actor::Controller).await?;
        Ok(())
    }

    /// Posts a note once. One that may have been sent before is not waited for: the error policy
    /// requeues.
    async fn post(
        &mut self,
        halo: &halopsa::Client,
        tag: &Tag,
        html: impl FnOnce(&str) -> String,
    ) -> Result<(), Error> {
        let postbox = Postbox {
            api: &self.api,
            halo,
            connection: &self.connection,
            by: Actor::Controller,
            settle: self.ctx.options.settle,
            max_wait: Duration::ZERO,
        };
        self.ticket = postbox.post(&self.ticket, tag, html, &[]).await?;
        Ok(())
    }

    async fn event(&self, type_: EventType, reason: Reason, action: &str, note: &str) {
        let about = self.ticket.object_ref(&());
        self.ctx.event(&about, type_, reason, action, note).await;
    }
}

/// Until the next deadline, or the next poll where an answer is awaited. While the connection is
/// suspended a debt is not settled; a change of the connection triggers the next pass.
fn wait(status: &TicketStatus, poll: Option<Duration>, now: Timestamp) -> Duration {
    let deadline = state::wakes_at(status)
        .and_then(|at| Duration::try_from(at.duration_since(now)).ok())
        .unwrap_or_default()
        + Duration::from_millis(500);
    match status.phase {
        Phase::AwaitingApproval | Phase::Verifying => poll.map_or(deadline, |p| p.min(deadline)),
        _ => deadline,
    }
}

pub fn error_policy(ticket: Arc<Ticket>, error: &Error, ctx: Arc<Context>) -> Action {
    if let Error::Outbox(outbox::Error::Unsettled(wait)) = error {
        return Action::requeue(*wait + Duration::from_secs(1));
    }
    ctx.retry(&*ticket, error)
}

/// The open tickets of a client, when it resolves to another HaloPSA client.
pub fn of_client(context: Arc<Context>) -> impl Fn(Arc<ImportedClient>) -> Vec<ObjectRef<Ticket>> {
    let seen: Remembered<Key, Option<i64>> = Remembered::default();
    move |client| {
        let key = Key::of(&*client);
        let resolved = client.status.as_ref().and_then(|s| s.halo_client_id);
        if !seen.changed(key.clone(), resolved) {
            return Vec::new();
        }
        open_tickets(&context, &key.namespace, |t| {
            t.spec
                .client_ref
                .as_ref()
                .is_some_and(|c| c.name == key.name)
        })
    }
}

/// The open tickets of a connection, when its spec or its readiness changes.
pub fn of_connection(
    context: Arc<Context>,
) -> impl Fn(Arc<HaloPSAConnection>) -> Vec<ObjectRef<Ticket>> {
    let seen: Remembered<Key, (Option<i64>, bool)> = Remembered::default();
    move |connection| {
        let key = Key::of(&*connection);
        let ready = connection
            .status
            .as_ref()
            .is_some_and(|s| condition::is_true(&s.conditions, condition::READY));
        if !seen.changed(key.clone(), (connection.metadata.generation, ready)) {
            return Vec::new();
        }
        open_tickets(&context, &key.namespace, |t| {
            t.spec.connection_ref.name == key.name
        })
    }
}

fn open_tickets(
    context: &Context,
    namespace: &str,
    which: impl Fn(&Ticket) -> bool,
) -> Vec<ObjectRef<Ticket>> {
    let open = |t: &Ticket| {
        t.namespace().as_deref() == Some(namespace)
            && which(t)
            && t.status
                .as_ref()
                .is_none_or(|s| !s.phase.is_terminal() || state::owed(s).is_some())
    };
    context
        .stores
        .tickets
        .state_filter(open)
        .iter()
        .map(|t| ObjectRef::from_obj(&**t))
        .collect()
}
