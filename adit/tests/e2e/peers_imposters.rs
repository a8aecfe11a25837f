//! Whoever is no peer, and who is one and claims to be another: told so in the log, no route, no session.

use std::sync::RwLockReadGuard;

use serde_json::Value;

use crate::harness::{
    SOON, beside_others,
    cluster::Cluster,
    site::Gateway,
    targets::{echo, ping},
    until,
};

#[test]
fn a_certificate_of_the_ca_that_is_not_pinned_is_refused() {
    let cluster = Intruded::new(|cluster| {
        let (own, other) = (cluster.path("node-3"), cluster.path("unpinned"));
        cluster.issue(2, "unpinned");
        cluster.edit(2, |text| text.replace(&own, &other));
    });
    for nth in [0, 1] {
        let process = cluster.0.process(nth);
        let line = process.logged(NO_CONNECTION);
        assert!(says(&line["why"], "the peer's identity is not acceptable"));
        // Which comes of a connection that it dialled itself.
        until("the refusal is listed", SOON, || {
            let refusal = &cluster.0.peer(nth, 3)["last_refusal"];
            says(refusal, "identity is not acceptable").then_some(())
        });
    }
    // It learns no more than that.
    let line = cluster.0.process(2).logged(NO_CONNECTION);
    assert!(says(&line["why"], "the peer refused our identity"));
    cluster.gets_nothing();
}

#[test]
fn one_peer_does_not_pass_for_another() {
    let cluster = Intruded::new(|cluster| {
        cluster.edit(2, |text| {
            // It is what it claims to be, with its own key: so it must not know the one whose name it takes.
            let known = text.find("[[peers.peer]]\nid = 2").unwrap();
            let rest = known + text[known..].find("[enroll]").unwrap();
            let text = [&text[..known], &text[rest..]].concat();
            text.replace("node = 3", "node = 2")
        });
    });
    // Number 1 is the one that it speaks to.
    let process = cluster.0.process(0);
    let line = process.logged(NOT_BELIEVED);
    assert!(says(&line["why"], "not that of the gateway that they name"));
    assert_eq!(line["peer"], "n3", "by its certificate");
    // Whose name was taken is not affected.
    assert_eq!(cluster.0.peer(0, 2)["connected"], true);
    cluster.gets_nothing();
}

#[test]
fn a_peer_without_the_key_of_the_cluster_is_not_believed() {
    let cluster = Intruded::new(|cluster| {
        let (own, other) = (cluster.path("cluster.key"), cluster.path("foreign.key"));
        let drawn = cluster.site.run(&["peers", "genkey", "--out", &other]);
        assert_eq!(drawn.code, 0);
        cluster.edit(2, |text| text.replace(&own, &other));
    });
    for nth in [0, 1] {
        let is_refusal = |line: &Value| {
            line["message"] == NOT_BELIEVED
                && line["peer"] == "n3"
                && line["remote"].is_string()
                && says(&line["why"], "not made with this cluster's key")
        };
        (cluster.0.process(nth)).logged_that("the refusal", is_refusal, 1);
    }
    cluster.gets_nothing();
}

/// Two gateways that work together, and a third one that is not what it says. Each of the last two has an agent.
struct Intruded(
    Cluster,
    #[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>,
);

impl Intruded {
    fn new(intrude: impl FnOnce(&Cluster)) -> Self {
        let machine = beside_others();
        let mut cluster = Cluster::new(&["tokio", "mio", "tokio"]);
        intrude(&cluster);
        cluster.gateways.iter_mut().for_each(Gateway::start);
        Self(cluster, machine)
    }

    /// The others do not route to it, and it does not route to them.
    fn gets_nothing(self) {
        let (cluster, target) = (&self.0, echo().to_string());
        let foul = (cluster.site).serving("foul", &cluster.gateways[2], "127.0.0.2/32");
        let honest = (cluster.site).serving("honest", &cluster.gateways[1], "127.0.0.1/32");
        cluster.sees(0, 1);
        assert_eq!(cluster.ways(0, &target)[0]["node"], 2);
        ping(
            &cluster.socks(0, &target).unwrap(),
            b"through the honest one",
        );
        for nth in [0, 1] {
            assert!(cluster.ways(nth, "127.0.0.2:9").is_empty());
            assert_eq!(cluster.peer(nth, 3)["routes"], 0);
            cluster.socks(nth, "127.0.0.2:9").unwrap_err();
        }
        assert!(cluster.ways(2, &target).is_empty());
        cluster.socks(2, &target).unwrap_err();
        drop((honest, foul));
    }
}

fn says(text: &Value, part: &str) -> bool {
    text.as_str().unwrap_or_default().contains(part)
}

const NO_CONNECTION: &str =
    "no connection with a peer; are both of one cluster, and is each known to the other?";
const NOT_BELIEVED: &str = "messages of peers are not believed";
