//! Agents and gateways that die, freeze, come back, or are there twice.

use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::harness::{
    SOON, alone, beside_others,
    site::{Agent, Gateway, Ports, Site, forward, forward_at, free_port, free_udp_port},
    targets::{echo, ping},
    until,
    users::connect,
};

#[test]
fn a_restarted_agent_serves_again_at_once() {
    let _machine = alone();
    let (site, target) = (Site::new(), echo());
    let gateway = site.gateway("gw", &forward("echo", target));
    let mut agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    ping(&connect(gateway.ingress("echo")), b"before");
    agent.process_mut().kill();
    let start = Instant::now();
    agent.spawn();
    works_again(gateway.ingress("echo"), AGENT_BACK + BUSY);
    eprintln!("agent restart to first answer: {:?}", start.elapsed());
    ping(&connect(gateway.ingress("echo")), b"and again");
}

#[test]
fn a_restarted_gateway_has_its_agent_back_soon() {
    let _machine = alone();
    let (site, target) = (Site::new(), echo());
    let ports = Ports {
        tunnel: free_udp_port(),
        enroll: free_port(),
    };
    let port = free_port();
    let rest = forward_at("echo", port, target);
    let mut gateway = site.gateway_with("gw", "", ports, &rest);
    gateway.start();
    let agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let ingress = gateway.ingress("echo");
    ping(&connect(ingress), b"before");
    gateway.process_mut().kill();
    let start = Instant::now();
    gateway.spawn();
    works_again(ingress, GATEWAY_BACK + TOO_EARLY + BUSY);
    eprintln!("gateway restart to first answer: {:?}", start.elapsed());
    agent.process().logged("connection to the gateway lost");
    assert_eq!(gateway.agents()[0]["id"], agent.id());
}

#[test]
fn the_other_agent_takes_over_when_one_is_stopped() {
    takes_over(|agent| assert!(agent.process_mut().terminate().success()));
}

#[test]
fn the_other_agent_takes_over_when_one_is_killed() {
    takes_over(|agent| agent.process_mut().kill());
}

fn takes_over(end: impl Fn(&mut Agent)) {
    let _machine = beside_others();
    // Each of the two in turn: whichever would be the first choice is among them.
    for first in [0, 1] {
        let (_site, gateway, mut agents) = two_agents();
        end(&mut agents[first]);
        for _ in 0..10 {
            works_again(gateway.ingress("echo"), TAKEN_OVER + BUSY);
        }
    }
}

#[test]
fn a_frozen_agent_is_overtaken_and_then_suspect() {
    let _machine = beside_others();
    let (_site, gateway, agents) = two_agents();
    let ingress = gateway.ingress("echo");
    // The newest route set is the first choice where load is equal.
    let frozen = &agents[1];
    let thaw = Thaw(frozen);
    frozen.process().signal(Signal::STOP);
    let stopped = Instant::now();
    for _ in 0..5 {
        let start = Instant::now();
        ping(&connect(ingress), b"overtaken");
        let took = start.elapsed();
        assert!(took < TAKEN_OVER + BUSY, "{took:?}");
    }
    gateway
        .process()
        .logged("path to the agent stalls; new sessions go elsewhere");
    let took = stopped.elapsed();
    eprintln!("suspect {took:?} after it was frozen");
    assert!(took < SUSPECT + BUSY, "{took:?}");
    let start = Instant::now();
    ping(&connect(ingress), b"the other one at once");
    assert!(start.elapsed() < Duration::from_secs(1));
    drop(thaw);
    until("both are online", SOON, || {
        let agents = gateway.agents();
        let online = agents.iter().filter(|a| a["status"] == "online").count();
        (online == 2).then_some(())
    });
    ping(&connect(ingress), b"with both");
}

#[test]
fn of_two_connections_of_an_agent_the_newest_serves_and_a_third_ends_the_oldest() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let gateway = site.gateway("gw", &forward("echo", target));
    let first = site.serving("site-a", &gateway, "127.0.0.1/32");
    let ingress = gateway.ingress("echo");
    let old = connect(ingress);
    ping(&old, b"through the first");

    let mut second = first.copy(&site.path("second"));
    second.serve(&gateway);
    let new = connect(ingress);
    ping(&new, b"through the second");
    ping(&old, b"still through the first");
    let sessions_of = |agent: &Agent, count: u64| {
        until("sessions are where they belong", SOON, || {
            (agent.status()["sessions"] == count).then_some(())
        });
    };
    sessions_of(&first, 1);
    sessions_of(&second, 1);
    let agents = gateway.agents();
    let mut states: Vec<_> = agents.iter().map(|a| a["status"].as_str()).collect();
    states.sort_unstable();
    assert_eq!(states, [Some("online"), Some("superseded")]);

    let mut third = first.copy(&site.path("third"));
    third.serve(&gateway);
    ping(&connect(ingress), b"through the third");
    gateway.process().logged("agent disconnected");
    first.process().logged("connection to the gateway lost");
    let mut byte = [0];
    let end = std::io::Read::read(&mut &old, &mut byte);
    assert!(
        end.is_err(),
        "the oldest connection's session is cut: {end:?}"
    );
    ping(&new, b"still through the second");
}

fn two_agents() -> (Site, Gateway, [Agent; 2]) {
    let (site, target) = (Site::new(), echo());
    let gateway = site.gateway("gw", &forward("echo", target));
    let one = site.serving("site-a", &gateway, "127.0.0.1/32");
    let two = site.serving("site-b", &gateway, "127.0.0.1/32");
    assert_ne!(one.id(), two.id());
    ping(&connect(gateway.ingress("echo")), b"before");
    (site, gateway, [one, two])
}

/// Tries until a session answers; each try fails at once or works.
fn works_again(ingress: SocketAddr, limit: Duration) {
    let works = || {
        let user = TcpStream::connect(ingress).ok()?;
        user.set_read_timeout(Some(limit)).unwrap();
        std::io::Write::write_all(&mut &user, b"hello").ok()?;
        let mut got = [0; 5];
        std::io::Read::read_exact(&mut &user, &mut got).ok()?;
        Some(got)
    };
    let got = until("a session works", limit, works);
    assert_eq!(&got, b"hello");
}

/// What is promised: an agent that starts again serves, ...
const AGENT_BACK: Duration = Duration::from_millis(100);
/// ... a gateway that does has its agents, ...
const GATEWAY_BACK: Duration = Duration::from_millis(600);
/// ... another agent carries the next session, ...
const TAKEN_OVER: Duration = Duration::from_secs(1);
/// ... and nothing goes to one that has fallen silent.
const SUSPECT: Duration = Duration::from_secs(3);
/// The wait of an agent whose first attempt came while the gateway was not there.
const TOO_EARLY: Duration = Duration::from_millis(500);
/// What a machine may add that is busy with other tests, to a binary that is not optimised: these are no benchmarks.
const BUSY: Duration = Duration::from_millis(900);

/// Lets a stopped process go on at the end of the test, however it ends.
struct Thaw<'a>(&'a Agent);

impl Drop for Thaw<'_> {
    fn drop(&mut self) {
        self.0.process().signal(Signal::CONT);
    }
}
