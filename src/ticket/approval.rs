//! Who said what about a request for approval: pure.
//!
//! Replies are read in order, from the last one seen. Only those of the agent
//! the ticket was assigned to when the reply was written decide, or of an agent a
//! ToolPolicy names as approver for every step; never our own, never an
//! integration's, never an e-mail, whose sender anybody can make up.

use super::reply::{self, Intent};
use crate::api::ticket::{Approval, Step};
use crate::halopsa::technicians::UNASSIGNED;
use crate::text::{hex, pattern};
use sha2::{Digest, Sha256};

/// An action on the ticket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub id: i64,
    /// The technician who wrote it. None: an end user, or HaloPSA itself.
    pub agent: Option<i64>,
    /// The application it was written with.
    pub application: String,
    /// It came as an e-mail.
    pub mail: bool,
    pub html: String,
    pub text: String,
    /// Whom the ticket is assigned to from this action on, where it says so.
    pub new_agent: Option<i64>,
}

/// What is known about the ticket when it is read.
#[derive(Clone, Debug, Default)]
pub struct Window<'a> {
    /// The action that asks. Earlier ones do not count.
    pub request: i64,
    pub seen: i64,
    /// Whom the ticket was assigned to at the last look, and is now.
    pub assigned_before: Option<i64>,
    pub assigned_now: Option<i64>,
    /// The HaloPSA agent we act as.
    pub ourselves: Option<i64>,
    /// Name patterns of the applications humans reply with.
    pub applications: &'a [String],
    /// Agents that may approve besides the assigned one.
    pub approvers: &'a [i64],
}

/// What the replies come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Approve or deny: (yes, agent, action, what it was seen by).
    pub decision: Option<(bool, i64, i64, String)>,
    /// For the agent to read.
    pub messages: Vec<i64>,
    /// Looked like a decision and does not count: (action, why).
    pub ignored: Vec<(i64, &'static str)>,
    /// The last action that was taken into account.
    pub up_to: i64,
}

/// Reads the replies, oldest first, up to the one that decides.
pub fn judge(replies: &[Reply], window: &Window<'_>) -> Outcome {
    let from = window.seen.max(window.request);
    let mut outcome = Outcome {
        up_to: from,
        ..Outcome::default()
    };
    let fresh = || replies.iter().filter(|r| r.id > from);
    // An assignment that no action tells of may have been before a reply or after it.
    let told = fresh().fold(window.assigned_before, |assigned, r| {
        r.new_agent.or(assigned)
    });
    let nobody = window
        .assigned_before
        .is_none_or(|agent| agent == UNASSIGNED);
    // One that was nobody's is taken by its first agent: no other's word could have counted.
    let taken = nobody && told == window.assigned_before;
    let certain = taken || told == window.assigned_now;
    let mut assigned = if taken {
        window.assigned_now
    } else {
        window.assigned_before
    };
    for reply in fresh() {
        outcome.up_to = outcome.up_to.max(reply.id);
        let assigned_then = assigned;
        assigned = reply.new_agent.or(assigned);
        let ours = reply.agent.is_some() && reply.agent == window.ourselves;
        if ours || (reply.text.trim().is_empty() && reply.html.trim().is_empty()) {
            continue;
        }
        let verdict = if reply.html.trim().is_empty() {
            reply::classify_text(&reply.text)
        } else {
            reply::classify_html(&reply.html)
        };
        let decides = verdict.intent != Intent::Neutral;
        let Some(agent) = reply.agent else {
            // The requester writes: for the agent to know, never a decision.
            outcome.messages.push(reply.id);
            continue;
        };
        let why_not = if agent == UNASSIGNED {
            Some("nobody's")
        } else if !window
            .applications
            .iter()
            .any(|p| pattern::matches(p, &reply.application))
        {
            Some("written by an integration, not by a person in HaloPSA")
        } else if reply.mail {
            Some("an e-mail, whose sender can be made up")
        } else if window.approvers.contains(&agent) {
            None
        } else if assigned_then != Some(agent) {
            Some("not by the agent the ticket was assigned to")
        } else if !certain {
            Some("the ticket was assigned anew around it; reply again")
        } else {
            None
        };
        match (decides, why_not) {
            (true, None) => {
                outcome.decision = Some((
                    verdict.intent == Intent::Approve,
                    agent,
                    reply.id,
                    verdict.reason,
                ));
                return outcome;
            }
            (true, Some(why)) => outcome.ignored.push((reply.id, why)),
            (false, Some("written by an integration, not by a person in HaloPSA")) => {}
            (false, _) => outcome.messages.push(reply.id),
        }
    }
    outcome
}

/// What an approval is bound to: the ticket, and each step with its exact arguments.
pub fn hash<'a>(
    connection_uid: &str,
    ticket_id: i64,
    run: i32,
    steps: impl IntoIterator<Item = &'a Step>,
) -> String {
    let mut digest = Sha256::new();
    digest.update(format!("{connection_uid}/{ticket_id}/{run}\n"));
    for step in steps {
        // Recomputed from what would run, not taken from what was noted.
        digest.update(format!(
            "{}\n",
            step_hash(&step.tool, &step.arguments, &step.pin)
        ));
    }
    hex::encode(&digest.finalize())
}

/// What a step is bound to: the tool, its definition where it is not ours, the arguments.
pub fn step_hash(tool: &str, arguments: &str, pin: &str) -> String {
    let mut digest = Sha256::new();
    for part in [tool, arguments, pin] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    hex::encode(&digest.finalize())
}

/// The steps a request names, in its order; None when one is missing.
pub fn steps_of<'a>(approval: &Approval, steps: &'a [Step]) -> Option<Vec<&'a Step>> {
    approval
        .steps
        .iter()
        .map(|number| steps.iter().find(|s| s.number == *number))
        .collect()
}

/// Seconds between two looks at a ticket: not more often than asked for, and all
/// waiting tickets together use at most a third of the request window.
pub fn poll_interval(wanted: f64, waiting: usize, requests: u32, window: f64) -> f64 {
    // A look is two requests.
    let fair = 2.0 * waiting as f64 * window / (f64::from(requests.max(1)) / 3.0);
    wanted.max(fair).clamp(1.0, 900.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(id: i64, agent: i64, text: &str) -> Reply {
        Reply {
            id,
            agent: Some(agent),
            application: "nethelpdesk-agent-web-application".into(),
            text: text.into(),
            ..Reply::default()
        }
    }

    fn window(applications: &[String]) -> Window<'_> {
        Window {
            request: 5,
            seen: 5,
            assigned_before: Some(3),
            assigned_now: Some(3),
            ourselves: Some(31),
            applications,
            ..Window::default()
        }
    }

    fn decided(outcome: &Outcome) -> Option<(bool, i64)> {
        outcome
            .decision
            .as_ref()
            .map(|(yes, _, action, _)| (*yes, *action))
    }

    #[test]
    fn who_counts() {
        let applications = ["nethelpdesk-*".to_string()];
        let user = |id| Reply {
            id,
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
        let quoted = Reply {
            html: "<p>see below</p><blockquote>approved</blockquote>".into(),
            ..by(6, 3, "see belowapproved")
        };
        for (what, replies, decision, messages, ignored) in [
            (
                "the assigned agent",
                vec![by(6, 3, "Approved")],
                Some((true, 6)),
                0,
                0,
            ),
            ("and no", vec![by(6, 3, "No")], Some((false, 6)), 0, 0),
            ("neutral", vec![by(6, 3, "what is this?")], None, 1, 0),
            ("another agent", vec![by(6, 4, "Approved")], None, 0, 1),
            (
                "another agent, then the right one",
                vec![by(6, 4, "no"), by(7, 3, "go ahead")],
                Some((true, 7)),
                0,
                1,
            ),
            ("ourselves", vec![by(6, 31, "Approved")], None, 0, 0),
            ("the requester", vec![user(6)], None, 1, 0),
            ("an integration in his name", vec![robot], None, 0, 1),
            ("an e-mail in his name", vec![mail], None, 0, 1),
            (
                "before the request",
                vec![by(4, 3, "approved"), by(5, 3, "approved")],
                None,
                0,
                0,
            ),
            ("inside a quoted mail", vec![quoted], None, 1, 0),
            (
                "the first decision counts",
                vec![by(6, 3, "no"), by(7, 3, "yes")],
                Some((false, 6)),
                0,
                0,
            ),
            (
                "a question before it goes along",
                vec![by(6, 3, "why?"), by(7, 3, "yes")],
                Some((true, 7)),
                1,
                0,
            ),
        ] {
            let outcome = judge(&replies, &window(&applications));
            assert_eq!(
                (
                    decided(&outcome),
                    outcome.messages.len(),
                    outcome.ignored.len()
                ),
                (decision, messages, ignored),
                "{what}"
            );
        }
    }

    #[test]
    fn whom_the_ticket_was_assigned_to_then() {
        let applications = ["nethelpdesk-*".to_string()];
        let assign = |id, to| Reply {
            id,
            agent: Some(9),
            new_agent: Some(to),
            application: "nethelpdesk-x".into(),
            ..Reply::default()
        };
        for (what, replies, before, now, decision) in [
            (
                "assigned to another, who approves",
                vec![assign(6, 4), by(7, 4, "yes")],
                Some(3),
                Some(4),
                Some((true, 7)),
            ),
            (
                "approved, then assigned to another",
                vec![by(6, 3, "yes"), assign(7, 4)],
                Some(3),
                Some(4),
                Some((true, 6)),
            ),
            (
                "the former one approves too late",
                vec![assign(6, 4), by(7, 3, "yes")],
                Some(3),
                Some(4),
                None,
            ),
            (
                "the next one approves too early",
                vec![by(6, 4, "yes"), assign(7, 4)],
                Some(3),
                Some(4),
                None,
            ),
            (
                "assigned anew without a trace",
                vec![by(6, 3, "yes")],
                Some(3),
                Some(4),
                None,
            ),
            (
                "and the other way round",
                vec![by(6, 4, "yes")],
                Some(3),
                Some(4),
                None,
            ),
            (
                "nobody is assigned",
                vec![by(6, 3, "yes")],
                Some(1),
                Some(1),
                None,
            ),
            (
                "nobody's, taken by the one who approves",
                vec![by(6, 3, "yes")],
                Some(1),
                Some(3),
                Some((true, 6)),
            ),
            (
                "nobody's, taken by another",
                vec![by(6, 3, "yes")],
                None,
                Some(4),
                None,
            ),
            (
                "nobody's, approved, then assigned with a trace",
                vec![by(6, 3, "yes"), assign(7, 3)],
                Some(1),
                Some(3),
                None,
            ),
            (
                "takes it and approves in one action",
                vec![Reply {
                    new_agent: Some(4),
                    ..by(6, 4, "yes")
                }],
                Some(3),
                Some(4),
                None,
            ),
        ] {
            let window = Window {
                assigned_before: before,
                assigned_now: now,
                ..window(&applications)
            };
            assert_eq!(decided(&judge(&replies, &window)), decision, "{what}");
        }
    }

    #[test]
    fn further_approvers_are_those_the_policy_names() {
        let applications = ["nethelpdesk-*".to_string()];
        let window = Window {
            approvers: &[4],
            ..window(&applications)
        };
        assert_eq!(
            decided(&judge(&[by(6, 4, "approved")], &window)),
            Some((true, 6))
        );
        assert_eq!(decided(&judge(&[by(6, 5, "approved")], &window)), None);
    }

    #[test]
    fn looks_stay_within_the_request_limit() {
        assert_eq!(poll_interval(10.0, 1, 300, 300.0), 10.0);
        assert_eq!(poll_interval(10.0, 50, 300, 300.0), 300.0);
        assert_eq!(poll_interval(10.0, 50, 3000, 300.0), 30.0);
    }

    #[test]
    fn the_hash_is_of_what_would_run() {
        assert_ne!(step_hash("a", "bc", ""), step_hash("ab", "c", ""));
        assert_ne!(step_hash("a", "{}", "1"), step_hash("a", "{}", "2"));
    }
}
