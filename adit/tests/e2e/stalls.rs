//! Ends that stand still: targets that take nothing, and users who take nothing of a target that sends on.

use std::{
    io::{ErrorKind, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use rustix::process::Signal;

use crate::harness::{
    SOON, alone,
    console::Console,
    site::{Agent, Gateway, Ports, Site, forward},
    targets::{Target, drain, echo, patient, ping, reset},
    until,
    users::connect,
    websocket::{association, open},
};

#[test]
fn a_target_that_takes_nothing_costs_a_bounded_amount_and_ends_with_its_user() {
    let _machine = alone();
    let bed = Bed::new("", "");
    let other = connect(bed.gateway.ingress("echo"));
    ping(&other, b"before");
    let before = bed.memory();
    let (user, target) = bed.session();
    let sent = fill(&user);
    ping(&other, b"meanwhile");
    ping(&connect(bed.gateway.ingress("echo")), b"and new ones");
    let grown = bed.memory().saturating_sub(before);
    eprintln!("stuck after {sent} bytes; gateway and agent grew by {grown}");
    assert!(grown < MEMORY, "{grown}");
    reset(user);
    assert_eq!(
        bed.gateway.ended(2),
        "reset by the user or target at this end"
    );
    // Behind what lies in the system's buffers.
    assert_reset(&target);
    ping(&other, b"afterwards");
}

#[test]
fn ends_that_stand_still_are_idle() {
    let _machine = alone();
    let bed = Bed::new("", "[limits]\nsession_idle = \"3s\"\n");
    // A target that takes nothing, also where its user has ended.
    for ends in [false, true] {
        let (user, target) = bed.session();
        fill(&user);
        if ends {
            user.shutdown(Shutdown::Write).unwrap();
        }
        bed.has_ended("idle for longer than limits.session_idle");
        assert_reset(&user);
        assert_reset(&target);
    }
    // A user who takes nothing, however much the target has to say.
    let (user, target) = bed.session();
    fill(&target);
    bed.has_ended("idle for longer than limits.session_idle");
    assert_reset(&user);
    assert_reset(&target);
}

#[test]
fn a_target_that_takes_nothing_of_a_user_by_websocket_is_idle_too() {
    let _machine = alone();
    let (site, target) = (Site::new(), Target::listen());
    let console = Console::new(&site);
    let rest = console.sections() + "[limits]\nsession_idle = \"1500ms\"\n";
    let gateway = site.gateway("gw", &rest);
    let agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let memory = || gateway.process().memory() + agent.process().memory();
    let before = memory();
    let mut user = open(&gateway, &console, "tcp", &association(target.addr));
    let far = target.accept();
    let sent = user.fill();
    let grown = memory().saturating_sub(before);
    eprintln!("stuck after {sent} bytes; gateway and agent grew by {grown}");
    assert!(grown < MEMORY, "{grown}");
    let reason = "idle for longer than limits.session_idle";
    assert_eq!(gateway.ended(1), reason);
    let told = (1011, format!("the session was reset: {reason}"));
    assert_eq!(user.farewell(), told);
    assert_reset(&far);
}

#[test]
fn a_user_who_takes_nothing_can_be_ended_in_every_way() {
    let _machine = alone();
    let bed = Bed::new("", "");
    let other = connect(bed.gateway.ingress("echo"));
    ping(&other, b"before");
    let (user, target) = bed.session();
    fill(&target);
    let sessions = bed.gateway.sessions();
    let of = |row: &&serde_json::Value| row["ingress"] == "target";
    let id = sessions.iter().find(of).unwrap()["id"].as_str().unwrap();
    assert_eq!(bed.gateway.ask(&["sessions", "kill", id]).code, 0);
    bed.has_ended("ended by an operator");
    assert_reset(&user);
    assert_reset(&target);

    // A drained agent keeps it, and a deleted one does not.
    let (user, target) = bed.session();
    fill(&target);
    let agent = bed.agent.id();
    assert_eq!(bed.gateway.ask(&["agents", "drain", &agent]).code, 0);
    ping(&other, b"drained");
    assert_eq!(bed.gateway.sessions().len(), 2);
    assert_eq!(bed.gateway.ask(&["agents", "delete", &agent]).code, 0);
    bed.has_ended("agent deleted");
    assert_reset(&user);
    assert_reset(&target);
}

#[test]
fn a_user_who_takes_nothing_holds_up_no_end_of_a_life_and_no_stop() {
    let _machine = alone();
    let bed = Bed::new("", "[limits]\nsession_lifetime = \"2s\"\n");
    let (user, target) = bed.session();
    fill(&target);
    bed.has_ended("lived for limits.session_lifetime");
    assert_reset(&user);
    assert_reset(&target);

    for stop_gateway in [true, false] {
        let mut bed = Bed::new("grace = \"1s\"", "");
        let (user, target) = bed.session();
        fill(&target);
        let process = match stop_gateway {
            true => bed.gateway.process_mut(),
            false => bed.agent.process_mut(),
        };
        // An agent's grace is ten seconds; its operator waits no longer.
        process.signal(Signal::TERM);
        process.logged(match stop_gateway {
            true => "grace period over; cutting the sessions left",
            false => "stopping: routes withdrawn; a second signal ends at once",
        });
        if !stop_gateway {
            process.signal(Signal::TERM);
        }
        assert!(process.exit().success());
        assert_reset(&user);
        assert_reset(&target);
    }
}

/// A gateway with a forward to a target that the test holds and one to an echo, and their agent.
struct Bed {
    _site: Site,
    gateway: Gateway,
    agent: Agent,
    target: Target,
}

impl Bed {
    fn new(head: &str, rest: &str) -> Self {
        let (site, target) = (Site::new(), Target::listen());
        let rest = format!(
            "{rest}{}{}",
            forward("target", target.addr),
            forward("echo", echo())
        );
        let mut gateway = site.gateway_with("gw", head, Ports::default(), &rest);
        gateway.start();
        let agent = site.serving("site-a", &gateway, "127.0.0.1/32");
        Self {
            _site: site,
            gateway,
            agent,
            target,
        }
    }

    /// A session's two ends.
    fn session(&self) -> (TcpStream, TcpStream) {
        let user = connect(self.gateway.ingress("target"));
        (user, self.target.accept())
    }

    fn memory(&self) -> u64 {
        self.gateway.process().memory() + self.agent.process().memory()
    }

    /// Waits for the end of a session for this reason.
    fn has_ended(&self, reason: &str) {
        self.gateway
            .process()
            .logged_that(reason, |line| line["reason"] == reason, 1);
        let gone = || {
            !self
                .gateway
                .sessions()
                .iter()
                .any(|row| row["ingress"] == "target")
        };
        until("the session is gone", SOON, || gone().then_some(()));
    }
}

/// Writes until nothing goes any more, and tells how much went.
fn fill(mut tcp: &TcpStream) -> u64 {
    let patience = Duration::from_millis(400);
    tcp.set_write_timeout(Some(patience)).unwrap();
    let block = [7; 64 << 10];
    let mut sent = 0;
    loop {
        match tcp.write(&block) {
            Ok(n) => sent += n as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        assert!(sent < ENOUGH, "nothing holds the sender back");
    }
    patient(tcp);
    sent
}

/// What is left comes, and then a reset; never a clean end.
fn assert_reset(tcp: &TcpStream) {
    let (_, end) = drain(tcp);
    let kind = end.unwrap_err().kind();
    assert!(
        [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&kind),
        "{kind}"
    );
}

const ENOUGH: u64 = 256 << 20;
const MEMORY: u64 = 32 << 20;
