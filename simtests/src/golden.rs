//! Hashes of a few runs, pinned: a change of behaviour or of the wire that nobody meant is seen, whichever crate it
//! comes from.

use std::fmt::Write as _;

use crate::{
    choices::Choices,
    crypto::Suite,
    peers,
    plan::Plan,
    run::{Outcome, run_seed},
    scenario,
};

/// A kind of run, of which one is pinned.
struct Kind {
    name: &'static str,
    fits: fn(&Plan) -> bool,
}

const KINDS: [Kind; 5] = [
    Kind {
        name: "small",
        fits: |plan| plan.agents.len() == 1 && plan.script.len() <= 3,
    },
    Kind {
        name: "ecdsa",
        fits: |plan| plan.suite == Suite::Ecdsa,
    },
    Kind {
        name: "hybrid",
        fits: |plan| plan.suite == Suite::Hybrid,
    },
    Kind {
        name: "gateways",
        fits: |plan| plan.gateways.len() == 3 && plan.agents.len() >= 3,
    },
    Kind {
        name: "sessions",
        fits: |plan| plan.script.len() >= 80,
    },
];

/// Gives each kind of run, small and large, of each cryptographic suite, with one gateway and with several, and a seed
/// that draws it: the lowest that draws no kind before it.
///
/// # Panics
/// Where the scenario draws a kind no more.
#[must_use]
pub fn seeds() -> Vec<(&'static str, u64)> {
    let mut found = Vec::new();
    let mut open: Vec<Kind> = KINDS.into();
    for seed in 0..SEEDS_MAX {
        let plan = scenario::draw(&mut Choices::from_seed(seed));
        if let Some(nth) = open.iter().position(|kind| (kind.fits)(&plan)) {
            found.push((open.remove(nth).name, seed));
        }
        if open.is_empty() {
            return found;
        }
    }
    let missing: Vec<&str> = open.iter().map(|kind| kind.name).collect();
    panic!("no seed below {SEEDS_MAX} draws: {}", missing.join(", "));
}

const SEEDS_MAX: u64 = 2_000;

/// Runs a seed of each kind; gives the text of `golden/hashes.txt`.
#[must_use]
pub fn text() -> String {
    let mut text = HEAD.to_owned();
    for (name, seed) in seeds() {
        write(&mut text, name, seed, &run_seed(seed, false));
    }
    for seed in PEER_SEEDS {
        write(&mut text, "peers", seed, &peers::run_seed(seed, false));
    }
    text
}

fn write(text: &mut String, name: &str, seed: u64, outcome: &Outcome) {
    let hashes = &outcome.hashes;
    // Writing to a String cannot fail.
    let _infallible = writeln!(
        text,
        "{name}: seed {seed}, {} facts\n  bytes {}\n  shape {}",
        hashes.records, hashes.bytes, hashes.shape
    );
}

/// Runs of the peers' world that are pinned.
pub const PEER_SEEDS: [u64; 3] = [0, 1, 2];

/// Where the text lies.
pub const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/hashes.txt");

/// What writes it again.
pub const REWRITE: &str = "cargo run --profile sim -p adit-simtests --bin golden";

const HEAD: &str = "\
# What a few runs add up to. The scenario, the core, the QUIC engine, rustls and the simulator itself may all change it.
# To be written again on purpose only: cargo run --profile sim -p adit-simtests --bin golden
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_says_what_writes_the_file_again() {
        assert!(HEAD.contains(REWRITE));
    }
}
