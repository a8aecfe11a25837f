//! What the core takes down of a run is enough to do it again, and taking it down changes nothing.

use std::{env, thread};

use adit_simtests::{recorded::run_twice, run::run_seed};

#[test]
fn every_machine_of_a_run_does_the_same_again() {
    let count = env::var("ADIT_SEEDS").map_or(12, |text| text.parse().unwrap());
    thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || {
                for seed in (0..count).filter(|seed| seed % 2 == half) {
                    let replayed = run_twice(seed);
                    assert!(replayed.faults.is_empty(), "seed {seed}: {replayed:#?}");
                    assert!(
                        replayed.same > 2,
                        "seed {seed} has a supervisor, a dispatch and a connection"
                    );
                    let alone = run_seed(seed, false).hashes;
                    assert_eq!(replayed.outcome.hashes, alone, "seed {seed}");
                }
            });
        }
    });
}
