//! A Ticket's transitions, written so that two writers cannot both win.

use crate::api::ticket::{Ticket, TicketSpec, TicketStatus};
use crate::api::{CLIENT_LABEL, CONNECTION_LABEL, HaloPSAConnection};
use crate::ticket::actor::Actor;
use crate::ticket::state::{self, Event, Refused};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Resource, ResourceExt};
use std::time::Duration;

/// How often a write is tried on a Ticket that others keep writing.
const TRIES: u32 = 8;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("{}", super::explain(.0))]
    Kube(#[from] kube::Error),
    #[error("Ticket {0} was changed by others on every attempt; try again")]
    Contended(String),
}

/// Applies events to a Ticket and stores the result. Starts from `ticket` as it
/// was read; if someone wrote it in between, it is read again and the events
/// have to apply again.
pub async fn transition(
    api: &Api<Ticket>,
    ticket: &Ticket,
    events: &[Event],
    by: Actor<'_>,
) -> Result<Ticket, Error> {
    update(api, ticket, by, |status, now| {
        events.iter().try_fold(status.clone(), |status, event| {
            state::apply(&status, event, by, now)
        })
    })
    .await
}

/// Like [`transition`], with any pure function.
pub async fn update(
    api: &Api<Ticket>,
    ticket: &Ticket,
    by: Actor<'_>,
    change: impl Fn(&TicketStatus, Timestamp) -> Result<TicketStatus, Refused>,
) -> Result<Ticket, Error> {
    let params = PostParams {
        field_manager: Some(manager(by).into()),
        ..PostParams::default()
    };
    let mut current = ticket.clone();
    for attempt in 0..TRIES {
        let now = Timestamp::now();
        let before = current
            .status
            .clone()
            .unwrap_or_else(|| state::received(now));
        let mut after = change(&before, now)?;
        after.observed_generation = current.metadata.generation;
        if current.status.as_ref() == Some(&after) {
            return Ok(current);
        }
        current.status = Some(after);
        match api
            .replace_status(&current.name_any(), &params, &current)
            .await
        {
            Ok(stored) => return Ok(stored),
            Err(error) if super::is_conflict(&error) => {
                tokio::time::sleep(Duration::from_millis(
                    rand::random_range(1..20) << attempt.min(5),
                ))
                .await;
                current = api.get(&ticket.name_any()).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Contended(ticket.name_any()))
}

/// A Ticket as the receiver stores it: named after its HaloPSA ticket, owned by its connection.
pub fn object(name: &str, connection: &HaloPSAConnection, spec: TicketSpec) -> Ticket {
    let mut labels =
        std::collections::BTreeMap::from([(CONNECTION_LABEL.to_string(), connection.name_any())]);
    labels.extend(
        spec.client_ref
            .as_ref()
            .map(|c| (CLIENT_LABEL.to_string(), c.name.clone())),
    );
    let mut ticket = Ticket::new(name, spec);
    ticket.metadata.namespace = connection.namespace();
    ticket.metadata.labels = Some(labels);
    ticket.metadata.owner_references = connection.owner_ref(&()).map(|owner| vec![owner]);
    ticket
}

fn manager(by: Actor<'_>) -> &'static str {
    match by {
        Actor::Controller => super::names::CONTROLLER,
        Actor::Receiver => super::names::RECEIVER,
        // An agent's events are written by the gateway.
        Actor::Gateway | Actor::Agent(_) => super::names::GATEWAY,
    }
}
