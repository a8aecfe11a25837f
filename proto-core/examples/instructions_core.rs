//! Carries so many sessions or MiB through the core, in memory, for `bench/instructions.py` to count what each costs.
//!
//! ```text
//! instructions_core sessions|mib COUNT
//! ```
#![expect(
    clippy::wildcard_enum_match_arm,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests may fail the test"
)]

#[expect(dead_code, reason = "the benchmarks use the rest")]
#[path = "../benches/pair/mod.rs"]
mod pair;

use std::{env, error::Error};

use crate::pair::{carry, joined, whole_session};

const MIB: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [what, count] = args.as_slice() else {
        return Err("instructions_core sessions|mib COUNT".into());
    };
    let count: u64 = count.parse()?;
    let mut j = joined();
    match what.as_str() {
        "sessions" => (0..count).for_each(|_| whole_session(&mut j)),
        "mib" => {
            let slot = j.open();
            // There and back in turns.
            (0..count).for_each(|n| carry(&mut j, slot, n % 2 == 0, MIB));
        }
        other => return Err(format!("{other} is neither sessions nor mib").into()),
    }
    Ok(())
}
