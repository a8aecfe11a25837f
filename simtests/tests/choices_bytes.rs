//! Runs from a fuzzer's bytes: whatever they are, a run comes to its end, holds every property, and runs again alike.

use adit_simtests::{
    choices::Choices,
    run::{Outcome, run},
};

#[test]
fn no_bytes_make_a_small_run() {
    let empty = run_twice(&[]);
    assert!(empty.hashes.records > 100);
    // What comes after the last byte is zero.
    assert_eq!(run_twice(&[0; 40]).hashes, empty.hashes);
}

#[test]
fn short_inputs_run_to_their_end() {
    for byte in [1, 0x7f, 0x80, 0xff] {
        for len in [1, 3, 10] {
            run_twice(&vec![byte; len]);
        }
    }
}

#[test]
fn long_inputs_run_to_their_end() {
    let mut choices = Choices::from_seed(7);
    for _ in 0..6 {
        let bytes: Vec<u8> = (0..7).flat_map(|_| choices.key()).take(200).collect();
        run_twice(&bytes);
    }
}

fn run_twice(bytes: &[u8]) -> Outcome {
    let once = run(Choices::from_bytes(bytes), false);
    let again = run(Choices::from_bytes(bytes), false);
    assert_eq!(once.hashes, again.hashes, "{bytes:?}");
    assert_eq!(once.at, again.at, "{bytes:?}");
    assert_eq!(once.violation, None, "{bytes:?}");
    once
}
