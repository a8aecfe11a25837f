use super::{DispatchOutput as Out, bed::*, *};
use crate::{
    gateway::{AttemptFailure, info::WhyPassedOver},
    limits::{ATTEMPTS_MAX, DISPATCH_LOOK_AGAIN, DISPATCH_STAGGER, ROUTES_PER_AGENT_MAX},
};

#[test]
fn each_kind_of_failure_moves_on_at_once() {
    for cause in causes() {
        let mut bed = Bed::with(&[(1, "10.0.0.0/8"), (2, "10.0.0.0/8"), (3, "0.0.0.0/0")]);
        bed.open(1, "10.1.1.1:22");
        assert_eq!(bed.out(), [ask(2, 1, 1)]);
        bed.fail(2, 1, cause.clone());
        assert_eq!(bed.out(), [ask(1, 2, 1)]);
        bed.fail(1, 2, AttemptError::TimedOut);
        assert_eq!(bed.out(), [ask(3, 3, 1)], "then the lower rung");
        bed.event(3, opened(3, 9));
        assert_eq!(bed.out(), [committed(1, 3, 9)]);
        assert_eq!(bed.loads(), [0, 0, 1]);
        bed.event(3, AgentEvent::SessionEnded { slot: Slot(9) });
        bed.event(3, AgentEvent::SessionEnded { slot: Slot(9) });
        assert_eq!((bed.loads(), bed.out()), (vec![0, 0, 0], vec![]));
    }
}

#[test]
fn all_failed_names_each_cause_in_order() {
    let mut bed = Bed::with(&[(1, "*.x"), (2, "a.x")]);
    bed.dispatch.config.direct = vec![everything()];
    bed.open(1, "a.x:22");
    bed.fail(2, 1, AttemptError::Refused("no".into()));
    bed.fail(1, 2, AttemptError::NoCredit);
    let error = OpenError::AllFailed(vec![
        failure(2, AttemptError::Refused("no".into())),
        failure(1, AttemptError::NoCredit),
    ]);
    assert_eq!(
        bed.out()[2..],
        [failed(1, error)],
        "and nothing is dialled directly"
    );
    assert_eq!(
        (bed.loads(), bed.dispatch.poll_timeout()),
        (vec![0, 0], None)
    );
}

#[test]
fn a_connection_is_asked_once_though_a_newer_one_came_and_went() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8")]);
    bed.open(1, "10.1.1.1:22");
    assert_eq!(bed.out(), [ask(1, 1, 1)]);
    bed.event(2, registered(1, 0));
    bed.event(2, routes(1, "192.168.0.0/16"));
    bed.event(2, AgentEvent::Closed);
    let cause = AttemptError::Refused("no".into());
    bed.fail(1, 1, cause.clone());
    let error = OpenError::AllFailed(vec![failure(1, cause)]);
    assert_eq!(bed.out(), [failed(1, error)]);
}

#[test]
fn the_next_candidate_starts_after_the_stagger() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8"), (2, "10.0.0.0/8")]);
    bed.open(1, "10.1.1.1:22");
    assert_eq!(
        bed.dispatch.poll_timeout(),
        Some(bed.start + DISPATCH_STAGGER)
    );
    bed.pass(249);
    assert_eq!(bed.out(), [ask(2, 1, 1)]);
    bed.pass(1);
    assert_eq!(bed.out(), [ask(1, 2, 1)]);
    assert_eq!(bed.loads(), [1, 1]);
    bed.pass(250);
    assert_eq!(
        (bed.out(), bed.dispatch.poll_timeout()),
        (vec![], Some(bed.now + DISPATCH_LOOK_AGAIN))
    );
}

#[test]
fn an_agent_that_comes_while_all_are_waited_for_is_asked_within_a_second() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8")]);
    bed.open(1, "10.1.1.1:22");
    bed.pass(250);
    assert_eq!(bed.out(), [ask(1, 1, 1)]);
    bed.pass(500);
    bed.enter(2, "10.0.0.0/8");
    bed.pass(499);
    assert_eq!(bed.out(), []);
    bed.pass(1);
    assert_eq!(bed.out(), [ask(2, 2, 1)]);
    bed.event(2, opened(2, 5));
    assert_eq!(bed.out()[0], committed(1, 2, 5));
    assert_eq!(bed.dispatch.poll_timeout(), None);
}

#[test]
fn what_an_old_connection_owes_is_asked_of_the_newest_once() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8")]);
    bed.open(1, "10.1.1.1:22");
    assert_eq!(bed.out(), [ask(1, 1, 1)]);
    bed.pass(1_000);
    bed.enter(2, "0.0.0.0/0");
    bed.event(7, registered(1, 0));
    assert_eq!(bed.out(), [], "it advertises nothing yet");
    bed.event(7, routes(1, "10.0.0.0/8"));
    assert_eq!(bed.out(), [ask(7, 2, 1)]);
    bed.event(7, routes(2, "10.0.0.0/8"));
    bed.event(7, routes(2, "10.0.0.0/8"));
    assert_eq!(bed.out(), [], "once");
    bed.event(7, opened(2, 5));
    let cancel = Out::Cancel {
        conn: ConnId(1),
        attempt: AttemptId(1),
    };
    let mut committed = committed(1, 7, 5);
    if let Out::Committed { agent: who, .. } = &mut committed {
        *who = Some(agent(1));
    }
    assert_eq!(bed.out(), [committed, cancel]);
}

#[test]
fn the_loser_is_cancelled_and_its_late_success_discarded() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8"), (2, "10.0.0.0/8")]);
    bed.open(1, "10.1.1.1:22");
    bed.pass(250);
    bed.out();
    bed.event(1, opened(2, 5));
    let cancel = Out::Cancel {
        conn: ConnId(2),
        attempt: AttemptId(1),
    };
    assert_eq!(bed.out(), [committed(1, 1, 5), cancel]);
    assert_eq!(bed.loads(), [1, 0]);
    bed.event(2, opened(1, 6));
    assert_eq!(bed.out(), [discard(2, 6)]);
    bed.fail(2, 1, AttemptError::TimedOut);
    bed.event(2, AgentEvent::SessionEnded { slot: Slot(6) });
    assert_eq!((bed.out(), bed.loads()), (vec![], vec![1, 0]));
}

#[test]
fn a_connection_cannot_answer_for_another() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8"), (2, "*.x")]);
    bed.open(1, "10.1.1.1:22");
    bed.out();
    bed.event(2, opened(1, 5));
    bed.fail(2, 1, AttemptError::TimedOut);
    assert_eq!(bed.out(), [discard(2, 5)]);
    bed.event(1, opened(1, 5));
    assert_eq!(bed.out(), [committed(1, 1, 5)]);
}

#[test]
fn the_deadline_ends_everything() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8"), (2, "10.0.0.0/8")]);
    bed.open(1, "10.1.1.1:22");
    bed.pass(29_999);
    bed.out();
    assert_eq!(
        bed.dispatch.poll_timeout(),
        Some(bed.start + DISPATCH_TIMEOUT)
    );
    bed.pass(1);
    let cancel = |conn, attempt| Out::Cancel {
        conn: ConnId(conn),
        attempt: AttemptId(attempt),
    };
    assert_eq!(
        bed.out(),
        [failed(1, OpenError::TimedOut), cancel(2, 1), cancel(1, 2)]
    );
    assert_eq!(
        (bed.loads(), bed.dispatch.poll_timeout()),
        (vec![0, 0], None)
    );
    bed.event(1, opened(2, 1));
    assert_eq!(bed.out(), [discard(1, 1)]);
}

#[test]
fn a_pinned_session_goes_to_that_agent_only() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8"), (2, "10.0.0.0/8")]);
    bed.dispatch.config.direct = vec![everything()];
    bed.open_pinned(1, "99.1.1.1:22", 7);
    assert_eq!(bed.out(), [failed(1, OpenError::AgentUnknown(agent(7)))]);
    bed.event(1, AgentEvent::Suspect);
    bed.open_pinned(2, "99.1.1.1:22", 1);
    assert_eq!(
        bed.out(),
        [to(1, 1, 2, "99.1.1.1:22")],
        "whatever its routes and its state"
    );
    bed.pass(250);
    bed.fail(1, 1, AttemptError::TimedOut);
    let error = OpenError::AllFailed(vec![failure(1, AttemptError::TimedOut)]);
    assert_eq!(bed.out(), [failed(2, error)]);
}

#[test]
fn direct_needs_permission_and_that_nobody_advertises_the_target() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8")]);
    bed.open(1, "11.1.1.1:22");
    assert_eq!(bed.out(), [failed(1, OpenError::NoRoute)]);
    bed.dispatch.config.direct = vec![everything()];
    bed.open(2, "11.1.1.1:22");
    let target: Target = "11.1.1.1:22".parse().unwrap();
    let dial = |n| Out::DialDirect {
        session: session(n),
        target: "11.1.1.1:22".parse().unwrap(),
    };
    assert_eq!(bed.out(), [dial(2)]);
    assert_eq!(
        bed.dispatch.explain(bed.now, &target, None).fallback,
        Fallback::Direct
    );
    bed.direct(2, Ok(()));
    let done = Out::Committed {
        session: session(2),
        agent: None,
        route: Carrier::Direct,
    };
    assert_eq!(bed.out(), [done]);
    bed.open(3, "11.1.1.1:22");
    bed.direct(3, Err("refused".into()));
    let cause = AttemptError::Dial("refused".into());
    let error = OpenError::AllFailed(vec![AttemptFailure {
        agent: None,
        peer: None,
        cause,
    }]);
    assert_eq!(bed.out(), [dial(3), failed(3, error)]);
    bed.event(1, AgentEvent::Suspect);
    bed.open(4, "10.1.1.1:22");
    assert_eq!(
        bed.out(),
        [failed(4, OpenError::NoneOnline)],
        "an agent that is silent is no leave"
    );
    let target = "10.1.1.1:22".parse().unwrap();
    assert_eq!(
        bed.dispatch.explain(bed.now, &target, None).fallback,
        Fallback::Refuse
    );
}

#[test]
fn a_direct_dial_is_aborted_by_cancel_and_deadline() {
    let mut bed = Bed::with(&[]);
    bed.dispatch.config.direct = vec![everything()];
    let abort = |n| Out::AbortDirect {
        session: session(n),
    };
    bed.open(1, "11.1.1.1:22");
    bed.dispatch.cancel(bed.now, session(1));
    assert_eq!(bed.out()[1..], [abort(1)]);
    bed.direct(1, Ok(()));
    assert_eq!(bed.out(), [abort(1)]);
    bed.open(2, "11.1.1.1:22");
    bed.pass(30_000);
    bed.direct(2, Err("late".into()));
    assert_eq!(bed.out()[1..], [failed(2, OpenError::TimedOut), abort(2)]);
}

#[test]
fn cancel_ends_without_a_word() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8")]);
    bed.open(1, "10.1.1.1:22");
    bed.dispatch.cancel(bed.now, session(1));
    bed.dispatch.cancel(bed.now, session(1));
    let cancel = Out::Cancel {
        conn: ConnId(1),
        attempt: AttemptId(1),
    };
    assert_eq!(bed.out(), [ask(1, 1, 1), cancel]);
    bed.event(1, opened(1, 3));
    assert_eq!((bed.out(), bed.loads()), (vec![discard(1, 3)], vec![0]));
    assert_eq!(
        (bed.dispatch.open_count(), bed.dispatch.poll_timeout()),
        (0, None)
    );
}

#[test]
fn the_end_of_a_connection_fails_its_attempts() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8"), (2, "10.0.0.0/8")]);
    bed.open(1, "10.1.1.1:22");
    bed.event(2, AgentEvent::Closed);
    assert_eq!(bed.out(), [ask(2, 1, 1), ask(1, 2, 1)]);
    bed.event(1, opened(2, 1));
    bed.event(1, AgentEvent::Closed);
    bed.event(1, AgentEvent::SessionEnded { slot: Slot(1) });
    assert_eq!(bed.out(), [committed(1, 1, 1)]);
    assert!(bed.dispatch.hub().list(bed.now).is_empty() && bed.dispatch.carried.is_empty());
}

#[test]
fn a_disconnected_agent_is_out_at_once_with_all_its_connections() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8"), (2, "10.0.0.0/8")]);
    for conn in [3, 4] {
        bed.event(conn, registered(2, 0));
        bed.event(conn, routes(1, "10.0.0.0/8"));
    }
    bed.open(1, "10.1.1.1:22");
    let retire = Out::Retire { conn: ConnId(2) };
    assert_eq!(bed.out(), [retire, ask(4, 1, 1)]);
    let gone = bed.dispatch.disconnect(bed.now, agent(2), |_| false);
    assert_eq!(gone, [2, 3, 4].map(ConnId));
    assert_eq!(
        bed.out(),
        [ask(1, 2, 1)],
        "what it was asked goes elsewhere"
    );
    assert_eq!(bed.loads(), [1]);
    bed.event(4, opened(1, 9));
    assert_eq!(bed.out(), [discard(4, 9)]);
    bed.event(4, routes(2, "10.0.0.0/8"));
    bed.event(4, AgentEvent::Closed);
    bed.open_pinned(2, "10.1.1.1:22", 2);
    assert_eq!(bed.out(), [failed(2, OpenError::AgentUnknown(agent(2)))]);
    assert!(
        bed.dispatch
            .disconnect(bed.now, agent(2), |_| false)
            .is_empty()
    );
}

#[test]
fn a_drained_agent_gets_what_names_it_and_nothing_else() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8")]);
    bed.dispatch.config.direct = vec![everything()];
    bed.open(1, "10.1.1.1:22");
    bed.dispatch.set_drained(agent(1), true);
    bed.event(1, opened(1, 9));
    let what_it_had = [ask(1, 1, 1), committed(1, 1, 9)];
    assert_eq!(bed.out(), what_it_had, "what it was asked goes on");
    bed.open(2, "10.1.1.1:22");
    assert_eq!(
        bed.out(),
        [failed(2, OpenError::NoneOnline)],
        "nor is it dialled directly"
    );
    bed.open_pinned(3, "10.1.1.1:22", 1);
    assert_eq!(bed.out(), [ask(1, 2, 3)]);
    // It lasts across its connections.
    bed.event(1, AgentEvent::Closed);
    bed.event(2, registered(1, 0));
    bed.event(2, routes(1, "10.0.0.0/8"));
    bed.out();
    bed.open(4, "10.1.1.1:22");
    assert_eq!(bed.out(), [failed(4, OpenError::NoneOnline)]);
    let told = bed
        .dispatch
        .explain(bed.now, &"10.1.1.1:22".parse().unwrap(), None);
    assert!(told.candidates.is_empty());
    assert_eq!(told.passed_over[0].why, WhyPassedOver::Drained);
    assert_eq!(told.passed_over[0].route, "10.0.0.0/8");
    bed.dispatch.set_drained(agent(1), false);
    bed.open(5, "10.1.1.1:22");
    assert_eq!(bed.out(), [ask(2, 3, 5)]);
}

#[test]
fn an_agent_that_comes_while_others_are_tried_is_asked_too() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8")]);
    bed.open(1, "10.1.1.1:22");
    bed.enter(2, "10.0.0.0/8");
    bed.fail(1, 1, AttemptError::TimedOut);
    assert_eq!(bed.out(), [ask(1, 1, 1), ask(2, 2, 1)]);
}

#[test]
fn an_agent_with_all_its_sessions_is_passed_over() {
    let config = DispatchConfig {
        sessions_per_agent: 1,
        ..DispatchConfig::default()
    };
    let mut bed = Bed::configured(config, &[(1, "10.1.0.0/16"), (2, "10.0.0.0/8")]);
    bed.open(1, "10.1.1.1:22");
    bed.open(2, "10.1.1.1:22");
    assert_eq!(bed.out(), [ask(1, 1, 1), ask(2, 2, 2)]);
    bed.open(3, "10.1.1.1:22");
    let full = |id| failure(id, AttemptError::NoCredit);
    let error = OpenError::AllFailed(vec![full(1), full(2)]);
    assert_eq!(bed.out(), [failed(3, error)]);
}

#[test]
fn limits_are_typed() {
    let config = DispatchConfig {
        sessions_per_agent: usize::MAX,
        ..DispatchConfig::default()
    };
    let mut bed = Bed::configured(config, &[(1, "10.0.0.0/8")]);
    for n in 0..OPENS_MAX as u64 {
        bed.open(n, "10.1.1.1:22");
    }
    bed.open(0, "10.1.1.1:22");
    assert_eq!(bed.out().len(), OPENS_MAX, "a repeated id changes nothing");
    bed.open(OPENS_MAX as u64, "10.1.1.1:22");
    assert_eq!(bed.out(), [failed(OPENS_MAX as u64, OpenError::TooMany)]);
    let routes = RouteSet {
        subnets: vec!["10.0.0.0/8".parse().unwrap(); ROUTES_PER_AGENT_MAX + 1],
        ..RouteSet::default()
    };
    let count = routes.len();
    bed.event(1, AgentEvent::Routes { epoch: 2, routes });
    assert_eq!(
        bed.out(),
        [Out::RoutesRefused {
            conn: ConnId(1),
            count
        }]
    );
}

#[test]
fn attempts_of_one_session_are_bounded() {
    let mut bed = Bed::with(&[]);
    for n in 0..=ATTEMPTS_MAX as u64 {
        bed.enter(n, "10.0.0.0/8");
    }
    bed.open(1, "10.1.1.1:22");
    for n in 0..ATTEMPTS_MAX as u64 {
        bed.fail(ATTEMPTS_MAX as u64 - n, n + 1, AttemptError::NoCredit);
    }
    let out = bed.out();
    let Some(Out::Failed {
        error: OpenError::AllFailed(list),
        ..
    }) = out.last()
    else {
        panic!("no end: {out:?}");
    };
    assert_eq!((list.len(), out.len()), (ATTEMPTS_MAX, ATTEMPTS_MAX + 1));
}

#[test]
fn a_third_connection_and_another_key_are_told() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8")]);
    for conn in [2, 3] {
        bed.event(conn, registered(1, 0));
    }
    bed.event(4, registered(1, 1));
    let error = RegisterError::OtherKey;
    assert_eq!(
        bed.out(),
        [
            Out::Retire { conn: ConnId(1) },
            Out::Refused {
                conn: ConnId(4),
                error
            }
        ]
    );
}

#[test]
fn stopping_refuses_what_is_being_opened_and_what_comes() {
    let mut bed = Bed::with(&[(1, "10.0.0.0/8")]);
    bed.open(1, "10.1.1.1:22");
    bed.dispatch.stop(bed.now);
    bed.open(2, "10.1.1.1:22");
    let cancel = Out::Cancel {
        conn: ConnId(1),
        attempt: AttemptId(1),
    };
    let ends = [
        failed(1, OpenError::Stopping),
        cancel,
        failed(2, OpenError::Stopping),
    ];
    assert_eq!((&bed.out()[1..], bed.loads()), (&ends[..], vec![0]));
}
