//! Links between replicas, in a loop of the test's own.

use std::{
    io::{Read, Write},
    os::fd::OwnedFd,
    time::Duration,
};

use adit_io_common::replica::SealedLink;
use adit_proto_core::{
    limits::REPLICA_HANDSHAKES_PER_SOURCE_MAX,
    replica::{
        Awaited, ClusterId, Config, DialError, Fault, Keys, ReplicaKey, Roster, Seal, Slots,
    },
};
use mio::{Events, Poll};
use rustix::net::{AddressFamily, SocketType};

use super::*;

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
const OTHER_KEY: &[u8] = b"another key of thirty-two bytes.";
const TARGET: ReplicaId = ReplicaId(1);
/// Nothing on loopback takes that long.
const SOON: Duration = Duration::from_secs(10);

/// A loop with replicas of one cluster.
struct Loop {
    poll: Poll,
    all: Vec<Replicas>,
}

impl Loop {
    fn new(replicas: impl IntoIterator<Item = Replica>) -> Self {
        let poll = Poll::new().unwrap();
        let registry = || poll.registry().try_clone().unwrap();
        let begun = replicas.into_iter().enumerate();
        let all = begun
            .map(|(n, replica)| Replicas::new(replica, registry(), Token(n * TOKENS)))
            .collect();
        Self { poll, all }
    }

    fn listen(&mut self, which: usize) -> SocketAddr {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        self.all[which].listen(listener).unwrap();
        addr
    }

    /// Waits for what comes next of one of them.
    fn outcome(&mut self, which: usize) -> Outcome {
        let mut events = Events::with_capacity(64);
        loop {
            if let Some(outcome) = self.all[which].poll_outcome() {
                return outcome;
            }
            let due = self.all.iter().filter_map(Replicas::poll_timeout).min();
            let wait = due.map_or(SOON, |at| at.saturating_duration_since(Instant::now()));
            self.poll.poll(&mut events, Some(wait)).unwrap();
            let now = Instant::now();
            for event in &events {
                self.all[event.token().0 / TOKENS].ready(now, event.token());
            }
            for replicas in &mut self.all {
                replicas.handle_timeout(now);
            }
        }
    }

    fn dial(&mut self, which: usize, addr: SocketAddr) {
        let dialled = self.all[which].dial(Instant::now(), addr, TARGET);
        dialled.unwrap();
    }

    /// What came of the next dial, and the link at the other end.
    fn meet(&mut self, addr: SocketAddr) -> (Link, Link) {
        self.dial(0, addr);
        let near = dialled(self.outcome(0)).unwrap();
        let Outcome::Accepted(far) = self.outcome(1) else {
            panic!("it dials nobody");
        };
        (near, far)
    }
}

const TOKENS: usize = 1 << 10;

fn dialled(outcome: Outcome) -> Result<Link, LinkError> {
    match outcome {
        Outcome::Dialled(TARGET, outcome) => outcome,
        other @ (Outcome::Accepted(_) | Outcome::Dialled(..)) => panic!("{other:?}"),
    }
}

fn connect_from(host: [u8; 4], addr: SocketAddr) -> OwnedFd {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((host, 0))).unwrap();
    rustix::net::connect(&socket, &addr).unwrap();
    socket
}

fn replica(id: u8, seal: Seal, key: &[u8]) -> Replica {
    let keys = Keys::new(ReplicaKey::new(key).unwrap(), None).unwrap();
    let roster = Roster::dense(2, seal);
    let config = Config::new(ClusterId::of("c"), ReplicaId(id), roster, Some(keys));
    Replica::new(config.unwrap(), Slots::default())
}

#[test]
fn a_plain_socket_leaves_the_loop() {
    let both = [0, 1].map(|id| replica(id, Seal::Never, KEY));
    let mut both = Loop::new(both);
    let addr = both.listen(1);
    for _ in 0..2 {
        let (near, far) = both.meet(addr);
        assert_eq!((near.replica(), far.replica()), (TARGET, ReplicaId(0)));
        let [mut near, mut far] = [near, far].map(|link| link.into_socket().unwrap());
        near.write_all(b"bare").unwrap();
        drop(near);
        far.set_nonblocking(false).unwrap();
        let mut came = String::new();
        far.read_to_string(&mut came).unwrap();
        assert_eq!(came, "bare");
    }
    for replicas in &both.all {
        assert!(replicas.entries.is_empty());
        assert_eq!(replicas.poll_timeout(), None);
    }
}

#[test]
fn a_sealed_socket_does_not_go_alone() {
    let both = [0, 1].map(|id| replica(id, Seal::Require, KEY));
    let mut both = Loop::new(both);
    let addr = both.listen(1);
    let (near, far) = both.meet(addr);
    for link in [near, far] {
        let SealedLink(link) = link.into_socket().unwrap_err();
        assert!(link.is_sealed());
    }
}

#[test]
fn a_failed_handshake_stops_no_later_one() {
    let ends = [(0, KEY), (1, KEY), (0, OTHER_KEY)];
    let mut all = Loop::new(ends.map(|(id, key)| replica(id, Seal::Never, key)));
    let addr = all.listen(1);
    all.dial(2, addr);
    let refused = dialled(all.outcome(2)).unwrap_err();
    let is_told = matches!(refused, LinkError::Handshake(Fault::MacMismatch(_)));
    assert!(is_told, "{refused}");
    all.meet(addr).0.into_socket().unwrap();
}

#[test]
fn silent_connections_of_one_source_keep_no_other_out() {
    let both = [0, 1].map(|id| replica(id, Seal::Never, KEY));
    let mut both = Loop::new(both);
    let addr = both.listen(1);
    let flood: Vec<_> = (0..REPLICA_HANDSHAKES_PER_SOURCE_MAX + 40)
        .map(|_| connect_from([127, 0, 0, 2], addr))
        .collect();
    let (near, _far) = both.meet(addr);
    assert_eq!(near.replica(), TARGET);
    let replicas = &both.all[1];
    assert_eq!(replicas.entries.len(), REPLICA_HANDSHAKES_PER_SOURCE_MAX);
    drop(flood);
}

#[test]
fn an_address_that_does_not_answer_has_5_s_and_a_silent_one_3() {
    let mut dialer = Loop::new([replica(0, Seal::Never, KEY)]);
    let dialer = &mut dialer.all[0];
    let now = Instant::now();
    // A listener that nobody accepts from connects a few, and leaves the others waiting.
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let addr = listener.local_addr().unwrap();
    for _ in 0..4 {
        dialer.dial(now, addr, TARGET).unwrap();
    }
    for key in 0..4 {
        dialer.ready(now, Token(1 + key));
    }
    dialer.handle_timeout(now + CONNECT_TIMEOUT - Duration::from_millis(1));
    let mut silent = 0;
    while let Some(outcome) = dialer.poll_outcome() {
        let error = dialled(outcome).unwrap_err();
        let expected = Fault::Silent(Awaited::Challenge);
        assert!(matches!(error, LinkError::Handshake(fault) if fault == expected));
        silent += 1;
    }
    assert!((1..4).contains(&silent), "{silent}");
    assert_eq!(dialer.poll_timeout(), Some(now + CONNECT_TIMEOUT));
    dialer.handle_timeout(now + CONNECT_TIMEOUT);
    for _ in silent..4 {
        let error = dialled(dialer.poll_outcome().unwrap()).unwrap_err();
        assert!(matches!(error, LinkError::ConnectTimedOut), "{error}");
    }
    assert!(dialer.entries.is_empty() && dialer.poll_timeout().is_none());
}

#[test]
fn who_does_not_answer_the_call_is_told_apart() {
    let mut dialer = Loop::new([replica(0, Seal::Never, KEY)]);
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    dialer.dial(0, addr);
    let refused = dialled(dialer.outcome(0)).unwrap_err();
    assert!(matches!(refused, LinkError::Connect(_)), "{refused}");
    let own = dialer.all[0].dial(Instant::now(), addr, ReplicaId(0));
    let expected = DialError::NotHigher(ReplicaId(0));
    assert!(matches!(own, Err(LinkError::Dial(error)) if error == expected));
}
