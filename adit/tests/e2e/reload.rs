//! A changed configuration of an agent takes effect on the living connection.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    path::PathBuf,
};

use rustix::process::Signal;
use sha2::{Digest, Sha256, digest::Output};

use crate::harness::{
    SOON, alone, beside_others,
    site::{Agent, Gateway, PROXIES, Ports, Site, free_port, free_udp_port},
    targets::{Target, drain, echo, echo_at, expect, ping},
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

    fn socks(&self, target: &str) -> Result<TcpStream, tokio_socks::Error> {
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
    let other = echo_at("127.0.0.2:0");
    ping(&bed.socks(&other.to_string()).unwrap(), b"new");
    assert_eq!(bed.agent.status()["routes"][0], "127.0.0.2/32");
    assert_eq!(bed.gateway.process().count("agent connected"), 1);
}

#[test]
fn routes_change_in_the_middle_of_a_transfer_that_arrives_whole() {
    let _machine = alone();
    let bed = Bed::new(LOOPBACK);
    let target = Target::listen();
    let user = bed.socks(&target.addr.to_string()).unwrap();
    let far = target.accept();
    let other = echo_at("127.0.0.2:0");
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| send(&far));
        let mut hash = Sha256::new();
        hash_some(&user, &mut hash, LENGTH / 4);
        assert!(bed.socks(&other.to_string()).is_err(), "not advertised");
        bed.change("[advertise]\nsubnets = [\"127.0.0.2/32\"]\n");
        bed.gateway.routes_to(&bed.agent.id(), 2);
        // Three quarters have not been read, which is more than fits in between: the transfer is not over.
        assert!(!sent.is_finished());
        ping(&bed.socks(&other.to_string()).unwrap(), b"by a new route");
        assert!(bed.socks(&target.addr.to_string()).is_err(), "no more");
        hash_some(&user, &mut hash, LENGTH / 4);
        bed.change(LOOPBACK);
        bed.gateway.routes_to(&bed.agent.id(), 3);
        assert!(!sent.is_finished());
        assert!(bed.socks(&other.to_string()).is_err(), "no more");
        hash_some(&user, &mut hash, LENGTH / 2);
        assert_eq!(hash.finalize(), sent.join().unwrap());
    });
    far.shutdown(Shutdown::Write).unwrap();
    assert_eq!(drain(&user).0, 0, "nothing behind it");
    assert_eq!(bed.gateway.process().count("agent connected"), 1);
    assert_eq!(bed.gateway.process().count("agent disconnected"), 0);
}

/// Sends so much that no two blocks are alike, and gives the hash of it.
fn send(mut to: &TcpStream) -> Output<Sha256> {
    let (mut hash, mut block) = (Sha256::new(), [0; 1 << 16]);
    for n in 0..LENGTH / block.len() as u64 {
        block[..8].copy_from_slice(&n.to_be_bytes());
        hash.update(block);
        to.write_all(&block).unwrap();
    }
    hash.finalize()
}

/// Reads so many bytes.
fn hash_some(from: &TcpStream, hash: &mut Sha256, length: u64) {
    let mut read = 0;
    let mut buf = vec![0; 1 << 16];
    while read < length {
        let most = (length - read).min(buf.len() as u64);
        let part = from.take(most).read(&mut buf).unwrap();
        assert_ne!(part, 0, "ended after {read}");
        hash.update(&buf[..part]);
        read += part as u64;
    }
}

/// Of a transfer, in bytes: 128 MiB.
const LENGTH: u64 = 128 << 20;

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
    let other = echo_at("127.0.0.2:0");
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
