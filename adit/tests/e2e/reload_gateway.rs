//! A changed configuration of a gateway takes effect while it runs, and no session notices.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{
    beside_others,
    site::{Agent, Gateway, Ports, Site, forward},
    targets::{Target, echo, ping},
    users::{connect, http_connect, socks, socks_as},
};

pub(crate) struct Bed {
    pub(crate) gateway: Gateway,
    _agent: Agent,
    pub(crate) users: PathBuf,
    pub(crate) site: Site,
}

impl Bed {
    pub(crate) fn new(rest: &str) -> Self {
        let site = Site::new();
        let users = site.path("users");
        secret(&users, "alice:first\n");
        let text = format!("{}{rest}", proxies(&users));
        let mut gateway = site.gateway_with("gw", "", Ports::default(), &text);
        gateway.start();
        let agent = site.serving("site-a", &gateway, "127.0.0.1/32");
        Self {
            gateway,
            _agent: agent,
            users,
            site,
        }
    }

    /// Exchanges a part of the file, and has it read.
    pub(crate) fn change(&self, from: &str, to: &str) -> Vec<String> {
        change(&self.gateway, from, to)
    }
}

/// Exchanges a part of a gateway's file, has it read, and gives the keys that need a restart.
pub(crate) fn change(gateway: &Gateway, from: &str, to: &str) -> Vec<String> {
    let text = fs::read_to_string(&gateway.config).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&gateway.config, text.replace(from, to)).unwrap();
    let answer = gateway.ask(&["gateway", "reload", "--json"]).json();
    let keys = answer["needs_restart"].as_array().unwrap().iter();
    keys.map(|key| key.as_str().unwrap().to_owned()).collect()
}

pub(crate) fn secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

fn proxies(users: &Path) -> String {
    let entry = |kind: &str, name: &str| {
        format!("[[{kind}]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\nusers_file = {users:?}\n")
    };
    entry("socks5", "socks5") + &entry("http_connect", "connect")
}

pub(crate) const NOTHING: [&str; 0] = [];

#[test]
fn everything_that_can_change_does_in_the_middle_of_a_transfer() {
    let _machine = beside_others();
    let (one, other) = (Target::listen(), echo());
    let bed = Bed::new(&forward("forward", one.addr));
    let gateway = &bed.gateway;
    let user = connect(gateway.ingress("forward"));
    let far = one.accept();
    let sending = std::thread::spawn(move || send(&user));
    let mut far_half = far.try_clone().unwrap();
    let mut first = vec![0; BLOCK];
    far_half.read_exact(&mut first).unwrap();

    // The users file is the same path with another content.
    secret(&bed.users, "alice:second\nbob:third\n");
    let (from, to) = (format!("\"{}\"", one.addr), format!("\"{other}\""));
    assert_eq!(bed.change(&from, &to), NOTHING);
    ping(&connect(gateway.ingress("forward")), b"the other target");
    let proxy = gateway.ingress("socks5");
    let open = |user, password| socks_as(proxy, &other.to_string(), user, password);
    assert!(open("alice", "first").is_err());
    ping(&open("alice", "second").unwrap(), b"alice");
    ping(&open("bob", "third").unwrap(), b"bob");
    let basic = |text: &str| {
        // alice:first and bob:third
        let header = format!("Proxy-Authorization: Basic {text}\r\n");
        http_connect(gateway.ingress("connect"), &other.to_string(), &header).0
    };
    assert_eq!(basic("YWxpY2U6Zmlyc3Q="), 407);
    assert_eq!(basic("Ym9iOnRoaXJk"), 200);

    // Nothing of it was noticed by the session that was there before.
    let rest = receive(far, BLOCK as u64);
    assert_eq!(rest, (BLOCK * BLOCKS) as u64);
    assert_eq!(sending.join().unwrap(), rest);
    assert_eq!(gateway.process().count("agent connected"), 1);
}

#[test]
fn limits_and_direct_targets_change_and_a_bad_file_changes_nothing() {
    let _machine = beside_others();
    let target = echo();
    let elsewhere = crate::harness::targets::echo_at("127.0.0.3:0");
    let bed = Bed::new(&format!(
        "{}[[socks5]]\nname = \"open\"\nlisten = \"127.0.0.1:0\"\n[limits]\nsessions_per_agent = 9\n[log]\nlevel = \
         \"info\"\n",
        forward("forward", target)
    ));
    let gateway = &bed.gateway;
    let user = connect(gateway.ingress("forward"));
    ping(&user, b"open");
    let direct = || socks(gateway.ingress("open"), &elsewhere.to_string());
    assert!(direct().is_err(), "no agent, no rule");
    let changed = bed.change(
        "[limits]\nsessions_per_agent = 9\n",
        "[direct]\nallow = [\"127.0.0.3/32\"]\n[limits]\nsessions_per_agent = 1\n",
    );
    assert_eq!(changed, NOTHING);
    ping(&direct().unwrap(), b"by the gateway itself");
    let refused = || {
        let mut buf = [0];
        let tcp = connect(gateway.ingress("forward"));
        (&tcp).read(&mut buf).is_err()
    };
    assert!(refused(), "one session is what the agent may carry");
    ping(&user, b"and it goes on");

    let good = fs::read_to_string(&gateway.config).unwrap();
    let bad = good.replace("sessions_per_agent = 1", "sessions_per_agent = 0");
    fs::write(&gateway.config, &bad).unwrap();
    let line = bad
        .lines()
        .position(|line| line.starts_with("sessions_per"))
        .unwrap()
        + 1;
    let place = format!("gw.toml:{line}");
    gateway.process().signal(Signal::HUP);
    let told = gateway
        .process()
        .logged("configuration not reloaded; the former one stays in force");
    assert!(told["error"].as_str().unwrap().contains(&place), "{told}");
    // The verb reads the file too, and says what the gateway would.
    gateway.ask(&["gateway", "reload"]).fails(3, &[&place]);
    assert!(refused() && direct().is_ok(), "as before");

    let level = |level: &str| {
        fs::write(&gateway.config, good.replace("\"info\"", level)).unwrap();
        assert_eq!(gateway.ask(&["gateway", "reload"]).code, 0);
        ping(&direct().unwrap(), b"a session with a line at its end");
    };
    level("\"error\"");
    level("\"info\"");
    let reloaded = "configuration reloaded";
    gateway.process().logged_nth(reloaded, 2);
    assert_eq!(
        gateway.process().count(reloaded),
        2,
        "none of the quiet one"
    );
    ping(&user, b"still the same session");
}

#[test]
fn what_needs_a_restart_is_named_each_time() {
    let _machine = beside_others();
    let bed = Bed::new(&forward("forward", echo()));
    let added = forward("another", echo());
    let keys = bed.change(
        "[tunnel]\nlisten = \"127.0.0.1:0\"",
        "threads = 3\n[tunnel]\nlisten = \"127.0.0.2:0\"",
    );
    assert_eq!(keys, ["threads", "tunnel.listen"]);
    let keys = bed.change(
        "[[forward]]\nname = \"forward\"",
        &format!("{added}[[forward]]\nname = \"renamed\""),
    );
    let wanted = [
        "threads",
        "tunnel.listen",
        "ingress forward (removed)",
        "ingress another (added)",
        "ingress renamed (added)",
    ];
    assert_eq!(keys, wanted);
    let ran = bed.gateway.ask(&["gateway", "reload"]);
    assert_eq!(ran.code, 0);
    assert!(
        ran.out.starts_with("reloaded\nneeds a restart: threads\n"),
        "{ran:?}"
    );
    let line = "this change takes effect when the gateway is restarted";
    assert_eq!(bed.gateway.process().logged(line)["key"], "threads");
    ping(
        &connect(bed.gateway.ingress("forward")),
        b"as it was started",
    );
}

#[test]
fn the_provisioners_key_and_the_revocation_list_are_read_again() {
    let _machine = beside_others();
    let site = Site::new();
    let list = site.path("revoked.json");
    fs::write(&list, "{}").unwrap();
    let rest = format!(
        "[provisioner]\nrevocation_list = {list:?}\n[enroll]\nlisten = \"127.0.0.1:0\"\ninsecure_http = true\n"
    );
    let gateway = site.gateway("gw", &rest);
    let up = |token: &str| site.agent("a").up(token, "", &["--allow-http"]);
    let created = gateway.ask(&["token", "create", "--name", "a", "--json"]);
    let created = created.json();
    let revoked = json!({ "jti": [created["jti"]] });
    fs::write(&list, revoked.to_string()).unwrap();
    assert_eq!(gateway.ask(&["gateway", "reload"]).code, 0);
    let token = created["token"].as_str().unwrap();
    up(token).fails(4, &["revoked"]);
    fs::write(&list, "{}").unwrap();
    assert_eq!(gateway.ask(&["gateway", "reload"]).code, 0);
    assert_eq!(up(token).code, 0);

    let key = rcgen::KeyPair::generate().unwrap();
    let file = site.path("console.pem");
    fs::write(&file, key.public_key_pem()).unwrap();
    let token = signed(&key, gateway.address("enroll"));
    assert_eq!(up(&token).code, 4, "the key is not known");
    let text = fs::read_to_string(&gateway.config).unwrap();
    let with = format!("[provisioner]\npublic_key_file = {file:?}\n");
    fs::write(&gateway.config, text.replace("[provisioner]\n", &with)).unwrap();
    assert_eq!(gateway.ask(&["gateway", "reload"]).code, 0);
    assert_eq!(up(&token).code, 0);
}

/// A console's enrolment token.
fn signed(key: &rcgen::KeyPair, enroll: SocketAddr) -> String {
    let now = rustls_pki_types::UnixTime::now().as_secs();
    let claims = json!({
        "jti": uuid::Uuid::new_v4(),
        "exp": now + 60,
        "nbf": now,
        "jet_gw_url": format!("http://{enroll}"),
        "jet_agent_name": "a",
    });
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    header.cty = Some("ENROLLMENT".to_owned());
    let key = jsonwebtoken::EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).unwrap();
    jsonwebtoken::encode(&header, &claims, &key).unwrap()
}

const BLOCK: usize = 64 << 10;
const BLOCKS: usize = 512;

fn send(mut to: &TcpStream) -> u64 {
    let block = vec![7; BLOCK];
    for _ in 0..BLOCKS {
        to.write_all(&block).unwrap();
    }
    to.shutdown(std::net::Shutdown::Write).unwrap();
    (BLOCK * BLOCKS) as u64
}

fn receive(mut from: TcpStream, mut total: u64) -> u64 {
    let mut buf = vec![0; BLOCK];
    loop {
        match from.read(&mut buf).unwrap() {
            0 => return total,
            n => total += n as u64,
        }
    }
}
