//! Two gateways' links, with the test in the place of both gateways.

mod bed;
mod faults;

use std::{
    net::{IpAddr, Ipv4Addr, TcpStream as StdStream},
    time::Duration,
};

use adit_io_common::{
    commands::Command, gateway::FromPeers, over::Over, peers::PeerCommand, socket::Socket,
};
use adit_proto_core::{
    close::CloseReason,
    gateway::{AttemptError, dispatch::AgentEvent},
    id::AttemptId,
    peer::{forward::Status, node::Reach},
    replica::{ClusterId, Dialling, Roster, Seal},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use self::bed::{
    Bed, KEY, ONE, OTHER_KEY, SOON, TWO, accept, forward, keys, open, pair, read, read_end,
    session, settings,
};
use super::*;
use crate::pipe::Pipe;

#[tokio::test]
async fn bytes_go_both_ways_at_once_and_each_half_ends_by_itself() {
    let (mut one, mut two, way) = pair().await;
    assert_eq!((way.from, way.to), (TWO, ONE));
    let (user, agent, _) = session(&mut one, &mut two, &way).await;
    let data: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let speak = |mut pipe: Pipe, data: Vec<u8>, comes: usize| async move {
        let (mut from, mut to) = tokio::io::split(&mut pipe);
        let say = async {
            to.write_all(&data).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let mut came = Vec::new();
        let hear = from.read_to_end(&mut came);
        let (_, heard) = tokio::join!(say, hear);
        assert_eq!(heard.unwrap(), comes);
        came
    };
    let both = async {
        let (to_user, to_agent) = tokio::join!(
            speak(user, data.clone(), data.len()),
            speak(agent, data.clone(), data.len() + 6)
        );
        assert!(to_user == data && to_agent == [b"early ".as_slice(), &data].concat());
    };
    timeout(SOON, both).await.unwrap();
    let len = data.len() as u64;
    assert_eq!(two.over().await, (len + 6, len, Over::Clean));
}

#[tokio::test]
async fn a_half_that_has_ended_leaves_the_other_one_open() {
    let (mut one, mut two, way) = pair().await;
    for user_ends in [true, false] {
        let (mut user, mut agent, _) = session(&mut one, &mut two, &way).await;
        assert_eq!(read(&mut agent, 6).await, b"early ");
        let (ends, stays) = match user_ends {
            true => (&mut user, &mut agent),
            false => (&mut agent, &mut user),
        };
        ends.write_all(b"question").await.unwrap();
        ends.shutdown().await.unwrap();
        assert_eq!(read(stays, 8).await, b"question");
        assert_eq!(read_end(stays).await.unwrap(), 0);
        stays.write_all(b"answer").await.unwrap();
        assert_eq!(read(ends, 6).await, b"answer");
        stays.shutdown().await.unwrap();
        assert_eq!(read_end(ends).await.unwrap(), 0);
        assert_eq!(two.over().await.2, Over::Clean);
    }
}

#[tokio::test]
async fn a_reset_is_never_a_clean_end() {
    let (mut one, mut two, way) = pair().await;
    for user_resets in [true, false] {
        let (mut user, mut agent, _) = session(&mut one, &mut two, &way).await;
        assert_eq!(read(&mut agent, 6).await, b"early ");
        match user_resets {
            true => {
                drop(user);
                read_end(&mut agent).await.unwrap_err();
                assert_eq!(two.over().await.2, Over::TcpReset);
            }
            false => {
                drop(agent);
                read_end(&mut user).await.unwrap_err();
                assert_eq!(two.over().await.2, Over::PeerReset);
            }
        }
    }
}

#[tokio::test]
async fn an_operator_ends_a_session_and_a_stop_ends_all() {
    let (mut one, mut two, way) = pair().await;
    let (mut user, mut agent, slot) = session(&mut one, &mut two, &way).await;
    assert_eq!(read(&mut agent, 6).await, b"early ");
    way.commands.push_or_stop(Command::Kill(slot));
    read_end(&mut user).await.unwrap_err();
    read_end(&mut agent).await.unwrap_err();
    assert_eq!(two.over().await.2, Over::Killed);

    let (mut user, mut agent, _) = session(&mut one, &mut two, &way).await;
    assert_eq!(read(&mut agent, 6).await, b"early ");
    let stop = Command::Stop(CloseReason::GatewayStopping);
    way.commands.push_or_stop(stop);
    read_end(&mut user).await.unwrap_err();
    read_end(&mut agent).await.unwrap_err();
    assert_eq!(two.over().await.2, Over::ConnectionLost);
    assert!(matches!(two.event().await, AgentEvent::Closed));
    // What comes later is told that the way is there no more.
    open(&way, 2);
    assert_eq!(two.failed().await, AttemptError::PeerLost);
}

#[tokio::test]
async fn a_gateway_that_is_gone_resets_its_sessions() {
    let (mut one, mut two, way) = pair().await;
    let (mut user, mut agent, _) = session(&mut one, &mut two, &way).await;
    assert_eq!(read(&mut agent, 6).await, b"early ");
    drop(one);
    read_end(&mut user).await.unwrap_err();
    read_end(&mut agent).await.unwrap_err();
    assert_eq!(two.over().await.2, Over::PeerReset);
    open(&way, 2);
    assert_eq!(two.failed().await, AttemptError::PeerLost);
}

#[tokio::test]
async fn a_reader_that_stops_stops_the_writer() {
    let (mut one, mut two, way) = pair().await;
    let (mut user, mut agent, _) = session(&mut one, &mut two, &way).await;
    assert_eq!(read(&mut agent, 6).await, b"early ");
    let piece = vec![7; 64 << 10];
    let mut written = 0_usize;
    // Nothing is taken any more once all buffers between both are full.
    while let Ok(taken) = timeout(Duration::from_millis(300), user.write(&piece)).await {
        written += taken.unwrap();
        assert!(written < 64 << 20, "the writer is not stopped");
    }
    // The other direction is not held up.
    agent.write_all(b"answer").await.unwrap();
    assert_eq!(read(&mut user, 6).await, b"answer");
    assert_eq!(read(&mut agent, written).await, vec![7; written]);
}

#[tokio::test]
async fn a_refusal_comes_back_with_its_status() {
    let (mut one, mut two, way) = pair().await;
    for (status, expected) in [
        (Status::TimedOut, AttemptError::TimedOut),
        (Status::Overload, AttemptError::NoCredit),
        (
            Status::Refused,
            AttemptError::Refused("no such port".to_owned()),
        ),
    ] {
        open(&way, 1);
        let forwarded = one.forwarded().await;
        assert_eq!(*forwarded.forward, *forward(TWO, ONE));
        assert_eq!(forwarded.remote.ip(), IpAddr::from(Ipv4Addr::LOCALHOST));
        let refuse = PeerCommand::RefuseOpen(forwarded.place.1, status, "no such port".into());
        forwarded.commands.push_or_stop(Command::Role(refuse));
        assert_eq!(two.failed().await, expected);
    }
}

#[tokio::test]
async fn an_attempt_that_is_given_up_is_given_up_at_the_peer() {
    let (mut one, _two, way) = pair().await;
    open(&way, 1);
    let place = one.forwarded().await.place;
    let cancel = PeerCommand::CancelOpen(AttemptId(1));
    way.commands.push_or_stop(Command::Role(cancel));
    assert!(matches!(one.told().await, FromPeers::GivenUp(given_up) if given_up == place));
}

#[tokio::test]
async fn who_is_not_who_it_says_carries_nothing() {
    let one = Bed::start(ONE, settings(ONE, &[], keys(KEY, None)));
    let peers = [(ONE, one.address()), (NodeId(3), one.address())];
    let cases = [
        // Another key; and the right one, at the address of another node.
        (TWO, ONE, settings(TWO, &peers, keys(OTHER_KEY, None))),
        (TWO, NodeId(3), settings(TWO, &peers, keys(KEY, None))),
        // The header's sender is not whom the handshake has verified.
        (NodeId(3), ONE, settings(TWO, &peers, keys(KEY, None))),
    ];
    for (from, to, settings) in cases {
        let mut two = Bed::start(from, settings);
        let (_, way) = two.up(to).await;
        open(&way, 1);
        let cause = two.failed().await;
        assert_eq!(cause, AttemptError::PeerLost, "{from} {to}");
    }
    assert!(one.batch.is_empty() && one.inputs_are_empty());
}

#[tokio::test]
async fn a_peer_that_does_not_seal_is_not_heard() {
    let mut one = Bed::start(ONE, settings(ONE, &[], keys(KEY, None)));
    let roster = [ONE, TWO].map(|node| (replica_of(node).unwrap(), Seal::Never));
    let roster: Roster = roster.into_iter().collect();
    let own = replica_of(TWO).unwrap();
    let bare = Config::new(ClusterId::of("c"), own, roster, Some(keys(KEY, None))).unwrap();
    let bare = Replica::new(bare.with_dialling(Dialling::Either), Slots::default());
    let addr = one.links.local_addr();
    // To the end that does not seal, the handshake is over.
    let link = crate::replica::dial(&bare, addr, replica_of(ONE).unwrap()).await;
    let socket: StdStream = link.unwrap().into_socket().unwrap();
    let Socket::Tcp(socket) = Socket::from(socket) else {
        unreachable!("a TCP connection")
    };
    let mut socket = tokio::net::TcpStream::from_std(socket).unwrap();
    socket
        .write_all(&forward(TWO, ONE).to_record())
        .await
        .unwrap();
    let mut came = Vec::new();
    let read = timeout(SOON, socket.read_to_end(&mut came)).await.unwrap();
    // The other end's confirmation at most, and then its end.
    assert!(read.is_err() || came.len() <= 20, "{came:?}");
    assert!(one.batch.pop_front().is_none() && one.inputs_are_empty());
}

#[tokio::test]
async fn keys_are_exchanged_while_sessions_come_and_go() {
    let (mut one, mut two, way) = pair().await;
    let (mut old_user, mut old_agent, _) = session(&mut one, &mut two, &way).await;
    assert_eq!(read(&mut old_agent, 6).await, b"early ");
    let to_one = [(ONE, one.address())];
    let steps = [
        keys(KEY, Some(OTHER_KEY)),
        keys(OTHER_KEY, Some(KEY)),
        keys(OTHER_KEY, None),
    ];
    for step in steps {
        for at_one in [true, false] {
            match at_one {
                true => one
                    .links
                    .handle()
                    .configure(settings(ONE, &[], step.clone())),
                false => two
                    .links
                    .handle()
                    .configure(settings(TWO, &to_one, step.clone())),
            }
            let (mut user, mut agent, _) = session(&mut one, &mut two, &way).await;
            assert_eq!(read(&mut agent, 6).await, b"early ");
            drop(agent);
            read_end(&mut user).await.unwrap_err();
            two.over().await;
            old_user.write_all(b"on").await.unwrap();
            assert_eq!(read(&mut old_agent, 2).await, b"on");
        }
    }
}

#[tokio::test]
async fn a_peer_that_goes_and_comes_is_told_of() {
    let (mut one, mut two, way) = pair().await;
    let notice = |two: &Bed, reach| {
        two.notices.push_or_stop(LinkNotice { node: ONE, reach });
    };
    notice(&two, Reach::Suspect);
    assert!(matches!(two.event().await, AgentEvent::Suspect));
    notice(&two, Reach::Up);
    assert!(matches!(two.event().await, AgentEvent::Recovered));
    // Links reach it although no call does: what it carries goes on.
    let (mut user, mut agent, _) = session(&mut one, &mut two, &way).await;
    notice(&two, Reach::Down);
    assert!(matches!(two.event().await, AgentEvent::Suspect));
    assert_eq!(read(&mut agent, 6).await, b"early ");
    agent.write_all(b"on").await.unwrap();
    assert_eq!(read(&mut user, 2).await, b"on");
    // Neither a call nor a link reaches it.
    one.links
        .handle()
        .configure(settings(ONE, &[], keys(OTHER_KEY, None)));
    notice(&two, Reach::Down);
    assert!(matches!(two.event().await, AgentEvent::Suspect));
    read_end(&mut user).await.unwrap_err();
    read_end(&mut agent).await.unwrap_err();
    assert_eq!(two.over().await.2, Over::ConnectionLost);
}

#[tokio::test]
async fn a_peer_that_is_removed_carries_nothing_and_brings_nothing() {
    for removed_by_user in [true, false] {
        let (mut one, mut two, way) = pair().await;
        let (mut user, mut agent, _) = session(&mut one, &mut two, &way).await;
        assert_eq!(read(&mut agent, 6).await, b"early ");
        let key = || keys(KEY, None);
        match removed_by_user {
            true => two.links.handle().configure(settings(TWO, &[], key())),
            false => {
                let to_two = [(TWO, two.address())];
                one.links.handle().configure(settings(ONE, &to_two, key()));
                one.links.handle().configure(settings(ONE, &[], key()));
            }
        }
        read_end(&mut user).await.unwrap_err();
        read_end(&mut agent).await.unwrap_err();
        let (_, _, how) = two.over().await;
        match removed_by_user {
            true => {
                assert_eq!(how, Over::ConnectionLost);
                assert!(matches!(two.event().await, AgentEvent::Closed));
            }
            false => assert_eq!(how, Over::PeerReset),
        }
    }
}

#[tokio::test]
async fn bytes_are_told_while_a_session_goes_on() {
    let (mut one, mut two, way) = pair().await;
    let (mut user, mut agent, slot) = session(&mut one, &mut two, &way).await;
    assert_eq!(read(&mut agent, 6).await, b"early ");
    agent.write_all(b"answer!").await.unwrap();
    assert_eq!(read(&mut user, 7).await, b"answer!");
    let (reply, glance) = futures_channel::oneshot::channel();
    way.commands.push_or_stop(Command::Look(reply));
    let glance = timeout(SOON, glance).await.unwrap().unwrap();
    assert_eq!(glance.moved[&slot], (6, 7));
}

#[tokio::test]
async fn many_sessions_that_begin_at_once_wait_for_each_other_and_all_come() {
    let (mut one, mut two, way) = pair().await;
    let agents = async {
        let mut pipes = Vec::new();
        for _ in 0..MANY {
            let (agent, near) = Pipe::pair();
            accept(&one.forwarded().await, near);
            pipes.push(agent);
        }
        pipes
    };
    let opened = async {
        (0..MANY).for_each(|attempt| open(&way, attempt));
        for _ in 0..MANY {
            let event = two.event().await;
            assert!(matches!(event, AgentEvent::Opened { .. }), "{event:?}");
        }
    };
    tokio::join!(agents, opened);
}

/// More than an acceptor has places for handshakes of one source, and in all.
const MANY: u64 = 300;
