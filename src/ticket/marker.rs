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

/// What stands before the marker at the end of a note.
pub const REFERENCE: &str = "Reference: ";
/// How every marker begins.
const BEGINS: &str = "rallied-";
/// Letters in a nonce.
const NONCE: usize = 10;
/// Base32: five bits each.
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A new text by which a note is found again, and which nobody knows before the note is there:
/// `random` is in it. It is stored with the intent or the step, and read from there ever after.
///
/// A Ticket that is deleted and stored again does not know the marker, so it does not find the old
/// note and posts its own. Numbers have a fixed width, so that no marker is the beginning of
/// another.
pub fn marker(connection_uid: &str, ticket_id: i64, run: i32, tag: &Tag, random: u64) -> String {
    let known = known(connection_uid, ticket_id, run, tag);
    format!("{known}-{}", nonce(random))
}

/// Whether a stored marker is one for this note. Those of older versions have no nonce.
pub fn is_for(marker: &str, connection_uid: &str, ticket_id: i64, run: i32, tag: &Tag) -> bool {
    let known = known(connection_uid, ticket_id, run, tag);
    marker.strip_prefix(&known).is_some_and(|rest| {
        rest.is_empty()
            || rest
                .strip_prefix('-')
                .is_some_and(|nonce| nonce.len() == NONCE && nonce.bytes().all(is_letter))
    })
}

/// Whether a note ends with this reference: a marker anywhere else may be anybody's words. HaloPSA
/// rebuilds a note's text by stripping tags without adding white space, so text may follow at once.
pub fn is_reference(text: &str, marker: &str) -> bool {
    let last = text.rmatch_indices(REFERENCE).find_map(|(at, _)| {
        let rest = &text[at + REFERENCE.len()..];
        rest.starts_with(BEGINS).then_some(rest)
    });
    last.and_then(|rest| rest.strip_prefix(marker))
        .is_some_and(|rest| !marker.is_empty() && !rest.starts_with('-'))
}

/// What can be known of a marker.
fn known(connection_uid: &str, ticket_id: i64, run: i32, tag: &Tag) -> String {
    let hash = Sha256::digest(format!("{connection_uid}/{ticket_id}"));
    format!("{BEGINS}{}-{run}-{tag}", hex::encode(&hash[..8]))
}

fn nonce(random: u64) -> String {
    (0..NONCE)
        .map(|at| char::from(LETTERS[(random >> (5 * at)) as usize % LETTERS.len()]))
        .collect()
}

fn is_letter(byte: u8) -> bool {
    LETTERS.contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f3c5f0a-1111-2222-3333-444455556666";

    #[test]
    fn a_marker_belongs_to_one_connection_ticket_run_and_note() {
        let plan = marker(UID, 42, 0, &Tag::Plan, 7);
        assert!(plan.starts_with("rallied-"), "{plan}");
        assert!(plan.ends_with("-0-plan-haaaaaaaaa"), "{plan}");
        assert_eq!(plan.len(), "rallied-".len() + 16 + "-0-plan-".len() + 10);
        let others = [
            marker("another", 42, 0, &Tag::Plan, 7),
            marker(UID, 43, 0, &Tag::Plan, 7),
            marker(UID, 42, 1, &Tag::Plan, 7),
            marker(UID, 42, 0, &Tag::Turn(1), 7),
            marker(UID, 42, 0, &Tag::Plan, 8),
            marker(UID, 42, 0, &Tag::Plan, 7 << 45),
        ];
        assert!(!others.contains(&plan), "{others:?}");
    }

    #[test]
    fn a_stored_marker_is_for_one_note() {
        let tag = Tag::Decision(1);
        let ours = marker(UID, 42, 0, &tag, u64::MAX);
        let old = ours.strip_suffix("-7777777777").unwrap();
        for (marker, yes) in [
            (ours.clone(), true),
            (old.to_string(), true),
            (format!("{old}-"), false),
            (format!("{old}-777777777"), false),
            (format!("{old}-777777777!"), false),
            (format!("{old}2"), false),
            (format!("{ours}a"), false),
            (marker(UID, 42, 0, &Tag::Decision(2), 1), false),
            (String::new(), false),
        ] {
            assert_eq!(is_for(&marker, UID, 42, 0, &tag), yes, "{marker}");
        }
    }

    #[test]
    fn only_the_last_reference_counts() {
        let marker = "rallied-0011223344556677-0-plan-abcdefghij";
        let other = "rallied-0011223344556677-0-turn001-abcdefghij";
        for (text, yes) in [
            (format!("textReference: {marker} "), true),
            (format!("textReference: {marker}"), true),
            (format!("textReference: {marker}Kind regards"), true),
            (format!("Reference: {marker} Reference: 4711"), true),
            (
                format!("Reference: {marker} textReference: {other} "),
                false,
            ),
            (format!("{marker} textReference: {other} "), false),
            (format!("the marker is {marker}"), false),
            (format!("Reference: {marker}-more "), false),
            ("Reference: ".to_string(), false),
            (String::new(), false),
        ] {
            assert_eq!(is_reference(&text, marker), yes, "{text}");
        }
        assert!(!is_reference("Reference: rallied-1", ""));
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
