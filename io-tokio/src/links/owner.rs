//! The one owner of all links: which session is where, and the way to each peer.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::Ipv6Addr,
    sync::Arc,
    time::Duration,
};

use adit_io_common::{
    commands::{COMMANDS_LEN, Command, Commands},
    gateway::{Bytes as Moved, FromConnection, FromPeers, GatewayHandle, PeerCarriage, Place},
    glance::Glance,
    handoff::{Receiver, Sender, handoff},
    lines::Lines,
    over::Over,
    peers::{LinkNotice, PeerCommand},
    pump::Traffic,
    replica::{Link, Replica},
};
use adit_proto_core::{
    gateway::{AttemptError, dispatch::AgentEvent},
    id::{AttemptId, ConnId, Slot},
    limits::{FORWARD_HANDSHAKES_MAX, FORWARD_LINKS_MAX},
    peer::{NodeId, forward::Forward, node::Reach},
    replica::Config,
    target::Target,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::{
    LinkSettings, LinksConfig,
    counters::Counters,
    node_of,
    opener::{Opening, Way},
    replica_of,
    session::{Control, Controls, controls},
    taker::{ODD, Taking},
};
use crate::replica::Acceptor;

/// Knows every link, and performs what the gateway asks of them. To the gateway, the way to a peer looks like one
/// connection, and each link like a place on it.
pub(super) struct Owner {
    local: NodeId,
    gateway: GatewayHandle,
    /// What `replica` and `acceptor` go by.
    config: Config,
    replica: Replica,
    acceptor: Acceptor,
    changes: Receiver<LinkSettings>,
    notices: Receiver<LinkNotice>,
    /// The way of the gateway's commands.
    own: Sender<(ConnId, Command<PeerCommand>)>,
    commands: Receiver<(ConnId, Command<PeerCommand>)>,
    peers: BTreeMap<NodeId, Peer>,
    ways: BTreeMap<ConnId, NodeId>,
    /// Ways of which the gateway is told the end with the end of their last session.
    closing: BTreeSet<ConnId>,
    sessions: BTreeMap<Place, Session>,
    attempts: BTreeMap<AttemptId, Place>,
    tasks: JoinSet<Ended>,
    next: (ConnId, Slot),
    /// Links that peers have dialled.
    taken: BTreeMap<Place, NodeId>,
    odd: Lines,
    counters: Arc<Counters>,
}

/// One peer.
struct Peer {
    address: Target,
    handshakes: Arc<Semaphore>,
    /// What the way to it is to the gateway, since it was reached first.
    conn: Option<ConnId>,
    /// No call reaches it.
    is_down: bool,
    /// Whether a link does is being tried.
    is_probed: bool,
}

/// One session.
struct Session {
    control: mpsc::Sender<Control>,
    moved: Arc<Moved>,
}

/// What has ended.
enum Ended {
    Session(Place, Option<AttemptId>),
    /// Whether a peer that no call reaches is reached by a link.
    Probe(NodeId, bool),
}

impl Owner {
    pub(super) fn new(
        config: LinksConfig,
        (replica, acceptor): (Replica, Acceptor),
        changes: Receiver<LinkSettings>,
        counters: &Arc<Counters>,
    ) -> Self {
        let (own, commands) = handoff(COMMANDS_LEN);
        let mut owner = Self {
            local: config.local,
            gateway: config.gateway,
            config: config.settings.replica,
            replica,
            acceptor,
            changes,
            notices: config.notices,
            own,
            commands,
            peers: BTreeMap::new(),
            ways: BTreeMap::new(),
            closing: BTreeSet::new(),
            sessions: BTreeMap::new(),
            attempts: BTreeMap::new(),
            tasks: JoinSet::new(),
            next: (ConnId(TAKEN.0 + 1), Slot(0)),
            taken: BTreeMap::new(),
            odd: Lines::new(ODD),
            counters: Arc::clone(counters),
        };
        owner.set_peers(config.settings.peers);
        owner
    }

    pub(super) async fn run(mut self) {
        let (mut changes, mut notices) = (VecDeque::new(), VecDeque::new());
        let mut commands = VecDeque::new();
        loop {
            tokio::select! {
                () = self.changes.take(&mut changes) => {
                    while let Some(settings) = changes.pop_front() {
                        self.configure(settings);
                    }
                }
                () = self.notices.take(&mut notices) => {
                    while let Some(notice) = notices.pop_front() {
                        self.noticed(notice);
                    }
                }
                () = self.commands.take(&mut commands) => {
                    while let Some((conn, command)) = commands.pop_front() {
                        self.command(conn, command);
                    }
                }
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(ended) => self.ended(ended),
                    Err(error) => tracing::error!(%error, "the task of a replica link panicked"),
                },
                link = self.acceptor.accept() => self.take(link),
            }
        }
    }

    fn configure(&mut self, settings: LinkSettings) {
        self.replica.set_config(settings.replica.clone());
        self.acceptor.set_config(settings.replica.clone());
        self.config = settings.replica;
        self.set_peers(settings.peers);
    }

    fn set_peers(&mut self, peers: BTreeMap<NodeId, Target>) {
        let known: Vec<NodeId> = self.peers.keys().copied().collect();
        for gone in known.into_iter().filter(|node| !peers.contains_key(node)) {
            self.cut(gone);
            if let Some(conn) = self.peers.remove(&gone).and_then(|peer| peer.conn) {
                self.close(conn);
            }
        }
        for (node, address) in peers {
            if let Some(known) = self.peers.get_mut(&node) {
                known.address = address;
                continue;
            }
            let peer = Peer {
                address,
                handshakes: Arc::new(Semaphore::new(FORWARD_HANDSHAKES_MAX)),
                conn: None,
                is_down: false,
                is_probed: false,
            };
            self.peers.insert(node, peer);
        }
    }

    fn noticed(&mut self, notice: LinkNotice) {
        let LinkNotice { node, reach } = notice;
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.is_down = reach == Reach::Down;
        }
        match reach {
            Reach::Up => return self.up(node),
            Reach::Suspect => {}
            Reach::Down => self.probe(node, Duration::ZERO),
        }
        if let Some(conn) = self.conn_of(node) {
            self.tell(conn, AgentEvent::Suspect);
        }
    }

    fn conn_of(&self, node: NodeId) -> Option<ConnId> {
        self.peers.get(&node)?.conn
    }

    /// Calls reach a peer, so sessions may go there.
    fn up(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if let Some(conn) = peer.conn {
            return self.tell(conn, AgentEvent::Recovered);
        }
        let conn = self.next.0;
        self.next.0 = ConnId(conn.0 + 1);
        peer.conn = Some(conn);
        self.ways.insert(conn, node);
        let carriage = PeerCarriage {
            from: self.local,
            to: node,
            commands: Commands::Shared(conn, self.own.clone()),
        };
        self.gateway
            .told_by_peers(FromPeers::Connected(conn, carriage));
    }

    /// No call reaches a peer. Where no link does, either, its sessions are lost: a machine that is gone says nothing of it,
    /// and TCP would take minutes.
    fn probe(&mut self, node: NodeId, pause: Duration) {
        let has_sessions = self.with(node).next().is_some();
        let Some(way) = self.way(node).filter(|_| has_sessions) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| !peer.is_probed) else {
            return;
        };
        peer.is_probed = true;
        self.tasks.spawn(async move {
            tokio::time::sleep(pause).await;
            Ended::Probe(node, way.dial().await.is_ok())
        });
    }

    /// Cuts the sessions of a peer that a link does not reach, either, unless calls reach it by now.
    fn probed(&mut self, node: NodeId, is_reached: bool) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.is_probed = false;
        match (peer.is_down, is_reached) {
            (true, true) => self.probe(node, PROBE_PAUSE),
            (true, false) => self.cut(node),
            (false, _) => {}
        }
    }

    fn way(&self, node: NodeId) -> Option<Way> {
        let peer = self.peers.get(&node)?;
        Some(Way {
            replica: self.replica.clone(),
            peer: replica_of(node)?,
            address: peer.address.clone(),
            handshakes: Arc::clone(&peer.handshakes),
        })
    }

    fn tell(&self, conn: ConnId, event: AgentEvent) {
        (self.gateway).told_by_connection(conn, FromConnection::Event(event));
    }

    fn command(&mut self, conn: ConnId, command: Command<PeerCommand>) {
        match command {
            Command::Close(_) | Command::Stop(_) | Command::Farewell(_) => self.close(conn),
            Command::Attach(slot, socket, early, bounds) => {
                let attach = Control::Attach(socket, early, bounds);
                let session = self.sessions.get(&(conn, slot));
                if !session.is_some_and(|session| session.tell(attach)) {
                    self.tell_lost(conn, slot);
                }
            }
            Command::Discard(slot) => self.control((conn, slot), Control::End(Over::Cut)),
            Command::Kill(slot) => self.control((conn, slot), Control::End(Over::Killed)),
            // Whoever asked may have gone; then nobody needs the answer.
            Command::Look(reply) => drop(reply.send(self.glance(conn))),
            Command::Role(PeerCommand::Open(attempt, forward)) => {
                self.open(conn, attempt, forward);
            }
            Command::Role(PeerCommand::CancelOpen(attempt)) => {
                if let Some(place) = self.attempts.remove(&attempt) {
                    self.sessions.remove(&place);
                }
            }
            Command::Role(PeerCommand::Accept(slot, pipe)) => {
                self.control((conn, slot), Control::Accept(pipe));
            }
            Command::Role(PeerCommand::RefuseOpen(slot, status, reason)) => {
                self.control((conn, slot), Control::Refuse(status, reason));
            }
            // Of calls.
            Command::Role(
                PeerCommand::Call { .. }
                | PeerCommand::Cancel(_)
                | PeerCommand::Answer(..)
                | PeerCommand::Fail(_)
                | PeerCommand::Refuse(..)
                | PeerCommand::Reconsider(_)
                | PeerCommand::Drain(_),
            ) => {}
        }
    }

    fn control(&self, place: Place, control: Control) {
        if let Some(session) = self.sessions.get(&place) {
            let _taken = session.tell(control);
        }
    }

    /// What the sessions of a way have moved. The way is no connection, and has neither an address nor a round-trip time.
    fn glance(&self, conn: ConnId) -> Glance {
        let of_it = self.sessions.iter().filter(|((of, _), _)| *of == conn);
        let moved = of_it.map(|((_, slot), session)| (*slot, session.moved.read()));
        Glance {
            remote: (Ipv6Addr::UNSPECIFIED, 0).into(),
            rtt: Duration::ZERO,
            moved: moved.collect(),
        }
    }

    fn tell_lost(&self, conn: ConnId, slot: Slot) {
        let (traffic, how) = (Traffic::begin(), Over::ConnectionLost);
        let over = FromConnection::SessionOver { slot, traffic, how };
        self.gateway.told_by_connection(conn, over);
    }

    fn open(&mut self, conn: ConnId, attempt: AttemptId, forward: Box<Forward>) {
        let node = self.ways.get(&conn).copied();
        let way = node.and_then(|node| self.way(node));
        let cause = match way {
            _ if self.closing.contains(&conn) => AttemptError::ConnectionLost,
            None => AttemptError::ConnectionLost,
            Some(_) if self.sessions.len() - self.taken.len() >= FORWARD_LINKS_MAX => {
                AttemptError::NoCredit
            }
            Some(way) => {
                let (place, controls, moved) = self.begin(conn);
                self.attempts.insert(attempt, place);
                self.count();
                let opening = Opening {
                    gateway: self.gateway.clone(),
                    place,
                    attempt,
                    forward,
                    way,
                    moved,
                    counters: Arc::clone(&self.counters),
                };
                self.tasks.spawn(async move {
                    opening.run(controls).await;
                    Ended::Session(place, Some(attempt))
                });
                return;
            }
        };
        self.tell(conn, AgentEvent::Failed { attempt, cause });
    }

    fn take(&mut self, link: Link) {
        // Taken out while its handshake was under way.
        if !self.config.knows(link.replica()) {
            return;
        }
        if self.taken.len() >= FORWARD_LINKS_MAX {
            if self.odd.allow() {
                tracing::warn!(replica = %link.replica(), "{ODD}: there are {FORWARD_LINKS_MAX}");
            }
            return;
        }
        let (place, controls, _) = self.begin(TAKEN);
        self.taken.insert(place, node_of(link.replica()));
        self.count();
        let taking = Taking {
            gateway: self.gateway.clone(),
            place,
            local: self.local,
            commands: Commands::Shared(TAKEN, self.own.clone()),
            odd: self.odd.clone(),
        };
        self.tasks.spawn(async move {
            taking.run(link, controls).await;
            Ended::Session(place, None)
        });
    }

    fn count(&self) {
        let taken = self.taken.len();
        (self.counters).set_open(self.sessions.len().saturating_sub(taken), taken);
    }

    fn begin(&mut self, conn: ConnId) -> (Place, Controls, Arc<Moved>) {
        let place = (conn, self.next.1);
        self.next.1 = Slot(place.1.0 + 1);
        let ((control, controls), moved) = (controls(), Arc::<Moved>::default());
        let session = Session {
            control,
            moved: Arc::clone(&moved),
        };
        self.sessions.insert(place, session);
        (place, controls, moved)
    }

    fn of(&self, conn: ConnId) -> impl Iterator<Item = &Session> {
        let all = (conn, Slot(0))..=(conn, Slot(u64::MAX));
        self.sessions.range(all).map(|(_, session)| session)
    }

    /// All sessions with a peer, whoever has their users.
    fn with(&self, node: NodeId) -> impl Iterator<Item = &Session> {
        let peer = |place: &Place| self.ways.get(&place.0).or_else(|| self.taken.get(place));
        let of_it = self
            .sessions
            .iter()
            .filter(move |(p, _)| peer(p) == Some(&node));
        of_it.map(|(_, session)| session)
    }

    fn cut(&self, node: NodeId) {
        self.with(node).for_each(end);
    }

    /// Cuts what is carried on a way, and tells of its end once nothing is left.
    fn close(&mut self, conn: ConnId) {
        self.of(conn).for_each(end);
        if let Some(node) = self.ways.remove(&conn) {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.conn = None;
            }
            self.closing.insert(conn);
        }
        self.tell_closed(conn);
    }

    fn tell_closed(&mut self, conn: ConnId) {
        if self.of(conn).next().is_none() && self.closing.remove(&conn) {
            self.tell(conn, AgentEvent::Closed);
        }
    }

    fn ended(&mut self, ended: Ended) {
        match ended {
            Ended::Session(place, attempt) => {
                self.sessions.remove(&place);
                if let Some(attempt) = attempt {
                    self.attempts.remove(&attempt);
                }
                self.taken.remove(&place);
                self.count();
                self.tell_closed(place.0);
            }
            Ended::Probe(node, is_reached) => self.probed(node, is_reached),
        }
    }
}

impl Session {
    /// Tells whether it was taken. One that has ended needs no command, and drops a socket that comes with it, which resets
    /// that.
    fn tell(&self, control: Control) -> bool {
        self.control.try_send(control).is_ok()
    }
}

fn end(session: &Session) {
    session.tell(Control::End(Over::ConnectionLost));
}

/// What all links that peers have dialled are on, to the gateway. From here on ways to peers are numbered: the gateway
/// knows those of its endpoints, too, which are below.
const TAKEN: ConnId = ConnId(1 << 41);
/// Between two tries of a link to a peer that calls do not reach.
const PROBE_PAUSE: Duration = Duration::from_secs(5);
