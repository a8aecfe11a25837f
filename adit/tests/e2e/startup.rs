//! What cannot start says why, and ends with the right code.

use std::{fs, net::TcpListener, net::UdpSocket};

use crate::harness::{
    beside_others,
    site::{Ports, Site, forward_at, free_port},
};

#[test]
fn without_a_gateway_its_verbs_end_with_5() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway_with("gw", "", Ports::default(), "");
    for verb in [
        &["agents", "list", "--json"][..],
        &["sessions", "list"],
        &["route", "explain", "a:1"],
        &["token", "create", "--name", "x"],
    ] {
        gateway.ask(verb).fails(5, &["nothing is running"]);
    }
}

#[test]
fn a_killed_gateway_leaves_nothing_that_answers_or_blocks() {
    let _machine = beside_others();
    let site = Site::new();
    let mut gateway = site.gateway("gw", "");
    gateway.process_mut().kill();
    gateway
        .ask(&["agents", "list"])
        .fails(5, &["nothing is running"]);
    gateway.start();
    assert_eq!(gateway.agents().len(), 0);
}

#[test]
fn a_state_folder_serves_one_gateway() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway("gw", "");
    let second = gateway.ask(&["gateway", "run"]);
    second.fails(1, &["in use by another adit process"]);
    assert!(second.err.contains(gateway.state.to_str().unwrap()));
    assert_eq!(gateway.agents().len(), 0, "the first one goes on");
}

#[test]
fn ports_in_use_are_named() {
    let _machine = beside_others();
    let site = Site::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = taken.local_addr().unwrap();
    let ports = Ports {
        enroll: tcp.port(),
        tunnel: 0,
    };
    let gateway = site.gateway_with("enroll", "", ports, "");
    let ran = gateway.ask(&["gateway", "run"]);
    ran.fails(1, &["enroll", &tcp.to_string(), "in use"]);

    let rest = forward_at("web", tcp.port(), "10.0.0.1:80");
    let gateway = site.gateway_with("forward", "", Ports::default(), &rest);
    let ran = gateway.ask(&["gateway", "run"]);
    ran.fails(1, &["`web`", &tcp.to_string(), "in use"]);

    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp = taken.local_addr().unwrap();
    let ports = Ports {
        tunnel: udp.port(),
        enroll: 0,
    };
    let gateway = site.gateway_with("tunnel", "", ports, "");
    let ran = gateway.ask(&["gateway", "run"]);
    ran.fails(1, &["UDP", &udp.to_string(), "in use"]);
}

#[test]
fn a_state_folder_that_cannot_be_written_is_named() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway_with("gw", "", Ports::default(), "");
    // A file in the way stops everybody, root too.
    fs::write(site.path("file"), "").unwrap();
    let state = site.path("file/state");
    let ran = gateway.ask(&["gateway", "run", "--state-dir", state.to_str().unwrap()]);
    ran.fails(1, &["state folder", state.to_str().unwrap()]);
}

#[test]
fn unknown_keys_and_open_proxies_are_refused_before_anything_starts() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway_with("key", "grase = \"1s\"", Ports::default(), "");
    let ran = gateway.ask(&["gateway", "run"]);
    ran.fails(3, &["key.toml:2: unknown key `grase`"]);
    assert!(!gateway.state.exists(), "nothing was made");

    let port = free_port();
    for kind in ["socks5", "http_connect"] {
        let rest = format!("[[{kind}]]\nname = \"p\"\nlisten = \"0.0.0.0:{port}\"\n");
        let gateway = site.gateway_with(kind, "", Ports::default(), &rest);
        let ran = gateway.ask(&["gateway", "run"]);
        ran.fails(3, &["open proxy", "users_file"]);
        assert!(!gateway.state.exists(), "nothing was made");
    }
}

#[test]
fn an_agent_that_is_not_enrolled_says_what_to_do() {
    let _machine = beside_others();
    let site = Site::new();
    fs::create_dir(site.path("empty")).unwrap();
    let state = site.path("empty");
    let ran = site.run(&["--state-dir", state.to_str().unwrap(), "agent", "run"]);
    ran.fails(1, &["not enrolled", "adit agent up"]);
}
