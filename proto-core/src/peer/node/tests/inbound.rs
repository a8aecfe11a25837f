//! Connections that peers dialled.

use super::{breaker::open, *};
use crate::{
    id::Slot,
    limits::{PEER_DIAL_PATIENCE, PEER_INBOUND_BURST, RPC_TIMEOUT},
    peer::{interest::Interest, verdict::Accepted},
};

fn inbound(node: Option<NodeId>) -> Event {
    let agreed = Agreed {
        version: 2,
        capabilities: Capabilities::ALL,
    };
    Event::Peer(PeerEvent::Up { node, agreed })
}

fn bound(node: NodeId) -> Event {
    Event::Peer(PeerEvent::Bound { node })
}

#[test]
fn a_node_that_shows_itself_is_dialled_anew_where_the_dial_has_had_no_answer() {
    let mut bed = Bed::new();
    let call = bed.call(RpcType::Ping);
    let stale = bed.dial();
    bed.node.handle_dialled(bed.now, stale, Some(ConnId(70)));
    bed.event(ConnId(50), inbound(Some(PEER)));
    bed.event(ConnId(50), bound(PEER));
    assert!(bed.steps().is_empty(), "it has only just begun");
    bed.now += PEER_DIAL_PATIENCE;
    bed.event(ConnId(51), inbound(Some(PEER)));
    bed.event(ConnId(51), bound(PEER));
    let steps = bed.steps();
    let [closed, NodeStep::Dial { dial, .. }] = &steps[..] else {
        panic!("{steps:?}");
    };
    let gone = NodeStep::Close(ConnId(70), CloseReason::Redundant);
    assert_eq!(closed, &gone);
    let conn = bed.up(*dial);
    assert!(bed.steps().contains(&made(conn, call, RpcType::Ping)));
    assert_eq!(bed.node.peers().next().unwrap().failures, 0);
}

#[test]
fn a_node_that_shows_itself_is_tried_though_its_breaker_is_open() {
    let (mut bed, conn) = open();
    bed.event(ConnId(50), inbound(Some(PEER)));
    bed.event(ConnId(50), bound(PEER));
    let probe = bed.call(RpcType::Execute);
    assert_eq!(bed.steps(), [made(conn, probe, RpcType::Execute)]);
}

#[test]
fn of_the_connections_that_a_node_dials_a_few_stay() {
    let mut bed = Bed::new();
    let (first, other) = (40, ConnId(99));
    bed.event(other, inbound(Some(NodeId(9))));
    for conn in first..first + 4 {
        bed.event(ConnId(conn), inbound(Some(PEER)));
    }
    for conn in [40, 42] {
        bed.event(ConnId(conn), bound(PEER));
    }
    assert!(bed.steps().is_empty());
    let unbound = |conn| NodeStep::Drain(ConnId(conn), Duration::ZERO);
    for (newest, leaves) in [(44, 41), (45, 43), (46, 44)] {
        bed.now += RPC_TIMEOUT;
        bed.event(ConnId(newest), inbound(Some(PEER)));
        assert_eq!(bed.steps(), [unbound(leaves)]);
    }
    for conn in [45, 46] {
        bed.event(ConnId(conn), bound(PEER));
    }
    bed.now += RPC_TIMEOUT;
    bed.event(ConnId(47), inbound(Some(PEER)));
    let oldest = NodeStep::Drain(ConnId(40), RPC_DRAIN_GRACE);
    assert_eq!(bed.steps(), [oldest]);
    // One that has ended makes room.
    bed.event(ConnId(42), Event::Closed(Closed::Local));
    bed.event(ConnId(48), inbound(Some(PEER)));
    assert!(bed.steps().is_empty());
}

#[test]
fn each_of_many_connections_that_a_node_dials_at_once_has_time_for_a_call() {
    let mut bed = Bed::new();
    let burst = PEER_INBOUND_BURST as u64;
    let numbers = |steps: Vec<NodeStep>| -> Vec<u64> {
        let number = |step| {
            let NodeStep::Drain(ConnId(conn), Duration::ZERO) = step else {
                panic!("{step:?}");
            };
            conn
        };
        steps.into_iter().map(number).collect()
    };
    for conn in 0..burst {
        bed.event(ConnId(conn), inbound(Some(PEER)));
    }
    assert!(bed.steps().is_empty());
    bed.event(ConnId(burst), inbound(Some(PEER)));
    assert_eq!(numbers(bed.steps()), [0], "one beyond all bounds");
    bed.now += RPC_TIMEOUT;
    bed.event(ConnId(burst + 1), inbound(Some(PEER)));
    let gone: Vec<u64> = (1..burst - 2).collect();
    assert_eq!(numbers(bed.steps()), gone, "four stay");
}

#[test]
fn after_a_burst_a_few_stay_though_no_other_comes() {
    let mut bed = Bed::new();
    for conn in 0..10 {
        bed.event(ConnId(conn), inbound(Some(PEER)));
    }
    let due = bed.node.poll_timeout();
    assert_eq!(due, Some(bed.now + RPC_TIMEOUT));
    bed.now += RPC_TIMEOUT;
    bed.node.handle_timeout(bed.now);
    assert_eq!(bed.steps().len(), 6, "four stay");
    assert_eq!(bed.node.poll_timeout(), None);
}

#[test]
fn of_the_connections_for_sessions_that_a_node_dials_a_few_stay() {
    let mut bed = Bed::new();
    let up = |is_dialler| {
        let node = PEER;
        Event::Peer(PeerEvent::ForwardUp { node, is_dialler })
    };
    // Those for calls, and those that this node dialled, count apart.
    for conn in 20..24 {
        bed.event(ConnId(conn), inbound(Some(PEER)));
        bed.event(ConnId(conn + 10), up(true));
        bed.event(ConnId(conn + 20), up(false));
    }
    assert!(bed.steps().is_empty());
    bed.event(ConnId(44), up(false));
    let oldest = NodeStep::Drain(ConnId(40), Duration::ZERO);
    assert_eq!(bed.steps(), [oldest]);
}

#[test]
fn a_request_that_was_given_up_is_not_handed_over() {
    let mut bed = Bed::new();
    let conn = ConnId(50);
    bed.event(conn, inbound(Some(PEER)));
    let ask = |slot| {
        Event::Peer(PeerEvent::Requested {
            slot: Slot(slot),
            from: PEER,
            accepted: Accepted::Spki,
            kind: RpcType::Ping,
            payload: Bytes::new(),
            interest: Interest::default(),
        })
    };
    for slot in 1..=3 {
        bed.event(conn, ask(slot));
    }
    assert!(matches!(
        bed.node.poll_step(),
        Some(NodeStep::Requested { slot: Slot(1), .. })
    ));
    for slot in 1..=2 {
        bed.event(conn, Event::Peer(PeerEvent::GivenUp(Slot(slot))));
    }
    let steps = bed.steps();
    let [NodeStep::Requested { slot: Slot(3), .. }, told] = &steps[..] else {
        panic!("{steps:?}");
    };
    assert_eq!(told, &NodeStep::GivenUp(conn, Slot(1)));
    bed.event(conn, ask(4));
    bed.event(conn, Event::Closed(Closed::PathDead));
    assert!(bed.steps().is_empty());
}

#[test]
fn of_those_who_are_no_node_yet_a_few_stay_together() {
    let mut bed = Bed::new();
    bed.event(ConnId(1), inbound(Some(PEER)));
    // Each may have come for one call, until there are too many.
    let last = 100 + PEER_INBOUND_BURST as u64;
    for conn in 100..last {
        bed.event(ConnId(conn), inbound(None));
    }
    assert!(bed.steps().is_empty());
    let ended = |conn| NodeStep::Drain(ConnId(conn), Duration::ZERO);
    bed.event(ConnId(last), inbound(None));
    assert_eq!(bed.steps(), [ended(100)]);
    bed.now += RPC_TIMEOUT;
    bed.event(ConnId(last + 1), inbound(None));
    let steps = bed.steps();
    assert_eq!(steps.len(), PEER_INBOUND_BURST - 3);
    assert!(!steps.contains(&ended(last + 1)) && !steps.contains(&ended(1)));
}

#[test]
fn who_has_proved_itself_is_no_stranger_any_more() {
    let mut bed = Bed::new();
    for conn in 100..110 {
        bed.event(ConnId(conn), inbound(None));
        bed.event(ConnId(conn), bound(NodeId(conn)));
        bed.now += RPC_TIMEOUT;
    }
    assert!(bed.steps().is_empty());
    // From there on it has what any node has.
    for conn in 110..113 {
        bed.event(ConnId(conn), inbound(Some(NodeId(100))));
    }
    assert!(bed.steps().is_empty());
    bed.event(ConnId(113), inbound(None));
    bed.event(ConnId(113), bound(NodeId(100)));
    let oldest = NodeStep::Drain(ConnId(100), RPC_DRAIN_GRACE);
    assert_eq!(bed.steps(), [oldest]);
}
