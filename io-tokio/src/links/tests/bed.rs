//! What the tests of links are played on.

use std::{collections::VecDeque, net::Ipv4Addr, sync::Arc, time::Duration};

use adit_io_common::{
    clock::system_env,
    commands::Command,
    gateway::{Bytes as MovedBytes, Forwarded, FromConnection, FromPeers, NodeInput, PeerCarriage},
    over::Over,
    peers::PeerCommand,
    socket::Carried,
};
use adit_proto_core::{
    gateway::{AttemptError, dispatch::AgentEvent},
    id::{AttemptId, ConnId, SessionId, Slot},
    limits::FORWARD_LINKS_MAX,
    peer::{forward::Forward, node::Reach},
    replica::{ClusterId, Dialling, Keys, ReplicaKey, Roster, Seal},
    session_timer::SessionBounds,
    target::Host,
};
use bytes::Bytes;
use tokio::{io::AsyncReadExt, time::timeout};
use uuid::Uuid;

use super::super::*;
use crate::pipe::Pipe;

pub(super) const KEY: &str = "0123456789abcdef0123456789abcdef";
pub(super) const OTHER_KEY: &str = "another key of thirty-two bytes.";
pub(super) const ONE: NodeId = NodeId(1);
pub(super) const TWO: NodeId = NodeId(2);
/// Nothing on loopback takes that long.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// One gateway, of which the test is the node.
pub(super) struct Bed {
    pub(super) links: Links,
    pub(super) notices: Sender<LinkNotice>,
    pub(super) inputs: Receiver<NodeInput>,
    pub(super) batch: VecDeque<NodeInput>,
}

impl Bed {
    pub(super) fn start(local: NodeId, settings: LinkSettings) -> Self {
        Self::bounded(local, settings, FORWARD_LINKS_MAX)
    }

    /// One that has so many links at most in each direction.
    pub(super) fn bounded(local: NodeId, settings: LinkSettings, max_links: usize) -> Self {
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
            max_links,
        });
        Self {
            links: links.unwrap(),
            notices,
            inputs,
            batch: VecDeque::new(),
        }
    }

    /// What the gateway is told next.
    pub(super) async fn next(&mut self) -> NodeInput {
        if self.batch.is_empty() {
            let taken = timeout(SOON, self.inputs.take(&mut self.batch));
            taken.await.expect("the gateway is told something");
        }
        self.batch.pop_front().unwrap()
    }

    pub(super) async fn told(&mut self) -> FromPeers {
        let NodeInput::Peers(told) = self.next().await else {
            panic!("of something else");
        };
        told
    }

    pub(super) async fn event(&mut self) -> AgentEvent {
        let NodeInput::Connection(_, FromConnection::Event(event)) = self.next().await else {
            panic!("no event");
        };
        event
    }

    pub(super) async fn forwarded(&mut self) -> Forwarded {
        let FromPeers::Forwarded(forwarded) = self.told().await else {
            panic!("no session");
        };
        forwarded
    }

    /// How the session at a slot ended.
    pub(super) async fn over(&mut self) -> (u64, u64, Over) {
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
    pub(super) async fn up(&mut self, node: NodeId) -> (ConnId, PeerCarriage) {
        self.notices.push_or_stop(LinkNotice {
            node,
            reach: Reach::Up,
        });
        self.connected().await
    }

    pub(super) async fn connected(&mut self) -> (ConnId, PeerCarriage) {
        let FromPeers::Connected(conn, carriage) = self.told().await else {
            panic!("no way");
        };
        (conn, carriage)
    }

    pub(super) async fn failed(&mut self) -> AttemptError {
        let failed = self.event().await;
        let AgentEvent::Failed { cause, .. } = failed else {
            panic!("{failed:?}");
        };
        cause
    }

    pub(super) fn address(&self) -> Target {
        let addr = self.links.local_addr();
        Target {
            host: Host::Ip(addr.ip()),
            port: addr.port(),
        }
    }
}

pub(super) fn settings(local: NodeId, peers: &[(NodeId, Target)], keys: Keys) -> LinkSettings {
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

pub(super) fn keys(current: &str, previous: Option<&str>) -> Keys {
    let key = |text: &str| ReplicaKey::new(text.as_bytes()).unwrap();
    Keys::new(key(current), previous.map(key)).unwrap()
}

pub(super) fn forward(from: NodeId, to: NodeId) -> Box<Forward> {
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
pub(super) async fn pair() -> (Bed, Bed, PeerCarriage) {
    let one = Bed::start(ONE, settings(ONE, &[], keys(KEY, None)));
    let to_one = [(ONE, one.address())];
    let mut two = Bed::start(TWO, settings(TWO, &to_one, keys(KEY, None)));
    let (_, way) = two.up(ONE).await;
    (one, two, way)
}

pub(super) fn open(way: &PeerCarriage, attempt: u64) {
    let open = PeerCommand::Open(AttemptId(attempt), forward(way.from, way.to));
    way.commands.push_or_stop(Command::Role(open));
}

/// Opens a session from the second gateway to the first; gives the user's and the agent's end.
pub(super) async fn session(
    one: &mut Bed,
    two: &mut Bed,
    way: &PeerCarriage,
) -> (Pipe, Pipe, Slot) {
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

pub(super) fn accept(forwarded: &Forwarded, pipe: Pipe) {
    let accept = PeerCommand::Accept(forwarded.place.1, Carried::new(pipe));
    forwarded.commands.push_or_stop(Command::Role(accept));
}

pub(super) async fn read(pipe: &mut Pipe, len: usize) -> Vec<u8> {
    let mut came = vec![0; len];
    let read = timeout(SOON, pipe.read_exact(&mut came)).await;
    read.unwrap().unwrap();
    came
}

pub(super) async fn read_end(pipe: &mut Pipe) -> io::Result<usize> {
    timeout(SOON, pipe.read(&mut [0])).await.unwrap()
}

impl Bed {
    pub(super) fn inputs_are_empty(&self) -> bool {
        let cx = std::task::Context::from_waker(std::task::Waker::noop());
        self.inputs
            .poll_take(&cx, &mut VecDeque::new())
            .is_pending()
    }
}
