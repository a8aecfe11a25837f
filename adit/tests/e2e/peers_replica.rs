//! Sessions that go to a peer over replica links.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    SOON, beside_others,
    cluster::Cluster,
    console::metrics,
    process::Ran,
    site::{Agent, Gateway, Site, free_port},
    targets::{Target, echo, ping},
    until,
    users::socks,
};

/// Two gateways that hand sessions to each other over replica links; the second one has an agent for loopback.
fn running(drivers: &[&str; 2]) -> (Cluster, Agent) {
    let ports = [free_port(), free_port()];
    let section = |site: &Site, nth: usize, section: String| {
        let key = key(site, "replica.key");
        let (own, other) = (ports[nth], ports[1 - nth]);
        let node = format!("[[peers.peer]]\nid = {}\n", 2 - nth);
        let linked = format!("{node}forward = \"replica\"\nreplica = \"127.0.0.1:{other}\"\n");
        let own = format!("replica_listen = \"127.0.0.1:{own}\"\nreplica_key_file = \"{key}\"\n");
        let section = section.replace(&node, &linked);
        section.replace("[peers]\n", &format!("[peers]\n{own}"))
    };
    Cluster::with(drivers, section).run()
}

/// The path of a key, which is drawn where it is not there.
fn key(site: &Site, name: &str) -> String {
    let path = site.path(name).to_string_lossy().into_owned();
    let drawn = site.run(&["peers", "genkey", "--out", &path]);
    assert!(drawn.code == 0 || fs::exists(&path).unwrap(), "{drawn:?}");
    path
}

fn link_lines(gateway: &Gateway) -> usize {
    gateway.process().count("link with a replica")
}

#[test]
fn bytes_ends_and_resets_pass_over_replica_links() {
    let _machine = beside_others();
    for drivers in [["tokio", "tokio"], ["mio", "tokio"], ["tokio", "mio"]] {
        let (peers, _agent) = running(&drivers);
        let user = socks(peers.gateways[0].ingress("socks5"), &echo().to_string());
        ping(&user.unwrap(), b"there and back");

        let target = Target::listen();
        let mut user = peers.open(&target);
        let mut accepted = target.accept();
        user.write_all(b"question").unwrap();
        user.shutdown(Shutdown::Write).unwrap();
        let mut question = String::new();
        accepted.read_to_string(&mut question).unwrap();
        assert_eq!(question, "question");
        accepted.write_all(b"answer").unwrap();
        drop(accepted);
        let mut answer = String::new();
        user.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer", "{drivers:?}");

        let mut user = peers.open(&target);
        let accepted = target.accept();
        let hard = Some(Duration::ZERO);
        socket2::SockRef::from(&accepted).set_linger(hard).unwrap();
        drop(accepted);
        let error = user.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

        let is_it = |line: &Value| line["message"] == "session ended" && line["peer"] == "n2";
        let one = &peers.gateways[0];
        one.process().logged_that("session ended", is_it, 3);
        for gateway in &peers.gateways {
            assert!(link_lines(gateway) >= 3);
            assert_eq!(gateway.process().count("sessions can be forwarded"), 0);
        }
        let now = metrics(one);
        assert_eq!(now.value("adit_peer_links_dialled_total{result=\"ok\"}"), 3);
        assert_eq!(
            now.value("adit_peer_links_dialled_total{result=\"failed\"}"),
            0
        );
        assert!(now.value("adit_peer_links_open{side=\"accepted\"}") == 0);
        let listed = one.ask(&["peers", "list", "--json"]).json();
        assert_eq!(listed[0]["forward"], "replica");
        let explained = one.ask(&["route", "explain", "127.0.0.1:9", "--json"]);
        assert_eq!(explained.json()["peers"][0]["forward"], "replica");
    }
}

/// Either end dials, other than between replicas, of which the lower number does.
#[test]
fn sessions_go_from_the_higher_number_to_the_lower_as_well() {
    let _machine = beside_others();
    for drivers in [["tokio", "mio"], ["mio", "tokio"]] {
        let (peers, _agent) = running(&drivers);
        let [one, two] = &peers.gateways[..] else {
            panic!("two gateways");
        };
        let _other = peers.site.serving("site-a", one, "127.0.0.2/32");
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        let target = listener.local_addr().unwrap().to_string();
        until("a way to the first gateway's agent", SOON, || {
            (peers.ways(1, &target).len() == 1).then_some(())
        });
        let mut user = peers.socks(1, &target).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        user.write_all(b"question").unwrap();
        user.shutdown(Shutdown::Write).unwrap();
        let (mut question, mut answer) = (String::new(), String::new());
        accepted.read_to_string(&mut question).unwrap();
        accepted.write_all(b"answer").unwrap();
        drop(accepted);
        user.read_to_string(&mut answer).unwrap();
        assert_eq!((&question[..], &answer[..]), ("question", "answer"));
        let is_it = |line: &Value| line["message"] == "session ended" && line["peer"] == "n1";
        two.process().logged_that("session ended", is_it, 1);
        // And the other way, between the same two.
        ping(
            &peers.socks(0, &echo().to_string()).unwrap(),
            b"there and back",
        );
        for gateway in [one, two] {
            let dialled = "adit_peer_links_dialled_total{result=\"ok\"}";
            assert_eq!(metrics(gateway).value(dialled), 1, "{drivers:?}");
        }
    }
}

#[test]
fn a_gateway_that_dies_resets_its_links_and_comes_back() {
    let _machine = beside_others();
    let (mut peers, _agent) = running(&["tokio", "tokio"]);
    let target = echo();
    let open = |peers: &Cluster| socks(peers.gateways[0].ingress("socks5"), &target.to_string());
    let mut user = open(&peers).unwrap();
    ping(&user, b"before its death");
    peers.gateways[1].process_mut().kill();
    user.set_read_timeout(Some(SOON)).unwrap();
    let error = user.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    peers.sees(0, 0);
    peers.gateways[1].start();
    peers.sees(0, 1);
    ping(&open(&peers).unwrap(), b"after the peer's restart");

    // The user's gateway: its target sees a reset, and no clean end.
    let target = Target::listen();
    let _user = peers.open(&target);
    let mut accepted = target.accept();
    peers.gateways[0].process_mut().kill();
    accepted.set_read_timeout(Some(SOON)).unwrap();
    let error = accepted.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    peers.gateways[0].start();
    peers.sees(0, 1);
    ping(&open(&peers).unwrap(), b"after the gateway's restart");

    // A stop that is asked for is no different to a session that is open.
    let mut user = open(&peers).unwrap();
    ping(&user, b"before its stop");
    peers.gateways[1].process_mut().terminate();
    user.set_read_timeout(Some(SOON)).unwrap();
    let error = user.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn the_key_of_replica_links_is_exchanged_under_traffic() {
    let _machine = beside_others();
    let (peers, _agent) = running(&["tokio", "tokio"]);
    let target = echo();
    let (old, new) = (key(&peers.site, "replica.key"), key(&peers.site, "new.key"));
    let open = || socks(peers.gateways[0].ingress("socks5"), &target.to_string());
    let user = open().unwrap();
    let steps = [
        format!("replica_key_file = \"{old}\"\nprevious_replica_key_file = \"{new}\""),
        format!("replica_key_file = \"{new}\"\nprevious_replica_key_file = \"{old}\""),
        format!("replica_key_file = \"{new}\""),
    ];
    let mut now = format!("replica_key_file = \"{old}\"");
    for (nth, step) in steps.into_iter().enumerate() {
        for gateway in &peers.gateways {
            change(gateway, &now, &step);
            gateway.process().signal(Signal::HUP);
            (gateway.process()).logged_nth("configuration reloaded", nth + 1);
            for _ in 0..5 {
                ping(&open().unwrap(), b"a new session");
            }
            ping(&user, b"the old session");
        }
        now = step;
    }
    for gateway in &peers.gateways {
        let failed = "no link with a replica that was dialled";
        assert_eq!(gateway.process().count(failed), 0);
    }
    // Whoever missed it is told so, and what would have fitted.
    let old = format!("replica_key_file = \"{new}\"\nprevious_replica_key_file = \"{old}\"");
    change(
        &peers.gateways[0],
        &now,
        &format!("{old}\nreplica_profile = \"a\""),
    );
    peers.gateways[0].process().signal(Signal::HUP);
    (peers.gateways[0].process()).logged_nth("configuration reloaded", 4);
    open().unwrap_err();
    let said = |line: &Value| {
        let error = line["error"].as_str().unwrap_or_default();
        error.contains("the peer has profile B, with the current key")
    };
    (peers.gateways[0].process()).logged_that("the profile that would fit", said, 1);
    let reason = |line: &Value| {
        let reason = line["reason"].as_str().unwrap_or_default();
        line["message"] == "no session"
            && reason.contains("the connection to the gateway that has the agent failed")
    };
    (peers.gateways[0].process()).logged_that("what the user is told", reason, 1);
    let key = fs::read_to_string(&new).unwrap();
    for gateway in &peers.gateways {
        let tells_key = |line: &Value| line.to_string().contains(key.trim());
        assert!(!gateway.process().has(tells_key));
    }
}

fn change(gateway: &Gateway, from: &str, to: &str) {
    let text = fs::read_to_string(&gateway.config).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&gateway.config, text.replace(from, to)).unwrap();
}

#[test]
fn what_does_not_go_with_replica_links_is_said_at_the_start() {
    let _machine = beside_others();
    let (peers, _agent) = running(&["tokio", "tokio"]);
    let gateway = &peers.gateways[0];
    change(
        gateway,
        "forward = \"replica\"",
        "forward = \"replica\"\nseal = \"never\"",
    );
    let ran: Ran = gateway.ask(&["gateway", "run"]);
    ran.fails(3, &["sealed links only"]);
    // At a reload the former configuration stays in force.
    gateway.process().signal(Signal::HUP);
    let refused = "configuration not reloaded; the former one stays in force";
    gateway.process().logged(refused);
    ping(
        &socks(gateway.ingress("socks5"), &echo().to_string()).unwrap(),
        b"goes on",
    );
}
