//! Runs one seed, or one input of a fuzzer, again, and shows what happened.
#![forbid(unsafe_code)]

use std::{
    fs,
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use adit_simtests::{
    choices::Choices,
    run::{Kind, Outcome, catch_panics},
    trace::{Line, Topic},
};
use clap::{Parser, ValueEnum};

/// Runs one seed, or one input of a fuzzer.
#[derive(Debug, Parser)]
struct Args {
    /// Whose world.
    #[arg(long, value_enum, default_value_t = Kind::Tunnel)]
    world: Kind,
    /// The seed.
    #[arg(required_unless_present = "bytes")]
    seed: Option<u64>,
    /// A fuzzer's input for `world`, instead.
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    bytes: Option<PathBuf>,
    /// Show every fact as a line, without deadlines unless they are asked for.
    #[arg(long)]
    trace: bool,
    /// Only what happened at these nodes: gw0, agent3, among peers n2; of the tunnel's n5 is the node with this number, gateways first.
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

fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    catch_panics();
    let choices = match &args.bytes {
        Some(path) => Choices::from_bytes(&fs::read(path)?),
        None => Choices::from_seed(args.seed.unwrap_or_default()),
    };
    let outcome = args.world.run(choices, args.trace);
    // Whoever reads may have seen enough.
    match show(&args, &outcome, &mut BufWriter::new(io::stdout().lock())) {
        Ok(()) if outcome.violation.is_none() => Ok(ExitCode::SUCCESS),
        Ok(()) | Err(_) => Ok(ExitCode::FAILURE),
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
