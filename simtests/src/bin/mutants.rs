//! Shows that the oracles have teeth: puts deliberate faults into a copy of the core, one by one, and sweeps each.
//!
//! The copy lies in `target/mutants` and is kept between runs, so that only what differs is built again.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command: the table goes to stdout, progress to stderr"
)]

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use adit_simtests::{
    mutants::{BEGIN, END, Mutant, Verdict, replace_between, table},
    run::Kind,
};
use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

/// Puts deliberate faults into a copy of the core, one by one; the simulation must find each.
#[derive(Debug, Parser)]
struct Args {
    /// Only these faults, named as their patches, with or without the number.
    #[arg(long, num_args = 1.., value_name = "NAME", conflicts_with = "write")]
    only: Vec<String>,
    /// Seeds within which each fault must be found.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// Seeds for which the core without a fault must be clean; 0 leaves this out.
    #[arg(long, default_value_t = 200)]
    baseline_seeds: u64,
    /// Passed on to cargo and to the sweep.
    #[arg(long)]
    jobs: Option<u32>,
    /// Minutes for one sweep.
    #[arg(long, default_value_t = 10, value_name = "MINUTES")]
    limit: u64,
    /// Puts the table between the markers of this document.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(path) = &args.write {
        // Not only after an hour of sweeps.
        write_table(path, None)?;
    }
    let patches = patches(&args.only)?;
    let bench = Bench::prepare(&args)?;
    for (patch, _) in &patches {
        bench.apply(patch, &["--check"])?;
    }
    if args.baseline_seeds > 0 {
        bench.build()?;
        for world in [Kind::Tunnel, Kind::Peers] {
            if patches.iter().any(|(_, mutant)| mutant.world == world) {
                bench.expect_clean(world, args.baseline_seeds)?;
            }
        }
    }
    let mut results = Vec::new();
    for (patch, mutant) in patches {
        let verdict = bench.try_mutant(&patch, mutant.world, args.seeds);
        let verdict = verdict.with_context(|| mutant.name.clone())?;
        match &verdict {
            Verdict::Found(failure) => eprintln!(
                "{}: {} at seed {}, {}",
                mutant.name, failure.oracle, failure.seed, failure.rest
            ),
            Verdict::Clean => eprintln!("{}: NOT FOUND in {} seeds", mutant.name, args.seeds),
            Verdict::Unclear(why) => eprintln!("{}: NOT FOUND, {why}", mutant.name),
        }
        results.push((mutant, verdict));
    }
    let table = table(&results);
    print!("{table}");
    if let Some(path) = &args.write {
        write_table(path, Some(&table))?;
    }
    let is_found = |(_, verdict): &&(Mutant, Verdict)| matches!(verdict, Verdict::Found(_));
    let found = results.iter().filter(is_found).count();
    eprintln!("{found} of {} faults were found", results.len());
    Ok(if found == results.len() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The copy of the tree in which the faults are tried.
struct Bench {
    tree: PathBuf,
    target: PathBuf,
    jobs: Option<u32>,
    limit: Duration,
}

impl Bench {
    /// Makes the copy, or makes an earlier one equal to the checkout again.
    fn prepare(args: &Args) -> Result<Self> {
        let root = root()?;
        let base = root.join("target/mutants");
        let bench = Self {
            tree: base.join("tree"),
            target: base.join("target"),
            jobs: args.jobs,
            limit: Duration::from_secs(60 * args.limit),
        };
        fs::create_dir_all(&bench.tree)?;
        let mut listing = Command::new("git");
        listing.args(["ls-files", "-z", "-co", "--exclude-standard"]);
        let listing = listing.current_dir(&root).output().context("git")?;
        ensure!(listing.status.success(), "git cannot list the checkout");
        let mut wanted = BTreeSet::new();
        for name in String::from_utf8(listing.stdout)?.split_terminator('\0') {
            // One that was deleted but not committed is listed still.
            if root.join(name).is_file() {
                copy(&root.join(name), &bench.tree.join(name)).with_context(|| name.to_owned())?;
                wanted.insert(bench.tree.join(name));
            }
        }
        prune(&bench.tree, &wanted)?;
        Ok(bench)
    }

    /// The core without a fault.
    fn expect_clean(&self, world: Kind, seeds: u64) -> Result<()> {
        match self.sweep(world, seeds)? {
            Verdict::Clean => eprintln!("no fault: {seeds} seeds are clean"),
            Verdict::Found(failure) => bail!(
                "the core without a fault fails: {} at seed {}, {}",
                failure.oracle,
                failure.seed,
                failure.rest
            ),
            Verdict::Unclear(why) => bail!("the core without a fault: {why}"),
        }
        Ok(())
    }

    fn try_mutant(&self, patch: &Path, world: Kind, seeds: u64) -> Result<Verdict> {
        self.apply(patch, &[])?;
        let verdict = self.build().and_then(|()| self.sweep(world, seeds));
        self.apply(patch, &["--reverse"])?;
        verdict
    }

    fn apply(&self, patch: &Path, how: &[&str]) -> Result<()> {
        let mut command = Command::new("git");
        command.arg("apply").args(how).arg(patch);
        // Inside of a repository git would pass over whatever it does not take for a part of it.
        let base = self.tree.parent().unwrap_or(&self.tree);
        command.env("GIT_CEILING_DIRECTORIES", base);
        command.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE");
        let status = command.current_dir(&self.tree).status().context("git")?;
        ensure!(status.success(), "{} does not apply", patch.display());
        Ok(())
    }

    fn build(&self) -> Result<()> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--profile", "sim"]);
        command.args(["-p", "adit-simtests", "--bin", "sweep"]);
        command.args(self.jobs_args("--jobs"));
        // A fault changes a function or two.
        command.env("CARGO_INCREMENTAL", "1");
        command.env("CARGO_TARGET_DIR", &self.target);
        let status = command.current_dir(&self.tree).status().context("cargo")?;
        ensure!(status.success(), "the sweep does not build");
        Ok(())
    }

    /// Runs the first seeds.
    fn sweep(&self, world: Kind, seeds: u64) -> Result<Verdict> {
        // A fault may make every seed complain at length; only the last sweep's complaints are kept.
        let complaints = File::create(self.target.join("sweep.stderr"))?;
        let mut command = Command::new(self.target.join("sim/sweep"));
        command.args(["--seeds", &seeds.to_string(), "--first", "0"]);
        command.args(match world {
            Kind::Tunnel => ["--world", "tunnel"],
            Kind::Peers => ["--world", "peers"],
        });
        command.args(self.jobs_args("--threads"));
        command.current_dir(&self.tree).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(complaints);
        let mut child = command.spawn().context("sweep")?;
        let mut stdout = child.stdout.take().context("the sweep has no stdout")?;
        let (sender, ended) = mpsc::channel();
        // Reads until the end of the process, however it ends.
        let reader = thread::spawn(move || {
            let mut output = String::new();
            let result = stdout.read_to_string(&mut output).map(|_| output);
            // Nobody waits for it after the limit.
            sender.send(result).ok();
        });
        let Ok(output) = ended.recv_timeout(self.limit) else {
            child.kill()?;
            child.wait()?;
            let minutes = self.limit.as_secs() / 60;
            return Ok(Verdict::Unclear(format!("no end after {minutes} minutes")));
        };
        let code = child.wait()?.code();
        ensure!(reader.join().is_ok(), "reading from the sweep panicked");
        Ok(Verdict::of_sweep(code, &output?))
    }

    fn jobs_args(&self, option: &str) -> Vec<String> {
        let jobs = self.jobs.map(|jobs| [option.to_owned(), jobs.to_string()]);
        jobs.into_iter().flatten().collect()
    }
}

/// The patches in the order of their names, with what they say.
fn patches(only: &[String]) -> Result<Vec<(PathBuf, Mutant)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(root()?.join("simtests/mutants"))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let text = fs::read_to_string(&path)?;
        let mutant = Mutant::read(&name, &text)
            .with_context(|| format!("{} has no head of two lines", path.display()))?;
        all.push((path, mutant));
    }
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    for name in only {
        let is_there = all.iter().any(|(_, mutant)| mutant.is_called(name));
        ensure!(is_there, "no patch is called {name}");
    }
    all.retain(|(_, mutant)| only.is_empty() || only.iter().any(|name| mutant.is_called(name)));
    Ok(all)
}

/// Puts the table in its place; without one only looks whether there is a place.
fn write_table(path: &Path, table: Option<&str>) -> Result<()> {
    let document =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let written = replace_between(&document, table.unwrap_or_default())
        .with_context(|| format!("{} lacks the lines {BEGIN} and {END}", path.display()))?;
    if table.is_some() {
        fs::write(path, written).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Copies a file unless it is the same already: cargo builds again what was written.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let content = fs::read(from)?;
    if fs::read(to).is_ok_and(|old| old == content) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(to, content)
}

/// Removes the files that the checkout no longer has.
fn prune(folder: &Path, wanted: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            prune(&path, wanted)?;
        } else if !wanted.contains(&path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().context("the checkout is gone")
}
