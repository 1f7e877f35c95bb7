use super::*;
use crate::api::Mode;
use crate::api::ticket::{
    Approval, Intent, Resume, ResumeReason, Step, UncountedReply, VerificationState,
};
use crate::ids::{ActionId, TechnicianId};
use proptest::prelude::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn try_at(status: &TicketStatus, event: &Event, second: i64) -> Result<TicketStatus, Refused> {
    apply(status, event, Actor::Gateway, at(second))
}

/// A new ticket after these events, each with its second.
fn run(events: &[(Event, i64)]) -> TicketStatus {
    then(&received(at(0)), events)
}

fn then(status: &TicketStatus, events: &[(Event, i64)]) -> TicketStatus {
    events
        .iter()
        .fold(status.clone(), |status, (event, second)| {
            try_at(&status, event, *second).unwrap()
        })
}

fn claimed(lease: &str, until: i64) -> Event {
    Event::Claimed {
        lease: lease.into(),
        holder: "pod".into(),
        expires_at: at(until),
        mode: Mode::Plan,
    }
}

fn heartbeat(lease: &str, until: i64) -> Event {
    Event::Heartbeat {
        lease: lease.into(),
        expires_at: at(until),
    }
}

fn released(lease: &str) -> Event {
    Event::Released {
        lease: lease.into(),
        holder: "pod".into(),
    }
}

fn completed(lease: &str) -> Event {
    Event::Completed {
        lease: lease.into(),
    }
}

fn challenged(deadline: i64) -> Event {
    Event::VerificationStarted {
        challenge_id: "c".into(),
        reasons: vec!["mfa-reset: 'new phone'".into()],
        deadline: at(deadline),
        lease: None,
        newest_action: Some(ActionId(2)),
    }
}

fn challenge_sent() -> Event {
    Event::ChallengeSent {
        method: "push".into(),
        user_id: 7,
        address: "k***@x".into(),
    }
}

fn verified(challenge_id: &str) -> Event {
    Event::Verified {
        challenge_id: challenge_id.into(),
        valid_until: at(900),
    }
}

fn not_verified() -> Event {
    Event::VerificationFailed {
        challenge_id: "c".into(),
        state: VerificationState::Denied,
        message: "no".into(),
    }
}

fn skipped() -> Event {
    Event::VerificationSkipped {
        user_id: Some(7),
        valid_until: at(900),
    }
}

fn verify_again(deadline: i64) -> Event {
    Event::VerifyAgain {
        by: TechnicianId(3),
        action: ActionId(5),
        challenge_id: "d".into(),
        deadline: at(deadline),
    }
}

fn overridden() -> Event {
    Event::VerificationOverridden {
        by: TechnicianId(3),
        action: ActionId(6),
        user_id: Some(7),
        valid_until: at(900),
    }
}

fn intended(tag: Tag, marker: &str) -> Event {
    Event::WriteIntended {
        tag,
        marker: marker.into(),
    }
}

fn written(marker: &str, action_id: Option<i64>) -> Event {
    Event::WritePosted {
        marker: marker.into(),
        action_id: action_id.map(ActionId),
    }
}

fn step(number: i32) -> Step {
    Step {
        number,
        run: 0,
        tool: "halopsa_update_ticket".into(),
        arguments: "{}".into(),
        hash: format!("h{number}"),
        pin: String::new(),
        why: None,
        rule: "built-in".into(),
        state: StepState::Proposed,
        marker: format!("m-step{number:03}"),
        recorded_at: Time(at(0)),
        result: None,
        approvers: None,
        high_risk: false,
    }
}

fn proposed(lease: &str, number: i32) -> Event {
    Event::StepProposed {
        lease: lease.into(),
        step: Box::new(step(number)),
    }
}

fn started(lease: &str, number: i32) -> Event {
    Event::StepStarted {
        lease: lease.into(),
        step: Box::new(step(number)),
    }
}

fn sent(lease: &str, number: i32) -> Event {
    Event::StepSent {
        lease: lease.into(),
        number,
    }
}

fn ended(number: i32, state: StepState) -> Event {
    Event::StepEnded {
        number,
        state,
        result: "x".into(),
    }
}

fn taken(lease: &str, until: i64) -> Event {
    Event::StepsTaken {
        lease: lease.into(),
        holder: "gateway".into(),
        expires_at: at(until),
    }
}

fn finished(lease: &str) -> Event {
    Event::StepsFinished {
        lease: lease.into(),
    }
}

fn approval(steps: &[i32], expires: i64) -> Approval {
    Approval {
        number: 1,
        code: "K7QF".into(),
        hash: "abc".into(),
        steps: steps.to_vec(),
        state: ApprovalState::Preparing,
        expires_at: Time(at(expires)),
        remind_at: Some(Time(at(expires / 2))),
        action_id: None,
        assigned_agent: Some(TechnicianId(3)),
        decided_by: None,
        decided_action: None,
        decided_at: None,
        decided_after: None,
        ignored: Vec::new(),
    }
}

fn prepared(lease: &str, approval: Approval) -> Event {
    Event::ApprovalPrepared {
        lease: lease.into(),
        approval: Box::new(approval),
    }
}

fn requested(lease: &str, action: i64) -> Event {
    Event::ApprovalRequested {
        lease: lease.into(),
        action_id: Some(ActionId(action)),
    }
}

fn turn_ended(lease: &str) -> Event {
    Event::TurnEnded {
        lease: lease.into(),
    }
}

fn replies_seen(up_to: i64) -> Event {
    Event::RepliesSeen {
        up_to: ActionId(up_to),
        assigned_agent: Some(TechnicianId(3)),
    }
}

fn message(action: i64, assigned: i64) -> Event {
    Event::Messages {
        replies: vec![ActionId(action)],
        up_to: ActionId(action),
        assigned_agent: Some(TechnicianId(assigned)),
    }
}

fn approved(action: i64, messages: &[i64]) -> Event {
    Event::Approved {
        by: TechnicianId(3),
        action: ActionId(action),
        messages: messages.iter().copied().map(ActionId).collect(),
    }
}

fn denied(action: i64) -> Event {
    Event::Denied {
        by: TechnicianId(3),
        action: ActionId(action),
        messages: Vec::new(),
    }
}

fn ignored() -> Event {
    Event::Ignored {
        reason: Reason::Closed,
        message: "closed".into(),
    }
}

fn failed() -> Event {
    Event::Failed {
        reason: Reason::StepsNotRun,
        message: "broken".into(),
    }
}

fn reopened(request: &str) -> Event {
    Event::Reopened {
        request: request.into(),
    }
}

/// Two steps on the ticket, a technician asked about both.
fn asked() -> TicketStatus {
    run(&[
        (Event::Accepted, 0),
        (claimed("a", 60), 1),
        (proposed("a", 1), 2),
        (proposed("a", 2), 3),
        (prepared("a", approval(&[1, 2], 300)), 4),
        (requested("a", 9), 5),
    ])
}

#[test]
fn plan_mode_all_the_way() {
    let status = run(&[
        (Event::Accepted, 1),
        (claimed("a", 60), 2),
        (intended(Tag::Plan, "m"), 3),
        (written("m", Some(7)), 4),
        (completed("a"), 5),
    ]);
    assert_eq!(status.phase, Phase::Done);
    assert_eq!(status.intents[0].action_id, Some(ActionId(7)));
    assert!(status.lease.is_none());
    assert!(condition::is_true(&status.conditions, condition::FINISHED));
    assert_eq!(status.journal.last().unwrap().event, "Completed");
    assert_eq!(owed(&status), None);
}

#[test]
fn a_note_is_known_by_run_and_tag() {
    let status = run(&[
        (Event::Accepted, 1),
        (claimed("a", 60), 2),
        (intended(Tag::Turn(1), "m"), 3),
    ]);
    assert!(!posted(&status, &Tag::Turn(1)), "it may not have arrived");
    let mut status = then(&status, &[(written("m", None), 4)]);
    assert_eq!(status.intents[0].tag, "turn001");
    assert!(posted(&status, &Tag::Turn(1)));
    assert!(!posted(&status, &Tag::Turn(10)));
    status.run = 1;
    assert!(!posted(&status, &Tag::Turn(1)), "that was the run before");
    assert!(
        try_at(&status, &intended(Tag::Step(1), "n"), 5).is_err(),
        "a step is not a note"
    );
}

#[test]
fn a_dead_agent_loses_the_ticket_and_five_dead_agents_fail_it() {
    let mut status = run(&[(Event::Accepted, 0)]);
    for attempt in 1..=MAX_ATTEMPTS {
        let now = i64::from(attempt) * 100;
        status = then(&status, &[(claimed("x", now + 60), now)]);
        assert_eq!(
            try_at(&status, &Event::LeaseExpired, now + 59),
            Err(Refused::TooEarly)
        );
        assert_eq!(due(&status, at(now + 60)), Some(Event::LeaseExpired));
        status = then(&status, &[(Event::LeaseExpired, now + 60)]);
    }
    assert_eq!(status.phase, Phase::Failed);
    assert_eq!(owed(&status), Some(Owed::FailureNote));
}

#[test]
fn a_lost_lease_can_do_nothing() {
    let status = run(&[
        (Event::Accepted, 0),
        (claimed("a", 60), 1),
        (Event::LeaseExpired, 61),
        (claimed("b", 120), 62),
    ]);
    for event in [
        heartbeat("a", 200),
        completed("a"),
        released("a"),
        proposed("a", 1),
        started("a", 1),
        prepared("a", approval(&[1], 500)),
        turn_ended("a"),
    ] {
        assert_eq!(try_at(&status, &event, 63), Err(Refused::LeaseLost));
    }
}

#[test]
fn a_release_does_not_count_as_an_attempt() {
    let status = run(&[
        (Event::Accepted, 0),
        (claimed("a", 60), 1),
        (released("a"), 2),
    ]);
    assert_eq!((status.phase, status.attempts), (Phase::Ready, 0));
}

#[test]
fn reopening_starts_a_new_run_once_per_request() {
    let done = run(&[
        (Event::Accepted, 0),
        (claimed("a", 60), 1),
        (completed("a"), 2),
    ]);
    let again = then(&done, &[(reopened("1"), 3)]);
    assert_eq!(
        (again.phase, again.run, again.attempts),
        (Phase::Received, 1, 0)
    );
    let done = then(&again, &[(ignored(), 4)]);
    assert!(try_at(&done, &reopened("1"), 5).is_err());
    assert!(try_at(&done, &reopened("2"), 5).is_ok());
}

#[test]
fn a_verification_all_the_way() {
    let status = run(&[(challenged(300), 1), (challenge_sent(), 2)]);
    assert!(
        try_at(&status, &claimed("a", 60), 3).is_err(),
        "nobody gets it meanwhile"
    );
    assert_eq!(owed(&status), Some(Owed::VerificationNote));
    let passed = then(&status, &[(verified("c"), 10)]);
    assert_eq!(passed.phase, Phase::Ready);
    assert!(
        is_verified(&passed, Some(7), at(899)) && !is_verified(&passed, Some(7), at(900)),
        "for a time"
    );
    assert!(
        !is_verified(&passed, Some(8), at(20)) && !is_verified(&passed, None, at(20)),
        "for this requester"
    );
    // The first answer counts; one to another challenge never does.
    assert!(try_at(&passed, &not_verified(), 11).is_err());
    assert!(try_at(&status, &verified("x"), 11).is_err());
    let refused = then(&status, &[(not_verified(), 10)]);
    assert_eq!(
        (refused.phase, refused.verification.as_ref().unwrap().state),
        (Phase::Refused, VerificationState::Denied)
    );
    assert!(try_at(&refused, &verified("c"), 11).is_err(), "too late");
    let again = then(&refused, &[(verify_again(400), 20)]);
    assert_eq!(
        (again.phase, again.verification.as_ref().unwrap().number),
        (Phase::Verifying, 2)
    );
    assert_eq!(
        again.verification.as_ref().unwrap().newest_action,
        Some(ActionId(2)),
        "what was written since was not read"
    );
    let vouched_for = then(&again, &[(overridden(), 30)]);
    assert_eq!(vouched_for.phase, Phase::Ready);
    assert_eq!(
        vouched_for.verification.as_ref().unwrap().newest_action,
        Some(ActionId(6))
    );
}

#[test]
fn whoever_vouches_a_verification_is_of_one_requester() {
    let refused = run(&[(challenged(300), 1), (not_verified(), 2)]);
    for passed in [
        then(&refused, &[(overridden(), 3)]),
        run(&[(challenged(300), 1), (skipped(), 2)]),
        run(&[
            (challenged(300), 1),
            (challenge_sent(), 2),
            (verified("c"), 3),
        ]),
    ] {
        let state = passed.verification.as_ref().unwrap().state;
        assert!(is_verified(&passed, Some(7), at(40)), "{state:?}");
        assert!(!is_verified(&passed, Some(8), at(40)), "{state:?}");
        assert!(!is_verified(&passed, None, at(40)), "{state:?}");
    }
}

#[test]
fn only_so_many_calls_of_a_turn_run_without_approval() {
    let mut status = run(&[(Event::Accepted, 0), (claimed("a", 600), 1)]);
    let start = |status: &TicketStatus| Event::StepStarted {
        lease: "a".into(),
        step: Box::new(step(status.next_step())),
    };
    for count in 0..AUTO_STEPS {
        assert_eq!(status.auto_steps_in_turn(), count);
        let number = status.next_step();
        status = then(
            &status,
            &[(start(&status), 2), (ended(number, StepState::Done), 2)],
        );
    }
    let next = start(&status);
    assert_eq!(
        try_at(&status, &next, 3).unwrap_err(),
        Refused::TooManyAutoSteps
    );
    status.turn += 1;
    assert!(try_at(&status, &next, 3).is_ok(), "another turn");
}

#[test]
fn a_ticket_that_becomes_sensitive_is_taken_from_its_agent() {
    let working = run(&[(Event::Accepted, 0), (claimed("a", 60), 1)]);
    let started = |lease: Option<&str>| Event::VerificationStarted {
        challenge_id: "c".into(),
        reasons: Vec::new(),
        deadline: at(300),
        lease: lease.map(str::to_string),
        newest_action: None,
    };
    assert!(try_at(&working, &started(None), 2).is_err());
    assert!(try_at(&working, &started(Some("b")), 2).is_err());
    let paused = then(&working, &[(started(Some("a")), 2)]);
    assert_eq!(
        (paused.phase, paused.lease.is_none()),
        (Phase::Verifying, true)
    );
}

#[test]
fn an_approval_all_the_way() {
    let status = asked();
    assert_eq!(
        (status.phase, status.seen_action),
        (Phase::AwaitingApproval, Some(ActionId(9)))
    );
    assert_eq!(
        wakes_at(&status),
        Some(at(150)),
        "a reminder comes before the end"
    );
    let ran = then(
        &status,
        &[
            (approved(11, &[10]), 10),
            (taken("g", 60), 11),
            (sent("g", 1), 12),
            (ended(1, StepState::Done), 13),
            (sent("g", 2), 14),
            (ended(2, StepState::Failed), 15),
            (finished("g"), 16),
        ],
    );
    assert_eq!((ran.phase, ran.turn, ran.attempts), (Phase::Ready, 1, 0));
    assert_eq!(
        ran.resume,
        Some(Resume {
            reason: ResumeReason::StepsRun,
            replies: vec![ActionId(10)]
        })
    );
    assert!(ran.approval_is(ApprovalState::Executed));
    // The same yes again runs nothing.
    assert!(try_at(&ran, &approved(11, &[]), 20).is_err());
    assert!(try_at(&ran, &taken("g", 90), 20).is_err());
    let done = then(&ran, &[(claimed("b", 90), 21), (completed("b"), 22)]);
    assert_eq!((done.phase, done.resume), (Phase::Done, None));
}

#[test]
fn a_gateway_that_dies_hands_the_steps_to_the_next() {
    let status = then(
        &asked(),
        &[
            (approved(11, &[]), 10),
            (taken("g", 60), 11),
            (sent("g", 1), 12),
            (Event::LeaseExpired, 60),
        ],
    );
    assert_eq!(
        (status.phase, status.steps[0].state),
        (Phase::AwaitingApproval, StepState::Running)
    );
    assert!(
        try_at(&status, &claimed("agent", 200), 61).is_err(),
        "no agent gets it meanwhile"
    );
    let mut status = then(&status, &[(taken("h", 120), 61)]);
    // The first, if it is alive after all, cannot go on; what it had sent it may still report.
    assert_eq!(try_at(&status, &sent("g", 2), 62), Err(Refused::LeaseLost));
    assert!(try_at(&status, &ended(1, StepState::Done), 62).is_ok());
    // Five gateways that die fail the ticket, and a human is told.
    for n in 0..MAX_ATTEMPTS {
        let now = 200 + i64::from(n) * 100;
        status = then(&status, &[(Event::LeaseExpired, now)]);
        if status.phase.is_terminal() {
            break;
        }
        status = then(&status, &[(taken("h", now + 50), now + 1)]);
    }
    assert_eq!(
        (status.phase, status.steps[0].state, status.steps[1].state),
        (Phase::Failed, StepState::Unknown, StepState::Superseded)
    );
    assert_eq!(owed(&status), Some(Owed::FailureNote));
}

#[test]
fn a_denial_and_an_expiry_are_owed_a_note_and_run_nothing() {
    let refused = then(&asked(), &[(denied(11), 10)]);
    assert_eq!(
        (refused.phase, owed(&refused)),
        (Phase::Ready, Some(Owed::DecisionNote))
    );
    assert!(refused.steps.iter().all(|s| s.state == StepState::Denied));
    let expired = then(&asked(), &[(Event::DeadlinePassed, 300)]);
    assert_eq!(
        (expired.phase, owed(&expired)),
        (Phase::Done, Some(Owed::DecisionNote))
    );
    let noted = then(
        &expired,
        &[
            (intended(Tag::Decision(1), "m"), 301),
            (written("m", None), 302),
        ],
    );
    assert_eq!(owed(&noted), None);
    assert!(try_at(&noted, &approved(12, &[]), 303).is_err());
}

#[test]
fn a_message_resumes_the_agent_and_the_request_stays_open() {
    let resumed = then(&asked(), &[(message(10, 4), 10)]);
    assert_eq!(
        (resumed.phase, resumed.turn, resumed.seen_action),
        (Phase::Ready, 1, Some(ActionId(10)))
    );
    assert!(resumed.approval_is(ApprovalState::Requested));
    assert_eq!(resumed.steps[0].state, StepState::Waiting);
    let back = then(&resumed, &[(claimed("b", 90), 11), (turn_ended("b"), 12)]);
    assert_eq!(
        (back.phase, back.deadline.clone().map(|d| d.0)),
        (Phase::AwaitingApproval, Some(at(300)))
    );
    // A new step makes a new request, which replaces the old one.
    let second = Approval {
        number: 2,
        ..approval(&[1, 2, 3], 400)
    };
    let again = then(
        &resumed,
        &[
            (claimed("b", 90), 11),
            (proposed("b", 3), 12),
            (prepared("b", second), 13),
            (requested("b", 14), 14),
        ],
    );
    assert!(again.steps.iter().all(|s| s.state == StepState::Waiting));
    assert_eq!(again.approval.unwrap().action_id, Some(ActionId(14)));
}

/// The note of an earlier request is not the request, whatever was replied to it.
#[test]
fn a_request_is_newer_than_all_that_was_read() {
    let resumed = then(
        &asked(),
        &[
            (message(12, 4), 10),
            (claimed("b", 90), 11),
            (proposed("b", 3), 12),
        ],
    );
    let second = Approval {
        number: 2,
        ..approval(&[1, 2, 3], 400)
    };
    let preparing = then(&resumed, &[(prepared("b", second), 13)]);
    for action in [9, 12] {
        assert!(try_at(&preparing, &requested("b", action), 14).is_err());
    }
    assert!(try_at(&preparing, &requested("b", 13), 14).is_ok());
}

#[test]
fn the_last_action_read_before_the_yes_is_kept() {
    let status = then(&asked(), &[(replies_seen(10), 9), (approved(12, &[]), 10)]);
    let approval = status.approval.unwrap();
    assert_eq!(approval.decided_after, Some(ActionId(10)));
    assert_eq!(status.seen_action, Some(ActionId(12)));
}

#[test]
fn technicians_are_told_once_about_each_of_a_few_ignored_replies() {
    let reply = |action| UncountedReply {
        action: ActionId(action),
        why: "not from the technician the ticket was assigned to".into(),
    };
    let mut status = asked();
    assert_eq!(status.ignore(&[reply(10), reply(11)]).len(), 2);
    assert!(status.ignore(&[reply(10)]).is_empty(), "known");
    assert_eq!(owed(&status), Some(Owed::ReplyNote));
    for action in [10, 11] {
        let tag = untold(&status).unwrap().0;
        let request = 1;
        assert_eq!(tag, Tag::Uncounted { request, action });
        let marker = tag.to_string();
        status = then(
            &status,
            &[
                (intended(tag, &marker), 10),
                (written(&marker, Some(action + 10)), 11),
            ],
        );
    }
    assert_eq!((owed(&status), untold(&status)), (None, None));
    let many: Vec<UncountedReply> = (20..40).map(reply).collect();
    assert_eq!(status.ignore(&many).len(), 20, "all are new");
    assert_eq!(status.approval.as_ref().unwrap().ignored.len(), 5);
    let over = then(&status, &[(denied(50), 12)]);
    assert!(untold(&over).is_none(), "the request is over");
}

#[test]
fn what_a_dead_agent_proposed_is_not_asked_for() {
    let status = run(&[
        (Event::Accepted, 0),
        (claimed("a", 60), 1),
        (proposed("a", 1), 2),
        (Event::LeaseExpired, 60),
        (claimed("b", 120), 61),
    ]);
    assert_eq!(status.steps[0].state, StepState::Superseded);
}

#[test]
fn only_so_many_steps_wait() {
    let mut status = run(&[(Event::Accepted, 0), (claimed("a", 60), 1)]);
    let limit = OPEN_STEPS as i32;
    for number in 1..=limit {
        status = then(&status, &[(proposed("a", number), 2)]);
    }
    assert_eq!(
        try_at(&status, &proposed("a", limit + 1), 3),
        Err(Refused::TooManySteps)
    );
}

#[test]
fn waiting_ends_at_the_deadline() {
    for (status, phase) in [
        (run(&[]), Phase::Failed),
        (run(&[(Event::Accepted, 0)]), Phase::Failed),
        (run(&[(challenged(300), 0)]), Phase::Refused),
        (asked(), Phase::Done),
    ] {
        let deadline = status
            .deadline
            .as_ref()
            .expect("a waiting phase has a deadline")
            .0;
        assert_eq!(due(&status, deadline), Some(Event::DeadlinePassed));
        let next = apply(&status, &Event::DeadlinePassed, Actor::Gateway, deadline).unwrap();
        assert_eq!(next.phase, phase);
    }
}

/// Each topic refuses what it does not know, so an event that is sorted wrongly never applies.
#[test]
fn every_event_applies_somewhere() {
    let working = run(&[(Event::Accepted, 0), (claimed("a", 60), 1)]);
    let after = |status: &TicketStatus, event: Event| then(status, &[(event, 2)]);
    let challenged_once = run(&[(challenged(300), 1)]);
    let challenge_open = after(&challenged_once, challenge_sent());
    let agreed = after(&asked(), approved(11, &[]));
    let preparing = then(
        &working,
        &[(proposed("a", 1), 2), (prepared("a", approval(&[1], 9)), 2)],
    );
    let statuses = [
        run(&[]),
        run(&[(Event::Accepted, 0)]),
        after(&challenge_open, not_verified()),
        challenged_once,
        challenge_open,
        after(&working, completed("a")),
        after(&working, intended(Tag::Plan, "m")),
        working,
        preparing,
        asked(),
        then(&asked(), &[(message(10, 3), 6), (claimed("a", 60), 7)]),
        then(&agreed, &[(taken("a", 60), 3), (sent("a", 1), 4)]),
        agreed,
    ];
    let lease = || "a".to_string();
    let marker = "m".to_string();
    for event in [
        Event::Accepted,
        Event::DeadlinePassed,
        ignored(),
        failed(),
        reopened("1"),
        challenged(300),
        challenge_sent(),
        verified("c"),
        not_verified(),
        skipped(),
        verify_again(400),
        overridden(),
        claimed("a", 60),
        Event::PlanOnly { lease: lease() },
        heartbeat("a", 60),
        released("a"),
        Event::LeaseExpired,
        completed("a"),
        proposed("a", 1),
        started("a", 1),
        sent("a", 2),
        ended(1, StepState::Done),
        taken("a", 60),
        finished("a"),
        prepared("a", approval(&[1], 300)),
        requested("a", 9),
        turn_ended("a"),
        replies_seen(10),
        message(10, 3),
        approved(10, &[]),
        denied(10),
        intended(Tag::Plan, "n"),
        written("m", None),
        Event::WriteRefused { marker },
    ] {
        let applies = statuses
            .iter()
            .any(|status| try_at(status, &event, 1_000_000).is_ok());
        assert!(applies, "{event:?}");
    }
}

fn lease() -> impl Strategy<Value = String> {
    prop_oneof![Just("a".to_string()), Just("b".to_string())]
}

fn marker() -> impl Strategy<Value = String> {
    prop_oneof![Just("m".to_string()), Just("n".to_string())]
}

fn phase_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Accepted),
        Just(Event::DeadlinePassed),
        Just(ignored()),
        Just(failed()),
        "[0-9]".prop_map(|request| reopened(&request)),
    ]
}

fn verification_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0i64..500).prop_map(challenged),
        Just(challenge_sent()),
        Just(verified("c")),
        Just(not_verified()),
        Just(skipped()),
        (0i64..500).prop_map(verify_again),
        Just(overridden()),
    ]
}

fn claim_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        lease().prop_map(|lease| Event::PlanOnly { lease }),
        (lease(), 0i64..500).prop_map(|(lease, until)| claimed(&lease, until)),
        (lease(), 0i64..500).prop_map(|(lease, until)| heartbeat(&lease, until)),
        lease().prop_map(|lease| released(&lease)),
        Just(Event::LeaseExpired),
        lease().prop_map(|lease| completed(&lease)),
    ]
}

fn outbox_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        marker().prop_map(|marker| intended(Tag::Plan, &marker)),
        marker().prop_map(|marker| written(&marker, None)),
        marker().prop_map(|marker| Event::WriteRefused { marker }),
    ]
}

fn step_event() -> impl Strategy<Value = Event> {
    let end = prop_oneof![
        Just(StepState::Done),
        Just(StepState::Failed),
        Just(StepState::Waiting)
    ];
    prop_oneof![
        (lease(), 1i32..6).prop_map(|(lease, number)| proposed(&lease, number)),
        (lease(), 1i32..6).prop_map(|(lease, number)| started(&lease, number)),
        (lease(), 1i32..6).prop_map(|(lease, number)| sent(&lease, number)),
        (1i32..6, end).prop_map(|(number, state)| ended(number, state)),
        (lease(), 0i64..500).prop_map(|(lease, until)| taken(&lease, until)),
        lease().prop_map(|lease| finished(&lease)),
    ]
}

fn approval_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (lease(), 0i64..900)
            .prop_map(|(lease, expires)| prepared(&lease, approval(&[1, 2, 3], expires))),
        (lease(), 1i64..9).prop_map(|(lease, action)| requested(&lease, action)),
        lease().prop_map(|lease| turn_ended(&lease)),
        (1i64..9).prop_map(replies_seen),
        (1i64..9).prop_map(|action| message(action, 3)),
        (1i64..9).prop_map(|action| approved(action, &[])),
        (1i64..9).prop_map(denied),
    ]
}

/// Each event as often as every other.
fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        5 => phase_event(),
        7 => verification_event(),
        6 => claim_event(),
        3 => outbox_event(),
        6 => step_event(),
        7 => approval_event(),
    ]
}

/// An event that was applied.
struct Transition<'a> {
    before: &'a TicketStatus,
    event: &'a Event,
    next: &'a TicketStatus,
}

impl Transition<'_> {
    /// Each step with its state before, if it is not new.
    fn steps(&self) -> impl Iterator<Item = (Option<StepState>, &Step)> {
        self.next.steps.iter().map(move |step| {
            let before = self.before.steps.iter().find(|s| s.number == step.number);
            (before.map(|s| s.state), step)
        })
    }
}

type Checked = Result<(), TestCaseError>;

const INVARIANTS: [fn(&Transition<'_>) -> Checked; 12] = [
    finished_until_a_human_reopens,
    lease_only_while_working,
    whatever_waits_has_an_end,
    only_a_claim_starts_work,
    waiting_steps_are_sent_only_when_approved,
    proposed_steps_are_not_sent,
    ended_steps_stay_as_they_are,
    nobody_works_while_the_requester_is_asked,
    finished_means_nothing_waits,
    lists_and_counters_are_bounded,
    posted_notes_are_not_forgotten,
    runs_only_count_up,
];

fn finished_until_a_human_reopens(t: &Transition<'_>) -> Checked {
    let by_human = matches!(
        t.event,
        Event::Reopened { .. } | Event::VerifyAgain { .. } | Event::VerificationOverridden { .. }
    );
    if t.before.phase.is_terminal() && !by_human {
        prop_assert_eq!(t.next.phase, t.before.phase);
    }
    Ok(())
}

fn lease_only_while_working(t: &Transition<'_>) -> Checked {
    prop_assert_eq!(t.next.lease.is_some(), t.next.phase == Phase::Working);
    Ok(())
}

fn whatever_waits_has_an_end(t: &Transition<'_>) -> Checked {
    prop_assert!(t.next.phase.is_terminal() || wakes_at(t.next).is_some());
    Ok(())
}

/// An agent claims a Ready ticket, or a gateway takes approved steps.
fn only_a_claim_starts_work(t: &Transition<'_>) -> Checked {
    if t.next.phase == Phase::Working && t.before.phase != Phase::Working {
        let approved = t.before.phase == Phase::AwaitingApproval
            && t.before.approval_is(ApprovalState::Approved);
        prop_assert!(t.before.phase == Phase::Ready || approved);
    }
    Ok(())
}

/// By a yes to a request that names them.
fn waiting_steps_are_sent_only_when_approved(t: &Transition<'_>) -> Checked {
    for (before, step) in t.steps() {
        if before == Some(StepState::Waiting) && step.state == StepState::Running {
            let request = t.before.approval.as_ref();
            let approved = request.filter(|a| a.state == ApprovalState::Approved);
            prop_assert!(approved.is_some_and(|a| a.steps.contains(&step.number)));
        }
    }
    Ok(())
}

fn proposed_steps_are_not_sent(t: &Transition<'_>) -> Checked {
    for (before, step) in t.steps() {
        let sent = before == Some(StepState::Proposed) && step.state == StepState::Running;
        prop_assert!(!sent);
    }
    Ok(())
}

fn ended_steps_stay_as_they_are(t: &Transition<'_>) -> Checked {
    for (before, step) in t.steps() {
        prop_assert!(before.is_none_or(|state| !state.is_final() || state == step.state));
    }
    Ok(())
}

fn nobody_works_while_the_requester_is_asked(t: &Transition<'_>) -> Checked {
    let goes_on = t.next.phase != Phase::Verifying && !t.next.phase.is_terminal();
    if t.before.phase == Phase::Verifying && goes_on {
        let verification = t.next.verification.as_ref();
        prop_assert!(verification.is_some_and(|v| v.state.passes()));
    }
    Ok(())
}

fn finished_means_nothing_waits(t: &Transition<'_>) -> Checked {
    if t.next.phase.is_terminal() {
        prop_assert!(t.next.steps.iter().all(|s| s.state.is_final()));
    }
    Ok(())
}

fn lists_and_counters_are_bounded(t: &Transition<'_>) -> Checked {
    prop_assert!(t.next.steps.len() <= STEP_LIMIT);
    prop_assert!(t.next.turn <= MAX_TURNS);
    prop_assert!((0..=MAX_ATTEMPTS).contains(&t.next.attempts));
    prop_assert!(t.next.journal.len() <= JOURNAL_LIMIT);
    Ok(())
}

fn posted_notes_are_not_forgotten(t: &Transition<'_>) -> Checked {
    let posted = |i: &&Intent| i.state == IntentState::Posted;
    for before in t.before.intents.iter().filter(posted) {
        let mut after = t.next.intents.iter().filter(posted);
        prop_assert!(after.any(|i| i.marker == before.marker));
    }
    Ok(())
}

fn runs_only_count_up(t: &Transition<'_>) -> Checked {
    prop_assert!(t.next.run >= t.before.run);
    Ok(())
}

proptest! {
    #[test]
    fn no_sequence_of_events_leaves_the_legal_states(
        events in prop::collection::vec((event(), 0i64..1000), 0..80)
    ) {
        let mut before = received(at(0));
        for (event, second) in events {
            let Ok(next) = try_at(&before, &event, second) else { continue };
            let transition = Transition { before: &before, event: &event, next: &next };
            for holds in INVARIANTS {
                holds(&transition)?;
            }
            before = next;
        }
    }
}
