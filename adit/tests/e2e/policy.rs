//! What may be reached: advertised, directly allowed, or nothing; and how what cannot be reached is told.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use tokio_socks::Error as SocksError;

use crate::harness::{
    SOON, beside_others,
    console::Console,
    site::{PROXIES, Ports, Site, forward},
    targets::{Refusing, Target, drain, echo, ping},
    until,
    users::{connect, http_connect, socks},
    websocket::{association, enter, path},
};

#[test]
fn a_target_that_nobody_advertises_is_not_allowed() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), Target::listen());
    let gateway = site.gateway("gw", &format!("{PROXIES}{}", forward("t", target.addr)));
    let _agent = site.serving("site-a", &gateway, "10.0.0.0/8,*.corp.local");
    let (proxy, connect_proxy) = (gateway.ingress("socks5"), gateway.ingress("connect"));
    for target in [
        target.addr.to_string(),
        "corp.local:1".into(),
        "[::1]:1".into(),
    ] {
        let refused = socks(proxy, &target).unwrap_err();
        assert!(
            matches!(refused, SocksError::ConnectionNotAllowedByRuleset),
            "{refused}"
        );
        assert_eq!(http_connect(connect_proxy, &target, "").0, 403);
    }
    let (_, end) = drain(&connect(gateway.ingress("t")));
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(target.untouched(), "the gateway did not dial by itself");
}

#[test]
fn direct_dialling_reaches_what_is_allowed_and_nothing_else() {
    let _machine = beside_others();
    let (site, allowed, other) = (Site::new(), echo(), Target::listen());
    let direct = format!("{PROXIES}[direct]\nallow = [\"{allowed}\"]");
    let gateway = site.gateway("gw", &direct);
    let proxy = gateway.ingress("socks5");
    ping(&socks(proxy, &allowed.to_string()).unwrap(), b"direct");
    assert!(socks(proxy, &other.addr.to_string()).is_err());
    assert!(other.untouched());
    let explained = gateway.ask(&["route", "explain", &allowed.to_string(), "--json"]);
    assert_eq!(explained.json()["fallback"], "direct");
}

#[test]
fn direct_dialling_of_loopback_needs_a_range_within_it() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), Target::listen());
    let rest = format!("{PROXIES}[direct]\nallow = [\"0.0.0.0/0\", \"localhost\"]");
    let gateway = site.gateway("gw", &rest);
    let proxy = gateway.ingress("socks5");
    let port = target.addr.port();
    for target in [format!("127.0.0.1:{port}"), format!("localhost:{port}")] {
        assert!(socks(proxy, &target).is_err(), "{target}");
        let (status, _) = http_connect(gateway.ingress("connect"), &target, "");
        assert_eq!(status, 502, "{target}");
    }
    assert!(target.untouched());
    let reason = gateway.process().logged("no session");
    assert!(
        reason["reason"].as_str().unwrap().contains("loopback"),
        "{reason}"
    );
}

#[test]
fn an_agent_refuses_what_it_does_not_advertise_even_if_it_is_asked() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), Target::listen());
    let mut gateway = site.gateway("gw", "");
    let mut agent = site.enrol("site-a", &gateway, "10.0.0.0/8");
    assert!(gateway.process_mut().terminate().success());
    let ports = Ports {
        tunnel: 0,
        enroll: 0,
    };
    // Pinned, so that the gateway asks without looking at routes.
    let rest = forward("t", target.addr) + &format!("agent = \"{}\"\n", agent.id());
    let mut gateway = site.gateway_with("gw", "", ports, &rest);
    gateway.start();
    let endpoint = gateway.address("tunnel").to_string();
    let mut record = agent.record();
    record["quic_endpoints"] = serde_json::json!([endpoint]);
    std::fs::write(agent.state.join("agent.json"), record.to_string()).unwrap();
    agent.serve(&gateway);
    let (_, end) = drain(&connect(gateway.ingress("t")));
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let refused = agent.process().logged("session refused");
    assert_eq!(refused["target"], target.addr.to_string());
    let told = gateway.process().logged("no session");
    assert_eq!(told["target"], target.addr.to_string());
    let (said, heard) = (&refused["error"], told["reason"].as_str().unwrap());
    assert!(heard.contains(said.as_str().unwrap()), "{heard}");
    assert!(heard.contains("refused:"), "{heard}");
    assert!(target.untouched());
}

#[test]
fn no_spelling_of_loopback_gets_past_an_agent_that_does_not_advertise_it() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), Target::listen());
    let console = Console::new(&site);
    let gateway = site.gateway("gw", &console.sections());
    let agent = site.serving("site-a", &gateway, "0.0.0.0/0,localhost");
    let port = target.addr.port();
    for host in [
        "127.0.0.1",
        "localhost",
        "0.0.0.0",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        // Names that the system's resolver takes for addresses.
        "127.1",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "2130706433",
        "169.254.169.254",
    ] {
        // For this agent by its id, so that the gateway's routing has no say.
        let mut claims = association(format!("{host}:{port}"));
        claims["jet_agent_id"] = serde_json::json!(agent.id());
        let token = console.sign("ASSOCIATION", &claims);
        let user = enter(&gateway, &path("tcp", &claims), &token);
        let user = user.unwrap_or_else(|refused| panic!("{host}: {refused:?}"));
        let (code, reason) = user.farewell();
        assert_eq!(code, 1014, "{host}: {reason}");
        assert!(reason.contains("refused: \""), "{host}: {reason}");
    }
    assert!(target.untouched());
}

#[test]
fn a_target_that_refuses_is_told_at_once() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), Refusing::new());
    let rest = format!("{PROXIES}{}", forward("t", target.addr()));
    let gateway = site.gateway("gw", &rest);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let start = Instant::now();
    let refused = socks(gateway.ingress("socks5"), &target.addr().to_string()).unwrap_err();
    assert!(
        matches!(refused, SocksError::ConnectionRefused),
        "{refused}"
    );
    let (status, _) = http_connect(gateway.ingress("connect"), &target.addr().to_string(), "");
    assert_eq!(status, 502);
    let (_, end) = drain(&connect(gateway.ingress("t")));
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_target_that_does_not_answer_holds_up_nobody_else() {
    let _machine = beside_others();
    let (site, silent, answering) = (Site::new(), Silent::new(), echo());
    let rest = format!("{PROXIES}{}", forward("echo", answering));
    let gateway = site.gateway("gw", &rest);
    let agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let proxy = gateway.ingress("socks5");
    let mut waiting = connect(proxy);
    waiting
        .write_all(&[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1])
        .unwrap();
    waiting
        .write_all(&silent.addr.port().to_be_bytes())
        .unwrap();
    let mut method = [0; 2];
    waiting.read_exact(&mut method).unwrap();
    assert_eq!(method, [5, 0]);
    let opening = |count: u64| {
        until("the attempt is counted", SOON, || {
            (gateway.agents()[0]["sessions"] == count).then_some(())
        });
    };
    opening(1);
    for _ in 0..10 {
        let start = Instant::now();
        ping(&connect(gateway.ingress("echo")), b"meanwhile");
        assert!(start.elapsed() < Duration::from_secs(1));
    }
    // One user gives up; another one is told as soon as the target refuses.
    drop(waiting);
    opening(0);
    let addr = silent.addr.to_string();
    let told = std::thread::spawn(move || socks(proxy, &addr).unwrap_err());
    opening(1);
    drop(silent);
    let told = told.join().unwrap();
    assert!(matches!(told, SocksError::ConnectionRefused), "{told}");
    agent.process().logged("session refused");
}

/// A listener whose queue is full, so that no further connection is answered.
struct Silent {
    addr: SocketAddr,
    _listener: socket2::Socket,
    _queued: Vec<socket2::Socket>,
}

impl Silent {
    fn new() -> Self {
        let tcp = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let listener = tcp().unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let addr = listener.local_addr().unwrap().as_socket().unwrap();
        let queued = (0..8).map(|_| {
            let socket = tcp().unwrap();
            socket.set_nonblocking(true).unwrap();
            let started = socket.connect(&addr.into());
            assert!(started.is_err_and(|e| e.kind() != ErrorKind::ConnectionRefused));
            socket
        });
        let queued = queued.collect();
        let probe = TcpStream::connect_timeout(&addr, Duration::from_millis(300));
        assert!(probe.is_err(), "the queue is not full");
        Self {
            addr,
            _listener: listener,
            _queued: queued,
        }
    }
}
