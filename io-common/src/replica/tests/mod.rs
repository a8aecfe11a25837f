//! Handshakes over loopback. The time is made up; sockets are waited for, never slept for.

mod bounds;
mod faults;
mod handover;
mod log;
mod success;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use adit_proto_core::replica::{
    ClusterId, Config, Keys, ReplicaId, ReplicaKey, Roster, Seal, Slots,
};
use socket2::{Domain, SockRef, Socket, Type};

use super::{Handshake, Link, LinkError, Replica, Turn};

const KEY: &str = "0123456789abcdef0123456789abcdef";
const OTHER_KEY: &str = "another key of thirty-two bytes.";
const CLUSTER: &str = "iggy-cluster";

/// A replica of a cluster of four.
fn replica(id: u8, seal: Seal) -> Replica {
    with(CLUSTER, id, seal, Some(keys(KEY, None)))
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

/// A listener, and ways to connect to it.
struct Port(TcpListener);

impl Port {
    fn open() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// The end that connects, from an address of this machine, and the one that accepts.
    fn connect_from(&self, host: Ipv4Addr) -> (TcpStream, (TcpStream, SocketAddr)) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let from = SocketAddr::new(IpAddr::V4(host), 0);
        socket.bind(&from.into()).unwrap();
        socket.connect(&self.addr().into()).unwrap();
        let near = TcpStream::from(socket);
        near.set_read_timeout(Some(SOON)).unwrap();
        (near, self.0.accept().unwrap())
    }

    fn connect(&self) -> (TcpStream, (TcpStream, SocketAddr)) {
        self.connect_from(Ipv4Addr::LOCALHOST)
    }

    /// Both ends of a handshake that has begun.
    fn begin(
        &self,
        now: Instant,
        dialer: &Replica,
        target: u8,
        acceptor: &Replica,
    ) -> [Handshake; 2] {
        let (near, (far, from)) = self.connect();
        let dialled = dialer.dial(now, near, self.addr(), ReplicaId(target));
        [dialled.unwrap(), acceptor.accept(now, far, from).unwrap()]
    }
}

/// Has two replicas meet, each on a thread of its own.
fn meet(dialer: &Replica, target: u8, acceptor: &Replica) -> [Result<Link, LinkError>; 2] {
    let now = Instant::now();
    let both = Port::open().begin(now, dialer, target, acceptor);
    thread::scope(|scope| {
        let threads = both.map(|handshake| scope.spawn(move || finish(now, handshake)));
        threads.map(|thread| thread.join().unwrap())
    })
}

/// Carries a handshake on to its end, at one moment of its time.
fn finish(now: Instant, mut handshake: Handshake) -> Result<Link, LinkError> {
    while handshake.turn(now) == Turn::Waiting {
        wait(&handshake);
    }
    handshake.end()
}

/// Waits until something has come, which is left where it is.
fn wait(handshake: &Handshake) {
    let socket = SockRef::from(handshake);
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    // An end, or an error, is told to whoever reads.
    let _came = rustix::net::recv(handshake, &mut [0][..], rustix::net::RecvFlags::PEEK);
    socket.set_nonblocking(true).unwrap();
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Nothing on loopback takes that long.
const SOON: Duration = Duration::from_secs(10);
