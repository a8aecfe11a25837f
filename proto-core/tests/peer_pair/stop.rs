//! How connections and nodes end.

use std::time::Duration;

use adit_proto_core::{
    close::Closed,
    id::CallId,
    limits::RPC_DRAIN_GRACE,
    peer::{
        capabilities::Capabilities,
        counters::{AuthFail, Side},
        refusal::Refusal,
        response::ResponseError,
        retry::Failure,
        rpc_type::RpcType,
    },
};
use bytes::Bytes;

use super::bed::{App, BOTH, Bed, secs};

#[test]
fn a_node_that_drains_ends_what_runs_and_takes_nothing_more() {
    for capabilities in BOTH {
        let (mut bed, one, two) = Bed::two(1, capabilities);
        bed.member(two).app = App::Hold;
        let at = bed.connect(one, two, 2);
        let call = bed.call(at, RpcType::DataPropose, Bytes::from_static(b"x"));
        bed.run_for(Duration::from_millis(100));
        let seen = bed.only_wire(two);
        let now = bed.now();
        bed.with(seen, |conn| {
            conn.as_peer().unwrap().drain(now, RPC_DRAIN_GRACE);
        });
        let late = bed.call(at, RpcType::Ping, Bytes::new());
        bed.run_for(secs(1));
        match (
            capabilities.has(Capabilities::REFUSALS),
            &bed.wire(at).answers[&late],
        ) {
            (true, Err(Failure::Refused(Refusal::Overload { .. }))) => {}
            (false, Err(Failure::Reset)) => {}
            (_, other) => panic!("{other:?}"),
        }
        let (slot, _, _, body) = bed.wire(seen).requests[0].clone();
        let now = bed.now();
        bed.with(seen, |conn| {
            conn.as_peer().unwrap().answer(now, slot, body).unwrap()
        });
        bed.run_for(Duration::from_millis(100));
        assert_eq!(bed.wire(at).answers[&call], Ok(Bytes::from_static(b"x")));
        match bed.closed(at) {
            Closed::ByPeer(close) => {
                assert_eq!((close.code, &*close.reason), (0, "node shutdown"));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(bed.closed(seen), Closed::Local);
    }
}

#[test]
fn a_handler_that_does_not_end_is_cut_after_the_grace() {
    let (mut bed, one, two) = Bed::two(2, Capabilities::ALL);
    bed.member(two).app = App::Hold;
    let at = bed.connect(one, two, 2);
    let call = bed.call(at, RpcType::Ping, Bytes::new());
    bed.run_for(Duration::from_millis(100));
    let (seen, now, begun) = (bed.only_wire(two), bed.now(), bed.at());
    bed.with(seen, |conn| {
        conn.as_peer().unwrap().drain(now, RPC_DRAIN_GRACE);
    });
    assert_eq!(bed.closed(seen), Closed::Local);
    assert_eq!((bed.at() - begun).as_secs(), 2);
    let lost = Failure::Link {
        written: true,
        dead: true,
    };
    assert_eq!(bed.outcome(at, call), Err(lost));
    assert!(
        !bed.wire(seen).interest[0].lasts(),
        "nobody is there any more"
    );
    for (place, side) in [(one, Side::Out), (two, Side::In)] {
        let counters = bed.member(place).ledger.counters();
        assert_eq!(counters.in_flight[&side], 0, "{side:?}");
    }
}

#[test]
fn a_caller_that_drains_waits_for_its_answers() {
    let (mut bed, one, two) = Bed::two(3, Capabilities::ALL);
    let at = bed.connect(one, two, 2);
    let call = bed.call(at, RpcType::Ping, Bytes::from_static(b"x"));
    let now = bed.now();
    bed.with(at, |conn| {
        conn.as_peer().unwrap().drain(now, RPC_DRAIN_GRACE);
    });
    assert_eq!(bed.closed(at), Closed::Local);
    assert_eq!(bed.wire(at).answers[&call], Ok(Bytes::from_static(b"x")));
}

#[test]
fn a_call_that_was_made_just_before_a_drain_is_answered() {
    let (mut bed, one, two) = Bed::two(6, Capabilities::ALL);
    let at = bed.connect(one, two, 2);
    let (call, now) = (CallId(9), bed.now());
    bed.with(at, |conn| {
        let mut peer = conn.as_peer().unwrap();
        let body = Bytes::from_static(b"x");
        peer.call(now, call, RpcType::Ping, body).unwrap();
        peer.drain(now, RPC_DRAIN_GRACE);
    });
    assert_eq!(bed.closed(at), Closed::Local);
    assert_eq!(bed.wire(at).answers[&call], Ok(Bytes::from_static(b"x")));
}

#[test]
fn an_idle_connection_drains_at_once() {
    let (mut bed, one, two) = Bed::two(4, Capabilities::ALL);
    let at = bed.connect(one, two, 2);
    bed.run_for(secs(1));
    let now = bed.now();
    bed.with(at, |conn| {
        conn.as_peer().unwrap().drain(now, RPC_DRAIN_GRACE);
    });
    assert_eq!(bed.wire(at).closed, Some(Closed::Local));
}

#[test]
fn a_peer_that_is_gone_is_suspect_within_three_seconds_and_its_calls_end() {
    let (mut bed, one, two) = Bed::two(5, Capabilities::ALL);
    let at = bed.connect(one, two, 2);
    bed.run_for(secs(10));
    assert!(bed.wire(at).closed.is_none(), "idle is not gone");
    bed.both(one, two, |path| path.black_hole = true);
    let (call, begun) = (bed.call(at, RpcType::Ping, Bytes::new()), bed.at());
    let suspect = |bed: &Bed| bed.wire(at).suspect_at.is_some();
    assert!(bed.run_until(Duration::from_millis(3_600), suspect));
    let lost = Failure::Link {
        written: true,
        dead: true,
    };
    assert_eq!(bed.outcome(at, call), Err(lost));
    assert!(
        bed.at() - begun < Duration::from_millis(4_600),
        "{:?}",
        bed.at() - begun
    );
    assert_eq!(bed.closed(at), Closed::PathDead);
}

#[test]
fn a_peer_that_restarts_is_noticed_and_heard_again() {
    for capabilities in BOTH {
        let (mut bed, one, two) = Bed::two(6, capabilities);
        let at = bed.connect(one, two, 2);
        for n in 0..5_u8 {
            assert!(bed.ask(at, RpcType::Ping, &[n]).is_ok());
        }
        let mut setup = bed.setup(2);
        setup.boot = 2;
        bed.restart(two, &setup);
        let lost = bed.ask(at, RpcType::Ping, b"");
        assert!(
            matches!(lost, Err(Failure::Link { dead: true, .. })),
            "{lost:?}"
        );
        assert_eq!(bed.closed(at), Closed::PeerRestarted);
        let again = bed.connect(one, two, 2);
        assert!(bed.ask(again, RpcType::Ping, b"").is_ok());
        // And the one that restarted is heard by the other, which remembers its former numbers.
        let back = bed.connect(two, one, 1);
        assert!(bed.ask(back, RpcType::Ping, b"").is_ok());
    }
}

#[test]
fn a_sender_that_lost_its_epoch_has_its_window_begin_anew() {
    for capabilities in BOTH {
        let (mut bed, one, two) = Bed::two(7, capabilities);
        let at = bed.connect(one, two, 2);
        assert!(bed.ask(at, RpcType::Ping, b"").is_ok());
        let mut setup = bed.setup(1);
        setup.boot = 0;
        if capabilities == Capabilities::NONE {
            setup.change = |config| config.capabilities = Capabilities::NONE;
        }
        bed.restart(one, &setup);
        let at = bed.connect(one, two, 2);
        let first = bed.ask(at, RpcType::Ping, b"");
        bed.run_for(secs(1));
        let second = bed.ask(at, RpcType::Ping, b"");
        match capabilities.has(Capabilities::WINDOW_RESET) {
            true => {
                let stale = Refusal::Number {
                    high: (1 << 44) + 1,
                };
                assert_eq!(first, Err(Failure::Refused(stale)));
                assert!(second.is_ok());
            }
            false => {
                let unanswered = Failure::BadAnswer(ResponseError::Unanswered);
                assert_eq!((first, second), (Err(unanswered), Err(unanswered)));
            }
        }
    }
}

#[test]
fn a_window_reset_that_is_refused_is_not_followed_by_another_without_end() {
    let (mut bed, one, two) = Bed::two(8, Capabilities::ALL);
    bed.both(one, two, |path| path.latency = Duration::from_millis(50));
    let mut setup = bed.setup(1);
    setup.boot = 0;
    bed.restart(one, &setup);
    // Another process has the node's certificate, and raises its numbers all the time.
    let mut setup = bed.setup(1);
    setup.boot = 5;
    let twin = bed.add(setup);
    let (other, at) = (bed.connect(twin, two, 2), bed.connect(one, two, 2));
    assert!(bed.ask(other, RpcType::Ping, b"").is_ok());
    let call = bed.call(at, RpcType::Ping, Bytes::new());
    for _ in 0..100 {
        bed.call(other, RpcType::Ping, Bytes::new());
        bed.run_for(Duration::from_millis(10));
    }
    assert!(matches!(
        bed.wire(at).answers[&call],
        Err(Failure::Refused(Refusal::Number { .. }))
    ));
    let counters = bed.member(two).ledger.counters();
    assert_eq!(
        counters.auth_fail[&AuthFail::Stale],
        2,
        "the call, and one reset"
    );
}
