//! Who said what about a request for approval. Pure.
//!
//! Replies are read in order, from the last one seen. Only the technician the ticket was assigned
//! to when the reply was written decides, or one whom a ToolPolicy names as approver for every
//! step. Our own replies never count, nor those of an integration, nor e-mails, whose sender can
//! be forged, nor what the requester can read.
//!
//! - here: whose reply is read, in which order
//! - [`explicit`]: replies that name the request, like `approve 2`
//! - [`binding`]: is a yes about what was asked

mod binding;
pub mod explicit;

use super::reply::{self, Classification, Intent};
use crate::api::ticket::{Approval, IntentKind, Step, TicketStatus};
use crate::halopsa::technicians::UNASSIGNED;
use crate::halopsa::types;
use crate::ids::{ActionId, TechnicianId};
use crate::text::{hex, pattern};
use k8s_openapi::jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::fmt;
use std::time::Duration;

/// What somebody wrote who cannot decide is classified only to tell them so, and only up to this
/// length, in bytes: strangers do not choose how much work that is.
const MAX_HEARD: usize = 4 * 1024;

/// An action on the ticket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub id: ActionId,
    /// When it was written, where HaloPSA says so.
    pub at: Option<Timestamp>,
    /// The technician who wrote it. None: an end user, or HaloPSA itself.
    pub agent: Option<TechnicianId>,
    /// The author's name.
    pub name: String,
    /// The application it was written with.
    pub application: String,
    /// It came as an e-mail.
    pub mail: bool,
    /// Only technicians can read it, and it was sent to nobody.
    pub internal: bool,
    /// The action it answers, where HaloPSA says so.
    pub replied_to: Option<ActionId>,
    pub html: String,
    pub text: String,
    /// Whom the ticket is assigned to from this action on, where it says so.
    pub new_agent: Option<TechnicianId>,
}

impl From<&types::Action> for Reply {
    fn from(action: &types::Action) -> Self {
        let direction = action.emaildirection.trim().to_ascii_lowercase();
        let (incoming, outgoing) = (direction.starts_with('i'), direction.starts_with('o'));
        Self {
            id: action.id,
            at: action.datetime,
            agent: action
                .who_agentid
                .filter(|id| id.0 > 0 && action.who_type.is_none_or(|t| t == 1)),
            name: action.who.clone(),
            application: action.actionby_application_id.clone(),
            mail: incoming,
            internal: action.hiddenfromuser && !incoming && !outgoing,
            replied_to: action.replied_to_action_id.filter(|id| id.0 > 0),
            html: action.note_html.clone(),
            text: action.note.clone(),
            new_agent: action.new_agent.filter(|id| id.0 > 0),
        }
    }
}

impl Reply {
    fn is_empty(&self) -> bool {
        self.text.trim().is_empty() && self.html.trim().is_empty()
    }

    fn classify(&self) -> Classification {
        match self.html.trim().is_empty() {
            true => reply::classify_text(&self.text),
            false => reply::classify_html(&self.html),
        }
    }

    /// Whether it looks like a yes or a no to somebody's request.
    fn looks_decisive(&self) -> bool {
        let size = self.html.len().max(self.text.len());
        size <= MAX_HEARD
            && (explicit::read(self).is_some() || self.classify().intent != Intent::Neutral)
    }
}

/// What is known about the ticket when its replies are read.
#[derive(Clone, Debug, Default)]
pub struct Window<'a> {
    /// The action that asks. Earlier ones do not count.
    pub request: ActionId,
    /// The request's number and code, as the action shows them.
    pub number: i32,
    pub code: &'a str,
    /// A yes has to name number and code: a step is high-risk.
    pub needs_code: bool,
    /// Another request may have been on the ticket before this one.
    pub follows: bool,
    /// Notes of ours that hold nothing of an AI agent's, like reminders.
    pub own_notes: Vec<ActionId>,
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

impl<'a> Window<'a> {
    /// What the Ticket says about its request. Who is who in HaloPSA is left open.
    pub fn of(status: &TicketStatus, request: &'a Approval) -> Self {
        Self {
            // A request that is not on the ticket is answered by nothing.
            request: request.action_id.unwrap_or(ActionId(i64::MAX)),
            number: request.number,
            code: &request.code,
            needs_code: needs_code(request, &status.steps),
            follows: request.number > 1 || status.run > 0,
            own_notes: own_notes(status),
            seen: status.seen_action.unwrap_or_default(),
            assigned_before: request.assigned_agent,
            ..Self::default()
        }
    }

    fn is_ours(&self, reply: &Reply) -> bool {
        reply.agent.is_some() && reply.agent == self.ourselves
    }
}

/// Whether a yes to the request has to name its number and code. A step that is not there counts
/// as high-risk.
pub fn needs_code(request: &Approval, steps: &[Step]) -> bool {
    steps_of(request, steps).is_none_or(|steps| steps.iter().any(|s| s.high_risk))
}

/// Notes of this run in which an AI agent has no say.
pub fn own_notes(status: &TicketStatus) -> Vec<ActionId> {
    let ours = |kind| {
        matches!(
            kind,
            IntentKind::Reminder | IntentKind::ReplyNote | IntentKind::VerificationNote
        )
    };
    let notes = status.intents.iter();
    notes
        .filter(|i| i.run == status.run && ours(i.kind))
        .filter_map(|i| i.action_id)
        .collect()
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
    /// The requester can read it: it may be an answer to them.
    Public,
    NotAssigned,
    /// Whom the ticket was assigned to when it was written is not certain.
    Reassigned,
    /// It answers an action that is not the request.
    AnotherNote,
    /// The AI agent wrote on the ticket after the request.
    Between,
    /// It may have been written for the request before this one.
    TooSoon,
    /// A high-risk step is approved by number and code only.
    CodeNeeded,
    WrongNumber,
    WrongCode,
    /// The request is too far back to read all that was said since.
    TooMany,
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WhyNot::Nobody => "HaloPSA does not name its author",
            WhyNot::Integration => "written by an integration, not by a person in HaloPSA",
            WhyNot::Email => "sent by e-mail, where the sender can be forged",
            WhyNot::Public => "the requester can read it; decide with a private note",
            WhyNot::NotAssigned => "not from the technician the ticket was assigned to",
            WhyNot::Reassigned => "the ticket was reassigned around that time; reply again",
            WhyNot::AnotherNote => "it answers another note, not the request",
            WhyNot::Between => "the AI agent wrote on the ticket after the request",
            WhyNot::TooSoon => "it came within a minute of a new request",
            WhyNot::CodeNeeded => {
                "a step is high-risk, so a yes has to name the request's number and code"
            }
            WhyNot::WrongNumber => "it names another request",
            WhyNot::WrongCode => "the code is not the one of the request",
            WhyNot::TooMany => {
                "too much was written on the ticket since the request to read all of it; \
                 the request will expire"
            }
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

/// What one reply comes to.
enum Heard {
    Decides(Decision),
    Ignored(WhyNot),
    /// It is for the agent.
    Message,
    Nothing,
}

/// Reads the replies, oldest first, up to the one that decides. `replies` go back to the request:
/// those already seen still tell what was said between it and a later reply.
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
        if window.is_ours(reply) || reply.is_empty() {
            continue;
        }
        let Some(agent) = reply.agent else {
            // The requester writes: for the agent to know, never a decision.
            outcome.messages.push(reply.id);
            continue;
        };
        // Who wrote it comes first: most texts need not be understood.
        let heard = match why_not(reply, agent, assigned, assignment.certain, window) {
            Some(why) => without_say(reply, why),
            None => decides(reply, agent, replies, window),
        };
        match heard {
            Heard::Decides(decision) => {
                outcome.decision = Some(decision);
                return outcome;
            }
            Heard::Ignored(why) => outcome.ignored.push(IgnoredReply {
                action: reply.id,
                why,
            }),
            Heard::Message => outcome.messages.push(reply.id),
            Heard::Nothing => {}
        }
    }
    outcome
}

/// A reply by somebody who cannot decide with it.
fn without_say(reply: &Reply, why: WhyNot) -> Heard {
    match (reply.looks_decisive(), why) {
        (true, why) => Heard::Ignored(why),
        (false, WhyNot::Integration) => Heard::Nothing,
        (false, _) => Heard::Message,
    }
}

/// A reply by somebody who can decide. A no needs less than a yes: it runs nothing.
fn decides(reply: &Reply, by: TechnicianId, replies: &[Reply], window: &Window<'_>) -> Heard {
    let (approve, evidence, why) = match explicit::read(reply) {
        Some(named) => {
            let evidence = named.evidence().to_string();
            (named.approve, evidence, binding::of_named(&named, window))
        }
        None => {
            let Classification { intent, reason } = reply.classify();
            match intent {
                Intent::Neutral => return Heard::Message,
                Intent::Deny => (false, reason, None),
                Intent::Approve => (true, reason, binding::of_words(reply, replies, window)),
            }
        }
    };
    match why {
        Some(why) => Heard::Ignored(why),
        None => Heard::Decides(Decision {
            approve,
            by,
            action: reply.id,
            evidence,
        }),
    }
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
    } else if !reply.internal {
        Some(WhyNot::Public)
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

/// What an approval is bound to: the ticket, the request's number and code, and each step with its
/// exact arguments, its risk and who may approve it. The number makes the same steps, asked for
/// again, another request; the code cannot be known before.
pub fn hash<'a>(
    connection_uid: &str,
    ticket_id: i64,
    run: i32,
    number: i32,
    code: &str,
    steps: impl IntoIterator<Item = &'a Step>,
) -> String {
    let mut digest = Sha256::new();
    digest.update(format!(
        "{connection_uid}/{ticket_id}/{run}/{number}/{code}\n"
    ));
    for step in steps {
        // Recomputed from what would run, not taken from what was noted. A step that is over does
        // not run again, and its arguments are cut: there the note has to do.
        let bound = match step.state.is_final() {
            true => step.hash.clone(),
            false => step_hash(&step.tool, &step.arguments, &step.pin),
        };
        let approvers = serde_json::to_string(&step.approvers).unwrap_or_default();
        digest.update(format!("{bound}/{}/{approvers}\n", step.high_risk));
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
            internal: true,
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
    fn what_somebody_without_a_say_writes_is_read_only_if_it_is_short() {
        let applications = ["nethelpdesk-*".to_string()];
        let window = window(&applications);
        let long = format!("<p>Approved</p>{}", "<br>".repeat(MAX_HEARD));
        let reply = |html: &str| Reply {
            html: html.into(),
            ..by(6, 4, "Approved")
        };
        assert_eq!(judge(&[reply("<p>Approved</p>")], &window).ignored.len(), 1);
        let outcome = judge(&[reply(&long)], &window);
        assert_eq!((outcome.ignored.len(), outcome.messages.len()), (0, 1));
    }

    #[test]
    fn an_action_as_a_reply() {
        let action = |direction: &str, hidden: bool| {
            Reply::from(&types::Action {
                emaildirection: direction.into(),
                hiddenfromuser: hidden,
                ..types::Action::default()
            })
        };
        for (direction, hidden, mail, internal) in [
            ("", true, false, true),
            ("", false, false, false),
            ("O", true, false, false),
            ("O", false, false, false),
            ("i", true, true, false),
            ("Incoming", false, true, false),
        ] {
            let reply = action(direction, hidden);
            assert_eq!(
                (reply.mail, reply.internal),
                (mail, internal),
                "{direction}"
            );
        }
    }

    fn step() -> Step {
        Step {
            number: 1,
            run: 0,
            tool: "t".into(),
            arguments: "{}".into(),
            hash: "h".into(),
            pin: String::new(),
            why: None,
            rule: String::new(),
            state: crate::api::ticket::StepState::Waiting,
            marker: String::new(),
            recorded_at: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                Timestamp::UNIX_EPOCH,
            ),
            result: None,
            approvers: None,
            high_risk: false,
        }
    }

    #[test]
    fn the_hash_is_of_what_would_run() {
        assert_ne!(step_hash("a", "bc", ""), step_hash("ab", "c", ""));
        assert_ne!(step_hash("a", "{}", "1"), step_hash("a", "{}", "2"));
        let risky = Step {
            high_risk: true,
            ..step()
        };
        let team = Step {
            approvers: Some(crate::api::policy::Approvers {
                team: Some("2nd Line".into()),
                agent_ids: None,
            }),
            ..step()
        };
        let asked = hash("u", 1, 0, 1, "K7QF", [&step()]);
        for other in [
            hash("u", 1, 0, 2, "K7QF", [&step()]),
            hash("u", 1, 0, 1, "K7QX", [&step()]),
            hash("u", 1, 0, 1, "K7QF", [&risky]),
            hash("u", 1, 0, 1, "K7QF", [&team]),
        ] {
            assert_ne!(asked, other);
        }
    }
}
