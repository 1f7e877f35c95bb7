//! Finding a ticket for an agent, and handing it out.

use super::Refusal;
use super::context::{self, Gathered, Start};
use crate::api::Mode;
use crate::api::reason::Reason;
use crate::api::ticket::{ApprovalState, Phase, Ticket, TicketStatus};
use crate::gateway::identity::Identity;
use crate::gateway::wire::{ModelOffer, Resumed, StepSeen, Work};
use crate::gateway::{AgentScope, Gateway};
use crate::k8s::cache::Remembered;
use crate::k8s::key::Key;
use crate::k8s::{self, reflect, tickets};
use crate::ticket::actor::Actor;
use crate::ticket::state::Event;
use crate::ticket::verification::{self, Why};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt};
use std::time::Duration;
use tokio::time::Instant;

/// How long a claim waits for a ticket.
const LONG_POLL: Duration = Duration::from_secs(25);

/// Connections whose HaloPSA has just failed. Their tickets wait; they would only be claimed and
/// handed back over and over.
#[derive(Debug, Default)]
pub struct ConnectionBackoff(Remembered<Key, Pause>);

#[derive(Clone, Copy, Debug)]
struct Pause {
    until: Instant,
    /// In a row.
    failures: u32,
}

impl ConnectionBackoff {
    /// Pauses a connection; returns until when.
    fn failed(&self, connection: Key) -> Instant {
        let mut map = self.0.lock();
        let failures = map.get(&connection).map_or(0, |pause| pause.failures) + 1;
        let wait = Duration::from_secs(1 << failures.min(5));
        let until = Instant::now() + wait.mul_f64(rand::random_range(0.75..1.25));
        map.insert(connection, Pause { until, failures });
        until
    }

    fn succeeded(&self, connection: &Key) {
        self.0.forget(connection);
    }

    fn until(&self, connection: &Key) -> Option<Instant> {
        self.0
            .get(connection)
            .map(|pause| pause.until)
            .filter(|until| *until > Instant::now())
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Context(#[from] context::Error),
    #[error(transparent)]
    Pool(#[from] crate::halopsa_pool::Error),
    #[error(transparent)]
    Ticket(#[from] tickets::Error),
}

/// Waits for a ticket of the agent's client. None: there was none in time.
pub(super) async fn wait(gateway: &Gateway, identity: &Identity) -> Result<Option<Work>, Refusal> {
    let deadline = Instant::now() + LONG_POLL;
    let mut changed = gateway
        .wakeups
        .of(Key::new(&identity.namespace, &identity.client));
    loop {
        changed.borrow_and_update();
        let scope = gateway
            .scope_of(identity)
            .map_err(|why| Refusal::later(why, 5))?;
        let connection = Key::of(&*scope.connection);
        let mut paused = gateway.backoff.until(&connection);
        if !scope.connection.spec.suspend && paused.is_none() {
            match first_ready(gateway, identity, &scope).await {
                Ok(Some(work)) => {
                    gateway.backoff.succeeded(&connection);
                    return Ok(Some(work));
                }
                Ok(None) => {}
                // It is logged already.
                Err(_) => paused = Some(gateway.backoff.failed(connection)),
            }
        }
        let wake = paused.map_or(deadline, |until| deadline.min(until));
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep_until(wake) => {
                if Instant::now() >= deadline {
                    return Ok(None);
                }
            }
        }
    }
}

/// The first ready ticket that can be handed out; those that have waited longest come first.
async fn first_ready(
    gateway: &Gateway,
    identity: &Identity,
    scope: &AgentScope,
) -> Result<Option<Work>, Error> {
    let namespace = &identity.namespace;
    for name in gateway
        .index
        .in_phase(namespace, &identity.client, Phase::Ready)
    {
        let Some(ticket) = reflect::get(&gateway.stores.tickets, namespace, &name) else {
            continue;
        };
        match hand_out(gateway, identity, scope, &ticket).await {
            Ok(None) => {}
            Ok(work) => return Ok(work),
            Err(error) => {
                tracing::warn!(
                    %namespace, ticket = %name, %error,
                    "cannot hand out a ticket; will retry"
                );
                return Err(error);
            }
        }
    }
    Ok(None)
}

/// Claims one ticket and gathers its context. None: another agent has it, or no agent should.
async fn hand_out(
    gateway: &Gateway,
    identity: &Identity,
    scope: &AgentScope,
    ticket: &Ticket,
) -> Result<Option<Work>, Error> {
    let halo = gateway.halo(scope).await?;
    let Some(mut claim) = Claim::take(gateway, identity, scope, ticket).await? else {
        return Ok(None);
    };
    let gathered = context::gather(gateway, scope, &halo, &claim.ticket).await?;
    let ended = match gathered {
        Gathered::Start(start) => return claim.start(gateway, scope, *start).await,
        Gathered::NotOurs(ownership) => ownership.ignored(),
        Gathered::OwnTicket => Some(Event::Ignored {
            reason: Reason::OwnTicket,
            message: "our agent created this child ticket; it is left to the technicians".into(),
        }),
    };
    claim.settled = true;
    if let Some(ended) = ended {
        claim.transition(ended).await?;
    }
    Ok(None)
}

/// A ticket that is claimed and not handed out yet. Unless it is settled it is released when this
/// is dropped: its context could not be gathered, or its agent hung up meanwhile. The next agent
/// need not wait for the lease to run out.
struct Claim {
    api: Api<Ticket>,
    /// As it was stored with the claim.
    ticket: Ticket,
    lease: String,
    holder: String,
    settled: bool,
}

impl Claim {
    /// None: another agent was faster, or the Ticket is gone.
    async fn take(
        gateway: &Gateway,
        identity: &Identity,
        scope: &AgentScope,
        ticket: &Ticket,
    ) -> Result<Option<Self>, tickets::Error> {
        let api = super::api(gateway, identity);
        let lease = uuid::Uuid::new_v4().to_string();
        let holder = identity.pod.clone();
        let claimed = Event::Claimed {
            lease: lease.clone(),
            holder: holder.clone(),
            expires_at: Timestamp::now() + gateway.lease,
            mode: scope.mode,
        };
        let stored = tickets::transition(&api, ticket, &[claimed], Actor::Agent(&holder)).await;
        match stored {
            Ok(ticket) => Ok(Some(Self {
                api,
                ticket,
                lease,
                holder,
                settled: false,
            })),
            Err(tickets::Error::Refused(_) | tickets::Error::Contended(_)) => Ok(None),
            Err(tickets::Error::Kube(error)) if k8s::is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn transition(&self, event: Event) -> Result<Ticket, tickets::Error> {
        tickets::transition(&self.api, &self.ticket, &[event], Actor::Gateway).await
    }

    /// Hands the ticket out. None: its requester has to prove who they are first.
    async fn start(
        mut self,
        gateway: &Gateway,
        scope: &AgentScope,
        mut start: Start,
    ) -> Result<Option<Work>, Error> {
        let status = self.ticket.status.clone().unwrap_or_default();
        let mut mode = scope.mode;
        if !start.sensitive.is_empty() {
            if let Some(timeout) = scope.verification_timeout(gateway) {
                let challenge = self.challenge(&status, scope, &start, timeout);
                self.transition(challenge).await?;
                self.settled = true;
                return Ok(None);
            }
            // Nobody can verify the requester: the agent may read and plan only.
            let lease = self.lease.clone();
            self.transition(Event::PlanOnly { lease }).await?;
            mode = Mode::Plan;
            start.context.sensitive = start.sensitive.iter().map(ToString::to_string).collect();
        }
        self.settled = true;
        Ok(Some(self.work(gateway, scope, &status, mode, start)))
    }

    fn challenge(
        &self,
        status: &TicketStatus,
        scope: &AgentScope,
        start: &Start,
        timeout: Duration,
    ) -> Event {
        let hide = scope.connection.spec.privacy.hide_subjects;
        let reasons: Vec<String> = start
            .sensitive
            .iter()
            .map(|reason| match hide {
                true => reason.without_words(),
                false => reason.to_string(),
            })
            .collect();
        verification::start(
            status,
            &scope.connection,
            &self.ticket,
            &Why {
                reasons: &reasons,
                newest_action: start.newest_action,
            },
            timeout,
            Some(self.lease.clone()),
            Timestamp::now(),
        )
    }

    fn work(
        &self,
        gateway: &Gateway,
        scope: &AgentScope,
        status: &TicketStatus,
        mode: Mode,
        start: Start,
    ) -> Work {
        let steps = status.steps.iter().filter(|s| s.run == status.run);
        Work {
            ticket: self.ticket.name_any(),
            lease_id: self.lease.clone(),
            lease_seconds: gateway.lease.as_secs().unsigned_abs(),
            mode,
            turn: status.turn,
            resumed: status.resume.as_ref().map(|resume| Resumed {
                reason: resume.reason,
                replies: start.replies,
            }),
            steps: steps
                .map(|s| StepSeen {
                    number: s.number,
                    tool: s.tool.clone(),
                    state: s.state,
                    result: s.result.clone().unwrap_or_default(),
                })
                .collect(),
            approval_pending: status.approval_is(ApprovalState::Requested),
            model: scope.model().map(|model| ModelOffer {
                name: model.name.clone(),
                steps_per_turn: model.limits.steps_per_turn,
                timeout_seconds: Duration::from(model.limits.timeout).as_secs(),
            }),
            context: start.context,
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let (api, ticket) = (self.api.clone(), self.ticket.clone());
        let released = Event::Released {
            lease: self.lease.clone(),
            holder: self.holder.clone(),
        };
        tokio::spawn(async move {
            if let Err(error) =
                tickets::transition(&api, &ticket, &[released], Actor::Gateway).await
            {
                tracing::warn!(
                    ticket = %ticket.name_any(), %error,
                    "cannot hand a ticket back; its lease will run out"
                );
            }
        });
    }
}
