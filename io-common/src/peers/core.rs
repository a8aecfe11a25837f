//! The one owner of the pool: callers' wishes in, commands to connections out.

mod catalogue;
mod dials;
mod forwards;
mod list;
mod tell;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto_core::{
    close::Closed,
    connection::Connection,
    endpoint::Endpoint,
    env::Env,
    id::{CallId, ConnId},
    link::tls::TlsError,
    output::Event,
    peer::{
        NodeId, PeerClose,
        capabilities::Capabilities,
        catalogue::Lane,
        event::PeerEvent,
        ledger::PeerLedger,
        negotiate::Agreed,
        node::{CallError, DialId, Node, NodeStep, Reach},
    },
    target::Target,
};
use bytes::Bytes;
use futures_channel::oneshot;

use self::{catalogue::Told, forwards::Forwards, tell::Teller};
use super::{
    LinkNotice, PeerLinks, PeersConfig, PeersInput, Requests,
    handle::{Calls, PeersHandle},
    request::requests,
    role::{PeerCommand, PeerParts},
    shares::Shares,
};
use crate::{
    commands::Command,
    handoff::Sender,
    resolver::{GATEWAYS_MAX, Lookup, Resolver},
};

/// What the owner needs of its driver.
pub trait PeersHost {
    /// The endpoint of its socket.
    fn endpoint(&mut self) -> &mut Endpoint;

    /// Carries a connection that the endpoint began, with a role of these parts.
    fn carry(&mut self, now: Instant, conn: Connection, parts: &PeerParts);

    /// Gives a command to a connection; one that has ended needs none.
    fn command(&mut self, now: Instant, conn: ConnId, command: Command<PeerCommand>);

    /// Gives a command to every connection.
    fn command_all(&mut self, now: Instant, make: &dyn Fn() -> Command<PeerCommand>);

    /// Accepts nothing any more, and ends once no connection is left.
    fn stop(&mut self);
}

/// Whoever waits for a call.
struct Caller {
    node: NodeId,
    whose: Whose,
}

enum Whose {
    /// The number is that by which the call is given up.
    Application(u64, oneshot::Sender<Result<Bytes, CallError>>),
    Catalogue(Lane),
}

/// A connection whose version handshake is over.
struct Link {
    agreed: Agreed,
    /// Whose certificate it has, where records say.
    shown: Option<NodeId>,
    /// Who asks on it, where a peer dialled it and has asked.
    caller: Option<NodeId>,
    /// A call of this node was answered on it.
    is_answered: bool,
}

/// Keeps connections to other nodes, and makes the calls on them.
pub struct PeersCore {
    pub(super) pool: Node,
    parts: PeerParts,
    ledger: Arc<PeerLedger>,
    env: Env,
    /// The socket is an IPv6 one that also takes IPv4.
    dual_stack: bool,
    names: Resolver,
    lookups: BTreeMap<DialId, (Option<NodeId>, u16, Lookup)>,
    callers: BTreeMap<CallId, Caller>,
    numbers: BTreeMap<u64, CallId>,
    links: BTreeMap<ConnId, Link>,
    pub(super) calls: BTreeMap<NodeId, Calls>,
    pub(super) told: Option<Told>,
    forwards: Forwards,
    replica_links: Option<PeerLinks>,
    /// Where, and by which connection, nodes were dialled last.
    dialled: BTreeMap<NodeId, (SocketAddr, ConnId)>,
    /// How often each node's name was resolved: each dial takes the next of its addresses.
    turns: BTreeMap<NodeId, usize>,
    /// Why the last handshake or call with each node came to nothing, until one has come to something.
    refusals: BTreeMap<NodeId, String>,
    stopping: bool,
    teller: Teller,
    /// Requests end with it.
    _end: oneshot::Sender<()>,
}

impl PeersCore {
    /// Makes the owner with its endpoint, the way to it, and what peers ask. `local` is the address of the socket, and
    /// `own` the way to the owner.
    ///
    /// # Errors
    /// [`TlsError`] where certificates or keys are of no use.
    pub fn new(
        now: Instant,
        config: PeersConfig,
        env: Env,
        local: SocketAddr,
        own: Sender<PeersInput>,
    ) -> Result<(Self, Endpoint, PeersHandle, Requests), TlsError> {
        let endpoint = Endpoint::peer(&config.config, &config.security, config.limits, &env)?;
        let (asked, end, requests) = requests();
        let ledger = config.config.ledger;
        let handle = PeersHandle::new(own.clone(), Arc::clone(&ledger));
        let catalogue = config.catalogue.as_ref();
        let gateway = catalogue.map(|config| (config.local, config.gateway.clone()));
        let told = config.catalogue.map(|config| Told::new(now, config, &own));
        let mut core = Self {
            told,
            forwards: Forwards::default(),
            replica_links: config.links,
            dialled: BTreeMap::new(),
            turns: BTreeMap::new(),
            refusals: BTreeMap::new(),
            stopping: false,
            pool: Node::new(config.breaker, &env.seed),
            parts: PeerParts {
                owner: own,
                requests: asked,
                shares: Shares::default(),
                gateway,
            },
            ledger,
            env,
            dual_stack: local.is_ipv6(),
            names: Resolver::new(GATEWAYS_MAX),
            lookups: BTreeMap::new(),
            callers: BTreeMap::new(),
            numbers: BTreeMap::new(),
            links: BTreeMap::new(),
            calls: BTreeMap::new(),
            teller: Teller::default(),
            _end: end,
        };
        for (node, address) in config.peers {
            core.set_peer(now, node, address);
        }
        Ok((core, endpoint, handle, requests))
    }

    /// What the roles of connections that peers begin are made of.
    #[must_use]
    pub fn parts(&self) -> &PeerParts {
        &self.parts
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let lookups = self.lookups.values();
        let waits = lookups.filter_map(|(_, _, lookup)| lookup.waits_until());
        let told = self.told.as_ref().and_then(Told::poll_timeout);
        let forwards = self.forwards_timeout();
        waits
            .chain(self.pool.poll_timeout())
            .chain(told)
            .chain(forwards)
            .min()
    }

    /// A time may be over.
    pub fn handle_timeout(&mut self, now: Instant, host: &mut impl PeersHost) {
        let is_due = |lookup: &Lookup| lookup.waits_until().is_some_and(|at| at <= now);
        let lookups = self.lookups.iter();
        let busy = lookups.filter_map(|(dial, (_, _, lookup))| is_due(lookup).then_some(*dial));
        for dial in busy.collect::<Vec<_>>() {
            self.lookups.remove(&dial);
            self.pool.handle_dialled(now, dial, None);
        }
        self.pool.handle_timeout(now);
        self.catalogue_timeout(now);
        self.teller.disbelief(now, &self.ledger.disbelief());
        self.perform(now, host);
    }

    /// Takes what has come.
    pub fn take(&mut self, now: Instant, input: PeersInput, host: &mut impl PeersHost) {
        match input {
            PeersInput::Call {
                number,
                node,
                kind,
                payload,
                reply,
            } => {
                let call = self.pool.call(now, node, kind, payload);
                self.numbers.insert(number, call);
                let whose = Whose::Application(number, reply);
                self.callers.insert(call, Caller { node, whose });
            }
            PeersInput::GiveUp(number) => {
                if let Some(call) = self.numbers.remove(&number) {
                    self.callers.remove(&call);
                    self.pool.cancel(now, call);
                }
            }
            PeersInput::Warm(node) => self.pool.warm(now, node),
            PeersInput::SetPeers(peers, reply) => {
                self.set_peers(now, peers, host);
                // Whoever asked may have gone; what was changed stays changed.
                let _gone = reply.send(());
            }
            PeersInput::SetLinks(nodes) => {
                if let Some(links) = &mut self.replica_links {
                    links.nodes = nodes;
                }
            }
            PeersInput::SetSecurity(security, reply) => {
                let set = host.endpoint().set_peer_security(&security, &self.env);
                let set = set.map(|standing| {
                    host.command_all(now, &|| {
                        Command::Role(PeerCommand::Reconsider(standing.clone()))
                    });
                });
                let _gone = reply.send(set.map_err(Into::into));
            }
            PeersInput::List(reply) => drop(reply.send(self.list(now, host))),
            PeersInput::Event(conn, event) => self.event(now, conn, event),
            PeersInput::Abandoned(conn) => self.pool.handle_abandoned(now, conn),
            PeersInput::Refused(conn, call, refused) => {
                self.pool.handle_refused(now, conn, call, refused);
            }
            PeersInput::Caller(conn, node) => {
                if let Some(link) = self.links.get_mut(&conn) {
                    link.caller = Some(node);
                }
            }
            PeersInput::Told(request) => self.told(now, request),
            PeersInput::Taken(peer) => self.taken(peer),
            PeersInput::HoldingChanged => {
                if let Some(told) = &mut self.told {
                    told.machine.handle_changed(now);
                }
            }
            PeersInput::Holding(holding) => {
                if let Some(told) = &mut self.told {
                    told.machine.set_local(now, holding);
                }
            }
            PeersInput::EpochLifted(peer, lifted) => self.epoch_lifted(now, peer, lifted),
            PeersInput::Resolved(dial, found) => self.resolved(now, dial, &found, host),
            PeersInput::Stop(grace) => self.stop(now, grace, host),
        }
        self.perform(now, host);
    }

    fn set_peer(&mut self, now: Instant, node: NodeId, address: Target) {
        self.heed_address(node, &address);
        self.pool.set_peer(now, node, address);
        self.calls.entry(node).or_default();
        if let Some(told) = &mut self.told {
            told.machine.add_peer(node);
        }
    }

    /// A node that is not named any more is forgotten at once, whoever dialled the connection to it.
    fn set_peers(&mut self, now: Instant, peers: Vec<(NodeId, Target)>, host: &mut impl PeersHost) {
        let stays = |node: &NodeId| peers.iter().any(|(peer, _)| peer == node);
        let gone: Vec<NodeId> = self.calls.keys().copied().filter(|n| !stays(n)).collect();
        for node in gone {
            self.pool.remove_peer(node);
            self.ledger.forget(node);
            self.calls.remove(&node);
            self.dialled.remove(&node);
            self.turns.remove(&node);
            self.refusals.remove(&node);
            self.teller.forget(node);
            self.end_forwards(now, node, host);
            self.untell(now, node);
            if let Some(told) = &mut self.told {
                told.machine.remove_peer(node);
            }
            for (conn, _) in self.links.iter().filter(|(_, l)| l.caller == Some(node)) {
                host.command(
                    now,
                    *conn,
                    Command::Role(PeerCommand::Drain(Duration::ZERO)),
                );
            }
        }
        for (node, address) in peers {
            self.set_peer(now, node, address);
        }
    }

    fn event(&mut self, now: Instant, conn: ConnId, event: Event) {
        if let Event::Peer(PeerEvent::Up { node, agreed }) = &event {
            let (agreed, shown, caller) = (*agreed, *node, None);
            self.teller.up(conn, shown, agreed);
            let link = Link {
                agreed,
                shown,
                caller,
                is_answered: false,
            };
            self.links.insert(conn, link);
        } else if let Event::Peer(PeerEvent::ForwardUp { node, .. }) = &event {
            self.teller.forward_up(conn, *node);
            self.forwards.up(now, conn, *node);
        } else if let Event::Closed(why) = &event {
            self.closed(now, conn, why);
        } else if let Event::Peer(PeerEvent::Answered { outcome: Ok(_), .. }) = &event
            && let Some(link) = self.links.get_mut(&conn)
        {
            link.is_answered = true;
        }
        self.pool.handle_event(now, conn, event);
    }

    fn closed(&mut self, now: Instant, conn: ConnId, why: &Closed) {
        if self.forward_closed(now, conn, why) {
            return;
        }
        let node = self.pool.node_of(conn);
        // A peer that believes nothing of what this node says closes with the same code, and does not leave.
        let is_answered = self.links.get(&conn).is_some_and(|link| link.is_answered);
        if let (Some(told), Some(node), Closed::ByPeer(close)) = (&mut self.told, node, why)
            && is_answered
            && close.code == u64::from(PeerClose::Shutdown.code())
        {
            told.machine.handle_goodbye(node);
        }
        match self.links.remove(&conn) {
            Some(link) => {
                let peer = node.or(link.caller).or(link.shown);
                self.teller.closed(conn, peer, why);
            }
            None => {
                let dialled = self.dialling(conn);
                if let Some(node) = dialled {
                    self.refusals.insert(node, why.to_string());
                }
                self.teller.failed(now, conn, node.or(dialled), why);
            }
        }
    }

    fn stop(&mut self, now: Instant, grace: Duration, host: &mut impl PeersHost) {
        if !std::mem::replace(&mut self.stopping, true) {
            self.say_goodbye(now);
            // Before the connections are told that nothing more is to be sent on them.
            self.perform(now, host);
        }
        self.lookups.clear();
        self.pool.stop(grace);
        // The pool knows none of those that are still in their handshake.
        host.command_all(now, &|| Command::Role(PeerCommand::Drain(grace)));
        host.stop();
    }

    fn perform(&mut self, now: Instant, host: &mut impl PeersHost) {
        loop {
            self.perform_pool(now, host);
            if !self.perform_catalogue(now) {
                return self.keep_forwards(now, host);
            }
        }
    }

    fn perform_pool(&mut self, now: Instant, host: &mut impl PeersHost) {
        while let Some(step) = self.pool.poll_step() {
            match step {
                NodeStep::Dial {
                    dial,
                    node,
                    address,
                } => self.dial(now, (dial, node), address, host),
                NodeStep::Call {
                    conn,
                    call,
                    kind,
                    payload,
                } => {
                    let call = PeerCommand::Call {
                        call,
                        kind,
                        payload,
                    };
                    host.command(now, conn, Command::Role(call));
                }
                NodeStep::Cancel { conn, call } => {
                    host.command(now, conn, Command::Role(PeerCommand::Cancel(call)));
                }
                NodeStep::Close(conn, reason) => host.command(now, conn, Command::Close(reason)),
                NodeStep::Drain(conn, grace) => {
                    host.command(now, conn, Command::Role(PeerCommand::Drain(grace)));
                }
                NodeStep::Answered { call, outcome } => self.answered(now, call, outcome),
                NodeStep::Reach(node, reach) => self.reached(now, node, reach),
                // Requests go straight to the application.
                NodeStep::Requested { .. } | NodeStep::GivenUp(..) => {}
            }
        }
    }

    fn reached(&mut self, now: Instant, node: NodeId, reach: Reach) {
        self.teller.reach(node, reach);
        if reach == Reach::Up {
            self.refusals.remove(&node);
        }
        if let Some(notices) = PeerLinks::with(self.replica_links.as_ref(), node) {
            notices.push_or_stop(LinkNotice { node, reach });
        } else if reach == Reach::Up
            && let Some((addr, _)) = self.dialled.get(&node)
        {
            self.forwards.reached(now, node, *addr);
        }
        if reach == Reach::Down {
            self.untell(now, node);
        }
        let is_told = reach == Reach::Up && self.knows_catalogue(node);
        if let Some(told) = &mut self.told {
            match is_told {
                true => told.machine.handle_up(now, node),
                false => told.machine.handle_down(node),
            }
        }
    }

    /// Tells whether the node at the other end is adit's: a reference node agrees on nothing, does not know the calls, and its
    /// silence would count against it.
    fn knows_catalogue(&self, node: NodeId) -> bool {
        let conn = self.pool.connection(node);
        let link = conn.and_then(|conn| self.links.get(&conn));
        link.is_some_and(|link| link.agreed.capabilities != Capabilities::NONE)
    }

    fn answered(&mut self, now: Instant, call: CallId, outcome: Result<Bytes, CallError>) {
        let Some(Caller { node, whose }) = self.callers.remove(&call) else {
            return;
        };
        self.note_outcome(node, &outcome);
        let (number, reply) = match whose {
            Whose::Application(number, reply) => (number, reply),
            Whose::Catalogue(lane) => return self.catalogue_answered(now, node, lane, outcome),
        };
        self.numbers.remove(&number);
        if let Some(calls) = self.calls.get_mut(&node) {
            match &outcome {
                Ok(_) => calls.answered += 1,
                Err(_) => calls.failed += 1,
            }
        }
        // Whoever called may have gone.
        let _gone = reply.send(outcome);
    }
}

impl fmt::Debug for PeersCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeersCore")
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}
