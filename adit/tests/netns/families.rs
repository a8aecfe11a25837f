//! A gateway with an IPv6 and an IPv4 address, one of which leads nowhere.

use std::{
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::{
    harness::{
        beside_others,
        targets::{echo_at, ping},
    },
    lab::{Lab, NAME, TARGET, TUNNEL_PORT, host, host6, with_hosts},
};

#[test]
fn an_agent_enrols_and_connects_by_ipv4_where_ipv6_leads_nowhere() {
    connects_without(host6(0).into());
}

#[test]
fn an_agent_enrols_and_connects_by_ipv6_where_ipv4_leads_nowhere() {
    connects_without(host(0).into());
}

fn connects_without(dead: IpAddr) {
    let _machine = beside_others();
    let lab = Lab::new(1);
    let gateway = lab.start_gateway(&format!("public_endpoint = \"{NAME}:{TUNNEL_PORT}\""));
    let url = format!("https://{NAME}:7171");
    let token = gateway.ask(&["token", "create", "--name", "site-0", "--url", &url]);
    let hosts = lab.site.path("hosts");
    fs::write(&hosts, format!("{} {NAME}\n{} {NAME}\n", host6(0), host(0))).unwrap();
    let mut agent = lab.site.agent("site-0");
    agent.launcher = with_hosts(&hosts);

    lab.swallow(dead);
    let start = Instant::now();
    let ran = lab.agents[0].within(|| agent.up(token.out.trim(), "127.0.0.1/32", &[]));
    assert_eq!(ran.code, 0, "{ran:?}");
    let enrolled = start.elapsed();
    let start = Instant::now();
    lab.agents[0].within(|| agent.serve(&gateway));
    let connected = start.elapsed();
    eprintln!("without {dead}: enrolled after {enrolled:?}, connected after {connected:?}");
    assert!(enrolled < Duration::from_secs(3), "{enrolled:?}");
    assert!(connected < Duration::from_secs(3), "{connected:?}");
    lab.agents[0].within(|| echo_at(TARGET));
    ping(&lab.user(&gateway), b"by the other address");
}
