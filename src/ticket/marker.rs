//! The markers by which a note is found again after a crash.

use crate::api::ticket::IntentKind;
use crate::text::hex;
use sha2::{Digest, Sha256};
use std::fmt;

/// What a note is, within one run of a ticket. Two notes with the same tag are the same note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tag {
    Plan,
    Failure,
    /// A step that writes, by its number.
    Step(i32),
    /// The agent's note at the end of a turn.
    Turn(i32),
    /// A request for approval, by what it is bound to.
    Request {
        hash: String,
    },
    /// The reminder of a request, by its number.
    Reminder(i32),
    /// Why a reply does not count, by the request's number and the reply's action.
    Uncounted {
        request: i32,
        action: i64,
    },
    /// The result of a request, by its number.
    Decision(i32),
    /// A challenge was sent, by the verification's number.
    ChallengeSent(i32),
    VerificationOutcome(i32),
}

impl Tag {
    /// The kind of the intent stored for the note; none for a step, which has no intent.
    pub fn kind(&self) -> Option<IntentKind> {
        match self {
            Tag::Plan => Some(IntentKind::PlanNote),
            Tag::Failure => Some(IntentKind::FailureNote),
            Tag::Step(_) => None,
            Tag::Turn(_) => Some(IntentKind::TurnNote),
            Tag::Request { .. } => Some(IntentKind::ApprovalRequest),
            Tag::Reminder(_) => Some(IntentKind::Reminder),
            Tag::Uncounted { .. } => Some(IntentKind::ReplyNote),
            Tag::Decision(_) => Some(IntentKind::DecisionNote),
            Tag::ChallengeSent(_) | Tag::VerificationOutcome(_) => {
                Some(IntentKind::VerificationNote)
            }
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tag::Plan => f.write_str("plan"),
            Tag::Failure => f.write_str("failure"),
            Tag::Step(number) => write!(f, "step{number:03}"),
            Tag::Turn(turn) => write!(f, "turn{turn:03}"),
            Tag::Request { hash } => write!(f, "ask-{}", crate::text::cut(hash, 16)),
            Tag::Reminder(number) => write!(f, "reminder{number:03}"),
            Tag::Uncounted { request, action } => {
                write!(f, "reply{request:03}-{action:010}")
            }
            Tag::Decision(number) => write!(f, "decision{number:03}"),
            Tag::ChallengeSent(number) => write!(f, "verify{number:03}-sent"),
            Tag::VerificationOutcome(number) => write!(f, "verify{number:03}-outcome"),
        }
    }
}

/// The text by which a note is found again. HaloPSA rebuilds a note's text by stripping tags
/// without adding white space, so the marker is searched for as a substring. It depends on the
/// connection and HaloPSA's ticket, not on the Ticket resource: a Ticket that is stored again finds
/// the old note. Numbers have a fixed width, so that no marker is the beginning of another.
pub fn marker(connection_uid: &str, ticket_id: i64, run: i32, tag: &Tag) -> String {
    let hash = Sha256::digest(format!("{connection_uid}/{ticket_id}"));
    format!("rallied-{}-{run}-{tag}", hex::encode(&hash[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_belongs_to_one_connection_ticket_run_and_note() {
        let plan = marker("0f3c5f0a-1111-2222-3333-444455556666", 42, 0, &Tag::Plan);
        assert!(
            plan.starts_with("rallied-") && plan.ends_with("-0-plan"),
            "{plan}"
        );
        assert_eq!(plan.len(), "rallied-".len() + 16 + "-0-plan".len());
        let others = [
            marker("another", 42, 0, &Tag::Plan),
            marker("0f3c5f0a-1111-2222-3333-444455556666", 43, 0, &Tag::Plan),
            marker("0f3c5f0a-1111-2222-3333-444455556666", 42, 1, &Tag::Plan),
            marker("0f3c5f0a-1111-2222-3333-444455556666", 42, 0, &Tag::Turn(1)),
        ];
        assert!(!others.contains(&plan), "{others:?}");
    }

    #[test]
    fn no_tag_is_the_beginning_of_another() {
        let tags: Vec<String> = [
            Tag::Plan,
            Tag::Failure,
            Tag::Step(1),
            Tag::Step(10),
            Tag::Turn(1),
            Tag::Turn(10),
            Tag::Request {
                hash: "0123456789abcdef0123".into(),
            },
            Tag::Reminder(1),
            Tag::Uncounted {
                request: 1,
                action: 1,
            },
            Tag::Uncounted {
                request: 1,
                action: 10,
            },
            Tag::Decision(1),
            Tag::ChallengeSent(1),
            Tag::VerificationOutcome(1),
        ]
        .iter()
        .map(Tag::to_string)
        .collect();
        for one in &tags {
            let same = tags.iter().filter(|other| other.starts_with(one.as_str()));
            assert_eq!(same.count(), 1, "{one}");
        }
    }
}
