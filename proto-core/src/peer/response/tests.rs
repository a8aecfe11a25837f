use super::*;
use crate::peer::{
    bed::{self, LOCAL, Node, PEER, frame, leaf, ring, route, secret, tags},
    bound::Route,
    directory::Directory,
};

/// Node 1, which dialled node 5 and asks it.
struct World {
    node: Node,
    caller: Caller,
    /// The other end.
    tags: Tags,
    asked: Asked,
}

impl World {
    fn new(agreed: Capabilities) -> Self {
        let mut caller = Caller::new(agreed, secret(), None, Some(PEER));
        caller.leaf = Some(Ok(leaf(5)));
        Self {
            node: Node::new(),
            caller,
            tags: tags(agreed),
            asked: Asked {
                kind: RpcType::Ping,
                tag: [6; 32],
            },
        }
    }

    fn answer(&mut self, route: Route, inner: Vec<u8>) -> Result<Answer, ResponseError> {
        let tag = self.asked.tag;
        self.answer_to(route, inner, &tag)
    }

    fn answer_to(
        &mut self,
        route: Route,
        inner: Vec<u8>,
        tag: &Tag,
    ) -> Result<Answer, ResponseError> {
        let tags = &mut self.tags;
        let envelope = bed::sealed(tags, Direction::Response, route, inner, Some(tag));
        self.receive(Some(envelope))
    }

    fn receive(&mut self, envelope: Option<Unverified>) -> Result<Answer, ResponseError> {
        let node = &mut self.node;
        let judge = Node::judge(&node.store);
        let state = (&mut node.windows, &mut node.epochs as &mut dyn EpochHook);
        self.caller
            .receive(envelope, &self.asked, &node.keys, &judge, state)
    }

    fn pong(&mut self, seq: u64) -> Result<Answer, ResponseError> {
        self.answer(route(seq), frame(RpcType::Pong, b"p"))
    }
}

fn body() -> Result<Answer, ResponseError> {
    Ok(Answer::Body(Bytes::from_static(b"p")))
}

fn from(node: u64, seq: u64) -> Route {
    Route {
        from: NodeId(node),
        ..route(seq)
    }
}

#[test]
fn a_good_answer_is_taken() {
    for agreed in [Capabilities::NONE, Capabilities::ALL] {
        let mut w = World::new(agreed);
        assert_eq!(w.pong(3), body());
        assert_eq!(w.node.epochs.stamp(), 7);
    }
}

#[test]
fn only_the_node_that_was_called_answers() {
    let mut w = World::new(Capabilities::NONE);
    let got = w
        .answer(from(6, 1), frame(RpcType::Pong, b"p"))
        .unwrap_err();
    let wrong = ResponseError::WrongSender {
        called: PEER,
        from: NodeId(6),
    };
    assert_eq!(got, wrong);
    assert_eq!(got.close(), Some(PeerClose::IdentityMismatch));
    assert_eq!(w.node.windows.of(NodeId(6)).unwrap().high(), 0);
    assert_eq!(w.node.epochs.stamp(), 0);
}

#[test]
fn the_certificate_is_compared_when_dialling_and_with_each_answer() {
    let mut w = World::new(Capabilities::NONE);
    let judge = Node::judge(&w.node.store);
    assert_eq!(w.caller.check_dialled(&judge), Ok(()));
    w.caller.leaf = Some(Ok(leaf(6)));
    let wrong = IdentityError::WrongKey;
    assert_eq!(w.caller.check_dialled(&judge), Err(wrong));
    assert_eq!(w.pong(1), Err(wrong.into()));
    w.caller.leaf = None;
    assert_eq!(w.pong(1), Err(IdentityError::NoCertificate.into()));
}

#[test]
fn the_answer_is_of_the_requests_kind() {
    let mut w = World::new(Capabilities::NONE);
    for (seq, got) in [
        (1, RpcType::JoinAnswer),
        (2, RpcType::Ping),
        (3, RpcType::Refusal),
    ] {
        let wrong = ResponseError::WrongAnswer {
            asked: RpcType::Ping,
            got,
        };
        assert_eq!(w.answer(route(seq), frame(got, b"")), Err(wrong));
    }
    let mut unknown = frame(RpcType::Pong, b"");
    unknown[1] = 14;
    let retired = ResponseError::Kind(RpcTypeError::Retired(14));
    assert_eq!(w.answer(route(4), unknown), Err(retired));
}

#[test]
fn a_plain_answer_comes_once() {
    let mut w = World::new(Capabilities::NONE);
    assert_eq!(w.pong(3), body());
    assert_eq!(w.pong(3), Err(ReplayError::Replay { seq: 3 }.into()));
    assert_eq!(w.pong(0), Err(ReplayError::Reserved.into()));
}

#[test]
fn a_bound_answer_belongs_to_its_request_whatever_its_number() {
    let mut w = World::new(Capabilities::ALL);
    assert_eq!(w.pong(3), body());
    // A server that counts from 1 again is heard.
    assert_eq!(w.pong(1), body());
    let got = w.answer_to(route(9), frame(RpcType::Pong, b"p"), &[1; 32]);
    assert_eq!(got, Err(EnvelopeError::Mac.into()));
    let other = Route {
        to: NodeId(6),
        ..route(9)
    };
    let got = w.answer(other, frame(RpcType::Pong, b"p"));
    assert_eq!(got, Err(ResponseError::NotForUs { to: NodeId(6) }));
}

#[test]
fn an_end_without_a_byte_answers_only_what_goes_one_way() {
    let mut w = World::new(Capabilities::NONE);
    assert_eq!(w.receive(None), Err(ResponseError::Unanswered));
    w.asked.kind = RpcType::TimeoutNow;
    assert_eq!(w.receive(None), Ok(Answer::Taken));
}

#[test]
fn refusals_are_typed_where_both_sides_can() {
    for agreed in [Capabilities::REFUSALS, Capabilities::ALL] {
        let mut w = World::new(agreed);
        let refusal = Refusal::Number { high: 40 };
        let got = w.answer(route(1), frame(RpcType::Refusal, &refusal.encode()));
        assert_eq!(got, Ok(Answer::Refused(refusal)));
        let got = w.answer(route(2), frame(RpcType::Refusal, b"short"));
        assert_eq!(got, Err(RefusalError::Len { len: 5 }.into()));
    }
}

#[test]
fn of_a_request_that_was_not_read_only_the_load_is_told() {
    let mut w = World::new(Capabilities::ALL);
    let overload = Refusal::Overload { retry_after_ms: 5 };
    let inner = frame(RpcType::Refusal, &overload.encode());
    let got = w.answer_to(route(1), inner, &UNREAD_REQUEST);
    assert_eq!(got, Ok(Answer::Refused(overload)));
    let wrong = |got| {
        Err(ResponseError::WrongAnswer {
            asked: RpcType::Ping,
            got,
        })
    };
    let inner = frame(RpcType::Refusal, &Refusal::Number { high: 1 }.encode());
    let got = w.answer_to(route(2), inner, &UNREAD_REQUEST);
    assert_eq!(got, wrong(RpcType::Refusal));
    let got = w.answer_to(route(3), frame(RpcType::Pong, b"p"), &UNREAD_REQUEST);
    assert_eq!(got, wrong(RpcType::Pong));
    let mut w = World::new(Capabilities::BOUND);
    let inner = frame(RpcType::Refusal, &overload.encode());
    let got = w.answer_to(route(1), inner, &UNREAD_REQUEST);
    assert_eq!(got, Err(EnvelopeError::Mac.into()));
}

#[test]
fn whoever_joins_believes_the_first_that_answers_and_no_other_on_that_connection() {
    let mut w = World::new(Capabilities::NONE);
    w.node.store = Directory::default();
    w.caller.called = None;
    let judge = Node::judge(&w.node.store);
    assert_eq!(w.caller.check_dialled(&judge), Ok(()));
    assert_eq!(w.pong(1), body());
    let got = w.answer(from(6, 1), frame(RpcType::Pong, b"p"));
    assert!(matches!(
        got,
        Err(ResponseError::WrongSender { called: PEER, .. })
    ));
    // With a topology nobody unknown is believed.
    let mut w = World::new(Capabilities::NONE);
    w.caller.called = None;
    w.caller.leaf = Some(Ok(leaf(8)));
    let got = w.answer(from(8, 1), frame(RpcType::Pong, b"p"));
    assert_eq!(got, Err(IdentityError::Unknown.into()));
}

#[test]
fn a_key_that_the_ring_does_not_have_is_refused() {
    let mut w = World::new(Capabilities::ALL);
    let other = KeyRing::new(crate::peer::key::KeyId(8), ring().current().secret.clone());
    let inner = [Bytes::from(frame(RpcType::Pong, b""))];
    let tag = w.asked.tag;
    let sealed = w
        .tags
        .seal(&other, Direction::Response, route(1), inner, Some(&tag));
    let envelope = Unverified::parse(Layout::Bound, sealed.unwrap().to_bytes()).unwrap();
    assert_eq!(w.receive(Some(envelope)), Err(EnvelopeError::Mac.into()));
    assert_ne!(LOCAL, PEER);
}
