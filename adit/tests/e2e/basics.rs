//! From an enrolment string to a session, by every way in, and what the listings say meanwhile.

use std::{fs, os::unix::fs::PermissionsExt};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;
use tokio_socks::Error as SocksError;

use crate::harness::{
    SOON, beside_others,
    site::{PROXIES, Site, forward},
    targets::{Target, echo, echo_at, ping},
    until,
    users::{connect, http_connect, socks, socks_as},
};

#[test]
fn every_way_in_leads_to_the_target() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let port = target.port();
    let gateway = site.gateway("gw", &format!("{PROXIES}{}", forward("echo", target)));
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32,localhost");
    let proxy = gateway.ingress("socks5");
    ping(&connect(gateway.ingress("echo")), b"by forward");
    ping(&socks(proxy, &target.to_string()).unwrap(), b"by address");
    ping(
        &socks(proxy, &format!("localhost:{port}")).unwrap(),
        b"by name",
    );
    let (status, user) = http_connect(gateway.ingress("connect"), &target.to_string(), "");
    assert_eq!(status, 200);
    ping(&user, b"by CONNECT");
    let name = format!("localhost:{port}");
    let (status, user) = http_connect(gateway.ingress("connect"), &name, "");
    assert_eq!(status, 200);
    ping(&user, b"by CONNECT and name");
}

#[test]
fn ipv6_literals_go_direct_or_nowhere() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo_at("[::1]:0"));
    let direct = site.gateway(
        "direct",
        &format!("{PROXIES}[direct]\nallow = [\"::1/128\"]"),
    );
    let user = socks(direct.ingress("socks5"), &target.to_string()).unwrap();
    ping(&user, b"over IPv6");
    let (status, user) = http_connect(direct.ingress("connect"), &target.to_string(), "");
    assert_eq!(status, 200);
    ping(&user, b"over IPv6");

    let gateway = site.gateway("gw", PROXIES);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32,::1/128");
    let proxy = gateway.ingress("socks5");
    // Version 1 of the protocol cannot advertise an IPv6 subnet (agent-tunnel 6.1).
    let refused = socks(proxy, &target.to_string()).unwrap_err();
    assert!(
        matches!(refused, SocksError::ConnectionNotAllowedByRuleset),
        "{refused}"
    );
    let (status, _) = http_connect(gateway.ingress("connect"), &target.to_string(), "");
    assert_eq!(status, 403);
}

#[test]
fn credentials_are_demanded_where_users_are_configured() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let users = site.path("users");
    fs::write(&users, "alice:wonderland\n").unwrap();
    fs::set_permissions(&users, PermissionsExt::from_mode(0o600)).unwrap();
    let rest = format!(
        "[[socks5]]\nname = \"socks5\"\nlisten = \"127.0.0.1:0\"\nusers_file = {users:?}\n\
         [[http_connect]]\nname = \"connect\"\nlisten = \"127.0.0.1:0\"\nusers_file = {users:?}\n"
    );
    let gateway = site.gateway("gw", &rest);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let (proxy, target) = (gateway.ingress("socks5"), target.to_string());
    ping(
        &socks_as(proxy, &target, "alice", "wonderland").unwrap(),
        b"with the password",
    );
    let wrong = socks_as(proxy, &target, "alice", "mirror").unwrap_err();
    assert!(
        matches!(wrong, SocksError::PasswordAuthFailure(_)),
        "{wrong}"
    );
    let none = socks(proxy, &target).unwrap_err();
    assert!(
        matches!(none, SocksError::NoAcceptableAuthMethods),
        "{none}"
    );

    let basic = |text: &str| {
        let text = BASE64_STANDARD.encode(text);
        format!("Proxy-Authorization: Basic {text}\r\n")
    };
    let proxy = gateway.ingress("connect");
    let (status, user) = http_connect(proxy, &target, &basic("alice:wonderland"));
    assert_eq!(status, 200);
    ping(&user, b"with the password");
    for headers in ["", &basic("alice:mirror"), &basic("bob:wonderland")] {
        assert_eq!(http_connect(proxy, &target, headers).0, 407, "{headers}");
    }
}

#[test]
fn listings_tell_what_is_connected_open_and_routed() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), Target::listen());
    let gateway = site.gateway("gw", &forward("echo", target.addr));
    let agent = site.serving("site-a", &gateway, "127.0.0.0/8,*.corp.local,127.0.0.1/32");
    let user = connect(gateway.ingress("echo"));
    let accepted = target.accept();
    gateway.sessions_are(1);

    let agents = gateway.agents();
    assert_eq!(agents.len(), 1);
    assert_eq!(agents[0]["id"], agent.id());
    assert_eq!(agents[0]["name"], "site-a");
    assert_eq!(agents[0]["status"], "online");
    assert_eq!(agents[0]["sessions"], 1);
    assert_eq!(agents[0]["subnets"], json!(["127.0.0.0/8", "127.0.0.1/32"]));
    assert_eq!(agents[0]["domains"], json!(["*.corp.local"]));

    let session = &gateway.sessions()[0];
    assert_eq!(session["target"], target.addr.to_string());
    assert_eq!(session["ingress"], "echo");
    assert_eq!(session["agent"], agent.id());
    assert_eq!(session["user"], user.local_addr().unwrap().to_string());

    let explained = gateway
        .ask(&["route", "explain", "127.0.0.1:22", "--json"])
        .json();
    assert_eq!(explained["candidates"][0]["agent"], agent.id());
    assert_eq!(explained["candidates"][0]["route"], "127.0.0.1/32");
    let explained = gateway
        .ask(&["route", "explain", "corp.local:22", "--json"])
        .json();
    assert_eq!(explained["candidates"], json!([]));
    assert_eq!(explained["fallback"], "refuse");

    let status = until("the agent counts its session", SOON, || {
        let status = agent.status();
        (status["sessions"] == 1).then_some(status)
    });
    assert_eq!(status["connected"], true);
    assert_eq!(status["gateway"], gateway.address("tunnel").to_string());
    assert_eq!(
        status["routes"],
        json!(["127.0.0.0/8", "127.0.0.1/32", "*.corp.local"])
    );
    let ran = gateway.ask(&["config", "check"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "ok\n"));
    drop((user, accepted));
    gateway.sessions_are(0);
}
