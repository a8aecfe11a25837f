//! Bytes of open sessions: intact, half-closed, reset, and under backpressure.

use adit_proto_core::{
    id::Slot,
    limits,
    output::{Event, SessionEnd},
};

use crate::world::{At, Joined, World, ms, secs};

const MB: u64 = 1 << 20;
const WINDOW: u64 = limits::STREAM_WINDOW as u64;

#[test]
fn five_megabytes_each_way_survive_a_lossy_path() {
    let mut j = Joined::new(40);
    let slot = j.open();
    j.both(|path| path.loss = 30);
    for at in [j.g, j.a] {
        send(&mut j.w, at, slot, 5 * MB, true);
    }
    let (g, a) = (j.g, j.a);
    j.w.run_until(secs(120), |w| {
        [g, a].iter().all(|at| w.flow(*at, slot).got_end)
    });
    for at in [g, a] {
        assert_eq!(j.w.flow(at, slot).read, 5 * MB);
        assert_eq!(j.w.flow(at, slot).error, None);
        assert_eq!(end(&j.w, at, slot), Some(SessionEnd::Clean));
        assert_eq!(j.w.conn(at, |c| c.sessions_open()), 0);
    }
}

#[test]
fn one_direction_ends_while_the_other_goes_on() {
    for gateway_first in [true, false] {
        let mut j = Joined::new(41);
        let slot = j.open();
        let (first, second) = match gateway_first {
            true => (j.g, j.a),
            false => (j.a, j.g),
        };
        send(&mut j.w, first, slot, 1_000, true);
        j.w.run_for(secs(1));
        assert!(j.w.flow(second, slot).got_end);
        assert_eq!(end(&j.w, first, slot), None);
        assert_eq!(end(&j.w, second, slot), None);
        send(&mut j.w, second, slot, 2 * MB, false);
        j.w.run_for(secs(5));
        assert_eq!(j.w.flow(first, slot).read, 2 * MB);
        assert!(!j.w.flow(first, slot).got_end);
        j.w.flow_mut(second, slot, |flow| flow.finish = true);
        j.w.run_for(secs(1));
        for at in [first, second] {
            assert_eq!(end(&j.w, at, slot), Some(SessionEnd::Clean));
        }
    }
}

#[test]
fn reset_is_never_a_clean_end() {
    for by_gateway in [true, false] {
        for paused in [true, false] {
            let mut j = Joined::new(42);
            let slot = j.open();
            let (by, other) = match by_gateway {
                true => (j.g, j.a),
                false => (j.a, j.g),
            };
            j.w.flow_mut(other, slot, |flow| flow.paused = paused);
            send(&mut j.w, by, slot, 100_000, false);
            j.w.run_for(ms(200));
            j.w.conn(by, |c| c.session(slot).unwrap().reset(7));
            assert_eq!(end(&j.w, by, slot), Some(SessionEnd::ResetHere));
            j.w.run_for(secs(1));
            assert_eq!(
                end(&j.w, other, slot),
                Some(SessionEnd::ResetByPeer(7)),
                "paused: {paused}"
            );
            assert!(!j.w.flow(other, slot).got_end);
            assert_eq!(j.w.closed(j.g), None);
        }
    }
}

#[test]
fn reset_after_the_own_end_is_still_a_reset() {
    let mut j = Joined::new(43);
    let slot = j.open();
    send(&mut j.w, j.g, slot, 10, true);
    j.w.run_for(secs(1));
    j.w.conn(j.a, |c| c.session(slot).unwrap().reset(9));
    j.w.run_for(secs(1));
    assert_eq!(end(&j.w, j.g, slot), Some(SessionEnd::ResetByPeer(9)));
}

#[test]
fn reader_that_does_not_read_blocks_its_writer_only() {
    for by_gateway in [true, false] {
        let mut j = Joined::new(44);
        let (writer, reader) = match by_gateway {
            true => (j.g, j.a),
            false => (j.a, j.g),
        };
        let stuck = j.open();
        let free = j.open();
        j.w.flow_mut(reader, stuck, |flow| flow.paused = true);
        send(&mut j.w, writer, stuck, 20 * MB, true);
        j.w.run_for(secs(5));
        let flow = j.w.flow(writer, stuck);
        assert!(flow.blocked);
        let written = flow.written;
        // The message that opened the session takes its part of the window.
        assert!((WINDOW - 50..WINDOW).contains(&written), "{written}");

        send(&mut j.w, writer, free, 20 * MB, true);
        j.w.run_for(secs(5));
        assert!(j.w.flow(reader, free).got_end, "the other session is slow");
        assert_eq!(j.w.flow(writer, stuck).written, written);

        j.w.flow_mut(reader, stuck, |flow| flow.paused = false);
        j.w.run_for(secs(5));
        assert_eq!(j.w.flow(reader, stuck).read, 20 * MB);
        assert!(j.w.flow(reader, stuck).got_end);
    }
}

#[test]
fn however_many_readers_do_not_read_there_is_room_for_one_that_does() {
    for by_gateway in [true, false] {
        let mut j = Joined::new(45);
        let (writer, reader) = match by_gateway {
            true => (j.g, j.a),
            false => (j.a, j.g),
        };
        let mut stuck: Vec<Slot> = Vec::new();
        // More than the window, each one by itself.
        while stuck.len() < 70 {
            let slot = j.open();
            j.w.flow_mut(reader, slot, |flow| flow.paused = true);
            send(&mut j.w, writer, slot, MB, true);
            stuck.push(slot);
            let free = j.open();
            send(&mut j.w, writer, free, MB / 2, true);
            let done = j.w.run_until(secs(5), |w| w.flow(reader, free).got_end);
            assert!(done, "beside {} that do not read", stuck.len());
            j.w.conn(reader, |c| c.session(free).unwrap().reset(1));
        }
        for slot in &stuck {
            j.w.flow_mut(reader, *slot, |flow| flow.paused = false);
        }
        j.w.run_for(secs(20));
        for slot in &stuck {
            assert_eq!(j.w.flow(reader, *slot).read, MB);
        }
    }
}

#[test]
fn sessions_that_fill_the_send_window_together_all_go_on() {
    // Forty stream windows do not fit the connection's send window: writes are cut short by the latter.
    let mut j = Joined::new(46);
    j.both(|path| path.latency = ms(100));
    let slots: Vec<Slot> = (0..40).map(|_| j.open()).collect();
    for slot in &slots {
        send(&mut j.w, j.g, *slot, 3 * MB, true);
    }
    let unsent: u64 = slots.iter().map(|s| j.w.flow(j.g, *s).written).sum();
    assert_eq!(unsent, limits::SEND_WINDOW);
    let (a, all) = (j.a, slots.clone());
    let done = j.w.run_until(secs(60), |w| {
        all.iter().all(|slot| w.flow(a, *slot).got_end)
    });
    let read: Vec<u64> = slots.iter().map(|s| j.w.flow(j.a, *s).read).collect();
    assert!(done, "{read:?}");
}

#[test]
fn control_and_set_up_are_not_starved_by_bulk() {
    let mut j = Joined::new(47);
    // 1 MB/s: a full send window takes 8 s to leave.
    j.both(|path| path.rate = Some(1_000_000));
    let slots: Vec<Slot> = (0..10).map(|_| j.open()).collect();
    for at in [j.g, j.a] {
        for slot in &slots {
            send(&mut j.w, at, *slot, 200 * MB, false);
        }
    }
    j.w.run_for(secs(3));
    let acked = j.w.at();
    let attempt = j.w.open(j.g, "10.0.0.6:22");
    let g = j.g;
    let opened = j.w.run_until(secs(3), |w| w.opened(g, attempt).is_some());
    assert!(opened, "set-up is starved");
    // The heartbeat at 60 s reaches the gateway in time, in spite of what waits in front of it.
    let until = secs(63) - j.w.at();
    j.w.run_for(until);
    let beats =
        j.w.events(j.g)
            .iter()
            .filter(|(at, e)| matches!(e, Event::Seen) && *at > secs(60) && *at > acked);
    assert!(beats.count() >= 1, "no heartbeat came through");
    assert_eq!(j.w.closed(j.g), None);
    assert!(!j.w.has(j.g, |e| matches!(e, Event::PathSuspect)));
    let missed = j.w.conn(j.a, |c| c.as_agent().unwrap().round_trip());
    assert!(missed.is_some_and(|rtt| rtt < secs(2)), "{missed:?}");
}

#[test]
fn bytes_behind_the_answer_are_not_lost() {
    let mut j = Joined::new(48);
    j.w.set_answer(j.a.0, &crate::peer::Answer::Hold);
    let attempt = j.w.open(j.g, "10.0.0.5:22");
    j.w.run_for(secs(1));
    // Answer, bytes and end leave in one packet.
    j.w.with(j.a, |peer| {
        peer.accept(Slot(0));
        let flow = peer.flows.get_mut(&Slot(0)).unwrap();
        (flow.goal, flow.finish) = (500, true);
        peer.pump(Slot(0));
    });
    j.w.run_for(secs(1));
    let slot = j.w.opened(j.g, attempt).unwrap();
    assert_eq!(j.w.flow(j.g, slot).read, 500);
    assert!(j.w.flow(j.g, slot).got_end);
}

#[test]
fn agent_that_moves_keeps_its_sessions() {
    let mut j = Joined::new(49);
    let slot = j.open();
    send(&mut j.w, j.g, slot, 8 * MB, true);
    j.w.run_for(ms(30));
    j.w.move_to(j.a.0, "203.0.113.9:5555".parse().unwrap());
    let now = j.w.now();
    j.w.conn(j.a, |c| {
        c.handle_input(now, adit_proto_core::output::Input::SocketRebound);
    });
    j.w.run_for(secs(10));
    assert!(j.w.flow(j.a, slot).got_end);
    let remote = j.w.conn(j.g, |c| c.remote());
    assert_eq!(remote, "203.0.113.9:5555".parse().unwrap());
    assert_eq!(j.w.closed(j.g), None);
}

#[test]
fn the_same_seed_gives_the_same_events() {
    // The provider draws its keys from the operating system, so the bytes differ from run to run, and certificates
    // with them; what happens and when must not. Sizes of signatures may move packets, so the path has no loss.
    let story = |seed| {
        let mut j = Joined::new(seed);
        let slot = j.open();
        send(&mut j.w, j.g, slot, MB, true);
        send(&mut j.w, j.a, slot, 1_000, true);
        j.w.run_for(secs(70));
        let events = [j.g, j.a].map(|at| {
            let kinds = j.w.events(at).iter().map(|(at, e)| {
                let (kind, _) = format!("{e:?}").split_once(' ').map_or_else(
                    || (format!("{e:?}"), String::new()),
                    |(kind, rest)| (kind.to_owned(), rest.to_owned()),
                );
                (at.as_millis(), kind)
            });
            kinds.collect::<Vec<_>>()
        });
        (events, j.w.net.trace())
    };
    let (first, first_bytes) = story(50);
    let (second, second_bytes) = story(50);
    assert_eq!(first, second);
    assert_ne!(
        first_bytes, second_bytes,
        "then this test can compare bytes"
    );
}

pub(crate) fn send(w: &mut World, at: At, slot: Slot, bytes: u64, finish: bool) {
    w.flow_mut(at, slot, |flow| {
        flow.goal += bytes;
        flow.finish |= finish;
    });
}

pub(crate) fn end(w: &World, at: At, want: Slot) -> Option<SessionEnd> {
    w.events(at).iter().find_map(|(_, e)| match e {
        Event::SessionEnded { slot, how } if *slot == want => Some(*how),
        _ => None,
    })
}

#[test]
fn one_session_fills_a_long_path_that_loses_a_little() {
    // 1 Gbit/s, 50 ms there and back, and what a poor link loses.
    for (loss, limit) in [(0, ms(2_000)), (10, ms(3_000))] {
        let mut j = Joined::over(49, |path| {
            path.latency = ms(25);
            path.rate = Some(125_000_000);
        });
        j.w.run_for(secs(2));
        j.both(|path| path.loss = loss);
        let slot = j.open();
        send(&mut j.w, j.g, slot, 100 * MB, true);
        let (a, since) = (j.a, j.w.at());
        j.w.run_until(secs(60), |w| w.flow(a, slot).got_end);
        let took = j.w.at() - since;
        assert!(took < limit, "loss {loss}: {took:?}");
    }
}
