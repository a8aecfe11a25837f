//! What a breaker is told of attempts.

use super::*;

#[test]
fn the_breaker_lets_one_probe_through() {
    let mut bed = Bed::new();
    let conn = bed.connected();
    for _ in 0..5 {
        let call = bed.call(RpcType::Execute);
        bed.answer(conn, call, Err(LATE));
    }
    bed.steps();
    let call = bed.call(RpcType::Execute);
    let open = CallError::CircuitOpen {
        node: PEER,
        failures: 5,
    };
    assert_eq!(bed.steps(), [answered(call, Err(open.clone()))]);
    bed.now += BREAKER_COOLDOWN;
    let probe = bed.call(RpcType::Execute);
    let other = bed.call(RpcType::Execute);
    assert_eq!(
        bed.steps(),
        [
            made(conn, probe, RpcType::Execute),
            answered(other, Err(open))
        ]
    );
    bed.answer(conn, probe, Ok(Bytes::new()));
    assert_eq!(
        bed.node.peers().next().unwrap().breaker,
        BreakerState::Closed
    );
}

#[test]
fn a_close_is_one_failure_of_the_node_however_many_calls_it_takes() {
    let mut bed = Bed::new();
    let conn = bed.connected();
    for _ in 0..8 {
        bed.call(RpcType::Ping);
    }
    // The connection never took them.
    bed.event(conn, Event::Closed(Closed::PathDead));
    assert_eq!(bed.node.peers().next().unwrap().failures, 1);
    assert_eq!(bed.node.calls(), 8, "all of them rest");
}

#[test]
fn a_close_without_calls_is_no_failure() {
    let mut bed = Bed::new();
    let conn = bed.connected();
    bed.event(conn, Event::Closed(Closed::PathDead));
    assert_eq!(bed.node.peers().next().unwrap().failures, 0);
}

#[test]
fn the_want_of_places_is_no_failure_of_the_node() {
    let mut bed = Bed::new();
    bed.connected();
    for _ in 0..RPC_CALLS_PER_CONNECTION + 20 {
        bed.call(RpcType::Execute);
    }
    // Nobody answers for five seconds.
    assert_eq!(bed.wait(), Duration::from_secs(5));
    let status = bed.node.peers().next().unwrap();
    assert_eq!((status.failures, status.waiting), (0, 0));
}

/// A peer whose breaker is open.
pub(super) fn open() -> (Bed, ConnId) {
    let mut bed = Bed::new();
    let conn = bed.connected();
    for _ in 0..5 {
        let call = bed.call(RpcType::Execute);
        bed.answer(conn, call, Err(LATE));
    }
    bed.steps();
    (bed, conn)
}

#[test]
fn a_probe_that_is_cancelled_makes_room_for_another() {
    let (mut bed, conn) = open();
    bed.now += BREAKER_COOLDOWN;
    let probe = bed.call(RpcType::Execute);
    assert_eq!(bed.steps(), [made(conn, probe, RpcType::Execute)]);
    bed.node.cancel(bed.now, probe);
    bed.steps();
    let other = bed.call(RpcType::Execute);
    assert_eq!(bed.steps(), [made(conn, other, RpcType::Execute)]);
}

#[test]
fn a_cancelled_call_that_was_no_probe_makes_no_room() {
    let mut bed = Bed::new();
    let conn = bed.connected();
    let early = bed.call(RpcType::Execute);
    for _ in 0..5 {
        let call = bed.call(RpcType::Execute);
        bed.answer(conn, call, Err(LATE));
    }
    bed.now += BREAKER_COOLDOWN;
    let probe = bed.call(RpcType::Execute);
    bed.steps();
    bed.node.cancel(bed.now, early);
    bed.steps();
    let other = bed.call(RpcType::Execute);
    assert!(matches!(
        bed.steps()[..],
        [NodeStep::Answered { call, outcome: Err(CallError::CircuitOpen { .. }) }] if call == other
    ));
    bed.answer(conn, probe, Ok(Bytes::new()));
    assert_eq!(bed.node.peers().next().unwrap().failures, 0);
}

#[test]
fn a_probe_of_a_dial_that_is_given_up_makes_room_for_another() {
    let (mut bed, conn) = open();
    bed.event(conn, Event::Closed(Closed::PathDead));
    bed.now += BREAKER_COOLDOWN;
    bed.steps();
    bed.node.warm(bed.now, PEER);
    bed.dial();
    bed.node.set_peer(bed.now, PEER, address(2));
    bed.steps();
    bed.node.warm(bed.now, PEER);
    bed.dial();
}

/// A connection that comes up, and whose first call is refused.
fn distrusted(bed: &mut Bed) {
    let dial = bed.dial();
    let conn = bed.up(dial);
    let call = bed.call(RpcType::Ping);
    bed.steps();
    bed.answer(conn, call, Err(Failure::Refused(Refusal::Identity)));
    bed.event(conn, Event::Closed(Closed::Local));
    bed.steps();
}

#[test]
fn a_node_that_lets_connect_and_refuses_every_message_is_left_alone() {
    let mut bed = Bed::new();
    for round in 1..=5 {
        bed.node.warm(bed.now, PEER);
        distrusted(&mut bed);
        assert_eq!(bed.node.peers().next().unwrap().failures, round);
    }
    // From here on there is one connection for each pause.
    for _ in 0..3 {
        bed.now += BREAKER_COOLDOWN - Duration::from_nanos(1);
        bed.node.warm(bed.now, PEER);
        assert_eq!(bed.steps(), []);
        bed.now += Duration::from_nanos(1);
        bed.node.warm(bed.now, PEER);
        distrusted(&mut bed);
    }
}

#[test]
fn a_node_is_back_once_it_has_answered() {
    let (mut bed, conn) = open();
    bed.event(conn, Event::Closed(Closed::PathDead));
    bed.steps();
    bed.now += BREAKER_COOLDOWN;
    bed.node.warm(bed.now, PEER);
    let dial = bed.dial();
    let conn = bed.up(dial);
    bed.steps();
    let state = |bed: &Bed| bed.node.peers().next().unwrap().breaker;
    assert_eq!(state(&bed), BreakerState::HalfOpen);
    // The first call is let through at once, and is the only one.
    let (probe, other) = (bed.call(RpcType::Ping), bed.call(RpcType::Ping));
    let steps = bed.steps();
    assert_eq!(steps[0], made(conn, probe, RpcType::Ping));
    assert!(matches!(
        steps[1..],
        [NodeStep::Answered { call, outcome: Err(CallError::CircuitOpen { .. }) }] if call == other
    ));
    bed.answer(conn, probe, Ok(Bytes::new()));
    assert_eq!(state(&bed), BreakerState::Closed);
}
