//! Certificates are renewed in the middle of everything, and nothing that dies on the way locks an agent out.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
};

use sha2::{Digest, Sha256};

use crate::harness::{
    SOON, alone, beside_others,
    site::{Agent, Gateway, Site, forward},
    targets::{Target, echo, ping},
    until,
    users::connect,
};

const IN_USE: &str = "renewed certificate in use";

#[test]
fn a_gibibyte_passes_down_while_the_certificate_is_renewed() {
    a_gibibyte_passes(|user, far| (far, user));
}

#[test]
fn a_gibibyte_passes_up_while_the_certificate_is_renewed() {
    a_gibibyte_passes(|user, far| (user, far));
}

/// `order` puts the sending end first.
fn a_gibibyte_passes(order: impl FnOnce(TcpStream, TcpStream) -> (TcpStream, TcpStream)) {
    let _machine = alone();
    let (site, target) = (Site::new(), Target::listen());
    let gateway = site.gateway("gw", &forward("target", target.addr));
    let agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let before = agent.pair("");
    let user = connect(gateway.ingress("target"));
    let (from, to) = order(user, target.accept());
    let (sent, got) = std::thread::scope(|scope| {
        let send = scope.spawn(|| send_gibibyte(from));
        let receive = scope.spawn(|| {
            let mut hash = Sha256::new();
            let first = hash_some(&to, &mut hash, 64 << 20);
            assert_eq!(agent.ask(&["agent", "renew"]).code, 0);
            first
                + hash_some(&to, &mut hash, u64::MAX)
                + u64::from(hash.finalize()[..] == expected()[..])
        });
        (send.join().unwrap(), receive.join().unwrap())
    });
    // One more for the right hash.
    assert_eq!(got, sent + 1);
    agent.process().logged(IN_USE);
    assert_eq!(agent.process().count("connection to the gateway lost"), 0);
    let after = agent.pair("");
    assert_ne!(after["key"], before["key"]);
    assert_eq!(agent.pair("-previous"), before);
    assert!(!agent.state.join("agent-pair-next.json").exists());
    drop(to);
    assert_eq!(gateway.ended(1), "clean");
    // The former connection carries nothing any more, and goes.
    until("one connection", SOON, || {
        (gateway.agents().len() == 1).then_some(())
    });
    let user = connect(gateway.ingress("target"));
    (&user).write_all(b"over the new one").unwrap();
    let mut text = [0; 16];
    target.accept().read_exact(&mut text).unwrap();
    assert_eq!(&text, b"over the new one");
}

#[test]
fn an_agent_that_dies_in_the_middle_of_a_renewal_comes_back() {
    let _machine = beside_others();
    for died_at in [
        "asking the gateway for a new certificate",
        "certificate renewed; the next connection proves it",
        IN_USE,
    ] {
        let bed = Bed::new();
        let mut agent = bed.agent;
        assert_eq!(agent.ask(&["agent", "renew"]).code, 0);
        agent.process().logged(died_at);
        agent.process_mut().kill();
        agent.serve(&bed.gateway);
        ping(&connect(bed.gateway.ingress("echo")), b"back");
        // Whatever was begun is ended, or was undone.
        until("one key pair", SOON, || {
            (!agent.state.join("agent-pair-next.json").exists()).then_some(())
        });
        agent.process_mut().kill();
        agent.serve(&bed.gateway);
        ping(&connect(bed.gateway.ingress("echo")), b"and again");
    }
}

#[test]
fn a_gateway_that_restarts_in_the_middle_of_a_renewal_takes_the_agent_back() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let ports = crate::harness::site::Ports {
        tunnel: crate::harness::site::free_udp_port(),
        enroll: 0,
    };
    let mut gateway = site.gateway_with("gw", "", ports, &forward("echo", target));
    gateway.start();
    let agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    assert_eq!(agent.ask(&["agent", "renew"]).code, 0);
    gateway.process().logged("certificate renewed");
    gateway.process_mut().kill();
    gateway.start();
    gateway.routes_to(&agent.id(), 1);
    ping(&connect(gateway.ingress("echo")), b"back");
}

#[test]
fn a_renewed_pair_that_the_gateway_does_not_know_is_dropped_at_once() {
    let _machine = beside_others();
    let bed = Bed::new();
    let mut agent = bed.agent;
    let elsewhere = bed.site.gateway("elsewhere", "");
    let stranger = bed.site.enrol("stranger", &elsewhere, "127.0.0.1/32");
    let mut unknown = stranger.pair("");
    unknown["gateway_ca"] = agent.pair("")["gateway_ca"].clone();
    agent.process_mut().kill();
    let next = agent.state.join("agent-pair-next.json");
    fs::write(&next, unknown.to_string()).unwrap();
    fs::set_permissions(&next, PermissionsExt::from_mode(0o600)).unwrap();
    // The other pair is tried at once, not after the minute that a refused identity waits.
    agent.serve(&bed.gateway);
    ping(&connect(bed.gateway.ingress("echo")), b"as before");
    agent
        .process()
        .logged("the renewed certificate did not lead to a connection; the former one stays");
    assert!(!next.exists());
    let renewal = until("the agent tells of it", SOON, || {
        let renewal = agent.status()["renewal"].clone();
        (renewal["state"] == "failed" && renewal["next_unix_s"].is_i64()).then_some(renewal)
    });
    let said = agent.ask(&["agent", "status"]).out;
    assert!(said.contains("; tried again at 20"), "{said}");
    assert_eq!(
        renewal["error"],
        "the renewed certificate did not lead to a connection"
    );
}

#[test]
fn a_gateway_that_is_restored_from_a_backup_takes_the_agent_back() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let ports = crate::harness::site::Ports {
        tunnel: crate::harness::site::free_udp_port(),
        enroll: 0,
    };
    let mut gateway = site.gateway_with("gw", "", ports, &forward("echo", target));
    gateway.start();
    let agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    gateway.process_mut().kill();
    let store = gateway.state.join("store.redb");
    let backup = fs::read(&store).unwrap();
    gateway.start();
    gateway.routes_to(&agent.id(), 1);
    let before = agent.pair("");
    assert_eq!(agent.ask(&["agent", "renew"]).code, 0);
    agent.process().logged(IN_USE);
    let renewed = agent.pair("");
    gateway.process_mut().kill();
    fs::write(&store, backup).unwrap();
    gateway.start();
    agent
        .process()
        .logged("the gateway takes the former certificate and not the present one, as after a restore from a backup");
    until("the former pair", SOON, || {
        (agent.pair("") == before).then_some(())
    });
    assert_eq!(agent.pair("-previous"), renewed);
    ping(&connect(gateway.ingress("echo")), b"back");
}

#[test]
fn a_second_wish_is_told_that_one_is_under_way() {
    let _machine = beside_others();
    let bed = Bed::new();
    assert_eq!(bed.agent.ask(&["agent", "renew"]).code, 0);
    let second = bed.agent.ask(&["agent", "renew"]);
    if second.code != 0 {
        second.fails(1, &["under way"]);
    }
    bed.agent.process().logged(IN_USE);
    let mut agent = bed.agent;
    agent.process_mut().kill();
    let ran = agent.ask(&["agent", "renew"]);
    ran.fails(5, &["nothing is running"]);
}

/// A gateway with a forward to an echo, and an agent that serves it.
struct Bed {
    site: Site,
    gateway: Gateway,
    agent: Agent,
}

impl Bed {
    fn new() -> Self {
        let (site, target) = (Site::new(), echo());
        let gateway = site.gateway("gw", &forward("echo", target));
        let agent = site.serving("site-a", &gateway, "127.0.0.1/32");
        Self {
            site,
            gateway,
            agent,
        }
    }
}

const BLOCK: usize = 256 << 10;
const BLOCKS: usize = 4_096;

/// Block n holds n everywhere, so that no two that follow one another are alike.
fn block(n: usize) -> Vec<u8> {
    vec![u8::try_from(n % 251).unwrap(); BLOCK]
}

fn send_gibibyte(mut to: TcpStream) -> u64 {
    for n in 0..BLOCKS {
        to.write_all(&block(n)).unwrap();
    }
    (BLOCK * BLOCKS) as u64
}

fn expected() -> Vec<u8> {
    let mut hash = Sha256::new();
    (0..BLOCKS).for_each(|n| hash.update(block(n)));
    hash.finalize().to_vec()
}

/// Reads so much, or to the end.
fn hash_some(mut from: &TcpStream, hash: &mut Sha256, most: u64) -> u64 {
    let mut buf = vec![0; BLOCK];
    let mut total = 0;
    while total < most {
        match from.read(&mut buf).unwrap() {
            0 => break,
            n => {
                hash.update(&buf[..n]);
                total += n as u64;
            }
        }
    }
    total
}
