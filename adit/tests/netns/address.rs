//! An agent whose own address changes while it carries a session.

use std::time::{Duration, Instant};

use crate::{
    harness::{
        SOON, alone,
        site::{Agent, Gateway},
        until,
    },
    lab::Lab,
    transfer::{MEGABYTE, exchange_over_change},
};

#[test]
fn a_transfer_goes_on_when_the_agents_address_changes() {
    goes_on(|lab| {
        let agent = &lab.agents[0];
        agent.ip("address add 10.98.1.2/24 dev eth0");
        agent.ip("route replace default via 10.98.1.1");
        agent.ip("address delete 10.99.1.2/24 dev eth0");
    });
}

#[test]
fn a_transfer_goes_on_when_the_agents_link_is_down_for_a_second_and_its_address_is_another_one() {
    goes_on(|lab| {
        let agent = &lab.agents[0];
        agent.ip("link set eth0 down");
        agent.ip("address flush dev eth0");
        let down = Instant::now();
        until("a second is over", SOON, || {
            (down.elapsed() >= Duration::from_secs(1)).then_some(())
        });
        agent.ip("link set eth0 up");
        agent.ip("address add 10.98.1.2/24 dev eth0");
        agent.ip("route add default via 10.98.1.1");
    });
}

/// Transfers 200 MB each way, over a change in the middle.
fn goes_on(change: impl FnOnce(&Lab)) {
    let _machine = alone();
    let lab = Lab::new(1);
    lab.router.ip("address add 10.98.1.1/24 dev net1");
    let gateway = lab.start_gateway("");
    let agent = lab.serving(0, &gateway);
    let target = lab.target(0);
    let user = lab.user(&gateway);
    let far = target.accept();
    let start = Instant::now();
    let longest = exchange_over_change(&user, &far, 200 * MEGABYTE, || change(&lab));
    let took = start.elapsed();
    eprintln!("200 MB each way over the change: {took:?}, longest wait {longest:?}");
    same_connection(&gateway, &agent);
}

/// Checks that neither end has had another connection than the first.
pub(crate) fn same_connection(gateway: &Gateway, agent: &Agent) {
    let (gateway, agent) = (gateway.process(), agent.process());
    assert_eq!(gateway.count("agent connected"), 1);
    assert_eq!(gateway.count("agent disconnected"), 0);
    assert_eq!(agent.count("connected to the gateway"), 1);
    assert_eq!(agent.count("connection to the gateway lost"), 0);
}
