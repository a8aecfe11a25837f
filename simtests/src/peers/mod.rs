//! Gateways among themselves: calls over QUIC and handshakes of replicas, with an adversary who has certificates and keys.
//!
//! The tunnel's world is [`crate::world`]. This one shares its network, its clocks, its certificates and its trace; what is
//! judged has judges of its own.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a few facts are looked at, of many"
)]

mod bare;
mod client;
mod cluster;
mod compromised;
mod facts;
mod link;
mod log;
mod member;
mod oracle;
mod process;
mod replica;
mod script;
mod strike;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use self::{
    facts::{Executed, Fact, Holder, Made, Serial},
    replica::{Carried, Linked},
};
use self::{log::Log, world::World};
use crate::{
    At,
    choices::Choices,
    oracle::Violation,
    run::{Outcome, panic_text},
    trace::Trace,
};

/// Runs a seed.
#[must_use]
pub fn run_seed(seed: u64, lines: bool) -> Outcome {
    run(Choices::from_seed(seed), lines)
}

/// Runs what the choices lead to.
#[must_use]
pub fn run(mut choices: Choices, lines: bool) -> Outcome {
    let plan = script::draw(&mut choices);
    let trace = if lines {
        Trace::with_lines(0)
    } else {
        Trace::default()
    };
    let mut replicas = choices.fork("replicas");
    let mut world = match World::new(plan, &mut choices, Log::new(trace)) {
        Ok(world) => world,
        Err(error) => return failed(&error.to_string()),
    };
    let mut over_at = At::ZERO;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        world.run();
        over_at = world.at();
        if world.log.violation.is_none() {
            over_at = replica::run(&mut replicas, &mut world.log, over_at);
        }
    }))
    .err()
    .map(|payload| Violation {
        oracle: "panic",
        at: world.at(),
        text: panic_text(&*payload),
    });
    let mut log = world.log;
    Outcome {
        hashes: log.trace.hashes(),
        at: over_at,
        violation: panicked.or(log.violation),
        lines: log.trace.take_lines(),
        talked_after: log.talked_after,
    }
}

fn failed(text: &str) -> Outcome {
    Outcome {
        hashes: Trace::default().hashes(),
        at: At::ZERO,
        violation: Some(Violation {
            oracle: "panic",
            at: At::ZERO,
            text: text.to_owned(),
        }),
        lines: Vec::new(),
        talked_after: At::ZERO,
    }
}
