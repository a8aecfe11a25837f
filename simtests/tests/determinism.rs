//! A seed is a run: the same bytes at the same times, wherever and whenever it runs, whoever watches.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use adit_simtests::{golden, run::run_seed, trace::Hashes};

fn seeds() -> Vec<u64> {
    golden::seeds().into_iter().map(|(_, seed)| seed).collect()
}

fn hashes(seed: u64) -> Hashes {
    run_seed(seed, false).hashes
}

#[test]
fn a_seed_runs_alike_on_two_threads_at_once_and_with_lines() {
    for seed in seeds() {
        let (one, other, lines) = thread::scope(|scope| {
            let other = scope.spawn(move || hashes(seed));
            let one = hashes(seed);
            let lines = run_seed(seed, true);
            (one, other.join().unwrap(), lines)
        });
        assert!(one.records > 50, "nothing happens in seed {seed}");
        assert_eq!(one, other, "seed {seed} on another thread");
        assert_eq!(one, lines.hashes, "seed {seed} with lines");
        assert_eq!(lines.lines.len() as u64, one.records);
    }
}

#[test]
fn runs_leave_nothing_behind_for_the_next_on_their_thread() {
    let seeds = seeds();
    let alone: Vec<Hashes> = seeds.iter().map(|seed| hashes(*seed)).collect();
    let back: Vec<Hashes> = seeds.iter().rev().map(|seed| hashes(*seed)).collect();
    assert!(alone.iter().eq(back.iter().rev()));
    for (nth, hashes) in alone.iter().enumerate() {
        assert!(!alone[..nth].contains(hashes), "two seeds are the same run");
    }
}

#[test]
fn a_seed_runs_alike_in_another_process() {
    for seed in seeds() {
        let mut command = Command::new(env!("CARGO_BIN_EXE_replay"));
        let output = command.arg(seed.to_string()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let wanted = hashes(seed);
        let wanted = format!("bytes {}\nshape {}\n", wanted.bytes, wanted.shape);
        assert!(
            text.starts_with(&wanted),
            "seed {seed}: {text} is not {wanted}"
        );
    }
}

#[test]
fn a_seed_runs_alike_in_the_next_second() {
    let seeds = seeds();
    let unix_secs = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs()
    };
    let run = || seeds.iter().map(|seed| hashes(*seed)).collect::<Vec<_>>();
    let before = run();
    let (second, begun) = (unix_secs(), Instant::now());
    while unix_secs() == second {
        assert!(
            begun.elapsed() < Duration::from_millis(1_100),
            "the clock stands still"
        );
        std::hint::spin_loop();
    }
    assert_eq!(run(), before);
}

#[test]
fn the_pinned_runs_are_what_they_were() {
    let pinned = std::fs::read_to_string(golden::PATH).unwrap();
    let actual = golden::text();
    assert!(
        actual == pinned,
        "runs have changed. Where this is meant, write them again and say why in the commit:\n    {}\n\n{actual}",
        golden::REWRITE
    );
}
