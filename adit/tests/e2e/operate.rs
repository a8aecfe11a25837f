//! What an operator does to running agents and sessions: look, drain, end.

use std::io::ErrorKind;

use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::harness::{
    SOON, beside_others,
    site::{Gateway, PROXIES, Ports, Site, forward, free_port, free_udp_port},
    targets::{Target, drain, echo, patient, ping},
    until,
    users::{connect, http_connect, socks},
};

#[test]
fn a_drained_agent_keeps_its_sessions_and_gets_no_new_ones() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let ports = Ports {
        tunnel: free_udp_port(),
        enroll: free_port(),
    };
    let mut gateway = site.gateway_with("gw", "", ports, PROXIES);
    gateway.start();
    let mut agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let target = target.to_string();
    let status = |gateway: &Gateway| http_connect(gateway.ingress("connect"), &target, "").0;
    let (_, user) = http_connect(gateway.ingress("connect"), &target, "");
    ping(&user, b"before");

    let ran = gateway.ask(&["agents", "drain", "site-a"]);
    let drained = format!("drained site-a ({}); sessions that go on: 1\n", agent.id());
    assert_eq!((ran.code, ran.out), (0, drained));
    assert_eq!(
        gateway.process().logged("agent drained")["agent"],
        agent.id()
    );
    assert_eq!(status(&gateway), 503);
    ping(&user, b"goes on");
    let listed = &gateway.agents()[0];
    assert_eq!(listed["status"], "online");
    assert_eq!(listed["drained"], true);
    let explain = |gateway: &Gateway| {
        let explained = gateway.ask(&["route", "explain", &target, "--json"]).json();
        (
            explained["candidates"].clone(),
            explained["passed_over"].clone(),
        )
    };
    let (candidates, passed_over) = explain(&gateway);
    assert_eq!(candidates, json!([]));
    let passed = json!([{
        "agent": agent.id(), "name": "site-a", "route": "127.0.0.1/32", "why": "drained",
    }]);
    assert_eq!(passed_over, passed);
    let told = gateway.ask(&["route", "explain", &target]).out;
    assert!(
        told.contains("no agent takes sessions at the moment"),
        "{told}"
    );
    assert!(told.contains("drained"), "{told}");

    // It lasts, over the agent's reconnection and the gateway's restart.
    drop(user);
    assert!(agent.process_mut().terminate().success());
    agent.serve(&gateway);
    assert_eq!(status(&gateway), 503);
    gateway.process_mut().kill();
    gateway.start();
    gateway.routes_to(&agent.id(), 1);
    assert_eq!(status(&gateway), 503);
    assert_eq!(explain(&gateway).1, passed);

    let ran = gateway.ask(&["agents", "drain", &agent.id(), "--undo"]);
    assert!(ran.out.contains("takes new sessions again"), "{ran:?}");
    gateway.process().logged("agent takes new sessions again");
    assert_eq!(status(&gateway), 200);
    assert_eq!(explain(&gateway).1, json!([]));
}

#[test]
fn a_killed_session_is_reset_at_both_ends_and_others_go_on() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), Target::listen());
    let gateway = site.gateway("gw", &forward("t", target.addr));
    let agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let [(user, accepted), (other_user, other)] = [(), ()].map(|()| {
        let user = connect(gateway.ingress("t"));
        (user, target.accept())
    });
    gateway.sessions_are(2);
    let address = user.local_addr().unwrap().to_string();
    let sessions = gateway.sessions();
    let session = sessions.iter().find(|s| s["user"] == address).unwrap();
    let id = session["id"].as_str().unwrap();

    let shown = gateway.ask(&["sessions", "show", id, "--json"]).json();
    for key in ["id", "user", "ingress", "target", "agent"] {
        assert_eq!(shown[key], session[key]);
    }
    crossing(&user, &accepted);
    let shown = gateway.ask(&["sessions", "show", id, "--json"]).json();
    assert_eq!([&shown["sent"], &shown["received"]], [4, 4], "{shown}");
    let shown = gateway.ask(&["sessions", "show", id]).out;
    assert!(
        shown.contains(&address) && shown.contains(&agent.id()),
        "{shown}"
    );

    let ran = gateway.ask(&["sessions", "kill", id]);
    assert_eq!(
        (ran.code, ran.out),
        (0, format!("ended {id} to {}\n", target.addr))
    );
    for end in [&user, &accepted] {
        assert_eq!(drain(end).1.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(gateway.ended(1), "ended by an operator");
    let line = gateway.process().logged("session killed");
    assert_eq!(line["session"], id);
    assert!(line["by"].as_str().unwrap().starts_with("uid "), "{line}");
    agent.process().logged("session ended");
    crossing(&other_user, &other);
    assert_eq!(gateway.sessions().len(), 1);
    for verb in ["show", "kill"] {
        gateway
            .ask(&["sessions", verb, id])
            .fails(1, &["no session", id]);
    }
}

#[test]
fn a_session_that_the_gateway_carries_itself_can_be_killed() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), Target::listen());
    let direct = format!("{PROXIES}[direct]\nallow = [\"127.0.0.1/32\"]");
    let gateway = site.gateway("gw", &direct);
    let user = socks(gateway.ingress("socks5"), &target.addr.to_string()).unwrap();
    let accepted = target.accept();
    crossing(&user, &accepted);
    let id = gateway.sessions()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(gateway.ask(&["sessions", "kill", &id]).code, 0);
    for end in [&user, &accepted] {
        assert_eq!(drain(end).1.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(gateway.ended(1), "ended by an operator");
    gateway.sessions_are(0);
}

#[test]
fn an_agent_is_shown_with_all_that_is_known_of_it() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), Target::listen());
    let gateway = site.gateway("gw", &forward("t", target.addr));
    let mut agent = site.enrol("site-a", &gateway, "127.0.0.1/32,*.corp.local");
    let show = |gateway: &Gateway| gateway.ask(&["agents", "show", "site-a", "--json"]).json();
    let offline = show(&gateway);
    assert_eq!(offline["connections"], json!([]));
    let offline = gateway.ask(&["agents", "show", "site-a"]).out;
    assert!(offline.contains("offline"), "{offline}");

    agent.serve(&gateway);
    let _user = connect(gateway.ingress("t"));
    let _accepted = target.accept();
    gateway.sessions_are(1);
    let shown = show(&gateway);
    assert_eq!(shown["id"], agent.id());
    assert_eq!(shown["drained"], false);
    assert_eq!(shown["renewed_key_sha256"], Value::Null);
    let pair = agent.pair("");
    let pem = pair["certificate"].as_str().unwrap().as_bytes();
    let der = CertificateDer::from_pem_slice(pem).unwrap();
    assert_eq!(shown["fingerprint"], adit::pki::hex(&Sha256::digest(&der)));
    assert_eq!(shown["key_sha256"].as_str().unwrap().len(), 64);
    let number = |key: &str| shown[key].as_i64().unwrap();
    let year = number("certificate_ends_unix_s") - number("enrolled_unix_s");
    assert!((360 * 86_400..=366 * 86_400).contains(&year), "{shown}");
    assert_eq!(shown["connections"][0]["status"], "online");
    assert_eq!(shown["connections"][0]["domains"], json!(["*.corp.local"]));
    let remote = shown["connections"][0]["remote"].as_str().unwrap();
    assert!(remote.starts_with("127.0.0.1:"), "{remote}");
    assert!(shown["connections"][0]["rtt_us"].as_u64() > Some(0));
    assert_eq!(shown["sessions"][0]["target"], target.addr.to_string());
    let text = gateway.ask(&["agents", "show", &agent.id()]).out;
    for part in [
        "site-a",
        "online",
        "*.corp.local",
        "certificate",
        "127.0.0.1/32",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[test]
fn what_names_nothing_or_several_is_told() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway("gw", "");
    let agents = ["one", "two"].map(|folder| {
        let agent = site.agent(folder);
        assert_eq!(agent.up(&gateway.token("db"), "", &[]).code, 0);
        agent.id()
    });
    let nobody = Uuid::new_v4().to_string();
    for verb in ["show", "delete", "drain"] {
        let ask = |which: &str| gateway.ask(&["agents", verb, which]);
        ask("db").fails(2, &["2 agents are named", &agents[0], &agents[1]]);
        ask(&nobody).fails(1, &["no agent", &nobody]);
        ask("").fails(1, &["no agent named"]);
        ask("db\u{1b}[2J\n").fails(1, &["\\u{1b}[2J\\n"]);
        ask(&"x".repeat(60_000)).fails(1, &["no agent named"]);
        gateway.ask(&["agents", verb]).fails(2, &["ID|NAME"]);
    }
    for args in [
        ["sessions", "show", "db"],
        ["sessions", "kill", "../etc"],
        ["token", "revoke", "eyJhbGciOiJFUzI1NiJ9"],
    ] {
        gateway.ask(&args).fails(2, &["invalid value"]);
    }
    gateway
        .ask(&["sessions", "kill", &nobody])
        .fails(1, &["no session"]);
    assert_eq!(gateway.enrolled().len(), 2, "nothing was changed");
    let ran = gateway.ask(&["agents", "delete", &agents[0]]);
    assert_eq!(ran.code, 0, "{ran:?}");
    until("the name is one agent's", SOON, || {
        let ran = gateway.ask(&["agents", "show", "db", "--json"]);
        (ran.json()["id"] == agents[1]).then_some(())
    });
}

/// Sends a word each way.
fn crossing(user: &std::net::TcpStream, accepted: &std::net::TcpStream) {
    for tcp in [user, accepted] {
        patient(tcp);
    }
    for (mut from, to) in [(user, accepted), (accepted, user)] {
        std::io::Write::write_all(&mut from, b"word").unwrap();
        crate::harness::targets::expect(to, b"word");
    }
}
