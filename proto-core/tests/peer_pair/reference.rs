//! The reference at the other end, in both roles: what it sends, in which order, and what it leaves lying.

use adit_proto_core::{
    close::{Closed, PeerFault},
    peer::{
        NodeId,
        bound::{Direction, Route, Tags},
        capabilities::Capabilities,
        envelope::EnvelopeError,
        fault::RpcFault,
        frame::{Frame, PAYLOAD_LEN_MAX},
        negotiate::NegotiationError,
        node::CallError,
        response::ResponseError,
        retry::Failure,
        rpc_type::RpcType,
    },
};
use bytes::Bytes;
use quinn_proto::{StreamId, VarInt, crypto::rustls::HandshakeData};

use super::{
    bare::{self, ACK, HELLO},
    bed::{BOTH, Bed, Place, secs},
    cluster::{record, ring},
    raw::RawConfig,
};

/// Takes so many bytes off a stream and then wants no more of it, as quinn's `read_exact` and drop do: the end is not read.
fn take(bed: &mut Bed, bare: Place, stream: StreamId, len: usize) -> Vec<u8> {
    bed.run_for(secs(1) / 10);
    bed.raw(bare, |raw| {
        let mut bytes = Vec::new();
        let mut recv = raw.conn().recv_stream(stream);
        let mut chunks = recv.read(true).unwrap();
        while bytes.len() < len {
            let chunk = chunks.next(len - bytes.len()).unwrap().expect("more bytes");
            bytes.extend_from_slice(&chunk.bytes);
        }
        let _transmit = chunks.finalize();
        raw.stop(stream, 0);
        bytes
    })
}

/// Node 1, and node 2 as the reference at whose address it is.
fn served(seed: u64) -> (Bed, Place, Place) {
    let mut bed = Bed::new(seed);
    let mut setup = bed.setup(1);
    setup.change = |config| config.capabilities = Capabilities::NONE;
    let node = bed.add(setup);
    let config = RawConfig {
        alpn: b"nodedb-raft/1",
        ..RawConfig::default()
    };
    let bare = bed.add_raw_server(&config, 2);
    bed.manage(node, &[(2, bare)]);
    (bed, node, bare)
}

/// The server's half of the version handshake, of which it never reads the client's end.
fn greet(bed: &mut Bed, bare: Place) {
    bed.run_for(secs(1) / 10);
    let first = bed.raw(bare, |raw| raw.accept().unwrap());
    assert_eq!(take(bed, bare, first, HELLO.len()), HELLO);
    bed.raw(bare, |raw| {
        raw.write(first, ACK);
        raw.finish(first);
    });
    bed.run_for(secs(1) / 10);
}

fn answer(seq: u64, kind: RpcType, body: &[u8]) -> Vec<u8> {
    let route = Route {
        from: NodeId(2),
        to: NodeId(1),
        seq,
    };
    let frame = Frame::new(kind, 0, Bytes::copy_from_slice(body));
    let mut tags = Tags::plain();
    let sealed = tags.seal_frame(&ring(3), Direction::Response, route, frame, None);
    sealed.unwrap().to_bytes().to_vec()
}

/// Answers one request with these bytes and an end.
fn serve(bed: &mut Bed, bare: Place, request: &[u8], bytes: &[u8]) {
    bed.run_for(secs(1) / 10);
    let stream = bed.raw(bare, |raw| raw.accept().unwrap());
    assert_eq!(take(bed, bare, stream, request.len()), request);
    bed.raw(bare, |raw| {
        raw.write(stream, bytes);
        raw.finish(stream);
    });
    bed.run_for(secs(1) / 10);
}

const fn number(n: u64) -> u64 {
    (1 << 44) + n
}

fn close(bed: &mut Bed, bare: Place, code: u32) {
    let now = bed.now();
    bed.raw(bare, |raw| {
        raw.conn().close(now, VarInt::from_u32(code), Bytes::new());
    });
}

#[test]
fn a_reference_client_is_served_and_leaves_nothing_behind() {
    let mut bed = Bed::new(1);
    let setup = bed.setup(2);
    let node = bed.add(setup);
    let pair = bed.pki.pairs[&1].clone();
    let bare = bare::connect(&mut bed, node, Some(pair));
    let first = bare::send(&mut bed, bare, HELLO, false);
    assert_eq!(take(&mut bed, bare, first, ACK.len()), ACK);
    // Its half of the first stream ends once the answer is there, and not before.
    bed.raw(bare, |raw| raw.finish(first));
    for seq in 1..=3 {
        let request = bare::request(3, 1, seq, RpcType::Ping, b"hello");
        let stream = bare::send(&mut bed, bare, &request, true);
        let expected = answer(number(seq), RpcType::Pong, b"hello");
        assert_eq!(take(&mut bed, bare, stream, expected.len()), expected);
    }
    let (seen, now) = (bed.only_wire(node), bed.now());
    bed.with(seen, |conn| {
        conn.as_peer().unwrap().drain(now, secs(60));
    });
    bed.run_for(secs(1));
    assert_eq!(bed.wire(seen).closed, Some(Closed::Local));
    let shutdown = Some((0, "node shutdown".to_owned()));
    assert_eq!(bare::closed(&mut bed, bare), shutdown);
}

#[test]
fn a_node_that_stops_does_not_wait_for_a_hello() {
    let mut bed = Bed::new(2);
    let setup = bed.setup(2);
    let node = bed.add(setup);
    let pair = bed.pki.pairs[&1].clone();
    let bare = bare::connect(&mut bed, node, Some(pair));
    bare::send(&mut bed, bare, &HELLO[..4], false);
    let (seen, now) = (bed.only_wire(node), bed.now());
    bed.with(seen, |conn| {
        conn.as_peer().unwrap().drain(now, secs(60));
    });
    bed.run_for(secs(1) / 10);
    let shutdown = Some((0, "node shutdown".to_owned()));
    assert_eq!(bare::closed(&mut bed, bare), shutdown);
}

#[test]
fn a_reference_server_gets_reference_bytes_and_is_believed() {
    let (mut bed, node, bare) = served(3);
    let call = bed.ask_node(node, 2, RpcType::Ping, b"hello");
    bed.run_for(secs(1) / 10);
    bed.raw(bare, |raw| {
        let data = raw.conn().crypto_session().handshake_data().unwrap();
        let data = data.downcast::<HandshakeData>().unwrap();
        assert_eq!(data.server_name.as_deref(), Some("nodedb"));
        assert_eq!(data.protocol.as_deref(), Some(&b"nodedb-raft/1"[..]));
    });
    greet(&mut bed, bare);
    let request = bare::request(3, 1, number(1), RpcType::Ping, b"hello");
    let pong = answer(7, RpcType::Pong, b"there");
    serve(&mut bed, bare, &request, &pong);
    assert_eq!(bed.outcome_of(node, call), Ok(Bytes::from_static(b"there")));

    // The next call goes over the same connection, and the former answer is worth nothing there.
    let call = bed.ask_node(node, 2, RpcType::Ping, b"hello");
    let request = bare::request(3, 1, number(2), RpcType::Ping, b"hello");
    serve(&mut bed, bare, &request, &pong);
    let failed = bed.outcome_of(node, call).unwrap_err();
    let replayed = |error: &ResponseError| matches!(error, ResponseError::Replay(_));
    assert!(
        matches!(&failed, CallError::Failed(Failure::BadAnswer(error)) if replayed(error)),
        "{failed}"
    );
    assert!(bed.wire(bed.only_wire(node)).closed.is_none());
}

/// What comes back is nothing that can be read: final, and never asked again (peer-rpc 9.2).
#[test]
fn an_answer_that_cannot_be_read_is_final_and_a_failure_of_the_node() {
    let mut longer = answer(1, RpcType::Pong, b"");
    longer.push(0);
    let mut claims = answer(1, RpcType::Pong, b"");
    claims[17..21].copy_from_slice(&((64_u32 << 20) + 1).to_le_bytes());
    let mut other = answer(1, RpcType::Pong, b"");
    other[0] = 2;
    for (bytes, error) in [
        (longer, "envelope of 72 bytes, its header says 71"),
        (claims, "exceeds maximum"),
        (other, "envelope version 2"),
        (answer(0, RpcType::Pong, b""), "reserved"),
        (answer(1, RpcType::ReadIndexAnswer, b""), "does not answer"),
    ] {
        let (mut bed, node, bare) = served(4);
        let call = bed.ask_node(node, 2, RpcType::Ping, b"");
        greet(&mut bed, bare);
        let request = bare::request(3, 1, number(1), RpcType::Ping, b"");
        serve(&mut bed, bare, &request, &bytes);
        let failed = bed.outcome_of(node, call).unwrap_err().to_string();
        assert!(failed.contains(error), "{failed}, not {error}");
        let status = bed.members[node.0].node.as_ref().unwrap().peers().next();
        assert_eq!(status.unwrap().failures, 1, "{error}");
    }
}

/// An answer that is cut short is the link's failure: what may run twice is asked again (peer-rpc 9.2 and 9.3).
#[test]
fn an_answer_that_is_cut_short_is_asked_for_again_where_that_is_safe() {
    for (kind, reply) in [
        (RpcType::Ping, RpcType::Pong),
        (RpcType::Execute, RpcType::ExecuteAnswer),
    ] {
        let (mut bed, node, bare) = served(5);
        let call = bed.ask_node(node, 2, kind, b"");
        greet(&mut bed, bare);
        let request = bare::request(3, 1, number(1), kind, b"");
        let whole = answer(1, reply, b"done");
        serve(&mut bed, bare, &request, &whole[..40]);
        if kind == RpcType::Ping {
            bed.run_for(secs(1));
            // Each attempt takes a number of its own.
            let request = bare::request(3, 1, number(2), kind, b"");
            serve(&mut bed, bare, &request, &whole);
            assert_eq!(bed.outcome_of(node, call), Ok(Bytes::from_static(b"done")));
        } else {
            let short = EnvelopeError::UnexpectedEnd { got: 40 };
            let failure = Failure::BadAnswer(short.into());
            assert_eq!(bed.outcome_of(node, call), Err(CallError::Failed(failure)));
        }
    }
}

#[test]
fn an_ack_that_was_not_offered_or_does_not_come_is_no_connection() {
    let not_offered = NegotiationError::NotOffered { agreed: 3 };
    for (ack, error) in [
        (Some([0, 0, 0, 3, 0x92, 3, 0]), not_offered),
        (None, NegotiationError::TimedOut),
    ] {
        let (mut bed, node, bare) = served(6);
        let at = bed.dial(node, bare, Some(2));
        bed.run_for(secs(1) / 10);
        let first = bed.raw(bare, |raw| raw.accept().unwrap());
        let begun = bed.at();
        if let Some(ack) = ack {
            bed.raw(bare, |raw| raw.write(first, &ack));
        }
        let fault = RpcFault::Negotiation(error);
        assert_eq!(bed.closed(at), Closed::Fault(PeerFault::Rpc(fault)));
        assert!(bed.at() - begun <= secs(5), "{error}");
        bed.run_for(secs(1) / 10);
        assert_eq!(bare::closed(&mut bed, bare).unwrap().0, 1, "{error}");
    }
}

/// A server that does not believe this node says so by its close alone (peer-rpc 6.2). The reference asks again
/// (peer-rpc 10.2).
#[test]
fn a_server_that_refuses_this_node_is_not_asked_again() {
    let (mut bed, node, bare) = served(7);
    let calls = [RpcType::Ping, RpcType::Ping, RpcType::Execute];
    let calls = calls.map(|kind| bed.ask_node(node, 2, kind, b""));
    greet(&mut bed, bare);
    assert!(bed.raw(bare, |raw| raw.accept().is_some()));
    close(&mut bed, bare, 2);
    for call in calls {
        let refused = CallError::Failed(Failure::Identity);
        assert_eq!(bed.outcome_of(node, call), Err(refused));
    }
    bed.run_for(secs(10));
    let status = bed.members[node.0].node.as_ref().unwrap().peers().next();
    assert_eq!(status.unwrap().failures, 1, "one close is one failure");
    assert_eq!(bed.members[node.0].wires.len(), 1, "it was dialled once");
}

/// Where it had believed this node before, records have changed since: a new connection shows the certificate of today.
#[test]
fn a_server_that_had_answered_before_it_refuses_is_asked_on_a_new_connection() {
    let (mut bed, node, bare) = served(8);
    let first = bed.ask_node(node, 2, RpcType::Ping, b"");
    greet(&mut bed, bare);
    let request = bare::request(3, 1, number(1), RpcType::Ping, b"");
    serve(&mut bed, bare, &request, &answer(1, RpcType::Pong, b""));
    assert!(bed.outcome_of(node, first).is_ok());
    let again = bed.ask_node(node, 2, RpcType::Ping, b"");
    bed.run_for(secs(1) / 10);
    close(&mut bed, bare, 2);
    bed.run_for(secs(1));
    greet(&mut bed, bare);
    let request = bare::request(3, 1, number(3), RpcType::Ping, b"");
    serve(&mut bed, bare, &request, &answer(2, RpcType::Pong, b"x"));
    assert_eq!(bed.outcome_of(node, again), Ok(Bytes::from_static(b"x")));
}

/// Calls that find no connection race, each with a dial of its own that it goes on to use (peer-rpc 9.1).
#[test]
fn a_reference_client_that_dials_for_each_call_has_an_answer_on_each() {
    let mut bed = Bed::new(9);
    let setup = bed.setup(2);
    let node = bed.add(setup);
    bed.manage(node, &[]);
    let config = RawConfig {
        alpn: b"nodedb-raft/1",
        identity: Some(bed.pki.pairs[&1].clone()),
        ..RawConfig::default()
    };
    let dials: Vec<Place> = (0..64).map(|_| bed.add_raw(&config, node)).collect();
    bed.run_for(secs(1));
    for bare in &dials {
        bare::send(&mut bed, *bare, HELLO, true);
    }
    bed.run_for(secs(1));
    let ask = |seq, bare: &Place, bed: &mut Bed| {
        let request = bare::request(3, 1, seq, RpcType::Ping, b"?");
        bare::send(bed, *bare, &request, true)
    };
    let numbered = (1..).zip(&dials);
    let streams = numbered.map(|(seq, bare)| (*bare, ask(seq, bare, &mut bed)));
    let streams: Vec<_> = streams.collect();
    bed.run_for(secs(1));
    for (bare, stream) in streams {
        let got = bed.raw(bare, |raw| raw.read(stream));
        assert!(
            got.end && !got.bytes.is_empty(),
            "{:?}",
            bare::closed(&mut bed, bare)
        );
    }
}

/// The kinds of keys that the reference's certificates are recorded with (peer-rpc 12).
#[test]
fn certificates_of_every_kind_of_key_are_as_good() {
    for kind in [
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let mut bed = Bed::new(10);
        let key = rcgen::KeyPair::generate_for(kind).unwrap();
        let pair = bed.pki.issue_for(&key);
        bed.pki.topology.set(record(1, &pair)).unwrap();
        let mut setup = bed.setup(1);
        setup.pair = pair;
        let one = bed.add(setup);
        let setup = bed.setup(2);
        let two = bed.add(setup);
        for (from, to, node) in [(one, two, 2), (two, one, 1)] {
            let at = bed.connect(from, to, node);
            assert!(bed.ask(at, RpcType::Ping, b"").is_ok(), "{kind:?}");
        }
    }
}

/// What fills an envelope, as the first request of a connection on which nothing was accepted yet (peer-rpc 4.3).
#[test]
fn the_largest_payload_is_taken_and_answered() {
    for capabilities in BOTH {
        let (mut bed, one, two) = Bed::two(11, capabilities);
        let at = bed.connect(one, two, 2);
        let body = Bytes::from(vec![7; usize::try_from(PAYLOAD_LEN_MAX).unwrap()]);
        let call = bed.call(at, RpcType::InstallSnapshot, body.clone());
        assert!(bed.outcome(at, call) == Ok(body), "{capabilities:?}");
    }
}
