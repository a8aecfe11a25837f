//! Replicas that find each other, and what they get.

use std::io::{Read, Write};

use adit_proto_core::replica::{Duplicates, KeyUsed, Opened, RECORD_OVERHEAD, Sealed};

use super::*;
use crate::replica::{Carrier, Proof, Roll, Rolled};

#[test]
fn both_ends_get_each_other_and_the_bare_stream() {
    let links = meet(&replica(0, Seal::Never), 3, &replica(3, Seal::Never)).map(Result::unwrap);
    assert_eq!(
        links.each_ref().map(Link::replica),
        [ReplicaId(3), ReplicaId(0)]
    );
    for link in &links {
        assert_eq!(link.proof(), Proof::Verified(KeyUsed::Current));
        assert!(!link.is_sealed());
    }
    let [mut near, mut far] = links.map(|link| link.into_socket().unwrap());
    for socket in [&near, &far] {
        assert!(socket.nodelay().unwrap());
        // Nobody is made to wait for what does not come.
        let error = { socket }.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
    near.write_all(b"to the acceptor").unwrap();
    assert_eq!(read(&mut far, 15), b"to the acceptor");
    far.write_all(b"to the dialer").unwrap();
    assert_eq!(read(&mut near, 13), b"to the dialer");
}

#[test]
fn the_socket_of_a_sealed_link_goes_with_its_keys_alone() {
    let links = meet(&replica(0, Seal::Require), 3, &replica(3, Seal::Require)).map(Result::unwrap);
    let [near, far] = links.map(|link| {
        assert!(link.is_sealed());
        let refused = link.into_socket().unwrap_err();
        assert!(refused.to_string().contains("is sealed"), "{refused}");
        sealed(*refused.0)
    });
    let (mut near, mut sealing) = near;
    let (mut far, mut opening) = far;
    let mut wire = Vec::new();
    sealing.sealer.seal(b"sealed", &mut wire).unwrap();
    near.write_all(&wire).unwrap();
    let mut came = read(&mut far, 6 + RECORD_OVERHEAD);
    let used = came.len();
    let payload = &b"sealed"[..];
    assert_eq!(
        opening.opener.open(&mut came),
        Ok(Opened::Data { payload, used })
    );
}

#[test]
fn what_follows_the_finish_at_once_is_left_in_the_socket() {
    let now = Instant::now();
    let (dialer, acceptor) = (replica(0, Seal::Never), replica(3, Seal::Never));
    let [mut dialled, mut accepted] = Port::open().begin(now, &dialer, 3, &acceptor);
    assert_eq!(dialled.turn(now), Turn::Waiting);
    wait(&accepted);
    assert_eq!(accepted.turn(now), Turn::Waiting);
    let mut near = finish(now, dialled).unwrap().into_socket().unwrap();
    let stream = vec![7; 10_000];
    near.write_all(&stream).unwrap();
    drop(near);
    let mut far = finish(now, accepted).unwrap().into_socket().unwrap();
    far.set_nonblocking(false).unwrap();
    let mut came = Vec::new();
    far.read_to_end(&mut came).unwrap();
    assert_eq!(came, stream);
}

#[test]
fn what_follows_the_confirmation_at_once_is_left_in_the_socket() {
    let now = Instant::now();
    let (dialer, acceptor) = (replica(0, Seal::Require), replica(3, Seal::Require));
    let [mut dialled, mut accepted] = Port::open().begin(now, &dialer, 3, &acceptor);
    dialled.turn(now);
    wait(&accepted);
    accepted.turn(now);
    wait(&dialled);
    assert_eq!(dialled.turn(now), Turn::Waiting, "not confirmed yet");
    let (mut far, mut sealing) = sealed(finish(now, accepted).unwrap());
    let mut wire = Vec::new();
    sealing.sealer.seal(b"early", &mut wire).unwrap();
    far.write_all(&wire).unwrap();
    let (mut near, mut opening) = sealed(finish(now, dialled).unwrap());
    let mut came = read(&mut near, 5 + RECORD_OVERHEAD);
    let opened = opening.opener.open(&mut came);
    assert!(
        matches!(
            opened,
            Ok(Opened::Data {
                payload: b"early",
                ..
            })
        ),
        "{opened:?}"
    );
}

#[test]
fn frames_come_a_byte_at_a_time() {
    let now = Instant::now();
    let (port, acceptor) = (Port::open(), replica(3, Seal::Never));
    let [dialled, mut accepted] = port.begin(now, &replica(0, Seal::Never), 3, &acceptor);
    // What the dialer sends takes a way that gives single bytes.
    let (mut slow, (far, from)) = port.connect();
    let mut behind = acceptor.accept(now, far, from).unwrap();
    let mut hello = dialled;
    hello.turn(now);
    wait(&accepted);
    let mut frame = [0; 256];
    let len = rustix::net::recv(&accepted, &mut frame[..], rustix::net::RecvFlags::PEEK)
        .unwrap()
        .0;
    assert_eq!(len, 256);
    for byte in frame {
        slow.write_all(&[byte]).unwrap();
        wait(&behind);
        assert_eq!(behind.turn(now), Turn::Waiting);
    }
    slow.read_exact(&mut frame).unwrap();
    assert_eq!(frame[60], 15, "a challenge");
    assert_eq!(accepted.turn(now), Turn::Waiting);
}

#[test]
fn a_link_of_the_previous_key_is_told() {
    let old = with(CLUSTER, 0, Seal::Never, Some(keys(OTHER_KEY, Some(KEY))));
    let new = with(CLUSTER, 3, Seal::Never, Some(keys(KEY, Some(OTHER_KEY))));
    for link in meet(&old, 3, &new) {
        assert_eq!(link.unwrap().proof(), Proof::Verified(KeyUsed::Previous));
    }
}

#[test]
fn without_authentication_nothing_is_proven() {
    let links = meet(
        &with(CLUSTER, 0, Seal::Never, None),
        3,
        &with(CLUSTER, 3, Seal::Never, None),
    );
    for link in links {
        assert_eq!(link.unwrap().proof(), Proof::None);
    }
}

#[test]
fn a_second_link_takes_the_place_of_the_first() {
    let link = || {
        let [near, _] = meet(&replica(0, Seal::Never), 3, &replica(3, Seal::Never));
        near.unwrap()
    };
    let mut roll = Roll::new(Duplicates::NewestWins);
    let Rolled::Taken {
        id: first,
        replaces: None,
        ..
    } = roll.install(link())
    else {
        panic!("there was none before");
    };
    let Rolled::Taken {
        id: second,
        replaces,
        link: kept,
    } = roll.install(link())
    else {
        panic!("its replica has just proven itself");
    };
    assert_eq!(replaces, Some(first));
    let replica = kept.replica();
    assert!(
        !roll.remove(replica, first),
        "the end of the first comes late"
    );
    assert_eq!(roll.get(replica), Some(second));

    let mut roll = Roll::new(Duplicates::FirstWins);
    assert!(matches!(
        roll.install(link()),
        Rolled::Taken { replaces: None, .. }
    ));
    assert!(matches!(
        roll.install(link()),
        Rolled::Refused(ReplicaId(3))
    ));
}

#[test]
fn who_proves_nothing_replaces_nobody() {
    let open = |id| with(CLUSTER, id, Seal::Never, None);
    let [announced, _] = meet(&open(0), 3, &open(3));
    let [verified, _] = meet(&replica(0, Seal::Never), 3, &replica(3, Seal::Never));
    let mut roll = Roll::new(Duplicates::NewestWins);
    assert!(matches!(
        roll.install(verified.unwrap()),
        Rolled::Taken { .. }
    ));
    assert!(matches!(
        roll.install(announced.unwrap()),
        Rolled::Refused(_)
    ));
}

fn sealed(link: Link) -> (TcpStream, Box<Sealed>) {
    match link.into_carrier() {
        Carrier::Sealed(tcp, sealed) => (tcp, sealed),
        Carrier::Plain(_) => panic!("it is not sealed"),
    }
}

/// So many bytes, waited for.
fn read(tcp: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    tcp.set_nonblocking(false).unwrap();
    tcp.set_read_timeout(Some(SOON)).unwrap();
    tcp.read_exact(&mut bytes).unwrap();
    bytes
}
