//! Bytes: all of them, in order, to their end, and no end that did not happen.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use crate::harness::{
    SOON, alone, beside_others,
    site::{Agent, Gateway, Site, forward},
    targets::{Target, drain, expect, patient, reset},
    until,
    users::connect,
};

/// A gateway, an agent and a forward to a target whose connections the test holds.
struct Bed {
    target: Target,
    gateway: Gateway,
    agent: Agent,
    _site: Site,
}

impl Bed {
    fn new() -> Self {
        let (site, target) = (Site::new(), Target::listen());
        let gateway = site.gateway("gw", &forward("target", target.addr));
        let agent = site.serving("site-a", &gateway, "127.0.0.1/32");
        Self {
            target,
            gateway,
            agent,
            _site: site,
        }
    }

    /// Both ends of a new session.
    fn session(&self) -> (TcpStream, TcpStream) {
        let user = connect(self.gateway.ingress("target"));
        (user, self.target.accept())
    }
}

#[test]
fn half_a_gigabyte_both_ways_at_once_arrives_unchanged() {
    let _machine = alone();
    let bed = Bed::new();
    let (user, target) = bed.session();
    let start = Instant::now();
    let hashes = std::thread::scope(|scope| {
        let up = scope.spawn(|| send_blocks(&user, 1));
        let down = scope.spawn(|| send_blocks(&target, 2));
        let up_got = scope.spawn(|| hash_all(&target));
        let down_got = scope.spawn(|| hash_all(&user));
        [up, down, up_got, down_got].map(|thread| thread.join().unwrap())
    });
    eprintln!("256 MiB each way: {:?}", start.elapsed());
    assert_eq!(hashes[0], hashes[2], "user to target");
    assert_eq!(hashes[1], hashes[3], "target to user");
    assert_eq!(bed.gateway.ended(1), "clean");
    let line = bed.gateway.process().logged("session ended");
    assert_eq!(line["sent"], TRANSFER);
    assert_eq!(line["received"], TRANSFER);
}

#[test]
fn a_user_that_ends_its_half_first_still_gets_the_answer() {
    let _machine = beside_others();
    let bed = Bed::new();
    let (user, mut target) = bed.session();
    (&user).write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    user.shutdown(Shutdown::Write).unwrap();
    let mut request = Vec::new();
    target.read_to_end(&mut request).unwrap();
    assert_eq!(request, b"GET / HTTP/1.0\r\n\r\n");
    target.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello").unwrap();
    drop(target);
    let mut answer = Vec::new();
    (&user).read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"HTTP/1.0 200 OK\r\n\r\nhello");
    assert_eq!(bed.gateway.ended(1), "clean");
}

#[test]
fn a_target_that_ends_its_half_first_still_gets_the_rest() {
    let _machine = beside_others();
    let bed = Bed::new();
    let (mut user, target) = bed.session();
    (&target).write_all(b"goodbye").unwrap();
    target.shutdown(Shutdown::Write).unwrap();
    let mut farewell = Vec::new();
    user.read_to_end(&mut farewell).unwrap();
    assert_eq!(farewell, b"goodbye");
    for _ in 0..64 {
        user.write_all(&[7; 16 << 10]).unwrap();
        expect(&target, &[7; 16 << 10]);
    }
    drop(user);
    assert_eq!(drain(&target).1.map_err(|e| e.kind()), Ok(()));
    assert_eq!(bed.gateway.ended(1), "clean");
}

#[test]
fn a_reset_of_the_target_is_a_reset_for_the_user() {
    let _machine = beside_others();
    let bed = Bed::new();
    let (user, target) = bed.session();
    ping_through(&user, &target);
    reset(target);
    let (_, end) = drain(&user);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(bed.gateway.ended(1), "reset by the other end of the tunnel");
}

/// As a web server does that refuses an upload: the system makes its close a reset, behind the whole answer.
#[test]
fn what_a_target_says_before_it_closes_on_unread_input_arrives() {
    let _machine = beside_others();
    let bed = Bed::new();
    // Less than the system takes at once: what it has not sent, a close on unread input throws away.
    let answer = vec![b'!'; 20_000];
    for _ in 0..5 {
        let (mut user, mut target) = bed.session();
        user.write_all(&[0; 100_000]).unwrap();
        let mut first = [0; 1];
        target.read_exact(&mut first).unwrap();
        target.write_all(&answer).unwrap();
        drop(target);
        let (got, end) = drain(&user);
        assert_eq!(got, answer.len() as u64);
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_reset_is_seen_on_a_socket_that_is_not_being_read() {
    let _machine = beside_others();
    let bed = Bed::new();
    // After its half-close nothing more is read from the user.
    let (user, half_closed) = bed.session();
    user.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    (&half_closed).read_to_end(&mut rest).unwrap();
    reset(user);
    // Behind a target that does not read, nothing more is read from the user either.
    let (user, unread) = bed.session();
    user.set_nonblocking(true).unwrap();
    until("the upload is blocked", SOON, || {
        let sent = (&user).write(&[0; 65_536]);
        sent.is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
            .then_some(())
    });
    reset(user);
    bed.gateway.sessions_are(0);
    let mut byte = [0; 1];
    let ended = (&half_closed).write_all(&byte).and_then(|()| {
        patient(&half_closed);
        (&half_closed).read_exact(&mut byte)
    });
    assert!(ended.is_err(), "the target is told");
    assert!(drain(&unread).1.is_err(), "never a clean end");
}

#[test]
fn a_reset_of_the_user_is_a_reset_for_the_target() {
    let _machine = beside_others();
    let bed = Bed::new();
    let (user, target) = bed.session();
    ping_through(&user, &target);
    reset(user);
    let (_, end) = drain(&target);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let reason = bed.gateway.ended(1);
    assert_eq!(reason, "reset by the user or target at this end");
}

#[test]
fn a_transfer_cut_short_never_ends_cleanly() {
    let _machine = beside_others();
    let bed = Bed::new();
    // From the target, with data under way and data unread at both ends.
    let (user, target) = bed.session();
    (&target).write_all(&[1; 1 << 20]).unwrap();
    reset(target);
    let (_, end) = drain(&user);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    // From the user.
    let (user, target) = bed.session();
    (&user).write_all(&[1; 1 << 20]).unwrap();
    reset(user);
    let (_, end) = drain(&target);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_killed_agent_is_an_error_for_the_user_never_an_end() {
    let _machine = beside_others();
    let mut bed = Bed::new();
    let (user, target) = bed.session();
    let sender = std::thread::spawn(move || {
        let block = [5; 64 << 10];
        while (&target).write_all(&block).is_ok() {}
    });
    let mut start = vec![0; 1 << 20];
    (&user).read_exact(&mut start).unwrap();
    let killed = Instant::now();
    bed.agent.process_mut().kill();
    let (_, end) = drain(&user);
    let took = killed.elapsed();
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(took < Duration::from_secs(5), "{took:?}");
    eprintln!("user's error {took:?} after the agent was killed");
    let reason = bed.gateway.ended(1);
    assert_eq!(reason, "connection between agent and gateway lost");
    sender.join().unwrap();
}

#[test]
fn a_user_that_never_reads_costs_bounded_memory_and_stops_nobody() {
    let _machine = alone();
    let bed = Bed::new();
    let (lazy, source) = bed.session();
    let (user, target) = bed.session();
    ping_through(&user, &target);
    let before = (bed.gateway.process().memory(), bed.agent.process().memory());
    // It is told that the sender stands still by a write that takes no byte for a second.
    source
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let block = vec![9; 1 << 20];
    let mut sent = 0;
    while sent < TRANSFER {
        match (&source).write(&block) {
            Ok(n) => sent += n as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        ping_through(&user, &target);
    }
    assert!(sent < TRANSFER, "the sender was held back");
    let after = (bed.gateway.process().memory(), bed.agent.process().memory());
    let grown = (
        after.0.saturating_sub(before.0),
        after.1.saturating_sub(before.1),
    );
    eprintln!("stuck after {sent} bytes; gateway and agent grew by {grown:?} bytes");
    assert!(grown.0 < MEMORY && grown.1 < MEMORY, "{grown:?}");
    // The one who wakes up gets everything.
    patient(&source);
    let reader = std::thread::spawn(move || drain(&lazy));
    let mut rest = TRANSFER - sent;
    while rest > 0 {
        let len = usize::try_from(rest).unwrap().min(block.len());
        (&source).write_all(&block[..len]).unwrap();
        rest -= len as u64;
    }
    drop(source);
    let (got, end) = reader.join().unwrap();
    assert_eq!((got, end.is_ok()), (TRANSFER, true));
}

#[test]
fn an_idle_session_stays_open_while_others_come_and_go() {
    let _machine = beside_others();
    let bed = Bed::new();
    let (idle, idle_target) = bed.session();
    for _ in 0..50 {
        let (user, target) = bed.session();
        ping_through(&user, &target);
        drop((user, target));
    }
    until("only the idle one is left", SOON, || {
        (bed.gateway.sessions().len() == 1).then_some(())
    });
    ping_through(&idle, &idle_target);
}

fn ping_through(mut user: &TcpStream, mut target: &TcpStream) {
    user.write_all(b"there").unwrap();
    expect(target, b"there");
    target.write_all(b"and back").unwrap();
    expect(user, b"and back");
}

/// Sends numbered blocks and the end, and gives their hash.
fn send_blocks(mut tcp: &TcpStream, salt: u8) -> Vec<u8> {
    let mut block = vec![salt; 256 << 10];
    let mut hash = Sha256::new();
    for number in 0..TRANSFER / block.len() as u64 {
        for part in block.chunks_mut(4_096) {
            part[..8].copy_from_slice(&number.to_be_bytes());
        }
        hash.update(&block);
        tcp.write_all(&block).unwrap();
    }
    tcp.shutdown(Shutdown::Write).unwrap();
    hash.finalize().to_vec()
}

fn hash_all(mut tcp: &TcpStream) -> Vec<u8> {
    let mut hash = Sha256::new();
    let mut buf = vec![0; 256 << 10];
    loop {
        match tcp.read(&mut buf).unwrap() {
            0 => return hash.finalize().to_vec(),
            n => hash.update(&buf[..n]),
        }
    }
}

const TRANSFER: u64 = 256 << 20;
const MEMORY: u64 = 64 << 20;
