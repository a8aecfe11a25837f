//! Links between replicas: whoever dials and whoever accepts, both get the same, and those who do not belong get nothing.

mod by_hand;

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use adit_io_common::replica::{Carrier, Link, LinkError, Replica, Roll, Rolled, SealedLink};
use adit_proto_core::{
    limits::REPLICA_HANDSHAKES_PER_SOURCE_MAX,
    replica::{
        ClusterId, Config, Duplicates, Keys, Opened, ReplicaId, ReplicaKey, Roster, Seal, Sealed,
        Slots,
    },
};
use socket2::{Domain, Socket, Type};

use crate::{
    MACHINE,
    bed::wait::{SOON, until},
    compare,
    driver::Pairing,
    many::many_files,
};

#[test]
fn a_bare_link_carries_what_is_written_at_once() {
    conform(|place| {
        let (near, far) = place.meet(&replica(0, Seal::Never), &replica(3, Seal::Never));
        let [near, far] = [near, far].map(|link| waiting(link.into_socket().unwrap()));
        place.note(&format!(
            "to the acceptor: {}",
            carry(near.try_clone().unwrap(), far.try_clone().unwrap())
        ));
        place.note(&format!("to the dialer: {}", carry(far, near)));
    });
}

#[test]
fn a_sealed_link_is_handed_over_whole_or_not() {
    conform(|place| {
        let (near, far) = place.meet(&replica(0, Seal::Require), &replica(3, Seal::Require));
        let [(mut near, mut sealing), (mut far, mut opening)] = [near, far].map(|link| {
            let SealedLink(link) = link.into_socket().unwrap_err();
            sealed(*link)
        });
        let mut wire = Vec::new();
        sealing.sealer.seal(&stream(), &mut wire).unwrap();
        sealing.sealer.end(&mut wire).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                near.write_all(&wire).unwrap();
                near.shutdown(Shutdown::Write).unwrap();
            });
            let mut came = Vec::new();
            far.read_to_end(&mut came).unwrap();
            place.note(&open(&mut opening, &mut came));
        });
    });
}

#[test]
fn who_does_not_belong_gets_no_link() {
    let key = |key| Some(keys(key, None));
    let strangers = [
        ("another key", with("c", 0, Seal::Never, key(OTHER_KEY)), 3),
        ("another cluster", with("d", 0, Seal::Never, key(KEY)), 3),
        ("another target", replica(0, Seal::Never), 2),
        ("itself", replica(3, Seal::Never), 3),
        ("not of the list", replica(0, Seal::Never), 9),
    ];
    conform(|place| {
        let listener = listener();
        let addr = listener.local_addr().unwrap();
        let acceptor = replica(3, Seal::Never);
        thread::scope(|scope| {
            let pairing = place.pairing;
            let accepted = scope.spawn(|| pairing.gateway.accept_replicas(&acceptor, listener, 1));
            for (what, stranger, target) in &strangers {
                let dialled = place.dial(stranger, addr, *target);
                place.note(&format!("{what}: {}", dialled.unwrap_err()));
            }
            // One that does not authenticate takes itself for connected, and sees the end.
            let silent = place.dial(&with("c", 0, Seal::Never, None), addr, 3);
            let mut socket = waiting(silent.unwrap().into_socket().unwrap());
            place.note(&format!(
                "no key: {:?}, then {:?}",
                socket.peer_addr().unwrap() == addr,
                socket.read(&mut [0]).ok()
            ));
            let near = place.dial(&replica(1, Seal::Never), addr, 3).unwrap();
            let far = accepted.join().unwrap();
            place.note_link("near", &near);
            far.iter().for_each(|link| place.note_link("far", link));
        });
    });
}

#[test]
fn while_keys_are_changed_links_come_about() {
    conform(|place| {
        let old = with("c", 0, Seal::Require, Some(keys(OTHER_KEY, Some(KEY))));
        let new = with("c", 3, Seal::Require, Some(keys(KEY, Some(OTHER_KEY))));
        let (near, far) = place.meet(&old, &new);
        place.note_link("near", &near);
        place.note_link("far", &far);
    });
}

#[test]
fn a_flood_from_one_source_keeps_no_other_out() {
    conform(|place| {
        let listener = listener();
        let addr = listener.local_addr().unwrap();
        let silent = REPLICA_HANDSHAKES_PER_SOURCE_MAX * 2;
        let flood: Vec<Socket> = (0..silent).map(|_| connect_from_elsewhere(addr)).collect();
        let (near, far) =
            place.meet_at(listener, &replica(0, Seal::Never), &replica(3, Seal::Never));
        place.note_link("near", &near);
        place.note_link("far", &far);
        drop(flood);
    });
}

#[test]
fn ten_thousand_silent_connections_keep_no_other_out() {
    many_files();
    conform(|place| {
        let listener = listener();
        let addr = listener.local_addr().unwrap();
        let (acceptor, driver) = (replica(3, Seal::Never), place.pairing.gateway);
        let (begun, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            let accepted = scope.spawn(|| driver.accept_replicas(&acceptor, listener, 2));
            let flood = scope.spawn(|| {
                let mut silent = Vec::new();
                for _ in 0..10_000 / AT_ONCE {
                    silent.extend((0..AT_ONCE).map(|_| connect_from_elsewhere(addr)));
                    // The last of them has no place: once it is closed all of them were looked at.
                    let mut last = silent.last().unwrap();
                    last.set_read_timeout(Some(SOON)).unwrap();
                    let _end = last.read(&mut [0]);
                    begun.fetch_add(AT_ONCE, Ordering::Relaxed);
                    most.fetch_max(acceptor.accepting(), Ordering::Relaxed);
                }
                silent
            });
            until("the flood has begun", || {
                (begun.load(Ordering::Relaxed) > 1_000).then_some(())
            });
            let during = place.get_in(0, addr);
            // All of them are held for as long as it takes.
            let silent = flood.join().unwrap();
            let after = place.get_in(1, addr);
            for link in [&during, &after] {
                place.note_link("near", link);
            }
            let far = accepted.join().unwrap();
            far.iter().for_each(|link| place.note_link("far", link));
            drop(silent);
        });
        // The honest one beside those of the flood.
        let most = most.into_inner();
        assert!(most <= REPLICA_HANDSHAKES_PER_SOURCE_MAX + 1, "{most}");
    });
}

#[test]
fn the_newest_link_with_a_replica_stays() {
    conform(|place| {
        let mut roll = Roll::new(Duplicates::NewestWins);
        let mut former = None;
        for _ in 0..3 {
            let (near, _) = place.meet(&replica(0, Seal::Never), &replica(3, Seal::Never));
            let Rolled::Taken { id, replaces, .. } = roll.install(near) else {
                panic!("its replica has just proven itself");
            };
            assert_eq!(replaces, former);
            place.note(&format!("replaces {replaces:?}"));
            former = Some(id);
        }
    });
}

/// One pairing's run of a scenario, and what was seen.
struct Place {
    pairing: Pairing,
    seen: String,
}

impl Place {
    fn note(&mut self, line: &str) {
        writeln!(self.seen, "{line}").unwrap();
    }

    fn note_link(&mut self, end: &str, link: &Link) {
        let (replica, proof, sealed) = (link.replica(), link.proof(), link.is_sealed());
        self.note(&format!("{end}: {replica}, {proof:?}, sealed: {sealed}"));
    }

    fn dial(&self, dialer: &Replica, addr: SocketAddr, target: u8) -> Result<Link, LinkError> {
        let driver = self.pairing.agent;
        driver.dial_replica(dialer, addr, ReplicaId(target))
    }

    /// Dials replica 3, which takes less than a second whoever else there is.
    fn get_in(&self, id: u8, addr: SocketAddr) -> Link {
        let began = Instant::now();
        let link = self.dial(&replica(id, Seal::Never), addr, 3).unwrap();
        let took = began.elapsed();
        println!("{}: in after {took:?}", self.pairing.name());
        assert!(took < Duration::from_secs(1), "{took:?}");
        link
    }

    /// Has a replica dial replica 3; gives both ends' links.
    fn meet(&self, dialer: &Replica, acceptor: &Replica) -> (Link, Link) {
        self.meet_at(listener(), dialer, acceptor)
    }

    fn meet_at(&self, listener: TcpListener, dialer: &Replica, acceptor: &Replica) -> (Link, Link) {
        let (driver, addr) = (self.pairing.gateway, listener.local_addr().unwrap());
        thread::scope(|scope| {
            let accepted = scope.spawn(|| driver.accept_replicas(acceptor, listener, 1));
            let near = self.dial(dialer, addr, 3).unwrap();
            (near, accepted.join().unwrap().remove(0))
        })
    }
}

/// Has every pairing carry a scenario out, and compares what was seen.
fn conform(scenario: impl Fn(&mut Place)) {
    let _beside_others = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    compare(&Pairing::ALL.map(|pairing| {
        let seen = String::new();
        let mut place = Place { pairing, seen };
        scenario(&mut place);
        (pairing, place.seen.into())
    }));
}

fn replica(id: u8, seal: Seal) -> Replica {
    with("c", id, seal, Some(keys(KEY, None)))
}

fn with(cluster: &str, id: u8, seal: Seal, keys: Option<Keys>) -> Replica {
    let roster = Roster::dense(4, seal);
    let config = Config::new(ClusterId::of(cluster), ReplicaId(id), roster, keys).unwrap();
    Replica::new(config, Slots::default())
}

fn keys(current: &str, previous: Option<&str>) -> Keys {
    let key = |psk: &str| ReplicaKey::new(psk.as_bytes()).unwrap();
    Keys::new(key(current), previous.map(key)).unwrap()
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn connect_from_elsewhere(addr: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = SocketAddr::from(([127, 0, 0, 2], 0));
    socket.bind(&from.into()).unwrap();
    socket.connect(&addr.into()).unwrap();
    socket
}

/// The socket for a thread that waits for it.
fn waiting(tcp: TcpStream) -> TcpStream {
    tcp.set_nonblocking(false).unwrap();
    tcp.set_read_timeout(Some(SOON)).unwrap();
    tcp.set_write_timeout(Some(SOON)).unwrap();
    tcp
}

fn sealed(link: Link) -> (TcpStream, Box<Sealed>) {
    match link.into_carrier() {
        Carrier::Sealed(tcp, sealed) => (waiting(tcp), sealed),
        Carrier::Plain(_) => panic!("it is not sealed"),
    }
}

/// Writes a stream at one end, and tells what came at the other.
fn carry(mut from: TcpStream, mut to: TcpStream) -> String {
    let writer = thread::spawn(move || {
        from.write_all(&stream()).unwrap();
        from.shutdown(Shutdown::Write).unwrap();
    });
    let mut came = Vec::new();
    to.read_to_end(&mut came).unwrap();
    writer.join().unwrap();
    format!("{} bytes, whole: {}", came.len(), came == stream())
}

/// Opens all records, and tells what was in them.
fn open(opening: &mut Sealed, mut wire: &mut [u8]) -> String {
    let mut came = Vec::new();
    loop {
        let used = match opening.opener.open(wire).unwrap() {
            Opened::Data { payload, used } => {
                came.extend_from_slice(payload);
                used
            }
            Opened::End { used } => {
                assert_eq!(used, wire.len());
                return format!("{} bytes, whole: {}", came.len(), came == stream());
            }
            Opened::Missing(len) => panic!("{len} bytes are missing"),
        };
        wire = &mut wire[used..];
    }
}

/// More than the buffers of two sockets hold.
fn stream() -> Vec<u8> {
    (0..8 << 20).map(|n: u32| n.to_le_bytes()[1]).collect()
}

/// Connections that the queue of a listener takes at once.
const AT_ONCE: usize = 100;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const OTHER_KEY: &str = "another key of thirty-two bytes.";
