//! The agents API, tokens of a console, and metrics, with the real binary.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{
    SOON, beside_others,
    console::{Console, METRICS, ask, fetch, metrics, metrics_addr},
    many_files,
    site::{PROXIES, Ports, Site, forward},
    targets::{Target, echo, ping},
    until,
    users::{connect, head, socks},
};

#[test]
fn a_consoles_tokens_enrol_list_and_delete_agents() {
    let _machine = beside_others();
    let site = Site::new();
    let console = Console::new(&site);
    let gateway = site.gateway("gw", &console.sections());
    let enrol = console.sign("ENROLLMENT", &console.enrolment(&gateway));
    let mut agent = site.agent("branch");
    let ran = agent.up(&enrol, "10.0.0.0/8,*.corp.local", &["--allow-http"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = site.agent("second").up(&enrol, "", &["--allow-http"]);
    ran.fails(4, &["create a new one"]);
    let id = agent.id();
    let path = format!("/jet/tunnel/agents/{id}");

    let listed = console.json(&gateway, "/jet/tunnel/agents");
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed[0]["status"], "offline");
    agent.serve(&gateway);
    let shown = console.json(&gateway, &path);
    assert_eq!(shown["status"], "online");
    assert_eq!(shown["name"], "site a");
    assert_eq!(shown["subnets"], json!(["10.0.0.0/8"]));
    assert_eq!(shown["domains"][0]["domain"], "*.corp.local");
    assert_ne!(shown["route_epoch"], 0);
    let before = shown["last_seen_ms"].as_u64().unwrap();
    agent.process_mut().terminate();
    let offline = until("the agent is offline", SOON, || {
        let shown = console.json(&gateway, &path);
        (shown["status"] == "offline").then_some(shown)
    });
    let left = offline["last_seen_ms"].as_u64().unwrap();
    assert!(
        left + 2_000 > before,
        "{left} is when it left, not {before}"
    );

    // Deleting is real: the connection is closed, and the agent does not come back.
    agent.serve(&gateway);
    let token = console.scope("gateway.agent.delete");
    assert_eq!(ask(&gateway, "DELETE", &path, &token).0, 204);
    assert_eq!(ask(&gateway, "DELETE", &path, &token).0, 401);
    gateway.process().logged_nth("agent disconnected", 2);
    agent.process_mut().kill();
    agent.spawn();
    gateway.process().logged("agent refused");
    let token = console.scope("*");
    assert_eq!(ask(&gateway, "GET", &path, &token).0, 404);
    assert!(gateway.agents().iter().all(|row| row["status"] != "online"));
    let metrics = metrics(&gateway);
    assert_eq!(metrics.value("adit_agents{status=\"online\"}"), 0);
    assert!(metrics.value("adit_agents_refused_total{cause=\"unknown_agent\"}") >= 1);
    assert_eq!(metrics.value("adit_enrolments_total"), 1);
    assert_eq!(
        metrics.value("adit_tokens_refused_total{cause=\"used\"}"),
        2
    );
}

#[test]
fn a_used_token_stays_used_when_the_gateway_starts_again() {
    let _machine = beside_others();
    let site = Site::new();
    let console = Console::new(&site);
    let mut gateway = site.gateway("gw", &console.sections());
    let token = console.scope("gateway.agent.read");
    let list = "/jet/tunnel/agents";
    assert_eq!(ask(&gateway, "GET", list, &token).0, 200);
    gateway.process_mut().kill();
    gateway.start();
    assert_eq!(ask(&gateway, "GET", list, &token).0, 401);
    let token = console.scope("gateway.agent.read");
    assert_eq!(ask(&gateway, "GET", list, &token).0, 200);
}

#[test]
fn metrics_follow_sessions_and_their_bytes() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway("gw", &format!("{METRICS}{PROXIES}"));
    let echo = echo();
    let _agent = site.serving("a", &gateway, "127.0.0.1/32");
    let now = metrics(&gateway);
    assert_eq!(now.value("adit_agents{status=\"online\"}"), 1);
    assert_eq!(now.value("adit_enrolments_total"), 1);
    assert_eq!(now.value("adit_handshakes_begun_total"), 1);
    assert_eq!(now.value("adit_sessions_open"), 0);
    assert_eq!(
        now.value("adit_sessions_failed_total{cause=\"no_route\"}"),
        0
    );

    let user = socks(gateway.ingress("socks5"), &echo.to_string()).unwrap();
    ping(&user, &[b'x'; 3_000]);
    // While it is open: what it has moved is told without waiting for its end.
    let now = metrics(&gateway);
    assert_eq!(now.value("adit_sessions_open"), 1);
    assert_eq!(now.value("adit_sessions_opened_total"), 1);
    assert_eq!(
        now.value("adit_session_bytes_total{direction=\"from_user\"}"),
        3_000
    );
    assert_eq!(
        now.value("adit_session_bytes_total{direction=\"to_user\"}"),
        3_000
    );
    assert_eq!(
        now.value("adit_ingress_opened_total{ingress=\"socks5\"}"),
        1
    );
    assert_eq!(
        now.value("adit_ingress_opened_total{ingress=\"connect\"}"),
        0
    );
    assert!(socks(gateway.ingress("socks5"), "192.0.2.1:1").is_err());
    user.shutdown(Shutdown::Write).unwrap();
    gateway.ended(1);
    let now = metrics(&gateway);
    assert_eq!(now.value("adit_sessions_open"), 0);
    assert_eq!(now.value("adit_sessions_ended_total{how=\"clean\"}"), 1);
    assert_eq!(
        now.value("adit_sessions_failed_total{cause=\"no_route\"}"),
        1
    );
    assert!(now.0.ends_with("# EOF\n"));
}

#[test]
fn operators_see_how_full_a_gateway_is() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), echo());
    let rest = format!("{METRICS}{PROXIES}{}", forward("t", target));
    let gateway = site.gateway("gw", &rest);
    let _agent = site.serving("a", &gateway, "127.0.0.1/32,10.0.0.0/8");
    let _user = connect(gateway.ingress("t"));
    gateway.sessions_are(1);
    let status = gateway.ask(&["gateway", "status", "--json"]).json();
    assert_eq!(
        (&status["agents"], &status["sessions"]),
        (&json!(1), &json!(1))
    );
    let row =
        |what: &str, used: u64, limit: u64| json!({"what": what, "used": used, "limit": limit});
    assert_eq!(
        status["usage"],
        json!([
            row("connections", 1, 20_000),
            row("handshakes", 0, 1_024),
            row("sessions_opening", 0, 20_000),
            row("sessions_of_one_agent", 1, 10_000),
            row("routes_of_one_agent", 2, 10_000),
            row("enrolment_connections", 0, 512),
            row("used_scope_tokens", 0, 100_000),
            row("used_association_tokens", 0, 100_000),
            row("unread_bytes", 0, 2_048 << 20),
            row("unread_bytes_of_one_agent", 0, 512 << 20),
            row("ingress_handshakes:socks5", 0, 1_024),
            row("ingress_handshakes:connect", 0, 1_024),
        ])
    );
    let text = gateway.ask(&["gateway", "status"]).out;
    assert!(text.contains("enrolment connections"), "{text}");
    assert!(text.contains("ingress handshakes socks5"), "{text}");
    let now = metrics(&gateway);
    for (name, value) in [
        ("bound_used{bound=\"sessions_of_one_agent\"}", 1),
        ("bound_limit{bound=\"sessions_of_one_agent\"}", 10_000),
        ("bound_used{bound=\"routes_of_one_agent\"}", 2),
        ("bound_limit{bound=\"unread_bytes\"}", 2_048 << 20),
        ("bound_used{bound=\"ingress_handshakes:connect\"}", 0),
    ] {
        let name = format!("adit_{name}");
        assert_eq!(now.value(&name), value, "{name}");
    }
}

#[test]
fn operators_see_what_a_gateway_refuses() {
    let _machine = beside_others();
    let site = Site::new();
    let gateway = site.gateway("gw", METRICS);
    let agent = site.serving("a", &gateway, "127.0.0.1/32");
    // No TLS, to where it is spoken.
    let mut stranger = connect(gateway.address("enroll"));
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let line = gateway.process().logged("TLS with an HTTP caller failed");
    assert_eq!(
        line["source"],
        stranger.local_addr().unwrap().to_string().as_str()
    );
    assert_eq!(gateway.ask(&["gateway", "reload"]).code, 0);
    let good = fs::read_to_string(&gateway.config).unwrap();
    fs::write(&gateway.config, "nonsense").unwrap();
    gateway.process().signal(Signal::HUP);
    gateway
        .process()
        .logged("configuration not reloaded; the former one stays in force");
    fs::write(&gateway.config, good).unwrap();
    assert_eq!(agent.ask(&["agent", "renew"]).code, 0);
    gateway.process().logged("certificate renewed");
    let now = metrics(&gateway);
    for (name, value) in [
        ("connections_limit", 20_000),
        ("handshakes_limit", 1_024),
        ("sessions_opening_limit", 20_000),
        ("failover_total{kind=\"raced\"}", 0),
        ("failover_total{kind=\"overtaken\"}", 0),
        ("renewals_total{outcome=\"granted\"}", 1),
        ("renewals_total{outcome=\"refused\"}", 0),
        ("reloads_total{outcome=\"ok\"}", 1),
        ("reloads_total{outcome=\"failed\"}", 1),
        ("http_tls_failed_total{listener=\"enrolment\"}", 1),
        ("http_share_full_total{listener=\"enrolment\"}", 0),
        ("http_accepted_total{listener=\"metrics\"}", 1),
    ] {
        let name = format!("adit_{name}");
        assert_eq!(now.value(&name), value, "{name}");
    }
    assert!((1..=2).contains(&now.value("adit_connections")));
    assert!(now.value("adit_handshakes_pending") <= 1);
}

#[test]
fn who_takes_all_places_of_the_http_listener_keeps_others_waiting_and_no_longer() {
    let _machine = beside_others();
    many_files();
    let site = Site::new();
    let gateway = site.gateway("gw", &Console::new(&site).sections());
    let at = gateway.address("enroll");
    let crowd: Vec<_> = (0..512).map(|_| connect(at)).collect();
    gateway
        .process()
        .logged("all places of an HTTP listener are taken; callers wait");
    let status = gateway.ask(&["gateway", "status", "--json"]).json();
    let row = json!({"what": "enrolment_connections", "used": 512, "limit": 512});
    let usage = status["usage"].as_array().unwrap();
    assert!(usage.contains(&row), "{status}");
    let mut late = connect(at);
    late.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    late.set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let early = late.read(&mut [0]).unwrap_err().kind();
    assert_eq!(early, ErrorKind::WouldBlock);
    late.set_read_timeout(Some(SOON)).unwrap();
    drop(crowd);
    let head = head(&late);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let now = metrics(&gateway);
    let full = "adit_http_places_full_total{listener=\"enrolment\"}";
    // Once more where the next place was free a moment later.
    assert!((1..=2).contains(&now.value(full)), "{}", now.0);
    assert_eq!(
        now.value("adit_http_accepted_total{listener=\"enrolment\"}"),
        513
    );
}

#[test]
fn operators_see_what_users_hold_who_do_not_read_and_who_is_in_a_handshake() {
    let _machine = beside_others();
    let (site, target) = (Site::new(), Target::listen());
    let rest = format!(
        "{METRICS}{PROXIES}{}[limits]\nunread = 64\nunread_per_agent = 32\ningress_handshakes = 8\n\
         sessions_per_agent = 7\n",
        forward("t", target.addr)
    );
    let gateway = site.gateway("gw", &rest);
    let _agent = site.serving("a", &gateway, "127.0.0.1/32");
    let _user = connect(gateway.ingress("t"));
    let mut far = target.accept();
    std::thread::spawn(move || {
        // Ends with the session.
        while far.write_all(&[7; 64 << 10]).is_ok() {}
    });
    let _strangers = [(); 3].map(|()| connect(gateway.ingress("socks5")));
    let usage = |what: &str| {
        let status = gateway.ask(&["gateway", "status", "--json"]).json();
        let rows = status["usage"].as_array().unwrap();
        let row = rows.iter().find(|row| row["what"] == what).unwrap();
        (
            row["used"].as_u64().unwrap(),
            row["limit"].as_u64().unwrap(),
        )
    };
    until("bytes are held", SOON, || {
        (usage("unread_bytes").0 > 0).then_some(())
    });
    until("handshakes are seen", SOON, || {
        (usage("ingress_handshakes:socks5").0 == 3).then_some(())
    });
    assert_eq!(usage("unread_bytes").1, 64 << 20);
    let (used, limit) = usage("unread_bytes_of_one_agent");
    assert!((1..=limit).contains(&used) && limit == 32 << 20, "{used}");
    assert_eq!(usage("ingress_handshakes:connect"), (0, 8));
    assert_eq!(usage("sessions_of_one_agent"), (1, 7));
    let now = metrics(&gateway);
    let held = |of: &str| now.value(&format!("adit_bound_used{{bound=\"{of}\"}}"));
    assert!(held("unread_bytes") > 0 && held("unread_bytes_of_one_agent") > 0);
    assert_eq!(held("ingress_handshakes:socks5"), 3);
}

#[test]
fn a_stopping_gateway_is_live_but_not_ready() {
    let _machine = beside_others();
    let site = Site::new();
    let target = Target::listen();
    let rest = format!("{METRICS}{}", forward("t", target.addr));
    let mut gateway = site.gateway_with("gw", "grace = \"15s\"", Ports::default(), &rest);
    gateway.start();
    let _agent = site.serving("a", &gateway, "127.0.0.1/32");
    let at = metrics_addr(&gateway);
    assert_eq!(fetch(at, "/readyz"), (200, "ready\n".to_owned()));
    let mut user = connect(gateway.ingress("t"));
    user.write_all(b"x").unwrap();
    let accepted = target.accept();
    gateway.process().signal(Signal::TERM);
    let answer = until("the gateway is not ready", SOON, || {
        let answer = fetch(at, "/readyz");
        (answer.0 != 200).then_some(answer)
    });
    assert_eq!(answer.0, 503);
    assert!(answer.1.contains("stopping"), "{}", answer.1);
    assert_eq!(fetch(at, "/livez").0, 200);
    drop((user, accepted));
    assert_eq!(gateway.process_mut().exit().code(), Some(0));
}

#[test]
fn files_that_cannot_be_used_stop_the_start() {
    let _machine = beside_others();
    let site = Site::new();
    let list = site.path("jrl.json");
    fs::write(&list, "{\"jti\": 1}").unwrap();
    let key = site.path("key.pem");
    fs::write(&key, "nothing").unwrap();
    let rest = format!("[provisioner]\npublic_key_file = {key:?}\nrevocation_list = {list:?}\n");
    let gateway = site.gateway_with("gw", "", Ports::default(), &rest);
    for verb in [&["gateway", "run"][..], &["config", "check"]] {
        let ran = gateway.ask(verb);
        ran.fails(
            3,
            &[
                "key.pem holds no PEM block",
                "jrl.json is not a JSON object",
            ],
        );
    }
}
