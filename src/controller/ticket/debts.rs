//! The notes a ticket owes to technicians, by its state: why nobody worked on it, the result of a
//! request, a challenge and its result.

use super::{Error, Pass, approval};
use crate::api::ticket::{ApprovalState, IntentKind, IntentState, StepState, TicketStatus};
use crate::halopsa;
use crate::halopsa::technicians::{agent_name, agents};
use crate::ids::TechnicianId;
use crate::metrics::ApprovalOutcome;
use crate::outbox;
use crate::ticket::marker::Tag;
use crate::ticket::note::{self, Decided};
use crate::ticket::state::{self, Event, Owed};
use crate::tools::write;

impl Pass {
    /// Writes the next note that is owed; the watch brings the Ticket back for the one after it.
    pub(super) async fn settle_debts(&mut self) -> Result<(), Error> {
        let owed = state::owed(&self.status());
        match owed {
            Some(Owed::FailureNote) => Box::pin(failure_note(self)).await,
            Some(Owed::DecisionNote) => Box::pin(decision_note(self)).await,
            Some(Owed::VerificationNote) => Box::pin(verification_note(self)).await,
            Some(Owed::ReplyNote) => Box::pin(approval::explain(self)).await,
            None => Ok(()),
        }
    }
}

/// Nobody worked on the ticket.
async fn failure_note(pass: &mut Pass) -> Result<(), Error> {
    let halo = pass.halo().await?;
    let status = pass.status();
    // An agent that died may have posted its plan last: then the plan is the note.
    if let Some(posted) = posted_plan(pass, &halo, &status).await? {
        return pass.transition(&[posted]).await;
    }
    let ticket_id = pass.ticket.spec.ticket_id;
    let done: Vec<note::Listed> = status
        .steps
        .iter()
        .filter(|s| {
            s.run == status.run
                && matches!(
                    s.state,
                    StepState::Done | StepState::Failed | StepState::Unknown
                )
        })
        .map(|s| write::listed(ticket_id, s))
        .collect();
    let reason = status.message.as_deref().unwrap_or("unknown");
    pass.post(&halo, &Tag::Failure, |marker| {
        note::failure_html(reason, &done, marker)
    })
    .await
}

/// The plan of this run that was about to be posted, if HaloPSA has it.
async fn posted_plan(
    pass: &Pass,
    halo: &halopsa::Client,
    status: &TicketStatus,
) -> Result<Option<Event>, Error> {
    let ticket_id = pass.ticket.spec.ticket_id;
    for plan in status.intents.iter().filter(|i| {
        i.run == status.run && i.kind == IntentKind::PlanNote && i.state == IntentState::Intended
    }) {
        let actions = halo.actions(ticket_id, outbox::SEARCH_DEPTH).await?;
        if let Some(action) = outbox::find(&actions, &plan.marker, pass.ourselves()) {
            return Ok(Some(Event::WritePosted {
                marker: plan.marker.clone(),
                action_id: Some(action.id),
            }));
        }
    }
    Ok(None)
}

/// The no was understood, or nobody answered.
async fn decision_note(pass: &mut Pass) -> Result<(), Error> {
    let status = pass.status();
    let Some(request) = &status.approval else {
        return Ok(());
    };
    let halo = pass.halo().await?;
    let by = name_of(request.decided_by, &halo).await;
    let decided = match request.state {
        ApprovalState::Expired => Decided::Expired,
        _ => Decided::Denied,
    };
    let ticket_id = pass.ticket.spec.ticket_id;
    let listed: Vec<note::Listed> = status
        .steps
        .iter()
        .filter(|s| request.steps.contains(&s.number))
        .map(|s| write::listed(ticket_id, s))
        .collect();
    pass.post(&halo, &Tag::Decision(request.number), |marker| {
        note::decision_html(decided, &by, &listed, marker)
    })
    .await?;
    if decided == Decided::Expired {
        approval::count(pass, ApprovalOutcome::Expired);
    }
    Ok(())
}

/// A challenge was sent, or its result is known.
async fn verification_note(pass: &mut Pass) -> Result<(), Error> {
    let status = pass.status();
    let Some(current) = &status.verification else {
        return Ok(());
    };
    let Some(tag) = state::verification_tags(current)
        .into_iter()
        .find(|tag| !state::posted(&status, tag))
    else {
        return Ok(());
    };
    let halo = pass.halo().await?;
    let by = name_of(current.decided_by, &halo).await;
    pass.post(&halo, &tag, |marker| match &tag {
        Tag::ChallengeSent(_) => note::challenge_html(
            current.method.as_deref().unwrap_or_default(),
            current.address.as_deref().unwrap_or_default(),
            &current.reasons,
            marker,
        ),
        _ => note::verification_html(
            current.state,
            status.message.as_deref().unwrap_or_default(),
            &current.reasons,
            &by,
            marker,
        ),
    })
    .await
}

/// The name of the technician who decided; empty: nobody did.
async fn name_of(decided_by: Option<TechnicianId>, halo: &halopsa::Client) -> String {
    match decided_by {
        Some(id) => agent_name(id, &agents(halo).await),
        None => String::new(),
    }
}
