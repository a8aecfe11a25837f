//! Sessions that the gateway carries itself.

use std::time::Duration;

use adit_proto_core::gateway::dispatch::{DirectRange, DirectRule};

use crate::{
    bed::{Bed, Session, end::bytes, wait::block_on},
    conform,
};

#[test]
fn a_direct_session_half_closes_each_way() {
    conform(|bed| {
        let mut s = begin(bed);
        s.user.send(b"question");
        s.user.finish();
        s.target.receive_rest();
        let answer = bytes(1, 1 << 20);
        let mut target = s.target.duplicate();
        let sent = answer.clone();
        let sends = std::thread::spawn(move || {
            target.stream_send(&sent);
            target.finish_quietly();
        });
        assert!(s.user.receive_rest() == answer);
        sends.join().unwrap();
    });
}

#[test]
fn a_direct_session_that_is_reset_at_one_end_is_reset_at_the_other() {
    conform(|bed| {
        let mut s = begin(bed);
        s.user.send(b"before");
        s.target.receive(6);
        s.user.reset();
        s.target.receive_reset();
        let target = bed.target("target", None);
        let mut s = bed.open("second", &target);
        s.target.send(b"before");
        s.user.receive(6);
        s.target.reset();
        s.user.receive_reset();
    });
}

#[test]
fn a_direct_session_is_ended_by_an_operator() {
    conform(|bed| {
        let mut s = begin(bed);
        s.user.send(b"question");
        s.target.receive(8);
        assert!(block_on(bed.gateway().kill(s.id)).unwrap());
        s.user.receive_reset();
        s.target.receive_reset();
        assert!(!block_on(bed.gateway().kill(s.id)).unwrap());
    });
}

#[test]
fn a_direct_session_that_is_idle_for_too_long_is_reset() {
    conform(|bed| {
        bed.settings.sessions.idle = Some(Duration::from_millis(300));
        let mut s = begin(bed);
        s.user.send(b"question");
        s.target.receive(8);
        s.user.receive_reset();
        s.target.receive_reset();
    });
}

#[test]
fn a_gateway_that_stops_resets_its_direct_sessions() {
    conform(|bed| {
        let mut s = begin(bed);
        s.user.send(b"question");
        s.target.receive(8);
        bed.stop_gateway();
        s.user.receive_reset();
        s.target.receive_reset();
    });
}

/// A gateway without agents that dials loopback itself, and a session.
fn begin(bed: &mut Bed) -> Session {
    bed.settings.dispatch.direct = vec![DirectRule {
        range: DirectRange::Subnet("127.0.0.1/32".parse().unwrap()),
        port: None,
    }];
    bed.start_gateway();
    let target = bed.target("target", None);
    bed.open("s", &target)
}
