//! A path that has room for small packets only and tells nobody.

use std::time::Instant;

use crate::{
    address::same_connection,
    harness::alone,
    lab::{Lab, host, passes},
    transfer::{MEGABYTE, exchange, exchange_over_change},
};

#[test]
fn a_tunnel_works_over_a_path_of_1300_bytes() {
    let _machine = alone();
    let lab = Lab::new(1);
    let gateway = lab.start_gateway("");
    // Enrolled before, as that is over TCP, which needs what this path does not do.
    let mut agent = lab.agents[0].within(|| lab.site.enrol("site-0", &gateway, "127.0.0.1/32"));
    narrow(&lab);
    lab.agents[0].within(|| agent.serve(&gateway));
    let target = lab.target(0);
    let user = lab.user(&gateway);
    let far = target.accept();
    let start = Instant::now();
    exchange(&user, &far, 10 * MEGABYTE);
    eprintln!("10 MB each way over 1300 bytes: {:?}", start.elapsed());
    same_connection(&gateway, &agent);
}

#[test]
fn a_transfer_goes_on_when_the_path_narrows_to_1300_bytes() {
    let _machine = alone();
    let lab = Lab::new(1);
    let gateway = lab.start_gateway("");
    let agent = lab.serving(0, &gateway);
    let target = lab.target(0);
    let user = lab.user(&gateway);
    let far = target.accept();
    let start = Instant::now();
    let longest = exchange_over_change(&user, &far, 100 * MEGABYTE, || narrow(&lab));
    eprintln!(
        "100 MB each way over the change: {:?}, longest wait {longest:?}",
        start.elapsed()
    );
    same_connection(&gateway, &agent);
}

/// Has the router drop packets of more than 1300 bytes, both ways, without a word.
fn narrow(lab: &Lab) {
    lab.router.ip("rule add ipproto icmp blackhole");
    for port in ["net0", "net1"] {
        lab.router.ip(&format!("link set {port} mtu 1300"));
    }
    let arrives = |length| passes(&lab.agents[0], &lab.gateway, host(0).into(), length);
    // With the headers of IP and UDP.
    assert!(arrives(1_300 - 28));
    assert!(!arrives(1_300 - 27));
}
