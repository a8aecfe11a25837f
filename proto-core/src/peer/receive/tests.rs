use std::cell::Cell;

use super::*;
use crate::peer::{
    bed::{self, LOCAL, Node, PEER, frame, leaf, route, secret, tags},
    bound::Route,
    identity::SpkiPin,
    key::{ClusterSecret, KeyId},
};

/// Says always the same, and counts how often it was asked.
struct Joins(bool, Cell<u32>);

impl JoinCheck for Joins {
    fn allows(&self, _from: NodeId, _payload: &[u8], _leaf: &Leaf) -> bool {
        self.1.set(self.1.get() + 1);
        self.0
    }
}

/// Node 1 with a connection from somebody who shows a node's certificate.
struct World {
    node: Node,
    callee: Callee,
    /// The other end.
    tags: Tags,
    joins: Joins,
}

impl World {
    fn new(agreed: Capabilities, shown: u8) -> Self {
        let mut callee = Callee::new(agreed, secret(), None);
        callee.leaf = Some(Ok(leaf(shown)));
        Self {
            node: Node::new(),
            callee,
            tags: tags(agreed),
            joins: Joins(true, Cell::new(0)),
        }
    }

    fn plain() -> Self {
        Self::new(Capabilities::NONE, 5)
    }

    fn send(&mut self, route: Route, inner: Vec<u8>) -> Result<Request, Refused> {
        let envelope = bed::sealed(&mut self.tags, Direction::Request, route, inner, None);
        self.receive(envelope)
    }

    fn receive(&mut self, envelope: Unverified) -> Result<Request, Refused> {
        let node = &mut self.node;
        let judge = Node::judge(&node.store);
        let state = (&mut node.windows, &mut node.epochs as &mut dyn EpochHook);
        self.callee
            .receive(envelope, &node.keys, &judge, &self.joins, state)
    }

    fn ping(&mut self, seq: u64) -> Result<Request, Refused> {
        self.send(route(seq), frame(RpcType::Ping, b"p"))
    }

    fn high(&mut self) -> u64 {
        self.node.windows.of(PEER).unwrap().high()
    }

    /// Nothing was touched for the sender.
    fn assert_untouched(&mut self) {
        assert_eq!(self.high(), 0);
        assert_eq!(self.node.epochs.stamp(), 0);
        assert_eq!(self.callee.bound(), None);
    }
}

fn cause(got: Result<Request, Refused>) -> ReceiveError {
    got.unwrap_err().cause
}

fn from(node: u64, seq: u64) -> Route {
    Route {
        from: NodeId(node),
        ..route(seq)
    }
}

#[test]
fn a_good_request_is_taken_and_marks_its_sender() {
    for agreed in [Capabilities::NONE, Capabilities::ALL] {
        let mut w = World::new(agreed, 5);
        let got = w.ping(3).unwrap();
        assert_eq!((got.from, got.kind), (PEER, RpcType::Ping));
        assert_eq!(
            (got.accepted, &got.payload[..]),
            (Accepted::Spki, &b"p"[..])
        );
        assert_eq!((w.high(), w.node.epochs.stamp()), (3, 7));
        assert_eq!(w.callee.bound(), Some(PEER));
    }
}

#[test]
fn a_forged_tag_touches_nothing() {
    let mut w = World::plain();
    let other = KeyRing::new(KeyId(4), ClusterSecret::new([8; 32]).unwrap());
    let inner = [Bytes::from(frame(RpcType::Ping, b""))];
    let forged = Tags::plain().seal(&other, Direction::Request, route(9), inner, None);
    let forged = Unverified::parse(w.tags.layout(), forged.unwrap().to_bytes()).unwrap();
    let got = w.receive(forged).unwrap_err();
    assert_eq!(got.cause, EnvelopeError::Mac.into());
    assert_eq!(got.tag, UNREAD_REQUEST);
    assert_eq!(w.callee.consequence(&got, 0), Consequence::EndStream);
    w.assert_untouched();
}

#[test]
fn a_strangers_number_and_epoch_touch_nothing() {
    // Whoever has the cluster's key and another node's certificate.
    let mut w = World::new(Capabilities::NONE, 6);
    let got = w
        .send(route(u64::MAX), frame(RpcType::Ping, b""))
        .unwrap_err();
    assert_eq!(got.cause, IdentityError::WrongKey.into());
    let close = Consequence::Close(PeerClose::IdentityMismatch, None);
    assert_eq!(w.callee.consequence(&got, 0), close);
    w.assert_untouched();
}

#[test]
fn no_certificate_closes() {
    let mut w = World::plain();
    w.callee.leaf = None;
    let got = w.ping(1).unwrap_err();
    assert_eq!(got.cause, IdentityError::NoCertificate.into());
    assert!(matches!(
        w.callee.consequence(&got, 0),
        Consequence::Close(PeerClose::IdentityMismatch, None)
    ));
    assert!(
        Callee::new(Capabilities::NONE, secret(), None)
            .leaf
            .is_none()
    );
    let bad = Callee::new(Capabilities::NONE, secret(), Some(b"no certificate"));
    assert_eq!(bad.leaf, Some(Err(BadLeaf)));
}

#[test]
fn a_connection_stays_with_its_node() {
    let mut w = World::plain();
    // Two records with one key cannot be set, so the second node's is changed under way.
    w.ping(1).unwrap();
    w.callee.leaf = Some(Ok(leaf(6)));
    let got = w.send(from(6, 2), frame(RpcType::Ping, b""));
    let bound = IdentityError::BoundTo { bound: PEER };
    assert_eq!(cause(got), bound.into());
}

#[test]
fn a_stream_that_lost_the_race_for_the_connection_is_refused() {
    let mut w = World::plain();
    let late = bed::sealed(
        &mut w.tags,
        Direction::Request,
        route(2),
        frame(RpcType::Ping, b""),
        None,
    );
    let authentic = w.callee.verify(late, &w.node.keys).unwrap();
    let judge = Node::judge(&w.node.store);
    let late = w.callee.identify(authentic, &judge, &w.joins).unwrap();
    w.callee.bound = Some(NodeId(6));
    let window = w.node.windows.of(late.from()).unwrap();
    let got = w.callee.admit(late, window, &mut w.node.epochs);
    let bound = IdentityError::BoundTo { bound: NodeId(6) };
    assert_eq!(cause(got), bound.into());
    assert_eq!(w.high(), 0);
}

#[test]
fn a_foreign_certificate_is_not_this_node() {
    let mut w = World::plain();
    let got = w.send(from(LOCAL.0, 1), frame(RpcType::Ping, b""));
    assert_eq!(cause(got), IdentityError::ClaimsToBeUs.into());
    w.callee.leaf = Some(Ok(leaf(1)));
    let got = w.send(from(LOCAL.0, 1), frame(RpcType::Ping, b""));
    assert_eq!(got.unwrap().accepted, Accepted::Own);
}

#[test]
fn a_number_is_taken_once() {
    let mut w = World::plain();
    w.ping(5000).unwrap();
    for (seq, error) in [
        (0, ReplayError::Reserved),
        (5000, ReplayError::Replay { seq: 5000 }),
        (
            904,
            ReplayError::Stale {
                seq: 904,
                high: 5000,
            },
        ),
    ] {
        let got = w.ping(seq).unwrap_err();
        assert_eq!(got.cause, error.into());
        assert_eq!(w.callee.consequence(&got, 5000), Consequence::EndStream);
    }
    w.ping(905).unwrap();
}

#[test]
fn a_frame_is_judged_last() {
    let mut w = World::plain();
    let mut damaged = frame(RpcType::Ping, b"p");
    damaged[18] ^= 1;
    let got = w.send(route(1), damaged).unwrap_err();
    assert_eq!(got.cause, FrameError::Crc.into());
    assert_eq!(w.callee.consequence(&got, 0), Consequence::EndStream);
    // The number is used up, the epoch not believed.
    assert_eq!((w.high(), w.node.epochs.stamp()), (1, 0));
    let mut g1 = frame(RpcType::Ping, b"p");
    g1[0] = 1;
    let got = w.send(route(2), g1).unwrap_err();
    let Consequence::Close(close, None) = w.callee.consequence(&got, 0) else {
        panic!("the connection stays open");
    };
    assert_eq!(close.code(), 1);
    let got = w.send(route(3), Vec::new());
    assert_eq!(cause(got), FrameError::TooShort { len: 0 }.into());
}

#[test]
fn only_requests_that_are_known_are_taken() {
    let mut w = World::plain();
    let mut unknown = frame(RpcType::Ping, b"");
    for (seq, value, error) in [
        (1, 13, RpcTypeError::Retired(13).into()),
        (2, 99, RpcTypeError::Unknown(99).into()),
        (
            3,
            RpcType::Pong.value(),
            ReceiveError::NoRequest(RpcType::Pong),
        ),
        (
            4,
            RpcType::Refusal.value(),
            ReceiveError::NoRequest(RpcType::Refusal),
        ),
        (
            5,
            RpcType::WindowReset.value(),
            ReceiveError::NoRequest(RpcType::WindowReset),
        ),
    ] {
        unknown[1] = value;
        assert_eq!(cause(w.send(route(seq), unknown.clone())), error);
    }
}

#[test]
fn a_fence_refuses_and_ends_the_stream() {
    use crate::peer::epoch::EpochMark;
    let mut w = World::plain();
    w.node.epochs = EpochMark::fencing(8);
    let got = w
        .send(route(1), frame(RpcType::AppendEntries, b""))
        .unwrap_err();
    assert_eq!(got.cause, StaleEpoch { peer: 7, local: 8 }.into());
    assert_eq!(w.callee.consequence(&got, 1), Consequence::EndStream);
}

#[test]
fn a_join_needs_every_condition_and_touches_nothing_before() {
    let authorised = |w: &mut World| w.node.store.authorise(SpkiPin([9; 32]), 2_000);
    let world = || World::new(Capabilities::NONE, 9);
    let join = |w: &mut World| w.send(from(9, 1), frame(RpcType::Join, b"me"));

    let mut w = world();
    assert_eq!(cause(join(&mut w)), IdentityError::Unknown.into());
    assert_eq!(w.joins.1.get(), 0, "not asked for a key that may not join");

    let mut w = world();
    authorised(&mut w);
    w.joins.0 = false;
    assert_eq!(cause(join(&mut w)), IdentityError::JoinRefused.into());
    assert_eq!(w.node.windows.of(NodeId(9)).unwrap().high(), 0);
    w.assert_untouched();

    let mut w = world();
    authorised(&mut w);
    let got = w.send(from(9, 1), frame(RpcType::Ping, b""));
    assert_eq!(cause(got), IdentityError::JoinRefused.into());
    assert_eq!(w.joins.1.get(), 0, "not asked about another kind");

    let got = join(&mut w).unwrap();
    assert_eq!(
        (got.accepted, got.kind),
        (Accepted::Enrolled, RpcType::Join)
    );
    assert_eq!(w.callee.bound(), Some(NodeId(9)));

    // The id of a node that is known is not for whoever may join.
    let mut w = world();
    authorised(&mut w);
    let got = w.send(from(5, 1), frame(RpcType::Join, b""));
    assert_eq!(cause(got), IdentityError::WrongKey.into());
}

#[test]
fn a_bound_message_is_for_one_node() {
    let mut w = World::new(Capabilities::BOUND, 5);
    let to = |to, seq| Route {
        to: NodeId(to),
        ..route(seq)
    };
    let got = w.send(to(6, 1), frame(RpcType::Ping, b"")).unwrap_err();
    assert_eq!(got.cause, ReceiveError::NotForUs { to: NodeId(6) });
    assert_eq!(w.callee.consequence(&got, 0), Consequence::EndStream);
    let anyone = ReceiveError::NotForUs { to: ANYONE };
    let got = w.send(to(0, 2), frame(RpcType::Ping, b""));
    assert_eq!(cause(got), anyone);
    w.assert_untouched();
    w.send(to(0, 3), frame(RpcType::Join, b"")).unwrap();
}

#[test]
fn refusals_are_typed_where_both_sides_can() {
    let mut w = World::new(Capabilities::REFUSALS, 5);
    w.ping(9).unwrap();
    let got = w.ping(9).unwrap_err();
    let number = Consequence::Answer(Refusal::Number { high: 9 });
    assert_eq!(w.callee.consequence(&got, 9), number);
    w.callee.leaf = Some(Ok(leaf(6)));
    let got = w.ping(10).unwrap_err();
    let close = Consequence::Close(PeerClose::IdentityMismatch, Some(Refusal::Identity));
    assert_eq!(w.callee.consequence(&got, 9), close);
    let over = Refused::unread(EnvelopeError::OverBudget { len: 9 });
    assert!(matches!(
        w.callee.consequence(&over, 9),
        Consequence::Answer(Refusal::Overload { .. })
    ));
}

#[test]
fn a_window_begins_anew_only_by_what_it_remembers() {
    let mut w = World::new(Capabilities::ALL, 5);
    w.ping(u64::MAX).unwrap();
    let number = cause(w.ping(6));
    assert!(matches!(
        number,
        ReceiveError::Replay(ReplayError::Stale { .. })
    ));
    let reset = |high: u64| frame(RpcType::WindowReset, &high.to_le_bytes());

    let got = w.send(route(7), reset(12)).unwrap_err();
    assert_eq!(got.cause, ReceiveError::BadReset { high: u64::MAX });
    let answer = Consequence::Answer(Refusal::Number { high: u64::MAX });
    assert_eq!(w.callee.consequence(&got, u64::MAX), answer);
    assert_eq!(w.high(), u64::MAX);

    let got = w.send(route(7), reset(u64::MAX)).unwrap();
    assert_eq!(got.kind, RpcType::WindowReset);
    assert_eq!(w.high(), 7);
    // The same message once more repeats what is not true any longer.
    let got = w.send(route(7), reset(u64::MAX));
    assert_eq!(cause(got), ReceiveError::BadReset { high: 7 });
    w.ping(8).unwrap();
    let got = w.send(route(0), reset(8));
    assert_eq!(cause(got), ReplayError::Reserved.into());
}

#[test]
fn a_plain_request_from_before_a_reset_is_not_taken_again() {
    let mut plain = World::plain();
    plain.ping(12).unwrap();
    // The same node, over another connection.
    let mut w = World::new(Capabilities::ALL, 5);
    std::mem::swap(&mut w.node, &mut plain.node);
    let reset = frame(RpcType::WindowReset, &12_u64.to_le_bytes());
    w.send(route(7), reset).unwrap();
    std::mem::swap(&mut w.node, &mut plain.node);
    let again = plain.ping(12);
    assert_eq!(
        cause(again),
        ReplayError::Stale { seq: 12, high: 12 }.into()
    );
    plain.ping(13).unwrap();
}

#[test]
fn a_reset_needs_the_right_node() {
    let mut w = World::new(Capabilities::ALL, 6);
    let got = w.send(route(7), frame(RpcType::WindowReset, &0_u64.to_le_bytes()));
    assert_eq!(cause(got), IdentityError::WrongKey.into());
    w.assert_untouched();
}

#[test]
fn load_is_told_only_to_a_node_that_is_known() {
    let over = Refused::unread(EnvelopeError::OverBudget { len: 9 });
    let mut w = World::new(Capabilities::ALL, 5);
    assert_eq!(w.callee.consequence(&over, 0), Consequence::EndStream);
    w.ping(1).unwrap();
    let answer = w.callee.consequence(&over, 0);
    assert!(matches!(
        answer,
        Consequence::Answer(Refusal::Overload { .. })
    ));
}
