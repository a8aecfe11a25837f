//! Handshakes that are begun in masses and never go on: whoever goes on gets in beside them, and they hold little.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use adit_io_common::clock::system_env;
use adit_proto_core::{
    endpoint::{Endpoint, EndpointLimits, Protocol},
    env::EndpointSecrets,
    limits::{HANDSHAKE_TIMEOUT, HANDSHAKES_PER_SOURCE_RETRY},
    output::{Output, TransmitBuf},
    peer::{config::PeerConfig, epoch::EpochMark, ledger::PeerLedger},
};

use crate::{
    MACHINE,
    bed::{
        cluster::{Cluster, Member, NoJoins, ring},
        wait::until,
    },
    driver::Pairing,
};

#[test]
fn ten_thousand_handshakes_that_never_go_on_keep_no_peer_out() {
    let _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    let flights = flights();
    for pairing in Pairing::ALL {
        let cluster = Cluster::new(pairing);
        let victim = cluster.start(cluster.setup(2));
        let (memory, began, sent) = (resident(), Instant::now(), AtomicUsize::new(0));
        let begun = thread::scope(|scope| {
            let flood = scope.spawn(|| flood(&flights, victim.addr, &sent));
            until("the flood has begun", || {
                (sent.load(Ordering::Relaxed) > 1_000).then_some(())
            });
            get_in(&cluster, 1, &victim);
            flood.join().unwrap()
        });
        get_in(&cluster, 3, &victim);
        let (took, grown) = (began.elapsed(), resident().saturating_sub(memory));
        println!(
            "{}: {begun} of {COUNT} in {took:?}, {} KiB",
            pairing.name(),
            grown >> 10
        );
        // Only these have any state; it is there for the time of a handshake.
        let turns = took.as_secs() / HANDSHAKE_TIMEOUT.as_secs() + 1;
        let most = HANDSHAKES_PER_SOURCE_RETRY * usize::try_from(turns).unwrap();
        assert!((1..=most).contains(&begun), "{begun}");
        assert!(grown < MEMORY, "{grown} bytes");
    }
}

/// From the address of the flood, and with a connection of its own.
fn get_in(cluster: &Cluster, id: u64, victim: &Member) {
    let honest = cluster.start(cluster.setup(id));
    honest.know(&[(2, victim)]);
    let began = Instant::now();
    assert_eq!(honest.ask(2, b"in").unwrap(), &b"in"[..]);
    let took = began.elapsed();
    println!("node {id} is in after {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(honest.stop(Duration::ZERO));
}

/// The first datagrams of many connections.
fn flights() -> Vec<Vec<Vec<u8>>> {
    let cluster = Cluster::new(Pairing::ALL[0]);
    let security = cluster.security(1, &cluster.setup(1).pair, &cluster.topology);
    let ledger = PeerLedger::new(1, ring(3), Box::new(EpochMark::new(0)));
    let config = PeerConfig::new(Arc::new(ledger), Arc::new(NoJoins));
    let env = system_env(Some(EndpointSecrets::new([1; 32], [2; 32]))).unwrap();
    let limits = EndpointLimits::default();
    let mut endpoint = Endpoint::peer(&config, &security, limits, &env).unwrap();
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let mut flight = || {
        let now = Instant::now();
        let begun = endpoint.dial_peer(now, Protocol::Rpc, None, anywhere, &env);
        let (mut conn, mut buf, mut datagrams) = (begun.unwrap(), TransmitBuf::new(1), Vec::new());
        loop {
            match conn.poll_output(now, &mut buf) {
                Output::Transmit(transmit) => {
                    datagrams.push(buf.bytes()[..transmit.size].to_vec());
                    buf.clear();
                }
                Output::Notice(_) | Output::Event(_) => {}
                Output::Wait(_) => return datagrams,
            }
        }
    };
    (0..COUNT).map(|_| flight()).collect()
}

/// Sends each from a port of its own, some at a time, and takes the first answer to each. Tells how many were answered by
/// the beginning of a handshake, and not by the demand to prove the address.
fn flood(flights: &[Vec<Vec<u8>>], to: SocketAddr, sent: &AtomicUsize) -> usize {
    let (mut begun, mut answered) = (0, 0);
    for some in flights.chunks(AT_ONCE) {
        let send = |flight: &Vec<Vec<u8>>| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.set_read_timeout(Some(LOST)).unwrap();
            for datagram in flight {
                socket.send_to(datagram, to).unwrap();
            }
            socket
        };
        let sockets: Vec<_> = some.iter().map(send).collect();
        for (flight, socket) in some.iter().zip(sockets) {
            if let Some(first) = answer(&socket, ids(&flight[0]).1) {
                answered += 1;
                // RFC 9000 17.2: the type of a long header; 3 is a Retry.
                begun += usize::from(first & 0x30 != 0x30);
            }
        }
        sent.fetch_add(some.len(), Ordering::Relaxed);
    }
    // Some may be lost where the socket's buffer is full.
    assert!(answered > COUNT / 2, "{answered}");
    begun
}

/// The first byte of the answer to a connection id. What was meant for a socket that had the port before is passed over.
fn answer(socket: &UdpSocket, to: &[u8]) -> Option<u8> {
    let mut datagram = [0; 2_048];
    loop {
        let len = socket.recv(&mut datagram).ok()?;
        if ids(&datagram[..len]).0 == to {
            return Some(datagram[0]);
        }
    }
}

/// Destination and source of a long header (RFC 9000 17.2).
fn ids(datagram: &[u8]) -> (&[u8], &[u8]) {
    let (to, rest) = datagram[6..].split_at(datagram[5].into());
    (to, &rest[1..][..rest[0].into()])
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kib << 10
}

const COUNT: usize = 10_000;

/// As many as a socket's buffer holds.
const AT_ONCE: usize = 50;

/// An answer that has not come after so long does not come.
const LOST: Duration = Duration::from_millis(200);

/// What a node may grow by meanwhile.
const MEMORY: u64 = 32 << 20;
