//! Calls between two nodes that are as they should be.

use std::time::Duration;

use adit_proto_core::{
    connection::CallRefused,
    limits::RPC_CALLS_PER_CONNECTION,
    peer::{
        NodeId,
        capabilities::Capabilities,
        counters::{CallResult, HandshakeResult, Side},
        key::{ClusterSecret, KeyId},
        refusal::Refusal,
        response::ResponseError,
        retry::Failure,
        rpc_type::RpcType,
    },
};
use bytes::Bytes;

use super::bed::{App, BOTH, Bed, secs};

#[test]
fn a_thousand_calls_are_answered_over_a_path_that_loses() {
    for (seed, capabilities) in (1..).zip(BOTH) {
        let (mut bed, one, two) = Bed::two(seed, capabilities);
        bed.both(one, two, |path| {
            path.loss = 20;
            path.latency = Duration::from_millis(2);
        });
        let at = bed.connect(one, two, 2);
        let agreed = bed.wire(at).agreed.unwrap();
        assert_eq!((agreed.version, agreed.capabilities), (2, capabilities));
        let mut under_way = Vec::new();
        for n in 0..1_000_u32 {
            if under_way.len() >= RPC_CALLS_PER_CONNECTION {
                let (call, body) = under_way.remove(0);
                assert_eq!(bed.outcome(at, call), Ok(body));
            }
            let body = Bytes::copy_from_slice(&n.to_le_bytes());
            let call = bed.call(at, RpcType::ReadIndex, body.clone());
            under_way.push((call, body));
        }
        for (call, body) in under_way {
            assert_eq!(bed.outcome(at, call), Ok(body));
        }
        let counters = bed.member(two).ledger.counters();
        let answered = (Side::In, RpcType::ReadIndex, CallResult::Answered);
        assert_eq!(counters.requests[&answered], 1_000);
        assert_eq!(counters.handshakes[&HandshakeResult::Agreed], 1);
        assert_eq!(counters.in_flight[&Side::In], 0);
        let at_two = bed.only_wire(two);
        assert_eq!(bed.wire(at_two).requests[0].1, NodeId(1));
    }
}

#[test]
fn both_ends_count_the_same_bytes() {
    for capabilities in BOTH {
        let (mut bed, one, two) = Bed::two(5, capabilities);
        let at = bed.connect(one, two, 2);
        let call = bed.call(at, RpcType::ReadIndex, Bytes::from_static(b"body"));
        assert!(bed.outcome(at, call).is_ok());
        let [one, two] = [one, two].map(|place| bed.member(place).ledger.counters().bytes);
        assert!(one[&Side::Out] > 53, "a header, a frame and a tag");
        assert_eq!(one[&Side::Out], two[&Side::In]);
        assert_eq!(two[&Side::Out], one[&Side::In]);
    }
}

#[test]
fn a_large_body_goes_there_and_back() {
    for capabilities in BOTH {
        let (mut bed, one, two) = Bed::two(3, capabilities);
        let at = bed.connect(one, two, 2);
        let body = Bytes::from(
            (0..9_000_000_u32)
                .map(|n| (n % 251) as u8)
                .collect::<Vec<_>>(),
        );
        let call = bed.call(at, RpcType::InstallSnapshot, body.clone());
        assert_eq!(bed.outcome(at, call), Ok(body));
        // The answer is the request's body, which the engine holds until it is acknowledged.
        bed.run_for(secs(1));
        for place in [one, two] {
            assert!(bed.member(place).ledger.unread().used() > 9_000_000);
            bed.let_go(place);
            assert_eq!(bed.member(place).ledger.unread().used(), 0);
        }
    }
}

#[test]
fn a_request_that_goes_one_way_ends_with_its_stream() {
    let (mut bed, one, two) = Bed::two(4, Capabilities::ALL);
    let at = bed.connect(one, two, 2);
    let got = bed.ask(at, RpcType::TimeoutNow, b"now");
    assert_eq!(got, Ok(Bytes::new()));
    assert_eq!(bed.wire(bed.only_wire(two)).requests.len(), 1);
}

#[test]
fn calls_beyond_the_streams_wait_and_beyond_the_limit_are_refused() {
    let (mut bed, one, two) = Bed::two(5, Capabilities::ALL);
    bed.member(two).app = App::Hold;
    let at = bed.connect(one, two, 2);
    for _ in 0..RPC_CALLS_PER_CONNECTION {
        bed.call(at, RpcType::Ping, Bytes::new());
    }
    let now = bed.now();
    let over = bed.with(at, |conn| {
        let call = adit_proto_core::id::CallId(1 << 40);
        (conn.as_peer().unwrap()).call(now, call, RpcType::Ping, Bytes::new())
    });
    assert_eq!(over, Err(CallRefused::TooMany));
    let answer = bed.with(at, |conn| {
        let call = adit_proto_core::id::CallId(1 << 41);
        (conn.as_peer().unwrap()).call(now, call, RpcType::Pong, Bytes::new())
    });
    assert_eq!(answer, Err(CallRefused::NoRequest(RpcType::Pong)));
}

#[test]
fn what_the_application_does_not_answer_times_out_and_is_given_up() {
    let (mut bed, one, two) = Bed::two(6, Capabilities::ALL);
    bed.member(two).app = App::Hold;
    let at = bed.connect(one, two, 2);
    let begun = bed.at();
    let got = bed.ask(at, RpcType::Ping, b"");
    let alive = Failure::Link {
        written: true,
        dead: false,
    };
    assert_eq!(got, Err(alive));
    assert_eq!((bed.at() - begun).as_secs(), 5);
    bed.run_for(secs(1));
    let wire = bed.wire(bed.only_wire(two));
    assert_eq!(wire.given_up.len(), 1);
    // The connection lives on.
    bed.member(two).app = App::Echo;
    assert_eq!(
        bed.ask(at, RpcType::Ping, b"x"),
        Ok(Bytes::from_static(b"x"))
    );
}

#[test]
fn a_refusal_is_typed_where_both_know_them() {
    for capabilities in BOTH {
        let (mut bed, one, two) = Bed::two(7, capabilities);
        bed.member(two).app = App::Refuse;
        let at = bed.connect(one, two, 2);
        let expected = match capabilities.has(Capabilities::REFUSALS) {
            true => Failure::Refused(Refusal::Overload { retry_after_ms: 7 }),
            false => Failure::BadAnswer(ResponseError::Unanswered),
        };
        assert_eq!(bed.ask(at, RpcType::Ping, b""), Err(expected));
        bed.member(two).app = App::Fail;
        let unanswered = Failure::BadAnswer(ResponseError::Unanswered);
        assert_eq!(bed.ask(at, RpcType::Ping, b""), Err(unanswered));
    }
}

#[test]
fn a_key_is_exchanged_while_calls_go_on() {
    for capabilities in BOTH {
        let (mut bed, one, two) = Bed::two(8, capabilities);
        let at = bed.connect(one, two, 2);
        let secret = || ClusterSecret::new([9; 32]).unwrap();
        let both = [one, two];
        for node in both {
            let ledger = &bed.member(node).ledger;
            ledger.change_keys(|r| r.add(KeyId(2), secret())).unwrap();
            assert!(bed.ask(at, RpcType::Ping, b"").is_ok());
        }
        for node in both {
            let ledger = &bed.member(node).ledger;
            ledger.change_keys(|r| r.promote(KeyId(2))).unwrap();
            assert!(bed.ask(at, RpcType::Ping, b"").is_ok());
        }
        for node in both {
            let ledger = &bed.member(node).ledger;
            ledger.change_keys(|r| r.retire(KeyId(1))).unwrap();
            assert!(bed.ask(at, RpcType::Ping, b"").is_ok());
        }
    }
}

#[test]
fn two_connections_of_the_same_nodes_work_both() {
    for capabilities in BOTH {
        let (mut bed, one, two) = Bed::two(9, capabilities);
        let there = bed.dial(one, two, Some(2));
        let back = bed.dial(two, one, Some(1));
        bed.run_for(secs(1));
        for n in 0..20_u8 {
            assert!(bed.ask(there, RpcType::Ping, &[n]).is_ok());
            assert!(bed.ask(back, RpcType::Ping, &[n]).is_ok());
        }
    }
}

#[test]
fn a_node_that_calls_itself_is_answered() {
    for capabilities in BOTH {
        let (mut bed, one, _) = Bed::two(10, capabilities);
        let at = bed.connect(one, one, 1);
        for n in 0..5_u8 {
            assert!(bed.ask(at, RpcType::Ping, &[n]).is_ok());
        }
    }
}

#[test]
fn a_call_that_is_cancelled_has_no_outcome() {
    let (mut bed, one, two) = Bed::two(11, Capabilities::ALL);
    bed.member(two).app = App::Hold;
    let at = bed.connect(one, two, 2);
    let call = bed.call(at, RpcType::Ping, Bytes::new());
    bed.run_for(secs(1));
    bed.with(at, |conn| conn.as_peer().unwrap().cancel(call));
    bed.run_for(secs(10));
    assert!(bed.wire(at).answers.is_empty());
    assert_eq!(bed.wire(bed.only_wire(two)).given_up.len(), 1);
}
