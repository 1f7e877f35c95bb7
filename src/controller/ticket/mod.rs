//! The ticket's reconciler: moves tickets on when nobody else does.

pub mod approval;
pub mod verification;

use crate::api::condition;
use crate::api::reason::Reason;
use crate::api::ticket::{
    ApprovalState, IntentKind, IntentState, Phase, REOPEN_ANNOTATION, StepState, Ticket,
};
use crate::api::{HaloPSAConnection, ImportedClient, LocalRef};
use crate::controller::context::{Context, jitter};
use crate::k8s::{self, names, reflect, tickets};
use crate::outbox::{self, Note};
use crate::ticket::actor::Actor;
use crate::ticket::state::{self, Event, Owed};
use crate::ticket::{note, route};
use crate::tools::write;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", k8s::explain(.0))]
    Kube(#[from] kube::Error),
    #[error(transparent)]
    Ticket(#[from] tickets::Error),
    #[error(transparent)]
    Outbox(#[from] outbox::Error),
    #[error(transparent)]
    Tenant(#[from] crate::halopsa_pool::Error),
    #[error(transparent)]
    Halo(#[from] crate::halopsa::Error),
}

/// The open tickets of a client, when it resolves to another HaloPSA client or is (un)suspended.
pub fn of_client(context: Arc<Context>) -> impl Fn(Arc<ImportedClient>) -> Vec<ObjectRef<Ticket>> {
    let seen: Mutex<HashMap<(String, String), Option<i64>>> = Mutex::default();
    move |client| {
        let key = (client.namespace().unwrap_or_default(), client.name_any());
        let now = client.status.as_ref().and_then(|s| s.halo_client_id);
        if seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone(), now)
            == Some(now)
        {
            return Vec::new();
        }
        open_tickets(&context, &key.0, |t| {
            t.spec.client_ref.as_ref().is_some_and(|c| c.name == key.1)
        })
    }
}

/// The open tickets of a connection, when it changes.
pub fn of_connection(
    context: Arc<Context>,
) -> impl Fn(Arc<HaloPSAConnection>) -> Vec<ObjectRef<Ticket>> {
    let seen: Mutex<HashMap<(String, String), (Option<i64>, bool)>> = Mutex::default();
    move |connection| {
        let key = (
            connection.namespace().unwrap_or_default(),
            connection.name_any(),
        );
        let ready = connection
            .status
            .as_ref()
            .is_some_and(|s| condition::is_true(&s.conditions, condition::READY));
        let now = (connection.metadata.generation, ready);
        if seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone(), now)
            == Some(now)
        {
            return Vec::new();
        }
        open_tickets(&context, &key.0, |t| t.spec.connection_ref.name == key.1)
    }
}

fn open_tickets(
    context: &Context,
    namespace: &str,
    which: impl Fn(&Ticket) -> bool,
) -> Vec<ObjectRef<Ticket>> {
    let open = |t: &Ticket| {
        t.namespace().as_deref() == Some(namespace)
            && which(t)
            && t.status
                .as_ref()
                .is_none_or(|s| !s.phase.is_terminal() || state::owed(s).is_some())
    };
    context
        .stores
        .tickets
        .state_filter(open)
        .iter()
        .map(|t| ObjectRef::from_obj(&**t))
        .collect()
}

/// What the cluster knows that matters to a ticket.
pub struct Facts<'a> {
    pub connection: &'a HaloPSAConnection,
    pub client: Option<&'a ImportedClient>,
}

/// The next step of a ticket that is due without anybody's doing: pure.
pub fn decide(ticket: &Ticket, facts: &Facts<'_>, now: Timestamp) -> Option<Event> {
    let status = ticket.status.clone().unwrap_or_default();
    if status.phase.is_terminal() {
        let request = ticket.annotations().get(REOPEN_ANNOTATION)?;
        return (status.reopened.as_ref() != Some(request)).then(|| Event::Reopened {
            request: request.chars().take(100).collect(),
        });
    }
    if ticket.spec.closed {
        return Some(Event::Ignored {
            reason: Reason::Closed,
            message: "the ticket was closed or deleted in HaloPSA".into(),
        });
    }
    let Some(client) = facts.client else {
        return Some(Event::Ignored {
            reason: Reason::ClientNotImported,
            message: "its ImportedClient is gone; import the client to have its tickets handled"
                .into(),
        });
    };
    let resolved = client.status.as_ref().and_then(|s| s.halo_client_id);
    if let (Some(now), Some(own)) = (ticket.spec.halo_client_id, resolved)
        && now != own
    {
        return Some(Event::Ignored {
            reason: Reason::Moved,
            message: format!(
                "the ticket was moved to HaloPSA client {now}; its agent, if imported, takes it from there"
            ),
        });
    }
    if facts.connection.spec.suspend {
        return None;
    }
    if let Some(event) = state::due(&status, now) {
        return Some(event);
    }
    (status.phase == Phase::Received).then_some(Event::Accepted)
}

/// The parts that talk to HaloPSA are boxed: their futures are large, and many reconciles share a worker's stack.
pub async fn reconcile(ticket: Arc<Ticket>, ctx: Arc<Context>) -> Result<Action, Error> {
    ctx.stores.filled().await;
    let (namespace, name) = (ticket.namespace().unwrap_or_default(), ticket.name_any());
    if ticket.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let api: Api<Ticket> = Api::namespaced(ctx.kube.clone(), &namespace);
    let Some(connection) = reflect::get(
        &ctx.stores.connections,
        &namespace,
        &ticket.spec.connection_ref.name,
    ) else {
        // Owned by its connection, it goes with it.
        return Ok(Action::requeue(jitter(Duration::from_secs(60))));
    };
    let Some(client_ref) = &ticket.spec.client_ref else {
        return route_ticket(&ticket, &connection, &api, &ctx).await;
    };
    let client = reflect::get(&ctx.stores.clients, &namespace, &client_ref.name);
    let facts = Facts {
        connection: &connection,
        client: client.as_deref(),
    };
    let mut current = (*ticket).clone();
    let mut changed = false;
    // A few steps may follow each other, from stored to waiting for an agent.
    for _ in 0..4 {
        let Some(mut event) = decide(&current, &facts, Timestamp::now()) else {
            break;
        };
        if event == Event::Accepted
            && let Some(first) =
                Box::pin(verification::started(&current, &connection, &ctx)).await?
        {
            event = first;
        }
        current = match tickets::transition(
            &api,
            &current,
            std::slice::from_ref(&event),
            Actor::Controller,
        )
        .await
        {
            // Somebody else moved it on; the watch brings the news.
            Err(tickets::Error::Refused(_)) => {
                return Ok(Action::requeue(Duration::from_secs(1)));
            }
            other => other?,
        };
        changed = true;
    }
    let status = current.status.clone().unwrap_or_default();
    if changed && status.phase.is_terminal() {
        let type_ = if status.phase == Phase::Failed {
            EventType::Warning
        } else {
            EventType::Normal
        };
        let (reason, message) = (
            status.reason.as_deref().unwrap_or("Finished"),
            status.message.as_deref().unwrap_or_default(),
        );
        ctx.event_as(&current.object_ref(&()), type_, reason, "Finish", message)
            .await;
    }
    let mut look_again = None;
    if !connection.spec.suspend {
        match state::owed(&status) {
            Some(Owed::FailureNote) => {
                current = Box::pin(post_failure_note(&current, &connection, &api, &ctx)).await?
            }
            Some(Owed::DecisionNote) => {
                current =
                    Box::pin(approval::post_decision(&current, &connection, &api, &ctx)).await?
            }
            Some(Owed::VerificationNote) => {
                current =
                    Box::pin(verification::post_note(&current, &connection, &api, &ctx)).await?
            }
            None => {}
        }
        let phase = current.status.as_ref().map(|s| s.phase).unwrap_or_default();
        if matches!(phase, Phase::Verifying | Phase::Refused)
            && let Some(client) = client.as_deref()
        {
            let moved = |error| match error {
                Error::Ticket(tickets::Error::Refused(_)) => Ok(()),
                error => Err(error),
            };
            match Box::pin(verification::listen(
                current.clone(),
                &connection,
                &api,
                &ctx,
            ))
            .await
            {
                Ok((heard, again)) => (current, look_again) = (heard, again),
                Err(error) => moved(error)?,
            }
            if current
                .status
                .as_ref()
                .is_some_and(|s| s.phase == Phase::Verifying)
            {
                match Box::pin(verification::poll(
                    current.clone(),
                    &connection,
                    client,
                    &api,
                    &ctx,
                ))
                .await
                {
                    Ok((looked, again)) => {
                        (current, look_again) =
                            (looked, Some(look_again.map_or(again, |l| l.min(again))))
                    }
                    // Somebody else moved it on; the watch brings the news.
                    Err(error) => {
                        moved(error)?;
                        return Ok(Action::requeue(Duration::from_secs(1)));
                    }
                }
            }
        }
        if status.phase == Phase::AwaitingApproval
            && status.approval_is(ApprovalState::Requested)
            && let Some(client) = client.as_deref()
        {
            current = Box::pin(approval::remind(current, &connection, &api, &ctx)).await?;
            let (looked, again) =
                match Box::pin(approval::poll(current, &connection, client, &api, &ctx)).await {
                    // Somebody else moved it on; the watch brings the news.
                    Err(Error::Ticket(tickets::Error::Refused(_))) => {
                        return Ok(Action::requeue(Duration::from_secs(1)));
                    }
                    other => other?,
                };
            current = looked;
            look_again = Some(again);
        }
    }
    ctx.backoff
        .reset(&(namespace.clone(), name.clone(), "ticket"));
    let status = current.status.unwrap_or_default();
    let now = Timestamp::now();
    if status.phase.is_terminal() {
        if let Some(again) = look_again {
            // Refused: technicians may still have the requester asked again.
            return Ok(Action::requeue(again + Duration::from_millis(50)));
        }
        ctx.polls.forget(&namespace, &name);
        let keep = Duration::from(connection.spec.retention.finished);
        let age = status
            .phase_since
            .as_ref()
            .and_then(|s| Duration::try_from(now.duration_since(s.0)).ok())
            .unwrap_or_default();
        if age >= keep && state::owed(&status_or_default(&ticket)).is_none() {
            delete(&api, &ticket).await?;
            return Ok(Action::await_change());
        }
        return Ok(Action::requeue(
            jitter(keep.saturating_sub(age)) + Duration::from_secs(1),
        ));
    }
    let wait = state::wakes_at(&status)
        .and_then(|at| Duration::try_from(at.duration_since(now)).ok())
        .unwrap_or_default();
    let wait = wait + Duration::from_millis(500);
    // Owed, but not written while the connection is suspended: the connection's change wakes it.
    Ok(Action::requeue(
        look_again
            .filter(|_| matches!(status.phase, Phase::AwaitingApproval | Phase::Verifying))
            .map_or(wait, |again| wait.min(again + Duration::from_millis(50))),
    ))
}

fn status_or_default(ticket: &Ticket) -> crate::api::TicketStatus {
    ticket.status.clone().unwrap_or_default()
}

pub fn error_policy(ticket: Arc<Ticket>, error: &Error, ctx: Arc<Context>) -> Action {
    let (namespace, name) = (ticket.namespace().unwrap_or_default(), ticket.name_any());
    if let Error::Outbox(outbox::Error::Unsettled(wait)) = error {
        return Action::requeue(*wait + Duration::from_secs(1));
    }
    tracing::warn!(kind = "Ticket", %namespace, %name, %error, "reconciling failed, it is tried again");
    Action::requeue(ctx.backoff.next((namespace, name, "ticket")))
}

/// Tells the technicians that nobody worked on the ticket.
async fn post_failure_note(
    ticket: &Ticket,
    connection: &HaloPSAConnection,
    api: &Api<Ticket>,
    ctx: &Context,
) -> Result<Ticket, Error> {
    let halo = ctx.halopsa.client(connection).await?;
    let status = ticket.status.clone().unwrap_or_default();
    let api_agent = connection
        .status
        .as_ref()
        .and_then(|s| s.api_agent.as_ref())
        .map(|a| a.id);
    // An agent that died may have posted its plan with its last breath: then that is the note.
    for plan in status.intents.iter().filter(|i| {
        i.run == status.run && i.kind == IntentKind::PlanNote && i.state == IntentState::Intended
    }) {
        let actions = halo.actions(ticket.spec.ticket_id, 100).await?;
        if let Some(action) = outbox::find(&actions, &plan.marker, api_agent) {
            let event = Event::WritePosted {
                marker: plan.marker.clone(),
                action_id: Some(action.id),
            };
            return Ok(tickets::transition(api, ticket, &[event], Actor::Controller).await?);
        }
    }
    let uid = connection.metadata.uid.as_deref().unwrap_or_default();
    let marker = note::marker(uid, ticket.spec.ticket_id, status.run, note::FAILURE);
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
        .map(|s| write::listed(ticket.spec.ticket_id, s))
        .collect();
    let html = note::failure_html(
        status.message.as_deref().unwrap_or("unknown"),
        &done,
        &marker,
    );
    let note = Note {
        kind: IntentKind::FailureNote,
        marker: &marker,
        html: &html,
        outcome: &connection.spec.notes,
        api_agent,
        by: Actor::Controller,
        settle: ctx.options.settle,
        max_wait: Duration::ZERO,
    };
    Ok(outbox::post_once(api, &halo, ticket, &note, &[]).await?)
}

/// A webhook without a client: HaloPSA is asked whose ticket it is, and the
/// Ticket is stored anew under that client.
async fn route_ticket(
    ticket: &Ticket,
    connection: &HaloPSAConnection,
    api: &Api<Ticket>,
    ctx: &Context,
) -> Result<Action, Error> {
    if connection.spec.suspend {
        return Ok(Action::requeue(jitter(Duration::from_secs(60))));
    }
    let halo = ctx.halopsa.client(connection).await?;
    let found = match halo.ticket(ticket.spec.ticket_id).await {
        Ok(found) => Some(found),
        Err(crate::halopsa::Error::NotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let open = found.filter(|t| !t.hasbeenclosed);
    let namespace = ticket.namespace().unwrap_or_default();
    let client = open
        .as_ref()
        .and_then(|t| client_for(ctx, &namespace, &connection.name_any(), t.client_id?));
    if let (Some(halo_ticket), Some(client)) = (open, client) {
        store(api, connection, &client, &halo_ticket, ticket.spec.source).await?;
    }
    delete(api, ticket).await?;
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

/// Stores a Ticket for a ticket that HaloPSA was asked about.
pub async fn store(
    api: &Api<Ticket>,
    connection: &HaloPSAConnection,
    client: &ImportedClient,
    halo_ticket: &crate::halopsa::types::Ticket,
    source: crate::api::ticket::Source,
) -> Result<(), kube::Error> {
    let spec = crate::api::TicketSpec {
        connection_ref: LocalRef {
            name: connection.name_any(),
        },
        client_ref: Some(LocalRef {
            name: client.name_any(),
        }),
        ticket_id: halo_ticket.id,
        halo_client_id: halo_ticket.client_id,
        subject: (!connection.spec.privacy.hide_subjects)
            .then(|| crate::text::one_line(&halo_ticket.summary, 200)),
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

async fn delete(api: &Api<Ticket>, ticket: &Ticket) -> Result<(), kube::Error> {
    match api
        .delete(&ticket.name_any(), &DeleteParams::background())
        .await
    {
        Err(error) if !k8s::is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TicketSpec;
    use crate::api::client::ImportedClientStatus;

    #[test]
    fn decisions() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut connection = HaloPSAConnection::new("halo", Default::default());
        let mut client = ImportedClient::new("acme", Default::default());
        client.status = Some(ImportedClientStatus {
            halo_client_id: Some(12),
            ..Default::default()
        });
        let mut ticket = Ticket::new(
            "acme-1",
            TicketSpec {
                ticket_id: 1,
                halo_client_id: Some(12),
                ..TicketSpec::default()
            },
        );
        ticket.status = Some(state::received(now));
        let reason = |event: Option<Event>| match event {
            Some(Event::Ignored { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        let facts = Facts {
            connection: &connection,
            client: Some(&client),
        };
        assert_eq!(decide(&ticket, &facts, now), Some(Event::Accepted));
        assert_eq!(
            reason(decide(
                &ticket,
                &Facts {
                    connection: &connection,
                    client: None
                },
                now
            )),
            Reason::ClientNotImported
        );
        let mut moved = ticket.clone();
        moved.spec.halo_client_id = Some(13);
        assert_eq!(reason(decide(&moved, &facts, now)), Reason::Moved);
        let mut closed = ticket.clone();
        closed.spec.closed = true;
        assert_eq!(reason(decide(&closed, &facts, now)), Reason::Closed);

        let mut done = ticket.clone();
        done.status.as_mut().unwrap().phase = Phase::Done;
        assert_eq!(decide(&done, &facts, now), None);
        done.annotations_mut()
            .insert(REOPEN_ANNOTATION.into(), "1".into());
        assert_eq!(
            decide(&done, &facts, now),
            Some(Event::Reopened {
                request: "1".into()
            })
        );
        done.status.as_mut().unwrap().reopened = Some("1".into());
        assert_eq!(decide(&done, &facts, now), None);

        connection.spec.suspend = true;
        let facts = Facts {
            connection: &connection,
            client: Some(&client),
        };
        assert_eq!(
            decide(&ticket, &facts, now),
            None,
            "suspended: nothing starts"
        );
        assert_eq!(
            reason(decide(&moved, &facts, now)),
            Reason::Moved,
            "but what is over is over"
        );
    }
}
