//! Users with association tokens who come in by WebSocket.

use std::{fs, io::Write as _, net::Shutdown, sync::Arc};

use rustix::process::Signal;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use uuid::Uuid;

use crate::harness::{
    SOON, beside_others, block_on,
    console::{Console, METRICS, metrics},
    site::{Ports, Site},
    targets::{GREETING, Refusing, Target, drain, echo, expect, greeter, reset},
    tls_target::TlsTarget,
    until,
    websocket::{association, enter, open, path, upgrade},
};

#[test]
fn a_token_opens_one_session_over_tls_and_operators_see_it() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let console = Console::new(&site);
    // The listener's own certificate, as users elsewhere see it.
    let rest = format!(
        "[provisioner]\npublic_key_file = {:?}\n{METRICS}",
        console.public
    );
    let gateway = site.gateway("gw", &rest);
    let agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let claims = association(target);
    let token = console.sign("ASSOCIATION", &claims);
    let at = path("tcp", &claims);
    let secure = || {
        let root = gateway.state.join("ca-cert.pem");
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(root).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = block_on(TcpStream::connect(gateway.address("enroll"))).unwrap();
        let addr = tcp.local_addr().unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = block_on(TlsConnector::from(Arc::new(config)).connect(name, tcp)).unwrap();
        (addr, Box::new(tls))
    };
    let (addr, tls) = secure();
    let mut user = upgrade(addr, tls, &at, &token).map_err(|e| e.0).unwrap();
    user.echoes(b"through the tunnel");
    user.echoes(&[7; 300_000]);

    // The session has the id that the token gave it, here and at the agent.
    let sessions = gateway.sessions();
    let id = claims["jet_aid"].as_str().unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0]["id"], id);
    assert_eq!(sessions[0]["ingress"], "websocket");
    assert_eq!(sessions[0]["user"], user.addr.to_string());
    assert_eq!(sessions[0]["agent"], agent.id());
    let line = gateway.process().logged("association token used");
    assert_eq!(
        (&line["session"], &line["jti"]),
        (&json!(id), &claims["jti"])
    );

    // Once means once, while the session goes on.
    let (addr, tls) = secure();
    let (status, body) = upgrade(addr, tls, &at, &token).map(|_| ()).unwrap_err();
    assert_eq!(
        (status, &body["type"]),
        (401, &json!("urn:adit:problem:used"))
    );

    let ran = gateway.ask(&["sessions", "kill", id]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let told = (
        1011,
        "the session was reset: ended by an operator".to_owned(),
    );
    assert_eq!(user.farewell(), told);
    assert_eq!(gateway.ended(1), "ended by an operator");
    let now = metrics(&gateway);
    for (name, value) in [("accepted", 2), ("opened", 1), ("unauthorised", 1)] {
        let name = format!("adit_ingress_{name}_total{{ingress=\"websocket\"}}");
        assert_eq!(now.value(&name), value, "{name}");
    }
    assert_eq!(now.value("adit_tokens_refused_total{cause=\"used\"}"), 1);
}

#[test]
fn ends_and_resets_pass_in_both_directions() {
    let _machine = beside_others();
    let (site, target, greeter) = (Site::new(), Target::listen(), greeter());
    let console = Console::new(&site);
    let gateway = site.gateway("gw", &console.sections());
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let come = |claims: &Value| open(&gateway, &console, "tcp", claims);

    // The target's end.
    let mut user = come(&association(greeter));
    user.expect(GREETING);
    assert_eq!(user.farewell(), (1000, String::new()));
    assert_eq!(gateway.ended(1), "clean");

    // The user's Close.
    let mut user = come(&association(target.addr));
    let accepted = target.accept();
    user.send(b"question");
    user.close();
    assert!(matches!(drain(&accepted), (8, Ok(()))));
    drop(accepted);
    assert_eq!(gateway.ended(2), "clean");

    // A user who vanishes.
    let mut user = come(&association(target.addr));
    let accepted = target.accept();
    user.send(b"half a ques");
    expect(&accepted, b"half a ques");
    drop(user);
    assert!(drain(&accepted).1.is_err());

    // A target that resets, behind what it has sent.
    let mut user = come(&association(target.addr));
    let mut accepted = target.accept();
    user.send(b"?");
    expect(&accepted, b"?");
    accepted.write_all(b"half an ans").unwrap();
    user.expect(b"half an ans");
    reset(accepted);
    let (code, reason) = user.farewell();
    assert_eq!(code, 1011);
    assert!(reason.contains("reset by the other end"), "{reason}");
    gateway.sessions_are(0);
}

#[test]
fn a_target_that_the_gateway_dials_itself_is_like_any_other() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let console = Console::new(&site);
    let sections = format!("{}[direct]\nallow = [\"127.0.0.1\"]\n", console.sections());
    let gateway = site.gateway("gw", &sections);
    let mut user = open(&gateway, &console, "tcp", &association(target));
    user.echoes(&[5; 100_000]);
    user.close();
    assert_eq!(gateway.ended(1), "clean");
    let claims = association(target);
    let mut user = open(&gateway, &console, "tcp", &claims);
    user.echoes(b"x");
    let id = claims["jet_aid"].as_str().unwrap();
    assert_eq!(gateway.ask(&["sessions", "kill", id]).code, 0);
    let told = (
        1011,
        "the session was reset: ended by an operator".to_owned(),
    );
    assert_eq!(user.farewell(), told);
    assert_eq!(gateway.ended(2), "ended by an operator");
}

#[test]
fn an_idle_user_is_pinged() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let console = Console::new(&site);
    let sections = format!("{}[websocket]\nping = \"100ms\"\n", console.sections());
    let gateway = site.gateway("gw", &sections);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let mut user = open(&gateway, &console, "tcp", &association(target));
    user.pinged();
    user.pinged();
    user.echoes(b"and still a session");
    user.close();
    assert_eq!(gateway.ended(1), "clean");
}

#[test]
fn targets_are_tried_in_turn_and_a_named_agent_carries_them() {
    let _machine = beside_others();
    let (site, target, refusing) = (Site::new(), echo(), Refusing::new());
    let console = Console::new(&site);
    let gateway = site.gateway("gw", &console.sections());
    let near = site.serving("near", &gateway, "127.0.0.1/32");
    let far = site.serving("far", &gateway, "127.0.0.0/8");
    let mut claims = association(refusing.addr());
    claims["dst_alt"] = json!(["192.0.2.1:1", format!("tcp://{target}")]);
    open(&gateway, &console, "tcp", &claims).echoes(b"third time lucky");
    gateway
        .process()
        .logged_nth("target not reached; trying the next one", 2);

    for agent in [&near, &far] {
        let mut claims = association(target);
        claims["jet_agent_id"] = json!(agent.id());
        let mut user = open(&gateway, &console, "tcp", &claims);
        user.echoes(b"x");
        let of = |row: &Value| row["id"] == claims["jet_aid"];
        let sessions = gateway.sessions();
        let session = sessions.iter().find(|row| of(row)).unwrap();
        assert_eq!(session["agent"], agent.id());
    }
    // Nobody to be asked instead (agent-tunnel 10).
    let mut nobody = association(target);
    nobody["jet_agent_id"] = json!(Uuid::new_v4());
    let mut all = association(refusing.addr());
    all["dst_alt"] = json!(["192.0.2.1:1"]);
    for (claims, says) in [
        (association("192.0.2.1:1"), "192.0.2.1:1: "),
        (nobody, "127.0.0.1:"),
        (all, "every candidate failed: "),
    ] {
        let (code, reason) = open(&gateway, &console, "tcp", &claims).farewell();
        assert_eq!(code, 1014, "{reason}");
        assert!(reason.contains(says), "{reason}");
    }
}

#[test]
fn the_gateway_speaks_tls_to_targets_that_it_can_tell() {
    let _machine = beside_others();
    let site = Site::new();
    let console = Console::new(&site);
    let target = TlsTarget::new();
    let roots = site.path("roots.pem");
    fs::write(&roots, &target.pem).unwrap();
    let trusting = format!(
        "{}[websocket]\ntarget_roots = {roots:?}\n",
        console.sections()
    );
    let named = format!("localhost:{}", target.addr.port());
    for (name, sections) in [("plain", console.sections()), ("trusting", trusting)] {
        let gateway = site.gateway(name, &sections);
        let agent = format!("agent-{name}");
        let _agent = site.serving(&agent, &gateway, "127.0.0.1/32,localhost");
        let come = |target: &str, pin: Option<String>| {
            let mut claims = association(target);
            claims["cert_thumb256"] = json!(pin);
            open(&gateway, &console, "tls", &claims)
        };
        let mut user = come(&target.addr.to_string(), Some(target.pin()));
        user.echoes(b"over TLS");
        user.close();
        let (code, reason) = come(&named, Some("00".repeat(32))).farewell();
        assert_eq!(code, 1014, "{reason}");
        assert!(reason.contains("TLS with the target failed"), "{reason}");
        if name == "trusting" {
            let mut user = come(&named, None);
            user.echoes(&[9; 100_000]);
            user.close();
            // The first does not speak TLS, and the second has another certificate.
            let mut claims = association(echo());
            claims["dst_alt"] = json!([target.addr.to_string(), named]);
            let mut user = open(&gateway, &console, "tls", &claims);
            user.echoes(b"the third one");
            user.close();
            // The certificate is for another name.
            let (code, reason) = come(&target.addr.to_string(), None).farewell();
            assert_eq!(code, 1014, "{reason}");
        } else {
            assert_eq!(come(&named, None).farewell().0, 1014);
        }
        let (code, reason) = come(&greeter().to_string(), Some(target.pin())).farewell();
        assert_eq!(code, 1014, "{reason}");
        gateway.sessions_are(0);
    }
}

#[test]
fn users_who_read_nothing_cost_a_bounded_amount() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), Target::listen());
    let console = Console::new(&site);
    let gateway = site.gateway("gw", &console.sections());
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let before = gateway.process().memory();
    let mut users: Vec<_> = (0..4)
        .map(|_| open(&gateway, &console, "tcp", &association(target.addr)))
        .collect();
    let full: Vec<_> = users.iter().map(|_| target.accept()).map(fill).collect();
    for user in &mut users {
        for _ in 0..20_000 {
            user.ping();
        }
    }
    // Others are served meanwhile.
    let mut other = open(&gateway, &console, "tcp", &association(echo()));
    other.echoes(&[1; 100_000]);
    let grown = gateway.process().memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes for four users");
    drop((full, users));
    gateway.process().logged_nth("session ended", 4);
}

#[test]
fn a_user_who_reads_nothing_goes_when_the_session_is_killed() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), Target::listen());
    let console = Console::new(&site);
    let rest = format!("{}[websocket]\nsessions = 1\n", console.sections());
    let gateway = site.gateway("gw", &rest);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let claims = association(target.addr);
    let deaf = open(&gateway, &console, "tcp", &claims);
    let _full = fill(target.accept());
    let next = association(echo());
    let token = console.sign("ASSOCIATION", &next);
    let enter = || enter(&gateway, &path("tcp", &next), &token);
    assert_eq!(enter().map(|_| ()).unwrap_err().0, 503);
    let id = claims["jet_aid"].as_str().unwrap();
    assert_eq!(gateway.ask(&["sessions", "kill", id]).code, 0);
    let mut user = until("the place is free", SOON, || enter().ok());
    user.echoes(b"another user");
    drop(deaf);
}

#[test]
fn a_stopping_gateway_lets_sessions_end_and_tells_the_rest() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), Target::listen());
    let console = Console::new(&site);
    let head = "grace = \"1s\"";
    let mut gateway = site.gateway_with("gw", head, Ports::default(), &console.sections());
    gateway.start();
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let mut ending = open(&gateway, &console, "tcp", &association(target.addr));
    let mut accepted = target.accept();
    let staying = open(&gateway, &console, "tcp", &association(target.addr));
    let _held = target.accept();
    gateway.process().signal(Signal::TERM);
    gateway
        .process()
        .logged("stopping: no new users; a second signal ends at once");
    let claims = association(target.addr);
    let token = console.sign("ASSOCIATION", &claims);
    let (status, body) = enter(&gateway, &path("tcp", &claims), &token)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(
        (status, &body["type"]),
        (503, &json!("urn:adit:problem:not_ready"))
    );
    accepted.write_all(b"the last of it").unwrap();
    accepted.shutdown(Shutdown::Write).unwrap();
    ending.expect(b"the last of it");
    assert_eq!(ending.farewell().0, 1000);
    assert_eq!(staying.farewell().0, 1011);
    assert_eq!(gateway.process_mut().exit().code(), Some(0));
}

/// Writes until nothing goes any more, and gives the connection.
fn fill(mut tcp: std::net::TcpStream) -> std::net::TcpStream {
    // What is given up on in the end is the system's buffer being full.
    tcp.set_write_timeout(Some(std::time::Duration::from_millis(500)))
        .unwrap();
    while tcp.write(&[7; 64 << 10]).is_ok() {}
    tcp
}
