//! Tickets that wait for a technician: their replies are read, and a reminder is written.

use super::{Error, Pass};
use crate::api::ImportedClient;
use crate::api::reason::Reason;
use crate::api::ticket::{Approval, ApprovalState, TicketStatus, UncountedReply};
use crate::audit;
use crate::failpoint;
use crate::halopsa::technicians::{agent_name, agents, assigned_name};
use crate::halopsa::{self, types};
use crate::ids::{ActionId, TechnicianId};
use crate::k8s::tickets;
use crate::metrics::{ApprovalLabels, ApprovalOutcome};
use crate::policy::approvers::further_approvers;
use crate::text::utc;
use crate::ticket::actor::Actor;
use crate::ticket::approval::{self, Decision, IgnoredReply, Outcome, Reply, WhyNot, Window};
use crate::ticket::marker::Tag;
use crate::ticket::note::{self, Ask};
use crate::ticket::ownership::{Ownership, still_ours};
use crate::ticket::state::{self, Event, Refused};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::events::EventType;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Names of further approvers shown in a note.
const MAX_NAMES: usize = 5;

/// Reads the replies on a ticket that waits, if it is time to. Returns when to do so again.
pub(super) async fn poll(pass: &mut Pass, client: &ImportedClient) -> Result<Duration, Error> {
    let every = interval(pass);
    if let Some(wait) = pass.ctx.polls.wait(&pass.ticket, every) {
        return Ok(wait);
    }
    let status = pass.status();
    let Some(request) = status
        .approval
        .as_ref()
        .filter(|a| a.state == ApprovalState::Requested)
    else {
        return Ok(every);
    };
    let Some(asked) = request.action_id else {
        return Ok(every);
    };
    let halo = pass.halo().await?;
    let ticket_id = pass.ticket.spec.ticket_id;
    // The replies first: an assignment made after they were read is one that no action records.
    let actions = halo.replies_since(ticket_id, asked).await?;
    let Some(halo_ticket) = ours(pass, &halo, client).await? else {
        return Ok(every);
    };
    let assigned_now = halo_ticket.agent_id;
    let approvers = approvers(request, &status, &halo).await;
    let connection = pass.connection.clone();
    let window = Window {
        assigned_now,
        ourselves: pass.ourselves(),
        applications: &connection.spec.approvals.applications,
        approvers: &approvers,
        ..Window::of(&status, request)
    };
    let outcome = match actions {
        Some(actions) => approval::judge(&oldest_first(&actions), &window),
        None => too_many(asked, &window),
    };
    let new = store(pass, request, &window, &outcome).await?;
    failpoint::hit(&pass.key.namespace, "reply.decided").await;
    report(pass, request, &outcome, &new).await;
    Ok(every)
}

/// What was said since the request cannot all be read: nothing decides.
fn too_many(asked: ActionId, window: &Window<'_>) -> Outcome {
    Outcome {
        up_to: window.seen,
        ignored: vec![IgnoredReply {
            action: asked,
            why: WhyNot::TooMany,
        }],
        ..Outcome::default()
    }
}

fn interval(pass: &Pass) -> Duration {
    let spec = &pass.connection.spec;
    let ctx = &pass.ctx;
    let waiting = ctx
        .index
        .awaiting_of(&pass.key.namespace, &pass.connection.name_any());
    let share = f64::from(spec.rate_limit.requests) * ctx.options.rate_share;
    approval::poll_interval(
        Duration::from(spec.approvals.poll),
        waiting,
        share.max(1.0) as u32,
        Duration::from(spec.rate_limit.window),
    )
}

/// The newest actions of a ticket, oldest first.
pub(super) async fn replies(
    halo: &halopsa::Client,
    ticket_id: i64,
    depth: usize,
) -> Result<Vec<Reply>, halopsa::Error> {
    let actions = halo.replies(ticket_id, depth).await?;
    Ok(oldest_first(&actions))
}

fn oldest_first(actions: &[types::Action]) -> Vec<Reply> {
    actions.iter().rev().map(Reply::from).collect()
}

/// Who may approve besides the assigned technician.
async fn approvers(
    request: &Approval,
    status: &TicketStatus,
    halo: &halopsa::Client,
) -> Vec<TechnicianId> {
    let steps = approval::steps_of(request, &status.steps).unwrap_or_default();
    if steps.iter().all(|s| s.approvers.is_none()) {
        return Vec::new();
    }
    named_approvers(request, status, &agents(halo).await)
}

fn named_approvers(
    request: &Approval,
    status: &TicketStatus,
    technicians: &[types::Agent],
) -> Vec<TechnicianId> {
    let steps = approval::steps_of(request, &status.steps).unwrap_or_default();
    further_approvers(steps, technicians)
}

/// Stores what the replies say, unless another request has replaced the one they were judged for,
/// or a note was posted that the judgement did not know of. Returns the ignored replies that were
/// not known before.
async fn store(
    pass: &mut Pass,
    request: &Approval,
    window: &Window<'_>,
    outcome: &Outcome,
) -> Result<Vec<UncountedReply>, Error> {
    let event = event_of(outcome, window.assigned_now);
    let ignored: Vec<UncountedReply> = outcome.ignored.iter().map(uncounted).collect();
    let new = Mutex::new(Vec::new());
    let change = |status: &TicketStatus, now: Timestamp| {
        let is_other = |a: &Approval| a.hash != request.hash || a.action_id != request.action_id;
        if status.approval.as_ref().is_none_or(is_other)
            || approval::own_notes(status) != window.own_notes
        {
            return Err(Refused::TooEarly);
        }
        let mut next = state::apply(status, &event, Actor::Controller, now)?;
        let unknown = next.ignore(&ignored);
        for reply in &unknown {
            let detail = Some(format!("action {}: {}", reply.action, reply.why));
            next.record("ReplyIgnored", Actor::Controller, detail, now);
        }
        *new.lock().unwrap_or_else(PoisonError::into_inner) = unknown;
        Ok(next)
    };
    pass.ticket = tickets::update(&pass.api, &pass.ticket, Actor::Controller, change).await?;
    Ok(new.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn uncounted(ignored: &IgnoredReply) -> UncountedReply {
    UncountedReply {
        action: ignored.action,
        why: ignored.why.to_string(),
    }
}

fn event_of(outcome: &Outcome, assigned_agent: Option<TechnicianId>) -> Event {
    let messages = outcome.messages.clone();
    match &outcome.decision {
        Some(decision) if decision.approve => Event::Approved {
            by: decision.by,
            action: decision.action,
            messages,
        },
        Some(decision) => Event::Denied {
            by: decision.by,
            action: decision.action,
            messages,
        },
        None if messages.is_empty() => Event::RepliesSeen {
            up_to: outcome.up_to,
            assigned_agent,
        },
        None => Event::Messages {
            replies: messages,
            up_to: outcome.up_to,
            assigned_agent,
        },
    }
}

/// Says what was decided, and what does not count, in audit stream, metrics and Events.
async fn report(pass: &Pass, request: &Approval, outcome: &Outcome, new: &[UncountedReply]) {
    for ignored in new {
        let detail = format!("action {}: {}", ignored.action, ignored.why);
        audit::event("ReplyIgnored", pass.subject(), &detail);
        count(pass, ApprovalOutcome::Ignored);
        let note = format!(
            "a reply that looks like a decision does not count (action {}): {}",
            ignored.action, ignored.why
        );
        pass.event(EventType::Normal, Reason::ReplyIgnored, "Approve", &note)
            .await;
    }
    let Some(decision) = &outcome.decision else {
        return;
    };
    let Decision { by, action, .. } = decision;
    let (reason, decided) = match decision.approve {
        true => (Reason::Approved, ApprovalOutcome::Approved),
        false => (Reason::Denied, ApprovalOutcome::Denied),
    };
    count(pass, decided);
    let detail = format!(
        "request {}: technician {by}, action {action}, recognised by {}",
        request.number, decision.evidence
    );
    audit::event(reason.as_str(), pass.subject(), &detail);
    let note = format!(
        "technician {by} has {} {} steps (action {action})",
        decided.as_str(),
        request.steps.len()
    );
    pass.event(EventType::Normal, reason, "Approve", &note)
        .await;
}

/// Counts the result of a request, or a reply that does not count.
pub(super) fn count(pass: &Pass, outcome: ApprovalOutcome) {
    pass.ctx
        .metrics
        .approvals
        .get_or_create(&ApprovalLabels { outcome })
        .inc();
}

/// The ticket as HaloPSA has it now; none: it is no longer ours, and the Ticket ends.
async fn ours(
    pass: &mut Pass,
    halo: &halopsa::Client,
    client: &ImportedClient,
) -> Result<Option<types::Ticket>, Error> {
    let found = halo.find_ticket(pass.ticket.spec.ticket_id).await?;
    let halo_client_id = client.status.as_ref().and_then(|s| s.halo_client_id);
    // An ImportedClient that is not resolved owns no ticket, and HaloPSA has no client 0.
    let ownership = still_ours(found.as_ref(), halo_client_id.unwrap_or_default());
    match ownership.ignored() {
        None => Ok(found),
        Some(gone) => {
            pass.transition(&[gone]).await?;
            Ok(None)
        }
    }
}

/// Writes the reminder if it is due, or ends a ticket that is no longer ours.
pub(super) async fn remind(pass: &mut Pass, client: &ImportedClient) -> Result<(), Error> {
    let status = pass.status();
    let due = state::reminds_at(&status).is_some_and(|at| at <= Timestamp::now());
    let Some(request) = status.approval.as_ref().filter(|_| due) else {
        return Ok(());
    };
    let halo = pass.halo().await?;
    let Some(halo_ticket) = ours(pass, &halo, client).await? else {
        return Ok(());
    };
    let assigned = assigned_name(&halo_ticket, &agents(&halo).await);
    let ask = Ask {
        assigned: &assigned,
        until: &utc(request.expires_at.0),
        number: request.number,
        needs_code: approval::needs_code(request, &status.steps),
        ..Ask::default()
    };
    pass.post(&halo, &Tag::Reminder(request.number), |marker| {
        note::reminder_html(request.steps.len(), &ask, marker)
    })
    .await
}

/// Tells technicians why the next reply that was ignored does not count.
pub(super) async fn explain(pass: &mut Pass) -> Result<(), Error> {
    let status = pass.status();
    let (Some((tag, reply)), Some(request)) = (state::untold(&status), status.approval.as_ref())
    else {
        return Ok(());
    };
    let halo = pass.halo().await?;
    let found = halo.find_ticket(pass.ticket.spec.ticket_id).await?;
    let client = pass.client.as_ref().and_then(|c| c.status.as_ref());
    let halo_client_id = client.and_then(|s| s.halo_client_id).unwrap_or_default();
    let ownership = still_ours(found.as_ref(), halo_client_id);
    // A ticket that is no longer ours gets no note; reading its replies ends it.
    let Some(halo_ticket) = found.filter(|_| ownership == Ownership::Ours) else {
        return Ok(());
    };
    let technicians = agents(&halo).await;
    let also = named_approvers(request, &status, &technicians)
        .into_iter()
        .take(MAX_NAMES)
        .map(|id| agent_name(id, &technicians))
        .collect::<Vec<_>>()
        .join(", ");
    let ask = Ask {
        assigned: &assigned_name(&halo_ticket, &technicians),
        also: &also,
        number: request.number,
        needs_code: approval::needs_code(request, &status.steps),
        ..Ask::default()
    };
    pass.post(&halo, &tag, |marker| {
        note::uncounted_html(&reply.why, &ask, marker)
    })
    .await
}
