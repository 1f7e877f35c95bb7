//! Is a yes about what was asked? It is if it names the request, answers its action, or was
//! written while nothing else could be meant. Pure.

use super::explicit::Explicit;
use super::{Reply, WhyNot, Window};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// For this long after a request that follows another, a yes may be for the earlier one.
const SETTLES: SignedDuration = SignedDuration::from_secs(60);
/// How the markers in our notes begin.
const OUR_MARKER: &str = "rallied-";

/// Why a decision that names a request is not about this one; none: it is.
pub(super) fn of_named(named: &Explicit, window: &Window<'_>) -> Option<WhyNot> {
    let right = |number: i32| number == window.number;
    let fits = |code: &String| !window.code.is_empty() && code == window.code;
    if named.number.is_some_and(|number| !right(number)) {
        Some(WhyNot::WrongNumber)
    } else if named.code.as_ref().is_some_and(|code| !fits(code)) {
        Some(WhyNot::WrongCode)
    } else if named.approve && window.needs_code && (named.number.is_none() || named.code.is_none())
    {
        Some(WhyNot::CodeNeeded)
    } else {
        None
    }
}

/// Why a yes in somebody's own words may be about something else; none: it cannot be.
pub(super) fn of_words(reply: &Reply, replies: &[Reply], window: &Window<'_>) -> Option<WhyNot> {
    if window.needs_code {
        return Some(WhyNot::CodeNeeded);
    }
    match reply.replied_to {
        Some(to) if to == window.request => return None,
        Some(to) if !window.own_notes.contains(&to) => return Some(WhyNot::AnotherNote),
        _ => {}
    }
    // Without knowing who we are, nobody can say which notes are the AI agent's.
    if window.ourselves.is_none() || replies.iter().any(|r| is_between(r, reply, window)) {
        return Some(WhyNot::Between);
    }
    (window.follows && !is_late(reply, replies, window)).then_some(WhyNot::TooSoon)
}

/// Whether a note may hold an AI agent's words that the reply is an answer to.
fn is_between(note: &Reply, reply: &Reply, window: &Window<'_>) -> bool {
    note.id > window.request
        && note.id < reply.id
        && (window.is_ours(note) || note.text.contains(OUR_MARKER))
        && !window.own_notes.contains(&note.id)
}

/// Whether the reply was written when the request had been there for a while. Both times are
/// HaloPSA's.
fn is_late(reply: &Reply, replies: &[Reply], window: &Window<'_>) -> bool {
    let asked: Option<Timestamp> = replies
        .iter()
        .find(|r| r.id == window.request)
        .and_then(|r| r.at);
    match (asked, reply.at) {
        (Some(asked), Some(at)) => at.duration_since(asked) > SETTLES,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Reply, WhyNot, Window, judge};
    use crate::ids::{ActionId, TechnicianId};
    use k8s_openapi::jiff::Timestamp;
    use proptest::prelude::*;

    const DANA: i64 = 3;
    const US: i64 = 31;

    fn at(second: i64) -> Option<Timestamp> {
        Timestamp::from_second(1_800_000_000 + second).ok()
    }

    fn says(id: i64, agent: i64, second: i64, text: &str) -> Reply {
        Reply {
            id: ActionId(id),
            at: at(second),
            agent: Some(TechnicianId(agent)),
            application: "nethelpdesk-agent-web-application".into(),
            internal: true,
            text: text.into(),
            ..Reply::default()
        }
    }

    /// Request 2 is action 5, ten seconds before the first reply.
    fn asked() -> Reply {
        Reply {
            application: "Rallied Agent".into(),
            ..says(
                5,
                US,
                0,
                "Rallied: approval needed Reference: rallied-0011-0-ask-1",
            )
        }
    }

    fn window(applications: &[String]) -> Window<'_> {
        Window {
            request: ActionId(5),
            seen: ActionId(5),
            number: 2,
            code: "K7QF",
            assigned_before: Some(TechnicianId(DANA)),
            assigned_now: Some(TechnicianId(DANA)),
            ourselves: Some(TechnicianId(US)),
            applications,
            ..Window::default()
        }
    }

    type Change = fn(&mut Window<'_>);

    /// Approved or not, or why it does not count.
    fn judged(replies: &[Reply], change: Change) -> Result<bool, Option<WhyNot>> {
        let applications = ["nethelpdesk-*".to_string()];
        let mut window = window(&applications);
        change(&mut window);
        let mut all = vec![asked()];
        all.extend_from_slice(replies);
        let outcome = judge(&all, &window);
        match outcome.decision {
            Some(decision) => Ok(decision.approve),
            None => Err(outcome.ignored.last().map(|ignored| ignored.why)),
        }
    }

    const PLAIN: Change = |_| {};
    const RISKY: Change = |w| w.needs_code = true;
    const FOLLOWS: Change = |w| w.follows = true;

    #[test]
    fn what_is_said_after_the_agent_spoke_names_the_request() {
        let agent = || Reply {
            application: "Rallied Agent".into(),
            ..says(
                6,
                US,
                20,
                "Only to read the log. Shall I tell Kim that we are on it?",
            )
        };
        let yes = |text| [agent(), says(7, DANA, 300, text)];
        assert_eq!(
            judged(&yes("yes please"), PLAIN),
            Err(Some(WhyNot::Between))
        );
        assert_eq!(judged(&yes("approve 2"), PLAIN), Ok(true));
        assert_eq!(judged(&yes("no"), PLAIN), Ok(false), "a no runs nothing");
        // A note of ours whose author HaloPSA does not name.
        let nameless = Reply {
            agent: None,
            text: "Shall I? Reference: rallied-0011223344556677-0-turn001".into(),
            ..agent()
        };
        let replies = [nameless, says(7, DANA, 300, "yes please")];
        assert_eq!(judged(&replies, PLAIN), Err(Some(WhyNot::Between)));
        assert_eq!(
            judged(&yes("yes please"), |w| w.own_notes = vec![ActionId(6)]),
            Ok(true),
            "a reminder"
        );
        assert_eq!(
            judged(&yes("yes please")[1..], |w| w.ourselves = None),
            Err(Some(WhyNot::Between))
        );
        let answers = |to| {
            let reply = Reply {
                replied_to: Some(ActionId(to)),
                ..says(7, DANA, 300, "yes please")
            };
            judged(&[agent(), reply], PLAIN)
        };
        assert_eq!(answers(5), Ok(true), "it answers the request");
        assert_eq!(answers(6), Err(Some(WhyNot::AnotherNote)));
        // The agent spoke before this request was read for the first time.
        let seen = judged(&yes("yes please"), |w| w.seen = ActionId(6));
        assert_eq!(seen, Err(Some(WhyNot::Between)));
    }

    #[test]
    fn a_yes_right_after_a_replaced_request_names_the_new_one() {
        for (text, second, expected) in [
            ("Approved", 10, Err(Some(WhyNot::TooSoon))),
            ("Approved", 60, Err(Some(WhyNot::TooSoon))),
            ("Approved", 61, Ok(true)),
            ("approve 2", 10, Ok(true)),
            ("approve K7QF", 10, Ok(true)),
            ("approve 1", 90, Err(Some(WhyNot::WrongNumber))),
            ("approve 2 R4MN", 90, Err(Some(WhyNot::WrongCode))),
            ("deny 1", 90, Err(Some(WhyNot::WrongNumber))),
            ("deny", 10, Ok(false)),
        ] {
            let replies = [says(6, DANA, second, text)];
            assert_eq!(judged(&replies, FOLLOWS), expected, "{text} at {second}");
        }
        assert_eq!(judged(&[says(6, DANA, 10, "Approved")], PLAIN), Ok(true));
        let timeless = Reply {
            at: None,
            ..says(6, DANA, 0, "Approved")
        };
        assert_eq!(judged(&[timeless], FOLLOWS), Err(Some(WhyNot::TooSoon)));
    }

    #[test]
    fn a_high_risk_step_needs_number_and_code() {
        for (text, expected) in [
            ("Approved, go ahead", Err(Some(WhyNot::CodeNeeded))),
            ("approve 2", Err(Some(WhyNot::CodeNeeded))),
            ("approve K7QF", Err(Some(WhyNot::CodeNeeded))),
            ("approve 2 K7QX", Err(Some(WhyNot::WrongCode))),
            ("approve 2 K7QF", Ok(true)),
            ("genehmigt 2 k7qf", Ok(true)),
            ("deny 2", Ok(false)),
            ("No", Ok(false)),
        ] {
            let replies = [says(6, DANA, 100, text)];
            assert_eq!(judged(&replies, RISKY), expected, "{text}");
        }
        let answers = Reply {
            replied_to: Some(ActionId(5)),
            ..says(6, DANA, 100, "Approved")
        };
        assert_eq!(judged(&[answers], RISKY), Err(Some(WhyNot::CodeNeeded)));
        // A request that has no code is approved by none.
        let none: Change = |w| (w.needs_code, w.code) = (true, "");
        let replies = [says(6, DANA, 100, "approve 2 K7QF")];
        assert_eq!(judged(&replies, none), Err(Some(WhyNot::WrongCode)));
    }

    #[test]
    fn what_the_requester_can_read_decides_nothing() {
        let public = |text| Reply {
            internal: false,
            ..says(6, DANA, 100, text)
        };
        for text in ["Yes, go ahead.", "approve 2", "No"] {
            let judged = judged(&[public(text)], PLAIN);
            assert_eq!(judged, Err(Some(WhyNot::Public)), "{text}");
        }
        assert_eq!(judged(&[public("We are on it.")], PLAIN), Err(None));
    }

    proptest! {
        /// Whatever is said, a high-risk step does not run without number and code.
        #[test]
        fn no_words_approve_a_high_risk_step(text in "[a-zA-Z0-9 .,!]{0,60}") {
            prop_assume!(!text.to_uppercase().contains("K7QF"));
            prop_assert_ne!(judged(&[says(6, DANA, 100, &text)], RISKY), Ok(true));
        }

        /// Nor does anything run on words alone once the agent has spoken.
        #[test]
        fn no_unnamed_words_approve_after_the_agent_spoke(text in "[a-zA-Z .,!]{0,60}") {
            let replies = [says(6, US, 20, "Shall I?"), says(7, DANA, 300, &text)];
            prop_assert_ne!(judged(&replies, PLAIN), Ok(true));
        }
    }
}
