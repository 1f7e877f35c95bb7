//! An agent's turn on the ticket it holds: its plan, and how the turn ends.

use super::{Refusal, own_ticket};
use crate::api::Mode;
use crate::api::ticket::{
    Approval, ApprovalState, IntentKind, IntentState, Phase, StepState, Ticket, TicketStatus,
};
use crate::audit;
use crate::gateway::identity::Identity;
use crate::gateway::steps::{self, StepExecutor};
use crate::gateway::{AgentScope, Gateway, SUSPENDED, approval};
use crate::halopsa;
use crate::ids::ActionId;
use crate::k8s::tickets;
use crate::metrics::{ApprovalLabels, ApprovalOutcome};
use crate::outbox::{self, Postbox};
use crate::ticket::actor::Actor;
use crate::ticket::approval::needs_code;
use crate::ticket::marker::Tag;
use crate::ticket::note::{self, Ask};
use crate::ticket::ownership::still_ours;
use crate::ticket::plan::Plan;
use crate::ticket::state::{self, Event, Refused};
use kube::{Api, ResourceExt};
use std::time::Duration;

/// How long a request waits for HaloPSA to show what may have been written already.
const MAX_WAIT: Duration = Duration::from_secs(20);

pub(super) struct Turn<'a> {
    gateway: &'a Gateway,
    identity: &'a Identity,
    lease: &'a str,
    scope: AgentScope,
    halo: halopsa::Client,
    api: Api<Ticket>,
    ticket: Ticket,
}

impl<'a> Turn<'a> {
    /// Checks that the agent holds the ticket. None: the client no longer has the ticket, so the
    /// work on it has ended.
    pub(super) async fn begin(
        gateway: &'a Gateway,
        identity: &'a Identity,
        name: &str,
        lease: &'a str,
    ) -> Result<Option<Self>, Refusal> {
        let scope = gateway
            .scope_of(identity)
            .map_err(|why| Refusal::later(why, 5))?;
        let ticket = own_ticket(gateway, identity, name).await?;
        if scope.connection.spec.suspend {
            return Err(Refusal::later(SUSPENDED, 10));
        }
        if !ticket.status.as_ref().is_some_and(|s| holds(s, lease)) {
            return Err(tickets::Error::Refused(Refused::LeaseLost).into());
        }
        let halo = gateway
            .halopsa
            .client(&scope.connection)
            .await
            .map_err(|error| Refusal::later(error, 5))?;
        let api = super::api(gateway, identity);
        let found = halo
            .find_ticket(ticket.spec.ticket_id)
            .await
            .map_err(|error| Refusal::later(error, 5))?;
        // A ticket that was moved or deleted meanwhile gets no note. A closed one does: its agent
        // may have closed it.
        let ownership = still_ours(found.as_ref(), scope.halo_client_id);
        if ownership.is_gone() {
            let ended = ownership.ignored();
            tickets::transition(&api, &ticket, ended.as_slice(), Actor::Gateway).await?;
            return Ok(None);
        }
        let ticket = gateway.with_journal(&identity.namespace, ticket);
        Ok(Some(Self {
            gateway,
            identity,
            lease,
            scope,
            halo,
            api,
            ticket,
        }))
    }

    /// Posts the plan as one internal note. The turn goes on.
    pub(super) async fn hand_in(self, plan: Plan) -> Result<(), Refusal> {
        if self.scope.mode != Mode::Execute || self.status().mode != Some(Mode::Execute) {
            return Err(Refusal::invalid(
                "the ticket is in Plan mode: hand the plan in with complete",
            ));
        }
        let plan = plan.bounded();
        if plan.is_empty() {
            return Err(empty_plan());
        }
        self.post_plan(&plan, &[]).await.map(|_| ())
    }

    /// Ends the turn: posts the plan and the message, and asks for approval of the queued steps.
    pub(super) async fn end(
        mut self,
        plan: Option<Plan>,
        message: Option<String>,
    ) -> Result<(), Refusal> {
        let executes = self.status().mode == Some(Mode::Execute);
        let completed = Event::Completed {
            lease: self.lease.to_string(),
        };
        if !self.is_planned() {
            let plan = plan.ok_or_else(empty_plan)?;
            if !executes {
                self.post_plan(&plan, &[completed]).await?;
                return Ok(());
            }
            self.ticket = self.post_plan(&plan, &[]).await?;
        }
        if executes {
            self.settle_steps().await?;
        }
        if let Some(message) = message {
            self.say(&message).await?;
        }
        if !executes {
            // It became sensitive after its plan was posted, and nobody can verify the requester:
            // the agent only answers.
            self.transition(completed).await?;
            return Ok(());
        }
        let status = self.status();
        let proposed = status
            .steps
            .iter()
            .any(|s| s.run == status.run && s.state == StepState::Proposed);
        let pending = status.approval_is(ApprovalState::Requested);
        if proposed || status.approval_is(ApprovalState::Preparing) {
            return self.ask(pending).await;
        }
        let ended = match pending {
            true => Event::TurnEnded {
                lease: self.lease.to_string(),
            },
            false => completed,
        };
        self.transition(ended).await?;
        Ok(())
    }

    fn status(&self) -> TicketStatus {
        self.ticket.status.clone().unwrap_or_default()
    }

    fn by(&self) -> Actor<'a> {
        Actor::Agent(&self.identity.pod)
    }

    fn is_planned(&self) -> bool {
        let status = self.status();
        status.intents.iter().any(|i| {
            i.run == status.run && i.kind == IntentKind::PlanNote && i.state == IntentState::Posted
        })
    }

    async fn transition(&self, event: Event) -> Result<Ticket, Refusal> {
        let stored = tickets::transition(&self.api, &self.ticket, &[event], self.by()).await?;
        Ok(stored)
    }

    fn postbox(&self) -> Postbox<'_> {
        Postbox {
            api: &self.api,
            halo: &self.halo,
            connection: &self.scope.connection,
            by: self.by(),
            settle: self.gateway.settle,
            max_wait: MAX_WAIT,
        }
    }

    async fn post(
        &self,
        tag: &Tag,
        html: impl FnOnce(&str) -> String,
        then: &[Event],
    ) -> Result<Ticket, Refusal> {
        let posted = self.postbox().post(&self.ticket, tag, html, then).await;
        posted.map_err(|error| match error {
            outbox::Error::Ticket(error) => Refusal::from(error),
            error => {
                tracing::warn!(
                    namespace = %self.identity.namespace, ticket = %self.ticket.name_any(), %error,
                    "the note is not posted yet"
                );
                Refusal::later(error, 3)
            }
        })
    }

    async fn post_plan(&self, plan: &Plan, then: &[Event]) -> Result<Ticket, Refusal> {
        let mode = self.status().mode.unwrap_or(self.scope.mode);
        let mut plan = plan.clone();
        if self.scope.mode == Mode::Execute && mode == Mode::Plan {
            let why = "This ticket is sensitive, and no verification provider is connected to \
                verify the requester: nothing was changed (Plan mode).";
            plan.findings.insert(0, why.into());
        }
        let html = |marker: &str| note::plan_html(&plan, mode, marker);
        self.post(&Tag::Plan, html, then).await
    }

    /// Posts the agent's message. While a request waits that no other is about to replace, the
    /// note ends with how that one is answered.
    async fn say(&mut self, message: &str) -> Result<(), Refusal> {
        let status = self.status();
        let proposes = status
            .steps
            .iter()
            .any(|s| s.run == status.run && s.state == StepState::Proposed);
        let waits = status
            .approval
            .as_ref()
            .filter(|a| a.state == ApprovalState::Requested && !proposes);
        let ask = waits.map(|request| Ask {
            number: request.number,
            needs_code: needs_code(request, &status.steps),
            ..Ask::default()
        });
        let tag = Tag::Turn(status.turn);
        let html = |marker: &str| match &ask {
            Some(ask) => note::waiting_turn_html(message, ask, marker),
            None => note::turn_html(message, marker),
        };
        self.ticket = self.post(&tag, html, &[]).await?;
        Ok(())
    }

    /// Finds out, before the turn ends, whether steps of unknown outcome were sent.
    async fn settle_steps(&mut self) -> Result<(), Refusal> {
        let mut running = self.status().steps;
        running.retain(|s| s.state == StepState::Running);
        for step in running {
            let executor = StepExecutor {
                gateway: self.gateway,
                api: self.api.clone(),
                scope: &self.scope,
                halo: &self.halo,
                by: self.by(),
                lease: self.lease,
                max_wait: MAX_WAIT,
            };
            let (ticket, _) = executor
                .run(&self.ticket, step.number, false)
                .await
                .map_err(|error| match error {
                    steps::Error::Ticket(error) => Refusal::from(error),
                    error => Refusal::later(error, 3),
                })?;
            self.ticket = ticket;
        }
        Ok(())
    }

    /// Asks the assigned technician to approve the queued steps: one action lists them exactly.
    async fn ask(&mut self, replaces: bool) -> Result<(), Refusal> {
        let request = approval::prepare(&self.scope, &self.halo, &self.ticket, replaces)
            .await
            .map_err(|error| Refusal::later(error, 3))?;
        self.store_request(&request.approval).await?;
        let tag = Tag::Request {
            hash: request.approval.hash.clone(),
        };
        let html = |marker: &str| request.html(marker);
        self.ticket = self.post(&tag, html, &[]).await?;
        let action_id = self.request_action(&tag).await?;
        let requested = Event::ApprovalRequested {
            lease: self.lease.to_string(),
            action_id: Some(action_id),
        };
        self.ticket = self.transition(requested).await?;
        self.gateway
            .metrics
            .approvals
            .get_or_create(&ApprovalLabels {
                outcome: ApprovalOutcome::Requested,
            })
            .inc();
        self.audit_request(&request.approval, action_id);
        Ok(())
    }

    /// Stores the request before it is posted. An earlier attempt may have stored it.
    async fn store_request(&mut self, approval: &Approval) -> Result<(), Refusal> {
        let is_stored = self
            .status()
            .approval
            .is_some_and(|a| a.state == ApprovalState::Preparing && a.hash == approval.hash);
        if is_stored {
            return Ok(());
        }
        let prepared = Event::ApprovalPrepared {
            lease: self.lease.to_string(),
            approval: Box::new(approval.clone()),
        };
        self.ticket = self.transition(prepared).await?;
        crate::failpoint::hit(&self.identity.namespace, "request.prepared").await;
        Ok(())
    }

    /// The id of the action that asks. Only later replies count, so it has to be known.
    async fn request_action(&self, tag: &Tag) -> Result<ActionId, Refusal> {
        let status = self.status();
        let not_shown = || Refusal::later("HaloPSA does not show the request yet", 3);
        let intent = state::intent(&status, tag).ok_or_else(not_shown)?;
        if let Some(id) = intent.action_id {
            return Ok(id);
        }
        let actions = self
            .halo
            .actions(self.ticket.spec.ticket_id, outbox::SEARCH_DEPTH)
            .await
            .map_err(|error| Refusal::later(error, 3))?;
        outbox::find(&actions, &intent.marker, self.scope.api_agent())
            .map(|action| action.id)
            .ok_or_else(not_shown)
    }

    fn audit_request(&self, approval: &Approval, action_id: ActionId) {
        let subject = audit::Subject {
            namespace: &self.identity.namespace,
            client: &self.identity.client,
            ticket: &self.ticket.name_any(),
            by: Some(self.by()),
        };
        let detail = format!(
            "request {} for {} steps, action {action_id}",
            approval.number,
            approval.steps.len()
        );
        audit::event("ApprovalRequested", subject, &detail);
    }
}

fn holds(status: &TicketStatus, lease: &str) -> bool {
    status.phase == Phase::Working && status.lease.as_ref().is_some_and(|l| l.id == lease)
}

fn empty_plan() -> Refusal {
    Refusal::invalid(
        "the plan is empty: fill asked, and at least one of findings, steps and questions",
    )
}
