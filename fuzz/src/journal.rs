//! Journals: whatever the records are, a replay comes to an end, and says no more than they do.

use std::sync::LazyLock;

use adit_proto_core::journal::{Said, replay};
use adit_simtests::recorded::record;

use crate::input::{Input, start};

/// The first byte says whose records it is about; then places in two bytes, each with the byte that stands there. With
/// [`WHOLE`] in front the rest is the records.
pub fn journal(data: &[u8]) {
    if let Some(records) = data.strip_prefix(&[WHOLE]) {
        return check(records);
    }
    let mut input = Input::new(data);
    let mut records = GOOD[usize::from(input.byte()) % GOOD.len()].clone();
    for patch in input.rest().chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([patch[0], patch[1]])) % records.len();
        records[at] = patch[2];
    }
    check(&records);
}

fn check(records: &[u8]) {
    let (mut calls, mut said) = (0, 0);
    let done = replay(records, start(), &mut |line| match line.said {
        Said::Call(_) => calls += 1,
        Said::Output(_) => said += 1,
    });
    // An output is a record of nine bytes.
    assert!(said <= records.len() / 9);
    if let Ok(summary) = done {
        assert_eq!((summary.calls, summary.outputs), (calls, said as u64));
    }
}

/// What the machines of some runs took down, the first bytes of each.
static GOOD: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let streams = SEEDS
        .into_iter()
        .flat_map(|seed| record(seed).1.into_values());
    let cut = streams.map(|mut records| {
        records.truncate(1 << 13);
        records
    });
    cut.collect()
});

/// Small runs.
const SEEDS: [u64; 2] = [0, 1];
const WHOLE: u8 = 0xff;
