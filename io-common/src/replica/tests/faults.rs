//! Replicas that do not find each other, and what both are told.

use std::io::{self, Read, Write};

use adit_proto_core::replica::{Awaited, Command, DialError, Fault, MacHint, Status};

use super::*;

/// What a replica's end came to that failed.
fn fault(outcome: Result<Link, LinkError>) -> Fault {
    match outcome {
        Err(LinkError::Handshake(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_ends_are_told_what_the_other_may_know() {
    let zero = || replica(0, Seal::Never);
    let three = || replica(3, Seal::Never);
    let cut_off = Fault::Closed(Awaited::Finish);
    let other_cluster = ClusterId::of("another");
    let rows = [
        (
            "another key",
            meet(
                &with(CLUSTER, 0, Seal::Never, Some(keys(OTHER_KEY, None))),
                3,
                &three(),
            ),
            [Fault::MacMismatch(MacHint::Unknown), cut_off],
        ),
        (
            "another cluster",
            meet(
                &with("another", 0, Seal::Never, Some(keys(KEY, None))),
                3,
                &three(),
            ),
            [
                Fault::Refused(Status::ClusterMismatch),
                Fault::ClusterMismatch(other_cluster),
            ],
        ),
        (
            "another replica at the address",
            meet(&zero(), 2, &three()),
            [Fault::MacMismatch(MacHint::Replica(ReplicaId(3))), cut_off],
        ),
        (
            "its own address",
            meet(&zero(), 3, &zero()),
            [
                Fault::Refused(Status::DirectionalRule),
                Fault::DirectionalRule(ReplicaId(0)),
            ],
        ),
        (
            "no authentication at the acceptor",
            meet_silent(&zero(), &with(CLUSTER, 3, Seal::Never, None)),
            [
                Fault::Silent(Awaited::Challenge),
                Fault::Silent(Awaited::Challenge),
            ],
        ),
    ];
    for (what, outcomes, faults) in rows {
        assert_eq!(outcomes.map(fault), faults, "{what}");
    }
}

/// An acceptor that takes the dialer for what it says leaves it waiting until its time is over; told twice.
fn meet_silent(dialer: &Replica, acceptor: &Replica) -> [Result<Link, LinkError>; 2] {
    [(); 2].map(|()| {
        let now = Instant::now();
        let [mut dialled, accepted] = Port::open().begin(now, dialer, 3, acceptor);
        dialled.turn(now);
        let _open = finish(now, accepted).unwrap();
        assert_eq!(dialled.turn(now + ms(3_000)), Turn::Over);
        dialled.end()
    })
}

#[test]
fn a_dialer_that_does_not_authenticate_is_not_taken() {
    let open = with(CLUSTER, 0, Seal::Never, None);
    let [dialled, accepted] = meet(&open, 3, &replica(3, Seal::Never));
    assert_eq!(fault(accepted), Fault::AuthRequired(ReplicaId(0)));
    // It believes that it is connected, and sees the end.
    let mut near = dialled.unwrap().into_socket().unwrap();
    near.set_nonblocking(false).unwrap();
    assert_eq!(near.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_link_that_one_end_alone_seals_fails_there() {
    let now = Instant::now();
    let (sealing, bare) = (replica(0, Seal::Require), replica(3, Seal::Never));
    let [mut dialled, mut accepted] = Port::open().begin(now, &sealing, 3, &bare);
    dialled.turn(now);
    wait(&accepted);
    accepted.turn(now);
    wait(&dialled);
    assert_eq!(dialled.turn(now), Turn::Waiting);
    let _bare = finish(now, accepted).unwrap();
    assert_eq!(dialled.turn(now + ms(3_000)), Turn::Over);
    assert_eq!(fault(dialled.end()), Fault::Silent(Awaited::Confirmation));
}

#[test]
fn a_socket_that_is_connected_to_itself_is_noticed() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    let own = socket.local_addr().unwrap();
    socket.connect(&own).unwrap();
    let addr = own.as_socket().unwrap();
    let now = Instant::now();
    let dialled = replica(0, Seal::Never).dial(now, socket.into(), addr, ReplicaId(3));
    let expected = Fault::UnexpectedCommand {
        awaited: Awaited::Challenge,
        command: Command::Hello,
    };
    assert_eq!(fault(finish(now, dialled.unwrap())), expected);
}

#[test]
fn who_is_not_to_be_dialled_is_not() {
    let port = Port::open();
    for (target, expected) in [
        (1, DialError::NotHigher(ReplicaId(1))),
        (0, DialError::NotHigher(ReplicaId(0))),
        (9, DialError::NotInRoster(ReplicaId(9))),
    ] {
        let replica = replica(1, Seal::Never);
        let judged = replica.may_dial(Instant::now(), ReplicaId(target));
        assert!(matches!(judged, Err(LinkError::Dial(error)) if error == expected));
        let (near, _far) = port.connect();
        let dialled = replica.dial(Instant::now(), near, port.addr(), ReplicaId(target));
        assert!(
            matches!(dialled, Err(LinkError::Dial(error)) if error == expected),
            "{target}"
        );
    }
}

#[test]
fn an_early_end_is_one_wherever_it_comes() {
    let now = Instant::now();
    for sent in [0, 1, 255] {
        let (mut near, (far, from)) = Port::open().connect();
        let accepted = replica(3, Seal::Never).accept(now, far, from).unwrap();
        near.write_all(&vec![0; sent]).unwrap();
        drop(near);
        assert_eq!(
            fault(finish(now, accepted)),
            Fault::Closed(Awaited::Hello),
            "{sent}"
        );
    }
}

#[test]
fn a_reset_is_an_end() {
    let now = Instant::now();
    let (near, (far, from)) = Port::open().connect();
    let accepted = replica(3, Seal::Never).accept(now, far, from).unwrap();
    crate::socket::reset_tcp(&near);
    drop(near);
    assert_eq!(fault(finish(now, accepted)), Fault::Closed(Awaited::Hello));
}

#[test]
fn what_is_no_frame_ends_it_without_an_answer() {
    let now = Instant::now();
    let (mut near, (far, from)) = Port::open().connect();
    let accepted = replica(3, Seal::Never).accept(now, far, from).unwrap();
    near.write_all(&[0xff; 256]).unwrap();
    assert!(matches!(fault(finish(now, accepted)), Fault::Frame(_)));
    assert_eq!(near.read(&mut [0]).unwrap(), 0);
}

#[test]
fn who_gives_up_closes_the_connection() {
    let now = Instant::now();
    let (mut near, (far, from)) = Port::open().connect();
    let mut accepted = replica(3, Seal::Never).accept(now, far, from).unwrap();
    assert_eq!(accepted.turn(now), Turn::Waiting);
    assert!(matches!(accepted.end(), Err(LinkError::GivenUp)));
    assert_eq!(near.read(&mut [0]).unwrap(), 0);
}

#[test]
fn nothing_shows_a_secret() {
    let now = Instant::now();
    let replica = replica(0, Seal::Require);
    let (near, _far) = Port::open().connect();
    let dialled = replica.dial(now, near, "127.0.0.1:1".parse().unwrap(), ReplicaId(3));
    let link = meet(&replica, 3, &super::replica(3, Seal::Require));
    let lack = LinkError::Connect(io::ErrorKind::ConnectionRefused.into());
    let shown = format!("{replica:?} {dialled:?} {link:?} {lack:?} {lack}");
    let bytes = |text: &str| format!("{:?}", text.as_bytes());
    assert!(!shown.contains(KEY) && !shown.contains(bytes(KEY).trim_matches(['[', ']'])));
}

#[test]
fn one_bad_connection_stops_no_listener() {
    let replica = replica(3, Seal::Never);
    assert_eq!(
        replica.accept_failed(&io::ErrorKind::ConnectionAborted.into()),
        None
    );
    let lack = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
    assert_eq!(replica.accept_failed(&lack), Some(ms(50)));
}
