//! Two nodes joined in memory by TLS with the peers' configurations: version handshake, calls, refusals, and what is
//! recorded on one connection and sent on another.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

mod nodes;

use adit_proto_core::{
    id::{CallId, Slot},
    peer::{
        NodeId,
        bound::{Direction, Route},
        budget::Budget,
        calls::{Answered, Incoming, Outgoing, Received},
        capabilities::Capabilities,
        envelope::{EnvelopeError, Sealed},
        frame::Frame,
        receive::{Consequence, ReceiveError, Refused, Request},
        refusal::Refusal,
        response::{Answer, Asked, ResponseError},
        rpc_type::RpcType,
        window::ReplayError,
    },
};
use bytes::Bytes;

use crate::nodes::{Cluster, Ends, Node, start};

const BOTH: [Capabilities; 2] = [Capabilities::NONE, Capabilities::ALL];

/// Has one node ask and gives the envelope, with what the answer is to be held against.
fn ask(client: &Node, ends: &mut Ends, kind: RpcType, body: &[u8]) -> (Sealed, Asked) {
    let route = Route {
        from: client.id,
        to: NodeId(2),
        seq: client.outbound.take().unwrap(),
    };
    let frame = Frame::new(kind, 3, Bytes::copy_from_slice(body));
    let tags = ends.caller.tags();
    let sealed = tags.seal_frame(&client.keys, Direction::Request, route, frame, None);
    let sealed = sealed.unwrap();
    let tag = sealed.tag;
    (sealed, Asked { kind, tag })
}

/// Has the server read a request off a stream and judge it.
fn take(server: &mut Node, ends: &mut Ends, wire: &Sealed) -> Result<Request, Refused> {
    let budget = Budget::new(1 << 20);
    let mut calls = Incoming::new(ends.agreed.layout(), budget.clone(), &budget);
    calls.open(Slot(1)).unwrap();
    for part in &wire.parts {
        assert_eq!(calls.handle_bytes(start(), Slot(1), part), None);
    }
    let Some(Received::Request(envelope)) = calls.handle_end(Slot(1)) else {
        panic!("no request");
    };
    server.receive(&mut ends.callee, envelope)
}

/// Has the server answer, and the client read and judge it.
fn answer(
    (client, server): (&mut Node, &Node),
    ends: &mut Ends,
    asked: &Asked,
    kind: RpcType,
    body: Bytes,
) -> Result<Answer, ResponseError> {
    let route = Route {
        from: server.id,
        to: client.id,
        seq: server.outbound.take().unwrap(),
    };
    let frame = Frame::new(kind, 4, body);
    let tags = ends.callee.tags();
    let answered = Some(&asked.tag);
    let sealed = tags.seal_frame(&server.keys, Direction::Response, route, frame, answered);
    let mut calls = Outgoing::new(ends.agreed.layout(), Budget::new(1 << 20));
    calls.begin(start(), CallId(1)).unwrap();
    calls.asked(start(), CallId(1));
    for part in sealed.unwrap().parts {
        assert!(calls.handle_bytes(CallId(1), &part).is_none());
    }
    let Some(Answered::Envelope(envelope)) = calls.handle_end(CallId(1)) else {
        panic!("no answer");
    };
    client.accept(&mut ends.caller, envelope, asked)
}

#[test]
fn a_call_goes_there_and_back() {
    for offered in BOTH {
        let cluster = Cluster::new();
        let (mut client, mut server) = (cluster.node(1), cluster.node(2));
        let mut ends = cluster.connect(&client, &server, offered).unwrap();
        assert_eq!(ends.agreed, offered);
        for n in 0..3_u8 {
            let (wire, asked) = ask(&client, &mut ends, RpcType::ReadIndex, &[n]);
            let request = take(&mut server, &mut ends, &wire).unwrap();
            assert_eq!(
                (request.from, request.kind),
                (client.id, RpcType::ReadIndex)
            );
            assert_eq!(request.payload, [n].as_slice());
            let got = answer(
                (&mut client, &server),
                &mut ends,
                &asked,
                RpcType::ReadIndexAnswer,
                request.payload,
            );
            assert_eq!(got, Ok(Answer::Body(Bytes::copy_from_slice(&[n]))));
        }
    }
}

#[test]
fn a_request_that_was_recorded_is_refused_on_every_connection() {
    let cluster = Cluster::new();
    let (client, mut server) = (cluster.node(1), cluster.node(2));
    for offered in BOTH {
        let mut ends = cluster.connect(&client, &server, offered).unwrap();
        let (wire, _) = ask(&client, &mut ends, RpcType::Ping, b"");
        take(&mut server, &mut ends, &wire).unwrap();
        let again = take(&mut server, &mut ends, &wire).unwrap_err();
        assert!(matches!(
            again.cause,
            ReceiveError::Replay(ReplayError::Replay { .. })
        ));
        let mut other = cluster.connect(&client, &server, offered).unwrap();
        let on_other = take(&mut server, &mut other, &wire).unwrap_err();
        match offered.has(Capabilities::BOUND) {
            true => assert_eq!(on_other.cause, EnvelopeError::Mac.into()),
            false => assert_eq!(on_other.cause, again.cause),
        }
    }
}

#[test]
fn a_bound_request_is_refused_by_a_receiver_that_has_forgotten_everything() {
    let cluster = Cluster::new();
    let (client, mut server) = (cluster.node(1), cluster.node(2));
    let mut ends = cluster
        .connect(&client, &server, Capabilities::ALL)
        .unwrap();
    let (wire, _) = ask(&client, &mut ends, RpcType::Ping, b"");
    take(&mut server, &mut ends, &wire).unwrap();
    let mut restarted = cluster.node(2);
    let mut ends = cluster
        .connect(&client, &restarted, Capabilities::ALL)
        .unwrap();
    let got = take(&mut restarted, &mut ends, &wire).unwrap_err();
    assert_eq!(got.cause, EnvelopeError::Mac.into());
}

#[test]
fn an_answer_to_another_request_is_none() {
    let cluster = Cluster::new();
    let (mut client, mut server) = (cluster.node(1), cluster.node(2));
    let mut ends = cluster
        .connect(&client, &server, Capabilities::ALL)
        .unwrap();
    let (first, asked_first) = ask(&client, &mut ends, RpcType::Ping, b"1");
    let (_, asked_second) = ask(&client, &mut ends, RpcType::Ping, b"2");
    let request = take(&mut server, &mut ends, &first).unwrap();
    assert_eq!(request.tag, asked_first.tag);
    let crossed = Asked {
        tag: asked_second.tag,
        ..asked_first
    };
    let route = Route {
        from: server.id,
        to: client.id,
        seq: 9,
    };
    let frame = Frame::new(RpcType::Pong, 0, Bytes::new());
    let tags = ends.callee.tags();
    let answered = Some(&request.tag);
    let sealed = tags.seal_frame(&server.keys, Direction::Response, route, frame, answered);
    let envelope = nodes::parse(&sealed.unwrap(), ends.agreed);
    let got = client.accept(&mut ends.caller, envelope, &crossed);
    assert_eq!(got, Err(EnvelopeError::Mac.into()));
}

#[test]
fn a_restarted_sender_is_told_and_has_its_window_begin_anew() {
    let cluster = Cluster::new();
    let mut server = cluster.node(2);
    let client = cluster.node(1);
    client.outbound.enter(7);
    let mut ends = cluster
        .connect(&client, &server, Capabilities::ALL)
        .unwrap();
    let (wire, _) = ask(&client, &mut ends, RpcType::Ping, b"");
    take(&mut server, &mut ends, &wire).unwrap();

    // Its durable epoch was lost.
    let mut client = cluster.node(1);
    let mut ends = cluster
        .connect(&client, &server, Capabilities::ALL)
        .unwrap();
    let (wire, asked) = ask(&client, &mut ends, RpcType::Ping, b"");
    let refused = take(&mut server, &mut ends, &wire).unwrap_err();
    let high = server.windows.of(client.id).unwrap().high();
    let Consequence::Answer(refusal) = ends.callee.consequence(&refused, high) else {
        panic!("not told");
    };
    let nodes = (&mut client, &server);
    let told = answer(nodes, &mut ends, &asked, RpcType::Refusal, refusal.encode());
    let high = (7 << 44) + 1;
    assert_eq!(told, Ok(Answer::Refused(Refusal::Number { high })));

    let reset = high.to_le_bytes();
    let (wire, asked) = ask(&client, &mut ends, RpcType::WindowReset, &reset);
    let request = take(&mut server, &mut ends, &wire).unwrap();
    assert_eq!(request.kind, RpcType::WindowReset);
    let nodes = (&mut client, &server);
    let body = Bytes::copy_from_slice(&2_u64.to_le_bytes());
    let got = answer(nodes, &mut ends, &asked, RpcType::WindowResetAnswer, body);
    assert!(matches!(got, Ok(Answer::Body(_))));
    let (wire, _) = ask(&client, &mut ends, RpcType::Ping, b"");
    take(&mut server, &mut ends, &wire).unwrap();
}

#[test]
fn a_stranger_with_a_certificate_of_the_same_ca_has_no_connection() {
    let cluster = Cluster::new();
    let (stranger, server) = (cluster.stranger(3), cluster.node(2));
    assert!(
        cluster
            .connect(&stranger, &server, Capabilities::ALL)
            .is_err()
    );
    let client = cluster.node(1);
    assert!(
        cluster
            .connect(&client, &stranger, Capabilities::ALL)
            .is_err()
    );
}

#[test]
fn a_member_does_not_speak_for_another() {
    for offered in BOTH {
        let cluster = Cluster::new();
        let (mut client, mut server) = (cluster.node(1), cluster.node(2));
        let mut ends = cluster.connect(&client, &server, offered).unwrap();
        client.id = NodeId(4);
        let (wire, _) = ask(&client, &mut ends, RpcType::Ping, b"");
        let refused = take(&mut server, &mut ends, &wire).unwrap_err();
        let consequence = ends.callee.consequence(&refused, 0);
        let Consequence::Close(close, _) = consequence else {
            panic!("the connection stays: {consequence:?}");
        };
        assert_eq!(close.code(), 2);
        assert_eq!(server.windows.of(NodeId(4)).unwrap().high(), 0);
    }
}
