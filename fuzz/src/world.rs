//! The whole simulation, with the fuzzer's bytes in the place of a seed.

use adit_simtests::{choices::Choices, run::run};

/// No oracle objects, whatever topology, load and faults the bytes lead to. `replay --bytes FILE --trace` of the
/// simulator shows what happened.
///
/// # Panics
/// Where one does.
pub fn world(data: &[u8]) {
    let outcome = run(Choices::from_bytes(data), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
}
