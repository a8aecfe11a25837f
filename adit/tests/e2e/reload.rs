//! A changed configuration of an agent takes effect on the living connection.

use std::{fs, io::Write, path::PathBuf};

use rustix::process::Signal;

use crate::harness::{
    SOON, beside_others,
    site::{Agent, Gateway, PROXIES, Ports, Site, free_port, free_udp_port},
    targets::{Target, echo, expect, ping},
    until,
    users::socks,
};

/// An agent with a configuration that can be changed, and the gateway's SOCKS5 port.
struct Bed {
    gateway: Gateway,
    agent: Agent,
    config: PathBuf,
    _site: Site,
}

impl Bed {
    fn new(config: &str) -> Self {
        let site = Site::new();
        // It is found again after a restart.
        let ports = Ports {
            tunnel: free_udp_port(),
            enroll: free_port(),
        };
        let mut gateway = site.gateway_with("gw", "", ports, PROXIES);
        gateway.start();
        let mut agent = site.enrol("site-a", &gateway, "");
        let path = site.path("agent.toml");
        fs::write(&path, config).unwrap();
        agent.spawn_with(&path);
        gateway.routes_to(&agent.id(), 1);
        Self {
            gateway,
            agent,
            config: path,
            _site: site,
        }
    }

    fn change(&self, text: &str) {
        fs::write(&self.config, text).unwrap();
        self.agent.process().signal(Signal::HUP);
    }

    fn socks(&self, target: &str) -> Result<std::net::TcpStream, tokio_socks::Error> {
        socks(self.gateway.ingress("socks5"), target)
    }
}

const LOOPBACK: &str = "[advertise]\nsubnets = [\"127.0.0.1/32\"]\n";

#[test]
fn routes_change_in_the_middle_of_a_session() {
    let _machine = beside_others();
    let bed = Bed::new(LOOPBACK);
    let target = Target::listen();
    let mut user = bed.socks(&target.addr.to_string()).unwrap();
    let far = target.accept();
    user.write_all(b"before").unwrap();
    expect(&far, b"before");
    bed.change("[advertise]\nsubnets = [\"127.0.0.2/32\"]\n");
    bed.gateway.routes_to(&bed.agent.id(), 2);
    // What is open goes on; what comes is judged by the new routes, at both ends.
    user.write_all(b"after").unwrap();
    expect(&far, b"after");
    assert!(bed.socks(&target.addr.to_string()).is_err());
    let other = crate::harness::targets::echo_at("127.0.0.2:0");
    ping(&bed.socks(&other.to_string()).unwrap(), b"new");
    assert_eq!(bed.agent.status()["routes"][0], "127.0.0.2/32");
    assert_eq!(bed.gateway.process().count("agent connected"), 1);
}

#[test]
fn a_lost_connection_has_the_file_read_again() {
    let _machine = beside_others();
    let mut bed = Bed::new(LOOPBACK);
    fs::write(&bed.config, "[advertise]\nsubnets = [\"127.0.0.2/32\"]\n").unwrap();
    bed.gateway.process_mut().kill();
    bed.gateway.start();
    bed.agent
        .process()
        .logged("configuration read again, as the connection was lost");
    let other = crate::harness::targets::echo_at("127.0.0.2:0");
    until("the new route", SOON, || bed.socks(&other.to_string()).ok());
    assert_eq!(bed.agent.status()["routes"][0], "127.0.0.2/32");
}

#[test]
fn a_bad_file_keeps_what_is_in_force() {
    let _machine = beside_others();
    let bed = Bed::new(LOOPBACK);
    let target = echo();
    bed.change("[advertise]\nsubnets = [\"127.0.0.1/99\"]\n");
    let line = bed
        .agent
        .process()
        .logged("configuration not reloaded; the former one stays in force");
    let error = line["error"].as_str().unwrap();
    assert!(error.contains("agent.toml:2"), "{error}");
    ping(&bed.socks(&target.to_string()).unwrap(), b"as before");
    let mut ask = bed.agent.command(&["agent", "reload"]);
    ask.arg("--config").arg(&bed.config);
    let ran = crate::harness::process::run(ask, "");
    // The verb reads the file too, and says what the agent would.
    ran.fails(3, &["agent.toml:2"]);
}

#[test]
fn restrictions_take_effect_without_a_word_to_the_gateway() {
    let _machine = beside_others();
    let bed = Bed::new(LOOPBACK);
    let target = echo();
    let user = bed.socks(&target.to_string()).unwrap();
    bed.change(&format!("{LOOPBACK}[policy]\nports = [\"1\"]\n"));
    bed.agent.process().logged("configuration reloaded");
    until("the port is closed", SOON, || {
        bed.socks(&target.to_string()).is_err().then_some(())
    });
    let refused = bed.agent.process().logged("session refused");
    let error = refused["error"].as_str().unwrap();
    assert!(
        error.contains(&format!("port {}", target.port())),
        "{error}"
    );
    ping(&user, b"still open");
    bed.change(&format!("{LOOPBACK}[policy]\ndeny = [\"127.0.0.0/8\"]\n"));
    until("the address is denied", SOON, || {
        let denied = |line: &serde_json::Value| {
            let error = line["error"].as_str().unwrap_or_default();
            error.contains("127.0.0.0/8, which the operator denies")
        };
        let _refused = bed.socks(&target.to_string());
        bed.agent.process().has(denied).then_some(())
    });
    assert_eq!(bed.gateway.process().count("routes accepted"), 1);
}

#[test]
fn what_needs_a_restart_is_said() {
    let _machine = beside_others();
    let bed = Bed::new(LOOPBACK);
    bed.change(&format!("{LOOPBACK}[heartbeat]\ninterval = \"7s\"\n"));
    let line = bed
        .agent
        .process()
        .logged("this change takes effect when the agent is restarted");
    assert_eq!(line["key"], "heartbeat");
}
