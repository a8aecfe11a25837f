//! Gateways as peers with an attacker on the path between them, who has no key: all that he sends is worth nothing.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::harness::{
    SOON, beside_others,
    cluster::Cluster,
    process::Process,
    relay::Relay,
    site::Agent,
    targets::{echo, ping},
    until,
};

#[test]
fn an_attacker_on_the_path_between_tokio_gateways_gets_nothing() {
    attacked(&["tokio", "tokio"]);
}

#[test]
fn an_attacker_on_the_path_between_mio_gateways_gets_nothing() {
    attacked(&["mio", "mio"]);
}

fn attacked(drivers: &[&str]) {
    let _machine = beside_others();
    let (cluster, relays, agent) = through_relays(drivers);
    let target = echo().to_string();
    let before = [0, 1].map(|nth| Seen::settled(cluster.process(nth)));
    let memory = [0, 1].map(|nth| cluster.process(nth).memory());
    let attacks: [Attack; 5] = [replay, stranger, reflect, garble, splice];
    let servers = [1, 0].map(|nth: usize| SocketAddr::from(([127, 0, 0, 1], cluster.ports[nth])));
    under_traffic(&cluster, &target, || {
        until("there is something to repeat", SOON, || {
            (relays[0].seen() > 1_000).then_some(())
        });
        for attack in attacks {
            attack(&relays, &servers);
            // New sessions as well as those that there are.
            ping(&cluster.socks(0, &target).unwrap(), b"during the attack");
        }
    });
    // No connection was made, lost, or taken for another one.
    for nth in [0, 1] {
        assert_eq!(Seen::of(cluster.process(nth)), before[nth], "gateway {nth}");
        let grown = cluster.process(nth).memory().saturating_sub(memory[nth]);
        eprintln!("gateway {nth} grew by {} KiB", grown >> 10);
        assert!(grown < MEMORY, "gateway {nth} grew by {grown}");
    }
    under_traffic(&cluster, &target, || {
        for relay in &relays {
            relay.cut(true);
            until("datagrams are lost", SOON, || {
                (relay.swallowed() > 4).then_some(())
            });
            relay.cut(false);
        }
    });
    cluster.sees(0, 1);
    assert_eq!(cluster.ways(0, "127.0.0.1:9")[0]["node"], 2);
    let held = |nth, node| cluster.peer(nth, node)["agents"].clone();
    assert_eq!((held(0, 2), held(1, 1)), (1.into(), 0.into()));
    for relay in &relays {
        assert!(relay.to_server().len().min(relay.to_client().len()) > 20);
    }
    // Nothing that was replayed has opened a session.
    let opened = 2 * USERS + attacks.len();
    for nth in [0, 1] {
        let process = cluster.process(nth);
        process.logged_nth("session ended", opened);
        assert_eq!(process.count("session ended"), opened);
    }
    drop(agent);
}

/// By way of both relays, or at the gateways behind them.
type Attack = fn(&[Relay; 2], &[SocketAddr; 2]);

/// Two gateways, each of which reaches the other one through a relay of its own: `[0]` is the first gateway's way to the second.
fn through_relays(drivers: &[&str]) -> (Cluster, [Relay; 2], Agent) {
    let mut cluster = Cluster::new(drivers);
    let relays = [1, 0].map(|server: usize| Relay::before(cluster.ports[server]));
    for nth in [0, 1] {
        let (own, other) = (relays[nth].addr, cluster.ports[1 - nth]);
        let direct = format!("address = \"127.0.0.1:{other}\"");
        cluster.edit(nth, |text| {
            text.replace(&direct, &format!("address = \"{own}\""))
        });
    }
    let agent = cluster.start();
    (cluster, relays, agent)
}

/// Users send and compare what comes back until the attack is over.
fn under_traffic(cluster: &Cluster, target: &str, attack: impl FnOnce()) {
    let over = AtomicBool::new(false);
    let users = [(); USERS].map(|()| cluster.socks(0, target).unwrap());
    thread::scope(|scope| {
        for (nth, user) in users.iter().enumerate() {
            let over = &over;
            scope.spawn(move || {
                let mut round = 0;
                while !over.load(Ordering::Relaxed) {
                    let mark = u32::try_from(round * 8 + nth).unwrap();
                    let block: Vec<u8> = (0..2_000)
                        .flat_map(|at| (mark ^ at).to_be_bytes())
                        .collect();
                    ping(user, &block);
                    round += 1;
                }
            });
        }
        let _over = Over(&over);
        attack();
    });
}

/// Ends the users, also where the attack ends in a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Old datagrams to where they went before: in bulk, once more, and the last first.
fn replay(relays: &[Relay; 2], _: &[SocketAddr; 2]) {
    for relay in relays {
        let (to_server, to_client) = (relay.to_server(), relay.to_client());
        for _ in 0..2 {
            to_server.iter().for_each(|old| relay.inject_to_server(old));
            to_client.iter().for_each(|old| relay.inject_to_client(old));
        }
        let reversed = to_server.iter().rev();
        reversed.for_each(|old| relay.inject_to_server(old));
        let reversed = to_client.iter().rev();
        reversed.for_each(|old| relay.inject_to_client(old));
    }
}

/// Old datagrams from addresses that nobody knows.
fn stranger(relays: &[Relay; 2], servers: &[SocketAddr; 2]) {
    for (relay, server) in relays.iter().zip(servers) {
        let strangers = [(); 4].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        for old in relay.to_server().iter().chain(&relay.to_client()) {
            for stranger in &strangers {
                stranger.send_to(old, server).unwrap();
            }
        }
    }
}

/// What a gateway has sent comes back to it.
fn reflect(relays: &[Relay; 2], _: &[SocketAddr; 2]) {
    for relay in relays {
        let (to_server, to_client) = (relay.to_server(), relay.to_client());
        to_server.iter().for_each(|own| relay.inject_to_client(own));
        to_client.iter().for_each(|own| relay.inject_to_server(own));
    }
}

/// Noise, and datagrams that are shorter than they were, or of which one bit is another.
fn garble(relays: &[Relay; 2], _: &[SocketAddr; 2]) {
    let mut state = 1_u32;
    // Knuth's numbers; noise need not be good.
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from(state >> 8).unwrap()
    };
    for relay in relays {
        for _ in 0..2_000 {
            let noise: Vec<u8> = (0..next() % 1_400)
                .map(|_| next().to_le_bytes()[0])
                .collect();
            relay.inject_to_server(&noise);
            relay.inject_to_client(&noise);
        }
        let (to_server, to_client) = (relay.to_server(), relay.to_client());
        for seen in to_server.iter().chain(&to_client) {
            let mut flipped = seen.clone();
            flipped[next() % seen.len()] ^= 1 << (next() % 8);
            for bad in [&flipped[..], &seen[..next() % seen.len()]] {
                relay.inject_to_server(bad);
                relay.inject_to_client(bad);
            }
        }
    }
}

/// Datagrams of one pair of sockets on the other, and heads of some with the rest of others.
fn splice(relays: &[Relay; 2], _: &[SocketAddr; 2]) {
    for (into, of) in [(0, 1), (1, 0)] {
        let (into, of) = (&relays[into], &relays[of]);
        for (foreign, own) in of.to_server().iter().zip(into.to_server()) {
            into.inject_to_server(foreign);
            into.inject_to_client(foreign);
            // A connection id is in the first 21 bytes.
            let cut = 21.min(own.len()).min(foreign.len());
            into.inject_to_server(&[&own[..cut], &foreign[cut..]].concat());
            into.inject_to_server(&[&own[..], foreign].concat());
        }
        for (foreign, own) in of.to_client().iter().zip(into.to_client()) {
            into.inject_to_server(foreign);
            into.inject_to_client(foreign);
            into.inject_to_client(&[&own[..], foreign].concat());
        }
    }
}

/// What the log of a gateway says of connections with peers.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    counts: [usize; 5],
    panicked: bool,
}

impl Seen {
    /// Once each gateway has dialled the other, and one of them for sessions.
    fn settled(process: &Process) -> Self {
        process.logged_nth("connected with a peer", 2);
        process.logged("sessions can be forwarded");
        Self::of(process)
    }

    fn of(process: &Process) -> Self {
        let lines = [
            "gateway running",
            "connected with a peer",
            "sessions can be forwarded",
            "a peer's connection ended",
            "a connection for forwarded sessions ended",
        ];
        let is_panic = |line: &serde_json::Value| {
            let text = line["text"].as_str().unwrap_or_default();
            text.contains("panicked")
        };
        Self {
            counts: lines.map(|line| process.count(line)),
            panicked: process.has(is_panic),
        }
    }
}

/// Sessions that are there all the time.
const USERS: usize = 3;

/// What a gateway may grow by meanwhile: buffers of sockets and sessions, not what an attacker sends.
const MEMORY: u64 = 16 << 20;
