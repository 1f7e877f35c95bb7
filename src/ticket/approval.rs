//! Who said what about a request for approval. Pure.
//!
//! Replies are read in order, from the last one seen. Only the technician the ticket was assigned
//! to when the reply was written decides, or one whom a ToolPolicy names as approver for every
//! step. Our own replies never count, nor those of an integration, nor e-mails, whose sender can
//! be forged.

use super::reply::{self, Intent};
use crate::api::ticket::{Approval, Step};
use crate::halopsa::technicians::UNASSIGNED;
use crate::ids::{ActionId, TechnicianId};
use crate::text::{hex, pattern};
use k8s_openapi::jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::fmt;
use std::time::Duration;

/// An action on the ticket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub id: ActionId,
    /// When it was written, where HaloPSA says so.
    pub at: Option<Timestamp>,
    /// The technician who wrote it. None: an end user, or HaloPSA itself.
    pub agent: Option<TechnicianId>,
    /// The application it was written with.
    pub application: String,
    /// It came as an e-mail.
    pub mail: bool,
    pub html: String,
    pub text: String,
    /// Whom the ticket is assigned to from this action on, where it says so.
    pub new_agent: Option<TechnicianId>,
}

/// What is known about the ticket when its replies are read.
#[derive(Clone, Debug, Default)]
pub struct Window<'a> {
    /// The action that asks. Earlier ones do not count.
    pub request: ActionId,
    pub seen: ActionId,
    /// Whom the ticket was assigned to when it was last read, and is now.
    pub assigned_before: Option<TechnicianId>,
    pub assigned_now: Option<TechnicianId>,
    /// The API agent we act as.
    pub ourselves: Option<TechnicianId>,
    /// Name patterns of the applications humans reply with.
    pub applications: &'a [String],
    /// Technicians who may approve besides the assigned one.
    pub approvers: &'a [TechnicianId],
}

/// A technician's yes or no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub approve: bool,
    pub by: TechnicianId,
    pub action: ActionId,
    /// What it was recognised by.
    pub evidence: String,
}

/// Why a reply that looks like a decision does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// HaloPSA's agent "Unassigned" wrote it.
    Nobody,
    Integration,
    Email,
    NotAssigned,
    /// Whom the ticket was assigned to when it was written is not certain.
    Reassigned,
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WhyNot::Nobody => "HaloPSA does not name its author",
            WhyNot::Integration => "written by an integration, not by a person in HaloPSA",
            WhyNot::Email => "sent by e-mail, where the sender can be forged",
            WhyNot::NotAssigned => "not from the technician the ticket was assigned to",
            WhyNot::Reassigned => "the ticket was reassigned around that time; reply again",
        })
    }
}

/// A reply that looks like a decision and does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IgnoredReply {
    pub action: ActionId,
    pub why: WhyNot,
}

impl fmt::Display for IgnoredReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "action {}: {}", self.action, self.why)
    }
}

/// The result of reading the replies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub decision: Option<Decision>,
    /// For the agent to read.
    pub messages: Vec<ActionId>,
    pub ignored: Vec<IgnoredReply>,
    /// The last action that was taken into account.
    pub up_to: ActionId,
}

/// Reads the replies, oldest first, up to the one that decides.
pub fn judge(replies: &[Reply], window: &Window<'_>) -> Outcome {
    let from = window.seen.max(window.request);
    let mut outcome = Outcome {
        up_to: from,
        ..Outcome::default()
    };
    let fresh: Vec<&Reply> = replies.iter().filter(|r| r.id > from).collect();
    let mut assignment = Assignment::before(&fresh, window);
    for reply in fresh {
        outcome.up_to = outcome.up_to.max(reply.id);
        let assigned = assignment.assigned;
        assignment.assigned = reply.new_agent.or(assigned);
        let ours = reply.agent.is_some() && reply.agent == window.ourselves;
        if ours || (reply.text.trim().is_empty() && reply.html.trim().is_empty()) {
            continue;
        }
        let Some(agent) = reply.agent else {
            // The requester writes: for the agent to know, never a decision.
            outcome.messages.push(reply.id);
            continue;
        };
        let found = if reply.html.trim().is_empty() {
            reply::classify_text(&reply.text)
        } else {
            reply::classify_html(&reply.html)
        };
        match (
            found.intent,
            why_not(reply, agent, assigned, assignment.certain, window),
        ) {
            (Intent::Neutral, Some(WhyNot::Integration)) => {}
            (Intent::Neutral, _) => outcome.messages.push(reply.id),
            (_, Some(why)) => outcome.ignored.push(IgnoredReply {
                action: reply.id,
                why,
            }),
            (intent, None) => {
                outcome.decision = Some(Decision {
                    approve: intent == Intent::Approve,
                    by: agent,
                    action: reply.id,
                    evidence: found.reason,
                });
                return outcome;
            }
        }
    }
    outcome
}

/// Whom the ticket is assigned to, as the replies are read.
struct Assignment {
    assigned: Option<TechnicianId>,
    /// Each assignment since the ticket was last read is known with its time.
    certain: bool,
}

impl Assignment {
    fn before(fresh: &[&Reply], window: &Window<'_>) -> Self {
        // An assignment that no action records may have been before a reply or after it.
        let recorded = fresh
            .iter()
            .fold(window.assigned_before, |assigned, reply| {
                reply.new_agent.or(assigned)
            });
        let nobody = window
            .assigned_before
            .is_none_or(|agent| agent == UNASSIGNED);
        // An unassigned ticket is its first technician's: nobody else's word could have counted.
        let taken = nobody && recorded == window.assigned_before;
        Self {
            assigned: if taken {
                window.assigned_now
            } else {
                window.assigned_before
            },
            certain: taken || recorded == window.assigned_now,
        }
    }
}

/// Why this technician's reply cannot decide; none: it can.
fn why_not(
    reply: &Reply,
    agent: TechnicianId,
    assigned: Option<TechnicianId>,
    certain: bool,
    window: &Window<'_>,
) -> Option<WhyNot> {
    let by_hand = window
        .applications
        .iter()
        .any(|p| pattern::matches(p, &reply.application));
    if agent == UNASSIGNED {
        Some(WhyNot::Nobody)
    } else if !by_hand {
        Some(WhyNot::Integration)
    } else if reply.mail {
        Some(WhyNot::Email)
    } else if window.approvers.contains(&agent) {
        None
    } else if assigned != Some(agent) {
        Some(WhyNot::NotAssigned)
    } else if !certain {
        Some(WhyNot::Reassigned)
    } else {
        None
    }
}

/// What an approval is bound to: the ticket, the request's number, and each step with its exact
/// arguments. The number makes the same steps, asked for again, another request.
pub fn hash<'a>(
    connection_uid: &str,
    ticket_id: i64,
    run: i32,
    number: i32,
    steps: impl IntoIterator<Item = &'a Step>,
) -> String {
    let mut digest = Sha256::new();
    digest.update(format!("{connection_uid}/{ticket_id}/{run}/{number}\n"));
    for step in steps {
        // Recomputed from what would run, not taken from what was noted. A step that is over does
        // not run again, and its arguments are cut: there the note has to do.
        let bound = match step.state.is_final() {
            true => step.hash.clone(),
            false => step_hash(&step.tool, &step.arguments, &step.pin),
        };
        digest.update(format!("{bound}\n"));
    }
    hex::encode(digest.finalize())
}

/// What a step is bound to: the tool, its definition where it is not ours, the arguments.
pub fn step_hash(tool: &str, arguments: &str, pin: &str) -> String {
    let mut digest = Sha256::new();
    for part in [tool, arguments, pin] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    hex::encode(digest.finalize())
}

/// The steps a request names, in its order; None when one is missing.
pub fn steps_of<'a>(approval: &Approval, steps: &'a [Step]) -> Option<Vec<&'a Step>> {
    approval
        .steps
        .iter()
        .map(|number| steps.iter().find(|s| s.number == *number))
        .collect()
}

/// The time between two polls of a ticket: not shorter than wanted, and all waiting tickets
/// together use at most a third of the request window.
pub fn poll_interval(
    wanted: Duration,
    waiting: usize,
    requests: u32,
    window: Duration,
) -> Duration {
    // A poll is two requests.
    let fair = 2.0 * waiting as f64 * window.as_secs_f64() / (f64::from(requests.max(1)) / 3.0);
    Duration::from_secs_f64(wanted.as_secs_f64().max(fair).clamp(1.0, 900.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(id: i64, agent: i64, text: &str) -> Reply {
        Reply {
            id: ActionId(id),
            agent: Some(TechnicianId(agent)),
            application: "nethelpdesk-agent-web-application".into(),
            text: text.into(),
            ..Reply::default()
        }
    }

    fn window(applications: &[String]) -> Window<'_> {
        Window {
            request: ActionId(5),
            seen: ActionId(5),
            assigned_before: Some(TechnicianId(3)),
            assigned_now: Some(TechnicianId(3)),
            ourselves: Some(TechnicianId(31)),
            applications,
            ..Window::default()
        }
    }

    /// Approved or not, and by which action.
    fn decided(outcome: &Outcome) -> Option<(bool, i64)> {
        outcome
            .decision
            .as_ref()
            .map(|decision| (decision.approve, decision.action.0))
    }

    #[derive(Default)]
    struct Case {
        what: &'static str,
        replies: Vec<Reply>,
        decision: Option<(bool, i64)>,
        messages: usize,
        ignored: usize,
    }

    fn check(cases: Vec<Case>) {
        let applications = ["nethelpdesk-*".to_string()];
        for case in cases {
            let outcome = judge(&case.replies, &window(&applications));
            assert_eq!(decided(&outcome), case.decision, "{}", case.what);
            assert_eq!(outcome.messages.len(), case.messages, "{}", case.what);
            assert_eq!(outcome.ignored.len(), case.ignored, "{}", case.what);
        }
    }

    #[test]
    fn who_counts() {
        let user = Reply {
            id: ActionId(6),
            text: "Approved, go ahead".into(),
            ..Reply::default()
        };
        let robot = Reply {
            application: "Zapier".into(),
            ..by(6, 3, "approved")
        };
        let mail = Reply {
            mail: true,
            ..by(6, 3, "approved")
        };
        check(vec![
            Case {
                what: "the assigned technician",
                replies: vec![by(6, 3, "Approved")],
                decision: Some((true, 6)),
                ..Case::default()
            },
            Case {
                what: "another technician",
                replies: vec![by(6, 4, "Approved")],
                ignored: 1,
                ..Case::default()
            },
            Case {
                what: "another technician, then the right one",
                replies: vec![by(6, 4, "no"), by(7, 3, "go ahead")],
                decision: Some((true, 7)),
                ignored: 1,
                ..Case::default()
            },
            Case {
                what: "ourselves",
                replies: vec![by(6, 31, "Approved")],
                ..Case::default()
            },
            Case {
                what: "the requester",
                replies: vec![user],
                messages: 1,
                ..Case::default()
            },
            Case {
                what: "an integration in their name",
                replies: vec![robot],
                ignored: 1,
                ..Case::default()
            },
            Case {
                what: "an e-mail in their name",
                replies: vec![mail],
                ignored: 1,
                ..Case::default()
            },
        ]);
    }

    #[test]
    fn which_reply_decides() {
        let quoted = Reply {
            html: "<p>see below</p><blockquote>approved</blockquote>".into(),
            ..by(6, 3, "see belowapproved")
        };
        check(vec![
            Case {
                what: "a no",
                replies: vec![by(6, 3, "No")],
                decision: Some((false, 6)),
                ..Case::default()
            },
            Case {
                what: "neutral",
                replies: vec![by(6, 3, "what is this?")],
                messages: 1,
                ..Case::default()
            },
            Case {
                what: "before the request",
                replies: vec![by(4, 3, "approved"), by(5, 3, "approved")],
                ..Case::default()
            },
            Case {
                what: "inside a quoted e-mail",
                replies: vec![quoted],
                messages: 1,
                ..Case::default()
            },
            Case {
                what: "the first decision counts",
                replies: vec![by(6, 3, "no"), by(7, 3, "yes")],
                decision: Some((false, 6)),
                ..Case::default()
            },
            Case {
                what: "a question before it is passed on",
                replies: vec![by(6, 3, "why?"), by(7, 3, "yes")],
                decision: Some((true, 7)),
                messages: 1,
                ..Case::default()
            },
        ]);
    }

    /// An action that assigns the ticket.
    fn assign(id: i64, to: i64) -> Reply {
        Reply {
            new_agent: Some(TechnicianId(to)),
            ..by(id, 9, "")
        }
    }

    /// The decision on a ticket that was assigned to one technician and now is to another.
    fn decided_between(
        replies: &[Reply],
        before: Option<i64>,
        now: Option<i64>,
    ) -> Option<(bool, i64)> {
        let applications = ["nethelpdesk-*".to_string()];
        let window = Window {
            assigned_before: before.map(TechnicianId),
            assigned_now: now.map(TechnicianId),
            ..window(&applications)
        };
        decided(&judge(replies, &window))
    }

    #[test]
    fn a_reassigned_ticket_is_decided_by_whom_it_was_assigned_to_then() {
        let takes_and_approves = Reply {
            new_agent: Some(TechnicianId(4)),
            ..by(6, 4, "yes")
        };
        for (what, replies, decision) in [
            (
                "assigned to another, who approves",
                vec![assign(6, 4), by(7, 4, "yes")],
                Some((true, 7)),
            ),
            (
                "approved, then assigned to another",
                vec![by(6, 3, "yes"), assign(7, 4)],
                Some((true, 6)),
            ),
            (
                "the former technician approves too late",
                vec![assign(6, 4), by(7, 3, "yes")],
                None,
            ),
            (
                "the next technician approves too early",
                vec![by(6, 4, "yes"), assign(7, 4)],
                None,
            ),
            ("reassigned without a trace", vec![by(6, 3, "yes")], None),
            ("and the other way round", vec![by(6, 4, "yes")], None),
            (
                "one takes the ticket and approves in a single action",
                vec![takes_and_approves],
                None,
            ),
        ] {
            let decided = decided_between(&replies, Some(3), Some(4));
            assert_eq!(decided, decision, "{what}");
        }
    }

    #[test]
    fn an_unassigned_ticket_is_decided_by_who_takes_it_before_it_is_read_again() {
        for (what, replies, before, now, decision) in [
            (
                "nobody is assigned",
                vec![by(6, 3, "yes")],
                Some(1),
                Some(1),
                None,
            ),
            (
                "unassigned, taken by the one who approves",
                vec![by(6, 3, "yes")],
                Some(1),
                Some(3),
                Some((true, 6)),
            ),
            (
                "unassigned, taken by another",
                vec![by(6, 3, "yes")],
                None,
                Some(4),
                None,
            ),
            (
                "unassigned, approved, then assigned with a trace",
                vec![by(6, 3, "yes"), assign(7, 3)],
                Some(1),
                Some(3),
                None,
            ),
        ] {
            let decided = decided_between(&replies, before, now);
            assert_eq!(decided, decision, "{what}");
        }
    }

    #[test]
    fn further_approvers_are_those_the_policy_names() {
        let applications = ["nethelpdesk-*".to_string()];
        let window = Window {
            approvers: &[TechnicianId(4)],
            ..window(&applications)
        };
        assert_eq!(
            decided(&judge(&[by(6, 4, "approved")], &window)),
            Some((true, 6))
        );
        assert_eq!(decided(&judge(&[by(6, 5, "approved")], &window)), None);
    }

    #[test]
    fn polls_stay_within_the_request_limit() {
        let seconds = Duration::from_secs;
        for (waiting, requests, interval) in [(1, 300, 10), (50, 300, 300), (50, 3000, 30)] {
            assert_eq!(
                poll_interval(seconds(10), waiting, requests, seconds(300)),
                seconds(interval)
            );
        }
    }

    #[test]
    fn the_hash_is_of_what_would_run() {
        assert_ne!(step_hash("a", "bc", ""), step_hash("ab", "c", ""));
        assert_ne!(step_hash("a", "{}", "1"), step_hash("a", "{}", "2"));
    }
}
