//! Connections to peers: which one is used, replaced, closed, and what is told of them.

use super::*;

#[test]
fn a_dead_connection_is_one_failure_and_is_replaced() {
    let mut bed = Bed::new();
    let conn = bed.connected();
    let calls: Vec<CallId> = (0..8).map(|_| bed.call(RpcType::Ping)).collect();
    bed.steps();
    for call in &calls {
        bed.answer(conn, *call, Err(DEAD));
    }
    bed.event(conn, Event::Closed(Closed::PeerRestarted));
    assert_eq!(bed.node.peers().next().unwrap().failures, 1);
    assert_eq!(bed.steps()[0], NodeStep::Reach(PEER, Reach::Down));
    bed.wait();
    let dial = bed.dial();
    let again = bed.up(dial);
    for _ in &calls[1..] {
        bed.wait();
    }
    let remade = bed.steps();
    for call in calls {
        assert!(remade.contains(&made(again, call, RpcType::Ping)), "{call}");
    }
}

#[test]
fn a_silent_connection_is_closed_when_its_last_call_is_over() {
    let mut bed = Bed::new();
    let conn = bed.connected();
    let (first, second) = (bed.call(RpcType::Execute), bed.call(RpcType::Execute));
    bed.steps();
    bed.answer(conn, first, Err(DEAD));
    let steps = bed.steps();
    assert!(!steps.iter().any(|step| matches!(step, NodeStep::Close(..))));
    bed.answer(conn, second, Ok(Bytes::new()));
    let closed = NodeStep::Close(conn, CloseReason::Redundant);
    assert_eq!(
        bed.steps(),
        [closed, answered(second, Ok(Bytes::new()))]
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
    );
}

#[test]
fn another_address_is_for_later_calls() {
    let mut bed = Bed::new();
    let conn = bed.connected();
    let first = bed.call(RpcType::Ping);
    bed.steps();
    bed.node.set_peer(bed.now, PEER, address(2));
    assert_eq!(bed.steps(), [NodeStep::Reach(PEER, Reach::Down)]);
    bed.call(RpcType::Ping);
    assert!(matches!(&bed.steps()[..], [NodeStep::Dial { address: to, .. }] if *to == address(2)));
    bed.answer(conn, first, Ok(Bytes::new()));
    let closed = NodeStep::Close(conn, CloseReason::Redundant);
    assert_eq!(bed.steps(), [answered(first, Ok(Bytes::new())), closed]);
}

#[test]
fn a_node_that_is_removed_is_down() {
    let mut bed = Bed::new();
    let conn = bed.connected();
    bed.node.remove_peer(PEER);
    let closed = NodeStep::Close(conn, CloseReason::Redundant);
    assert_eq!(bed.steps(), [NodeStep::Reach(PEER, Reach::Down), closed]);
}

#[test]
fn places_on_a_connection_are_taken_in_order() {
    let mut bed = Bed::new();
    let conn = bed.connected();
    let calls: Vec<CallId> = (0..=RPC_CALLS_PER_CONNECTION)
        .map(|_| bed.call(RpcType::Ping))
        .collect();
    assert_eq!(bed.steps().len(), RPC_CALLS_PER_CONNECTION);
    bed.answer(conn, calls[3], Ok(Bytes::new()));
    let last = calls[RPC_CALLS_PER_CONNECTION];
    let steps = [
        answered(calls[3], Ok(Bytes::new())),
        made(conn, last, RpcType::Ping),
    ];
    assert_eq!(bed.steps(), steps);
}

#[test]
fn late_connections_are_closed() {
    let mut bed = Bed::new();
    let call = bed.call(RpcType::Ping);
    let dial = bed.dial();
    bed.node.set_peer(bed.now, PEER, address(2));
    let again = bed.dial();
    assert_ne!(dial, again);
    bed.node.handle_dialled(bed.now, dial, Some(ConnId(77)));
    let closed = NodeStep::Close(ConnId(77), CloseReason::Redundant);
    assert_eq!(bed.steps(), [closed]);
    bed.event(ConnId(77), Event::Closed(Closed::Local));
    let conn = bed.up(again);
    assert!(bed.steps().contains(&made(conn, call, RpcType::Ping)));
}

#[test]
fn a_server_that_is_somebody_else_is_not_asked_again() {
    let mut bed = Bed::new();
    let call = bed.call(RpcType::Ping);
    let dial = bed.dial();
    let conn = ConnId(1);
    bed.node.handle_dialled(bed.now, dial, Some(conn));
    let close = PeerClose {
        code: 2,
        reason: String::new(),
    };
    bed.event(conn, Event::Closed(Closed::ByPeer(close)));
    let failed = CallError::Failed(Failure::Identity);
    assert_eq!(bed.steps(), [answered(call, Err(failed))]);
}

#[test]
fn a_peer_that_is_suspect_is_told_of() {
    let mut bed = Bed::new();
    let conn = bed.connected();
    bed.event(conn, Event::PathSuspect);
    bed.event(conn, Event::PathRecovered);
    bed.event(conn, Event::PathSuspect);
    bed.event(conn, Event::Closed(Closed::PathDead));
    let reach = [Reach::Suspect, Reach::Up, Reach::Suspect, Reach::Down];
    assert_eq!(bed.steps(), reach.map(|reach| NodeStep::Reach(PEER, reach)));
}
