//! Finds tickets whose webhook was never received; deletes finished Tickets beyond what is kept.
//!
//! Every few minutes HaloPSA is asked for the open tickets that changed since the last sweep, with
//! an overlap. A ticket without a Ticket resource that is younger than the connection is stored as
//! if its webhook had just been received.

use super::Failure;
use crate::api::HaloPSAConnection;
use crate::api::reason::Reason;
use crate::api::ticket::{Source, Ticket};
use crate::controller::context::Context;
use crate::controller::ticket::{client_for, store};
use crate::halopsa;
use crate::k8s::key::Key;
use futures::TryStreamExt;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Api, DeleteParams};
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use std::ops::Range;
use std::sync::Arc;

/// HaloPSA's clock may differ, and its reads lag behind its writes.
const OVERLAP: SignedDuration = SignedDuration::from_secs(120);
/// How far back the first sweep after a start looks.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(24);
/// How long a ticket's webhook may take.
const GRACE: SignedDuration = SignedDuration::from_secs(30);

pub async fn sweep_if_due(
    connection: &HaloPSAConnection,
    halo: &halopsa::Client,
    ctx: &Context,
) -> Result<(), Failure> {
    let key = Key::of(connection);
    let now = Timestamp::now();
    let last = ctx.sweeps.get(&key);
    let interval = SignedDuration::try_from(ctx.options.sweep).unwrap_or(SignedDuration::ZERO);
    if last.is_some_and(|at| now.duration_since(at) < interval - SignedDuration::from_secs(1)) {
        return Ok(());
    }
    let born = born(connection, now);
    let since = last.map_or(born.max(now - LOOK_BACK), |at| at - OVERLAP);
    let api: Api<Ticket> = Api::namespaced(ctx.kube.clone(), &key.namespace);
    let mut late = 0;
    let read = store_late(connection, halo, since..now, &api, &mut late, ctx).await;
    if late > 0 {
        announce(connection, late, ctx).await;
    }
    // What came before a page that failed is stored and was announced; the rest comes with the
    // next sweep.
    read?;
    prune(connection, &api, ctx).await?;
    ctx.sweeps.set(key, now);
    Ok(())
}

/// Stores the tickets changed in this time whose webhook should have been received by now.
async fn store_late(
    connection: &HaloPSAConnection,
    halo: &halopsa::Client,
    time: Range<Timestamp>,
    api: &Api<Ticket>,
    late: &mut usize,
    ctx: &Context,
) -> Result<(), Failure> {
    let Key { namespace, name } = Key::of(connection);
    let born = born(connection, time.end);
    let mut pages = std::pin::pin!(halo.tickets_changed_since(time.start));
    while let Some(changed) = pages.try_next().await? {
        for halo_ticket in changed {
            let stored = ctx.index.of_halo_ticket(&namespace, &name, halo_ticket.id);
            if !stored.is_empty() || !is_late(&halo_ticket, born, time.end) {
                continue;
            }
            let client = halo_ticket.client_id;
            let Some(client) = client.and_then(|id| client_for(ctx, &namespace, &name, id)) else {
                continue;
            };
            store(api, connection, &client, &halo_ticket, Source::Sweep).await?;
            *late += 1;
        }
    }
    Ok(())
}

async fn announce(connection: &HaloPSAConnection, late: usize, ctx: &Context) {
    let note = format!(
        "picked up {late} tickets whose webhook was never received; check the webhook's \
         Deliveries tab in HaloPSA"
    );
    let key = Key::of(connection);
    tracing::warn!(namespace = key.namespace, connection = key.name, "{note}");
    ctx.event(
        &connection.object_ref(&()),
        EventType::Warning,
        Reason::WebhooksMissed,
        "Sweep",
        &note,
    )
    .await;
}

/// Older tickets were there before the connection, and are not its work.
fn born(connection: &HaloPSAConnection, now: Timestamp) -> Timestamp {
    let created = connection.metadata.creation_timestamp.as_ref();
    created.map_or(now, |t| t.0)
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
