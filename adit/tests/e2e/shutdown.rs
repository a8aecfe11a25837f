//! The end: signals, grace, and what they leave.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::Path,
    process::Stdio,
};

use rustix::process::Signal;

use crate::harness::{
    beside_others,
    process::{Process, run},
    site::{Agent, Gateway, Ports, Site, forward},
    targets::{Target, drain, expect},
    users::{connect, head, http_connect, socks},
};

#[test]
fn a_stopping_gateway_lets_sessions_end_and_takes_no_new_ones() {
    let _machine = beside_others();
    let (_site, mut gateway, _agent, target) = bed("grace = \"15s\"");
    let ingress = gateway.ingress("t");
    let user = connect(ingress);
    let accepted = target.accept();
    gateway.process().signal(Signal::TERM);
    gateway
        .process()
        .logged("stopping: no new users; a second signal ends at once");
    exchange(&user, &accepted);
    crate::harness::until("the listener is closed", crate::harness::SOON, || {
        TcpStream::connect(ingress).is_err().then_some(())
    });
    exchange(&user, &accepted);
    user.shutdown(Shutdown::Write).unwrap();
    drop(accepted);
    assert!(drain(&user).1.is_ok(), "a clean end");
    assert_eq!(gateway.process_mut().exit().code(), Some(0));
    assert_eq!(gateway.ended(1), "clean");
}

#[test]
fn a_signal_counts_from_the_start_on() {
    let _machine = beside_others();
    let site = Site::new();
    let mut gateway = site.gateway_with("gw", "", Ports::default(), "");
    for _ in 0..5 {
        gateway.start();
        gateway.process().signal(Signal::HUP);
        gateway.process().logged("configuration reloaded");
        gateway.process_mut().kill();
        gateway.start();
        assert!(gateway.process_mut().terminate().success());
    }
    gateway.start();
    let mut agent = site.enrol("site-a", &gateway, "127.0.0.1/32");
    for _ in 0..5 {
        for signal in [Signal::HUP, Signal::TERM] {
            agent.spawn();
            agent.process().logged("agent running");
            agent.process().signal(signal);
            if signal == Signal::HUP {
                agent.process().logged("configuration reloaded");
                agent.process_mut().kill();
            } else {
                assert!(agent.process_mut().exit().success());
            }
        }
    }
}

#[test]
fn a_second_signal_ends_a_gateway_at_once() {
    let _machine = beside_others();
    let (_site, mut gateway, agent, target) = bed("grace = \"1h\"");
    let user = connect(gateway.ingress("t"));
    let accepted = target.accept();
    exchange(&user, &accepted);
    gateway.process().signal(Signal::TERM);
    gateway
        .process()
        .logged("stopping: no new users; a second signal ends at once");
    gateway.process().signal(Signal::TERM);
    assert_eq!(gateway.process_mut().exit().code(), Some(0));
    gateway.process().logged("gateway stopped");
    assert_eq!(gateway.ended(1), "cut");
    let (_, end) = drain(&user);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    agent.process().logged("connection to the gateway lost");
}

#[test]
fn the_grace_period_ends() {
    let _machine = beside_others();
    let (_site, mut gateway, _agent, target) = bed("grace = \"1s\"");
    let user = connect(gateway.ingress("t"));
    let accepted = target.accept();
    exchange(&user, &accepted);
    assert_eq!(gateway.process_mut().terminate().code(), Some(0));
    gateway
        .process()
        .logged("grace period over; cutting the sessions left");
    assert!(drain(&user).1.is_err());
}

#[test]
fn a_stopping_agent_takes_no_new_sessions_and_lets_the_open_ones_end() {
    let _machine = beside_others();
    let (_site, gateway, mut agent, target) = bed("");
    let user = connect(gateway.ingress("t"));
    let accepted = target.accept();
    exchange(&user, &accepted);
    agent.process().signal(Signal::TERM);
    agent
        .process()
        .logged("stopping: routes withdrawn; a second signal ends at once");
    crate::harness::until("the routes are gone", crate::harness::SOON, || {
        let agents = gateway.agents();
        (agents.len() == 1 && agents[0]["subnets"] == serde_json::json!([])).then_some(())
    });
    let (_, end) = drain(&connect(gateway.ingress("t")));
    assert!(end.is_err(), "a new session is refused");
    exchange(&user, &accepted);
    drop((user, accepted));
    assert_eq!(agent.process_mut().exit().code(), Some(0));
    assert_eq!(gateway.ended(1), "clean");

    agent.serve(&gateway);
    let user = connect(gateway.ingress("t"));
    let accepted = target.accept();
    exchange(&user, &accepted);
    for _ in 0..2 {
        agent.process().signal(Signal::INT);
        agent
            .process()
            .logged("stopping: routes withdrawn; a second signal ends at once");
    }
    assert_eq!(agent.process_mut().exit().code(), Some(0));
    let (_, end) = drain(&user);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn the_demo_does_what_it_prints_and_leaves_nothing() {
    let _machine = beside_others();
    let site = Site::new();
    let temporary = site.path("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = site.command(&["demo"]);
    command.env("TMPDIR", &temporary).stdout(Stdio::piped());
    let mut demo = Process::start("demo", command);
    let mut printed = String::new();
    let mut stdout = demo.stdout();
    while !printed.contains("Ctrl-C ends") {
        let mut line = String::new();
        let read = std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        assert_ne!(read, 0, "{printed}");
        printed.push_str(&line);
    }
    let commands: Vec<Vec<&str>> = printed
        .lines()
        .filter(|line| line.starts_with("  "))
        .map(|line| line.split_whitespace().collect())
        .collect();
    let curls: Vec<_> = commands.iter().filter(|c| c[0] == "curl").collect();
    assert_eq!((curls.len(), commands.len()), (3, 6), "{printed}");
    for words in curls {
        let body = fetch(words);
        assert!(
            body.contains("Hello from the demo target"),
            "{words:?}: {body}"
        );
    }
    for words in commands.iter().filter(|c| c[0] != "curl") {
        let mut verb = std::process::Command::new(words[0]);
        verb.args(&words[1..])
            .env_clear()
            .env("HOME", site.path(""));
        let ran = run(verb, "");
        assert_eq!(ran.code, 0, "{ran:?}");
        let listed = words.contains(&"sessions") || ran.out.contains("demo-agent");
        assert!(listed, "{ran:?}");
    }
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 1);
    demo.signal(Signal::INT);
    assert_eq!(demo.exit().code(), Some(0));
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}

/// Does what a printed curl command does: with curl where there is one, else by itself.
fn fetch(words: &[&str]) -> String {
    let has_curl = ["/usr/bin/curl", "/bin/curl"]
        .iter()
        .any(|path| Path::new(path).exists());
    if has_curl {
        let mut command = std::process::Command::new("curl");
        command
            .arg("--silent")
            .args(&words[1..])
            .env_remove("http_proxy");
        let ran = run(command, "");
        assert_eq!(ran.code, 0, "{ran:?}");
        return ran.out;
    }
    let after = |flag| {
        let at = words.iter().position(|word| *word == flag)?;
        words.get(at + 1).copied()
    };
    let url = words.last().unwrap();
    let target = url.trim_start_matches("http://").trim_end_matches('/');
    let addr = |text: &str| -> SocketAddr { text.trim_start_matches("http://").parse().unwrap() };
    let mut user = match (after("--socks5-hostname"), after("--proxy")) {
        (Some(proxy), _) => socks(addr(proxy), target).unwrap(),
        (None, Some(proxy)) => http_connect(addr(proxy), target, "").1,
        (None, None) => connect(addr(target)),
    };
    write!(
        user,
        "GET / HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut body = String::new();
    let head = head(&user);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    user.read_to_string(&mut body).unwrap();
    body
}

fn bed(head: &str) -> (Site, Gateway, Agent, Target) {
    let (site, target) = (Site::new(), Target::listen());
    let rest = forward("t", target.addr);
    let mut gateway = site.gateway_with("gw", head, Ports::default(), &rest);
    gateway.start();
    let agent = site.serving("site-a", &gateway, "127.0.0.1/32");
    (site, gateway, agent, target)
}

fn exchange(mut user: &TcpStream, mut target: &TcpStream) {
    user.write_all(b"question").unwrap();
    expect(target, b"question");
    target.write_all(b"answer").unwrap();
    expect(user, b"answer");
}
