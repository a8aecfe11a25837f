//! Two gateways' links, with the test in the place of both gateways.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, TcpStream as StdStream},
    sync::Arc,
    time::Duration,
};

use adit_io_common::{
    clock::system_env,
    commands::Command,
    gateway::{Bytes as MovedBytes, Forwarded, FromConnection, FromPeers, NodeInput, PeerCarriage},
    over::Over,
    peers::PeerCommand,
    socket::{Carried, Socket},
};
use adit_proto_core::{
    gateway::{AttemptError, dispatch::AgentEvent},
    id::{AttemptId, ConnId, SessionId, Slot},
    peer::{
        forward::{Forward, Status},
        node::Reach,
    },
    replica::{ClusterId, Dialling, Keys, ReplicaKey, Roster, Seal},
    session_timer::SessionBounds,
    target::Host,
};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use uuid::Uuid;

use super::*;
use crate::pipe::Pipe;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const OTHER_KEY: &str = "another key of thirty-two bytes.";
const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
/// Nothing on loopback takes that long.
const SOON: Duration = Duration::from_secs(10);

/// One gateway, of which the test is the node.
struct Bed {
    links: Links,
    notices: Sender<LinkNotice>,
    inputs: Receiver<NodeInput>,
    batch: VecDeque<NodeInput>,
}

impl Bed {
    fn start(local: NodeId, settings: LinkSettings) -> Self {
        let (node, inputs) = handoff(1_024);
        let (endpoint, _) = handoff(1);
        let env = system_env(None).unwrap();
        let gateway = GatewayHandle::new(node, endpoint, Arc::<MovedBytes>::default(), env);
        let (notices, told) = handoff(16);
        let links = Links::start(LinksConfig {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            local,
            settings,
            gateway,
            notices: told,
        });
        Self {
            links: links.unwrap(),
            notices,
            inputs,
            batch: VecDeque::new(),
        }
    }

    /// What the gateway is told next.
    async fn next(&mut self) -> NodeInput {
        if self.batch.is_empty() {
            let taken = timeout(SOON, self.inputs.take(&mut self.batch));
            taken.await.expect("the gateway is told something");
        }
        self.batch.pop_front().unwrap()
    }

    async fn told(&mut self) -> FromPeers {
        let NodeInput::Peers(told) = self.next().await else {
            panic!("of something else");
        };
        told
    }

    async fn event(&mut self) -> AgentEvent {
        let NodeInput::Connection(_, FromConnection::Event(event)) = self.next().await else {
            panic!("no event");
        };
        event
    }

    async fn forwarded(&mut self) -> Forwarded {
        let FromPeers::Forwarded(forwarded) = self.told().await else {
            panic!("no session");
        };
        forwarded
    }

    /// How the session at a slot ended.
    async fn over(&mut self) -> (u64, u64, Over) {
        let NodeInput::Connection(_, over) = self.next().await else {
            panic!("of something else");
        };
        let FromConnection::SessionOver { traffic, how, .. } = over else {
            panic!("{over:?}");
        };
        let over = (traffic.sent, traffic.received, how);
        assert!(matches!(
            self.event().await,
            AgentEvent::SessionEnded { .. }
        ));
        over
    }

    /// The way to a peer that calls have just reached.
    async fn up(&mut self, node: NodeId) -> (ConnId, PeerCarriage) {
        self.notices
            .push_or_stop(LinkNotice::Reach(node, Reach::Up));
        self.connected().await
    }

    async fn connected(&mut self) -> (ConnId, PeerCarriage) {
        let FromPeers::Connected(conn, carriage) = self.told().await else {
            panic!("no way");
        };
        (conn, carriage)
    }

    async fn failed(&mut self) -> AttemptError {
        let failed = self.event().await;
        let AgentEvent::Failed { cause, .. } = failed else {
            panic!("{failed:?}");
        };
        cause
    }

    fn address(&self) -> Target {
        let addr = self.links.local_addr();
        Target {
            host: Host::Ip(addr.ip()),
            port: addr.port(),
        }
    }
}

fn settings(local: NodeId, peers: &[(NodeId, Target)], keys: Keys) -> LinkSettings {
    let roster: Roster = [ONE, TWO, NodeId(3)]
        .iter()
        .map(|node| (replica_of(*node).unwrap(), Seal::Require))
        .collect();
    let own = replica_of(local).unwrap();
    let replica = Config::new(ClusterId::of("c"), own, roster, Some(keys)).unwrap();
    LinkSettings {
        replica: replica.with_dialling(Dialling::Either),
        peers: peers.iter().cloned().collect(),
    }
}

fn keys(current: &str, previous: Option<&str>) -> Keys {
    let key = |text: &str| ReplicaKey::new(text.as_bytes()).unwrap();
    Keys::new(key(current), previous.map(key)).unwrap()
}

fn forward(from: NodeId, to: NodeId) -> Box<Forward> {
    Box::new(Forward {
        from,
        to,
        session: SessionId(Uuid::from_u128(7)),
        agent: None,
        target: "db.x:5432".parse().unwrap(),
        origin: "192.0.2.7:50123".into(),
    })
}

/// Two gateways with one key; the second one's way to the first is there.
async fn pair() -> (Bed, Bed, PeerCarriage) {
    let one = Bed::start(ONE, settings(ONE, &[], keys(KEY, None)));
    let to_one = [(ONE, one.address())];
    let mut two = Bed::start(TWO, settings(TWO, &to_one, keys(KEY, None)));
    let (_, way) = two.up(ONE).await;
    (one, two, way)
}

fn open(way: &PeerCarriage, attempt: u64) {
    let open = PeerCommand::Open(AttemptId(attempt), forward(way.from, way.to));
    way.commands.push_or_stop(Command::Role(open));
}

/// Opens a session from the second gateway to the first; gives the user's and the agent's end.
async fn session(one: &mut Bed, two: &mut Bed, way: &PeerCarriage) -> (Pipe, Pipe, Slot) {
    open(way, 1);
    let forwarded = one.forwarded().await;
    let (agent, near) = Pipe::pair();
    accept(&forwarded, near);
    let opened = two.event().await;
    let AgentEvent::Opened { slot, attempt } = opened else {
        panic!("{opened:?}");
    };
    assert_eq!(attempt, AttemptId(1));
    let (user, far) = Pipe::pair();
    let bounds = SessionBounds::default();
    let attach = Command::Attach(
        slot,
        Carried::new(far),
        Bytes::from_static(b"early "),
        bounds,
    );
    way.commands.push_or_stop(attach);
    (user, agent, slot)
}

fn accept(forwarded: &Forwarded, pipe: Pipe) {
    let accept = PeerCommand::Accept(forwarded.place.1, Carried::new(pipe));
    forwarded.commands.push_or_stop(Command::Role(accept));
}

async fn read(pipe: &mut Pipe, len: usize) -> Vec<u8> {
    let mut came = vec![0; len];
    let read = timeout(SOON, pipe.read_exact(&mut came)).await;
    read.unwrap().unwrap();
    came
}

async fn read_end(pipe: &mut Pipe) -> io::Result<usize> {
    timeout(SOON, pipe.read(&mut [0])).await.unwrap()
}

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
    let stop = Command::Stop(adit_proto_core::close::CloseReason::GatewayStopping);
    way.commands.push_or_stop(stop);
    read_end(&mut user).await.unwrap_err();
    read_end(&mut agent).await.unwrap_err();
    assert_eq!(two.over().await.2, Over::ConnectionLost);
    assert!(matches!(two.event().await, AgentEvent::Closed));
    // What comes later is told that the way is there no more.
    open(&way, 2);
    assert_eq!(two.failed().await, AttemptError::ConnectionLost);
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
    assert_eq!(two.failed().await, AttemptError::ConnectionLost);
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
        assert_eq!(cause, AttemptError::ConnectionLost, "{from} {to}");
    }
    assert!(one.batch.is_empty() && one.inputs_are_empty());
}

impl Bed {
    fn inputs_are_empty(&self) -> bool {
        let cx = std::task::Context::from_waker(std::task::Waker::noop());
        self.inputs
            .poll_take(&cx, &mut VecDeque::new())
            .is_pending()
    }
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
        two.notices.push_or_stop(LinkNotice::Reach(ONE, reach));
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
    // Its next process knows nothing of what the former one carried.
    two.notices.push_or_stop(LinkNotice::Restarted(ONE));
    assert_eq!(two.connected().await.1.to, ONE);
    read_end(&mut user).await.unwrap_err();
    assert_eq!(two.over().await.2, Over::ConnectionLost);
    assert!(matches!(two.event().await, AgentEvent::Closed));
}
