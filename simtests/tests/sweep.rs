//! Fresh seeds, and those that once showed a defect: every property must hold in each.
//!
//! `ADIT_SEEDS` says how many fresh ones and `ADIT_FIRST_SEED` which is the first; the `sweep` program does the same
//! for thousands, optimised.

use std::{
    env,
    panic::resume_unwind,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

use adit_simtests::{
    run::Kind,
    seeds::{parse, regressions, replay_command},
};

#[test]
fn every_property_holds_for_fresh_seeds() {
    let first = number("ADIT_FIRST_SEED", 0);
    let seeds: Vec<u64> = (first..first + number("ADIT_SEEDS", 40)).collect();
    for world in WORLDS {
        let failures = failures(world, &seeds);
        assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    }
}

#[test]
fn every_property_holds_for_the_seeds_that_once_showed_a_defect() {
    for world in WORLDS {
        let list = parse(regressions(world)).unwrap();
        let seeds: Vec<u64> = list.iter().map(|regression| regression.seed).collect();
        let failures = failures(world, &seeds);
        assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    }
}

const WORLDS: [Kind; 2] = [Kind::Tunnel, Kind::Peers];

/// Runs the seeds on two threads; tells of each that fails how, and how to see it.
fn failures(world: Kind, seeds: &[u64]) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failures = Vec::new();
        while let Some(&seed) = seeds.get(next.fetch_add(1, Relaxed)) {
            failures.extend(failure(world, seed));
        }
        failures
    };
    thread::scope(|scope| {
        let other = scope.spawn(work);
        let mut failures = work();
        failures.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        failures
    })
}

fn failure(world: Kind, seed: u64) -> Option<String> {
    let found = world.run_seed(seed, false).violation?;
    Some(format!(
        "seed {seed}: {} at {:.6}: {}\n    {}",
        found.oracle,
        found.at.as_secs_f64(),
        found.text,
        replay_command(world, seed)
    ))
}

fn number(name: &str, usual: u64) -> u64 {
    match env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => usual,
    }
}
