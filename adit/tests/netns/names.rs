//! A name that leads elsewhere from one session to the next, with the system's resolver.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
};

use crate::{
    harness::{
        beside_others,
        site::Agent,
        targets::{Target, expect},
        users::connect,
    },
    lab::{Lab, with_hosts},
};

#[test]
fn each_session_goes_where_its_name_leads_then_and_to_no_forbidden_address() {
    let _machine = beside_others();
    let lab = Lab::new(1);
    let forward = format!(
        "[[forward]]\nname = \"name\"\nlisten = \"127.0.0.1:0\"\ntarget = \"{TARGET_NAME}:{PORT}\"\n"
    );
    let gateway = lab.start_gateway(&forward);
    let host = &lab.agents[0];
    for addr in [ONE, OTHER, METADATA] {
        host.ip(&format!("address add {addr}/32 dev lo"));
    }
    let hosts = lab.site.path("hosts");
    fs::write(&hosts, "").unwrap();
    let mut agent = host.within(|| lab.site.enrol("site-0", &gateway, TARGET_NAME));
    agent.launcher = with_hosts(&hosts);
    host.within(|| agent.serve(&gateway));
    let listen = |addr: &str| host.within(|| Target::listen_at(&format!("{addr}:{PORT}")));
    let targets = [ONE, OTHER].map(|addr| (addr, listen(addr)));
    // Somebody is there, so that only the agent keeps users away.
    let forbidden = ["127.0.0.1", METADATA].map(|addr| (addr, listen(addr)));
    let session = || {
        let ingress = gateway.ingress("name");
        lab.gateway.within(|| connect(ingress))
    };
    let lead = |addrs: &[&str]| {
        let line = |addr: &&str| format!("{addr} {TARGET_NAME}\n");
        // In place, as the file is bound to its name.
        fs::write(&hosts, addrs.iter().map(line).collect::<String>()).unwrap();
    };
    let mut open: Vec<(TcpStream, TcpStream)> = Vec::new();
    let mut refused = 0;
    for _ in 0..2 {
        for (addr, target) in &targets {
            lead(&[*addr]);
            let user = session();
            open.push((user, target.accept()));
        }
        for (addr, target) in &forbidden {
            lead(&[*addr]);
            refused += 1;
            let ended = session().read(&mut [0]);
            assert!(!matches!(ended, Ok(1..)), "{ended:?}");
            let error = refusal(&agent, refused);
            assert!(error.contains(addr), "{error}");
            assert!(target.untouched());
        }
        // Of several addresses the allowed one, wherever it stands.
        let (addr, target) = &targets[1];
        lead(&["127.0.0.1", METADATA, *addr]);
        let user = session();
        open.push((user, target.accept()));
    }
    // What is open stays where it was led.
    assert_eq!(open.len(), 6);
    for (user, far) in &mut open {
        user.write_all(b"to").unwrap();
        expect(far, b"to");
        far.write_all(b"and back").unwrap();
        expect(user, b"and back");
    }
}

/// Why the n-th session was refused.
fn refusal(agent: &Agent, n: usize) -> String {
    let line = agent.process().logged_nth("session refused", n);
    line["error"].as_str().unwrap().to_owned()
}

const TARGET_NAME: &str = "db.corp.test";
const PORT: u16 = 7000;
const ONE: &str = "10.97.0.1";
const OTHER: &str = "10.97.0.2";
const METADATA: &str = "169.254.169.254";
