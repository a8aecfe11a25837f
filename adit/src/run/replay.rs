//! `replay`: does again what a journal's process did, and tells whether it comes to the same.

use std::{fs::File, io::BufReader, time::Instant};

use adit_io_common::journal::{Recorded, read};
use adit_proto_core::journal::{Fault, Line, Said, Summary, replay};
use serde::Serialize;

use super::Context;
use crate::{
    args::ReplayArgs,
    exit::{Code, CommandFailure},
    output::{printable, time_of_day, unix_ms},
};

/// What came of a replay.
#[derive(Debug, Serialize)]
struct Replayed {
    /// The version of adit that wrote the journal.
    version: String,
    /// `gateway` or `agent`.
    role: String,
    driver: String,
    /// Unix time in milliseconds from which `at_s` counts.
    begun_unix_ms: u64,
    /// The journal has its end.
    whole: bool,
    outputs: Vec<Output>,
    machines: Vec<Machine>,
    /// Hash over those of all machines.
    hash: String,
}

/// One output.
#[derive(Debug, Serialize)]
struct Output {
    /// Seconds after the journal began.
    at_s: f64,
    stream: u64,
    output: String,
}

#[derive(Debug, Serialize)]
struct Machine {
    stream: u64,
    /// Empty where its stream cannot be read.
    machine: String,
    calls: u64,
    outputs: u64,
    hash: String,
    /// Why it was not replayed to its end.
    fault: Option<String>,
}

pub(super) fn run(ctx: &Context<'_>, args: &ReplayArgs) -> Result<(), CommandFailure> {
    let failure = |error: &dyn std::fmt::Display| {
        let what = format!("journal {}: {error}", args.file.display());
        CommandFailure::message(Code::Failure, what)
    };
    let file = File::open(&args.file).map_err(|error| failure(&error))?;
    let recorded = read(&mut BufReader::new(file)).map_err(|error| failure(&error))?;
    let replayed = again(recorded);
    ctx.print(args.json.json, &replayed, |out| {
        let Replayed { version, role, driver, begun_unix_ms, .. } = &replayed;
        let begun = unix_ms(*begun_unix_ms);
        let [version, role, driver] = [version, role, driver].map(|word| printable(word));
        writeln!(out, "{role}, driver {driver}, adit {version}; from {begun}")?;
        for said in &replayed.outputs {
            let (at, stream, output) = (said.at_s, said.stream, printable(&said.output));
            let clock = time_of_day(*begun_unix_ms, at);
            writeln!(out, "{clock}  {at:+14.6} s  {stream:>4}  {output}")?;
        }
        for one in &replayed.machines {
            let Machine { stream, machine, calls, outputs, hash, .. } = one;
            match &one.fault {
                None => writeln!(out, "{stream:>4}  {machine}: {calls} calls, {outputs} outputs, the same again, {hash}")?,
                Some(fault) => writeln!(out, "{stream:>4}  {machine}: {fault}")?,
            }
        }
        if !replayed.whole {
            writeln!(out, "the journal has no end: it was full, the disk was too slow, or the process was killed")?;
        }
        writeln!(out, "outputs {}", replayed.hash)
    })?;
    let faulty = replayed.machines.iter().filter(|one| one.fault.is_some());
    match faulty.count() {
        0 => Ok(()),
        count => {
            let written = format!("{count} of {} machines", replayed.machines.len());
            let own = env!("CARGO_PKG_VERSION");
            let version = printable(&replayed.version);
            let what = format!(
                "{written} did not do the same again; adit {version} wrote it, this is {own}"
            );
            Err(failure(&what))
        }
    }
}

/// Gives each machine's records up once they are replayed.
fn again(recorded: Recorded) -> Replayed {
    let base = Instant::now();
    let mut outputs = Vec::new();
    let mut machines = Vec::new();
    let mut hash = blake3::Hasher::new();
    for (stream, records) in recorded.streams {
        let mut say = |line: Line| match line.said {
            Said::Output(output) => outputs.push((line.at, stream, output)),
            Said::Call(_) => {}
        };
        let done = replay(&records, base, &mut say);
        hash.update(done.as_ref().map_or(&[0; 32], |summary| &summary.hash));
        machines.push(Machine::of(stream, done));
    }
    // Stable: one stream's keep their order.
    outputs.sort_by_key(|(at, ..)| *at);
    let said = |(at, stream, output)| Output {
        at_s: seconds(at),
        stream,
        output,
    };
    Replayed {
        version: recorded.head.version,
        role: recorded.head.role,
        driver: recorded.head.driver,
        begun_unix_ms: recorded.head.begun_ms,
        whole: recorded.is_whole,
        outputs: outputs.into_iter().map(said).collect(),
        machines,
        hash: hash.finalize().to_hex().to_string(),
    }
}

impl Machine {
    fn of(stream: u64, done: Result<Summary, Fault>) -> Self {
        match done {
            Ok(summary) => Self {
                stream,
                machine: summary.machine,
                calls: summary.calls,
                outputs: summary.outputs,
                hash: blake3::Hash::from_bytes(summary.hash).to_hex().to_string(),
                fault: None,
            },
            Err(fault) => Self {
                stream,
                machine: "a machine".into(),
                calls: 0,
                outputs: 0,
                hash: String::new(),
                fault: Some(fault.to_string()),
            },
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "for the reader, who counts microseconds"
)]
fn seconds(nanoseconds: i64) -> f64 {
    nanoseconds as f64 / 1e9
}
