//! The phases of a ticket: one pure function, used by controller and gateway alike.
//!
//! [`apply`] takes what is stored and what happened, and says what to store. It
//! knows no clock and does no I/O. What a phase owes to the world (a failure
//! note, say) is not returned as a side effect but derived from the state by
//! [`owed`], so that a crash between storing and acting loses nothing.

use crate::api::Mode;
use crate::api::condition::{self, Verdict};
use crate::api::ticket::{Intent, IntentKind, IntentState, JournalEntry, Lease, Phase, TicketStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Journal entries kept on a Ticket; the audit stream has them all.
pub const JOURNAL_LIMIT: usize = 50;
/// Agents that may take a ticket in one turn before it counts as failed.
pub const MAX_ATTEMPTS: i32 = 5;
/// How long a ticket waits for its controller or for an agent.
pub const WAIT: SignedDuration = SignedDuration::from_hours(24);

/// Something that happened to a ticket.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It is ours to work on, and nothing holds it up.
    Accepted,
    /// The requester has to prove who they are first.
    VerificationStarted {
        deadline: Timestamp,
    },
    Verified,
    VerificationFailed {
        message: String,
    },
    /// An agent takes it.
    Claimed {
        lease: String,
        holder: String,
        expires_at: Timestamp,
        mode: Mode,
    },
    /// The agent is still at it.
    Heartbeat {
        lease: String,
        expires_at: Timestamp,
    },
    /// The agent hands it back: it is shutting down, or cannot go on.
    Released {
        lease: String,
        holder: String,
    },
    /// The agent was not heard of until its lease ran out.
    LeaseExpired,
    /// The deadline of a waiting phase has passed.
    DeadlinePassed,
    /// A write to HaloPSA is about to be sent.
    WriteIntended {
        kind: IntentKind,
        marker: String,
    },
    /// HaloPSA has the write.
    WritePosted {
        marker: String,
        action_id: Option<i64>,
    },
    /// HaloPSA certainly does not have the write: it answered no.
    WriteRefused {
        marker: String,
    },
    /// The agent is done.
    Completed {
        lease: String,
    },
    /// Steps wait for a technician.
    ApprovalRequested {
        lease: String,
        deadline: Timestamp,
    },
    Approved,
    Denied,
    /// Not work for us, or not any more.
    Ignored {
        reason: &'static str,
        message: String,
    },
    /// It cannot be worked on.
    Failed {
        reason: &'static str,
        message: String,
    },
    /// A human wants it worked on again.
    Reopened {
        request: String,
    },
}

/// Why an event does not apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the ticket is {} and {event} does not apply; reread it", phase.as_str())]
    WrongPhase { phase: Phase, event: &'static str },
    #[error("the lease is not yours any more: it ran out or another agent has the ticket; drop this ticket and claim anew")]
    LeaseLost,
    #[error("the lease or deadline has not run out yet")]
    TooEarly,
    #[error("this write to HaloPSA is under way already; look for its marker before sending it again")]
    AlreadyIntended,
}

/// What a state still owes to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// An internal note that says why nobody worked on the ticket.
    FailureNote,
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Event::Accepted => "Accepted",
            Event::VerificationStarted { .. } => "VerificationStarted",
            Event::Verified => "Verified",
            Event::VerificationFailed { .. } => "VerificationFailed",
            Event::Claimed { .. } => "Claimed",
            Event::Heartbeat { .. } => "Heartbeat",
            Event::Released { .. } => "Released",
            Event::LeaseExpired => "LeaseExpired",
            Event::DeadlinePassed => "DeadlinePassed",
            Event::WriteIntended { .. } => "WriteIntended",
            Event::WritePosted { .. } => "WritePosted",
            Event::WriteRefused { .. } => "WriteRefused",
            Event::Completed { .. } => "Completed",
            Event::ApprovalRequested { .. } => "ApprovalRequested",
            Event::Approved => "Approved",
            Event::Denied => "Denied",
            Event::Ignored { .. } => "Ignored",
            Event::Failed { .. } => "Failed",
            Event::Reopened { .. } => "Reopened",
        }
    }
}

/// The status after `event`, or why it does not apply. Times are kept in whole
/// seconds, as the apiserver stores them.
pub fn apply(status: &TicketStatus, event: &Event, by: &str, now: Timestamp) -> Result<TicketStatus, Refused> {
    let now = whole_second(now);
    let phase = status.phase;
    let wrong = || Refused::WrongPhase { phase, event: event.name() };
    let mut next = status.clone();
    match event {
        Event::Accepted => match phase {
            Phase::Received => next.enter(Phase::Ready, "Accepted", "waits for the client's agent", now),
            _ => return Err(wrong()),
        },
        Event::VerificationStarted { deadline } => match phase {
            Phase::Received | Phase::Ready => {
                next.enter(Phase::Verifying, "Sensitive", "waits until the requester has proved who they are", now);
                next.deadline = Some(Time(whole_second(*deadline)));
            }
            _ => return Err(wrong()),
        },
        Event::Verified => match phase {
            Phase::Verifying => next.enter(Phase::Ready, "Verified", "the requester is verified; waits for the agent", now),
            _ => return Err(wrong()),
        },
        Event::VerificationFailed { message } => match phase {
            Phase::Verifying => next.enter(Phase::Refused, "NotVerified", message, now),
            _ => return Err(wrong()),
        },
        Event::Claimed { lease, holder, expires_at, mode } => match phase {
            Phase::Ready => {
                next.enter(Phase::Working, "Claimed", "an agent is working on it", now);
                next.attempts += 1;
                next.mode = Some(*mode);
                next.lease = Some(Lease { id: lease.clone(), holder: holder.clone(), expires_at: Time(whole_second(*expires_at)) });
            }
            _ => return Err(wrong()),
        },
        Event::Heartbeat { lease, expires_at } => {
            let held = next.held(lease)?;
            held.expires_at = Time(whole_second(*expires_at));
            // A sign of life, not a thing that happened.
            return Ok(next);
        }
        Event::Released { lease, .. } => {
            next.held(lease)?;
            next.enter(Phase::Ready, "Released", "its agent handed it back; waits for the next", now);
            // An agent that says goodbye has not failed on the ticket.
            next.attempts -= 1;
        }
        Event::LeaseExpired => {
            let Some(lease) = status.lease.as_ref().filter(|_| phase == Phase::Working) else { return Err(wrong()) };
            if now < lease.expires_at.0 {
                return Err(Refused::TooEarly);
            }
            if status.attempts >= MAX_ATTEMPTS {
                let message = format!("{} agents took the ticket and none finished; see the agents' logs", status.attempts);
                next.enter(Phase::Failed, "AttemptsExhausted", &message, now);
            } else {
                next.enter(Phase::Ready, "LeaseExpired", "its agent was not heard of any more; waits for the next", now);
            }
        }
        Event::DeadlinePassed => {
            let Some(deadline) = &status.deadline else { return Err(wrong()) };
            if now < deadline.0 {
                return Err(Refused::TooEarly);
            }
            match phase {
                Phase::Verifying => next.enter(Phase::Refused, "VerificationExpired", "the requester did not prove who they are in time", now),
                Phase::AwaitingApproval => next.enter(Phase::Done, "ApprovalExpired", "nobody approved in time; nothing was run", now),
                Phase::Received | Phase::Ready => next.enter(
                    Phase::Failed,
                    "NoAgent",
                    "no agent took the ticket in time; look at the ImportedClient's AgentAvailable condition",
                    now,
                ),
                _ => return Err(wrong()),
            }
        }
        Event::WriteIntended { kind, marker } => {
            let allowed = match kind {
                IntentKind::PlanNote => phase == Phase::Working,
                IntentKind::FailureNote => phase == Phase::Failed,
            };
            if !allowed {
                return Err(wrong());
            }
            if next.intents.iter().any(|i| i.marker == *marker) {
                return Err(Refused::AlreadyIntended);
            }
            next.intents.push(Intent {
                kind: *kind,
                turn: status.turn,
                marker: marker.clone(),
                state: IntentState::Intended,
                recorded_at: Time(now),
                action_id: None,
            });
            let excess = next.intents.len().saturating_sub(JOURNAL_LIMIT);
            next.intents.drain(..excess);
        }
        Event::WritePosted { marker, action_id } => {
            let Some(intent) = next.intents.iter_mut().find(|i| i.marker == *marker) else { return Err(wrong()) };
            intent.state = IntentState::Posted;
            intent.action_id = *action_id;
        }
        Event::WriteRefused { marker } => {
            next.intents.retain(|i| i.marker != *marker || i.state == IntentState::Posted);
        }
        Event::Completed { lease } => {
            next.held(lease)?;
            next.enter(Phase::Done, "Completed", "the agent is done", now);
        }
        Event::ApprovalRequested { lease, deadline } => {
            next.held(lease)?;
            next.enter(Phase::AwaitingApproval, "ApprovalNeeded", "waits for the assigned technician's reply on the ticket", now);
            next.deadline = Some(Time(whole_second(*deadline)));
        }
        Event::Approved | Event::Denied => match phase {
            Phase::AwaitingApproval => next.enter(Phase::Ready, event.name(), "a technician has decided; waits for the agent", now),
            _ => return Err(wrong()),
        },
        Event::Ignored { reason, message } => match phase {
            phase if phase.is_terminal() => return Err(wrong()),
            _ => next.enter(Phase::Ignored, reason, message, now),
        },
        Event::Failed { reason, message } => match phase {
            phase if phase.is_terminal() => return Err(wrong()),
            _ => next.enter(Phase::Failed, reason, message, now),
        },
        Event::Reopened { request } => {
            if !phase.is_terminal() || status.reopened.as_ref() == Some(request) {
                return Err(wrong());
            }
            next.enter(Phase::Received, "Reopened", "a human wants it worked on again", now);
            next.reopened = Some(request.clone());
            next.turn += 1;
            next.attempts = 0;
            next.mode = None;
        }
    }
    next.record(event.name(), by, None, now);
    Ok(next)
}

/// What is left to do for a ticket in this state.
pub fn owed(status: &TicketStatus) -> Option<Owed> {
    // A plan note of this turn says all there is to say.
    let noted = status.intents.iter().any(|i| i.turn == status.turn && i.state == IntentState::Posted);
    (status.phase == Phase::Failed && !noted).then_some(Owed::FailureNote)
}

/// The status of a ticket nobody has looked at yet.
pub fn received(now: Timestamp) -> TicketStatus {
    let now = whole_second(now);
    let mut status = TicketStatus::default();
    status.enter(Phase::Received, "Received", "stored; the controller looks at it next", now);
    status
}

/// When this ticket wants to be looked at although nothing happened.
pub fn wakes_at(status: &TicketStatus) -> Option<Timestamp> {
    match status.phase {
        Phase::Working => status.lease.as_ref().map(|l| l.expires_at.0),
        _ => status.deadline.as_ref().map(|d| d.0),
    }
}

/// The event that time alone brings about, if it is due.
pub fn due(status: &TicketStatus, now: Timestamp) -> Option<Event> {
    let due = wakes_at(status).is_some_and(|at| at <= whole_second(now));
    match status.phase {
        _ if !due => None,
        Phase::Working => Some(Event::LeaseExpired),
        phase if phase.is_terminal() => None,
        _ => Some(Event::DeadlinePassed),
    }
}

pub fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

impl TicketStatus {
    fn enter(&mut self, phase: Phase, reason: &str, message: &str, now: Timestamp) {
        self.phase = phase;
        self.phase_since = Some(Time(now));
        self.reason = Some(reason.into());
        self.message = Some(message.chars().take(500).collect());
        self.lease = None;
        // Every phase that waits has an end of its own; Working has its lease.
        self.deadline = matches!(phase, Phase::Received | Phase::Ready | Phase::Verifying | Phase::AwaitingApproval)
            .then(|| Time(now.checked_add(WAIT).unwrap_or(now)));
        let finished = if phase.is_terminal() { Verdict::yes(phase.as_str(), message) } else { Verdict::no(phase.as_str(), message) };
        condition::set(&mut self.conditions, condition::FINISHED, &finished, self.observed_generation, now);
    }

    /// The lease, if it is this one. An expired lease still counts until
    /// somebody has taken note: its holder is alive after all.
    fn held(&mut self, lease: &str) -> Result<&mut Lease, Refused> {
        if self.phase != Phase::Working {
            return Err(Refused::LeaseLost);
        }
        self.lease.as_mut().filter(|held| held.id == lease).ok_or(Refused::LeaseLost)
    }

    /// Adds a journal entry; the oldest go when there are too many.
    pub fn record(&mut self, event: &str, by: &str, detail: Option<String>, now: Timestamp) {
        self.journal.push(JournalEntry {
            time: Some(Time(whole_second(now))),
            event: event.into(),
            by: Some(by.chars().take(100).collect()),
            detail: detail.map(|d| d.chars().take(300).collect()),
        });
        let excess = self.journal.len().saturating_sub(JOURNAL_LIMIT);
        self.journal.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn claimed(lease: &str, until: i64) -> Event {
        Event::Claimed { lease: lease.into(), holder: "pod".into(), expires_at: at(until), mode: Mode::Plan }
    }

    fn run(events: &[(Event, i64)]) -> TicketStatus {
        events.iter().fold(received(at(0)), |status, (event, second)| apply(&status, event, "test", at(*second)).unwrap())
    }

    #[test]
    fn plan_mode_all_the_way() {
        let marker = "m".to_string();
        let status = run(&[
            (Event::Accepted, 1),
            (claimed("a", 60), 2),
            (Event::WriteIntended { kind: IntentKind::PlanNote, marker: marker.clone() }, 3),
            (Event::WritePosted { marker, action_id: Some(7) }, 4),
            (Event::Completed { lease: "a".into() }, 5),
        ]);
        assert_eq!(status.phase, Phase::Done);
        assert_eq!(status.intents[0].action_id, Some(7));
        assert!(status.lease.is_none());
        assert!(condition::is_true(&status.conditions, condition::FINISHED));
        assert_eq!(status.journal.last().unwrap().event, "Completed");
        assert_eq!(owed(&status), None);
    }

    #[test]
    fn a_dead_agent_loses_the_ticket_and_five_dead_agents_fail_it() {
        let mut status = run(&[(Event::Accepted, 0)]);
        for attempt in 1..=MAX_ATTEMPTS {
            let now = i64::from(attempt) * 100;
            status = apply(&status, &claimed("x", now + 60), "gateway", at(now)).unwrap();
            assert_eq!(apply(&status, &Event::LeaseExpired, "controller", at(now + 59)), Err(Refused::TooEarly));
            assert_eq!(due(&status, at(now + 60)), Some(Event::LeaseExpired));
            status = apply(&status, &Event::LeaseExpired, "controller", at(now + 60)).unwrap();
        }
        assert_eq!(status.phase, Phase::Failed);
        assert_eq!(owed(&status), Some(Owed::FailureNote));
    }

    #[test]
    fn a_lost_lease_can_do_nothing() {
        let status = run(&[(Event::Accepted, 0), (claimed("a", 60), 1), (Event::LeaseExpired, 61), (claimed("b", 120), 62)]);
        for event in [
            Event::Heartbeat { lease: "a".into(), expires_at: at(200) },
            Event::Completed { lease: "a".into() },
            Event::Released { lease: "a".into(), holder: "pod".into() },
            Event::ApprovalRequested { lease: "a".into(), deadline: at(500) },
        ] {
            assert_eq!(apply(&status, &event, "t", at(63)), Err(Refused::LeaseLost));
        }
    }

    #[test]
    fn a_release_does_not_count_as_an_attempt() {
        let status = run(&[(Event::Accepted, 0), (claimed("a", 60), 1), (Event::Released { lease: "a".into(), holder: "p".into() }, 2)]);
        assert_eq!((status.phase, status.attempts), (Phase::Ready, 0));
    }

    #[test]
    fn reopening_starts_a_new_turn_once_per_request() {
        let done = run(&[(Event::Accepted, 0), (claimed("a", 60), 1), (Event::Completed { lease: "a".into() }, 2)]);
        let again = apply(&done, &Event::Reopened { request: "1".into() }, "t", at(3)).unwrap();
        assert_eq!((again.phase, again.turn, again.attempts), (Phase::Received, 1, 0));
        let done = apply(&again, &Event::Ignored { reason: "Closed", message: String::new() }, "t", at(4)).unwrap();
        assert!(apply(&done, &Event::Reopened { request: "1".into() }, "t", at(5)).is_err());
        assert!(apply(&done, &Event::Reopened { request: "2".into() }, "t", at(5)).is_ok());
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        for (status, phase) in [
            (run(&[]), Phase::Failed),
            (run(&[(Event::Accepted, 0)]), Phase::Failed),
            (run(&[(Event::VerificationStarted { deadline: at(300) }, 0)]), Phase::Refused),
            (
                run(&[(Event::Accepted, 0), (claimed("a", 60), 1), (Event::ApprovalRequested { lease: "a".into(), deadline: at(300) }, 2)]),
                Phase::Done,
            ),
        ] {
            let deadline = wakes_at(&status).expect("a waiting phase has a deadline");
            assert_eq!(due(&status, deadline), Some(Event::DeadlinePassed));
            assert_eq!(apply(&status, &Event::DeadlinePassed, "t", deadline).unwrap().phase, phase);
        }
    }

    fn event() -> impl Strategy<Value = Event> {
        let lease = prop_oneof![Just("a".to_string()), Just("b".to_string())];
        let marker = prop_oneof![Just("m".to_string()), Just("n".to_string())];
        prop_oneof![
            Just(Event::Accepted),
            (0i64..500).prop_map(|t| Event::VerificationStarted { deadline: at(t) }),
            Just(Event::Verified),
            Just(Event::VerificationFailed { message: "no".into() }),
            (lease.clone(), 0i64..500).prop_map(|(l, t)| claimed(&l, t)),
            (lease.clone(), 0i64..500).prop_map(|(lease, t)| Event::Heartbeat { lease, expires_at: at(t) }),
            lease.clone().prop_map(|lease| Event::Released { lease, holder: "p".into() }),
            Just(Event::LeaseExpired),
            Just(Event::DeadlinePassed),
            marker.clone().prop_map(|marker| Event::WriteIntended { kind: IntentKind::PlanNote, marker }),
            marker.clone().prop_map(|marker| Event::WritePosted { marker, action_id: None }),
            marker.prop_map(|marker| Event::WriteRefused { marker }),
            lease.clone().prop_map(|lease| Event::Completed { lease }),
            (lease, 0i64..500).prop_map(|(lease, t)| Event::ApprovalRequested { lease, deadline: at(t) }),
            Just(Event::Approved),
            Just(Event::Denied),
            Just(Event::Ignored { reason: "Closed", message: "closed".into() }),
            Just(Event::Failed { reason: "Broken", message: "broken".into() }),
            "[0-9]".prop_map(|request| Event::Reopened { request }),
        ]
    }

    proptest! {
        #[test]
        fn no_sequence_of_events_leaves_the_legal_states(events in prop::collection::vec((event(), 0i64..1000), 0..80)) {
            let mut status = received(at(0));
            for (event, second) in events {
                let Ok(next) = apply(&status, &event, "test", at(second)) else { continue };
                // Terminal is terminal until a human reopens.
                if status.phase.is_terminal() && !matches!(event, Event::Reopened { .. }) {
                    prop_assert_eq!(next.phase, status.phase);
                }
                // A lease belongs to Working and to nothing else.
                prop_assert_eq!(next.lease.is_some(), next.phase == Phase::Working);
                // Whatever waits has an end.
                if !next.phase.is_terminal() {
                    prop_assert!(wakes_at(&next).is_some());
                }
                // Only a claim of a Ready ticket starts work.
                if next.phase == Phase::Working && status.phase != Phase::Working {
                    prop_assert_eq!(status.phase, Phase::Ready);
                }
                // A posted write is never forgotten within its turn.
                for posted in status.intents.iter().filter(|i| i.state == IntentState::Posted) {
                    prop_assert!(next.intents.iter().any(|i| i.marker == posted.marker && i.state == IntentState::Posted));
                }
                prop_assert!((0..=MAX_ATTEMPTS).contains(&next.attempts));
                prop_assert!(next.journal.len() <= JOURNAL_LIMIT);
                prop_assert!(next.turn >= status.turn);
                status = next;
            }
        }
    }
}
