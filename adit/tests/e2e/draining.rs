//! An agent that stops while many sessions have more to tell than their users have read.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use adit_proto_core::limits::BACKOFF_STEADY_AFTER;
use rustix::process::Signal;
use socket2::{Domain, SockRef, Socket, Type};

use crate::harness::{
    SOON, alone,
    site::{Agent, Gateway, Site, forward},
    targets::{Target, drain, expect, patient},
    until,
    users::connect,
};

#[test]
fn users_who_read_slowly_get_everything_while_the_grace_lasts() {
    all_is_read_while_the_grace_lasts(Visit::of_a_user_who_listens, LONG_ONES);
}

#[test]
fn targets_that_read_slowly_get_everything_while_the_grace_lasts() {
    all_is_read_while_the_grace_lasts(Visit::of_a_user_who_talks, SESSIONS);
}

fn all_is_read_while_the_grace_lasts(begin: Begin, left: usize) {
    let _machine = alone();
    let (_site, gateway, mut agent, target) = bed(GRACE);
    let visits = visits(begin, left, &gateway, &agent, &target);
    let began = Instant::now();
    agent.process().signal(Signal::TERM);
    let readers: Vec<_> = visits
        .into_iter()
        .map(|visit| thread::spawn(move || visit.read(PACE)))
        .collect();
    for (n, reader) in readers.into_iter().enumerate() {
        assert_eq!(reader.join().unwrap(), (length(n), None), "session {n}");
    }
    let took = began.elapsed();
    eprintln!("everything is read {took:?} after the signal");
    assert_eq!(agent.process_mut().exit().code(), Some(0));
    assert!(began.elapsed() < GRACE, "{:?}", began.elapsed());
    assert_eq!(agent.process().count(GRACE_OVER), 0);
    for n in 1..=SESSIONS {
        assert_eq!(gateway.ended(n), "clean");
    }
}

#[test]
fn what_is_under_way_at_the_end_arrives_over_a_slow_path_while_the_grace_lasts() {
    let _machine = alone();
    let (_site, gateway, mut agent, target) = bed(GRACE);
    let user = connect(gateway.ingress("target"));
    let mut far = target.accept();
    far.write_all(b"open").unwrap();
    expect(&user, b"open");
    user.shutdown(Shutdown::Write).unwrap();
    assert_eq!(far.read(&mut [0]).unwrap(), 0);
    // Nothing passes until it thaws: for longer than a farewell in a hurry takes, and not for so long that the path counts
    // as dead.
    gateway.process().signal(Signal::STOP);
    let frozen = Instant::now();
    far.write_all(&[7; SHORT]).unwrap();
    drop(far);
    agent.process().logged("session ended");
    agent.process().signal(Signal::TERM);
    until("longer than a farewell in a hurry takes", SOON, || {
        (frozen.elapsed() > Duration::from_millis(2_500)).then_some(())
    });
    gateway.process().signal(Signal::CONT);
    let (read, end) = drain(&user);
    assert_eq!((read, end.is_ok()), (SHORT as u64, true), "{end:?}");
    assert_eq!(gateway.ended(1), "clean");
    assert_eq!(agent.process_mut().exit().code(), Some(0));
    assert_eq!(agent.process().count(GRACE_OVER), 0);
    assert!(frozen.elapsed() < GRACE);
}

#[test]
fn what_is_under_way_to_a_target_arrives_while_the_grace_of_the_gateway_lasts() {
    let _machine = alone();
    let (_site, mut gateway, agent, target) = bed(GRACE);
    let mut user = connect(gateway.ingress("target"));
    user.write_all(b"open").unwrap();
    let far = target.accept();
    expect(&far, b"open");
    far.shutdown(Shutdown::Write).unwrap();
    assert_eq!(user.read(&mut [0]).unwrap(), 0);
    agent.process().signal(Signal::STOP);
    let frozen = Instant::now();
    user.write_all(&[7; SHORT]).unwrap();
    drop(user);
    assert_eq!(gateway.ended(1), "clean");
    gateway.process().signal(Signal::TERM);
    until("longer than a farewell in a hurry takes", SOON, || {
        (frozen.elapsed() > Duration::from_millis(2_500)).then_some(())
    });
    agent.process().signal(Signal::CONT);
    let (read, end) = drain(&far);
    assert_eq!((read, end.is_ok()), (SHORT as u64, true), "{end:?}");
    assert_eq!(gateway.process_mut().exit().code(), Some(0));
    assert_eq!(gateway.process().count(GRACE_OVER), 0);
}

#[test]
fn agents_that_come_back_hold_no_gateway_up_that_waits_for_another() {
    let _machine = alone();
    let (site, mut gateway, slow, target) = bed(GRACE);
    let quick = site.serving("site-b", &gateway, "127.0.0.2/32");
    let connected = Instant::now();
    let mut user = connect(gateway.ingress("target"));
    user.write_all(b"open").unwrap();
    let far = target.accept();
    expect(&far, b"open");
    far.shutdown(Shutdown::Write).unwrap();
    assert_eq!(user.read(&mut [0]).unwrap(), 0);
    until(
        "an agent that is told of the stop returns at once",
        SOON,
        || (connected.elapsed() > BACKOFF_STEADY_AFTER).then_some(()),
    );
    slow.process().signal(Signal::STOP);
    let frozen = Instant::now();
    user.write_all(&[7; SHORT]).unwrap();
    drop(user);
    assert_eq!(gateway.ended(1), "clean");
    gateway.process().signal(Signal::TERM);
    let admitted = gateway.process().logged_nth("agent connected", 3);
    assert_eq!(admitted["agent"], quick.id());
    until("longer than a farewell in a hurry takes", SOON, || {
        (frozen.elapsed() > Duration::from_millis(2_500)).then_some(())
    });
    slow.process().signal(Signal::CONT);
    let thawed = Instant::now();
    let (read, end) = drain(&far);
    assert_eq!((read, end.is_ok()), (SHORT as u64, true), "{end:?}");
    assert_eq!(gateway.process_mut().exit().code(), Some(0));
    assert!(thawed.elapsed() < CLOSING, "{:?}", thawed.elapsed());
    assert_eq!(gateway.process().count(GRACE_OVER), 0);
}

#[test]
fn users_who_do_not_read_hold_no_agent_up_and_are_told_what_is_missing() {
    let _machine = alone();
    let grace = Duration::from_secs(1);
    let (_site, gateway, mut agent, target) = bed(grace);
    let visits = visits(
        Visit::of_a_user_who_listens,
        LONG_ONES,
        &gateway,
        &agent,
        &target,
    );
    let began = Instant::now();
    agent.process().signal(Signal::TERM);
    assert_eq!(agent.process_mut().exit().code(), Some(0));
    let took = began.elapsed();
    eprintln!("{SESSIONS} sessions whose users do not read: ended {took:?} after the signal");
    assert!(took < grace + CLOSING, "{took:?}");
    agent.process().logged(GRACE_OVER);
    for (n, visit) in visits.into_iter().enumerate() {
        let (read, end) = visit.read(Duration::ZERO);
        match end {
            None => assert_eq!(read, length(n), "session {n} ends as if it were whole"),
            Some(end) => {
                assert_eq!(end, ErrorKind::ConnectionReset);
                assert_eq!(length(n), LONG, "session {n}: {read} bytes came");
            }
        }
    }
    gateway.sessions_are(0);
}

/// Begins sessions of which nothing is read yet, and waits until the agent has only so many left: those of which it cannot
/// tell all.
fn visits(
    begin: Begin,
    left: usize,
    gateway: &Gateway,
    agent: &Agent,
    target: &Target,
) -> Vec<Visit> {
    let visits = (0..SESSIONS).map(|n| begin(n, gateway, target));
    let visits: Vec<_> = visits.collect();
    until("the agent has told all that it can", SOON, || {
        (agent.status()["sessions"] == left).then_some(())
    });
    // The end that tells the readers has all of them.
    assert_eq!(left.max(gateway.sessions().len()), SESSIONS);
    visits
}

type Begin = fn(usize, &Gateway, &Target) -> Visit;

/// A session in which one side has said all, and the other has much to say.
struct Visit {
    n: usize,
    reader: TcpStream,
    writer: JoinHandle<()>,
}

impl Visit {
    fn of_a_user_who_listens(n: usize, gateway: &Gateway, target: &Target) -> Self {
        let user = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // What the system keeps for a user is read as far as the gateway can tell.
        user.set_recv_buffer_size(PIECE).unwrap();
        user.connect(&gateway.ingress("target").into()).unwrap();
        let user = TcpStream::from(user);
        patient(&user);
        Self::begin(n, user, target.accept())
    }

    fn of_a_user_who_talks(n: usize, gateway: &Gateway, target: &Target) -> Self {
        let user = connect(gateway.ingress("target"));
        let far = target.accept();
        let small = SockRef::from(&far).set_recv_buffer_size(PIECE);
        small.unwrap();
        Self::begin(n, far, user)
    }

    fn begin(n: usize, reader: TcpStream, mut far: TcpStream) -> Self {
        reader.shutdown(Shutdown::Write).unwrap();
        let writer = thread::spawn(move || {
            for at in 0..length(n) / PIECE {
                // Until it is reset.
                if far.write_all(&[mark(n, at); PIECE]).is_err() {
                    return;
                }
            }
        });
        Self { n, reader, writer }
    }

    /// Reads to the end, a piece and a wait in turn. Gives how many bytes came, all of them the right ones, and how it
    /// ended; none where that was clean.
    fn read(mut self, wait: Duration) -> (usize, Option<ErrorKind>) {
        let mut piece = vec![0; PIECE];
        let mut total = 0;
        let end = loop {
            let read = match self.reader.read(&mut piece) {
                Ok(0) => break None,
                Ok(read) => read,
                Err(error) => break Some(error.kind()),
            };
            for (at, byte) in (total..).zip(&piece[..read]) {
                assert_eq!(
                    *byte,
                    mark(self.n, at / PIECE),
                    "session {} at {at}",
                    self.n
                );
            }
            total += read;
            // The pace of a slow reader.
            thread::park_timeout(wait);
        };
        self.writer.join().unwrap();
        (total, end)
    }
}

/// How much a session has to tell.
fn length(n: usize) -> usize {
    if n < LONG_ONES { LONG } else { SHORT }
}

/// What a piece of a session is made of.
fn mark(n: usize, piece: usize) -> u8 {
    u8::try_from((n * 41 + piece * 7) % 251).unwrap()
}

fn bed(grace: Duration) -> (Site, Gateway, Agent, Target) {
    let (site, target) = (Site::new(), Target::listen());
    let gateway = site.gateway("gw", &forward("target", target.addr));
    let mut agent = site.enrol("site-a", &gateway, "127.0.0.1/32");
    let config = site.path("agent.toml");
    fs::write(&config, format!("grace = \"{}s\"\n", grace.as_secs())).unwrap();
    agent.spawn_with(&config);
    gateway.routes_to(&agent.id(), 1);
    (site, gateway, agent, target)
}

const SESSIONS: usize = 40;
const LONG_ONES: usize = 8;
/// More than the systems at both ends keep of a connection, and less than that and the window of a stream.
const SHORT: usize = 5 << 20;
/// More than both.
const LONG: usize = 14 << 20;
const PIECE: usize = 64 << 10;
/// Between two pieces of a slow reader: some MiB in a second.
const PACE: Duration = Duration::from_millis(5);
const GRACE: Duration = Duration::from_secs(30);
/// What saying farewell may take beyond the grace period, on a busy machine.
const CLOSING: Duration = Duration::from_secs(6);
const GRACE_OVER: &str = "grace period over; cutting the sessions left";
