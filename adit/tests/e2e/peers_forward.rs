//! Sessions of users at one gateway whose agent is at another.

use std::{
    fs,
    io::{Read, Write},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{
    SOON, beside_others,
    cluster::Cluster,
    console::metrics,
    targets::{Refusing, Target, echo, ping},
    until,
};

#[test]
fn bytes_ends_and_resets_pass_through_two_gateways() {
    let _machine = beside_others();
    for drivers in [
        ["tokio", "tokio"],
        ["mio", "tokio"],
        ["tokio", "mio"],
        ["mio", "mio"],
    ] {
        let (peers, _agent) = Cluster::running(&drivers);
        let echo = echo().to_string();
        ping(&peers.socks(0, &echo).unwrap(), b"there and back");

        let target = Target::listen();
        let mut user = peers.open(&target);
        let mut accepted = target.accept();
        user.write_all(b"question").unwrap();
        user.shutdown(std::net::Shutdown::Write).unwrap();
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
        socket2::SockRef::from(&accepted)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(accepted);
        let error = user.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

        let is_it = |line: &Value| line["message"] == "session ended" && line["peer"] == "n2";
        peers.gateways[0]
            .process()
            .logged_that("session ended", is_it, 3);
    }
}

#[test]
fn what_a_dead_peer_held_is_forgotten_and_comes_back_with_it() {
    let _machine = beside_others();
    let (mut peers, mut agent) = Cluster::running(&["tokio", "tokio"]);
    let target = echo();
    peers.gateways[1].process_mut().kill();
    let killed = Instant::now();
    peers.sees(0, 0);
    // Three seconds, and the time of asking.
    assert!(killed.elapsed() < Duration::from_secs(4));
    peers.gateways[1].start();
    peers.sees(0, 1);
    let open = |peers: &Cluster| peers.socks(0, &target.to_string());
    ping(&open(&peers).unwrap(), b"after the peer's restart");
    peers.gateways[0].process_mut().kill();
    peers.gateways[0].start();
    peers.sees(0, 1);
    ping(&open(&peers).unwrap(), b"after the gateway's restart");
    agent.process_mut().kill();
    peers.sees(0, 0);
    agent.serve(&peers.gateways[1]);
    peers.sees(0, 1);
    ping(&open(&peers).unwrap(), b"after the agent's restart");
}

#[test]
fn a_refusal_comes_back_and_no_session_goes_two_hops() {
    let _machine = beside_others();
    let (peers, mut agent) = Cluster::running(&["tokio", "mio", "tokio"]);
    let target = echo();
    let open = || peers.socks(0, &target.to_string());
    ping(&open().unwrap(), b"one of two peers has it");
    let closed = Refusing::new();
    peers.socks(0, &closed.addr().to_string()).unwrap_err();
    // All three know of the route until it is gone, and none hands on what it was handed.
    assert_eq!(peers.gateways[1].process().count("session ended"), 0);
    agent.process_mut().kill();
    peers.sees(0, 0);
    open().unwrap_err();
    assert_eq!(peers.gateways[1].process().count("session ended"), 0);
}

#[test]
fn the_key_of_a_cluster_is_exchanged_under_traffic() {
    let _machine = beside_others();
    let (peers, _agent) = Cluster::running(&["tokio", "tokio"]);
    let (old, new) = (peers.path("cluster.key"), peers.path("new.key"));
    let target = echo().to_string();
    let user = peers.socks(0, &target).unwrap();
    let steps = [
        format!("cluster_key_file = \"{old}\"\nprevious_key_file = \"{new}\""),
        format!("cluster_key_file = \"{new}\"\nprevious_key_file = \"{old}\""),
        format!("cluster_key_file = \"{new}\""),
    ];
    let mut now = format!("cluster_key_file = \"{old}\"");
    peers.edit(0, |text| text.replace(&now, &steps[0]));
    // One of 256 keys has the number of the former one, and is refused.
    until("a key with another number", SOON, || {
        let _none_yet = fs::remove_file(&new);
        let drawn = peers.site.run(&["peers", "genkey", "--out", &new]);
        assert_eq!(drawn.code, 0);
        let judged = peers.gateways[0].ask(&["config", "check"]);
        (judged.code == 0).then_some(())
    });
    peers.edit(0, |text| text.replace(&steps[0], &now));
    for step in steps {
        for nth in [0, 1] {
            peers.reload(nth, |text| text.replace(&now, &step));
            ping(&peers.socks(0, &target).unwrap(), b"a new session");
            ping(&user, b"the old session");
        }
        now = step;
    }
    peers.sees(0, 1);
}

#[test]
fn operators_see_what_is_counted_of_calls() {
    let _machine = beside_others();
    let (peers, _agent) = Cluster::running(&["tokio", "mio"]);
    for (gateway, other) in peers.gateways.iter().zip(["2", "1"]) {
        // What the last gateway told has come; that the other one was answered too is a matter of a moment.
        until("calls of both", SOON, || {
            let now = metrics(gateway);
            let counted = |name: &str| now.value(&format!("adit_peer_rpc_{name}"));
            let called = |dir| {
                let labels = format!("dir=\"{dir}\",type=\"catalogue\",result=\"answered\"");
                let line = format!("adit_peer_rpc_requests_total{{{labels}}}");
                now.0.contains(&line).then(|| now.value(&line))
            };
            let both = called("in")?.min(called("out")?);
            let latency = counted("latency_seconds_count{type=\"catalogue\"}");
            assert!(latency > 0 && both > 0, "{}", now.0);
            for dir in ["in", "out"] {
                assert!(counted(&format!("bytes_total{{dir=\"{dir}\"}}")) > 0);
                assert!(counted(&format!("inflight{{dir=\"{dir}\"}}")) < 3);
            }
            assert!(counted("version_handshake_total{result=\"agreed\"}") >= 2);
            assert!(counted("identity_total{outcome=\"spki\"}") > 0);
            assert_eq!(counted("auth_fail_total{reason=\"mac\"}"), 0);
            assert_eq!(counted(&format!("breaker_state{{peer=\"{other}\"}}")), 0);
            assert!(now.0.contains("adit_peer_rpc_buffered_bytes "));
            Some(())
        });
    }
}

#[test]
fn a_count_of_starts_that_was_lost_goes_on_above_what_peers_know() {
    let _machine = beside_others();
    for drivers in [["tokio", "mio"], ["mio", "tokio"]] {
        let mut peers = Cluster::new(&drivers);
        let count = peers.gateways[0].state.join("peers-boot-epoch");
        let counted = || fs::read_to_string(&count).unwrap();
        peers.gateways[1].start();
        // The first start has made the folder.
        peers.gateways[0].start();
        assert_eq!(counted(), "1\n");
        peers.gateways[0].process_mut().kill();
        fs::write(&count, "41").unwrap();
        peers.gateways[0].start();
        let agent = peers
            .site
            .serving("site-b", &peers.gateways[0], "127.0.0.1/32");
        // Number 2 knows what this start holds.
        peers.sees(1, 1);
        peers.gateways[0].process_mut().kill();
        fs::remove_file(&count).unwrap();
        peers.gateways[0].start();
        let process = peers.gateways[0].process();
        let line = process.logged(LIFTED);
        assert_eq!((&line["peer"], &line["epoch"]), (&"n2".into(), &43.into()));
        assert_eq!(counted(), "43\n");
        // A count that no gateway reaches: somebody is wrong, and the count stays.
        peers.gateways[0].process_mut().kill();
        fs::write(&count, "1000000").unwrap();
        peers.gateways[0].start();
        let told = |n| {
            until("the peer is called", SOON, || {
                let calls = "adit_peer_rpc_requests_total{dir=\"out\",type=\"catalogue\",result=\"answered\"}";
                let now = metrics(&peers.gateways[0]);
                (now.0.contains(calls) && now.value(calls) >= n).then_some(())
            });
        };
        told(1);
        peers.gateways[0].process_mut().kill();
        fs::remove_file(&count).unwrap();
        peers.gateways[0].start();
        let line = peers.gateways[0].process().logged(REFUSED);
        let error = line["error"].as_str().unwrap();
        assert!(
            error.contains("1000001") && error.contains("4096"),
            "{error}"
        );
        assert_eq!(counted(), "1\n");
        drop(agent);
    }
}

const LIFTED: &str = "a peer knows of a later start of this gateway: the count of starts was lost, and goes on from there";
const REFUSED: &str =
    "a peer knows of a later start of this gateway, and takes nothing that this one tells";
