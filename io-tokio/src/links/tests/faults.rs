//! What fails or does not go on, and what must go on beside it.

use std::{
    future::poll_fn,
    io::IoSlice,
    net::{Ipv4Addr, TcpListener},
    pin::Pin,
    sync::Arc,
    task::{Context, Wake, Waker},
    time::Duration,
};

use adit_io_common::{
    clock::system_env,
    commands::{Command, Commands},
    leg::Leg,
    lines::Lines,
    over::Over,
    peers::PeerCommand,
    replica::{Link, Replica},
    socket::Carried,
};
use adit_proto_core::{
    close::CloseReason,
    gateway::{AttemptError, dispatch::AgentEvent},
    id::{AttemptId, ConnId, Slot},
    limits::FORWARD_HEADER_TIMEOUT,
    peer::{
        forward::{Answer, Status},
        node::Reach,
    },
    replica::Slots,
    session_timer::SessionBounds,
    target::Host,
};
use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    sync::Semaphore,
    task::yield_now,
    time::{Instant, pause, resume, timeout},
};

use super::{
    super::{
        counters::Counters,
        link::{LinkLeg, hear, register, say},
        opener::{NoLink, Way},
        session::Word,
        taker::{ODD, Taking, answered},
        *,
    },
    bed::{
        Bed, KEY, ONE, OTHER_KEY, SOON, TWO, accept, forward, keys, open, pair, read, read_end,
        session, settings,
    },
};
use crate::{pipe::Pipe, replica::Acceptor};

/// Who takes a session at the first gateway.
fn taking() -> Taking {
    let ((node, _), (endpoint, _), (own, _)) = (handoff(1), handoff(1), handoff(1));
    let (moved, env) = (Arc::default(), system_env(None).unwrap());
    Taking {
        gateway: GatewayHandle::new(node, endpoint, moved, env),
        place: (ConnId(1), Slot(1)),
        local: ONE,
        commands: Commands::Shared(ConnId(1), own),
        odd: Lines::new(ODD),
    }
}

/// Waits for what another task brings about.
async fn until(is_so: impl Fn() -> bool) {
    let seen = async {
        while !is_so() {
            yield_now().await;
        }
    };
    timeout(SOON, seen).await.expect("it does not come about");
}

/// Has whoever writes to a pipe next panic.
fn booby_trap(pipe: &mut Pipe) {
    struct Trap;
    impl Wake for Trap {
        fn wake(self: Arc<Self>) {
            panic!("the test's own");
        }
    }
    let (waker, mut byte) = (Waker::from(Arc::new(Trap)), [0]);
    let mut cx = Context::from_waker(&waker);
    let read = Pin::new(pipe).poll_read(&mut cx, &mut ReadBuf::new(&mut byte));
    assert!(read.is_pending());
}

#[tokio::test]
async fn a_task_that_panics_ends_its_session_and_keeps_no_place() {
    let (mut one, mut two, way) = pair().await;
    let counts = [one.links.handle(), two.links.handle()];
    let are_free = || {
        let (taken, opened) = (counts[0].counts(), counts[1].counts());
        taken.accepted_open == 0 && opened.dialled_open == 0
    };
    // At the gateway that has the user.
    let (mut user, mut agent, _) = session(&mut one, &mut two, &way).await;
    assert_eq!(read(&mut agent, 6).await, b"early ");
    booby_trap(&mut user);
    agent.write_all(b"x").await.unwrap();
    assert_eq!(two.over().await.2, Over::ConnectionLost);
    read_end(&mut agent).await.unwrap_err();
    until(are_free).await;
    // At the one that has the agent.
    let (mut user, mut agent, _) = session(&mut one, &mut two, &way).await;
    assert_eq!(read(&mut agent, 6).await, b"early ");
    booby_trap(&mut agent);
    user.write_all(b"x").await.unwrap();
    assert_eq!(two.over().await.2, Over::PeerReset);
    until(are_free).await;
    // The way is not held open by what is lost.
    let stop = Command::Stop(CloseReason::GatewayStopping);
    way.commands.push_or_stop(stop);
    assert!(matches!(two.event().await, AgentEvent::Closed));
}

#[tokio::test]
async fn a_way_ends_behind_its_sessions_those_that_are_given_up_as_well() {
    let (mut one, mut two, way) = pair().await;
    open(&way, 1);
    let (_agent, near) = Pipe::pair();
    accept(&one.forwarded().await, near);
    assert!(matches!(two.event().await, AgentEvent::Opened { .. }));
    let cancel = Command::Role(PeerCommand::CancelOpen(AttemptId(1)));
    way.commands.push_or_stop(cancel);
    let stop = Command::Stop(CloseReason::GatewayStopping);
    way.commands.push_or_stop(stop);
    assert_eq!(two.over().await.2, Over::Cut);
    assert!(matches!(two.event().await, AgentEvent::Closed));
}

#[tokio::test]
async fn an_attempt_that_is_cut_with_its_way_has_its_answer_first() {
    let (mut one, mut two, way) = pair().await;
    open(&way, 1);
    one.forwarded().await;
    let stop = Command::Stop(CloseReason::GatewayStopping);
    way.commands.push_or_stop(stop);
    assert_eq!(two.failed().await, AttemptError::PeerLost);
    assert!(matches!(two.event().await, AgentEvent::Closed));
}

/// Of eight links each of two peers always has two, and four are for whoever comes first.
#[tokio::test]
async fn a_peer_has_its_share_of_links_and_leaves_another_one_its_own() {
    let (key, three) = (|| keys(KEY, None), NodeId(3));
    let mut one = Bed::start(ONE, settings(ONE, &[], key()));
    let mut last = Bed::start(three, settings(three, &[], key()));
    let peers = [(ONE, one.address()), (three, last.address())];
    let mut two = Bed::bounded(TWO, settings(TWO, &peers, key()), 8);
    for (peer, bed, links) in [(ONE, &mut one, 6), (three, &mut last, 2)] {
        let (_, way) = two.up(peer).await;
        for attempt in 1..=links {
            open(&way, attempt);
            bed.forwarded().await;
        }
        open(&way, 7);
        assert_eq!(two.failed().await, AttemptError::NoCredit);
    }
}

/// The same of links that peers dial.
#[tokio::test]
async fn a_peer_that_brings_more_than_its_share_leaves_another_one_its_own() {
    let (key, three) = (|| keys(KEY, None), NodeId(3));
    let mut one = Bed::bounded(ONE, settings(ONE, &[], key()), 8);
    let mut keep = Vec::new();
    for (peer, links) in [(TWO, 6), (three, 2)] {
        let known = [(ONE, one.address())];
        let mut bed = Bed::start(peer, settings(peer, &known, key()));
        let (_, way) = bed.up(ONE).await;
        for attempt in 1..=links {
            open(&way, attempt);
            one.forwarded().await;
        }
        open(&way, 7);
        assert_eq!(bed.failed().await, AttemptError::PeerLost);
        // It keeps what it has.
        keep.push(bed);
    }
}

#[tokio::test]
async fn a_dial_that_is_cut_off_is_counted() {
    // Connections are made to it, and nobody ever says anything.
    let silent = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let silent = silent.await.unwrap();
    let peers = [(ONE, target(silent.local_addr().unwrap()))];
    let mut two = Bed::start(TWO, settings(TWO, &peers, keys(KEY, None)));
    let (_, way) = two.up(ONE).await;
    open(&way, 1);
    let _dialled = timeout(SOON, silent.accept()).await.unwrap().unwrap();
    let cancel = Command::Role(PeerCommand::CancelOpen(AttemptId(1)));
    way.commands.push_or_stop(cancel);
    assert_eq!(two.failed().await, AttemptError::PeerLost);
    let counts = two.links.handle();
    until(|| counts.counts().dialled_open == 0).await;
    let counts = counts.counts();
    assert_eq!((counts.dialled, counts.failed), (0, 1));
}

#[test]
fn a_dial_is_counted_once_it_is_over() {
    let counters = Counters::default();
    let mut first = counters.dialling();
    let second = counters.dialling();
    assert_eq!(counters.read(), LinkCounts::default());
    first.is_there = true;
    drop((first, second));
    let counts = counters.read();
    assert_eq!((counts.dialled, counts.failed), (1, 1));
}

#[tokio::test]
async fn what_this_machine_lacks_says_nothing_of_the_peer() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = closed.local_addr().unwrap();
    drop(closed);
    let replica = Replica::new(
        settings(TWO, &[], keys(KEY, None)).replica,
        Slots::default(),
    );
    // It dials nobody of its own number, whatever is at the address.
    for (peer, expected) in [(ONE, NoLink::Unreached), (TWO, NoLink::Untried)] {
        let way = Way {
            replica: replica.clone(),
            peer: replica_of(peer).unwrap(),
            address: target(addr),
            handshakes: Arc::new(Semaphore::new(1)),
        };
        assert_eq!(way.dial().await.err(), Some(expected));
    }
}

#[tokio::test]
async fn a_session_that_begins_while_no_call_reaches_the_peer_is_watched_over() {
    let (mut one, mut two, way) = pair().await;
    let reach = Reach::Down;
    two.notices.push_or_stop(LinkNotice { node: ONE, reach });
    assert!(matches!(two.event().await, AgentEvent::Suspect));
    let (mut user, mut agent, _) = session(&mut one, &mut two, &way).await;
    assert_eq!(read(&mut agent, 6).await, b"early ");
    // From here on links do not reach it, either.
    let other = settings(ONE, &[], keys(OTHER_KEY, None));
    one.links.handle().configure(other);
    read_end(&mut user).await.unwrap_err();
    assert_eq!(two.over().await.2, Over::ConnectionLost);
}

#[tokio::test]
async fn a_session_that_is_taken_while_no_call_reaches_the_peer_is_watched_over() {
    let (mut one, mut two, way) = pair().await;
    let known = settings(ONE, &[(TWO, two.address())], keys(KEY, None));
    one.links.handle().configure(known);
    one.up(TWO).await;
    let reach = Reach::Down;
    one.notices.push_or_stop(LinkNotice { node: TWO, reach });
    assert!(matches!(one.event().await, AgentEvent::Suspect));
    let (_user, mut agent, _) = session(&mut one, &mut two, &way).await;
    assert_eq!(read(&mut agent, 6).await, b"early ");
    // From here on links do not reach it, either.
    let other = settings(TWO, &[(ONE, one.address())], keys(OTHER_KEY, None));
    two.links.handle().configure(other);
    read_end(&mut agent).await.unwrap_err();
}

#[tokio::test]
async fn who_only_looks_whether_a_gateway_is_there_asks_nothing() {
    let key = || keys(KEY, None);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let way = Way {
        replica: Replica::new(settings(TWO, &[], key()).replica, Slots::default()),
        peer: replica_of(ONE).unwrap(),
        address: target(listener.local_addr().unwrap()),
        handshakes: Arc::new(Semaphore::new(1)),
    };
    let replica = Replica::new(settings(ONE, &[], key()).replica, Slots::default());
    let mut acceptor = Acceptor::new(replica, listener).unwrap();
    let taking = taking();
    let header = async {
        taking
            .header(register(acceptor.accept().await).unwrap(), TWO)
            .await
    };
    let (probed, asked) = tokio::join!(way.probe(), header);
    assert_eq!(probed.err(), None);
    assert!(matches!(asked, Ok(None)), "{asked:?}");
    // One that is cut is another thing.
    let cut = async { drop(way.dial().await.unwrap()) };
    let header = async {
        taking
            .header(register(acceptor.accept().await).unwrap(), TWO)
            .await
    };
    assert!(tokio::join!(header, cut).0.is_err());
}

#[tokio::test]
async fn a_peer_that_goes_while_nothing_is_said_is_seen_behind_its_end_as_well() {
    let (mut one, mut two, way) = pair().await;
    let (mut user, mut agent, _) = session(&mut one, &mut two, &way).await;
    user.write_all(b"question").await.unwrap();
    user.shutdown().await.unwrap();
    assert_eq!(read(&mut agent, 14).await, b"early question");
    assert_eq!(read_end(&mut agent).await.unwrap(), 0);
    // The agent thinks about its answer; nobody will read it.
    drop(two);
    let counts = one.links.handle();
    until(|| counts.counts().accepted_open == 0).await;
    agent.write_all(b"answer").await.unwrap_err();
}

#[tokio::test]
async fn a_peer_that_never_reads_holds_up_its_own_session_only() {
    let key = || keys(KEY, None);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let stuck = target(listener.local_addr().unwrap());
    let replica = Replica::new(settings(ONE, &[], key()).replica, Slots::default());
    let mut acceptor = Acceptor::new(replica, listener).unwrap();
    let three = NodeId(3);
    let mut honest = Bed::start(three, settings(three, &[], key()));
    let peers = [(ONE, stuck), (three, honest.address())];
    let mut two = Bed::start(TWO, settings(TWO, &peers, key()));

    let (_, way) = two.up(ONE).await;
    open(&way, 9);
    let mut leg = register(acceptor.accept().await).unwrap();
    assert_eq!(hear(&mut leg).await.unwrap(), forward(TWO, ONE).to_record());
    say(&mut leg, &Answer::to_record(Status::Open, ""))
        .await
        .unwrap();
    let opened = two.event().await;
    let AgentEvent::Opened { slot, .. } = opened else {
        panic!("{opened:?}");
    };
    let (mut user, far) = Pipe::pair();
    let (socket, bounds) = (Carried::new(far), SessionBounds::default());
    let attach = Command::Attach(slot, socket, Bytes::new(), bounds);
    way.commands.push_or_stop(attach);
    let piece = vec![7; 64 << 10];
    let mut written = 0_usize;
    // All that the process holds of it is as much as its buffers; the rest is the system's.
    while let Ok(taken) = timeout(STALL, user.write(&piece)).await {
        written += taken.unwrap();
        assert!(written < 64 << 20, "the writer is not stopped");
    }

    let (_, other) = two.up(three).await;
    let (mut other_user, mut agent, _) = session(&mut honest, &mut two, &other).await;
    assert_eq!(read(&mut agent, 6).await, b"early ");
    let speak = async { other_user.write_all(&piece.repeat(16)).await.unwrap() };
    let (came, ()) = tokio::join!(read(&mut agent, piece.len() * 16), speak);
    assert_eq!(came, piece.repeat(16));
    // Nor does it keep its place against an operator.
    way.commands.push_or_stop(Command::Kill(slot));
    assert_eq!(two.over().await.2, Over::Killed);
}

#[tokio::test]
async fn a_peer_that_brings_a_session_and_never_reads_holds_up_nobody_else() {
    let (mut one, mut two, way) = pair().await;
    let replica = Replica::new(
        settings(NodeId(3), &[], keys(KEY, None)).replica,
        Slots::default(),
    );
    let addr = one.links.local_addr();
    let link = crate::replica::dial(&replica, addr, replica_of(ONE).unwrap()).await;
    let mut leg = register(link.unwrap()).unwrap();
    say(&mut leg, &forward(NodeId(3), ONE).to_record())
        .await
        .unwrap();
    let (mut stuck, near) = Pipe::pair();
    accept(&one.forwarded().await, near);
    let piece = vec![7; 64 << 10];
    let mut written = 0_usize;
    while let Ok(taken) = timeout(STALL, stuck.write(&piece)).await {
        written += taken.unwrap();
        assert!(written < 64 << 20, "the writer is not stopped");
    }
    let (mut user, mut agent, _) = session(&mut one, &mut two, &way).await;
    assert_eq!(read(&mut agent, 6).await, b"early ");
    agent.write_all(b"answer").await.unwrap();
    assert_eq!(read(&mut user, 6).await, b"answer");
    // Bytes that are no record end it at once, whatever waits to be written.
    let garbage = [IoSlice::new(&[0; 64])];
    let socket = leg.socket();
    assert!(socket.poll_write(&garbage).is_ready());
    let counts = one.links.handle();
    until(|| counts.counts().accepted_open == 1).await;
    stuck.write_all(b"x").await.unwrap_err();
}

/// A link of which this end has written so much that nothing more is taken, with the end of a peer that does not read.
async fn stuck() -> (LinkLeg, Link) {
    let of = |node| {
        Replica::new(
            settings(node, &[], keys(KEY, None)).replica,
            Slots::default(),
        )
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut acceptor = Acceptor::new(of(ONE), listener).unwrap();
    let peer = of(TWO);
    let dialled = crate::replica::dial(&peer, addr, replica_of(ONE).unwrap());
    let (dialled, link) = tokio::join!(dialled, acceptor.accept());
    let mut leg = register(link).unwrap();
    let piece = [IoSlice::new(&[0; 64 << 10])];
    let write = |leg: &mut LinkLeg, cx: &mut Context<'_>| {
        leg.socket().wake(cx);
        leg.socket().poll_write(&piece)
    };
    while let Ok(taken) = timeout(STALL, poll_fn(|cx| write(&mut leg, cx))).await {
        taken.unwrap();
    }
    (leg, dialled.unwrap())
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_answer_keeps_its_place_for_five_seconds() {
    let refuse = Word::Refuse(Status::NoRoute, "no agent".into());
    let (mut agent, near) = Pipe::pair();
    for word in [refuse, Word::Accept(Carried::new(near))] {
        let (leg, _peer) = stuck().await;
        // From here on time passes where nothing else can happen.
        pause();
        let begun = Instant::now();
        let ended = timeout(2 * FORWARD_HEADER_TIMEOUT, answered(leg, word)).await;
        assert!(ended.expect("it waits for ever").is_none());
        assert!(begun.elapsed() >= FORWARD_HEADER_TIMEOUT);
        resume();
    }
    // Nor does its session stay with the agent.
    read_end(&mut agent).await.unwrap_err();
}

fn target(addr: SocketAddr) -> Target {
    Target {
        host: Host::Ip(addr.ip()),
        port: addr.port(),
    }
}

/// A writer that has not been taken anything from for so long is stopped.
const STALL: Duration = Duration::from_millis(300);
