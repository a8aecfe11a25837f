//! Connections that close here: when they may, and what of their sessions still arrives.

use adit_proto_core::{
    close::{CloseReason, Closed},
    limits,
    output::SessionEnd,
};

use crate::{
    transfer::{end, send},
    world::{Joined, ms, secs},
};

const MB: u64 = 1 << 20;

#[test]
fn close_is_told_while_the_path_is_full() {
    for by_gateway in [true, false] {
        let mut j = Joined::new(45);
        let slot = j.open();
        let (by, other) = match by_gateway {
            true => (j.g, j.a),
            false => (j.a, j.g),
        };
        j.both(|path| path.rate = Some(125_000));
        send(&mut j.w, by, slot, 20 * MB, false);
        j.w.run_for(secs(3));
        let now = j.w.now();
        j.w.conn(by, |c| c.close(now, &CloseReason::GatewayStopping));
        // 100 ms of queue, and 10 ms of path.
        j.w.run_for(ms(200));
        let told = j.w.closed(other);
        assert!(
            matches!(told, Some(Closed::ByPeer(close)) if close.reason == "shutdown"),
            "by gateway: {by_gateway}, {told:?}"
        );
    }
}

#[test]
fn a_draining_connection_delivers_everything_before_it_closes() {
    for by_agent in [true, false] {
        let mut j = Joined::new(46);
        let slot = j.open();
        let (by, other) = match by_agent {
            true => (j.a, j.g),
            false => (j.g, j.a),
        };
        // 8 s for what the sender's window takes at once.
        j.both(|path| path.rate = Some(1_000_000));
        send(&mut j.w, by, slot, 8 * MB, true);
        j.w.run_for(secs(1));
        j.w.conn(j.a, |c| c.as_agent().unwrap().drain());
        j.w.flow_mut(other, slot, |flow| flow.finish = true);
        let (g, a) = (j.g, j.a);
        j.w.run_until(secs(60), |w| w.closed(a).is_some() && w.closed(g).is_some());
        assert_eq!(j.w.flow(other, slot).read, 8 * MB);
        assert!(j.w.flow(other, slot).got_end);
        assert_eq!(j.w.closed(j.a), Some(&Closed::Local));
        let told = j.w.closed(j.g);
        assert!(
            matches!(told, Some(Closed::ByPeer(close)) if close.code == 0 && close.reason == "cert-renewed"),
            "{told:?}"
        );
    }
}

#[test]
fn a_draining_connection_waits_for_a_reader_that_is_slow() {
    let mut j = Joined::new(48);
    let slot = j.open();
    j.w.flow_mut(j.g, slot, |flow| flow.paused = true);
    send(&mut j.w, j.a, slot, 100_000, true);
    send(&mut j.w, j.g, slot, 10, true);
    j.w.run_for(secs(2));
    j.w.conn(j.a, |c| c.as_agent().unwrap().drain());
    j.w.run_for(secs(30));
    j.w.flow_mut(j.g, slot, |flow| flow.paused = false);
    j.w.run_for(secs(5));
    assert_eq!(j.w.flow(j.g, slot).read, 100_000);
    assert!(j.w.flow(j.g, slot).got_end);
}

#[test]
fn a_stopping_connection_sees_what_has_ended_to_the_peer() {
    for by_gateway in [true, false] {
        let mut j = Joined::new(49);
        let slot = j.open();
        let (by, other) = match by_gateway {
            true => (j.g, j.a),
            false => (j.a, j.g),
        };
        // A second for what is sent, and a reader that has not begun.
        j.both(|path| path.rate = Some(200_000));
        j.w.flow_mut(other, slot, |flow| flow.paused = true);
        send(&mut j.w, other, slot, 10, true);
        send(&mut j.w, by, slot, 100_000, true);
        j.w.run_for(ms(200));
        assert_eq!(end(&j.w, by, slot), Some(SessionEnd::Clean));
        let now = j.w.now();
        let stop = CloseReason::GatewayStopping;
        j.w.conn(by, |c| c.stop(now, stop));
        j.w.run_for(ms(100));
        assert_eq!(j.w.closed(by), None, "the last bytes are under way");
        j.w.run_for(limits::STOP_PATIENCE);
        assert_eq!(j.w.closed(by), Some(&Closed::Local));
        assert_eq!(j.w.flow(other, slot).read, 100_000);
        assert!(j.w.flow(other, slot).got_end);
        assert_eq!(end(&j.w, other, slot), Some(SessionEnd::Clean));
        assert!(matches!(j.w.closed(other), Some(Closed::ByPeer(_))));
    }
}

#[test]
fn a_leave_takes_as_long_as_the_path_needs_unless_it_is_bounded() {
    for bounded in [false, true] {
        let mut j = Joined::new(53);
        let slot = j.open();
        // Four times the patience of a stop.
        j.both(|path| path.rate = Some(25_000));
        send(&mut j.w, j.a, slot, 10, true);
        send(&mut j.w, j.g, slot, 100_000, true);
        j.w.run_for(ms(200));
        let now = j.w.now();
        (j.w).conn(j.g, |c| c.take_leave(now, CloseReason::GatewayStopping));
        if bounded {
            (j.w).conn(j.g, |c| c.stop(now, CloseReason::GatewayStopping));
        }
        j.w.run_for(limits::STOP_PATIENCE);
        assert_eq!(j.w.closed(j.g).is_some(), bounded);
        j.w.run_for(secs(5));
        assert_eq!(j.w.closed(j.g), Some(&Closed::Local));
        assert_eq!(j.w.flow(j.a, slot).got_end, !bounded);
    }
}

#[test]
fn a_connection_that_stops_does_not_linger_as_one_that_drains() {
    let mut j = Joined::new(54);
    let now = j.w.now();
    j.w.conn(j.a, |c| {
        c.stop(now, CloseReason::AgentStopping);
        c.as_agent().unwrap().drain();
    });
    j.w.run_for(ms(50));
    assert_eq!(j.w.closed(j.a), Some(&Closed::Local));
}

#[test]
fn a_stopping_connection_waits_for_nothing_else() {
    for acknowledged in [true, false] {
        let mut j = Joined::new(50);
        let (open, ended) = (j.open(), j.open());
        j.w.flow_mut(j.g, open, |flow| flow.paused = true);
        send(&mut j.w, j.a, open, MB, false);
        send(&mut j.w, j.g, ended, 10, true);
        j.w.run_for(ms(200));
        if !acknowledged {
            j.both(|path| path.black_hole = true);
        }
        send(&mut j.w, j.a, ended, 10, true);
        j.w.run_for(ms(200));
        let (now, at) = (j.w.now(), j.w.at());
        j.w.conn(j.a, |c| c.stop(now, CloseReason::AgentStopping));
        let a = j.a;
        j.w.run_until(secs(5), |w| w.closed(a).is_some());
        let waited = j.w.at() - at;
        match acknowledged {
            true => assert!(waited < ms(50), "{waited:?}"),
            false => assert_eq!(waited, limits::STOP_PATIENCE),
        }
    }
}

#[test]
fn a_revoked_connection_closes_at_once_whatever_it_waits_for() {
    for drains in [true, false] {
        let mut j = Joined::new(52);
        let slot = j.open();
        j.both(|path| path.rate = Some(200_000));
        j.w.flow_mut(j.a, slot, |flow| flow.paused = true);
        send(&mut j.w, j.a, slot, 10, true);
        send(&mut j.w, j.g, slot, 100_000, true);
        j.w.run_for(ms(200));
        let now = j.w.now();
        match drains {
            true => j.w.conn(j.a, |c| c.as_agent().unwrap().drain()),
            false => j.w.conn(j.g, |c| c.stop(now, CloseReason::GatewayStopping)),
        }
        j.w.run_for(ms(100));
        assert_eq!(j.w.closed(j.g), None, "the last bytes are under way");
        let now = j.w.now();
        j.w.conn(j.g, |c| c.close(now, &CloseReason::Revoked));
        assert_eq!(j.w.closed(j.g), Some(&Closed::Local));
        j.w.run_for(ms(200));
        let told = j.w.closed(j.a);
        assert!(
            matches!(told, Some(Closed::ByPeer(close)) if close.is_revocation()),
            "{told:?}"
        );
    }
}

#[test]
fn a_session_that_is_not_whole_is_not_delivered_when_its_connection_is_lost() {
    for ends_here in [true, false] {
        let mut j = Joined::new(51);
        let slot = j.open();
        j.w.flow_mut(j.g, slot, |flow| flow.paused = true);
        // Either end is missing.
        send(&mut j.w, j.a, slot, 100_000, !ends_here);
        send(&mut j.w, j.g, slot, 10, ends_here);
        j.w.run_for(secs(1));
        let now = j.w.now();
        j.w.conn(j.a, |c| c.close(now, &CloseReason::AgentStopping));
        j.w.run_for(secs(1));
        assert!(j.w.closed(j.g).is_some());
        assert_eq!(end(&j.w, j.g, slot), None);
        assert_eq!(j.w.flow(j.g, slot).read, 0);
    }
}

#[test]
fn a_draining_connection_serves_what_comes_while_it_lingers() {
    let mut j = Joined::new(47);
    j.w.conn(j.a, |c| c.as_agent().unwrap().drain());
    j.w.run_for(limits::DRAIN_LINGER - ms(50));
    assert_eq!(j.w.closed(j.a), None);
    let slot = j.open();
    j.w.run_for(secs(20));
    assert_eq!(j.w.closed(j.a), None, "it has a session");
    for at in [j.g, j.a] {
        send(&mut j.w, at, slot, 10, true);
    }
    j.w.run_for(limits::DRAIN_LINGER - ms(50));
    assert_eq!(j.w.closed(j.a), None);
    j.w.run_for(ms(300));
    assert_eq!(j.w.closed(j.a), Some(&Closed::Local));
}
