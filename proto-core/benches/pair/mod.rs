//! A gateway's and an agent's connection joined in memory and in virtual time, as the tests in `tests/pair` have them,
//! and what is measured on them.

#[path = "unrecorded.rs"]
mod journal;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/pair/net.rs"]
mod net;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/pair/peer.rs"]
mod peer;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/pair/pki.rs"]
mod pki;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/pair/raw.rs"]
mod raw;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/pair/world.rs"]
mod world;

use std::time::Duration;

use adit_proto_core::{id::Slot, output::Event};

pub(crate) use self::world::Joined;
use self::world::{At, World};

/// A gateway and its agent over a short path with the datagrams of an Ethernet. What a datagram costs does not hang on
/// the length of the path, and on a short one few timers fire.
pub(crate) fn joined() -> Joined {
    Joined::over(1, |path| {
        path.latency = Duration::from_micros(100);
        path.mtu = 1_472;
    })
}

/// Sends so many bytes through an open session, from the gateway to the agent or back, until all have been read.
pub(crate) fn carry(j: &mut Joined, slot: Slot, from_gateway: bool, bytes: u64) {
    let (from, to) = ends(j, from_gateway);
    let goal = j.w.flow(to, slot).read + bytes;
    j.w.flow_mut(from, slot, |flow| flow.goal += bytes);
    wait(j, |w| w.flow(to, slot).read == goal);
}

/// Sends so many bytes each way at the same time.
pub(crate) fn carry_both_ways(j: &mut Joined, slot: Slot, bytes: u64) {
    let (g, a) = (j.g, j.a);
    let goals = [g, a].map(|at| (at, j.w.flow(at, slot).read + bytes));
    for at in [g, a] {
        j.w.flow_mut(at, slot, |flow| flow.goal += bytes);
    }
    wait(j, |w| {
        goals
            .iter()
            .all(|(at, goal)| w.flow(*at, slot).read == *goal)
    });
}

/// Opens a session, sends one byte there and one back, and ends it cleanly.
pub(crate) fn whole_session(j: &mut Joined) {
    let slot = j.open();
    for from_gateway in [true, false] {
        carry(j, slot, from_gateway, 1);
    }
    let (g, a) = (j.g, j.a);
    for at in [g, a] {
        j.w.flow_mut(at, slot, |flow| flow.finish = true);
    }
    let ended = |w: &World, at| {
        w.has(
            at,
            |event| matches!(event, Event::SessionEnded { slot: of, .. } if *of == slot),
        )
    };
    wait(j, |w| ended(w, g) && ended(w, a));
    forget(j, slot);
}

/// Opens a session and leaves it open.
pub(crate) fn set_up(j: &mut Joined) {
    let slot = j.open();
    forget(j, slot);
}

/// What was said is of use only while it lasts, and looking for the next event would take longer each time.
fn forget(j: &mut Joined, slot: Slot) {
    for at in [j.g, j.a] {
        j.w.with(at, |peer| {
            peer.events.clear();
            peer.flows.remove(&slot);
        });
    }
}

fn ends(j: &Joined, from_gateway: bool) -> (At, At) {
    match from_gateway {
        true => (j.g, j.a),
        false => (j.a, j.g),
    }
}

fn wait(j: &mut Joined, done: impl Fn(&World) -> bool) {
    let came = j.w.run_until(Duration::from_secs(60), done);
    assert!(came, "it takes longer than a minute of virtual time");
}
