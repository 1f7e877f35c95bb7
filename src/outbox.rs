//! Notes that have to be posted once, whatever crashes in between.
//!
//! 1. The intent, with the note's marker, is stored on the Ticket.
//! 2. The ticket's actions are searched for the marker.
//! 3. Only if it is not there the note is posted.
//! 4. The outcome is stored, in one write with the transition it leads to.
//!
//! An intent that is found stored already may have been sent by a process that
//! died. HaloPSA shows a write late, so in that case one look proves nothing: the
//! search is repeated until the settle time has passed since the intent.

use crate::api::connection::Notes;
use crate::api::ticket::{IntentKind, IntentState, Ticket};
use crate::failpoint;
use crate::halopsa::{self, types::Action};
use crate::k8s::tickets;
use crate::ticket::actor::Actor;
use crate::ticket::state::{Event, Refused};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Api, ResourceExt};
use std::time::Duration;

/// Actions searched for a marker, newest first.
const SEARCH_DEPTH: usize = 100;
const SEARCH_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Halo(#[from] halopsa::Error),
    #[error(transparent)]
    Ticket(#[from] tickets::Error),
    #[error("whether HaloPSA has the note is not known yet; looking again in {} s", .0.as_secs())]
    Unsettled(Duration),
}

/// A note to post.
pub struct Note<'a> {
    pub kind: IntentKind,
    pub marker: &'a str,
    pub html: &'a str,
    pub outcome: &'a Notes,
    /// The HaloPSA agent we act as: a marker in somebody else's words does not count.
    pub api_agent: Option<i64>,
    pub by: Actor<'a>,
    /// How late HaloPSA may show a write.
    pub settle: Duration,
    /// The longest this call may wait for the settle time.
    pub max_wait: Duration,
}

/// Posts the note unless HaloPSA has it, and applies `then` with the outcome.
pub async fn post_once(
    api: &Api<Ticket>,
    halo: &halopsa::Client,
    ticket: &Ticket,
    note: &Note<'_>,
    then: &[Event],
) -> Result<Ticket, Error> {
    let known = ticket
        .status
        .as_ref()
        .and_then(|s| s.intents.iter().find(|i| i.marker == note.marker));
    let intended = Event::WriteIntended {
        kind: note.kind,
        marker: note.marker.into(),
    };
    let ticket = match known {
        Some(known) if known.state == IntentState::Posted => {
            return Ok(if then.is_empty() {
                ticket.clone()
            } else {
                tickets::transition(api, ticket, then, note.by).await?
            });
        }
        Some(known) => {
            let settles_at =
                known.recorded_at.0 + SignedDuration::try_from(note.settle).unwrap_or_default();
            if let Some(action) = search_until(halo, ticket, note, settles_at).await? {
                return Ok(
                    tickets::transition(api, ticket, &posted(note, action, then), note.by).await?,
                );
            }
            // It never arrived. This is a new attempt, with a settle time of its own.
            tickets::transition(
                api,
                ticket,
                &[
                    Event::WriteRefused {
                        marker: note.marker.into(),
                    },
                    intended,
                ],
                note.by,
            )
            .await?
        }
        None => match tickets::transition(api, ticket, &[intended], note.by).await {
            Err(tickets::Error::Refused(Refused::AlreadyIntended)) => {
                return Err(Error::Unsettled(note.settle));
            }
            other => other?,
        },
    };
    failpoint::hit(&ticket.namespace().unwrap_or_default(), "outbox.intended").await;
    // Half of the settle time for sending leaves the other half for HaloPSA to show it.
    let sent = tokio::time::timeout(note.settle / 2, search_and_post(halo, &ticket, note)).await;
    failpoint::hit(&ticket.namespace().unwrap_or_default(), "outbox.posted").await;
    match sent {
        Ok(Ok(action)) => {
            Ok(tickets::transition(api, &ticket, &posted(note, action, then), note.by).await?)
        }
        Ok(Err(error)) => {
            if error.definitely_not_applied() {
                // Nothing was written, so the next try need not wait.
                tickets::transition(
                    api,
                    &ticket,
                    &[Event::WriteRefused {
                        marker: note.marker.into(),
                    }],
                    note.by,
                )
                .await?;
            }
            Err(error.into())
        }
        Err(_) => Err(Error::Unsettled(note.settle)),
    }
}

fn posted(note: &Note<'_>, action_id: i64, then: &[Event]) -> Vec<Event> {
    let mut events = vec![Event::WritePosted {
        marker: note.marker.into(),
        action_id: Some(action_id),
    }];
    events.extend_from_slice(then);
    events
}

/// One look, then the note. The look finds what an earlier Ticket for the same
/// HaloPSA ticket has posted.
async fn search_and_post(
    halo: &halopsa::Client,
    ticket: &Ticket,
    note: &Note<'_>,
) -> Result<i64, halopsa::Error> {
    if let Some(id) = search(halo, ticket, note).await? {
        return Ok(id);
    }
    halo.post_internal_note(
        ticket.spec.ticket_id,
        &note.outcome.outcome,
        note.outcome.fallback_outcome_id,
        note.html,
    )
    .await
}

/// Polls for the note until it is there or the settle time has passed.
async fn search_until(
    halo: &halopsa::Client,
    ticket: &Ticket,
    note: &Note<'_>,
    settles_at: Timestamp,
) -> Result<Option<i64>, Error> {
    let gives_up = tokio::time::Instant::now() + note.max_wait;
    loop {
        if let Some(id) = search(halo, ticket, note).await? {
            return Ok(Some(id));
        }
        let left =
            Duration::try_from(settles_at.duration_since(Timestamp::now())).unwrap_or_default();
        if left.is_zero() {
            return Ok(None);
        }
        if tokio::time::Instant::now() + SEARCH_EVERY > gives_up {
            return Err(Error::Unsettled(left));
        }
        tokio::time::sleep(SEARCH_EVERY.min(left + Duration::from_millis(100))).await;
    }
}

async fn search(
    halo: &halopsa::Client,
    ticket: &Ticket,
    note: &Note<'_>,
) -> Result<Option<i64>, halopsa::Error> {
    let actions = halo.actions(ticket.spec.ticket_id, SEARCH_DEPTH).await?;
    Ok(find(&actions, note.marker, note.api_agent).map(|a| a.id))
}

/// Our own action with this marker in its text.
pub fn find<'a>(actions: &'a [Action], marker: &str, api_agent: Option<i64>) -> Option<&'a Action> {
    actions.iter().find(|a| {
        a.note.contains(marker)
            && (api_agent.is_none() || a.who_agentid.is_none() || a.who_agentid == api_agent)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_marker_counts() {
        let action = |id, agent, note: &str| Action {
            id,
            who_agentid: Some(agent),
            note: note.into(),
            ..Action::default()
        };
        let actions = [
            action(3, 4, "he wrote rallied-1-0-plan"),
            action(2, 31, "textReference: rallied-1-0-plan"),
            action(1, 31, "other"),
        ];
        assert_eq!(
            find(&actions, "rallied-1-0-plan", Some(31)).map(|a| a.id),
            Some(2)
        );
        assert!(find(&actions, "rallied-2-0-plan", Some(31)).is_none());
    }
}
