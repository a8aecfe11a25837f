//! Readers that stop, or are slow, in the middle of large transfers: what they may hold, and whom it concerns.

use std::time::Duration;

use adit_proto_core::{
    endpoint::EndpointLimits,
    id::Slot,
    limits,
    output::{Event, SessionEnd},
};

use crate::{
    transfer::{end, send},
    world::{At, Joined, World, ms, secs},
};

const MB: u64 = 1 << 20;
const WINDOW: u64 = limits::STREAM_WINDOW as u64;
/// Large transfers whose readers may stop.
const ROOM: usize = 4;
/// As long as the connection's window lasts on a link of this rate, it lasts with the usual budget at 1 Gbit/s.
const RATE: u64 = 20_000_000;

/// A gateway and an agent with a small budget, and who writes and reads.
fn joined(seed: u64, by_gateway: bool) -> (Joined, At, At) {
    let limits = EndpointLimits {
        unread: ROOM as u64 * WINDOW,
        ..EndpointLimits::default()
    };
    let j = Joined::limited(seed, limits, |path| path.rate = Some(RATE));
    let (writer, reader) = match by_gateway {
        true => (j.g, j.a),
        false => (j.a, j.g),
    };
    (j, writer, reader)
}

/// Opens sessions whose readers do not read what is written to them.
fn unread(j: &mut Joined, (writer, reader): (At, At), count: usize, bytes: u64) -> Vec<Slot> {
    let slots: Vec<Slot> = (0..count).map(|_| j.open()).collect();
    for slot in &slots {
        pause(&mut j.w, reader, *slot, true);
        send(&mut j.w, writer, *slot, bytes, true);
    }
    slots
}

fn pause(w: &mut World, reader: At, slot: Slot, paused: bool) {
    w.flow_mut(reader, slot, |flow| flow.paused = paused);
}

fn not_read(w: &World, at: At, slot: Slot) -> Option<Duration> {
    match end(w, at, slot) {
        Some(SessionEnd::NotRead { unread_for }) => Some(unread_for),
        _ => None,
    }
}

#[test]
fn hundreds_of_users_that_stop_reading_never_stop_those_that_read() {
    hundreds_stop(false);
}

#[test]
fn hundreds_of_targets_that_stop_reading_never_stop_those_that_read() {
    hundreds_stop(true);
}

fn hundreds_stop(by_gateway: bool) {
    let (mut j, writer, reader) = joined(60, by_gateway);
    let fast = j.open();
    let stuck = unread(&mut j, (writer, reader), 200, 1_000 * MB);
    // What comes in that time is twice the window.
    let until = j.w.at() + secs(14);
    let mut sent = 0;
    while j.w.at() < until {
        sent += MB;
        send(&mut j.w, writer, fast, MB, false);
        let done =
            j.w.run_until(secs(1), |w| w.flow(reader, fast).read == sent);
        assert!(done, "at {:?}", j.w.at());
    }
    let ended = stuck
        .iter()
        .filter(|slot| end(&j.w, reader, **slot).is_some());
    let ended: Vec<Slot> = ended.copied().collect();
    assert!(ended.len() > ROOM, "{} ended", ended.len());
    for slot in ended {
        let unread_for = not_read(&j.w, reader, slot);
        assert!(unread_for.is_some_and(|time| time >= limits::UNREAD_PATIENCE));
        assert_eq!(end(&j.w, writer, slot), Some(SessionEnd::ResetByPeer(9)));
    }
}

#[test]
fn the_one_that_was_not_read_for_longest_goes_first_and_none_too_soon() {
    let (mut j, writer, reader) = joined(61, true);
    let first = unread(&mut j, (writer, reader), ROOM, 20 * MB);
    j.w.run_for(secs(60));
    assert!(first.iter().all(|slot| end(&j.w, reader, *slot).is_none()));
    // The oldest has been read meanwhile, and the next one hardly.
    j.w.with(reader, |peer| peer.sip(first[0], limits::UNREAD_SHARE));
    j.w.with(reader, |peer| peer.sip(first[1], limits::UNREAD_SHARE - 1));
    let next = unread(&mut j, (writer, reader), 1, 20 * MB);
    j.w.run_for(secs(3));
    let ended = |j: &Joined| -> Vec<Slot> {
        let all = first.iter().chain(&next).copied();
        all.filter(|slot| not_read(&j.w, reader, *slot).is_some())
            .collect()
    };
    assert_eq!(ended(&j), [first[1]]);
    let unread_for = not_read(&j.w, reader, first[1]).unwrap();
    assert!(unread_for > secs(59), "{unread_for:?}");
    unread(&mut j, (writer, reader), 1, 20 * MB);
    j.w.run_for(secs(3));
    assert_eq!(ended(&j), [first[1], first[2]]);
}

#[test]
fn who_pauses_with_little_is_never_touched() {
    let (mut j, writer, reader) = joined(62, false);
    // More than the budget, all together.
    let little = unread(&mut j, (writer, reader), 180, 200_000);
    j.w.run_for(secs(5));
    let much = unread(&mut j, (writer, reader), ROOM + 2, 20 * MB);
    j.w.run_for(secs(20));
    let ended = |slots: &[Slot]| {
        let ended = slots
            .iter()
            .filter(|slot| end(&j.w, reader, **slot).is_some());
        ended.count()
    };
    assert_eq!((ended(&little), ended(&much)), (0, 2));
    for slot in &little {
        pause(&mut j.w, reader, *slot, false);
        assert_eq!(j.w.flow(reader, *slot).read, 200_000);
        assert!(j.w.flow(reader, *slot).got_end);
    }
}

#[test]
fn what_is_unread_counts_as_it_is_before_anybody_is_ended_for_it() {
    let (mut j, writer, reader) = joined(69, true);
    // 12 MB in all, and a budget of 32 MiB, of which sessions of many times as much could be there.
    let slots = unread(&mut j, (writer, reader), 40, 300_000);
    j.w.run_for(secs(20));
    assert!(slots.iter().all(|slot| end(&j.w, reader, *slot).is_none()));
    // 34 MB beyond their shares.
    let more = unread(&mut j, (writer, reader), 45, 1_000_000);
    j.w.run_for(secs(20));
    let ended = |slot: &&Slot| not_read(&j.w, reader, **slot).is_some();
    assert_eq!(more.iter().filter(ended).count(), 2);
    assert_eq!(slots.iter().filter(ended).count(), 0);
}

#[test]
fn who_reads_on_gets_every_byte_in_order_and_the_end() {
    let share = limits::UNREAD_SHARE as u64;
    for bytes in [0, 1, share - 1, share, share + 1, 2 * MB, 20 * MB] {
        for by_gateway in [true, false] {
            let (mut j, writer, reader) = joined(63, by_gateway);
            let slot = unread(&mut j, (writer, reader), 1, bytes)[0];
            j.w.run_for(secs(3));
            // In pieces as they fall, past what was taken out before and with looks between them.
            for _ in 0..5 {
                j.w.with(reader, |peer| peer.sip(slot, 61_111));
                j.w.run_for(secs(1));
            }
            assert_eq!(j.w.flow(reader, slot).read, bytes.min(5 * 61_111));
            pause(&mut j.w, reader, slot, false);
            j.w.run_for(secs(5));
            assert_eq!(j.w.flow(reader, slot).read, bytes);
            assert!(j.w.flow(reader, slot).got_end);
            // And the other way.
            send(&mut j.w, reader, slot, 10, true);
            j.w.run_for(secs(1));
            assert_eq!(end(&j.w, reader, slot), Some(SessionEnd::Clean));
        }
    }
}

#[test]
fn what_comes_behind_what_was_taken_out_follows_it() {
    let (mut j, writer, reader) = joined(64, true);
    let slot = j.open();
    pause(&mut j.w, reader, slot, true);
    let mut sent = 0;
    // Taken out in several turns, up to a share, and past it.
    for _ in 0..8 {
        sent += 50_000;
        send(&mut j.w, writer, slot, 50_000, false);
        j.w.run_for(secs(2));
    }
    j.w.flow_mut(writer, slot, |flow| flow.finish = true);
    j.w.run_for(secs(2));
    pause(&mut j.w, reader, slot, false);
    assert_eq!(j.w.flow(reader, slot).read, sent);
    assert!(j.w.flow(reader, slot).got_end);
}

#[test]
fn a_reset_overtakes_what_was_taken_out() {
    for bytes in [100_000, 20 * MB] {
        let (mut j, writer, reader) = joined(65, true);
        let slot = unread(&mut j, (writer, reader), 1, bytes)[0];
        j.w.run_for(secs(3));
        j.w.conn(writer, |c| c.session(slot).unwrap().reset(7));
        j.w.run_for(secs(1));
        assert_eq!(end(&j.w, reader, slot), Some(SessionEnd::ResetByPeer(7)));
        pause(&mut j.w, reader, slot, false);
        assert_eq!(j.w.flow(reader, slot).read, 0);
        assert!(!j.w.flow(reader, slot).got_end);
    }
}

#[test]
fn the_rest_of_a_lost_connection_begins_with_what_was_taken_out() {
    let (mut j, writer, reader) = joined(66, false);
    let slot = unread(&mut j, (writer, reader), 1, MB)[0];
    send(&mut j.w, reader, slot, 10, true);
    j.w.run_for(secs(3));
    j.both(|path| path.black_hole = true);
    j.w.run_for(secs(10));
    assert!(j.w.closed(reader).is_some());
    assert_eq!(j.w.flow(reader, slot).read, MB);
    assert!(j.w.flow(reader, slot).got_end);
}

#[test]
fn what_slow_readers_read_beyond_the_budget_is_room_for_others_at_once() {
    for by_gateway in [true, false] {
        let (mut j, writer, reader) = joined(67, by_gateway);
        let slow = unread(&mut j, (writer, reader), 40, 1_000 * MB);
        let written = |j: &Joined| -> u64 {
            let each = slow.iter().map(|slot| j.w.flow(writer, *slot).written);
            each.sum()
        };
        let mut before = 0;
        for _ in 0..20 {
            for slot in &slow {
                j.w.with(reader, |peer| peer.sip(*slot, 100_000));
            }
            j.w.run_for(secs(1));
            let now = written(&j);
            assert!(now > before, "{now} bytes at {:?}", j.w.at());
            before = now;
        }
        assert!(!j.w.has(reader, |e| matches!(e, Event::SessionEnded { .. })));
    }
}

#[test]
fn a_connection_without_anything_unread_waits_for_nothing_more() {
    let (mut j, writer, reader) = joined(68, true);
    let slot = j.open();
    j.w.run_for(secs(2));
    let wakes = |j: &mut Joined| {
        let (steps, until) = (j.w.steps(), ms(10_000));
        j.w.run_for(until);
        j.w.steps() - steps
    };
    let before = wakes(&mut j);
    send(&mut j.w, writer, slot, 100_000, false);
    j.w.run_for(secs(2));
    let idle = wakes(&mut j);
    assert!(idle <= before + 5, "{idle} after {before}");
    // A page that waits for its reader is taken out, and that is that.
    pause(&mut j.w, reader, slot, true);
    send(&mut j.w, writer, slot, 200_000, false);
    j.w.run_for(secs(2));
    let paused = wakes(&mut j);
    assert!(paused <= before + 5, "{paused} after {before}");
}

#[test]
fn who_sips_does_not_stop_those_that_read() {
    for by_gateway in [true, false] {
        let (mut j, writer, reader) = joined(70, by_gateway);
        // With their windows they could fill the connection's three times.
        let sippers = unread(&mut j, (writer, reader), 60, 1_000 * MB);
        let fast = j.open();
        let mut sent = 0;
        while j.w.at() < secs(60) {
            for slot in &sippers {
                if end(&j.w, reader, *slot).is_none() {
                    j.w.with(reader, |peer| peer.sip(*slot, 1_000));
                }
            }
            sent += 100_000;
            send(&mut j.w, writer, fast, 100_000, false);
            let done =
                j.w.run_until(secs(1), |w| w.flow(reader, fast).read == sent);
            assert!(done, "at {:?}", j.w.at());
            j.w.run_for(ms(500));
        }
        let left = sippers
            .iter()
            .filter(|slot| end(&j.w, reader, **slot).is_none());
        assert_eq!(left.count(), ROOM);
    }
}

#[test]
fn connections_share_what_slow_readers_may_hold_together() {
    let limits = EndpointLimits {
        unread: 8 * WINDOW,
        unread_in_all: 8 * WINDOW,
        ..EndpointLimits::default()
    };
    let mut j = Joined::limited(71, limits, |_| ());
    let agent = j.w.add_agent();
    let a2 = j.w.connect(agent, j.g.0);
    j.w.run_for(secs(2));
    let first = j.g.1;
    let second =
        j.w.peers(j.g.0)
            .map(|p| p.conn.id())
            .find(|id| *id != first);
    let g2 = (j.g.0, second.unwrap());
    let left = |j: &Joined, at: At, slots: &[Slot]| {
        let left = slots.iter().filter(|slot| end(&j.w, at, **slot).is_none());
        left.count()
    };
    // Alone it may have all.
    let (g1, a1) = (j.g, j.a);
    let ones = unread(&mut j, (a1, g1), 8, 20 * MB);
    j.w.run_for(secs(20));
    assert_eq!(left(&j, g1, &ones), 8);
    // One window more than both may hold: it goes from whom holds most.
    (j.g, j.a) = (g2, a2);
    let twos = unread(&mut j, (a2, g2), 3, 20 * MB);
    j.w.run_for(secs(20));
    assert_eq!((left(&j, g1, &ones), left(&j, g2, &twos)), (5, 3));
    let more = unread(&mut j, (a2, g2), 8, 20 * MB);
    j.w.run_for(secs(20));
    assert_eq!(left(&j, g1, &ones), 4);
    assert_eq!(left(&j, g2, &twos) + left(&j, g2, &more), 4);
    // What one has read is the other's.
    for slot in &ones {
        pause(&mut j.w, g1, *slot, false);
    }
    j.w.run_for(secs(5));
    let more = unread(&mut j, (a2, g2), 4, 20 * MB);
    j.w.run_for(secs(20));
    assert_eq!(left(&j, g2, &more), 4);
}

#[test]
fn one_window_too_many_on_all_connections_ends_one_session() {
    let limits = EndpointLimits {
        unread_in_all: 4 * WINDOW,
        ..EndpointLimits::default()
    };
    let mut j = Joined::limited(72, limits, |_| ());
    let gateway = j.g.0;
    let mut agents = vec![j.a];
    for _ in 0..4 {
        let agent = j.w.add_agent();
        agents.push(j.w.connect(agent, gateway));
    }
    j.w.run_for(secs(2));
    let conns: Vec<At> = (j.w.peers(gateway))
        .map(|p| (gateway, p.conn.id()))
        .collect();
    let mut stuck = Vec::new();
    for at in conns {
        // The agent sends without being asked: whose it is does not matter here.
        j.g = at;
        let slot = j.open();
        pause(&mut j.w, at, slot, true);
        for agent in agents.clone() {
            if j.w.peer(agent).flows.contains_key(&slot) && j.w.flow(agent, slot).written == 0 {
                send(&mut j.w, agent, slot, 20 * MB, true);
            }
        }
        stuck.push((at, slot));
        j.w.run_for(secs(1));
    }
    j.w.run_for(secs(30));
    let ended = (stuck.iter()).filter(|(at, slot)| not_read(&j.w, *at, *slot).is_some());
    assert_eq!(ended.count(), 1);
    assert_eq!(j.w.endpoint(gateway).load().unread.in_all, 4 * WINDOW);
}
