//! Tickets that wait for a technician: their replies are read, and what is owed
//! to the technicians is written.

use super::Error;
use crate::api::reason::Reason;
use crate::api::ticket::{ApprovalState, IntentKind, REQUESTED_AT_ANNOTATION, Ticket};
use crate::api::{HaloPSAConnection, ImportedClient};
use crate::audit::{self, Subject};
use crate::controller::context::Context;
use crate::failpoint;
use crate::halopsa::technicians::{agent_name, agents, assigned_name};
use crate::halopsa::{self, types};
use crate::k8s::tickets;
use crate::metrics::{ApprovalLabels, METRICS};
use crate::outbox::{self, Note};
use crate::policy::approvers::further_approvers;
use crate::text::utc;
use crate::ticket::actor::Actor;
use crate::ticket::approval::{self, Reply, Window};
use crate::ticket::note::{self, Ask, Decided};
use crate::ticket::state::{self, Event, Refused};
use crate::tools::write;
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Actions of a ticket that are read, newest first.
const DEPTH: usize = 200;

/// A Ticket's namespace and name.
type Key = (String, String);
/// When a ticket was read last, and by which nudge.
type Look = (Instant, Option<String>);

/// When each waiting ticket was read last. Kept in memory: after a restart each is read once more.
#[derive(Debug, Default)]
pub struct Polls(Mutex<HashMap<Key, Look>>);

impl Polls {
    /// How long to wait before the next look; none: now.
    pub fn wait(&self, ticket: &Ticket, every: Duration) -> Option<Duration> {
        let key = (ticket.namespace().unwrap_or_default(), ticket.name_any());
        let nudge = ticket.annotations().get(REQUESTED_AT_ANNOTATION).cloned();
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, seen)) = looks.get(&key)
            && *seen == nudge
            && at.elapsed() < every
        {
            return Some(every - at.elapsed());
        }
        looks.insert(key, (Instant::now(), nudge));
        None
    }

    pub fn forget(&self, namespace: &str, name: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(namespace.to_string(), name.to_string()));
    }
}

/// Reads the replies on a ticket that waits, if it is time to. The Ticket as it is
/// then, and when to look again.
pub async fn poll(
    ticket: Ticket,
    connection: &HaloPSAConnection,
    client: &ImportedClient,
    api: &Api<Ticket>,
    ctx: &Context,
) -> Result<(Ticket, Duration), Error> {
    let (namespace, name) = (ticket.namespace().unwrap_or_default(), ticket.name_any());
    let spec = &connection.spec;
    let waiting = ctx.index.awaiting_of(&namespace, &connection.name_any());
    let window = Duration::from(spec.rate_limit.window).as_secs_f64();
    let share = (f64::from(spec.rate_limit.requests) * ctx.options.rate_share).max(1.0) as u32;
    let every = Duration::from_secs_f64(approval::poll_interval(
        Duration::from(spec.approvals.poll).as_secs_f64(),
        waiting,
        share,
        window,
    ));
    if let Some(wait) = ctx.polls.wait(&ticket, every) {
        return Ok((ticket, wait));
    }
    let status = ticket.status.clone().unwrap_or_default();
    let Some(request) = status
        .approval
        .clone()
        .filter(|a| a.state == ApprovalState::Requested)
    else {
        return Ok((ticket, every));
    };
    let halo = ctx.halopsa.client(connection).await?;
    // The actions first: an assignment that is newer than them shows as one that no action tells of.
    let mut actions = halo.replies(ticket.spec.ticket_id, DEPTH).await?;
    actions.reverse();
    let gone = |reason, message: &str| Event::Ignored {
        reason,
        message: message.into(),
    };
    let left = match halo.ticket(ticket.spec.ticket_id).await {
        Err(halopsa::Error::NotFound { .. }) => Err(gone(
            Reason::Deleted,
            "HaloPSA does not have the ticket any more",
        )),
        Err(error) => return Err(error.into()),
        Ok(found) if found.client_id != client.status.as_ref().and_then(|s| s.halo_client_id) => {
            Err(gone(
                Reason::Moved,
                "the ticket was moved to another client in HaloPSA",
            ))
        }
        Ok(found) if found.hasbeenclosed => {
            Err(gone(Reason::Closed, "the ticket was closed in HaloPSA"))
        }
        Ok(found) => Ok(found),
    };
    let halo_ticket = match left {
        Ok(found) => found,
        Err(event) => {
            return Ok((
                tickets::transition(api, &ticket, &[event], Actor::Controller).await?,
                every,
            ));
        }
    };
    let ourselves = connection
        .status
        .as_ref()
        .and_then(|s| s.api_agent.as_ref())
        .map(|a| a.id);
    let steps = approval::steps_of(&request, &status.steps).unwrap_or_default();
    let named = steps.iter().any(|s| s.approvers.is_some());
    let further = if named {
        further_approvers(steps.iter().copied(), &agents(&halo).await)
    } else {
        Vec::new()
    };
    let replies: Vec<Reply> = actions.iter().map(reply).collect();
    let outcome = approval::judge(
        &replies,
        &Window {
            request: request.action_id.unwrap_or(i64::MAX),
            seen: status.seen_action.unwrap_or_default(),
            assigned_before: request.assigned_agent,
            assigned_now: halo_ticket.agent_id,
            ourselves,
            applications: &spec.approvals.applications,
            approvers: &further,
        },
    );
    let event = match (&outcome.decision, outcome.messages.is_empty()) {
        (Some((true, by, action, _)), _) => Event::Approved {
            by: *by,
            action: *action,
            messages: outcome.messages.clone(),
        },
        (Some((false, by, action, _)), _) => Event::Denied {
            by: *by,
            action: *action,
            messages: outcome.messages.clone(),
        },
        (None, false) => Event::Messages {
            replies: outcome.messages.clone(),
            up_to: outcome.up_to,
            assigned_agent: halo_ticket.agent_id,
        },
        (None, true) => Event::RepliesSeen {
            up_to: outcome.up_to,
            assigned_agent: halo_ticket.agent_id,
        },
    };
    let change = |status: &crate::api::TicketStatus, now: Timestamp| {
        // What was judged is this request, not one that has replaced it meanwhile.
        if status
            .approval
            .as_ref()
            .is_none_or(|a| a.hash != request.hash || a.action_id != request.action_id)
        {
            return Err(Refused::TooEarly);
        }
        let mut next = state::apply(status, &event, Actor::Controller, now)?;
        for (action, why) in &outcome.ignored {
            next.record(
                "ReplyIgnored",
                Actor::Controller,
                Some(format!("action {action}: {why}")),
                now,
            );
        }
        Ok(next)
    };
    let stored = tickets::update(api, &ticket, Actor::Controller, change).await?;
    failpoint::hit(&namespace, "reply.decided").await;
    let subject = Subject {
        namespace: &namespace,
        client: &client.name_any(),
        ticket: &name,
        by: Some(Actor::Controller),
    };
    for (action, why) in &outcome.ignored {
        audit::event("ReplyIgnored", subject, &format!("action {action}: {why}"));
        METRICS
            .approvals
            .get_or_create(&ApprovalLabels { outcome: "ignored" })
            .inc();
        let note =
            format!("a reply that looks like a decision does not count (action {action}): {why}");
        ctx.event(
            &ticket.object_ref(&()),
            EventType::Normal,
            Reason::ReplyIgnored,
            "Approve",
            &note,
        )
        .await;
    }
    if let Some((yes, by, action, seen)) = &outcome.decision {
        let (reason, label) = if *yes {
            (Reason::Approved, "approved")
        } else {
            (Reason::Denied, "denied")
        };
        METRICS
            .approvals
            .get_or_create(&ApprovalLabels { outcome: label })
            .inc();
        audit::event(
            reason.as_str(),
            subject,
            &format!(
                "request {}: agent {by}, action {action}, read from {seen}",
                request.number
            ),
        );
        let note = format!(
            "HaloPSA agent {by} has {} {} steps (action {action})",
            label,
            request.steps.len()
        );
        ctx.event(
            &ticket.object_ref(&()),
            EventType::Normal,
            reason,
            "Approve",
            &note,
        )
        .await;
    }
    Ok((stored, every))
}

fn reply(action: &types::Action) -> Reply {
    Reply {
        id: action.id,
        agent: action
            .who_agentid
            .filter(|id| *id > 0 && action.who_type.is_none_or(|t| t == 1)),
        application: action.actionby_application_id.clone(),
        mail: action.emaildirection.eq_ignore_ascii_case("i"),
        html: action.note_html.clone(),
        text: action.note.clone(),
        new_agent: action.new_agent.filter(|id| *id > 0),
    }
}

/// Writes the reminder, if it is due.
pub async fn remind(
    ticket: Ticket,
    connection: &HaloPSAConnection,
    api: &Api<Ticket>,
    ctx: &Context,
) -> Result<Ticket, Error> {
    let status = ticket.status.clone().unwrap_or_default();
    let due = state::reminds_at(&status).is_some_and(|at| at <= Timestamp::now());
    let Some(request) = status.approval.as_ref().filter(|_| due) else {
        return Ok(ticket);
    };
    let halo = ctx.halopsa.client(connection).await?;
    let halo_ticket = halo.ticket(ticket.spec.ticket_id).await?;
    let assigned = assigned_name(&halo_ticket, &agents(&halo).await);
    let ask = Ask {
        assigned: &assigned,
        until: &utc(request.expires_at.0),
        ..Ask::default()
    };
    let html = |marker: &str| note::reminder_html(request.steps.len(), &ask, marker);
    write(
        &ticket,
        connection,
        api,
        &halo,
        ctx,
        IntentKind::Reminder,
        &state::reminder_tag(request),
        html,
    )
    .await
}

/// Tells the technicians that their no was understood, or that nobody answered.
pub async fn post_decision(
    ticket: &Ticket,
    connection: &HaloPSAConnection,
    api: &Api<Ticket>,
    ctx: &Context,
) -> Result<Ticket, Error> {
    let status = ticket.status.clone().unwrap_or_default();
    let Some(request) = &status.approval else {
        return Ok(ticket.clone());
    };
    let halo = ctx.halopsa.client(connection).await?;
    let expired = request.state == ApprovalState::Expired;
    let by = match request.decided_by {
        Some(id) => agent_name(id, &agents(&halo).await),
        None => String::new(),
    };
    if expired {
        METRICS
            .approvals
            .get_or_create(&ApprovalLabels { outcome: "expired" })
            .inc();
    }
    let listed: Vec<note::Listed> = status
        .steps
        .iter()
        .filter(|s| request.steps.contains(&s.number))
        .map(|s| write::listed(ticket.spec.ticket_id, s))
        .collect();
    let html = |marker: &str| {
        note::decision_html(
            if expired {
                Decided::Expired
            } else {
                Decided::Denied
            },
            &by,
            &listed,
            marker,
        )
    };
    write(
        ticket,
        connection,
        api,
        &halo,
        ctx,
        IntentKind::DecisionNote,
        &state::decision_tag(request),
        html,
    )
    .await
}

#[allow(clippy::too_many_arguments)]
async fn write(
    ticket: &Ticket,
    connection: &HaloPSAConnection,
    api: &Api<Ticket>,
    halo: &halopsa::Client,
    ctx: &Context,
    kind: IntentKind,
    tag: &str,
    html: impl Fn(&str) -> String,
) -> Result<Ticket, Error> {
    let run = ticket.status.as_ref().map(|s| s.run).unwrap_or_default();
    let uid = connection.metadata.uid.as_deref().unwrap_or_default();
    let marker = note::marker(uid, ticket.spec.ticket_id, run, tag);
    let html = html(&marker);
    let note = Note {
        kind,
        marker: &marker,
        html: &html,
        outcome: &connection.spec.notes,
        api_agent: connection
            .status
            .as_ref()
            .and_then(|s| s.api_agent.as_ref())
            .map(|a| a.id),
        by: Actor::Controller,
        settle: ctx.options.settle,
        max_wait: Duration::ZERO,
    };
    Ok(outbox::post_once(api, halo, ticket, &note, &[]).await?)
}
