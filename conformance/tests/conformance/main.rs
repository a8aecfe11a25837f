//! Both drivers, and both pairings of one with the other, behave alike: the same scenarios lead to the same events, as
//! seen from outside.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests fail loudly too, and show what was seen"
)]

mod bed;
mod driver;

mod direct;
mod draining;
mod ends;
mod failover;
mod flood;
mod forwarding;
mod many;
mod peers;
mod pipes;
mod pressure;
mod rebinding;
mod renewal;
mod replica;
mod restarts;
mod set_up;
mod stopping;

use std::{
    panic::resume_unwind,
    sync::{PoisonError, RwLock},
    thread,
};

use self::{
    bed::{Bed, Seen},
    driver::Pairing,
};

/// A script, with assertions of its own.
type Scenario = fn(&mut Bed);

/// Has every pairing carry a scenario out, side by side, and compares what was seen.
fn conform(scenario: Scenario) {
    let _beside_others = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    let seen = thread::scope(|scope| {
        let begun = Pairing::ALL.map(|pairing| {
            let thread = thread::Builder::new().name(pairing.name());
            let run = thread.spawn_scoped(scope, move || carry_out(scenario, pairing));
            (pairing, run.unwrap())
        });
        let result = |run: thread::ScopedJoinHandle<'_, Seen>| match run.join() {
            Ok(seen) => seen,
            Err(panic) => resume_unwind(panic),
        };
        begun.map(|(pairing, run)| (pairing, result(run)))
    });
    compare(&seen);
}

/// The same one after the other, for what takes much of the machine.
fn conform_in_turn(scenario: Scenario) {
    let _beside_others = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    compare(&Pairing::ALL.map(|pairing| (pairing, carry_out(scenario, pairing))));
}

/// The same without other tests beside, for what takes all of it.
fn conform_alone(scenario: Scenario) {
    let _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    compare(&Pairing::ALL.map(|pairing| (pairing, carry_out(scenario, pairing))));
}

static MACHINE: RwLock<()> = RwLock::new(());

fn carry_out(scenario: Scenario, pairing: Pairing) -> Seen {
    let mut bed = Bed::new(pairing);
    scenario(&mut bed);
    bed.finish()
}

fn compare(seen: &[(Pairing, Seen); 4]) {
    let [(first, one), others @ ..] = seen;
    println!("{}", one.outside);
    for (pairing, other) in others {
        assert!(
            other.outside == one.outside,
            "{} differs from {}:\n{}\n--- {}:\n{}",
            pairing.name(),
            first.name(),
            other.outside,
            first.name(),
            one.outside,
        );
        let difference = one.sequences.difference(&other.sequences);
        assert!(
            difference.is_empty(),
            "{} (+) tells its connections something else than {} (-), or they say something else:\n{difference}",
            pairing.name(),
            first.name(),
        );
    }
}
