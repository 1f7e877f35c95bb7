//! Tickets whose client is not known yet: HaloPSA is asked whose they are.

use super::{Error, retention};
use crate::api::ticket::{Source, Ticket};
use crate::api::{HaloPSAConnection, ImportedClient, LocalRef, TicketSpec};
use crate::controller::context::{Context, jitter};
use crate::halopsa::types;
use crate::k8s::{names, reflect, tickets};
use crate::text::one_line;
use crate::ticket::route;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use std::sync::Arc;
use std::time::Duration;

/// Replaces a Ticket without a client by one for the client HaloPSA names, if it is imported.
pub(super) async fn route(
    ticket: &Ticket,
    connection: &HaloPSAConnection,
    api: &Api<Ticket>,
    ctx: &Context,
) -> Result<Action, Error> {
    if connection.spec.suspend {
        return Ok(Action::requeue(jitter(Duration::from_secs(60))));
    }
    let halo = ctx.halopsa.client(connection).await?;
    let found = halo.find_ticket(ticket.spec.ticket_id).await?;
    let open = found.filter(|t| !t.hasbeenclosed);
    let namespace = ticket.namespace().unwrap_or_default();
    let client = open
        .as_ref()
        .and_then(|t| client_for(ctx, &namespace, &connection.name_any(), t.client_id?));
    if let (Some(halo_ticket), Some(client)) = (open, client) {
        store(api, connection, &client, &halo_ticket, ticket.spec.source).await?;
    }
    retention::delete(api, ticket).await?;
    Ok(Action::await_change())
}

/// The imported client for a HaloPSA client, if it takes tickets.
pub fn client_for(
    ctx: &Context,
    namespace: &str,
    connection: &str,
    halo_client_id: i64,
) -> Option<Arc<ImportedClient>> {
    let entry = ctx
        .clients
        .find(namespace, connection, halo_client_id)
        .filter(|c| !c.suspended)?;
    reflect::get(&ctx.stores.clients, namespace, &entry.name)
}

/// Stores a Ticket for a ticket that was read from HaloPSA.
pub async fn store(
    api: &Api<Ticket>,
    connection: &HaloPSAConnection,
    client: &ImportedClient,
    halo_ticket: &types::Ticket,
    source: Source,
) -> Result<(), kube::Error> {
    let spec = TicketSpec {
        connection_ref: LocalRef {
            name: connection.name_any(),
        },
        client_ref: Some(LocalRef {
            name: client.name_any(),
        }),
        ticket_id: halo_ticket.id,
        halo_client_id: halo_ticket.client_id,
        subject: (!connection.spec.privacy.hide_subjects)
            .then(|| one_line(&halo_ticket.summary, 200)),
        closed: false,
        source,
    };
    let name = route::ticket_name(&client.slug(), halo_ticket.id);
    let object = tickets::object(&name, connection, spec);
    api.patch(
        &name,
        &PatchParams::apply(names::RECEIVER).force(),
        &Patch::Apply(&object),
    )
    .await?;
    Ok(())
}
