//! How long a finished Ticket is kept.

use super::{Error, Pass};
use crate::api::ticket::{Ticket, TicketStatus};
use crate::controller::context::jitter;
use crate::k8s;
use crate::ticket::state;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use kube::runtime::controller::Action;
use std::time::Duration;

/// How often a ticket of a suspended connection is reconciled, should nothing happen.
pub(super) const SUSPENDED: Duration = Duration::from_secs(60);

/// Deletes the Ticket once its time is over and it owes nothing.
pub(super) async fn keep(pass: &Pass) -> Result<Action, Error> {
    pass.ctx.polls.forget(&pass.key);
    let status = pass.status();
    let keep = Duration::from(pass.connection.spec.retention.finished);
    let left = keep.saturating_sub(age(&status, Timestamp::now()));
    if left.is_zero() && state::owed(&status).is_none() {
        delete(&pass.api, &pass.ticket).await?;
        return Ok(Action::await_change());
    }
    Ok(Action::requeue(jitter(left) + Duration::from_secs(1)))
}

/// How long it has been finished.
fn age(status: &TicketStatus, now: Timestamp) -> Duration {
    status
        .phase_since
        .as_ref()
        .and_then(|since| Duration::try_from(now.duration_since(since.0)).ok())
        .unwrap_or_default()
}

pub(super) async fn delete(api: &Api<Ticket>, ticket: &Ticket) -> Result<(), kube::Error> {
    match api
        .delete(&ticket.name_any(), &DeleteParams::background())
        .await
    {
        Err(error) if !k8s::is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}
