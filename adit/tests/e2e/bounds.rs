//! Times of sessions: idle ones and old ones end, with their reason.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::harness::{
    SOON, beside_others,
    console::{Console, METRICS, metrics},
    site::{PROXIES, Ports, Site, forward},
    targets::{Target, drain, echo, echo_at, ping},
    until,
    users::{connect, socks},
    websocket::{association, enter, open, path},
};

#[test]
fn an_idle_session_is_reset_at_both_ends_and_a_busy_one_goes_on() {
    let _machine = beside_others();
    let (site, quiet, busy) = (Site::new(), Target::listen(), echo());
    let rest = format!(
        "[limits]\nsession_idle = \"700ms\"\n{}{}",
        forward("quiet", quiet.addr),
        forward("busy", busy)
    );
    let gateway = site.gateway("gw", &rest);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let other = connect(gateway.ingress("busy"));
    let mut user = connect(gateway.ingress("quiet"));
    let began = Instant::now();
    user.write_all(b"x").unwrap();
    let mut far = quiet.accept();
    let mut byte = [0];
    far.read_exact(&mut byte).unwrap();
    user.set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let end = loop {
        ping(&other, b"busy");
        let kind = user.read(&mut byte).unwrap_err().kind();
        if kind != ErrorKind::WouldBlock {
            break kind;
        }
        assert!(began.elapsed() < Duration::from_secs(10));
    };
    assert_eq!(end, ErrorKind::ConnectionReset);
    assert!(began.elapsed() >= Duration::from_millis(700));
    assert_eq!(
        drain(&far).1.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(gateway.ended(1), "idle for longer than limits.session_idle");
    // It has been there for longer than the other one.
    ping(&other, b"still here");
}

#[test]
fn a_session_that_has_lived_its_time_ends_however_busy_and_who_carries_it() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let direct = echo_at("127.0.0.4:0");
    let rest = format!(
        "[limits]\nsession_lifetime = \"1s\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n[direct]\nallow = \
         [\"127.0.0.4/32\"]\n{}{}",
        forward("agent", target),
        forward("direct", direct)
    );
    let gateway = site.gateway("gw", &rest);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    for (n, name) in ["agent", "direct"].into_iter().enumerate() {
        let mut user = connect(gateway.ingress(name));
        let began = Instant::now();
        let mut answer = [0; 4];
        while user.write_all(b"ping").is_ok() && user.read_exact(&mut answer).is_ok() {
            assert!(began.elapsed() < Duration::from_secs(10), "it goes on");
        }
        assert!(
            began.elapsed() > Duration::from_millis(900),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(gateway.ended(n + 1), "lived for limits.session_lifetime");
    }
}

#[test]
fn a_session_that_the_gateway_carries_itself_may_not_be_idle_either() {
    let _machine = beside_others();
    let site = Site::new();
    let direct = echo_at("127.0.0.4:0");
    let rest = format!(
        "[limits]\nsession_idle = \"500ms\"\n[direct]\nallow = [\"127.0.0.4/32\"]\n{}",
        forward("direct", direct)
    );
    let gateway = site.gateway("gw", &rest);
    let user = connect(gateway.ingress("direct"));
    let (began, mut last) = (Instant::now(), Instant::now());
    while began.elapsed() < Duration::from_millis(1_500) {
        last = Instant::now();
        ping(&user, b"busy");
    }
    assert_eq!(
        drain(&user).1.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert!(last.elapsed() >= Duration::from_millis(490));
    assert_eq!(gateway.ended(1), "idle for longer than limits.session_idle");
}

#[test]
fn a_session_by_websocket_is_bounded_like_any_other_and_its_user_is_told() {
    let _machine = beside_others();
    let (site, agents, direct) = (Site::new(), echo(), echo_at("127.0.0.4:0"));
    let console = Console::new(&site);
    let rest = format!(
        "{}[limits]\nsession_idle = \"1500ms\"\nsession_lifetime = \"5s\"\n[direct]\nallow = [\"127.0.0.4/32\"]\n",
        console.sections()
    );
    let gateway = site.gateway("gw", &rest);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    for (n, target) in [agents, direct].into_iter().enumerate() {
        let come = || open(&gateway, &console, "tcp", &association(target));
        let (mut idle, mut busy) = (come(), come());
        let began = Instant::now();
        idle.echoes(b"the last for a long time");
        while began.elapsed() < Duration::from_millis(2_500) {
            busy.echoes(b"busy");
            // Pings move nothing of a session.
            if began.elapsed() < Duration::from_millis(1_000) {
                idle.ponged();
            }
        }
        let told = |reason: &str| (1011, format!("the session was reset: {reason}"));
        let reason = "idle for longer than limits.session_idle";
        assert_eq!(gateway.ended(2 * n + 1), reason);
        assert_eq!(idle.farewell(), told(reason));
        while began.elapsed() < Duration::from_millis(4_000) {
            busy.echoes(b"as busy as can be");
        }
        let reason = "lived for limits.session_lifetime";
        assert_eq!(busy.farewell(), told(reason));
        assert_eq!(gateway.ended(2 * n + 2), reason);
    }
}

#[test]
fn users_who_stop_reading_end_beyond_their_budget_and_nobody_waits_for_them() {
    let _machine = beside_others();
    let (site, target, other) = (Site::new(), Target::listen(), echo());
    let rest = format!(
        "[limits]\nunread_per_agent = 8\n{METRICS}{}{}",
        forward("bulk", target.addr),
        forward("busy", other)
    );
    let gateway = site.gateway("gw", &rest);
    let _agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    let busy = connect(gateway.ingress("busy"));
    let stuck: Vec<TcpStream> = (0..3)
        .map(|_| {
            let user = connect(gateway.ingress("bulk"));
            let mut far = target.accept();
            // Until it is reset, or the test is over.
            std::thread::spawn(move || while far.write_all(&[7; 65_536]).is_ok() {});
            user
        })
        .collect();
    let not_read = "adit_sessions_ended_total{how=\"not_read\"}";
    let began = Instant::now();
    while metrics(&gateway).value(not_read) < 2 {
        ping(&busy, b"not one of them");
        assert!(began.elapsed() < Duration::from_secs(15));
    }
    for user in &stuck[..2] {
        let (read, end) = drain(user);
        assert!(read > 0);
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let reason = "not read for long, with too much unread on the connection";
    assert_eq!(gateway.ended(2), reason);
    let line = gateway.process().logged(
        "its user reads less than 64 KiB/s: have the program read on, or raise limits.unread_per_agent and limits.unread",
    );
    assert!(line["unread_s"].as_u64().unwrap() >= 4, "{line}");
    // There is room for one.
    gateway.sessions_are(2);
    assert_eq!(metrics(&gateway).value(not_read), 2);
}

#[test]
fn a_flood_of_bad_users_writes_few_lines_and_says_how_many_are_missing() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway("gw", PROXIES);
    let proxy = gateway.ingress("socks5");
    for _ in 0..50 {
        let mut user = connect(proxy);
        user.write_all(b"garbage").unwrap();
        // Until it is refused, so that each of them is counted.
        let _refused = drain(&user);
    }
    let told = gateway
        .process()
        .logged("more lines of one kind were suppressed");
    assert_eq!(told["suppressed"], 30);
    assert_eq!(told["line"], "no session: handshake");
    assert_eq!(gateway.process().count("no session"), 20);
    // Other causes have their own share.
    assert!(socks(proxy, "192.0.2.1:1").is_err());
    gateway.process().logged_nth("no session", 21);
}

#[test]
fn strangers_by_websocket_write_few_lines_too() {
    let _machine = beside_others();
    let site = Site::new();
    let console = Console::new(&site);
    let gateway = site.gateway("gw", &console.sections());
    for _ in 0..50 {
        let claims = association("192.0.2.1:1");
        let (status, _) = enter(&gateway, &path("tcp", &claims), "no-token")
            .map(|_| ())
            .unwrap_err();
        assert_eq!(status, 401);
    }
    let told = gateway
        .process()
        .logged("more lines of one kind were suppressed");
    assert_eq!(told["suppressed"], 30);
    assert_eq!(told["line"], "no session: credentials");
    assert_eq!(gateway.process().count("no session"), 20);
}

#[test]
fn a_gateway_without_descriptors_waits_and_serves_again() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let rest = format!("threads = 1\n[direct]\nallow = [\"127.0.0.1\"]\n{METRICS}{PROXIES}");
    let (head, rest) = rest.split_once('\n').unwrap();
    let mut gateway = site.gateway_with("gw", head, Ports::default(), rest);
    gateway.start_with_descriptors(64);
    let (proxy, began) = (gateway.ingress("socks5"), Instant::now());
    let before = socks(proxy, &target.to_string()).unwrap();
    // They say nothing, and hold their descriptors until their handshake times out.
    let crowd: Vec<_> = (0..100).map(|_| connect(proxy)).collect();
    gateway.process().logged("accept fails; trying on");
    ping(&before, b"a session that is open goes on");
    drop(crowd);
    until("users are served again", SOON, || {
        let user = socks(proxy, &target.to_string()).ok()?;
        ping(&user, b"served");
        Some(())
    });
    let failed = metrics(&gateway).value("adit_ingress_accept_failed_total{ingress=\"socks5\"}");
    // One attempt in 50 ms, and no spinning.
    let most = 20 * (1 + began.elapsed().as_secs());
    assert!((1..=most).contains(&failed), "{failed} of {most}");
}
