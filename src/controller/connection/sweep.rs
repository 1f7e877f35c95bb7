//! Tickets whose webhook never came, and finished Tickets beyond what is kept.
//!
//! Every few minutes HaloPSA is asked for the open tickets changed since the
//! last time, a little overlapped. One that no Ticket stands for, and that is
//! younger than the connection, is stored as if its webhook had come now.

use crate::api::HaloPSAConnection;
use crate::api::reason::Reason;
use crate::api::ticket::{Source, Ticket};
use crate::controller::context::Context;
use crate::controller::ticket;
use crate::halopsa;
use futures::TryStreamExt;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Api, DeleteParams};
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// HaloPSA's clock may differ, and its reads lag.
const OVERLAP: SignedDuration = SignedDuration::from_secs(120);
/// How far back the first sweep after a start looks.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(24);
/// A ticket gets this long for its webhook to come.
const GRACE: SignedDuration = SignedDuration::from_secs(30);

/// Up to when each connection has been swept. Kept in memory: a restart looks a
/// day back and finds nothing new, and no object is written to remember it.
#[derive(Debug, Default)]
pub struct Sweeps(Mutex<HashMap<(String, String), Timestamp>>);

impl Sweeps {
    fn last(&self, key: &(String, String)) -> Option<Timestamp> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .copied()
    }

    fn done(&self, key: (String, String), at: Timestamp) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, at);
    }
}

pub async fn sweep_if_due(
    connection: &HaloPSAConnection,
    halo: &halopsa::Client,
    ctx: &Context,
) -> Result<Result<(), halopsa::Error>, super::Error> {
    let (namespace, name) = (
        connection.namespace().unwrap_or_default(),
        connection.name_any(),
    );
    let key = (namespace.clone(), name.clone());
    let now = Timestamp::now();
    let last = ctx.sweeps.last(&key);
    let interval = SignedDuration::try_from(ctx.options.sweep).unwrap_or(SignedDuration::ZERO);
    if last.is_some_and(|at| now.duration_since(at) < interval - SignedDuration::from_secs(1)) {
        return Ok(Ok(()));
    }
    let born = connection
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(now, |t| t.0);
    let since = last.map_or(born.max(now - LOOK_BACK), |at| at - OVERLAP);
    let api: Api<Ticket> = Api::namespaced(ctx.kube.clone(), &namespace);
    let mut late = Vec::new();
    let mut pages = std::pin::pin!(halo.tickets_changed_since(since));
    let read = loop {
        let changed = match pages.try_next().await {
            Ok(Some(changed)) => changed,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        for halo_ticket in changed {
            let known = !ctx
                .index
                .of_halo_ticket(&namespace, &name, halo_ticket.id)
                .is_empty();
            if known || !is_late(&halo_ticket, born, now) {
                continue;
            }
            let Some(client) = halo_ticket
                .client_id
                .and_then(|id| ticket::client_for(ctx, &namespace, &name, id))
            else {
                continue;
            };
            ticket::store(&api, connection, &client, &halo_ticket, Source::Sweep).await?;
            late.push(halo_ticket.id);
        }
    };
    if !late.is_empty() {
        let note = format!(
            "{} tickets came without a webhook and are handled now; look at the webhook's Deliveries in HaloPSA",
            late.len()
        );
        tracing::warn!(%namespace, connection = %name, count = late.len(), "tickets without a webhook");
        ctx.event(
            &connection.object_ref(&()),
            EventType::Warning,
            Reason::WebhooksMissed,
            "Sweep",
            &note,
        )
        .await;
    }
    // What came before a page that failed is stored, and was said; the rest comes with the next sweep.
    if read.is_err() {
        return Ok(read);
    }
    prune(connection, &api, ctx).await?;
    ctx.sweeps.done(key, now);
    Ok(Ok(()))
}

/// A ticket made since the connection, open, and old enough for its webhook to have come.
fn is_late(ticket: &halopsa::types::Ticket, born: Timestamp, now: Timestamp) -> bool {
    let Some(made) = ticket.dateoccurred else {
        return false;
    };
    !ticket.hasbeenclosed && made >= born && now.duration_since(made) >= GRACE
}

/// Deletes the oldest finished Tickets beyond `spec.retention.maxFinished`.
async fn prune(
    connection: &HaloPSAConnection,
    api: &Api<Ticket>,
    ctx: &Context,
) -> Result<(), kube::Error> {
    let keep = connection.spec.retention.max_finished as usize;
    let finished = |t: &Ticket| {
        t.namespace() == connection.namespace()
            && t.spec.connection_ref.name == connection.name_any()
            && t.status
                .as_ref()
                .is_some_and(|s| s.phase.is_terminal() && crate::ticket::state::owed(s).is_none())
    };
    let mut finished: Vec<Arc<Ticket>> = ctx.stores.tickets.state_filter(finished);
    if finished.len() <= keep {
        return Ok(());
    }
    finished.sort_by_key(|t| {
        std::cmp::Reverse(
            t.status
                .as_ref()
                .and_then(|s| s.phase_since.as_ref())
                .map(|t| t.0),
        )
    });
    for ticket in finished.drain(keep..) {
        match api
            .delete(&ticket.name_any(), &DeleteParams::background())
            .await
        {
            Err(error) if !crate::k8s::is_not_found(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_open_tickets_are_late() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let ticket = |made: i64, closed| halopsa::types::Ticket {
            dateoccurred: Some(at(made)),
            hasbeenclosed: closed,
            ..Default::default()
        };
        assert!(is_late(&ticket(1000, false), at(900), at(2000)));
        assert!(!is_late(&ticket(1000, true), at(900), at(2000)), "closed");
        assert!(
            !is_late(&ticket(800, false), at(900), at(2000)),
            "older than the connection"
        );
        assert!(
            !is_late(&ticket(1990, false), at(900), at(2000)),
            "its webhook may still come"
        );
    }
}
