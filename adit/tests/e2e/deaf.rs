//! Processes whose driver fails while it carries sessions: they end, and say why.

use std::io::Read;

use crate::harness::{
    beside_others,
    deaf::Deaf,
    process::Process,
    site::{Ports, Site},
    targets::{echo, ping},
    users::connect,
};

#[test]
fn a_gateway_ends_with_an_error_when_its_socket_fails_for_good() {
    let _machine = beside_others();
    let site = Site::new();
    let deaf = Deaf::new(&site);
    let mut gateway = site.gateway_with("gw", "", Ports::default(), &forward());
    gateway.spawn_through(|command| deaf.with(command));
    gateway.process().logged("gateway running");
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let mut user = connect(gateway.ingress("echo"));
    ping(&user, b"before");
    deaf.fail();
    ends(gateway.process_mut(), "the tunnel failed: ");
    assert!(user.read(&mut [0]).is_err(), "a cut is no clean end");
}

#[test]
fn an_agent_ends_with_an_error_when_its_socket_fails_for_good() {
    let _machine = beside_others();
    let site = Site::new();
    let deaf = Deaf::new(&site);
    let gateway = site.gateway("gw", &forward());
    let mut agent = site.enrol("site-a", &gateway, "127.0.0.1/32");
    agent.spawn_through(|command| deaf.with(command));
    gateway.routes_to(&agent.id(), 1);
    let mut user = connect(gateway.ingress("echo"));
    ping(&user, b"before");
    deaf.fail();
    ends(agent.process_mut(), "the agent failed: ");
    assert!(user.read(&mut [0]).is_err(), "a cut is no clean end");
}

/// Within the ten seconds for which a shortage may last, and with the system's words.
fn ends(process: &mut Process, says: &str) {
    assert_eq!(process.exit().code(), Some(1));
    let log = process.log.text();
    for part in [says, "Input/output error"] {
        assert!(log.contains(part), "`{part}` is not in {log}");
    }
}

/// A way in that leads to an echo.
fn forward() -> String {
    let target = echo();
    format!("[[forward]]\nname = \"echo\"\nlisten = \"127.0.0.1:0\"\ntarget = \"{target}\"\n")
}
