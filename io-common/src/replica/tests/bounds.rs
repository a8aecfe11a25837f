//! Time, places and buffers that run out.

use std::io::{ErrorKind, Read, Write};

use adit_proto_core::{
    limits::{REPLICA_HANDSHAKE_TIMEOUT, REPLICA_HANDSHAKES_PER_SOURCE_MAX},
    replica::{Awaited, Fault},
};

use super::*;

#[test]
fn a_silent_peer_has_3_s() {
    let now = Instant::now();
    let (_near, (far, from)) = Port::open().connect();
    let mut accepted = replica(3, Seal::Never).accept(now, far, from).unwrap();
    assert_eq!(accepted.poll_timeout(), now + ms(3_000));
    assert_eq!(accepted.turn(now + ms(2_999)), Turn::Waiting);
    assert_eq!(accepted.turn(now + ms(3_000)), Turn::Over);
    let silent = Fault::Silent(Awaited::Hello);
    assert!(matches!(accepted.end(), Err(LinkError::Handshake(fault)) if fault == silent));
}

#[test]
fn a_peer_that_trickles_has_10_s() {
    let now = Instant::now();
    let (mut near, (far, from)) = Port::open().connect();
    let mut accepted = replica(3, Seal::Never).accept(now, far, from).unwrap();
    for s in [2, 4, 6, 8] {
        near.write_all(&[0]).unwrap();
        wait(&accepted);
        assert_eq!(accepted.turn(now + ms(s * 1_000)), Turn::Waiting);
    }
    assert_eq!(accepted.poll_timeout(), now + REPLICA_HANDSHAKE_TIMEOUT);
    assert_eq!(accepted.turn(now + REPLICA_HANDSHAKE_TIMEOUT), Turn::Over);
    let late = Fault::TimedOut(Awaited::Hello);
    assert!(matches!(accepted.end(), Err(LinkError::Handshake(fault)) if fault == late));
}

#[test]
fn silent_connections_of_one_source_keep_no_other_out() {
    let now = Instant::now();
    let (port, acceptor) = (Port::open(), replica(3, Seal::Never));
    let mut flood = Vec::new();
    for _ in 0..REPLICA_HANDSHAKES_PER_SOURCE_MAX + 8 {
        let (near, (far, from)) = port.connect_from(Ipv4Addr::new(127, 0, 0, 2));
        flood.push((near, acceptor.accept(now, far, from)));
    }
    let (held, turned_away): (Vec<_>, Vec<_>) =
        flood.into_iter().partition(|(_, begun)| begun.is_some());
    assert_eq!(
        (held.len(), turned_away.len()),
        (REPLICA_HANDSHAKES_PER_SOURCE_MAX, 8)
    );
    for (mut near, _) in turned_away {
        assert_eq!(near.read(&mut [0]).unwrap(), 0, "closed unread");
    }
    let [dialled, accepted] = port.begin(now, &replica(0, Seal::Never), 3, &acceptor);
    thread::scope(|scope| {
        let link = scope.spawn(|| finish(now, accepted));
        finish(now, dialled).unwrap().into_socket().unwrap();
        assert_eq!(link.join().unwrap().unwrap().replica(), ReplicaId(0));
    });
    assert_eq!(acceptor.accepting(), REPLICA_HANDSHAKES_PER_SOURCE_MAX);
}

#[test]
fn a_place_is_held_for_the_time_of_the_handshake() {
    let (now, port) = (Instant::now(), Port::open());
    let acceptor = replica(3, Seal::Never);
    let [dialled, accepted] = port.begin(now, &replica(0, Seal::Never), 3, &acceptor);
    let (_near, (far, from)) = port.connect();
    let given_up = acceptor.accept(now, far, from).unwrap();
    assert_eq!(acceptor.accepting(), 2);
    drop(given_up);
    assert_eq!(acceptor.accepting(), 1);
    thread::scope(|scope| {
        let link = scope.spawn(|| finish(now, dialled));
        let accepted = finish(now, accepted).unwrap();
        assert_eq!(acceptor.accepting(), 0, "a link needs no place");
        drop((accepted, link.join().unwrap()));
    });
}

#[test]
fn frames_are_written_in_parts_where_the_socket_takes_no_more() {
    let now = Instant::now();
    let open = with(CLUSTER, 0, Seal::Never, None);
    let (mut dialled, mut far, before) = blocked(now, &open);
    assert_eq!(dialled.turn(now), Turn::Waiting);
    assert!(dialled.awaits_write() && !dialled.awaits_read());
    // The hello comes whole behind what stood in the way, and only then it is over.
    let (mut came, mut over) = (Vec::new(), Turn::Waiting);
    while came.len() < before + 256 {
        let mut part = [0; 4_096];
        let len = far.read(&mut part).unwrap();
        came.extend_from_slice(&part[..len]);
        if over == Turn::Waiting {
            over = dialled.turn(now);
        }
    }
    assert_eq!(over, Turn::Over);
    assert_eq!((came.len(), came[before + 60]), (before + 256, 14));
    assert!(dialled.end().is_ok());
}

#[test]
fn a_peer_that_does_not_read_has_10_s() {
    let now = Instant::now();
    let open = with(CLUSTER, 0, Seal::Never, None);
    let (mut dialled, _far, _) = blocked(now, &open);
    let late = now + REPLICA_HANDSHAKE_TIMEOUT;
    assert_eq!(dialled.turn(late - ms(1)), Turn::Waiting);
    assert_eq!(dialled.poll_timeout(), late);
    assert_eq!(dialled.turn(late), Turn::Over);
    assert!(matches!(dialled.end(), Err(LinkError::Unwritten)));
}

/// A handshake whose socket takes nothing, its other end, and how many bytes stand in the way.
fn blocked(now: Instant, dialer: &Replica) -> (Handshake, TcpStream, usize) {
    let port = Port::open();
    SockRef::from(&port.0).set_recv_buffer_size(4_096).unwrap();
    let (mut near, (far, _)) = port.connect();
    SockRef::from(&near).set_send_buffer_size(4_096).unwrap();
    // The system takes more when it has moved what it holds, which it does at once or with its timer for late
    // acknowledgements, of 40 ms. What it makes a blocking writer wait for, it may take from another.
    near.set_write_timeout(Some(ms(200))).unwrap();
    let mut before = fill(&mut near);
    near.set_nonblocking(true).unwrap();
    before += fill(&mut near);
    let dialled = dialer.dial(now, near, port.addr(), ReplicaId(3)).unwrap();
    far.set_read_timeout(Some(SOON)).unwrap();
    (dialled, far, before)
}

/// Writes until nothing is taken; tells how much was.
fn fill(tcp: &mut TcpStream) -> usize {
    let mut written = 0;
    loop {
        match tcp.write(&[0; 64]) {
            Ok(len) => written += len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return written,
            Err(error) => panic!("{error}"),
        }
    }
}
