//! Tickets whose requester has to prove who they are: the challenge, its outcome,
//! and what technicians may do about it.

use super::Error;
use crate::api::reason::Reason;
use crate::api::ticket::{ApprovalState, IntentKind, Ticket, VerificationState};
use crate::api::verification::FailurePolicy;
use crate::api::{HaloPSAConnection, ImportedClient, VerificationProvider};
use crate::audit::{self, Subject};
use crate::controller::context::Context;
use crate::failpoint;
use crate::halopsa::technicians::UNASSIGNED;
use crate::halopsa::technicians::agent_name;
use crate::halopsa::{self, types};
use crate::k8s::{reflect, tickets};
use crate::metrics::{ApprovalLabels, METRICS};
use crate::outbox::{self, Note};
use crate::policy::sensitivity::of_ticket;
use crate::text::pattern;
use crate::ticket::actor::Actor;
use crate::ticket::note;
use crate::ticket::state::{self, Event};
use crate::ticket::verification::{self, Ask};
use crate::verify::{self, Challenge, Provider, State};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::Api;
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use std::sync::Arc;
use std::time::Duration;

/// For this long after a refusal technicians' replies are read.
const LISTEN: SignedDuration = SignedDuration::from_hours(24);
const DEPTH: usize = 100;

/// The provider of a connection, if it names one.
pub fn provider_of(
    connection: &HaloPSAConnection,
    ctx: &Context,
) -> Option<Arc<VerificationProvider>> {
    let name = &connection.spec.sensitivity.provider_ref.as_ref()?.name;
    reflect::get(
        &ctx.stores.providers,
        &connection.namespace().unwrap_or_default(),
        name,
    )
}

/// Whether a ticket that was just received is sensitive: then its requester is asked first.
pub async fn started(
    ticket: &Ticket,
    connection: &HaloPSAConnection,
    ctx: &Context,
) -> Result<Option<Event>, Error> {
    if connection.spec.sensitivity.provider_ref.is_none() {
        return Ok(None);
    }
    let halo = ctx.halopsa.client(connection).await?;
    let found = match halo.ticket(ticket.spec.ticket_id).await {
        Ok(found) => found,
        // It is found out at the claim what it is.
        Err(halopsa::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let reasons = of_ticket(&found, &[], &connection.spec.sensitivity);
    if reasons.is_empty() {
        return Ok(None);
    }
    let status = ticket.status.clone().unwrap_or_default();
    if state::is_verified(&status, found.user_id, Timestamp::now()) {
        return Ok(None);
    }
    let timeout =
        provider_of(connection, ctx).map_or(Duration::from_secs(300), |p| p.spec.timeout.into());
    Ok(Some(verification::start(
        &status, connection, ticket, &reasons, timeout, None,
    )))
}

/// One look at a ticket whose requester is being asked. When to look again.
pub async fn poll(
    ticket: Ticket,
    connection: &HaloPSAConnection,
    client: &ImportedClient,
    api: &Api<Ticket>,
    ctx: &Context,
) -> Result<(Ticket, Duration), Error> {
    let namespace = ticket.namespace().unwrap_or_default();
    let Some(current) = ticket.status.as_ref().and_then(|s| s.verification.clone()) else {
        return Ok((ticket, Duration::from_secs(60)));
    };
    let Some(provider) = provider_of(connection, ctx) else {
        // It may still come; the deadline says so if it does not.
        return Ok((ticket, Duration::from_secs(5)));
    };
    let poll =
        Duration::from(provider.spec.poll).clamp(Duration::from_secs(1), Duration::from_secs(60));
    let valid_until = Timestamp::now()
        + SignedDuration::try_from(Duration::from(provider.spec.valid_for)).unwrap_or_default();
    let asked = async {
        let service = Provider::of(&ctx.kube, &provider).await?;
        match current.state {
            VerificationState::Sent => service
                .state(&current.challenge_id)
                .await
                .map(|state| (state, None)),
            _ => Ok((State::Pending, Some(service))),
        }
    };
    let (state, to_start) = match asked.await {
        Ok(asked) => asked,
        Err(error) => return down(&ticket, &provider, &error, valid_until, api, poll).await,
    };
    let (state, sent) = match to_start {
        None => (state, None),
        Some(service) => {
            let halo = ctx.halopsa.client(connection).await?;
            let user = match requester(&ticket, client, &halo).await? {
                Ok(user) => user,
                Err(why) => {
                    let event = Event::VerificationFailed {
                        challenge_id: current.challenge_id.clone(),
                        state: VerificationState::Failed,
                        message: why,
                    };
                    return Ok((
                        finish(&ticket, &[event], "failed", client, api, ctx).await?,
                        poll,
                    ));
                }
            };
            let challenge = Challenge {
                challenge_id: current.challenge_id.clone(),
                email: user.emailaddress.clone(),
                name: user.name.clone(),
                reason: "a sensitive service desk ticket".into(),
                expires_at: ticket
                    .status
                    .as_ref()
                    .and_then(|s| s.deadline.as_ref())
                    .map(|d| d.0.to_string())
                    .unwrap_or_default(),
                callback_url: format!(
                    "{}/verifications/{namespace}/{}",
                    connection.spec.webhook.url,
                    provider.name_any()
                ),
            };
            failpoint::hit(&namespace, "challenge.intended").await;
            let state = match service.start(&challenge).await {
                Ok(state) => state,
                Err(error) => {
                    return down(&ticket, &provider, &error, valid_until, api, poll).await;
                }
            };
            failpoint::hit(&namespace, "challenge.sent").await;
            let sent = Event::ChallengeSent {
                method: provider.spec.method().into(),
                user_id: user.id,
                address: verify::masked(&user.emailaddress),
            };
            (state, Some(sent))
        }
    };
    let id = current.challenge_id.clone();
    let failed = |state, message: &str| Event::VerificationFailed {
        challenge_id: id.clone(),
        state,
        message: message.into(),
    };
    let (answer, label) = match state {
        State::Pending => (None, ""),
        State::Verified => (
            Some(Event::Verified {
                challenge_id: id.clone(),
                valid_until,
            }),
            "verified",
        ),
        State::Denied => (
            Some(failed(
                VerificationState::Denied,
                "the requester denied that it was them; treat the ticket as an attack until you know better",
            )),
            "denied",
        ),
        State::Expired => (
            Some(failed(
                VerificationState::Expired,
                "the requester did not answer in time",
            )),
            "expired",
        ),
        State::Failed => (
            Some(failed(
                VerificationState::Failed,
                "the verification provider could not ask the requester; see its own log",
            )),
            "failed",
        ),
    };
    let events: Vec<Event> = sent.into_iter().chain(answer).collect();
    if events.is_empty() {
        return Ok((ticket, poll));
    }
    Ok((
        finish(&ticket, &events, label, client, api, ctx).await?,
        poll,
    ))
}

async fn finish(
    ticket: &Ticket,
    events: &[Event],
    label: &'static str,
    client: &ImportedClient,
    api: &Api<Ticket>,
    ctx: &Context,
) -> Result<Ticket, Error> {
    let stored = tickets::transition(api, ticket, events, Actor::Controller).await?;
    if !label.is_empty() {
        METRICS
            .verifications
            .get_or_create(&ApprovalLabels { outcome: label })
            .inc();
        let (namespace, name) = (ticket.namespace().unwrap_or_default(), ticket.name_any());
        audit::event(
            "Verification",
            Subject {
                namespace: &namespace,
                client: &client.name_any(),
                ticket: &name,
                by: Some(Actor::Controller),
            },
            label,
        );
        let type_ = if label == "verified" {
            EventType::Normal
        } else {
            EventType::Warning
        };
        ctx.event(
            &ticket.object_ref(&()),
            type_,
            Reason::Verification,
            "Verify",
            &format!("the requester's verification: {label}"),
        )
        .await;
    } else {
        METRICS
            .verifications
            .get_or_create(&ApprovalLabels { outcome: "sent" })
            .inc();
    }
    Ok(stored)
}

/// The provider cannot be asked: the ticket waits until its deadline, which decides.
async fn down(
    ticket: &Ticket,
    provider: &VerificationProvider,
    error: &verify::Error,
    valid_until: Timestamp,
    api: &Api<Ticket>,
    poll: Duration,
) -> Result<(Ticket, Duration), Error> {
    tracing::warn!(namespace = ticket.namespace(), ticket = ticket.name_any(), %error, "the verification provider cannot be asked; it is tried again until the deadline");
    let last = ticket
        .status
        .as_ref()
        .and_then(|s| s.deadline.as_ref())
        .is_some_and(|d| d.0 <= Timestamp::now() + SignedDuration::from_secs(2));
    if last && provider.spec.failure_policy == FailurePolicy::Ignore {
        let stored = tickets::transition(
            api,
            ticket,
            &[Event::VerificationSkipped { valid_until }],
            Actor::Controller,
        )
        .await?;
        return Ok((stored, poll));
    }
    Ok((ticket.clone(), poll.max(Duration::from_secs(1))))
}

/// The requester, from HaloPSA's records and never from ticket text; or why they cannot be asked.
async fn requester(
    ticket: &Ticket,
    client: &ImportedClient,
    halo: &halopsa::Client,
) -> Result<Result<types::User, String>, Error> {
    let found = match halo.ticket(ticket.spec.ticket_id).await {
        Err(halopsa::Error::NotFound { .. }) => {
            return Ok(Err("HaloPSA does not have the ticket any more".into()));
        }
        other => other?,
    };
    let Some(id) = found.user_id.filter(|id| *id > 0) else {
        return Ok(Err(
            "the ticket has no requester in HaloPSA; set its user, then reply \"verify again\""
                .into(),
        ));
    };
    let user = match halo.user(id).await {
        Err(halopsa::Error::NotFound { .. }) => {
            return Ok(Err("HaloPSA does not have the ticket's requester".into()));
        }
        other => other?,
    };
    Ok(
        if user.client_id.is_none()
            || user.client_id != client.status.as_ref().and_then(|s| s.halo_client_id)
        {
            Err("the ticket's requester is a user of another client".into())
        } else if user.inactive {
            Err("the ticket's requester is inactive in HaloPSA".into())
        } else if !verify::is_address(&user.emailaddress) {
            Err("HaloPSA has no usable e-mail address of the requester; enter it, then reply \"verify again\"".into())
        } else {
            Ok(user)
        },
    )
}

/// Reads what technicians say about a refused ticket, or one that waits: "verify again", or
/// the assigned agent's "override verification". None: it is not listened to any more.
pub async fn listen(
    ticket: Ticket,
    connection: &HaloPSAConnection,
    api: &Api<Ticket>,
    ctx: &Context,
) -> Result<(Ticket, Option<Duration>), Error> {
    let status = ticket.status.clone().unwrap_or_default();
    let Some(current) = &status.verification else {
        return Ok((ticket, None));
    };
    let age = Timestamp::now().duration_since(current.started_at.0);
    if current.state.passes() || age > LISTEN {
        return Ok((ticket, None));
    }
    let every = Duration::from(connection.spec.approvals.poll).max(Duration::from_secs(1))
        * if age > SignedDuration::from_mins(30) {
            30
        } else {
            1
        };
    if let Some(wait) = ctx.polls.wait(&ticket, every) {
        return Ok((ticket, Some(wait)));
    }
    let halo = ctx.halopsa.client(connection).await?;
    let mut actions = halo.replies(ticket.spec.ticket_id, DEPTH).await?;
    actions.reverse();
    let ourselves = connection
        .status
        .as_ref()
        .and_then(|s| s.api_agent.as_ref())
        .map(|a| a.id);
    let human = |a: &&types::Action| {
        let agent = a
            .who_agentid
            .filter(|id| *id > UNASSIGNED && a.who_type.is_none_or(|t| t == 1));
        agent.is_some()
            && agent != ourselves
            && !a.emaildirection.eq_ignore_ascii_case("i")
            && connection
                .spec
                .approvals
                .applications
                .iter()
                .any(|p| pattern::matches(p, &a.actionby_application_id))
    };
    // Only what was said since the challenge or its outcome, and not read before.
    let since = status.seen_action.unwrap_or_default();
    let from = status
        .phase_since
        .as_ref()
        .map_or(current.started_at.0, |t| t.0)
        - SignedDuration::from_secs(2);
    let fresh: Vec<&types::Action> = actions
        .iter()
        .filter(|a| a.id > since && a.datetime.is_none_or(|at| at >= from))
        .filter(human)
        .collect();
    let up_to = fresh.iter().map(|a| a.id).max();
    for action in fresh {
        let Some(wish) = verification::wish(&action.note_html, &action.note) else {
            continue;
        };
        let by = action.who_agentid.unwrap_or_default();
        let provider = provider_of(connection, ctx);
        let event = match wish {
            Ask::Again if status.phase == crate::api::Phase::Refused => {
                let timeout = provider.map_or(Duration::from_secs(300), |p| p.spec.timeout.into());
                let Event::VerificationStarted {
                    challenge_id,
                    deadline,
                    ..
                } = verification::start(&status, connection, &ticket, &[], timeout, None)
                else {
                    continue;
                };
                Event::VerifyAgain {
                    by,
                    action: action.id,
                    challenge_id,
                    deadline,
                }
            }
            Ask::Again => continue,
            Ask::Override => {
                let assigned = halo.ticket(ticket.spec.ticket_id).await?.agent_id;
                if assigned != Some(by) {
                    let note = format!(
                        "an override of the verification does not count (action {}): not by the ticket's assigned agent",
                        action.id
                    );
                    ctx.event(
                        &ticket.object_ref(&()),
                        EventType::Normal,
                        Reason::ReplyIgnored,
                        "Verify",
                        &note,
                    )
                    .await;
                    continue;
                }
                let valid_for =
                    provider.map_or(Duration::from_secs(8 * 3600), |p| p.spec.valid_for.into());
                let valid_until =
                    Timestamp::now() + SignedDuration::try_from(valid_for).unwrap_or_default();
                Event::VerificationOverridden {
                    by,
                    action: action.id,
                    valid_until,
                }
            }
        };
        let (namespace, name) = (ticket.namespace().unwrap_or_default(), ticket.name_any());
        audit::event(
            "Verification",
            Subject {
                namespace: &namespace,
                client: "",
                ticket: &name,
                by: Some(Actor::Controller),
            },
            &format!("{wish:?} by agent {by}, action {}", action.id),
        );
        return Ok((
            tickets::transition(api, &ticket, &[event], Actor::Controller).await?,
            Some(every),
        ));
    }
    let stored = match up_to {
        // Read once: what did not count is not said again.
        // A yes to a request that stands is read when the ticket waits for it again.
        Some(up_to) if !status.approval_is(ApprovalState::Requested) => {
            tickets::transition(
                api,
                &ticket,
                &[Event::RepliesSeen {
                    up_to,
                    assigned_agent: None,
                }],
                Actor::Controller,
            )
            .await?
        }
        _ => ticket,
    };
    Ok((stored, Some(every)))
}

/// Writes the next note that is due about the verification.
pub async fn post_note(
    ticket: &Ticket,
    connection: &HaloPSAConnection,
    api: &Api<Ticket>,
    ctx: &Context,
) -> Result<Ticket, Error> {
    let status = ticket.status.clone().unwrap_or_default();
    let Some(current) = &status.verification else {
        return Ok(ticket.clone());
    };
    let Some(tag) = state::verification_tags(current)
        .into_iter()
        .find(|tag| !state::posted(&status, tag))
    else {
        return Ok(ticket.clone());
    };
    let halo = ctx.halopsa.client(connection).await?;
    let by = match current.decided_by {
        Some(id) => agent_name(id, &crate::halopsa::technicians::agents(&halo).await),
        None => String::new(),
    };
    let uid = connection.metadata.uid.as_deref().unwrap_or_default();
    let marker = note::marker(uid, ticket.spec.ticket_id, status.run, &tag);
    let html = if tag.ends_with("sent") {
        note::challenge_html(
            current.method.as_deref().unwrap_or_default(),
            current.address.as_deref().unwrap_or_default(),
            &current.reasons,
            &marker,
        )
    } else {
        note::verification_html(
            current.state,
            status.message.as_deref().unwrap_or_default(),
            &current.reasons,
            &by,
            &marker,
        )
    };
    let note = Note {
        kind: IntentKind::VerificationNote,
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
    Ok(outbox::post_once(api, &halo, ticket, &note, &[]).await?)
}
