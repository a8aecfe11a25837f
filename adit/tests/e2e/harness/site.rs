//! A gateway and its agents in one temporary folder.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    SOON,
    process::{Process, Ran, adit, agent_by, run},
    until,
};

/// A temporary folder with room for gateways and agents.
pub(crate) struct Site {
    root: TempDir,
}

/// A gateway that can be started, killed and started again.
pub(crate) struct Gateway {
    pub(crate) state: PathBuf,
    pub(crate) config: PathBuf,
    home: PathBuf,
    process: Option<Process>,
}

/// An agent that is enrolled.
pub(crate) struct Agent {
    pub(crate) state: PathBuf,
    /// Words before its command lines: a program that starts it; usually none.
    pub(crate) launcher: Vec<String>,
    home: PathBuf,
    process: Option<Process>,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A command whose home is this site.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = adit(self.root.path());
        command.args(args);
        command
    }

    /// Runs a command whose home is this site.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        run(self.command(args), "")
    }

    /// Writes a gateway's configuration: free ports on loopback, and what else is given.
    pub(crate) fn gateway_with(&self, name: &str, head: &str, ports: Ports, rest: &str) -> Gateway {
        let text = format!(
            "{head}\n[tunnel]\nlisten = \"127.0.0.1:{}\"\n\
             names = [\"127.0.0.1\", \"localhost\"]\n{rest}\n",
            ports.tunnel
        );
        let enroll = format!("[enroll]\nlisten = \"127.0.0.1:{}\"\n", ports.enroll);
        let text = if rest.contains("[enroll]") {
            text
        } else {
            text + &enroll
        };
        self.gateway_of(name, &text)
    }

    /// Writes a gateway's configuration: its state is in this site, all else is given.
    pub(crate) fn gateway_of(&self, name: &str, text: &str) -> Gateway {
        let state = self.path(name);
        let config = self.path(&format!("{name}.toml"));
        fs::write(&config, format!("state_dir = {state:?}\n{text}")).unwrap();
        Gateway {
            state,
            config,
            home: self.root.path().to_owned(),
            process: None,
        }
    }

    /// Starts a gateway with these further sections in its configuration.
    pub(crate) fn gateway(&self, name: &str, rest: &str) -> Gateway {
        let mut gateway = self.gateway_with(name, "", Ports::default(), rest);
        gateway.start();
        gateway
    }

    /// Enrols an agent by a token through the administration socket; does not start it.
    pub(crate) fn enrol(&self, name: &str, gateway: &Gateway, advertise: &str) -> Agent {
        let agent = self.agent(name);
        let plain = fs::read_to_string(&gateway.config).unwrap();
        let plain = plain.contains("insecure_http = true");
        let more = if plain { &["--allow-http"][..] } else { &[] };
        let ran = agent.up(&gateway.token(name), advertise, more);
        assert_eq!(ran.code, 0, "{ran:?}");
        agent
    }

    /// An agent that is not enrolled.
    pub(crate) fn agent(&self, name: &str) -> Agent {
        Agent {
            state: self.path(name),
            launcher: Vec::new(),
            home: self.root.path().to_owned(),
            process: None,
        }
    }

    /// Enrols an agent, starts it, and waits until the gateway has its routes.
    pub(crate) fn serving(&self, name: &str, gateway: &Gateway, advertise: &str) -> Agent {
        let mut agent = self.enrol(name, gateway, advertise);
        agent.serve(gateway);
        agent
    }
}

/// Ports of a gateway; 0 is any.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ports {
    pub(crate) tunnel: u16,
    pub(crate) enroll: u16,
}

impl Gateway {
    /// A command for this gateway.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = adit(&self.home);
        command.arg("--config").arg(&self.config).args(args);
        command
    }

    /// Starts it and waits until it runs.
    pub(crate) fn start(&mut self) {
        self.spawn();
        self.process().logged("gateway running");
    }

    /// Starts it.
    pub(crate) fn spawn(&mut self) {
        self.spawn_through(|command| command);
    }

    /// Starts it by a command that is made from the usual one.
    pub(crate) fn spawn_through(&mut self, change: impl FnOnce(Command) -> Command) {
        let mut command = change(self.command(&["gateway", "run", "--log-format", "json"]));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.process = Some(Process::start("gateway", command));
    }

    /// Starts it with so many descriptors at most, and waits until it runs.
    pub(crate) fn start_with_descriptors(&mut self, most: u32) {
        let inner = self.command(&["gateway", "run", "--log-format", "json"]);
        let mut command = Command::new("/bin/sh");
        command.env_clear().env("HOME", &self.home).arg("-c");
        command.arg(format!("ulimit -n {most}; exec \"$0\" \"$@\""));
        command.arg(inner.get_program()).args(inner.get_args());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.process = Some(Process::start("gateway", command));
        self.process().logged("gateway running");
    }

    pub(crate) fn process(&self) -> &Process {
        self.process.as_ref().unwrap()
    }

    pub(crate) fn process_mut(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    /// Runs one of the verbs for it.
    pub(crate) fn ask(&self, args: &[&str]) -> Ran {
        run(self.command(args), "")
    }

    /// An enrolment string.
    pub(crate) fn token(&self, name: &str) -> String {
        let ran = self.ask(&["token", "create", "--name", name]);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out.trim().to_owned()
    }

    /// Where an ingress listens.
    pub(crate) fn ingress(&self, name: &str) -> SocketAddr {
        let is_it = |line: &Value| line["message"] == "ingress open" && line["ingress"] == name;
        let line = self.process().logged_that(name, is_it, 1);
        line["addr"].as_str().unwrap().parse().unwrap()
    }

    /// One of its own addresses: `tunnel` or `enroll`.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let line = self.process().logged("gateway running");
        line[name].as_str().unwrap().parse().unwrap()
    }

    /// Waits until the n-th accepted route set, which is this agent's, is in force.
    pub(crate) fn routes_to(&self, agent: &str, n: usize) {
        self.process().logged_nth("routes accepted", n);
        // The line comes a moment before the routes, but after the connection has been registered.
        let in_force =
            |row: &Value| row["id"] == agent && row["status"] == "online" && row["epoch"] != 0;
        until("routes are in force", SOON, || {
            self.agents().iter().any(in_force).then_some(())
        });
    }

    /// Connections of agents.
    pub(crate) fn agents(&self) -> Vec<Value> {
        let mut rows = self.enrolled();
        rows.retain(|row| row["status"] != "offline");
        rows
    }

    /// The same, with the agents that have no connection.
    pub(crate) fn enrolled(&self) -> Vec<Value> {
        rows(&self.ask(&["agents", "list", "--json"]))
    }

    pub(crate) fn sessions(&self) -> Vec<Value> {
        rows(&self.ask(&["sessions", "list", "--json"]))
    }

    /// Waits until so many sessions are open.
    pub(crate) fn sessions_are(&self, count: usize) {
        until(&format!("{count} sessions"), SOON, || {
            (self.sessions().len() == count).then_some(())
        });
    }

    /// Waits for the log line of the n-th session that has ended, and gives its reason.
    pub(crate) fn ended(&self, n: usize) -> String {
        let line = self.process().logged_nth("session ended", n);
        line["reason"].as_str().unwrap().to_owned()
    }
}

impl Agent {
    /// Enrols with a string from stdin.
    pub(crate) fn up(&self, token: &str, advertise: &str, more: &[&str]) -> Ran {
        let mut command = self.command(&["agent", "up", "--enrollment-string", "-"]);
        if !advertise.is_empty() {
            command.args(["--advertise", advertise]);
        }
        command.args(more);
        run(command, &format!("{token}\n"))
    }

    /// A command for this agent.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = agent_by(&self.launcher, &self.home);
        command.arg("--state-dir").arg(&self.state).args(args);
        command
    }

    /// Starts it.
    pub(crate) fn spawn(&mut self) {
        self.spawn_through(|command| command);
    }

    /// Starts it with a configuration of its own.
    pub(crate) fn spawn_with(&mut self, config: &Path) {
        self.spawn_through(|mut command| {
            command.arg("--config").arg(config);
            command
        });
    }

    /// Starts it by a command that is made from the usual one.
    pub(crate) fn spawn_through(&mut self, change: impl FnOnce(Command) -> Command) {
        let mut command = change(self.command(&["agent", "run", "--log-format", "json"]));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let name = self.state.file_name().unwrap().to_string_lossy();
        self.process = Some(Process::start(&format!("agent {name}"), command));
    }

    /// Starts it and waits until the gateway has accepted its routes.
    pub(crate) fn serve(&mut self, gateway: &Gateway) {
        let before = gateway.process().count("routes accepted");
        self.spawn();
        gateway.routes_to(&self.id(), before + 1);
    }

    pub(crate) fn process(&self) -> &Process {
        self.process.as_ref().unwrap()
    }

    pub(crate) fn process_mut(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    /// What it says of itself.
    pub(crate) fn status(&self) -> Value {
        run(self.command(&["agent", "status", "--json"]), "").json()
    }

    /// What it keeps of its enrolment.
    pub(crate) fn record(&self) -> Value {
        let text = fs::read_to_string(self.state.join("agent.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Key, certificate and root: the current ones, or those of `-next` or `-previous`.
    pub(crate) fn pair(&self, which: &str) -> Value {
        let name = format!("agent-pair{which}.json");
        let text = fs::read_to_string(self.state.join(name)).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Runs one of the verbs for it.
    pub(crate) fn ask(&self, args: &[&str]) -> Ran {
        run(self.command(args), "")
    }

    pub(crate) fn id(&self) -> String {
        self.record()["agent_id"].as_str().unwrap().to_owned()
    }

    /// The same enrolment in another folder.
    pub(crate) fn copy(&self, to: &Path) -> Self {
        copy_folder(&self.state, to);
        Self {
            state: to.to_owned(),
            launcher: self.launcher.clone(),
            home: self.home.clone(),
            process: None,
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn rows(ran: &Ran) -> Vec<Value> {
    ran.json().as_array().unwrap().clone()
}

/// Sections of the usual ways in.
pub(crate) const PROXIES: &str = "[[socks5]]\nname = \"socks5\"\nlisten = \"127.0.0.1:0\"\n\
                                  [[http_connect]]\nname = \"connect\"\nlisten = \"127.0.0.1:0\"\n";

/// The section of a forward.
pub(crate) fn forward(name: &str, target: impl std::fmt::Display) -> String {
    forward_at(name, 0, target)
}

/// The section of a forward with a fixed port.
pub(crate) fn forward_at(name: &str, port: u16, target: impl std::fmt::Display) -> String {
    let mut text = String::new();
    writeln!(
        text,
        "[[forward]]\nname = \"{name}\"\nlisten = \"127.0.0.1:{port}\"\ntarget = \"{target}\""
    )
    .unwrap();
    text
}

/// A TCP port that is free, for what has to keep its port over a restart.
pub(crate) fn free_port() -> u16 {
    free(|port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok())
}

/// The same for UDP.
pub(crate) fn free_udp_port() -> u16 {
    free(|port| std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok())
}

/// From below those that the system gives to whoever asks for any, as the many users of other tests do.
fn free(is_free: impl Fn(u16) -> bool) -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Another run of the tests begins elsewhere.
    let begin = std::process::id().wrapping_mul(101);
    let next = || {
        let n = begin.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        u16::try_from(FIRST + n % COUNT).unwrap()
    };
    std::iter::repeat_with(next)
        .take(1_000)
        .find(|port| is_free(*port))
        .unwrap()
}
