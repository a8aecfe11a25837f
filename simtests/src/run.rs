//! One run from a seed or from a fuzzer's bytes, to its verdict.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use adit_proto_core::journal::Sink;
use clap::ValueEnum;

use crate::{
    At,
    choices::Choices,
    log::Log,
    oracle::{Oracles, Violation},
    peers, scenario,
    trace::{Hashes, Line, Trace},
    world::World,
};

/// A world that a seed may be run in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Gateways and agents.
    #[default]
    Tunnel,
    /// Gateways among themselves.
    Peers,
}

impl Kind {
    /// Runs a seed.
    #[must_use]
    pub fn run_seed(self, seed: u64, lines: bool) -> Outcome {
        self.run(Choices::from_seed(seed), lines)
    }

    /// Runs what the choices lead to.
    #[must_use]
    pub fn run(self, choices: Choices, lines: bool) -> Outcome {
        match self {
            Self::Tunnel => run(choices, lines),
            Self::Peers => peers::run(choices, lines),
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Hashes of everything that happened.
    pub hashes: Hashes,
    /// Virtual time at the end.
    pub at: At,
    /// The first property that did not hold.
    pub violation: Option<Violation>,
    /// Every fact as a line, where wanted.
    pub lines: Vec<Line>,
    /// Among peers: the longest time until two that nothing disturbed talked again.
    pub talked_after: At,
}

/// Runs a seed of the default scenario.
#[must_use]
pub fn run_seed(seed: u64, lines: bool) -> Outcome {
    run(Choices::from_seed(seed), lines)
}

/// Runs what the choices lead to.
#[must_use]
pub fn run(choices: Choices, lines: bool) -> Outcome {
    run_all(choices, lines, None)
}

/// Runs what the choices lead to, and has the core take a journal of it.
#[must_use]
pub fn run_recorded(choices: Choices, journal: Arc<dyn Sink>) -> Outcome {
    run_all(choices, false, Some(journal))
}

fn run_all(mut choices: Choices, lines: bool, journal: Option<Arc<dyn Sink>>) -> Outcome {
    let plan = scenario::draw(&mut choices);
    let trace = if lines {
        Trace::with_lines(plan.gateways.len())
    } else {
        Trace::default()
    };
    let mut log = Log::new(trace, Oracles::default());
    log.journal = journal;
    let mut world = World::new(plan, &mut choices, log);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        world.run();
    }))
    .err()
    .map(|payload| Violation {
        oracle: "panic",
        at: world.at(),
        text: panic_text(&*payload),
    });
    Outcome {
        hashes: world.log.trace.hashes(),
        at: world.at(),
        violation: panicked.or_else(|| world.violation().cloned()),
        lines: world.log.trace.take_lines(),
        talked_after: At::ZERO,
    }
}

/// Keeps panics from the terminal, as they are findings, and remembers where they were.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string);
        PANIC_PLACE.with(|kept| kept.replace(place));
    }));
}

thread_local! {
    /// Where this thread panicked last, where that was watched.
    static PANIC_PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "a panic without words".to_owned());
    match PANIC_PLACE.with(RefCell::take) {
        Some(place) => format!("{text}, at {place}"),
        None => text,
    }
}
