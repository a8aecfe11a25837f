//! A path that carries nothing, one way or both, and gateways that have restarted.

use std::time::Duration;

use adit_proto_core::{
    close::{CloseReason, Closed, PeerFault},
    limits,
    output::{Event, Input},
    wire::{control::ControlMessage, frame::FrameDecoder},
};

use crate::{
    raw::RawConfig,
    world::{At, HEARTBEAT_INTERVAL, Joined, NodeId, World, ms, secs},
};

#[test]
fn dead_path_is_suspect_at_three_seconds_and_closed_at_four() {
    let mut j = Joined::new(60);
    let slot = j.open();
    j.w.run_for(secs(10));
    j.both(|path| path.black_hole = true);
    let since = j.w.at();
    j.w.run_for(secs(6));
    for at in [j.g, j.a] {
        expect_dead(&j.w, at, since);
    }
    assert!(j.w.conn(j.g, |c| c.session(slot).is_none()));
}

#[test]
fn loss_of_either_direction_is_a_dead_path() {
    for gateway_is_mute in [true, false] {
        let mut j = Joined::new(61);
        j.open();
        j.w.run_for(secs(10));
        match gateway_is_mute {
            true => j.gateway_path().black_hole = true,
            false => j.agent_path().black_hole = true,
        }
        let since = j.w.at();
        j.w.run_for(secs(6));
        // One side sees it by silence; the other by that too, or is told by the close that can still pass.
        let is_dead = |at| matches!(j.w.closed(at), Some(Closed::PathDead));
        let is_told = |at| matches!(j.w.closed(at), Some(Closed::ByPeer(close)) if close.reason == "path dead");
        for at in [j.g, j.a] {
            assert!(is_dead(at) || is_told(at), "{:?}", j.w.closed(at));
            let suspect = j.w.when(at, |e| matches!(e, Event::PathSuspect)).unwrap();
            expect_about(suspect - since, limits::PATH_SUSPECT_AFTER);
        }
        assert!(is_dead(j.g) || is_dead(j.a));
    }
}

#[test]
fn idle_agent_leaves_a_dead_path_and_the_gateway_waits_for_the_idle_timeout() {
    let mut j = Joined::new(62);
    j.w.run_for(secs(10));
    j.both(|path| path.black_hole = true);
    let since = j.w.at();
    j.w.run_for(secs(29));
    expect_dead(&j.w, j.a, since);
    let suspect = j.w.when(j.g, |e| matches!(e, Event::PathSuspect)).unwrap();
    expect_about(suspect - since, limits::PATH_SUSPECT_AFTER);
    assert_eq!(j.w.closed(j.g), None);
    j.w.run_for(secs(4));
    assert_eq!(j.w.closed(j.g), Some(&Closed::TimedOut));
    j.w.run_for(secs(10));
    for at in [j.g, j.a] {
        assert!(j.w.conn(at, |c| c.is_drained()));
    }
}

#[test]
fn path_that_comes_back_in_time_keeps_its_sessions() {
    // Idle, and with a window full of bulk data in front of every ping, one way and both.
    for (from_gateway, from_agent) in [(0, 0), (3 << 20, 0), (0, 3 << 20), (3 << 20, 3 << 20)] {
        let mut j = Joined::new(63);
        let slot = j.open();
        j.w.run_for(secs(5));
        j.w.flow_mut(j.g, slot, |flow| {
            (flow.goal, flow.finish) = (from_gateway, true)
        });
        j.w.flow_mut(j.a, slot, |flow| {
            (flow.goal, flow.finish) = (from_agent, true)
        });
        j.w.run_for(ms(30));
        let busy = from_gateway + from_agent > 0;
        j.both(|path| path.black_hole = true);
        let since = j.w.at();
        j.w.run_for(ms(3_300));
        j.both(|path| path.black_hole = false);
        j.w.run_for(secs(20));
        for at in [j.g, j.a].into_iter().filter(|_| busy) {
            let suspect = j.w.when(at, |e| matches!(e, Event::PathSuspect)).unwrap();
            let recovered = j.w.when(at, |e| matches!(e, Event::PathRecovered)).unwrap();
            expect_about(suspect - since, limits::PATH_SUSPECT_AFTER);
            assert!(recovered - since < secs(4), "{recovered:?}");
        }
        for at in [j.g, j.a] {
            assert_eq!(j.w.closed(at), None);
            assert!(j.w.flow(at, slot).got_end);
        }
        assert_eq!(j.w.flow(j.a, slot).read, from_gateway);
        assert_eq!(j.w.flow(j.g, slot).read, from_agent);
    }
}

#[test]
fn bulk_goes_on_over_a_path_that_narrows() {
    const GOAL: u64 = 2 << 20;
    for (seed, latency) in [(69, 1), (70, 21), (71, 61)] {
        let mut j = Joined::new(seed);
        // Acknowledgements ride on bulk, and a router's queue makes the round trip long.
        j.both(|path| (path.latency, path.rate) = (ms(latency), Some(5_000_000)));
        let slots: Vec<_> = (0..8).map(|_| j.open()).collect();
        for (at, slot) in [j.g, j.a]
            .iter()
            .flat_map(|at| slots.iter().map(|s| (*at, *s)))
        {
            j.w.flow_mut(at, slot, |flow| flow.goal = GOAL);
        }
        let ends = [j.g, j.a];
        let all = |w: &World, bytes: u64| {
            let has = |at| slots.iter().all(|slot| w.flow(at, *slot).read >= bytes);
            ends.into_iter().all(has)
        };
        assert!(j.w.run_until(secs(60), |w| all(w, GOAL / 4)));
        j.both(|path| path.mtu = 1_272);
        assert!(j.w.run_until(secs(60), |w| all(w, GOAL)), "{latency} ms");
        for at in [j.g, j.a] {
            assert!(!j.w.has(at, |event| matches!(event, Event::PathSuspect)));
        }
    }
}

#[test]
fn blocked_socket_stops_no_timer() {
    let mut j = Joined::new(68);
    j.open();
    j.w.run_for(secs(5));
    // The buffer stays occupied from the next batch on: the harness fails where a deadline then stands still.
    j.w.set_blocked(j.a.0);
    let since = j.w.at();
    j.w.run_for(secs(6));
    expect_dead(&j.w, j.a, since);
}

#[test]
fn quiet_but_sound_path_is_never_suspect() {
    let mut j = Joined::new(64);
    j.open();
    j.w.run_for(secs(300));
    for at in [j.g, j.a] {
        assert!(!j.w.has(at, |e| matches!(e, Event::PathSuspect)));
        assert_eq!(j.w.closed(at), None);
    }
}

#[test]
fn change_of_address_is_no_sign_of_life() {
    let mut j = Joined::new(69);
    j.open();
    let (gateway, home) = (j.w.addr(j.g.0), j.w.addr(j.a.0));
    let elsewhere = "203.0.113.9:5000".parse().unwrap();
    j.w.run_for(secs(5));
    j.w.move_to(j.a.0, elsewhere);
    j.w.run_for(secs(5));
    for addr in [home, elsewhere] {
        j.w.net.path(gateway, addr).black_hole = true;
    }
    let since = j.w.at();
    j.w.run_for(ms(3_600));
    let suspect = j.w.when(j.g, |e| matches!(e, Event::PathSuspect)).unwrap();
    expect_about(suspect - since, limits::PATH_SUSPECT_AFTER);
    // The engine counts acknowledgements for each path alone, and what it says changes with the path.
    j.w.move_to(j.a.0, home);
    j.w.run_for(secs(2));
    assert!(!j.w.has(j.g, |e| matches!(e, Event::PathRecovered)));
}

#[test]
fn connection_that_is_gone_takes_no_notice_of_a_new_address() {
    let mut j = Joined::new(72);
    let now = j.w.now();
    j.w.conn(j.a, |c| c.close(now, &CloseReason::AgentStopping));
    j.w.run_for(secs(5));
    assert!(j.w.conn(j.a, |c| c.is_drained()));
    // The endpoint has given its place away.
    j.w.conn(j.a, |c| c.handle_input(now, Input::SocketRebound));
    j.w.run_for(secs(1));
    assert!(j.w.conn(j.a, |c| c.is_drained()));
}

#[test]
fn restarted_gateway_tells_its_idle_agent() {
    let mut j = Joined::new(65);
    j.w.run_for(secs(7));
    j.w.restart_gateway(j.g.0, 1);
    let since = j.w.at();
    j.w.run_for(secs(2));
    assert_eq!(j.w.closed(j.a), Some(&Closed::PeerRestarted));
    let closed = j.w.when(j.a, |e| matches!(e, Event::Closed(_))).unwrap();
    assert!(closed - since < secs(1), "{:?}", closed - since);
    assert!(j.w.conn(j.a, |c| c.is_drained()));
}

#[test]
fn another_gateway_cannot_tell_it() {
    let mut j = Joined::new(66);
    j.w.run_for(secs(7));
    j.w.restart_gateway(j.g.0, 99);
    let since = j.w.at();
    j.w.run_for(secs(6));
    expect_dead(&j.w, j.a, since);
}

#[test]
fn resets_are_rationed_by_source() {
    let mut j = Joined::new(67);
    let allowed = usize::try_from(limits::RESETS_PER_SOURCE_MAX).unwrap();
    let addr = |host: u8| ([198, 51, 100, host], 9_999).into();
    for i in 0..allowed * 3 {
        let mut packet = [0x55; 60];
        packet[1] = u8::try_from(i % 200).unwrap();
        j.w.inject(addr(1), j.g.0, &packet);
        j.w.run_for(ms(1));
    }
    j.w.inject(addr(2), j.g.0, &[0x55; 60]);
    j.w.run_for(ms(100));
    let got = |w: &World, host| w.mailbox.iter().filter(|(to, _)| *to == addr(host)).count();
    assert_eq!(got(&j.w, 1), allowed);
    assert_eq!(got(&j.w, 2), 1);
    let withheld = j.w.endpoint(j.g.0).counters().resets_withheld;
    assert_eq!(withheld, u64::try_from(allowed * 2).unwrap());
    // The next second has its own allowance.
    j.w.run_for(secs(1));
    j.w.inject(addr(1), j.g.0, &[0x55; 60]);
    j.w.run_for(ms(100));
    assert_eq!(got(&j.w, 1), allowed + 1);
}

#[test]
fn gateway_whose_control_loop_is_dead_is_left() {
    // Its QUIC acknowledges everything.
    let (mut w, a, raw) = beside_a_bare_gateway();
    w.run_for(HEARTBEAT_INTERVAL + limits::HEARTBEAT_ACK_TIMEOUT - secs(1));
    assert_eq!(w.closed(a), None);
    w.run_for(secs(2));
    assert_eq!(
        w.closed(a),
        Some(&Closed::Fault(PeerFault::HeartbeatsUnanswered))
    );
    let lost = w.raw(raw, |r| format!("{:?}", r.lost));
    assert!(lost.contains("answered no heartbeat for 10 s"), "{lost}");
}

#[test]
fn gateway_that_answers_late_is_kept() {
    let (mut w, a, raw) = beside_a_bare_gateway();
    let control = w.raw(raw, |r| r.accept()).unwrap();
    w.run_for(HEARTBEAT_INTERVAL);
    for _ in 0..3 {
        w.run_for(limits::HEARTBEAT_ACK_TIMEOUT - secs(1));
        let said = w.raw(raw, |r| r.read(control)).bytes;
        let timestamp_ms = last_heartbeat(&said);
        let ack = ControlMessage::HeartbeatAck {
            version: 1,
            timestamp_ms,
        };
        let ack = ack.encode().unwrap();
        w.raw(raw, |r| r.write(control, &ack));
        w.run_for(HEARTBEAT_INTERVAL - limits::HEARTBEAT_ACK_TIMEOUT + secs(1));
    }
    assert_eq!(w.closed(a), None);
    let took = w.conn(a, |c| c.as_agent().unwrap().round_trip()).unwrap();
    assert!(took > secs(8), "{took:?}");
}

fn beside_a_bare_gateway() -> (World, At, NodeId) {
    let mut w = World::new(68);
    let raw = w.add_raw_server(&RawConfig::default());
    let agent = w.add_agent();
    let a = w.connect(agent, raw);
    w.run_for(ms(200));
    (w, a, raw)
}

/// The timestamp of the latest heartbeat.
fn last_heartbeat(mut said: &[u8]) -> u64 {
    let mut decoder = FrameDecoder::new(limits::CONTROL_LEN_MAX);
    let mut latest = None;
    while !said.is_empty() {
        let (fed, payload) = decoder.feed(said).unwrap();
        said = &said[fed..];
        let Some(payload) = payload else { continue };
        if let ControlMessage::Heartbeat { timestamp_ms, .. } =
            ControlMessage::decode(&payload).unwrap()
        {
            latest = Some(timestamp_ms);
        }
    }
    latest.unwrap()
}

fn expect_dead(w: &World, at: At, since: Duration) {
    assert_eq!(w.closed(at), Some(&Closed::PathDead));
    let suspect = w.when(at, |e| matches!(e, Event::PathSuspect)).unwrap();
    expect_about(suspect - since, limits::PATH_SUSPECT_AFTER);
    let closed = w.when(at, |e| matches!(e, Event::Closed(_))).unwrap();
    expect_about(closed - since, limits::PATH_DEAD_AFTER);
}

/// The last sign of life is up to one ping interval older than the loss, 1 s at an idle gateway. It is seen at the check
/// after it, up to 500 ms later, and silence runs from there.
fn expect_about(time: Duration, nominal: Duration) {
    let range = nominal - secs(1)..nominal + ms(600);
    assert!(range.contains(&time), "{time:?} is not about {nominal:?}");
}
