//! Runs one seed again, and shows what happened.
#![forbid(unsafe_code)]

use std::{
    io::{self, BufWriter, Write},
    process::ExitCode,
};

use adit_simtests::{
    run::{Outcome, run_seed},
    trace::{Line, Topic},
};
use clap::{Parser, ValueEnum};

/// Runs one seed of the default scenario.
#[derive(Debug, Parser)]
struct Args {
    /// The seed.
    seed: u64,
    /// Show every fact as a line, without deadlines unless they are asked for.
    #[arg(long)]
    trace: bool,
    /// Only what happened at these nodes: gw0, agent3; n5 is the node with this number, gateways first.
    #[arg(long, value_name = "NODE", value_delimiter = ',', requires = "trace")]
    node: Vec<String>,
    /// Only what is about this.
    #[arg(long, value_delimiter = ',', requires = "trace")]
    only: Vec<About>,
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum About {
    /// Connections, routes, registries.
    Events,
    /// Datagrams.
    Network,
    /// Wishes, attempts, dials, programs and their bytes.
    Sessions,
    /// The script, and processes that begin and end.
    Faults,
    /// Deadlines, after each poll.
    Waits,
}

impl From<Topic> for About {
    fn from(topic: Topic) -> Self {
        match topic {
            Topic::Events => Self::Events,
            Topic::Network => Self::Network,
            Topic::Sessions => Self::Sessions,
            Topic::Faults => Self::Faults,
            Topic::Waits => Self::Waits,
        }
    }
}

impl Args {
    fn shows(&self, line: &Line) -> bool {
        let number = line.node.to_string();
        let is_named = |node: &String| *node == line.name || *node == number;
        let about = line.topic.into();
        let wanted = match self.only.is_empty() {
            true => about != About::Waits,
            false => self.only.contains(&about),
        };
        wanted && (self.node.is_empty() || self.node.iter().any(is_named))
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = run_seed(args.seed, args.trace);
    // Whoever reads may have seen enough.
    match show(&args, &outcome, &mut BufWriter::new(io::stdout().lock())) {
        Ok(()) if outcome.violation.is_none() => ExitCode::SUCCESS,
        Ok(()) | Err(_) => ExitCode::FAILURE,
    }
}

fn show(args: &Args, outcome: &Outcome, out: &mut impl Write) -> io::Result<()> {
    for line in outcome.lines.iter().filter(|line| args.shows(line)) {
        writeln!(out, "{line}")?;
    }
    let (hashes, secs) = (&outcome.hashes, outcome.at.as_secs_f64());
    writeln!(out, "bytes {}\nshape {}", hashes.bytes, hashes.shape)?;
    writeln!(out, "{} facts, {secs:.3} virtual seconds", hashes.records)?;
    if let Some(found) = &outcome.violation {
        let (oracle, at) = (found.oracle, found.at.as_secs_f64());
        writeln!(out, "FAILED oracle={oracle} at={at:.6}: {}", found.text)?;
    }
    out.flush()
}
