//! Processes of the binary: started, watched through their logs, signalled by id, and never left behind.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::SOON;

const BINARY: &str = env!("CARGO_BIN_EXE_adit");

/// A command with a bare environment, so that the developer's own settings have no say.
pub(crate) fn adit(home: &Path) -> Command {
    command_of(BINARY, &[], home)
}

/// The same for an agent, started by another program: its words, before the command line. A run of the suite can name
/// another binary for agents, as the one that is built without a gateway.
pub(crate) fn agent_by(launcher: &[String], home: &Path) -> Command {
    let binary = std::env::var("ADIT_E2E_AGENT");
    command_of(binary.as_deref().unwrap_or(BINARY), launcher, home)
}

fn command_of(binary: &str, launcher: &[String], home: &Path) -> Command {
    let mut command = match launcher {
        [] => Command::new(binary),
        [program, words @ ..] => {
            let mut command = Command::new(program);
            command.args(words).arg(binary);
            command
        }
    };
    command.env_clear().env("HOME", home);
    // The whole suite runs with each driver.
    if let Ok(driver) = std::env::var("ADIT_E2E_DRIVER") {
        command.env("ADIT_DRIVER", driver);
    }
    command
}

/// What a command that ends has said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// The JSON on stdout of a command that has worked.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }

    /// Checks exit code and what is said on stderr.
    pub(crate) fn fails(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for part in says {
            assert!(self.err.contains(part), "`{part}` is not in {self:?}");
        }
    }
}

/// Runs a command to its end; one that does not end is killed.
pub(crate) fn run(mut command: Command, stdin: &str) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process::start("command", command);
    let mut input = process.child.stdin.take().unwrap();
    let mut output = process.child.stdout.take().unwrap();
    // A command that does not read its stdin has closed it.
    let _unread = input.write_all(stdin.as_bytes());
    drop(input);
    let out = std::thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        text
    });
    let status = process.exit();
    Ran {
        code: status.code().unwrap_or(-1),
        out: out.join().unwrap(),
        err: process.log.text(),
    }
}

/// One running process. Dropping it kills it.
pub(crate) struct Process {
    name: String,
    child: Child,
    pub(crate) log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
    ended: bool,
}

impl Process {
    /// Starts a process and reads what it says on stderr.
    pub(crate) fn start(name: &str, mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Log::default());
        let (stderr, into) = (child.stderr.take().unwrap(), Arc::clone(&log));
        let reader = std::thread::spawn(move || into.fill(stderr));
        Self {
            name: name.to_owned(),
            child,
            log,
            reader: Some(reader),
            ended: false,
        }
    }

    pub(crate) fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Where its stdout comes out, if that was asked for.
    pub(crate) fn stdout(&mut self) -> BufReader<std::process::ChildStdout> {
        BufReader::new(self.child.stdout.take().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).unwrap();
    }

    /// Waits for the first log line with a message.
    pub(crate) fn logged(&self, message: &str) -> Value {
        self.logged_nth(message, 1)
    }

    /// Waits for the n-th log line with a message.
    pub(crate) fn logged_nth(&self, message: &str, n: usize) -> Value {
        self.logged_that(message, |line| says(line, message), n)
    }

    /// Waits for the n-th log line that a condition holds for.
    pub(crate) fn logged_that(
        &self,
        what: &str,
        condition: impl Fn(&Value) -> bool,
        n: usize,
    ) -> Value {
        let found = self.log.wait(|lines| {
            let mut hits = lines.iter().filter(|line| condition(line));
            hits.nth(n - 1).cloned()
        });
        found.unwrap_or_else(|| panic!("{} did not log: {what} ({n})", self.name))
    }

    /// Log lines with a message so far.
    pub(crate) fn count(&self, message: &str) -> usize {
        let lines = self.log.state.lock().unwrap();
        lines
            .lines
            .iter()
            .filter(|line| says(line, message))
            .count()
    }

    /// Tells whether a condition holds for a log line so far.
    pub(crate) fn has(&self, condition: impl Fn(&Value) -> bool) -> bool {
        let lines = self.log.state.lock().unwrap();
        lines.lines.iter().any(condition)
    }

    /// Waits for the end: its stderr closes then.
    pub(crate) fn exit(&mut self) -> ExitStatus {
        let ended = self.log.wait_closed();
        assert!(ended, "{} did not end", self.name);
        self.ended = true;
        self.child.wait().unwrap()
    }

    /// SIGKILL, and the end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.ended = true;
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the end.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.exit()
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            // It may have ended by itself meanwhile.
            let _ended = self.child.kill();
            let _ended = self.child.wait();
        }
        if let Some(reader) = self.reader.take() {
            let _read = reader.join();
        }
        if std::thread::panicking() {
            eprintln!("--- log of {}:\n{}", self.name, self.log.text());
        }
    }
}

fn says(line: &Value, message: &str) -> bool {
    line["message"] == message
}

/// What a process has said on stderr, line by line.
#[derive(Default)]
pub(crate) struct Log {
    state: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    lines: Vec<Value>,
    closed: bool,
}

impl Log {
    fn fill(&self, from: impl Read) {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { break };
            let value =
                serde_json::from_str(&line).unwrap_or_else(|_| serde_json::json!({ "text": line }));
            self.state.lock().unwrap().lines.push(value);
            self.changed.notify_all();
        }
        self.state.lock().unwrap().closed = true;
        self.changed.notify_all();
    }

    /// Waits until the lines have it; none at the end of the log or of patience.
    fn wait<T>(&self, find: impl Fn(&[Value]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + SOON;
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(found) = find(&state.lines) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    fn wait_closed(&self) -> bool {
        let state = self.state.lock().unwrap();
        let waited = self
            .changed
            .wait_timeout_while(state, SOON, |state| !state.closed);
        waited.unwrap().0.closed
    }

    /// Everything so far.
    pub(crate) fn text(&self) -> String {
        let state = self.state.lock().unwrap();
        let mut text = String::new();
        for line in &state.lines {
            let _infallible = match line.get("text").and_then(Value::as_str) {
                Some(plain) => writeln!(text, "{plain}"),
                None => writeln!(text, "{line}"),
            };
        }
        text
    }
}
