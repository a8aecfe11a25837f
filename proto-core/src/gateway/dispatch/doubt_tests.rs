//! Candidates in doubt: who is asked beside them, and what is remembered of them.

use super::{bed::*, *};
use crate::{
    gateway::info::AgentStatus,
    limits::{DISPATCH_STAGGER, FAILURE_MEMORY},
};

#[test]
fn a_path_that_stalls_is_raced_at_once() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8"), (2, "10.0.0.0/8")]);
    bed.open(1, "10.1.1.1:22");
    bed.event(2, AgentEvent::Suspect);
    assert_eq!(bed.out(), [ask(2, 1, 1), ask(1, 2, 1)]);
    bed.event(2, opened(1, 1));
    assert_eq!(bed.out()[0], committed(1, 2, 1), "it may still win");
    bed.event(2, AgentEvent::Recovered);
    assert_eq!(
        bed.dispatch.hub().list(bed.now)[1].status,
        AgentStatus::Online
    );
}

#[test]
fn a_candidate_that_failed_lately_is_raced_at_once() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8"), (2, "10.1.0.0/16")]);
    bed.open(1, "10.1.1.1:22");
    bed.fail(2, 1, AttemptError::TimedOut);
    bed.event(1, opened(2, 1));
    bed.out();
    bed.open(2, "10.1.1.1:22");
    assert_eq!(bed.out(), [ask(2, 3, 2), ask(1, 4, 2)]);
    bed.event(2, opened(3, 1));
    bed.open(3, "10.1.1.1:22");
    assert_eq!(bed.out()[2..], [ask(2, 5, 3)], "a success makes good");
    bed.fail(2, 5, AttemptError::TimedOut);
    bed.event(1, opened(6, 2));
    bed.now += FAILURE_MEMORY;
    bed.out();
    bed.open(4, "10.1.1.1:22");
    assert_eq!(bed.out(), [ask(2, 7, 4)], "and so does time");
}

#[test]
fn one_candidate_is_asked_beside_one_that_failed_lately_however_many_did() {
    let agents: Vec<_> = (1..=5).map(|n| (n, "10.0.0.0/8")).collect();
    let mut bed = Bed::with(&agents);
    bed.open(1, "10.1.1.1:22");
    for (conn, attempt) in (1..=5).rev().zip(1..) {
        bed.fail(conn, attempt, AttemptError::TimedOut);
    }
    bed.out();
    bed.open(2, "10.1.1.1:22");
    assert_eq!(bed.out(), [ask(5, 6, 2), ask(4, 7, 2)]);
    bed.pass(250);
    assert_eq!(bed.out(), [ask(3, 8, 2), ask(2, 9, 2)]);
    // Two of which nothing is heard go on as they would.
    bed.fail(3, 8, AttemptError::TimedOut);
    assert_eq!(bed.out(), [ask(1, 10, 2)]);
}

#[test]
fn a_prompt_refusal_is_not_remembered_and_a_slow_one_is() {
    for (took_ms, remembered) in [(249, false), (250, true)] {
        let mut bed = Bed::with(&[(1, "10.0.0.0/8"), (2, "10.1.0.0/16")]);
        bed.open(1, "10.1.1.1:22");
        bed.pass(took_ms);
        bed.fail(2, 1, AttemptError::Refused("connection refused".into()));
        bed.event(1, opened(2, 1));
        bed.event(1, AgentEvent::SessionEnded { slot: Slot(1) });
        bed.out();
        bed.open(2, "10.1.1.1:22");
        let beside = remembered.then(|| ask(1, 4, 2));
        let asked: Vec<_> = [ask(2, 3, 2)].into_iter().chain(beside).collect();
        assert_eq!(bed.out(), asked, "{took_ms} ms");
    }
}

#[test]
fn a_prompt_refusal_makes_good() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8"), (2, "10.1.0.0/16")]);
    bed.open(1, "10.1.1.1:22");
    bed.fail(2, 1, AttemptError::TimedOut);
    bed.open(2, "10.1.1.1:22");
    bed.out();
    bed.fail(2, 3, AttemptError::Refused("connection refused".into()));
    bed.open(3, "10.1.1.1:22");
    assert_eq!(bed.out(), [ask(2, 5, 3)]);
}

#[test]
fn a_candidate_that_was_overtaken_is_remembered_as_a_failure() {
    // Connection 2 is asked first; 1 after the stagger.
    for (waited_ms, answers, remembered) in [
        // What overtakes it answers.
        (250, (1, 2), true),
        // It answers in the end.
        (250, (2, 1), false),
    ] {
        let mut bed = Bed::with(&[(1, "10.0.0.0/8"), (2, "10.0.0.0/8")]);
        bed.open(1, "10.1.1.1:22");
        bed.pass(waited_ms);
        assert_eq!(bed.out(), [ask(2, 1, 1), ask(1, 2, 1)]);
        let (conn, attempt) = answers;
        bed.event(conn, opened(attempt, 9));
        let counted = FailoverCounters {
            raced: 1,
            overtaken: u64::from(remembered),
        };
        assert_eq!(bed.dispatch.failover(), counted);
        bed.event(conn, AgentEvent::SessionEnded { slot: Slot(9) });
        bed.out();
        bed.open(2, "10.1.1.1:22");
        let beside = remembered.then(|| ask(1, 4, 2));
        assert_eq!(
            bed.out(),
            [ask(2, 3, 2)].into_iter().chain(beside).collect::<Vec<_>>()
        );
    }
}

#[test]
fn who_loses_without_having_had_the_stagger_is_not_held_to_have_failed() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8"), (2, "10.0.0.0/8"), (3, "10.0.0.0/8")]);
    // Connection 3 failed lately, so 2 is asked at once, and 1 beside both after the stagger.
    bed.open(1, "10.1.1.1:22");
    bed.fail(3, 1, AttemptError::TimedOut);
    bed.event(2, opened(2, 8));
    bed.event(2, AgentEvent::SessionEnded { slot: Slot(8) });
    bed.now += FAILURE_MEMORY - DISPATCH_STAGGER;
    bed.out();
    bed.open(2, "10.1.1.1:22");
    assert_eq!(bed.out(), [ask(3, 3, 2), ask(2, 4, 2)]);
    bed.pass(249);
    bed.event(2, opened(4, 9));
    bed.event(2, AgentEvent::SessionEnded { slot: Slot(9) });
    bed.out();
    bed.now += FAILURE_MEMORY;
    bed.open(3, "10.1.1.1:22");
    assert_eq!(bed.out(), [ask(3, 5, 3)], "the memory was not prolonged");
}

#[test]
fn an_agent_whose_newer_connection_answers_has_not_failed() {
    let mut bed = Bed::with(&[(2, "10.0.0.0/8"), (1, "10.0.0.0/8")]);
    bed.open(1, "10.1.1.1:22");
    bed.event(7, registered(1, 0));
    bed.pass(250);
    bed.out();
    bed.event(7, routes(1, "10.0.0.0/8"));
    assert_eq!(bed.out(), [ask(7, 3, 1)]);
    bed.event(7, opened(3, 9));
    bed.event(7, AgentEvent::SessionEnded { slot: Slot(9) });
    bed.out();
    bed.open(2, "10.1.1.1:22");
    assert_eq!(bed.out(), [ask(7, 4, 2)], "and is not raced at once");
}
