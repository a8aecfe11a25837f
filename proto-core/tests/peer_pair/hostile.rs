//! Peers that hold back, claim much, repeat, or speak before their time.

use adit_proto_core::{
    close::{Closed, PeerFault},
    endpoint::Protocol,
    limits::PEER_PROOF_TIMEOUT,
    peer::{
        NodeId,
        capabilities::Capabilities,
        counters::{AuthFail, HandshakeResult, Side},
        fault::RpcFault,
        hello::HelloError,
        negotiate::NegotiationError,
        rpc_type::RpcType,
    },
};

use super::{
    bare::{self, ACK, HELLO},
    bed::{App, Bed, Place, secs},
    raw::{Got, RawConfig},
};

fn end() -> Got {
    Got {
        end: true,
        ..Got::default()
    }
}

/// Node 2, and node 1 as a bare peer that has greeted.
fn hostile(seed: u64) -> (Bed, Place, Place) {
    let mut bed = Bed::new(seed);
    let setup = bed.setup(2);
    let node = bed.add(setup);
    let pair = bed.pki.pairs[&1].clone();
    let bare = bare::greet(&mut bed, node, Some(pair));
    (bed, node, bare)
}

#[test]
fn a_reference_peer_is_answered_in_its_bytes() {
    let (mut bed, _, bare) = hostile(1);
    let request = bare::request(3, 1, 1, RpcType::Ping, b"hello");
    let stream = bare::send(&mut bed, bare, &request, true);
    let got = bare::read(&mut bed, bare, stream);
    assert!(got.end && got.reset.is_none());
    assert_eq!((got.bytes[0], got.bytes.len()), (1, 21 + 18 + 5 + 32));
    assert_eq!(got.bytes[22], RpcType::Pong.value());
}

#[test]
fn a_hello_that_comes_byte_by_byte_has_five_seconds_from_the_acceptance() {
    let mut bed = Bed::new(2);
    let setup = bed.setup(2);
    let node = bed.add(setup);
    let pair = bed.pki.pairs[&1].clone();
    let bare = bare::connect(&mut bed, node, Some(pair));
    let begun = bed.at();
    let first = bare::send(&mut bed, bare, &HELLO[..1], false);
    for byte in &HELLO[1..5] {
        bed.run_for(secs(1));
        bed.raw(bare, |raw| raw.write_some(first, &[*byte]));
    }
    bed.run_for(secs(1));
    let (code, reason) = bare::closed(&mut bed, bare).unwrap();
    assert_eq!(code, 1);
    assert!(reason.contains("in time"), "{reason}");
    assert!(bed.at() - begun < secs(6));
    let counters = bed.member(node).ledger.counters();
    assert_eq!(counters.handshakes[&HandshakeResult::TimedOut], 1);
}

#[test]
fn who_says_nothing_is_not_kept_by_keep_alives() {
    let mut bed = Bed::new(3);
    let setup = bed.setup(2);
    let node = bed.add(setup);
    let pair = bed.pki.pairs[&1].clone();
    let bare = bare::connect(&mut bed, node, Some(pair));
    bed.run_for(secs(5));
    assert_eq!(bare::closed(&mut bed, bare).unwrap().0, 1);
}

#[test]
fn what_is_no_hello_closes_with_code_one() {
    for bytes in [
        &[0, 0, 0x10, 1][..],
        &[0xff; 40],
        &[0, 0, 0, 5, 0x92, 0x92, 3, 9, 0],
        &[0, 0, 0, 5, 0x92, 0x92, 2, 1, 0],
        &[0, 0, 0, 1, 0x90],
        &[0, 0, 0, 5, 0x92, 0x92, 1, 2, 0, 7],
    ] {
        let mut bed = Bed::new(4);
        let setup = bed.setup(2);
        let node = bed.add(setup);
        let pair = bed.pki.pairs[&1].clone();
        let bare = bare::connect(&mut bed, node, Some(pair));
        let first = bare::send(&mut bed, bare, bytes, true);
        let got = bare::read(&mut bed, bare, first);
        assert_ne!(&got.bytes, ACK, "{bytes:?}");
        assert_eq!(bare::closed(&mut bed, bare).unwrap().0, 1, "{bytes:?}");
    }
}

#[test]
fn bytes_behind_the_hello_close_it_even_if_they_come_late() {
    let (mut bed, node) = (Bed::new(5), Place(0));
    let setup = bed.setup(2);
    bed.add(setup);
    let pair = bed.pki.pairs[&1].clone();
    let bare = bare::connect(&mut bed, node, Some(pair));
    let first = bare::send(&mut bed, bare, HELLO, false);
    assert_eq!(bare::read(&mut bed, bare, first).bytes, ACK);
    bed.raw(bare, |raw| raw.write(first, b"x"));
    bed.run_for(secs(1));
    assert_eq!(bare::closed(&mut bed, bare).unwrap().0, 1);
}

#[test]
fn bytes_behind_the_ack_close_it_whenever_they_come() {
    for is_late in [false, true] {
        let mut bed = Bed::new(17);
        let setup = bed.setup(1);
        let node = bed.add(setup);
        let config = RawConfig {
            alpn: b"nodedb-raft/1",
            ..RawConfig::default()
        };
        let bare = bed.add_raw_server(&config, 2);
        let at = bed.dial(node, bare, Some(2));
        bed.run_for(secs(1));
        let first = bed.raw(bare, |raw| raw.accept().unwrap());
        assert_eq!(bed.raw(bare, |raw| raw.read(first)).bytes[..4], HELLO[..4]);
        // In a datagram of its own, which comes with the other one or after it.
        bed.raw(bare, |raw| raw.write(first, ACK));
        if is_late {
            bed.run_for(secs(1));
        }
        bed.raw(bare, |raw| raw.write(first, b"x"));
        let trailing = HelloError::Trailing { len: 1 };
        let fault = RpcFault::Negotiation(NegotiationError::Message(trailing));
        assert_eq!(bed.closed(at), Closed::Fault(PeerFault::Rpc(fault)));
        assert_eq!(bed.wire(at).agreed.is_some(), is_late);
    }
}

#[test]
fn no_stream_that_goes_one_way_is_granted() {
    let (mut bed, node, bare) = hostile(18);
    let opened = bed.raw(bare, |raw| raw.conn().streams().open(quinn_proto::Dir::Uni));
    assert_eq!(opened, None);
    let at = bed.only_wire(node);
    assert!(bed.wire(at).closed.is_none());
    let pair = bed.pki.pairs[&1].clone();
    let config = RawConfig {
        alpn: b"adit-forward/1",
        identity: Some(pair),
        ..RawConfig::default()
    };
    let forward = bed.add_raw(&config, node);
    bed.run_for(secs(1));
    let opened = bed.raw(forward, |raw| {
        raw.conn().streams().open(quinn_proto::Dir::Uni)
    });
    assert_eq!(opened, None);
}

#[test]
fn who_has_a_certificate_and_not_the_key_charges_little_and_does_not_stay() {
    let (mut bed, node, bare) = hostile(19);
    let begun = bed.at();
    let mut head = bare::request(3, 1, 1, RpcType::Ping, b"")[..21].to_vec();
    head[17..].copy_from_slice(&(64_u32 << 20).to_le_bytes());
    for _ in 0..50 {
        bare::send(&mut bed, bare, &head, false);
    }
    bed.run_for(secs(1));
    let used = bed.member(node).ledger.unread().used();
    assert!(used <= 50 << 16, "{used}");
    let request = bare::request(4, 1, 1, RpcType::Ping, b"");
    let keep = bare::send(&mut bed, bare, &request, true);
    assert_eq!(bare::read(&mut bed, bare, keep), end());
    let at = bed.only_wire(node);
    let fault = RpcFault::Unproved;
    assert_eq!(bed.closed(at), Closed::Fault(PeerFault::Rpc(fault)));
    assert!(bed.at() - begun <= PEER_PROOF_TIMEOUT);
    bed.run_for(secs(1));
    assert_eq!(bare::closed(&mut bed, bare).unwrap().0, 0);
}

#[test]
fn who_has_asked_once_stays() {
    let (mut bed, node, bare) = hostile(20);
    let request = bare::request(3, 1, 1, RpcType::Ping, b"");
    bare::send(&mut bed, bare, &request, true);
    bed.run_for(2 * PEER_PROOF_TIMEOUT);
    assert!(bed.wire(bed.only_wire(node)).closed.is_none());
}

#[test]
fn a_body_is_charged_until_the_application_lets_it_go() {
    let (mut bed, node, bare) = hostile(21);
    bed.member(node).app = App::Hold;
    let request = bare::request(3, 1, 1, RpcType::Ping, &[7; 5_000]);
    let stream = bare::send(&mut bed, bare, &request, true);
    bed.run_for(secs(1));
    bed.raw(bare, |raw| raw.stop(stream, 0));
    bed.run_for(secs(1));
    let at = bed.only_wire(node);
    assert_eq!(bed.wire(at).given_up.len(), 1);
    let used = bed.member(node).ledger.unread().used();
    assert_eq!(used, request.len() as u64, "it is in memory still");
    bed.let_go(node);
    assert_eq!(bed.member(node).ledger.unread().used(), 0);
}

#[test]
fn a_request_that_is_given_up_before_it_is_handed_over_is_not_executed() {
    let (mut bed, node, bare) = hostile(22);
    // The application is told whose the connection is, and looks away.
    bed.member(node).patience = Some(1);
    let request = bare::request(3, 1, 1, RpcType::DataPropose, b"x");
    let stream = bare::send(&mut bed, bare, &request, true);
    bed.run_for(secs(1));
    let ledger = &bed.member(node).ledger;
    assert_eq!(ledger.counters().in_flight[&Side::In], 1, "it was accepted");
    bed.raw(bare, |raw| raw.stop(stream, 0));
    bed.run_for(secs(1));
    bed.member(node).patience = None;
    bed.drain(node);
    let at = bed.only_wire(node);
    assert!(bed.wire(at).requests.is_empty() && bed.wire(at).given_up.is_empty());
    let ledger = &bed.member(node).ledger;
    assert_eq!(ledger.counters().in_flight[&Side::In], 0);
}

#[test]
fn no_request_is_taken_before_the_hello() {
    let mut bed = Bed::new(6);
    let setup = bed.setup(2);
    let node = bed.add(setup);
    let pair = bed.pki.pairs[&1].clone();
    let bare = bare::connect(&mut bed, node, Some(pair));
    let first = bare::send(&mut bed, bare, &HELLO[..3], false);
    let request = bare::request(3, 1, 1, RpcType::Ping, b"");
    let second = bare::send(&mut bed, bare, &request, true);
    assert_eq!(bare::read(&mut bed, bare, second), Got::default());
    assert!(bed.wire(bed.only_wire(node)).requests.is_empty());
    // Once the hello is whole the early one is taken as well: streams are taken in their order.
    bed.raw(bare, |raw| raw.write(first, &HELLO[3..]));
    assert!(bare::read(&mut bed, bare, second).end);
}

#[test]
fn a_request_that_comes_byte_by_byte_has_five_seconds_from_its_first() {
    let (mut bed, node, bare) = hostile(7);
    let request = bare::request(3, 1, 1, RpcType::Ping, &[0; 100]);
    let stream = bare::send(&mut bed, bare, &request[..1], false);
    for byte in &request[1..6] {
        bed.run_for(secs(1));
        bed.raw(bare, |raw| raw.write_some(stream, &[*byte]));
    }
    let got = bare::read(&mut bed, bare, stream);
    assert_eq!(got.reset, Some(0));
    let at = bed.only_wire(node);
    assert!(bed.wire(at).requests.is_empty() && bed.wire(at).closed.is_none());
    // The connection lives on.
    let whole = bare::send(&mut bed, bare, &request, true);
    assert!(!bare::read(&mut bed, bare, whole).bytes.is_empty());
}

#[test]
fn a_claim_of_64_mib_is_charged_and_no_more_of_them_than_the_budget_has() {
    let (mut bed, node, bare) = hostile(8);
    // A claim is believed of one who has the cluster's key.
    let proof = bare::request(3, 1, 1, RpcType::Ping, b"");
    let first = bare::send(&mut bed, bare, &proof, true);
    assert!(bare::read(&mut bed, bare, first).end);
    bed.let_go(node);
    let mut head = bare::request(3, 1, 1, RpcType::Ping, b"")[..21].to_vec();
    head[17..].copy_from_slice(&(64_u32 << 20).to_le_bytes());
    let streams: Vec<_> = (0..3)
        .map(|_| bare::send(&mut bed, bare, &head, false))
        .collect();
    bed.run_for(secs(1));
    let used = bed.member(node).ledger.unread().used();
    assert_eq!(used, 2 * ((64 << 20) + 53));
    let last = bed.raw(bare, |raw| raw.read(streams[2]));
    assert_eq!(last, end());
    bed.run_for(secs(5));
    assert_eq!(bed.member(node).ledger.unread().used(), 0);
}

#[test]
fn an_oversized_envelope_ends_its_stream_on_the_header_alone() {
    let (mut bed, node, bare) = hostile(9);
    let mut head = bare::request(3, 1, 1, RpcType::Ping, b"")[..21].to_vec();
    head[17..].copy_from_slice(&((64_u32 << 20) + 1).to_le_bytes());
    let stream = bare::send(&mut bed, bare, &head, false);
    assert_eq!(bare::read(&mut bed, bare, stream), end());
    let mut other = bare::request(3, 1, 1, RpcType::Ping, b"");
    other[0] = 2;
    let stream = bare::send(&mut bed, bare, &other, true);
    assert_eq!(bare::read(&mut bed, bare, stream), end());
    let mut trailing = bare::request(3, 1, 1, RpcType::Ping, b"");
    trailing.push(0);
    let stream = bare::send(&mut bed, bare, &trailing, true);
    assert_eq!(bare::read(&mut bed, bare, stream), end());
    assert!(bed.wire(bed.only_wire(node)).requests.is_empty());
    assert!(bare::closed(&mut bed, bare).is_none());
}

#[test]
fn a_request_that_is_repeated_is_executed_once() {
    let (mut bed, node, bare) = hostile(10);
    let request = bare::request(3, 1, 5, RpcType::DataPropose, b"once");
    for expected in [75, 0, 0] {
        let stream = bare::send(&mut bed, bare, &request, true);
        let got = bare::read(&mut bed, bare, stream);
        assert!(got.end);
        assert_eq!(got.bytes.len(), expected);
    }
    // Another connection of the same node changes nothing.
    let pair = bed.pki.pairs[&1].clone();
    let again = bare::greet(&mut bed, node, Some(pair));
    let stream = bare::send(&mut bed, again, &request, true);
    assert_eq!(bare::read(&mut bed, again, stream), end());
    let counters = bed.member(node).ledger.counters();
    assert_eq!(counters.auth_fail[&AuthFail::Replay], 3);
}

#[test]
fn a_tag_of_another_key_is_not_answered_and_touches_nothing() {
    let (mut bed, node, bare) = hostile(11);
    let request = bare::request(4, 1, 1 << 50, RpcType::Ping, b"");
    let stream = bare::send(&mut bed, bare, &request, true);
    assert_eq!(bare::read(&mut bed, bare, stream), end());
    let ledger = &bed.member(node).ledger;
    assert_eq!(ledger.high(NodeId(1)), 0);
    assert_eq!(ledger.counters().auth_fail[&AuthFail::Mac], 1);
}

#[test]
fn a_frame_of_another_version_closes_with_code_one() {
    let (mut bed, _, bare) = hostile(12);
    // Sealed by hand: the frame's first byte is its version.
    let route = adit_proto_core::peer::bound::Route {
        from: NodeId(1),
        to: NodeId(2),
        seq: 1,
    };
    let mut inner = vec![1_u8, 9];
    inner.extend_from_slice(&[0; 16]);
    let sealed = adit_proto_core::peer::bound::Tags::plain().seal(
        &super::cluster::ring(3),
        adit_proto_core::peer::bound::Direction::Request,
        route,
        [bytes::Bytes::from(inner)],
        None,
    );
    bare::send(&mut bed, bare, &sealed.unwrap().to_bytes(), true);
    bed.run_for(secs(1));
    let (code, reason) = bare::closed(&mut bed, bare).unwrap();
    assert_eq!(code, 1);
    assert!(reason.contains("version"), "{reason}");
}

#[test]
fn an_unknown_kind_and_an_answer_in_the_place_of_a_request_end_their_stream() {
    let (mut bed, node, bare) = hostile(13);
    for (seq, kind) in [(1, RpcType::Pong), (2, RpcType::Refusal)] {
        let request = bare::request(3, 1, seq, kind, b"");
        let stream = bare::send(&mut bed, bare, &request, true);
        assert_eq!(bare::read(&mut bed, bare, stream), end());
    }
    assert!(bed.wire(bed.only_wire(node)).requests.is_empty());
}

#[test]
fn a_caller_that_goes_away_is_told_of() {
    let (mut bed, node, bare) = hostile(14);
    bed.member(node).app = App::Hold;
    let request = bare::request(3, 1, 1, RpcType::Ping, b"");
    let stream = bare::send(&mut bed, bare, &request, true);
    bed.run_for(secs(1));
    bed.raw(bare, |raw| raw.stop(stream, 9));
    bed.run_for(secs(1));
    let wire = bed.wire(bed.only_wire(node));
    assert_eq!((wire.given_up.len(), wire.interest[0].lasts()), (1, false));
}

#[test]
fn who_does_not_read_its_answers_loses_them_and_holds_up_nobody() {
    let (mut bed, node, bare) = hostile(15);
    let setup = bed.setup(3);
    let other = bed.add(setup);
    let at = bed.connect(other, node, 2);
    // More than the peer's window for a stream, so that no answer can be written to its end.
    let body = vec![7; 2 << 20];
    let mut streams = Vec::new();
    for seq in 1..=8 {
        let request = bare::request(3, 1, seq, RpcType::Execute, &body);
        let stream = bed.raw(bare, |raw| raw.open());
        let mut written = 0;
        while written < request.len() {
            written += bed.raw(bare, |raw| raw.write_some(stream, &request[written..]));
            bed.run_for(secs(1) / 50);
        }
        bed.raw(bare, |raw| raw.finish(stream));
        streams.push(stream);
    }
    let call = bed.call(at, RpcType::Ping, &b"?"[..]);
    bed.run_for(secs(1));
    assert_eq!(bed.wire(at).answers[&call].as_deref(), Ok(&b"?"[..]));
    bed.run_for(secs(6));
    for stream in streams {
        let got = bare::read(&mut bed, bare, stream);
        assert!(got.reset.is_some() && got.bytes.len() < body.len());
    }
    bed.let_go(node);
    assert_eq!(bed.member(node).ledger.unread().used(), 0);
    let request = bare::request(3, 1, 9, RpcType::Ping, b"hello");
    let stream = bare::send(&mut bed, bare, &request, true);
    assert!(
        bare::read(&mut bed, bare, stream).end,
        "its connection goes on"
    );
}

#[test]
fn a_connection_without_a_certificate_is_none() {
    let mut bed = Bed::new(15);
    let setup = bed.setup(2);
    let node = bed.add(setup);
    let bare = bare::connect(&mut bed, node, None);
    bed.run_for(secs(2));
    assert!(bed.raw(bare, |raw| raw.lost.is_some()));
}

#[test]
fn an_unknown_protocol_is_none() {
    let (mut bed, one, two) = Bed::two(16, Capabilities::ALL);
    let at = bed.dial_for(one, two, Some(2), Protocol::Rpc);
    bed.run_for(secs(1));
    assert!(bed.wire(at).closed.is_none());
    let pair = bed.pki.pairs[&1].clone();
    let config = RawConfig {
        alpn: b"gw-agent-tunnel/1",
        identity: Some(pair),
        ..RawConfig::default()
    };
    let bare = bed.add_raw(&config, two);
    bed.run_for(secs(1));
    assert!(bed.raw(bare, |raw| raw.lost.is_some()));
}
