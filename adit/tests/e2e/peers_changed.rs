//! Peers that come, go, stop or refuse, and what operators and users are told of it.

use std::{
    fs,
    io::{Read, Write},
    net::Shutdown,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    SOON, beside_others,
    clock::{Clock, DAY},
    cluster::Cluster,
    console::metrics,
    process::Process,
    site::Gateway,
    targets::{Refusing, Target, echo, expect, ping},
    until,
    users::http_connect,
};

#[test]
fn a_peer_that_is_taken_out_and_put_back_loses_and_gets_everything() {
    let _machine = beside_others();
    for drivers in [["tokio", "mio"], ["mio", "tokio"]] {
        let (cluster, _agent) = Cluster::running(&drivers);
        let target = echo().to_string();
        let old = cluster.socks(0, &target).unwrap();
        ping(&old, b"before");
        // Number 2, which has the agent, wants to hear of number 1 no more.
        let text = fs::read_to_string(&cluster.gateways[1].config).unwrap();
        let entry = entry_of(&text, 1);
        cluster.reload(1, |text| text.replace(&entry, ""));
        let mut old = old;
        let ended = old.read(&mut [0]);
        assert!(!matches!(ended, Ok(1..)), "the session is over: {ended:?}");
        cluster.sees(0, 0);
        cluster.socks(0, &target).unwrap_err();
        let listed = cluster.gateways[1].ask(&["peers", "list", "--json"]).json();
        assert_eq!(listed, json!([]));
        // It dials on, and stays outside.
        is_refused(cluster.process(1), 1);
        cluster.reload(1, |text| {
            text.replace("[enroll]", &format!("{entry}[enroll]"))
        });
        cluster.sees(0, 1);
        ping(&cluster.socks(0, &target).unwrap(), b"again");
        until("the refusal is forgotten", SOON, || {
            cluster.peer(0, 2)["last_refusal"].is_null().then_some(())
        });
    }
}

#[test]
fn a_gateway_joins_those_that_run_and_renews_its_certificate() {
    let _machine = beside_others();
    let mut cluster = Cluster::new(&["tokio", "mio"]);
    let text = fs::read_to_string(&cluster.gateways[0].config).unwrap();
    let entry = entry_of(&text, 2);
    cluster.edit(0, |text| text.replace(&entry, ""));
    cluster.gateways.iter_mut().for_each(Gateway::start);
    let last = &cluster.gateways[1];
    let _agent = cluster.site.serving("site-b", last, "127.0.0.1/32");
    is_refused(cluster.process(0), 1);
    let target = echo().to_string();
    cluster.socks(0, &target).unwrap_err();
    cluster.reload(0, |text| {
        text.replace("[enroll]", &format!("{entry}[enroll]"))
    });
    cluster.sees(0, 1);
    let user = cluster.socks(0, &target).unwrap();
    ping(&user, b"in");

    // The next certificate of the same key, and then one of another key, which the other gateway is told of first.
    cluster.renew(1, "node-2");
    cluster.reload(1, |text| text);
    ping(&user, b"the old session");
    ping(&cluster.socks(0, &target).unwrap(), b"a new one");
    let next = cluster.issue(1, "next");
    let pin = next.lines().find(|line| line.starts_with("spki")).unwrap();
    let next_pin = pin.replace("spki", "spki_next");
    let both = |text: String| text.replace("id = 2\n", &format!("id = 2\n{next_pin}\n"));
    cluster.reload(0, both);
    let (own, new) = (cluster.path("node-2"), cluster.path("next"));
    cluster.reload(1, |text| text.replace(&own, &new));
    ping(&user, b"the old session");
    ping(&cluster.socks(0, &target).unwrap(), b"a new one");
    // What is dialled from here on shows the new key to a gateway that knows no other one.
    let old_pin = entry.lines().find(|line| line.starts_with("spki")).unwrap();
    cluster.reload(0, |text| {
        let text = text.replace(&format!("{next_pin}\n"), "");
        text.replace(old_pin, pin)
    });
    cluster.gateways[0].process_mut().kill();
    cluster.gateways[0].start();
    cluster.sees(0, 1);
    ping(&cluster.socks(0, &target).unwrap(), b"by the new key");
}

#[test]
fn certificates_that_end_soon_are_told_of() {
    let _machine = beside_others();
    let mut cluster = Cluster::new(&["tokio", "mio"]);
    let clock = Clock::new(&cluster.site, "later");
    // Of 825 days.
    clock.set(800 * DAY + DAY / 2);
    let one = &mut cluster.gateways[0];
    one.spawn_through(|command| clock.on(command));
    let own = "the certificate that this gateway shows its peers ends soon";
    let is_own = |line: &Value| {
        line["message"].as_str().is_some_and(|m| m.starts_with(own)) && line["days"] == 24
    };
    one.process().logged_that(own, is_own, 1);
    cluster.gateways[1].start();
    // Either driver's.
    for (nth, peer) in [(0, 2), (1, 1)] {
        until("the peer's certificate is seen", SOON, || {
            cluster.peer(nth, peer)["certificate_ends_unix_s"].as_i64()
        });
    }
    cluster.reload(0, |text| text);
    let is_other = |line: &Value| {
        line["message"] == "the certificate of a peer ends soon" && line["peer"] == "n2"
    };
    let process = cluster.process(0);
    process.logged_that("of the peer's", is_other, 1);
    process.logged_that("of its own again", is_own, 2);
    let listed = cluster.gateways[0].ask(&["peers", "list"]).out;
    let ends = "this gateway's own certificate ends 20";
    assert!(
        listed.contains("CERTIFICATE ENDS") && listed.contains(ends),
        "{listed}"
    );
    let now = metrics(&cluster.gateways[0]);
    for node in [1, 2] {
        let end = format!("adit_peer_certificate_end_seconds{{peer=\"{node}\"}}");
        assert!(now.value(&end) > 1_700_000_000);
    }
    // The other one's clock is right.
    let soon = |line: &Value| {
        line["message"]
            .as_str()
            .is_some_and(|m| m.contains("ends soon"))
    };
    assert!(!cluster.process(1).has(soon));
}

#[test]
fn a_gateway_that_stops_lets_sessions_of_others_end_and_takes_no_new_ones() {
    let _machine = beside_others();
    for drivers in [["tokio", "mio"], ["mio", "tokio"]] {
        let mut cluster = Cluster::new(&drivers);
        cluster.edit(1, |text| format!("grace = \"15s\"\n{text}"));
        let _agent = cluster.start();
        let target = Target::listen();
        let mut user = cluster.open(&target);
        let mut far = target.accept();
        cluster.process(1).signal(Signal::TERM);
        // Others learn of it at once, and the session goes on.
        cluster.sees(0, 0);
        let refused = cluster.socks(0, &target.addr.to_string());
        refused.unwrap_err();
        user.write_all(b"late question").unwrap();
        expect(&far, b"late question");
        user.shutdown(Shutdown::Write).unwrap();
        assert_eq!(far.read(&mut [0]).unwrap(), 0);
        far.write_all(b"late answer").unwrap();
        drop(far);
        let mut answer = String::new();
        user.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "late answer", "{drivers:?}");
        assert_eq!(cluster.gateways[1].process_mut().exit().code(), Some(0));
        assert_eq!(cluster.gateways[0].ended(1), "clean");
        assert_eq!(cluster.gateways[1].ended(1), "clean");
    }
}

#[test]
fn an_agent_that_is_drained_keeps_forwarded_sessions_and_gets_no_new_ones() {
    let _machine = beside_others();
    let (cluster, agent) = Cluster::running(&["mio", "tokio"]);
    let target = echo().to_string();
    let user = cluster.socks(0, &target).unwrap();
    let drained = cluster.gateways[1].ask(&["agents", "drain", &agent.id()]);
    assert_eq!(drained.code, 0, "{drained:?}");
    cluster.sees(0, 0);
    cluster.socks(0, &target).unwrap_err();
    ping(&user, b"the old session");
    let undone = cluster.gateways[1].ask(&["agents", "drain", "--undo", &agent.id()]);
    assert_eq!(undone.code, 0, "{undone:?}");
    cluster.sees(0, 1);
    ping(&cluster.socks(0, &target).unwrap(), b"a new one");
}

#[test]
fn a_refusal_tells_the_users_of_both_gateways_the_same() {
    let _machine = beside_others();
    let (cluster, _agent) = Cluster::running(&["tokio", "mio"]);
    let closed = Refusing::new();
    for target in [&*closed.addr().to_string(), "127.0.0.3:9"] {
        let answers = [0, 1].map(|nth| {
            let proxy = cluster.gateways[nth].ingress("connect");
            let (status, mut body) = http_connect(proxy, target, "");
            let mut text = String::new();
            body.read_to_string(&mut text).unwrap();
            let socks = cluster.socks(nth, target).unwrap_err().to_string();
            (status, text, socks)
        });
        let [forwarded, direct] = &answers;
        let told = |(status, _, socks): &(u16, String, String)| (*status, socks.clone());
        assert_eq!(told(forwarded), told(direct), "{target}");
        // What the agent said, as it stands between the quotes.
        let reason = direct.1.split('"').nth(1).unwrap_or(&direct.1).trim_end();
        assert!(forwarded.1.contains(reason), "{answers:?}");
    }
}

#[test]
fn operators_see_who_holds_what() {
    let _machine = beside_others();
    let mut cluster = Cluster::new(&["tokio", "mio", "tokio"]);
    cluster.gateways.iter_mut().for_each(Gateway::start);
    let serving = |name: &str, nth: usize, routes: &str| {
        cluster.site.serving(name, &cluster.gateways[nth], routes)
    };
    let agents = [
        serving("own", 0, "127.0.0.0/8"),
        serving("two", 1, "127.0.0.1/32,127.0.2.0/24"),
        serving("three", 2, "127.0.0.0/8,*.three.test"),
        serving("four", 2, "127.0.0.1/32"),
    ];
    until("all is told", SOON, || {
        let held = |node| {
            let peer = cluster.peer(0, node);
            (peer["agents"].clone(), peer["routes"].clone())
        };
        (held(2) == (1.into(), 2.into()) && held(3) == (2.into(), 3.into())).then_some(())
    });
    let view = |target: &str| {
        let ran = cluster.gateways[0].ask(&["route", "explain", target, "--json"]);
        let view = ran.json();
        let own = view["candidates"].as_array().unwrap().len();
        (own, view["peers"].clone())
    };
    let peer = |node: u64, route: &str, after: u64| json!({"node": node, "route": route, "sessions": 0, "after": after, "forward": "quic"});
    let (all, one) = ("127.0.0.0/8", "127.0.0.1/32");
    // The most specific route first, wherever it is; where routes are alike the gateway's own agent.
    for (target, own, peers) in [
        ("127.0.0.1:80", 1, json!([peer(2, one, 0), peer(3, one, 0)])),
        (
            "127.0.2.1:80",
            1,
            json!([peer(2, "127.0.2.0/24", 0), peer(3, all, 1)]),
        ),
        ("127.9.9.9:80", 1, json!([peer(3, all, 1)])),
        ("a.three.test:80", 0, json!([peer(3, "*.three.test", 0)])),
        ("10.0.0.1:80", 0, Value::Null),
    ] {
        assert_eq!(view(target), (own, peers), "{target}");
    }
    lists_two_peers(&cluster);
    drop(agents);
}

#[test]
fn what_a_peer_held_leaves_within_three_seconds_however_it_dies() {
    let _machine = beside_others();
    for (drivers, signal) in [
        (["tokio", "mio"], Signal::KILL),
        (["mio", "tokio"], Signal::STOP),
    ] {
        let (cluster, _agent) = Cluster::running(&drivers);
        cluster.process(1).signal(signal);
        let died = Instant::now();
        cluster.sees(0, 0);
        let took = died.elapsed();
        eprintln!("{drivers:?} {signal:?}: routes left after {took:?}");
        assert!(took < GONE, "{drivers:?} {signal:?}: {took:?}");
    }
}

/// The first gateway lists both others, and counts a session on one of them.
fn lists_two_peers(cluster: &Cluster) {
    let session = cluster.socks(0, &echo().to_string()).unwrap();
    ping(&session, b"counted");
    let ways = cluster.ways(0, "127.0.0.1:80");
    let sessions = ways.iter().map(|row| row["sessions"].as_u64().unwrap());
    assert_eq!(sessions.sum::<u64>(), 1);
    for node in [2, 3] {
        let row = cluster.peer(0, node);
        let address = format!(
            "127.0.0.1:{}",
            cluster.ports[usize::try_from(node).unwrap() - 1]
        );
        assert_eq!(
            (&row["address"], &row["version"]),
            (&address.into(), &2.into())
        );
        assert_eq!(
            (&row["breaker"], &row["direction"]),
            (&"closed".into(), &"dialled".into())
        );
        assert!(
            row["rtt_us"].as_u64().unwrap() > 0 && row["last_refusal"].is_null(),
            "{row}"
        );
    }
    let shown = cluster.gateways[0]
        .ask(&["route", "explain", "127.0.0.1:80"])
        .out;
    let order: Vec<_> = shown
        .lines()
        .map(|line| line.split_whitespace().nth(1).unwrap())
        .collect();
    assert_eq!(order, ["NAME", "peer", "peer", "own"], "{shown}");
}

/// Waits until a gateway has refused somebody as a node that it does not know so many times: in the TLS handshake, or a
/// connection that there was.
fn is_refused(process: &Process, times: usize) {
    let is_it = |line: &Value| {
        let why = line["why"].as_str().unwrap_or_default();
        why.contains("the node is not known")
    };
    process.logged_that("the refusal", is_it, times);
}

/// The entry of a peer in a configuration.
fn entry_of(text: &str, node: u64) -> String {
    let begin = text
        .find(&format!("[[peers.peer]]\nid = {node}\n"))
        .unwrap();
    let rest = &text[begin + 1..];
    let ends = ["[[peers.peer]]", "[enroll]"].map(|next| rest.find(next));
    let end = ends.into_iter().flatten().min().unwrap();
    text[begin..=begin + end].to_owned()
}

/// What a peer held is forgotten 3 s after it was heard last; and the time of asking, on a busy machine.
const GONE: Duration = Duration::from_millis(3_500);
