//! Calls: how many dials and attempts they cost, which are made again, and how each ends.

mod breaker;
mod inbound;
mod links;
mod stop;

use super::*;
use crate::{
    close::{Closed, PeerClose},
    limits::{BREAKER_COOLDOWN, RPC_CALLS_PER_CONNECTION, RPC_CALLS_WAITING_MAX, RPC_DRAIN_GRACE},
    output::Event,
    peer::{
        bed::start,
        capabilities::Capabilities,
        event::PeerEvent,
        negotiate::Agreed,
        refusal::Refusal,
        response::ResponseError,
        retry::{Failure, wait_max},
    },
};

const PEER: NodeId = NodeId(5);
const DEAD: Failure = Failure::Link {
    written: true,
    dead: true,
};
const UNREACHED: Failure = Failure::Link {
    written: false,
    dead: true,
};
const LATE: Failure = Failure::Link {
    written: true,
    dead: false,
};

struct Bed {
    node: Node,
    now: Instant,
    conns: u64,
}

impl Bed {
    fn new() -> Self {
        let now = start();
        let mut node = Node::new(BreakerSettings::default(), &Seed::new([1; 32]));
        node.set_peer(now, PEER, address(1));
        Self {
            node,
            now,
            conns: 0,
        }
    }

    fn steps(&mut self) -> Vec<NodeStep> {
        std::iter::from_fn(|| self.node.poll_step()).collect()
    }

    fn call(&mut self, kind: RpcType) -> CallId {
        self.node
            .call(self.now, PEER, kind, Bytes::from_static(b"x"))
    }

    /// The one dial that is asked for.
    fn dial(&mut self) -> DialId {
        match &self.steps()[..] {
            [NodeStep::Dial { dial, .. }] => *dial,
            other => panic!("{other:?}"),
        }
    }

    fn up(&mut self, dial: DialId) -> ConnId {
        self.conns += 1;
        let conn = ConnId(self.conns);
        self.node.handle_dialled(self.now, dial, Some(conn));
        self.event(conn, up());
        conn
    }

    /// A connection to the peer.
    fn connected(&mut self) -> ConnId {
        self.node.warm(self.now, PEER);
        let dial = self.dial();
        let conn = self.up(dial);
        assert_eq!(self.steps(), [NodeStep::Reach(PEER, Reach::Up)]);
        conn
    }

    fn event(&mut self, conn: ConnId, event: Event) {
        self.node.handle_event(self.now, conn, event);
    }

    fn answer(&mut self, conn: ConnId, call: CallId, outcome: Result<Bytes, Failure>) {
        self.event(conn, Event::Peer(PeerEvent::Answered { call, outcome }));
    }

    /// Lets time pass until the next thing that the node wants to do.
    fn wait(&mut self) -> Duration {
        let at = self.node.poll_timeout().unwrap();
        let waited = at.saturating_duration_since(self.now);
        self.now = self.now.max(at);
        self.node.handle_timeout(self.now);
        waited
    }
}

fn address(port: u16) -> Target {
    format!("10.0.0.1:{port}").parse().unwrap()
}

fn up() -> Event {
    let agreed = Agreed {
        version: 2,
        capabilities: Capabilities::ALL,
    };
    Event::Peer(PeerEvent::Up { node: None, agreed })
}

fn made(conn: ConnId, call: CallId, kind: RpcType) -> NodeStep {
    let payload = Bytes::from_static(b"x");
    NodeStep::Call {
        conn,
        call,
        kind,
        payload,
    }
}

fn answered(call: CallId, outcome: Result<Bytes, CallError>) -> NodeStep {
    NodeStep::Answered { call, outcome }
}

#[test]
fn calls_share_one_dial_and_one_connection() {
    let mut bed = Bed::new();
    let calls = [bed.call(RpcType::Ping), bed.call(RpcType::ReadIndex)];
    let dial = bed.dial();
    let conn = bed.up(dial);
    assert_eq!(
        bed.steps(),
        [
            NodeStep::Reach(PEER, Reach::Up),
            made(conn, calls[0], RpcType::Ping),
            made(conn, calls[1], RpcType::ReadIndex),
        ]
    );
    bed.answer(conn, calls[1], Ok(Bytes::from_static(b"y")));
    let body = Ok(Bytes::from_static(b"y"));
    assert_eq!(bed.steps(), [answered(calls[1], body)]);
    let third = bed.call(RpcType::Ping);
    assert_eq!(bed.steps(), [made(conn, third, RpcType::Ping)]);
    assert_eq!(bed.node.poll_timeout(), None, "the connection keeps time");
}

#[test]
fn a_dial_that_fails_is_shared_and_counted_once() {
    let mut bed = Bed::new();
    for _ in 0..10 {
        bed.call(RpcType::DataPropose);
    }
    let dial = bed.dial();
    bed.node.handle_dialled(bed.now, dial, None);
    assert!(bed.steps().is_empty(), "all of them rest");
    let status = bed.node.peers().next().unwrap();
    assert_eq!((status.failures, status.waiting), (1, 0));
    // The first to wake dials for all.
    assert!(bed.wait() <= wait_max(1));
    bed.dial();
    for _ in 1..10 {
        bed.wait();
    }
    assert!(bed.steps().is_empty());
    assert_eq!(bed.node.peers().next().unwrap().waiting, 10);
}

#[test]
fn a_node_that_is_never_reached_costs_three_attempts() {
    let mut bed = Bed::new();
    let call = bed.call(RpcType::DataPropose);
    for attempt in 1..=3 {
        let dial = bed.dial();
        bed.node.handle_dialled(bed.now, dial, None);
        if attempt < 3 {
            assert!(bed.wait() <= wait_max(attempt));
        }
    }
    let failed = CallError::Failed(UNREACHED);
    assert_eq!(bed.steps(), [answered(call, Err(failed))]);
    assert_eq!((bed.node.calls(), bed.node.poll_timeout()), (0, None));
}

#[test]
fn only_what_is_safe_is_made_again() {
    for (kind, failure, again) in [
        (RpcType::Ping, LATE, true),
        (RpcType::DataPropose, LATE, false),
        (RpcType::DataPropose, UNREACHED, true),
        (RpcType::DataPropose, DEAD, false),
        (
            RpcType::Ping,
            Failure::BadAnswer(ResponseError::Unanswered),
            true,
        ),
        (RpcType::Ping, Failure::Identity, false),
        (
            RpcType::DataPropose,
            Failure::Refused(Refusal::Overload { retry_after_ms: 1 }),
            true,
        ),
    ] {
        let mut bed = Bed::new();
        let conn = bed.connected();
        let call = bed.call(kind);
        assert_eq!(bed.steps(), [made(conn, call, kind)]);
        bed.answer(conn, call, Err(failure));
        let ended = answered(call, Err(CallError::Failed(failure)));
        assert_eq!(bed.steps().contains(&ended), !again, "{kind:?} {failure:?}");
        assert_eq!(bed.node.calls(), usize::from(again));
    }
}

#[test]
fn an_overloaded_node_is_left_alone_for_as_long_as_it_says() {
    let mut bed = Bed::new();
    let conn = bed.connected();
    let call = bed.call(RpcType::Ping);
    let busy = |retry_after_ms| Failure::Refused(Refusal::Overload { retry_after_ms });
    bed.answer(conn, call, Err(busy(2_000)));
    assert!(bed.wait() >= Duration::from_secs(2));
    bed.answer(conn, call, Err(busy(u64::MAX)));
    assert_eq!(bed.wait(), Duration::from_secs(5));
}

#[test]
fn a_call_that_the_connection_never_took_is_made_again() {
    let mut bed = Bed::new();
    let conn = bed.connected();
    let call = bed.call(RpcType::DataPropose);
    bed.steps();
    bed.event(conn, Event::Closed(Closed::PeerRestarted));
    bed.wait();
    assert!(matches!(
        bed.steps()[..],
        [NodeStep::Reach(..), NodeStep::Dial { .. }]
    ));
    assert_eq!(bed.node.calls(), 1);
    let _unanswered = call;
}

#[test]
fn a_call_that_may_have_been_executed_when_its_connection_was_abandoned_is_not_made_again() {
    let mut bed = Bed::new();
    let conn = bed.connected();
    let (once, often) = (bed.call(RpcType::DataPropose), bed.call(RpcType::Ping));
    bed.steps();
    bed.node.handle_abandoned(bed.now, conn);
    bed.event(conn, Event::Closed(Closed::Local));
    assert_eq!(bed.node.peers().next().unwrap().failures, 1);
    let steps = bed.steps();
    let failed = answered(once, Err(CallError::Failed(DEAD)));
    assert!(steps.contains(&failed), "{steps:?}");
    assert_eq!(bed.node.calls(), 1, "{often} rests");
}

#[test]
fn what_waits_is_bounded_in_number_and_time() {
    let mut bed = Bed::new();
    for _ in 0..RPC_CALLS_WAITING_MAX {
        bed.call(RpcType::Ping);
    }
    bed.dial();
    let call = bed.call(RpcType::Ping);
    let busy = CallError::Busy { node: PEER };
    assert_eq!(bed.steps(), [answered(call, Err(busy))]);
    assert_eq!(bed.wait(), Duration::from_secs(5));
    let unknown = bed
        .node
        .call(bed.now, NodeId(9), RpcType::Ping, Bytes::new());
    let node = NodeId(9);
    assert!(
        bed.steps()
            .contains(&answered(unknown, Err(CallError::Unreachable { node })))
    );
}

#[test]
fn a_call_to_an_address_has_a_connection_of_its_own_and_one_attempt() {
    let mut bed = Bed::new();
    let join = |bed: &mut Bed| {
        let now = bed.now;
        (bed.node).call_address(now, address(9), RpcType::Join, Bytes::from_static(b"x"))
    };
    let call = join(&mut bed);
    let dial = bed.dial();
    let conn = bed.up(dial);
    assert_eq!(bed.steps(), [made(conn, call, RpcType::Join)]);
    bed.answer(conn, call, Err(LATE));
    let closed = NodeStep::Close(conn, CloseReason::Redundant);
    let failed = Err(CallError::Failed(LATE));
    assert_eq!(bed.steps(), [closed, answered(call, failed.clone())]);

    let late = join(&mut bed);
    let dial = bed.dial();
    let conn = bed.up(dial);
    bed.steps();
    assert_eq!(bed.wait(), Duration::from_secs(5));
    let closed = NodeStep::Close(conn, CloseReason::Redundant);
    assert_eq!(bed.steps(), [closed, answered(late, failed)]);
    assert_eq!((bed.node.calls(), bed.node.poll_timeout()), (0, None));
}

#[test]
fn a_cancelled_call_has_no_outcome() {
    let mut bed = Bed::new();
    let waiting = bed.call(RpcType::Ping);
    let dial = bed.dial();
    bed.node.cancel(bed.now, waiting);
    let conn = bed.up(dial);
    assert_eq!(bed.steps(), [NodeStep::Reach(PEER, Reach::Up)]);
    let made = bed.call(RpcType::Ping);
    bed.steps();
    bed.node.cancel(bed.now, made);
    assert_eq!(bed.steps(), [NodeStep::Cancel { conn, call: made }]);
    bed.answer(conn, made, Ok(Bytes::new()));
    assert!(bed.steps().is_empty());
}

#[test]
fn what_cannot_be_asked_is_not() {
    let mut bed = Bed::new();
    let answer = bed.call(RpcType::Pong);
    let refused = CallError::NoRequest(RpcType::Pong);
    assert_eq!(bed.steps(), [answered(answer, Err(refused))]);
    let large = Bytes::from(vec![0; PAYLOAD_LEN_MAX as usize + 1]);
    let len = large.len();
    let call = bed.node.call(bed.now, PEER, RpcType::Ping, large);
    let refused = CallError::TooLarge { len };
    assert_eq!(bed.steps(), [answered(call, Err(refused))]);
}
