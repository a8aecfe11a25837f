//! Measures how long failover, reconnecting and session set-up take, and a storm of agents.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the report is this program's output"
)]

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use adit_simtests::{
    experiment::{
        Experiment, Taken,
        bars::{self, Bar},
        durations::Durations,
        plot, storm,
        table::{self, Row},
    },
    oracle::Violation,
};
use clap::Parser;

/// Measures in virtual time; ends at the first seed that breaks a property.
#[derive(Debug, Parser)]
struct Args {
    /// Seeds of each kind.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Only kinds whose group or name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Agents of the storm; 0 leaves it out.
    #[arg(long, default_value_t = 10_000)]
    storm: usize,
    /// Write JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Draw the distributions to this file.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Draw them to the file of the documentation.
    #[arg(long)]
    write: bool,
    /// Fail where a time exceeds what is promised: see docs/simulation.md.
    #[arg(long)]
    check: bool,
    /// Show what happens in the first seed of each kind that was asked for, and measure nothing else.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    match report(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn report(args: &Args) -> Result<(), String> {
    let start = Instant::now();
    let mut rows = Vec::new();
    let wanted = |e: &Experiment| e.group().contains(&args.only) || e.name().contains(&args.only);
    for experiment in Experiment::all().filter(wanted) {
        if args.trace {
            show(experiment, args.first);
            continue;
        }
        rows.extend(measure(args, experiment)?);
    }
    if args.trace {
        return Ok(());
    }
    if args.storm > 0 && "storm".contains(&args.only) {
        rows.extend(measure_storm(args)?);
    }
    // Rows of one question stand together.
    let mut questions: Vec<(&str, &str)> = Vec::new();
    for row in &rows {
        if !questions.contains(&(row.group, row.what)) {
            questions.push((row.group, row.what));
        }
    }
    rows.sort_by_key(|row| questions.iter().position(|q| *q == (row.group, row.what)));
    if args.json {
        print!("{}", table::json(&rows));
    } else {
        print!("{}", table::text(&rows));
    }
    let drawn = args.write.then(|| PathBuf::from("docs/simulation.svg"));
    for path in args.svg.iter().chain(&drawn) {
        std::fs::write(path, plot::svg(&rows)).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    eprintln!("{:.0} s in all", start.elapsed().as_secs_f64());
    if args.check {
        let held = bars::check(&rows)?;
        eprintln!("{held} rows are within their bars");
    }
    Ok(())
}

fn show(experiment: Experiment, seed: u64) {
    println!("{}, {}, seed {seed}", experiment.group(), experiment.name());
    let measured = experiment.measure(seed, true);
    for line in &measured.lines {
        println!("{line}");
    }
    println!("{:?}", measured.taken);
}

/// Runs all seeds of a kind.
fn measure(args: &Args, experiment: Experiment) -> Result<Vec<Row>, String> {
    let start = Instant::now();
    let next = AtomicU64::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(|| {
                loop {
                    let nth = next.fetch_add(1, Relaxed);
                    if nth >= args.seeds {
                        return;
                    }
                    let seed = args.first + nth;
                    let measured = experiment.measure(seed, false).taken;
                    if measured.is_err() {
                        next.store(args.seeds, Relaxed);
                    }
                    // A thread that panicked has nothing half done here.
                    let mut results = results.lock().unwrap_or_else(|e| e.into_inner());
                    results.push((seed, measured));
                }
            });
        }
    });
    let name = experiment.name();
    eprintln!(
        "{}, {name}: {:.1} s",
        experiment.group(),
        start.elapsed().as_secs_f64()
    );
    let mut results = results.into_inner().unwrap_or_else(|e| e.into_inner());
    results.sort_by_key(|(seed, _)| *seed);
    let mut rows: Vec<Row> = Vec::new();
    for (seed, measured) in results {
        let taken = measured.map_err(|found| {
            let what = describe(&format!("{name} seed={seed}"), &found);
            format!("{what}\nreplay: {REPORT} --only '{name}' --first {seed} --trace")
        })?;
        for Taken { what, times } in taken {
            let place = rows.iter().position(|row| row.what == what);
            let place = place.unwrap_or_else(|| {
                let bar = Bar::of(experiment);
                rows.push(row(experiment.group(), name, what, bar));
                rows.len() - 1
            });
            for took in times {
                rows[place].durations.push(seed, took);
            }
        }
    }
    Ok(rows)
}

fn measure_storm(args: &Args) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for away in [Duration::from_millis(500), Duration::from_secs(10)] {
        let start = Instant::now();
        let seed = args.first;
        let kind = format!("{} agents, {} s away", args.storm, away.as_secs_f64());
        let storm = storm::measure(seed, args.storm, away)
            .map_err(|found| describe(&format!("storm seed={seed}"), &found))?;
        eprintln!(
            "storm, {kind}: {:.1} s for {:.1} virtual seconds and {} facts, at most {} in memory",
            start.elapsed().as_secs_f64(),
            storm.at.as_secs_f64(),
            storm.facts,
            memory(),
        );
        for (what, times) in [
            ("first start to routes", storm.first),
            ("return of the gateway to routes", storm.back),
        ] {
            let mut row = row("storm", &kind, what, Some(bars::STORM));
            for took in times {
                row.durations.push(seed, took);
            }
            rows.push(row);
        }
    }
    Ok(rows)
}

fn row(group: &'static str, kind: &str, what: &'static str, bar: Option<Bar>) -> Row {
    Row {
        group,
        kind: kind.to_owned(),
        what,
        bar,
        durations: Durations::default(),
    }
}

/// How this program is run.
const REPORT: &str = "cargo run --release -p adit-simtests --bin report --";

fn describe(what: &str, found: &Violation) -> String {
    let at = found.at.as_secs_f64();
    format!(
        "FAILED {what} oracle={} at={at:.6}: {}",
        found.oracle, found.text
    )
}

/// The most memory that this process has had, where the system tells.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    most.map_or_else(|| "unknown".into(), |most| most.trim().into())
}
