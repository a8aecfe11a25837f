//! Who may connect: certificates of another gateway, records that are gone, strings that are used up.

use std::fs;

use crate::harness::{
    SOON, beside_others,
    site::{Ports, Site, forward},
    targets::{echo, ping},
    until,
    users::connect,
};

#[test]
fn an_agent_of_another_gateway_is_refused_and_told() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let gateway = site.gateway("gw", &forward("echo", target));
    let other = site.gateway("other", "");
    let mut stranger = site.enrol("stranger", &other, "127.0.0.1/32");
    // Its gateway moves: same name and trust at the agent, another CA at the gateway.
    let own = site.enrol("own", &gateway, "127.0.0.1/32");
    let mut pair = stranger.pair("");
    pair["gateway_ca"] = own.pair("")["gateway_ca"].clone();
    fs::write(stranger.state.join("agent-pair.json"), pair.to_string()).unwrap();
    let mut record = stranger.record();
    for key in ["quic_endpoints", "server_spki_sha256"] {
        record[key] = own.record()[key].clone();
    }
    fs::write(stranger.state.join("agent.json"), record.to_string()).unwrap();
    stranger.spawn();
    stranger
        .process()
        .logged("waiting before the next attempt to connect");
    let failed = gateway
        .process()
        .logged("handshake failed; is the agent enrolled with this gateway?");
    assert_eq!(failed["level"], "WARN");
    let status = stranger.status();
    assert_eq!(status["connected"], false);
    let error = status["last_error"].as_str().unwrap();
    assert!(
        error.contains("refused") || error.contains("certificate"),
        "{error}"
    );
    assert_eq!(gateway.agents().len(), 0);
    // One line for the burst of further attempts.
    for _ in 0..3 {
        stranger.process_mut().kill();
        stranger.spawn();
        stranger
            .process()
            .logged("waiting before the next attempt to connect");
    }
    let lines = gateway
        .process()
        .count("handshake failed; is the agent enrolled with this gateway?");
    assert_eq!(lines, 1);
    assert!(!gateway.process().log.text().contains("agent connected"));
}

#[test]
fn an_agent_without_a_record_is_refused_until_it_enrols_again() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let ports = Ports {
        tunnel: crate::harness::site::free_udp_port(),
        enroll: crate::harness::site::free_port(),
    };
    let mut gateway = site.gateway_with("gw", "", ports, &forward("echo", target));
    gateway.start();
    let mut agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    assert!(gateway.process_mut().terminate().success());
    agent.process().logged("connection to the gateway lost");
    fs::remove_file(gateway.state.join("store.redb")).unwrap();
    gateway.start();
    gateway.process().logged("agent refused");
    let error = until("the agent says why", SOON, || {
        let status = agent.status();
        let error = status["last_error"].as_str()?.to_owned();
        error.contains("refused").then_some(error)
    });
    eprintln!("last error of a refused agent: {error}");
    assert_eq!(gateway.agents().len(), 0);
    assert!(agent.process_mut().terminate().success());
    let ran = agent.up(&gateway.token("site-a"), "127.0.0.1/32", &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    agent.serve(&gateway);
    ping(&connect(gateway.ingress("echo")), b"enrolled again");
}

#[test]
fn an_enrolment_string_is_good_once_and_for_its_gateway() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway("gw", "");
    let token = gateway.token("site-a");
    let ran = site.agent("one").up(&token, "10.0.0.0/8", &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let second = site.agent("two").up(&token, "10.0.0.0/8", &[]);
    second.fails(4, &["used", "create a new one"]);
    assert!(!site.path("two").join("agent.json").exists());

    let other = site.gateway("other", "");
    let foreign = other.token("site-b");
    let url = format!("https://{}", gateway.address("enroll"));
    let ran = site.agent("three").up(&foreign, "", &["--gateway", &url]);
    // The string pins its own gateway's key, so it does not even get there.
    assert!(ran.code == 4 || ran.code == 5, "{ran:?}");
    assert!(!site.path("three").join("agent.json").exists());
    let ran = site.agent("four").up("not.a.string", "", &[]);
    ran.fails(2, &["not an enrolment string"]);
}

#[test]
fn a_foreign_string_without_a_pin_is_refused_by_the_gateway() {
    let _machine = beside_others();
    let site = Site::new();
    let plain = "[enroll]\nlisten = \"127.0.0.1:0\"\ninsecure_http = true\n";
    let (gateway, other) = (site.gateway("gw", plain), site.gateway("other", plain));
    let url = format!("http://{}", gateway.address("enroll"));
    let foreign = other.token("site-a");
    let ran = site
        .agent("one")
        .up(&foreign, "", &["--allow-http", "--gateway", &url]);
    ran.fails(4, &["another gateway", "create a new one"]);
    // It was not spent by that.
    let ran = site.agent("two").up(&foreign, "", &["--allow-http"]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn a_used_string_stays_used_over_a_restart() {
    let _machine = beside_others();
    let site = Site::new();
    let ports = Ports {
        tunnel: 0,
        enroll: crate::harness::site::free_port(),
    };
    let mut gateway = site.gateway_with("gw", "", ports, "");
    gateway.start();
    let (used, fresh) = (gateway.token("a"), gateway.token("b"));
    assert_eq!(site.agent("one").up(&used, "", &[]).code, 0);
    gateway.process_mut().kill();
    gateway.start();
    let again = site.agent("two").up(&used, "", &[]);
    again.fails(4, &["create a new one"]);
    let ran = site.agent("three").up(&fresh, "", &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
}
