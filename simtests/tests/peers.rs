//! The peers' world: a seed is a run, and short inputs of a fuzzer run to their end.

use std::{process::Command, thread};

use adit_simtests::{
    choices::Choices,
    golden::PEER_SEEDS,
    peers::{run, run_seed},
};

#[test]
fn a_seed_runs_alike_on_two_threads_at_once_and_with_lines() {
    for seed in PEER_SEEDS {
        let (one, other, lines) = thread::scope(|scope| {
            let other = scope.spawn(move || run_seed(seed, false).hashes);
            let one = run_seed(seed, false).hashes;
            let lines = run_seed(seed, true);
            (one, other.join().unwrap(), lines)
        });
        assert!(one.records > 1_000, "nothing happens in seed {seed}");
        assert_eq!(one, other, "seed {seed} on another thread");
        assert_eq!(one, lines.hashes, "seed {seed} with lines");
        assert_eq!(lines.lines.len() as u64, one.records);
    }
}

#[test]
fn a_seed_runs_alike_in_another_process() {
    for seed in PEER_SEEDS {
        let mut command = Command::new(env!("CARGO_BIN_EXE_replay"));
        let output = command.args(["--world", "peers", &seed.to_string()]);
        let text = String::from_utf8(output.output().unwrap().stdout).unwrap();
        let wanted = run_seed(seed, false).hashes;
        let wanted = format!("bytes {}\nshape {}\n", wanted.bytes, wanted.shape);
        assert!(text.starts_with(&wanted), "seed {seed}: {text}");
    }
}

#[test]
fn short_inputs_run_to_their_end() {
    for bytes in [&[][..], &[1], &[0x7f; 10], &[0xff; 30]] {
        let outcome = run(Choices::from_bytes(bytes), false);
        assert_eq!(outcome.violation, None, "{bytes:?}");
    }
}
