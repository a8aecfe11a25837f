//! What becomes of calls when the node stops.

use super::*;

#[test]
fn a_node_stops_when_its_connections_are_gone() {
    let mut bed = Bed::new();
    let conn = bed.connected();
    let made = bed.call(RpcType::Ping);
    bed.event(ConnId(50), up());
    bed.steps();
    bed.node.set_peer(bed.now, NodeId(6), address(6));
    let waiting = bed
        .node
        .call(bed.now, NodeId(6), RpcType::Ping, Bytes::new());
    bed.dial();
    let grace = Duration::from_secs(2);
    bed.node.stop(grace);
    assert_eq!(
        bed.steps(),
        [
            answered(waiting, Err(CallError::Stopping)),
            NodeStep::Drain(conn, grace),
            NodeStep::Drain(ConnId(50), grace),
        ]
    );
    bed.answer(conn, made, Err(LATE));
    let failed = CallError::Failed(LATE);
    assert_eq!(bed.steps(), [answered(made, Err(failed))]);
    let late = bed.call(RpcType::Ping);
    assert_eq!(bed.steps(), [answered(late, Err(CallError::Stopping))]);
    for conn in [conn, ConnId(50)] {
        assert!(!bed.node.is_stopped());
        bed.event(conn, Event::Closed(Closed::Local));
    }
    assert!(bed.node.is_stopped());
    assert_eq!(bed.node.poll_timeout(), None);
}

#[test]
fn a_call_to_an_address_has_its_grace() {
    let mut bed = Bed::new();
    let now = bed.now;
    let join = (bed.node).call_address(now, address(9), RpcType::Join, Bytes::from_static(b"x"));
    let dial = bed.dial();
    let conn = bed.up(dial);
    bed.steps();
    let grace = Duration::from_secs(2);
    bed.node.stop(grace);
    assert_eq!(bed.steps(), [NodeStep::Drain(conn, grace)]);
    bed.answer(conn, join, Ok(Bytes::new()));
    assert!(bed.steps().contains(&answered(join, Ok(Bytes::new()))));
}

#[test]
fn who_waits_for_another_attempt_when_the_node_stops_is_told_so() {
    let mut bed = Bed::new();
    let conn = bed.connected();
    let calls = [bed.call(RpcType::Ping), bed.call(RpcType::Ping)];
    bed.steps();
    bed.node.stop(Duration::from_secs(2));
    bed.steps();
    let busy = Failure::Refused(Refusal::Overload {
        retry_after_ms: 100,
    });
    bed.answer(conn, calls[0], Err(busy));
    bed.answer(conn, calls[1], Err(LATE));
    let steps = bed.steps();
    assert!(steps.contains(&answered(calls[0], Err(CallError::Stopping))));
    let late = Err(CallError::Failed(LATE));
    assert!(steps.contains(&answered(calls[1], late)));
}
