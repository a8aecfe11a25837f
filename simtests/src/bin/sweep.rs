//! Runs seeds of a world until one fails.
#![expect(
    clippy::print_stdout,
    reason = "the findings are this program's output"
)]

use std::{
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Instant,
};

use adit_simtests::{
    run::{Kind, catch_panics},
    seeds::{parse, regressions, replay_command},
};
use clap::Parser;

/// Runs seeds of a world; ends with the first one that breaks a property.
#[derive(Debug, Parser)]
struct Args {
    /// Whose world.
    #[arg(long, value_enum, default_value_t = Kind::Tunnel)]
    world: Kind,
    /// How many seeds.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Go on after a failure, and count.
    #[arg(long)]
    all: bool,
    /// The seeds that once showed a defect, instead.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    regressions: bool,
}

impl Args {
    fn list(&self) -> Result<Vec<u64>, String> {
        if self.regressions {
            let list = parse(regressions(self.world))?;
            return Ok(list.iter().map(|regression| regression.seed).collect());
        }
        let last = self.first.checked_add(self.seeds);
        let last = last.ok_or_else(|| "there are not that many seeds".to_owned())?;
        Ok((self.first..last).collect())
    }
}

fn main() -> Result<ExitCode, String> {
    let args = Args::parse();
    let seeds = args.list()?;
    // The findings are told in one line; a panic is one of them.
    catch_panics();
    let start = Instant::now();
    let (next, stop, failed) = (
        AtomicUsize::new(0),
        AtomicBool::new(false),
        AtomicUsize::new(0),
    );
    let slowest = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    let nth = next.fetch_add(1, Relaxed);
                    let Some(&seed) = seeds.get(nth) else {
                        return;
                    };
                    let outcome = args.world.run_seed(seed, false);
                    let talked_ms = u64::try_from(outcome.talked_after.as_millis());
                    slowest.fetch_max(talked_ms.unwrap_or(u64::MAX), Relaxed);
                    let Some(found) = outcome.violation else {
                        continue;
                    };
                    failed.fetch_add(1, Relaxed);
                    stop.fetch_or(!args.all, Relaxed);
                    println!(
                        "FAILED seed={seed} ran={} oracle={} at={:.6}: {}",
                        nth + 1,
                        found.oracle,
                        found.at.as_secs_f64(),
                        found.text
                    );
                    println!("replay: {}", replay_command(args.world, seed));
                }
            });
        }
    });
    let ran = next.load(Relaxed).min(seeds.len());
    let secs = start.elapsed().as_secs_f64();
    println!(
        "{ran} seeds in {secs:.1} s, {:.1} a second, {} failed",
        f64::from(u32::try_from(ran).unwrap_or(u32::MAX)) / secs,
        failed.load(Relaxed)
    );
    if args.world == Kind::Peers {
        println!(
            "two nodes talked again after {} ms at most",
            slowest.load(Relaxed)
        );
    }
    Ok(ExitCode::from(u8::from(failed.load(Relaxed) > 0)))
}
