//! A network that is away for some seconds.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{
    harness::{
        SOON, beside_others,
        targets::{echo_at, ping},
        until,
    },
    lab::{Lab, TARGET, host, router},
};

#[test]
fn an_agent_is_back_soon_after_its_packets_pass_again() {
    let cut = |lab: &Lab| lab.swallow(host(1).into());
    let mend = |lab: &Lab| lab.let_pass(host(1).into());
    is_back(cut, mend);
}

#[test]
fn an_agent_is_back_soon_after_its_own_link() {
    let cut = |lab: &Lab| lab.agents[0].ip("link set eth0 down");
    let mend = |lab: &Lab| {
        lab.agents[0].ip("link set eth0 up");
        lab.agents[0].ip(&format!("route add default via {}", router(1)));
    };
    is_back(cut, mend);
}

fn is_back(cut: impl FnOnce(&Lab), mend: impl FnOnce(&Lab)) {
    let _machine = beside_others();
    let lab = Lab::new(1);
    let gateway = lab.start_gateway("");
    let agent = lab.serving(0, &gateway);
    lab.agents[0].within(|| echo_at(TARGET));
    ping(&lab.user(&gateway), b"before");

    let begin = Instant::now();
    cut(&lab);
    agent.process().logged("connection to the gateway lost");
    until("the outage has lasted", SOON, || {
        (begin.elapsed() >= OUTAGE).then_some(())
    });
    let mended = Instant::now();
    mend(&lab);
    until("a session works", SOON, || works(&lab.user(&gateway)));
    let took = mended.elapsed();
    eprintln!("a session works {took:?} after the network");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(agent.process().count("connected to the gateway"), 2);
}

/// Without an agent a user's connection is closed at once.
fn works(mut user: &TcpStream) -> Option<()> {
    user.write_all(b"hello").ok()?;
    user.read_exact(&mut [0; 5]).ok()
}

const OUTAGE: Duration = Duration::from_secs(6);
