//! What a call of the model may use: reserved before it is sent, settled after it. Pure.
//!
//! A reservation counts in full at once, so that calls cannot share what is left between them, and
//! a call whose use is never learnt stays counted.

use crate::api::client::ModelUsage;
use crate::api::connection::ModelLimits;
use crate::api::ticket::{ModelReservation, ModelUse, TicketStatus};
use crate::ticket::state::Refused;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// A careful estimate: most text has fewer tokens.
const BYTES_PER_TOKEN: usize = 3;
/// The longest answer, in tokens, if the agent asks for none in particular.
const DEFAULT_ANSWER: i64 = 16_384;
/// With less than this left a call is not worth making.
const MIN_ANSWER: i64 = 500;

/// A call about to be made.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub id: String,
    /// The UTC day, like `2026-01-31`.
    pub today: String,
    /// The estimated tokens of the request.
    pub prompt: i64,
    /// The longest answer the agent asks for.
    pub answer: Option<i64>,
    /// When the call is over in any case.
    pub until: Timestamp,
}

/// The estimated tokens of a text of this length.
pub fn estimate(bytes: usize) -> i64 {
    i64::try_from(bytes / BYTES_PER_TOKEN).unwrap_or(i64::MAX)
}

/// What the client has used today: as recorded on it, and on its Tickets. A deleted Ticket is only
/// in the first, a call under way only in the second.
pub fn used_today(
    recorded: Option<&ModelUsage>,
    others: &[ModelUse],
    own: &ModelUse,
    today: &str,
) -> i64 {
    let mut with_calls = recorded.filter(|r| r.day == today).map_or(0, |r| r.tokens);
    let mut sum: i64 = 0;
    for used in others.iter().chain([own]).filter(|u| u.day == today) {
        let under_way = used.reserved.as_ref().map_or(0, |r| r.tokens);
        with_calls = with_calls.saturating_add(under_way);
        sum = sum.saturating_add(used.tokens_on_day);
    }
    sum.max(with_calls)
}

/// The ticket's use with the call reserved: prompt and longest answer.
pub fn reserve(
    status: &TicketStatus,
    limits: &ModelLimits,
    used_today: i64,
    wanted: &Wanted,
    now: Timestamp,
) -> Result<ModelUse, Refused> {
    let used = status.model.clone().unwrap_or_default();
    let lease = status.lease.as_ref().map_or("", |lease| lease.id.as_str());
    // The call of an agent that has lost the ticket holds up nobody; it stays counted in full.
    let is_under_way = |r: &ModelReservation| r.until.0 > now && r.lease == lease;
    if used.reserved.as_ref().is_some_and(is_under_way) {
        return Err(Refused::ModelBusy);
    }
    let left_of_ticket = limits.tokens_per_ticket.saturating_sub(used.tokens);
    let left_today = limits.tokens_per_day.saturating_sub(used_today);
    let least = wanted.answer.unwrap_or(MIN_ANSWER).min(MIN_ANSWER);
    let need = wanted.prompt.saturating_add(least);
    if left_of_ticket < need {
        return Err(Refused::OverBudget(format!(
            "this ticket's budget of {} tokens is used up ({} used)",
            limits.tokens_per_ticket, used.tokens
        )));
    }
    if left_today < need {
        return Err(Refused::OverBudget(format!(
            "the client's budget of {} tokens for {} is used up ({used_today} used)",
            limits.tokens_per_day, wanted.today
        )));
    }
    let same_turn = (used.run, used.turn) == (status.run, status.turn);
    let turn_calls = if same_turn { used.turn_calls } else { 0 };
    if turn_calls >= i64::from(limits.steps_per_turn) {
        return Err(Refused::OverBudget(format!(
            "the model was asked {} times in this turn, which is the limit",
            limits.steps_per_turn
        )));
    }
    let left = left_of_ticket.min(left_today).saturating_sub(wanted.prompt);
    let answer = wanted.answer.unwrap_or(DEFAULT_ANSWER).min(left);
    let tokens = wanted.prompt.saturating_add(answer);
    let on_day = if used.day == wanted.today {
        used.tokens_on_day
    } else {
        0
    };
    Ok(ModelUse {
        tokens: used.tokens.saturating_add(tokens),
        calls: used.calls.saturating_add(1),
        day: wanted.today.clone(),
        tokens_on_day: on_day.saturating_add(tokens),
        run: status.run,
        turn: status.turn,
        turn_calls: turn_calls + 1,
        reserved: Some(ModelReservation {
            id: wanted.id.clone(),
            lease: lease.into(),
            tokens,
            until: Time(wanted.until),
        }),
    })
}

/// The use once the call's is known. A reservation that is no longer there was counted in full.
pub fn settle(used: &ModelUse, id: &str, tokens: i64) -> ModelUse {
    let mut next = used.clone();
    if let Some(reserved) = next.reserved.take_if(|r| r.id == id) {
        let difference = tokens.saturating_sub(reserved.tokens);
        next.tokens = next.tokens.saturating_add(difference).max(0);
        next.tokens_on_day = next.tokens_on_day.saturating_add(difference).max(0);
    }
    next
}

/// What is known of a call's use when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// The provider did not take the call.
    Nothing,
    /// As the provider counts.
    Counted(i64),
    /// A whole answer of so many bytes, which the provider did not count.
    Answer(usize),
    /// The call broke off: the provider may have done all of it.
    Unknown,
}

impl Used {
    /// In tokens, of a call with this reservation.
    pub fn tokens(self, prompt: i64, reserved: i64) -> i64 {
        match self {
            Used::Nothing => 0,
            Used::Counted(tokens) => tokens,
            Used::Answer(bytes) => prompt.saturating_add(estimate(bytes)).min(reserved),
            Used::Unknown => reserved,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ticket::Lease;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn limits() -> ModelLimits {
        ModelLimits {
            tokens_per_ticket: 10_000,
            tokens_per_day: 15_000,
            steps_per_turn: 2,
            ..ModelLimits::default()
        }
    }

    fn wanted(prompt: i64, answer: Option<i64>) -> Wanted {
        Wanted {
            id: "a".into(),
            today: "d".into(),
            prompt,
            answer,
            until: Timestamp::from_second(60).unwrap(),
        }
    }

    fn with(model: ModelUse) -> TicketStatus {
        TicketStatus {
            model: Some(model),
            ..TicketStatus::default()
        }
    }

    fn refusal(status: &TicketStatus, today: i64, wanted: &Wanted) -> String {
        let refused = reserve(status, &limits(), today, wanted, NOW).unwrap_err();
        refused.to_string()
    }

    #[test]
    fn budgets_end() {
        let new = TicketStatus::default();
        assert!(refusal(&new, 0, &wanted(9_900, None)).contains("ticket's budget"));
        assert!(refusal(&new, 14_400, &wanted(200, None)).contains("client's budget"));
        // What is left bounds the answer, whatever the agent asks for.
        for (prompt, answer, today, reserved) in [
            (1_000, None, 0, 10_000),
            (1_000, Some(2_000), 0, 3_000),
            (1_000, Some(i64::MAX), 0, 10_000),
            (1_000, None, 12_000, 3_000),
            (9_990, Some(10), 0, 10_000),
        ] {
            let used = reserve(&new, &limits(), today, &wanted(prompt, answer), NOW).unwrap();
            assert_eq!(used.tokens, reserved, "{prompt} {answer:?} {today}");
            assert_eq!((used.calls, used.turn_calls), (1, 1));
        }
        // The turn's calls end too; the next turn and the next day start at zero.
        let mut status = new;
        for _ in 0..2 {
            let used = reserve(&status, &limits(), 0, &wanted(10, Some(90)), NOW).unwrap();
            status = with(settle(&used, "a", 100));
        }
        assert!(refusal(&status, 200, &wanted(10, None)).contains("in this turn"));
        status.turn = 1;
        let mut tomorrow = wanted(10, Some(40));
        tomorrow.today = "e".into();
        let next = reserve(&status, &limits(), 0, &tomorrow, NOW).unwrap();
        assert_eq!(
            (next.tokens, next.tokens_on_day, next.turn_calls),
            (250, 50, 1)
        );
    }

    #[test]
    fn one_call_at_a_time_and_each_is_counted() {
        let first = reserve(
            &TicketStatus::default(),
            &limits(),
            0,
            &wanted(100, Some(900)),
            NOW,
        )
        .unwrap();
        let status = with(first.clone());
        let again = reserve(&status, &limits(), 0, &wanted(1, None), NOW);
        assert_eq!(again, Err(Refused::ModelBusy));
        for (used, tokens) in [
            (Used::Nothing, 0),
            (Used::Counted(42), 42),
            (Used::Answer(30), 110),
            (Used::Answer(1_000_000), 1_000),
            (Used::Unknown, 1_000),
        ] {
            let settled = settle(&first, "a", used.tokens(100, 1_000));
            assert_eq!((settled.tokens, settled.tokens_on_day), (tokens, tokens));
            assert_eq!((settled.calls, &settled.reserved), (1, &None));
        }
        assert_eq!(settle(&first, "b", 0), first, "not its reservation");
        // The next agent's call is its own.
        let mut handed_over = status.clone();
        handed_over.lease = Some(Lease {
            id: "l".into(),
            holder: "p".into(),
            expires_at: Time(NOW),
        });
        assert!(reserve(&handed_over, &limits(), 0, &wanted(1, None), NOW).is_ok());
        // A gateway that died settles nothing: the next call goes on, and both are counted.
        let later = Timestamp::from_second(61).unwrap();
        let second = reserve(&status, &limits(), 0, &wanted(100, Some(100)), later).unwrap();
        assert_eq!((second.tokens, second.calls), (1_200, 2));
    }

    #[test]
    fn deleting_tickets_does_not_reset_the_day() {
        let ticket = |day: &str, tokens, reserved: Option<i64>| ModelUse {
            day: day.into(),
            tokens_on_day: tokens,
            reserved: reserved.map(|tokens| ModelReservation {
                id: "x".into(),
                lease: "l".into(),
                tokens,
                until: Time(NOW),
            }),
            ..ModelUse::default()
        };
        let recorded = |day: &str| ModelUsage {
            day: day.into(),
            tokens: 500,
        };
        let own = ticket("d", 10, None);
        let others = [ticket("d", 100, Some(70)), ticket("c", 9_000, Some(9_000))];
        for (recorded, others, today) in [
            (None, &others[..], 110),
            (Some(recorded("d")), &others[..], 570),
            (Some(recorded("c")), &others[..], 110),
            (Some(recorded("d")), &others[..0], 500),
        ] {
            assert_eq!(used_today(recorded.as_ref(), others, &own, "d"), today);
        }
    }

    proptest! {
        /// Whatever is asked for in whatever order: the budget is never exceeded by more than the
        /// provider counts beyond what it was told.
        #[test]
        fn reservations_stay_within_the_budget(
            calls in prop::collection::vec((0i64..5_000, prop::option::of(1i64..50_000)), 0..30),
        ) {
            let mut status = TicketStatus::default();
            for (turn, (prompt, answer)) in calls.into_iter().enumerate() {
                status.turn = turn as i32;
                let used = status.model.as_ref().map_or(0, |m| m.tokens);
                if let Ok(next) = reserve(&status, &limits(), used, &wanted(prompt, answer), NOW) {
                    prop_assert!(next.tokens <= limits().tokens_per_ticket);
                    let tokens = next.reserved.as_ref().map_or(0, |r| r.tokens);
                    prop_assert!(tokens > prompt);
                    status.model = Some(settle(&next, "a", Used::Unknown.tokens(prompt, tokens)));
                }
            }
        }
    }
}
