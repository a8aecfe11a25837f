//! What good configurations mean, and what stands above what.

use std::{path::Path, time::Duration};

use adit::config::{EnrollTls, GatewayConfig, Override, Surroundings};
use adit_proto_core::gateway::dispatch::DirectRange;

use crate::{load, load_with, operator_pair, users_file};

#[test]
fn an_empty_file_gives_the_defaults() {
    let config = load("").unwrap().config;
    assert_eq!(config.tunnel.listen.to_string(), "[::]:4433");
    assert_eq!(config.enroll.tls, EnrollTls::Own);
    assert!(config.direct.is_empty() && config.forwards.is_empty());
}

#[test]
fn a_full_file_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = operator_pair(dir.path());
    let users = users_file(dir.path());
    let text = format!(
        r#"
        state_dir = "/srv/adit"
        threads = 2
        [tunnel]
        listen = "0.0.0.0:4433"
        public_endpoint = "gw.example.com:443"
        names = ["gw.example.com", "203.0.113.7"]
        [enroll]
        cert = {cert:?}
        key = {key:?}
        [[forward]]
        name = "db"
        listen = "127.0.0.1:5432"
        target = "db.corp.local:5432"
        agent = "7c4f5b1e-9d3e-4a52-8e0f-0a6b1d2c3e4f"
        [[forward]]
        name = "web"
        listen = "0.0.0.0:80"
        target = "10.0.0.5:80"
        public = true
        [[socks5]]
        name = "socks"
        listen = "0.0.0.0:1080"
        allow_from = ["10.0.0.0/8"]
        proxy_protocol = true
        users_file = {users:?}
        [[http_connect]]
        name = "http"
        listen = "[::1]:8080"
        [[user]]
        name = "alice"
        targets = ["10.0.0.0/8:22", "*.x.y"]
        [websocket]
        sessions = 5
        allow_from = ["::1"]
        [direct]
        allow = ["10.0.0.0/8", "*.x.y", "h.x:443", "[2001:db8::1]:22"]
        [limits]
        agents = 5
        [log]
        level = "info,adit=debug"
        format = "json"
        "#
    );
    let config = load_with(dir.path(), &text, &[], &[]).unwrap().config;
    assert_eq!(config.tunnel.names.len(), 2);
    assert!(matches!(config.enroll.tls, EnrollTls::Operator { .. }));
    assert!(config.forwards[0].agent.is_some());
    let users = config.socks5[0].users.as_ref().unwrap();
    let alice = users.check(b"alice", b"secret").unwrap();
    assert!(alice.may_open(&"10.9.9.9:22".parse().unwrap()));
    assert!(!alice.may_open(&"10.9.9.9:23".parse().unwrap()));
    assert!(config.socks5[0].entrance.admits([10, 0, 0, 1].into()));
    assert!(!config.socks5[0].entrance.admits([11, 0, 0, 1].into()));
    assert!(config.socks5[0].entrance.proxy_protocol);
    assert!(config.forwards[0].entrance.admits([11, 0, 0, 1].into()));
    assert_eq!(config.websocket.sessions.get(), 5);
    assert!(!config.websocket.entrance.admits([10, 0, 0, 1].into()));
    assert_eq!(config.direct[2].port, Some(443));
    assert!(matches!(config.direct[3].range, DirectRange::Subnet(_)));
    assert!(config.direct[0].allows(&"10.9.9.9:1".parse().unwrap()));
    assert!(!config.direct[2].allows(&"h.x:80".parse().unwrap()));
    assert_eq!(config.limits.agents.get(), 5);
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let file = "[tunnel]\nlisten = \"127.0.0.1:3\"";
    let env = [("ADIT_TUNNEL_LISTEN", "127.0.0.1:2")];
    let flag = [Override {
        key: "tunnel.listen",
        flag: "--tunnel-listen",
        values: vec!["127.0.0.1:1".to_owned()],
    }];
    for (text, env, flag, port, source) in [
        (file, &env[..], &flag[..], 1, "flag --tunnel-listen"),
        (file, &env[..], &[], 2, "environment ADIT_TUNNEL_LISTEN"),
        (file, &[], &[], 3, "gateway.toml:2"),
        ("", &[], &[], 4433, "default"),
    ] {
        let loaded = load_with(dir.path(), text, flag, env).unwrap();
        assert_eq!(loaded.config.tunnel.listen.port(), port);
        let shown = loaded
            .settings
            .iter()
            .find(|s| s.key == "tunnel.listen")
            .unwrap();
        assert!(
            shown.source.to_string().ends_with(source),
            "{:?}",
            shown.source
        );
    }
}

#[test]
fn only_the_default_file_may_be_missing() {
    let around = Surroundings::new([("HOME", "/home/u")], false);
    let path = Path::new("/nonexistent/gateway.toml").to_owned();
    assert!(GatewayConfig::load(Some((path.clone(), false)), &[], &around).is_ok());
    let error = GatewayConfig::load(Some((path, true)), &[], &around).unwrap_err();
    assert!(error.to_string().contains("--config"), "{error}");
}

#[test]
fn pings_of_websockets_can_be_turned_off() {
    for (text, ping) in [
        ("0", None),
        ("0s", None),
        ("45s", Some(Duration::from_secs(45))),
    ] {
        let text = format!("[websocket]\nping = \"{text}\"\n");
        assert_eq!(load(&text).unwrap().config.websocket.ping, ping);
    }
    let default = load("").unwrap().config.websocket.ping;
    assert_eq!(default, Some(Duration::from_secs(30)));
    assert!(load("[websocket]\nping = \"off\"\n").is_err());
}
