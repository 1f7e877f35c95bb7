//! What an agent starts with, read from HaloPSA now.

use crate::api::ticket::{Ticket, Verification};
use crate::api::{Workflow, WorkflowSpec};
use crate::blocking;
use crate::gateway::wire::{Context, MatchedWorkflow, Requester, TicketNote};
use crate::gateway::{AgentScope, Gateway};
use crate::halopsa::{self, types};
use crate::ids::ActionId;
use crate::policy::sensitivity;
use crate::text;
use crate::ticket::ownership::{Ownership, still_ours};
use crate::ticket::sensitive::Reason;
use crate::ticket::{state, workflow};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use std::sync::Arc;

/// Notes shown to the agent, the newest ones.
const NOTES: usize = 50;
const MAX_NOTE: usize = 4096;

pub(super) enum Gathered {
    Start(Box<Start>),
    NotOurs(Ownership),
    /// A child ticket that our agent created.
    OwnTicket,
}

pub(super) struct Start {
    pub context: Context,
    /// The replies it resumes for.
    pub replies: Vec<TicketNote>,
    /// Why the requester has to be asked; empty: the ticket is not sensitive, or they are verified.
    pub sensitive: Vec<Reason>,
    /// The newest action that was read.
    pub newest_action: Option<ActionId>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Halo(#[from] halopsa::Error),
    #[error(transparent)]
    Busy(#[from] blocking::Busy),
}

pub(super) async fn gather(
    gateway: &Gateway,
    scope: &AgentScope,
    halo: &halopsa::Client,
    stored: &Ticket,
) -> Result<Gathered, Error> {
    let ticket_id = stored.spec.ticket_id;
    let found = halo.find_ticket(ticket_id).await?;
    let ownership = still_ours(found.as_ref(), scope.halo_client_id);
    let Some(ticket) = found.filter(|_| ownership == Ownership::Ours) else {
        return Ok(Gathered::NotOurs(ownership));
    };
    let mut actions = halo.actions(ticket_id, NOTES).await?;
    actions.reverse();
    if is_own(scope, &ticket, &actions) {
        return Ok(Gathered::OwnTicket);
    }
    let workflows = workflows_of(gateway, scope);
    let namespace = scope.connection.namespace().unwrap_or_default();
    let (scope, stored) = (scope.clone(), stored.clone());
    let start = move || start(&scope, &stored, &workflows, &ticket, &actions);
    Ok(Gathered::Start(Box::new(
        blocking::run(&namespace, start).await?,
    )))
}

/// What strangers wrote is read here: it may take long.
fn start(
    scope: &AgentScope,
    stored: &Ticket,
    workflows: &[Arc<Workflow>],
    ticket: &types::Ticket,
    actions: &[types::Action],
) -> Start {
    let status = stored.status.clone().unwrap_or_default();
    let wanted = status
        .resume
        .as_ref()
        .map(|r| r.replies.as_slice())
        .unwrap_or_default();
    let replies = actions
        .iter()
        .filter(|a| wanted.contains(&a.id))
        .map(shown)
        .collect();
    let mut context = context_of(scope, stored, workflows, ticket, actions);
    let verified = state::is_verified(&status, ticket.user_id, Timestamp::now());
    let verification = status.verification.as_ref().filter(|_| verified);
    let config = &scope.connection.spec.sensitivity;
    // What end users wrote later counts too: a ticket may become sensitive.
    let sensitive = match verification {
        Some(v) => sensitivity::since_verified(ticket, actions, reaches(actions, v), v, config),
        None => sensitivity::of_ticket(ticket, &sensitivity::written(actions), config),
    };
    if sensitive.is_empty() {
        context.verification = verification.map(how_verified);
    }
    Start {
        context,
        replies,
        sensitive,
        newest_action: sensitivity::newest(actions),
    }
}

/// Our agent's child tickets are left to the technicians: agents would make work for themselves
/// without end.
fn is_own(scope: &AgentScope, ticket: &types::Ticket, actions: &[types::Action]) -> bool {
    let api_agent = scope.api_agent();
    let created = api_agent.is_some()
        && actions
            .first()
            .is_some_and(|oldest| oldest.who_agentid == api_agent);
    created && ticket.parent_id.is_some_and(|parent| parent > 0)
}

fn context_of(
    scope: &AgentScope,
    stored: &Ticket,
    workflows: &[Arc<Workflow>],
    ticket: &types::Ticket,
    actions: &[types::Action],
) -> Context {
    let details = if ticket.details.trim().is_empty() {
        text::from_html(&ticket.details_html)
    } else {
        text::from_html(&ticket.details)
    };
    let subject = text::one_line(&ticket.summary, 500);
    let prompts = [
        scope.connection.spec.prompt.clone(),
        scope.client.spec.prompt.clone(),
    ];
    Context {
        ticket_id: stored.spec.ticket_id,
        workflows: workflows_for(workflows, scope, &subject, &details),
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
        notes: actions
            .iter()
            .filter(|a| !a.note.trim().is_empty())
            .map(shown)
            .collect(),
        prompts: prompts.into_iter().flatten().collect(),
        verification: None,
        sensitive: Vec::new(),
    }
}

fn shown(action: &types::Action) -> TicketNote {
    TicketNote {
        who: text::one_line(&action.who, 100),
        internal: action.hiddenfromuser,
        at: action.datetime.map(|t| t.to_string()),
        text: text::cut(&text::plain(&action.note), MAX_NOTE).to_string(),
    }
}

/// Like `Verified by email link`.
fn how_verified(verification: &Verification) -> String {
    match &verification.method {
        Some(method) => format!("{:?} by {method}", verification.state),
        None => format!("{:?}", verification.state),
    }
}

/// Whether the actions that were read, oldest first, reach back to those before the verification.
fn reaches(actions: &[types::Action], verification: &Verification) -> bool {
    let oldest = actions.first().map(|a| a.id);
    actions.len() < NOTES || oldest <= verification.newest_action
}

/// The workflows of a connection.
fn workflows_of(gateway: &Gateway, scope: &AgentScope) -> Vec<Arc<Workflow>> {
    let (namespace, connection) = (scope.connection.namespace(), scope.connection.name_any());
    gateway
        .stores
        .workflows
        .state_filter(|w| w.namespace() == namespace && w.spec.connection_ref.name == connection)
}

/// The active workflows whose trigger matches the ticket.
fn workflows_for(
    all: &[Arc<Workflow>],
    scope: &AgentScope,
    subject: &str,
    details: &str,
) -> Vec<MatchedWorkflow> {
    let names: Vec<String> = all.iter().map(|w| w.name_any()).collect();
    let named: Vec<(&str, &WorkflowSpec)> = names
        .iter()
        .map(String::as_str)
        .zip(all.iter().map(|w| &w.spec))
        .collect();
    workflow::matching(&named, &scope.client.name_any(), subject, details)
        .into_iter()
        .map(|(name, spec)| MatchedWorkflow {
            name: name.to_string(),
            trigger: spec.trigger.clone(),
            instructions: spec.instructions.clone(),
            steps: spec.steps.clone().unwrap_or_default(),
        })
        .collect()
}
