//! The one owner of all links: which session is where, and the way to each peer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::Ipv6Addr,
    ops::RangeInclusive,
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
    peer::{NodeId, forward::Forward, node::Reach},
    replica::Config,
    target::Target,
};
use tokio::task::{self, JoinSet};

use super::{
    LinkSettings, LinksConfig,
    counters::Counters,
    known::{Peer, Running, Session},
    node_of,
    opener::{NoLink, Opening, Way},
    replica_of,
    session::{Controls, Word, controls},
    shares::Shares,
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
    tasks: JoinSet<Option<NoLink>>,
    /// What each task is for: one that panics cannot tell.
    running: HashMap<task::Id, Running>,
    next: (ConnId, Slot),
    /// Places for links that peers dial.
    takes: Shares,
    /// Places for links that are dialled.
    opens: Shares,
    odd: Lines,
    counters: Arc<Counters>,
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
            running: HashMap::new(),
            next: (ConnId(TAKEN.0 + 1), Slot(0)),
            takes: Shares::new(config.max_links),
            opens: Shares::new(config.max_links),
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
                // Peers are told of before it is told that they are there.
                biased;
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
                Some(ended) = self.tasks.join_next_with_id() => match ended {
                    Ok((task, no_link)) => self.ended(task, no_link),
                    Err(error) => {
                        tracing::error!(
                            %error,
                            "the task of a replica link panicked, which ends its session: report this"
                        );
                        self.ended(error.id(), Some(NoLink::Untried));
                    }
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
        self.takes.share_out(&self.config);
        self.opens.share_out(&self.config);
        for (node, address) in peers {
            if let Some(known) = self.peers.get_mut(&node) {
                known.address = address;
                continue;
            }
            self.peers.insert(node, Peer::new(address));
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
        let has_sessions = self.sessions.values().any(|session| session.node == node);
        let Some(way) = self.way(node).filter(|_| has_sessions) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| !peer.is_probed) else {
            return;
        };
        peer.is_probed = true;
        self.spawn(Running::Probe(node, way.address.clone()), async move {
            tokio::time::sleep(pause).await;
            way.probe().await.err()
        });
    }

    /// A session begins. Where no call reaches its peer, nothing else tells of a machine that goes then.
    fn watch(&mut self, node: NodeId) {
        if self.peers.get(&node).is_some_and(|peer| peer.is_down) {
            self.probe(node, PROBE_PAUSE);
        }
    }

    fn spawn(
        &mut self,
        running: Running,
        task: impl Future<Output = Option<NoLink>> + Send + 'static,
    ) {
        let task = self.tasks.spawn(task);
        self.running.insert(task.id(), running);
    }

    /// Cuts the sessions of a peer that a link does not reach, either, unless calls reach it by now.
    fn probed(&mut self, node: NodeId, address: &Target, no_link: Option<NoLink>) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.is_probed = false;
        let no_link = match peer.address == *address {
            true => no_link,
            // The peer is elsewhere by now, so that nothing is known of it.
            false => Some(NoLink::Untried),
        };
        match no_link {
            _ if !peer.is_down => {}
            Some(NoLink::Unreached) => {
                tracing::warn!(%node, "neither calls nor replica links reach a peer; its sessions are ended");
                self.cut(node);
            }
            // It is there, or nothing is known of it.
            None | Some(NoLink::Untried) => self.probe(node, PROBE_PAUSE),
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
            // The gateway closes a way only when it leaves, so nothing brings it back but a peer that comes anew; such a way
            // is told to stop again.
            Command::Close(_) | Command::Stop(_) | Command::Farewell(_) => self.close(conn),
            Command::Attach(slot, socket, early, bounds) => {
                let attach = Word::Attach(socket, early, bounds);
                if !self.say((conn, slot), attach) {
                    self.tell_lost(conn, slot);
                }
            }
            Command::Discard(slot) => self.end((conn, slot), Over::Cut),
            Command::Kill(slot) => self.end((conn, slot), Over::Killed),
            // Whoever asked may have gone; then nobody needs the answer.
            Command::Look(reply) => drop(reply.send(self.glance(conn))),
            Command::Role(PeerCommand::Open(attempt, forward)) => {
                self.open(conn, attempt, forward);
            }
            Command::Role(PeerCommand::CancelOpen(attempt)) => {
                if let Some(place) = self.attempts.remove(&attempt) {
                    self.end(place, Over::Cut);
                }
            }
            Command::Role(PeerCommand::Accept(slot, pipe)) => {
                self.say((conn, slot), Word::Accept(pipe));
            }
            Command::Role(PeerCommand::RefuseOpen(slot, status, reason)) => {
                self.say((conn, slot), Word::Refuse(status, reason));
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

    /// Tells whether the session took it.
    fn say(&mut self, place: Place, word: Word) -> bool {
        let session = self.sessions.get_mut(&place);
        session.is_some_and(|session| session.control.tell(word))
    }

    /// A session is not wanted any more. It is known until its task has ended, and has told all of it.
    fn end(&mut self, place: Place, how: Over) {
        if let Some(session) = self.sessions.get_mut(&place) {
            session.control.end(how);
        }
    }

    /// What the sessions of a way have moved. The way is no connection, and has neither an address nor a round-trip time.
    fn glance(&self, conn: ConnId) -> Glance {
        let of_it = self.sessions.range(all_of(conn));
        let moved = of_it.map(|((_, slot), session)| (*slot, session.moved.read()));
        Glance {
            remote: (Ipv6Addr::UNSPECIFIED, 0).into(),
            rtt: Duration::ZERO,
            certificate_end: None,
            moved: moved.collect(),
        }
    }

    fn tell_lost(&self, conn: ConnId, slot: Slot) {
        let (traffic, how) = (Traffic::begin(), Over::ConnectionLost);
        let over = FromConnection::SessionOver { slot, traffic, how };
        self.gateway.told_by_connection(conn, over);
    }

    fn open(&mut self, conn: ConnId, attempt: AttemptId, forward: Box<Forward>) {
        // A way that is being closed is not known any more.
        let node = self.ways.get(&conn).copied();
        let way = node.and_then(|node| Some((node, self.way(node)?)));
        let cause = match way {
            None => AttemptError::PeerLost,
            Some((node, _)) if !self.opens.take(node) => AttemptError::NoCredit,
            Some((node, way)) => {
                let (place, controls, moved) = self.begin(conn, node);
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
                self.spawn(Running::Session(place, Some(attempt)), async move {
                    opening.run(controls).await;
                    None
                });
                self.watch(node);
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
        let node = node_of(link.replica());
        if !self.takes.take(node) {
            if self.odd.allow() {
                let taken = self.takes.taken();
                tracing::warn!(
                    %node, taken, max = self.takes.max(),
                    "{ODD}: this peer has its share of all links; see why it brings so many sessions"
                );
            }
            return;
        }
        let (place, controls, _) = self.begin(TAKEN, node);
        self.count();
        let taking = Taking {
            gateway: self.gateway.clone(),
            place,
            local: self.local,
            commands: Commands::Shared(TAKEN, self.own.clone()),
            odd: self.odd.clone(),
        };
        self.spawn(Running::Session(place, None), async move {
            taking.run(link, controls).await;
            None
        });
        self.watch(node);
    }

    fn count(&self) {
        (self.counters).set_open(self.opens.taken(), self.takes.taken());
    }

    fn begin(&mut self, conn: ConnId, node: NodeId) -> (Place, Controls, Arc<Moved>) {
        let place = (conn, self.next.1);
        self.next.1 = Slot(place.1.0 + 1);
        let ((control, controls), moved) = (controls(), Arc::<Moved>::default());
        let session = Session {
            node,
            control,
            moved: Arc::clone(&moved),
        };
        self.sessions.insert(place, session);
        (place, controls, moved)
    }

    /// Cuts all sessions with a peer, whoever has their users.
    fn cut(&mut self, node: NodeId) {
        let of_it = |session: &&mut Session| session.node == node;
        let sessions = self.sessions.values_mut().filter(of_it);
        sessions.for_each(|session| session.control.end(Over::ConnectionLost));
    }

    /// Cuts what is carried on a way, and tells of its end once nothing is left.
    fn close(&mut self, conn: ConnId) {
        let sessions = self.sessions.range_mut(all_of(conn));
        sessions.for_each(|(_, session)| session.control.end(Over::ConnectionLost));
        if let Some(node) = self.ways.remove(&conn) {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.conn = None;
            }
            self.closing.insert(conn);
        }
        self.tell_closed(conn);
    }

    fn tell_closed(&mut self, conn: ConnId) {
        if self.sessions.range(all_of(conn)).next().is_none() && self.closing.remove(&conn) {
            self.tell(conn, AgentEvent::Closed);
        }
    }

    fn ended(&mut self, task: task::Id, no_link: Option<NoLink>) {
        match self.running.remove(&task) {
            Some(Running::Session(place, attempt)) => {
                let session = self.sessions.remove(&place);
                if let Some(Session { node, .. }) = session {
                    match attempt {
                        Some(_) => self.opens.give_back(node),
                        None => self.takes.give_back(node),
                    }
                }
                if let Some(attempt) = attempt {
                    self.attempts.remove(&attempt);
                }
                self.count();
                self.tell_closed(place.0);
            }
            Some(Running::Probe(node, address)) => self.probed(node, &address, no_link),
            None => {}
        }
    }
}

fn all_of(conn: ConnId) -> RangeInclusive<Place> {
    (conn, Slot(0))..=(conn, Slot(u64::MAX))
}

/// What all links that peers have dialled are on, to the gateway. From here on ways to peers are numbered: the gateway
/// knows those of its endpoints, too, which are below.
const TAKEN: ConnId = ConnId(1 << 41);
/// Between two tries of a link to a peer that calls do not reach. Tests of sockets cannot make time pass.
const PROBE_PAUSE: Duration = match cfg!(test) {
    true => Duration::from_millis(100),
    false => Duration::from_secs(5),
};
