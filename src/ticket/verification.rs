//! A requester's verification: how it starts, how it ends, and what technicians say about it. Pure.

use super::approval::{IgnoredReply, Reply, WhyNot};
use super::reply::own;
use super::state::Event;
use crate::api::HaloPSAConnection;
use crate::api::ticket::{Phase, Ticket, TicketStatus, Verification, VerificationState};
use crate::halopsa::technicians::UNASSIGNED;
use crate::ids::{ActionId, TechnicianId};
use crate::text::{hex, pattern, words};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// HaloPSA's times are in seconds, and its clock is not ours.
const SKEW: SignedDuration = SignedDuration::from_secs(2);

/// Why a requester is asked.
#[derive(Clone, Copy, Debug)]
pub struct Why<'a> {
    pub reasons: &'a [String],
    /// The newest action on the ticket that was read for them.
    pub newest_action: Option<ActionId>,
}

/// The event that pauses a ticket until its requester has proved who they are. The reasons are
/// stored as they are: the caller has removed the requester's words where `privacy.hideSubjects`
/// asks for it.
pub fn start(
    status: &TicketStatus,
    connection: &HaloPSAConnection,
    ticket: &Ticket,
    why: &Why<'_>,
    timeout: Duration,
    lease: Option<String>,
    now: Timestamp,
) -> Event {
    Event::VerificationStarted {
        challenge_id: challenge_id(status, connection, ticket),
        reasons: why.reasons.to_vec(),
        deadline: deadline(timeout, now),
        lease,
        newest_action: why.newest_action,
    }
}

/// The event for a technician's "verify again": a new challenge, for the same reasons.
pub fn again(
    status: &TicketStatus,
    connection: &HaloPSAConnection,
    ticket: &Ticket,
    wished: &Wished,
    timeout: Duration,
    now: Timestamp,
) -> Event {
    Event::VerifyAgain {
        by: wished.by,
        action: wished.action,
        challenge_id: challenge_id(status, connection, ticket),
        deadline: deadline(timeout, now),
    }
}

/// The next challenge's id. It follows from what the challenge is for, so it is the same whoever
/// makes it, however often.
fn challenge_id(status: &TicketStatus, connection: &HaloPSAConnection, ticket: &Ticket) -> String {
    let number = status.verification.as_ref().map_or(0, |v| v.number) + 1;
    let uid = connection.metadata.uid.as_deref().unwrap_or_default();
    let own = ticket.metadata.uid.as_deref().unwrap_or_default();
    let hash = Sha256::digest(format!(
        "{uid}/{own}/{}/{}/{number}",
        ticket.spec.ticket_id, status.run
    ));
    format!("rv-{}", hex::encode(&hash[..16]))
}

fn deadline(timeout: Duration, now: Timestamp) -> Timestamp {
    now + SignedDuration::try_from(timeout).unwrap_or(SignedDuration::from_secs(300))
}

/// What the provider says about a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderState {
    Pending,
    Verified,
    Denied,
    Expired,
    Failed,
}

/// The event for the provider's answer; none while it is pending. `valid_until` counts only for a
/// requester who is verified.
pub fn outcome(state: ProviderState, challenge_id: &str, valid_until: Timestamp) -> Option<Event> {
    let challenge_id = challenge_id.to_string();
    let (state, message) = match state {
        ProviderState::Pending => return None,
        ProviderState::Verified => {
            return Some(Event::Verified {
                challenge_id,
                valid_until,
            });
        }
        ProviderState::Denied => (
            VerificationState::Denied,
            "the requester says it was not them; treat this as an attack until proven otherwise",
        ),
        ProviderState::Expired => (
            VerificationState::Expired,
            "the requester did not answer in time",
        ),
        ProviderState::Failed => (
            VerificationState::Failed,
            "the verification provider could not ask the requester; see the provider's log",
        ),
    };
    Some(Event::VerificationFailed {
        challenge_id,
        state,
        message: message.into(),
    })
}

/// What a technician wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Again,
    Override,
}

/// What a technician asked for on the ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wished {
    pub ask: Ask,
    pub by: TechnicianId,
    pub action: ActionId,
}

/// What is known about the ticket when its replies are read.
#[derive(Clone, Debug)]
pub struct Window<'a> {
    /// The last action that was read. Only later ones count.
    pub seen: ActionId,
    /// Only replies written since count; one without a time does.
    pub since: Timestamp,
    pub phase: Phase,
    /// Whom the ticket is assigned to now.
    pub assigned: Option<TechnicianId>,
    /// The API agent we act as.
    pub ourselves: Option<TechnicianId>,
    /// Name patterns of the applications humans reply with.
    pub applications: &'a [String],
}

impl<'a> Window<'a> {
    /// From the challenge, or its outcome, on. Whom the ticket is assigned to is left open.
    pub fn of(
        status: &TicketStatus,
        verification: &Verification,
        ourselves: Option<TechnicianId>,
        applications: &'a [String],
    ) -> Self {
        let since = status.phase_since.as_ref();
        Self {
            seen: status.seen_action.unwrap_or_default(),
            since: since.map_or(verification.started_at.0, |t| t.0) - SKEW,
            phase: status.phase,
            assigned: None,
            ourselves,
            applications,
        }
    }

    /// A technician's reply in HaloPSA that was not read before.
    fn counts(&self, reply: &Reply) -> bool {
        reply.id > self.seen
            && reply.at.is_none_or(|at| at >= self.since)
            && reply.agent.is_some_and(|agent| agent > UNASSIGNED)
            && reply.agent != self.ourselves
            && !reply.mail
            && reply.internal
            && self
                .applications
                .iter()
                .any(|p| pattern::matches(p, &reply.application))
    }
}

/// The result of reading the replies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The first wish that counts.
    pub wish: Option<Wished>,
    /// Overrides that do not count.
    pub ignored: Vec<IgnoredReply>,
    /// The last technician's reply that was read; none: there is nothing new.
    pub up_to: Option<ActionId>,
}

/// Reads what technicians say about a verification, oldest reply first. "Verify again" counts
/// from any technician on a ticket in phase Refused, "override verification" only from the
/// technician the ticket was assigned to when it was written.
///
/// The caller looks up whom it is assigned to now only where it matters:
///
/// ```ignore
/// let mut window = Window::of(&status, current, ourselves, &spec.approvals.applications);
/// if verification::asks_override(&replies, &window) {
///     window.assigned = halo.ticket(id).await?.agent_id;
/// }
/// let heard = verification::judge(&replies, &window);
/// ```
pub fn judge(replies: &[Reply], window: &Window<'_>) -> Heard {
    let mut heard = Heard {
        up_to: replies
            .iter()
            .filter(|r| window.counts(r))
            .map(|r| r.id)
            .max(),
        ..Heard::default()
    };
    for wished in wishes(replies, window) {
        let assigned = assigned_at(replies, wished.action, window.assigned);
        if wished.ask == Ask::Again || assigned == Some(wished.by) {
            heard.wish = Some(wished);
            break;
        }
        heard.ignored.push(IgnoredReply {
            action: wished.action,
            why: match assigned {
                Some(_) => WhyNot::NotAssigned,
                None => WhyNot::Reassigned,
            },
        });
    }
    heard
}

/// Whom the ticket was assigned to when an action was written, from what is recorded and whom it
/// is assigned to now; none: that cannot be told.
fn assigned_at(
    replies: &[Reply],
    action: ActionId,
    now: Option<TechnicianId>,
) -> Option<TechnicianId> {
    let assigns = |r: &&Reply| r.new_agent.is_some();
    // Who takes the ticket with the very action was not assigned before.
    let was_moved = replies.iter().filter(assigns).any(|r| r.id >= action);
    if !was_moved {
        return now;
    }
    let before = replies.iter().filter(assigns).filter(|r| r.id < action);
    before.max_by_key(|r| r.id).and_then(|r| r.new_agent)
}

/// Whether the first wish is an override, so that [`judge`] needs to know whom the ticket is
/// assigned to.
pub fn asks_override(replies: &[Reply], window: &Window<'_>) -> bool {
    wishes(replies, window)
        .next()
        .is_some_and(|w| w.ask == Ask::Override)
}

/// What technicians ask for, where the ticket is in a phase for it.
fn wishes(replies: &[Reply], window: &Window<'_>) -> impl Iterator<Item = Wished> {
    replies
        .iter()
        .filter(move |reply| window.counts(reply))
        .filter_map(|reply| {
            Some(Wished {
                ask: wish(&reply.html, &reply.text)?,
                by: reply.agent?,
                action: reply.id,
            })
        })
        .filter(move |wished| wished.ask == Ask::Override || window.phase == Phase::Refused)
}

const AGAIN: [&str; 12] = [
    "verify again",
    "verify once more",
    "retry verification",
    "resend verification",
    "resend the challenge",
    "send the challenge again",
    "erneut verifizieren",
    "nochmal verifizieren",
    "verifier a nouveau",
    "verificar de nuevo",
    "verificar otra vez",
    "opnieuw verifieren",
];
const OVERRIDE: [&str; 6] = [
    "override verification",
    "override the verification",
    "verifizierung ubergehen",
    "outrepasser la verification",
    "omitir la verificacion",
    "verificatie overslaan",
];
/// With one of these, the reply asks for nothing.
const NOT: [&str; 12] = [
    "dont",
    "do not",
    "not",
    "never",
    "nicht",
    "ne",
    "pas",
    "no",
    "niet",
    "should we",
    "can we",
    "if",
];

/// What a reply asks for. Quotes and signatures do not count, and a question asks for nothing.
pub fn wish(html: &str, text: &str) -> Option<Ask> {
    let text = if html.trim().is_empty() {
        crate::text::plain(text)
    } else {
        own::own_html(html).0
    };
    let (own, _) = own::own_text(&text);
    let split = words::split(&own);
    let line = format!(
        " {} ",
        split
            .words
            .iter()
            .map(|w| w.text.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    );
    let has = |phrase: &&str| line.contains(&format!(" {phrase} "));
    if split.question || split.words.len() > 30 || NOT.iter().any(&has) {
        return None;
    }
    if OVERRIDE.iter().any(&has) {
        return Some(Ask::Override);
    }
    AGAIN.iter().any(has).then_some(Ask::Again)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(id: i64, agent: i64, text: &str) -> Reply {
        Reply {
            id: ActionId(id),
            agent: Some(TechnicianId(agent)),
            application: "nethelpdesk-agent-web-application".into(),
            internal: true,
            text: text.into(),
            ..Reply::default()
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn window(applications: &[String]) -> Window<'_> {
        Window {
            seen: ActionId(5),
            since: at(0),
            phase: Phase::Refused,
            assigned: Some(TechnicianId(3)),
            ourselves: Some(TechnicianId(31)),
            applications,
        }
    }

    struct Case {
        what: &'static str,
        replies: Vec<Reply>,
        wish: Option<(Ask, i64)>,
        ignored: usize,
        up_to: Option<i64>,
    }

    fn check(case: &Case) {
        let applications = ["nethelpdesk-*".to_string()];
        let heard = judge(&case.replies, &window(&applications));
        let wish = heard.wish.map(|w| (w.ask, w.action.0));
        assert_eq!(wish, case.wish, "{}", case.what);
        assert_eq!(heard.ignored.len(), case.ignored, "{}", case.what);
        assert_eq!(heard.up_to.map(|a| a.0), case.up_to, "{}", case.what);
    }

    fn verify_again() -> Reply {
        Reply {
            at: Some(at(1)),
            ..says(6, 4, "verify again")
        }
    }

    #[test]
    fn whose_wish_counts() {
        let cases = [
            Case {
                what: "any technician may have the requester asked again",
                replies: vec![verify_again()],
                wish: Some((Ask::Again, 6)),
                ignored: 0,
                up_to: Some(6),
            },
            Case {
                what: "the assigned technician overrides",
                replies: vec![says(6, 3, "override verification")],
                wish: Some((Ask::Override, 6)),
                ignored: 0,
                up_to: Some(6),
            },
            Case {
                what: "another technician does not override",
                replies: vec![
                    says(6, 4, "override verification"),
                    says(7, 4, "verify again"),
                ],
                wish: Some((Ask::Again, 7)),
                ignored: 1,
                up_to: Some(7),
            },
            Case {
                what: "other words are read once",
                replies: vec![says(6, 3, "I will call her")],
                wish: None,
                ignored: 0,
                up_to: Some(6),
            },
        ];
        cases.iter().for_each(check);
    }

    #[test]
    fn who_was_assigned_when_it_was_written_overrides() {
        let overrides = |id, agent| says(id, agent, "override verification");
        let assigns = |id, to| Reply {
            new_agent: Some(TechnicianId(to)),
            ..says(id, 9, "")
        };
        let takes = Reply {
            new_agent: Some(TechnicianId(3)),
            ..overrides(6, 3)
        };
        // The ticket is assigned to technician 3 now.
        for (what, replies, counts) in [
            ("was and is", vec![overrides(6, 3)], true),
            (
                "assigned before",
                vec![assigns(5, 3), overrides(6, 3)],
                true,
            ),
            (
                "assigned only afterwards",
                vec![overrides(6, 3), assigns(7, 3)],
                false,
            ),
            ("took it with the same action", vec![takes], false),
            (
                "was, when it was written",
                vec![assigns(5, 4), overrides(6, 4), assigns(7, 3)],
                true,
            ),
            ("is no longer", vec![assigns(6, 3), overrides(7, 4)], false),
        ] {
            let applications = ["nethelpdesk-*".to_string()];
            let heard = judge(&replies, &window(&applications));
            assert_eq!(heard.wish.is_some(), counts, "{what}");
        }
    }

    #[test]
    fn whose_wish_does_not_count() {
        let early = Reply {
            at: Some(at(-1)),
            ..verify_again()
        };
        let mail = Reply {
            mail: true,
            ..verify_again()
        };
        let robot = Reply {
            application: "Zapier".into(),
            ..verify_again()
        };
        let public = Reply {
            internal: false,
            ..verify_again()
        };
        let user = Reply {
            agent: None,
            ..verify_again()
        };
        for (what, reply) in [
            ("already read", says(5, 3, "verify again")),
            ("before the challenge", early),
            ("an e-mail", mail),
            ("an integration", robot),
            ("one that the requester can read", public),
            ("the requester", user),
            ("nobody", says(6, 1, "verify again")),
            ("ourselves", says(6, 31, "verify again")),
        ] {
            check(&Case {
                what,
                replies: vec![reply],
                wish: None,
                ignored: 0,
                up_to: None,
            });
        }
    }

    #[test]
    fn while_the_requester_is_being_asked_only_an_override_counts() {
        let applications = ["nethelpdesk-*".to_string()];
        let window = Window {
            phase: Phase::Verifying,
            ..window(&applications)
        };
        let replies = [
            says(6, 3, "verify again"),
            says(7, 3, "override verification"),
        ];
        assert!(asks_override(&replies, &window));
        let wish = judge(&replies, &window).wish.unwrap();
        assert_eq!((wish.ask, wish.action), (Ask::Override, ActionId(7)));
        assert!(!asks_override(&replies[..1], &window));
    }

    #[test]
    fn the_providers_answer() {
        let event = |state| outcome(state, "c", at(900));
        assert_eq!(event(ProviderState::Pending), None);
        assert_eq!(
            event(ProviderState::Verified),
            Some(Event::Verified {
                challenge_id: "c".into(),
                valid_until: at(900)
            })
        );
        for (answer, refused) in [
            (ProviderState::Denied, VerificationState::Denied),
            (ProviderState::Expired, VerificationState::Expired),
            (ProviderState::Failed, VerificationState::Failed),
        ] {
            let Some(Event::VerificationFailed { state, .. }) = event(answer) else {
                panic!("{answer:?}")
            };
            assert_eq!(state, refused);
        }
    }

    #[test]
    fn only_plain_wishes() {
        for (text, wanted) in [
            ("Verify again, please", Some(Ask::Again)),
            ("verify again", Some(Ask::Again)),
            (
                "Override verification: I know her voice.",
                Some(Ask::Override),
            ),
            ("Please override the verification", Some(Ask::Override)),
            ("Erneut verifizieren bitte", Some(Ask::Again)),
            ("Do not override verification", None),
            ("Should we override verification?", None),
            ("approved", None),
            ("> override verification", None),
            ("", None),
        ] {
            assert_eq!(wish("", text), wanted, "{text}");
        }
        assert_eq!(
            wish(
                "<p>Hi</p><blockquote>override verification</blockquote>",
                ""
            ),
            None
        );
    }
}
