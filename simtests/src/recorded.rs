//! Runs of which the core takes a journal, and that are done once more from it (design 8.17).

use std::{
    collections::BTreeMap,
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use adit_proto_core::journal::{Sink, replay};

use crate::{
    choices::Choices,
    run::{Outcome, run_recorded},
    world::base,
};

/// Keeps what the machines of a run take down.
#[derive(Debug, Default)]
pub struct Kept {
    streams: Mutex<BTreeMap<u64, Vec<u8>>>,
    next: AtomicU64,
}

impl Sink for Kept {
    fn begin(&self) -> u64 {
        self.next.fetch_add(1, Relaxed)
    }

    fn take(&self, stream: u64, records: &[u8]) -> bool {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams
            .entry(stream)
            .or_default()
            .extend_from_slice(records);
        true
    }
}

/// What came of a run and of its replay.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// How the run ended.
    pub outcome: Outcome,
    /// Machines that did the same again.
    pub same: usize,
    /// What the others did, in words.
    pub faults: Vec<String>,
}

/// Runs a seed; gives how it ended and what each machine took down.
#[must_use]
pub fn record(seed: u64) -> (Outcome, BTreeMap<u64, Vec<u8>>) {
    let kept = Arc::<Kept>::default();
    let sink = Arc::clone(&kept) as Arc<dyn Sink>;
    let outcome = run_recorded(Choices::from_seed(seed), sink);
    let mut streams = kept.streams.lock().unwrap_or_else(PoisonError::into_inner);
    (outcome, mem::take(&mut streams))
}

/// Runs a seed, and then each of its machines from what it took down.
#[must_use]
pub fn run_twice(seed: u64) -> Replayed {
    let (outcome, streams) = record(seed);
    let mut replayed = Replayed {
        outcome,
        same: 0,
        faults: Vec::new(),
    };
    let base = base();
    for (stream, records) in streams {
        match replay(&records, base, &mut |_| {}) {
            Ok(_) => replayed.same += 1,
            Err(fault) => replayed.faults.push(format!("stream {stream}: {fault}")),
        }
    }
    replayed
}
