//! Many sessions through one agent.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Instant,
};

use crate::harness::{
    SOON, alone, many_files,
    site::{Site, forward},
    targets::{echo, ping},
    until,
    users::connect,
};

#[test]
fn two_thousand_sessions_are_open_at_once_and_leave_nothing_behind() {
    let _machine = alone();
    many_files();
    let (site, target) = (Site::new(), echo());
    let gateway = site.gateway("gw", &forward("echo", target));
    let agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let ingress = gateway.ingress("echo");
    ping(&connect(ingress), b"warm");
    gateway.sessions_are(0);
    let memory = || (gateway.process().memory(), agent.process().memory());
    let before = memory();
    let start = Instant::now();
    let users: Vec<TcpStream> = (0..COUNT).map(|_| connect(ingress)).collect();
    for (number, mut user) in users.iter().enumerate() {
        user.write_all(&number.to_be_bytes()).unwrap();
    }
    for (number, mut user) in users.iter().enumerate() {
        let mut got = [0; 8];
        user.read_exact(&mut got).unwrap();
        assert_eq!(usize::from_be_bytes(got), number);
    }
    eprintln!("{COUNT} sessions open and answered: {:?}", start.elapsed());
    assert_eq!(gateway.sessions().len(), COUNT);
    let open = memory();
    drop(users);
    gateway.sessions_are(0);
    until("the agent has none left", SOON, || {
        (agent.status()["sessions"] == 0).then_some(())
    });
    let after = memory();
    ping(&connect(ingress), b"one more");
    let mib = |(gateway, agent): (u64, u64)| (gateway >> 20, agent >> 20);
    eprintln!(
        "memory of gateway and agent in MiB: {:?} before, {:?} with {COUNT} sessions, {:?} after",
        mib(before),
        mib(open),
        mib(after)
    );
    assert!(open.0 - before.0 < GROWTH && open.1 - before.1 < GROWTH);
}

const COUNT: usize = 2_000;
const GROWTH: u64 = 200 << 20;
