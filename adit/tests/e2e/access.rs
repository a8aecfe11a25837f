//! Who may come in, who may go where, and what targets are told of it.

use std::{
    io::{ErrorKind, Read},
    net::{SocketAddr, TcpStream},
};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::harness::{
    beside_others,
    console::{Console, METRICS, metrics},
    site::{Ports, Site, forward},
    targets::{Target, echo, ping},
    users::{connect, http_connect, socks, socks_as},
    websocket::{association, open},
};

#[test]
fn users_open_what_their_entry_names_and_nothing_else() {
    let _machine = beside_others();
    let (site, target, other) = (Site::new(), echo(), echo());
    let users = users_file(&site, "alice:a\nbob:b\n");
    let section = |kind: &str| {
        format!("[[{kind}]]\nname = \"{kind}\"\nlisten = \"127.0.0.1:0\"\nusers_file = {users:?}\n")
    };
    let rest = format!(
        "{METRICS}{}{}[[user]]\nname = \"alice\"\ntargets = [\"127.0.0.0/8:{}\", \"*.corp.local\"]\n",
        section("socks5"),
        section("http_connect"),
        target.port()
    );
    let gateway = site.gateway("gw", &rest);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let by_socks =
        |user: &str, target: &str| socks_as(gateway.ingress("socks5"), target, user, &user[..1]);
    let by_http = |user: &str, target: &str| {
        let basic = BASE64_STANDARD.encode(format!("{user}:{}", &user[..1]));
        let headers = format!("Proxy-Authorization: Basic {basic}\r\n");
        http_connect(gateway.ingress("http_connect"), target, &headers)
    };
    let (target, other) = (target.to_string(), other.to_string());
    for user in ["alice", "bob"] {
        ping(&by_socks(user, &target).unwrap(), b"socks");
        let (status, tcp) = by_http(user, &target);
        assert_eq!(status, 200);
        ping(&tcp, b"http");
    }
    ping(&by_socks("bob", &other).unwrap(), b"socks");
    for user in ["alice", "bob"] {
        let of = |line: &Value| line["message"] == "session ended" && line["account"] == user;
        gateway
            .process()
            .logged_that("whose session has ended", of, 2);
    }
    for refused in [&*other, "localhost:1"] {
        let error = by_socks("alice", refused).unwrap_err();
        assert!(
            matches!(error, tokio_socks::Error::ConnectionNotAllowedByRuleset),
            "{error}"
        );
        let (status, mut tcp) = by_http("alice", refused);
        assert_eq!(status, 403);
        let mut body = String::new();
        tcp.read_to_string(&mut body).unwrap();
        assert!(body.contains("`alice` may not open this target"), "{body}");
    }
    // Allowed by the entry; that nobody has a route is another matter.
    assert_eq!(by_http("alice", "db.corp.local:1").0, 403);
    let now = metrics(&gateway);
    for kind in ["socks5", "http_connect"] {
        let name = format!("adit_ingress_not_allowed_total{{ingress=\"{kind}\"}}");
        assert_eq!(now.value(&name), 2);
    }
    let line = gateway.process().logged_that(
        "the refusal",
        |line| line["reason"] == "the user `alice` may not open this target",
        4,
    );
    assert_eq!(
        (&line["message"], &line["target"]),
        (&json!("no session"), &json!("localhost:1"))
    );
}

#[test]
fn a_rule_for_nobody_stops_the_start() {
    let _machine = beside_others();
    let site = Site::new();
    let users = users_file(&site, "alice:a\n");
    let rest = format!(
        "[[socks5]]\nname = \"s\"\nlisten = \"127.0.0.1:0\"\nusers_file = {users:?}\n\
         [[user]]\nname = \"alcie\"\ntargets = [\"10.0.0.0/8\"]\n"
    );
    let gateway = site.gateway_with("gw", "", Ports::default(), &rest);
    let says = "no users file that is used has a user `alcie`";
    gateway.ask(&["gateway", "run"]).fails(3, &[says]);
}

#[test]
fn only_addresses_that_are_named_come_in() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let rule = |kind: &str, name: &str, from: &str| {
        let target = if kind == "forward" {
            format!("target = \"{target}\"\n")
        } else {
            String::new()
        };
        format!(
            "[[{kind}]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\n{target}allow_from = [{from}]\n"
        )
    };
    let rest = [
        METRICS.to_owned(),
        rule("forward", "open", "\"10.0.0.0/8\", \"127.0.0.1\""),
        rule("forward", "closed", "\"10.0.0.0/8\""),
        rule("socks5", "socks", "\"127.0.0.2\""),
    ]
    .concat();
    let gateway = site.gateway("gw", &rest);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    ping(&connect(gateway.ingress("open")), b"x");
    let mut refused = connect(gateway.ingress("closed"));
    let error = refused.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(socks(gateway.ingress("socks"), &target.to_string()).is_err());
    let now = metrics(&gateway);
    for (name, count) in [("open", 0), ("closed", 1), ("socks", 1)] {
        let name = format!("adit_ingress_source_refused_total{{ingress=\"{name}\"}}");
        assert_eq!(now.value(&name), count);
    }
}

#[test]
fn strangers_and_users_in_turn_write_a_bounded_number_of_lines() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let rest = format!(
        "{METRICS}{}allow_from = [\"127.0.0.1\"]\n",
        forward("echo", target)
    );
    let gateway = site.gateway("gw", &rest);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let ingress = gateway.ingress("echo");
    let stranger = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let from = SocketAddr::from(([127, 0, 0, 2], 0));
        socket.bind(&from.into()).unwrap();
        socket.connect(&ingress.into()).unwrap();
        // Closed.
        assert!((&socket).read(&mut [0]).is_err());
    };
    for _ in 0..60 {
        stranger();
        ping(&connect(ingress), b"x");
    }
    let name = "adit_ingress_source_refused_total{ingress=\"echo\"}";
    assert_eq!(metrics(&gateway).value(name), 60);
    let told = gateway
        .process()
        .count("an address that `allow_from` does not name is closed");
    // Should they take 10 s, so many again.
    assert!((1..=40).contains(&told), "{told} lines");
}

#[test]
fn a_target_is_told_whose_bytes_follow() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), Target::listen());
    let console = Console::new(&site);
    let rest = [
        console.sections(),
        forward("f", target.addr) + "proxy_protocol = true\n",
        "[[forward]]\nname = \"six\"\nlisten = \"[::1]:0\"\n".to_owned(),
        format!("target = \"{}\"\nproxy_protocol = true\n", target.addr),
        "[[socks5]]\nname = \"s\"\nlisten = \"127.0.0.1:0\"\nproxy_protocol = true\n".to_owned(),
        "[websocket]\nproxy_protocol = true\n".to_owned(),
    ]
    .concat();
    let gateway = site.gateway("gw", &rest);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let told = |user: SocketAddr, at: SocketAddr, send: &mut dyn FnMut()| {
        let mut tcp = target.accept();
        // It comes even to a target that is to speak first.
        assert_eq!(header(&mut tcp), (user, at));
        send();
        let mut byte = [0];
        tcp.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    };
    for name in ["f", "six"] {
        let user = connect(gateway.ingress(name));
        let addr = user.local_addr().unwrap();
        told(addr, gateway.ingress(name), &mut || write(&user));
    }
    let user = socks(gateway.ingress("s"), &target.addr.to_string()).unwrap();
    let addr = user.local_addr().unwrap();
    told(addr, gateway.ingress("s"), &mut || write(&user));
    let mut user = open(&gateway, &console, "tcp", &association(target.addr));
    told(user.addr, gateway.address("enroll"), &mut || {
        user.send(b"x")
    });
}

fn write(mut user: &TcpStream) {
    std::io::Write::write_all(&mut user, b"x").unwrap();
}

/// Reads a header of the PROXY protocol as its specification has it, and gives source and destination.
pub(crate) fn header(tcp: &mut TcpStream) -> (SocketAddr, SocketAddr) {
    let mut fixed = [0; 16];
    tcp.read_exact(&mut fixed).unwrap();
    assert_eq!(&fixed[..13], b"\r\n\r\n\0\r\nQUIT\n\x21");
    let mut rest = vec![0; usize::from(u16::from_be_bytes([fixed[14], fixed[15]]))];
    tcp.read_exact(&mut rest).unwrap();
    let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    match (fixed[13], rest.len()) {
        (0x11, 12) => {
            let ip = |at: usize| <[u8; 4]>::try_from(&rest[at..at + 4]).unwrap();
            ((ip(0), port(8)).into(), (ip(4), port(10)).into())
        }
        (0x21, 36) => {
            let ip = |at: usize| <[u8; 16]>::try_from(&rest[at..at + 16]).unwrap();
            ((ip(0), port(32)).into(), (ip(16), port(34)).into())
        }
        odd => panic!("{odd:?}"),
    }
}

fn users_file(site: &Site, text: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = site.path("users");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}
