//! Notes that have to be posted once, whatever crashes in between.
//!
//! 1. The intent, with the note's marker, is stored on the Ticket.
//! 2. The ticket's actions are searched for the marker.
//! 3. Only if it is not there the note is posted.
//! 4. The result is stored, in one write with the transition that follows from it.
//!
//! The marker holds a nonce, made with the intent: whoever writes on the ticket cannot know it
//! before. Every search is for the stored marker.
//!
//! An intent that is already stored may have been sent by a process that died.
//! HaloPSA shows a write late, so in that case one search proves nothing: it is
//! repeated until the settle time has passed since the intent.

use crate::api::HaloPSAConnection;
use crate::api::ticket::{Intent, IntentState, Ticket};
use crate::failpoint;
use crate::halopsa::{self, types::Action};
use crate::ids::{ActionId, TechnicianId};
use crate::k8s::tickets;
use crate::ticket::actor::Actor;
use crate::ticket::marker::{self, Tag};
use crate::ticket::state::{self, Event, Refused};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Api, ResourceExt};
use std::time::Duration;

/// Actions searched for a marker, newest first.
pub const SEARCH_DEPTH: usize = 100;
const SEARCH_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Halo(#[from] halopsa::Error),
    #[error(transparent)]
    Ticket(#[from] tickets::Error),
    #[error(
        "it is not known yet whether HaloPSA has the note; searching again in {} s", .0.as_secs()
    )]
    Unsettled(Duration),
}

/// Posts notes to a connection's tickets.
pub struct Postbox<'a> {
    pub api: &'a Api<Ticket>,
    pub halo: &'a halopsa::Client,
    pub connection: &'a HaloPSAConnection,
    pub by: Actor<'a>,
    /// How late HaloPSA may show a write.
    pub settle: Duration,
    /// The longest a call may wait for the settle time to pass.
    pub max_wait: Duration,
}

/// A note to post.
struct Note<'a> {
    tag: &'a Tag,
    marker: &'a str,
    html: &'a str,
}

impl Postbox<'_> {
    /// A new marker for a note of the ticket's present run.
    fn new_marker(&self, ticket: &Ticket, tag: &Tag) -> String {
        let uid = self.connection.metadata.uid.as_deref().unwrap_or_default();
        let run = ticket.status.as_ref().map(|s| s.run).unwrap_or_default();
        marker::marker(uid, ticket.spec.ticket_id, run, tag, rand::random())
    }

    /// Posts the note unless HaloPSA has it, and applies `then` with the result. `html` gets the
    /// marker, which has to be in the note's text.
    pub async fn post(
        &self,
        ticket: &Ticket,
        tag: &Tag,
        html: impl FnOnce(&str) -> String,
        then: &[Event],
    ) -> Result<Ticket, Error> {
        let known = ticket.status.as_ref();
        let known = known.and_then(|status| state::intent(status, tag));
        let marker = match known {
            Some(intent) => intent.marker.clone(),
            None => self.new_marker(ticket, tag),
        };
        let note = Note {
            tag,
            marker: &marker,
            html: &html(&marker),
        };
        let recorded = match known {
            None => self.record_intent(ticket, &note).await?,
            Some(intent) if intent.state == IntentState::Posted => {
                return self.apply(ticket, then).await;
            }
            Some(intent) => match self.search_until_settled(ticket, intent).await? {
                Some(action) => return self.record_posted(ticket, &note, action, then).await,
                None => self.record_new_attempt(ticket, &note).await?,
            },
        };
        self.send(&recorded, &note, then).await
    }

    async fn record_intent(&self, ticket: &Ticket, note: &Note<'_>) -> Result<Ticket, Error> {
        let stored = self.apply(ticket, &[note.intended()]).await;
        self.unless_intended(stored)
    }

    /// The note never arrived: this is a new attempt, with a settle time of its own.
    async fn record_new_attempt(&self, ticket: &Ticket, note: &Note<'_>) -> Result<Ticket, Error> {
        let stored = self.apply(ticket, &[note.refused(), note.intended()]).await;
        self.unless_intended(stored)
    }

    fn unless_intended(&self, stored: Result<Ticket, Error>) -> Result<Ticket, Error> {
        match stored {
            // Another process has stored an intent for the same note, and may be sending.
            Err(Error::Ticket(tickets::Error::Refused(Refused::AlreadyIntended))) => {
                Err(Error::Unsettled(self.settle))
            }
            other => other,
        }
    }

    /// Sends the note and records the result.
    async fn send(
        &self,
        ticket: &Ticket,
        note: &Note<'_>,
        then: &[Event],
    ) -> Result<Ticket, Error> {
        let namespace = ticket.namespace().unwrap_or_default();
        failpoint::hit(&namespace, "outbox.intended").await;
        // Half of the settle time for sending leaves the other half for HaloPSA to show it.
        let sent = tokio::time::timeout(self.settle / 2, self.search_and_post(ticket, note)).await;
        failpoint::hit(&namespace, "outbox.posted").await;
        match sent {
            Ok(Ok(action)) => self.record_posted(ticket, note, action, then).await,
            Ok(Err(error)) => {
                // Nothing was written, so the next attempt need not wait.
                if error.definitely_not_applied() {
                    self.apply(ticket, &[note.refused()]).await?;
                }
                Err(error.into())
            }
            Err(_) => Err(Error::Unsettled(self.settle)),
        }
    }

    async fn record_posted(
        &self,
        ticket: &Ticket,
        note: &Note<'_>,
        action: ActionId,
        then: &[Event],
    ) -> Result<Ticket, Error> {
        let mut events = vec![note.posted(action)];
        events.extend_from_slice(then);
        self.apply(ticket, &events).await
    }

    async fn apply(&self, ticket: &Ticket, events: &[Event]) -> Result<Ticket, Error> {
        if events.is_empty() {
            return Ok(ticket.clone());
        }
        Ok(tickets::transition(self.api, ticket, events, self.by).await?)
    }

    /// One search, then the note: whatever is known about the intent, HaloPSA knows better.
    async fn search_and_post(
        &self,
        ticket: &Ticket,
        note: &Note<'_>,
    ) -> Result<ActionId, halopsa::Error> {
        if let Some(action) = self.search(ticket, note.marker).await? {
            return Ok(action);
        }
        let notes = &self.connection.spec.notes;
        let outcome = match (note.tag, &self.connection.spec.approvals.outcome) {
            (Tag::Request { .. }, Some(outcome)) => outcome,
            _ => &notes.outcome,
        };
        self.halo
            .post_internal_note(
                ticket.spec.ticket_id,
                outcome,
                notes.fallback_outcome_id,
                note.html,
            )
            .await
    }

    /// Searches for a note that may have been sent, until it is there or the settle time has
    /// passed since its intent.
    async fn search_until_settled(
        &self,
        ticket: &Ticket,
        intent: &Intent,
    ) -> Result<Option<ActionId>, Error> {
        let search = || self.search(ticket, &intent.marker);
        let recorded_at = intent.recorded_at.0;
        match until_settled(
            recorded_at,
            self.settle,
            self.max_wait,
            search,
            Option::is_some,
        )
        .await?
        {
            Settled::Known(action) => Ok(action),
            Settled::After(left) => Err(Error::Unsettled(left)),
        }
    }

    async fn search(
        &self,
        ticket: &Ticket,
        marker: &str,
    ) -> Result<Option<ActionId>, halopsa::Error> {
        let actions = self
            .halo
            .actions(ticket.spec.ticket_id, SEARCH_DEPTH)
            .await?;
        Ok(find(&actions, marker, self.api_agent()).map(|a| a.id))
    }

    fn api_agent(&self) -> Option<TechnicianId> {
        let status = self.connection.status.as_ref()?;
        status.api_agent.as_ref().map(|agent| agent.id)
    }
}

impl Note<'_> {
    fn intended(&self) -> Event {
        Event::WriteIntended {
            tag: self.tag.clone(),
            marker: self.marker.into(),
        }
    }

    fn posted(&self, action: ActionId) -> Event {
        Event::WritePosted {
            marker: self.marker.into(),
            action_id: Some(action),
        }
    }

    fn refused(&self) -> Event {
        Event::WriteRefused {
            marker: self.marker.into(),
        }
    }
}

/// What a search for a write says.
pub enum Settled<T> {
    /// It is there, or it never arrived: HaloPSA would show it by now.
    Known(T),
    /// Nobody can say before this time has passed.
    After(Duration),
}

/// Searches for a write that may have been sent, until it is there or the settle time has passed
/// since it was recorded, but no longer than `max_wait`.
pub async fn until_settled<T, E, F>(
    recorded_at: Timestamp,
    settle: Duration,
    max_wait: Duration,
    search: impl Fn() -> F,
    is_there: impl Fn(&T) -> bool,
) -> Result<Settled<T>, E>
where
    F: Future<Output = Result<T, E>>,
{
    let settles_at = recorded_at + SignedDuration::try_from(settle).unwrap_or_default();
    let gives_up = tokio::time::Instant::now() + max_wait;
    loop {
        let found = search().await?;
        let left = settles_at.duration_since(Timestamp::now());
        let left = Duration::try_from(left).unwrap_or_default();
        if is_there(&found) || left.is_zero() {
            return Ok(Settled::Known(found));
        }
        if tokio::time::Instant::now() + SEARCH_EVERY > gives_up {
            return Ok(Settled::After(left));
        }
        tokio::time::sleep(SEARCH_EVERY.min(left + Duration::from_millis(100))).await;
    }
}

/// The API agent's action with this marker as its reference: one that somebody else writes or
/// quotes does not count, nor one in the middle of a text.
pub fn find<'a>(
    actions: &'a [Action],
    marker: &str,
    api_agent: Option<TechnicianId>,
) -> Option<&'a Action> {
    actions.iter().find(|a| {
        (api_agent.is_none() || a.who_agentid == api_agent) && marker::is_reference(&a.note, marker)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_marker_counts() {
        let action = |id, agent: i64, note: &str| Action {
            id: ActionId(id),
            who_agentid: (agent > 0).then_some(TechnicianId(agent)),
            note: note.into(),
            ..Action::default()
        };
        let actions = [
            action(5, 4, "he quoted Reference: rallied-1-0-plan"),
            action(4, 0, "nobody wrote Reference: rallied-1-0-plan"),
            action(
                3,
                31,
                "rallied-1-0-plan, wrote the AI agent. Reference: rallied-1-0-turn001",
            ),
            action(2, 31, "textReference: rallied-1-0-plan"),
            action(1, 31, "other"),
        ];
        let ourselves = Some(TechnicianId(31));
        let found = find(&actions, "rallied-1-0-plan", ourselves);
        assert_eq!(found.map(|a| a.id), Some(ActionId(2)));
        assert!(find(&actions, "rallied-2-0-plan", ourselves).is_none());
    }
}
