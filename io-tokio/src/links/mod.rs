//! Sessions that are forwarded over replica links: one TCP connection for each (docs/protocol-peer.md, "Forwarded sessions
//! over a replica link").
//!
//! One owner knows the way to each peer and every session; each session is a task. They run on the present runtime,
//! whichever driver carries tunnels and calls: what they share with those are queues and pipes.

mod counters;
mod known;
mod link;
mod opener;
mod owner;
mod report;
mod session;
mod shares;
mod taker;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use adit_io_common::{
    gateway::GatewayHandle,
    handoff::{Receiver, Sender, handoff},
    peers::LinkNotice,
    replica::Replica,
};
use adit_proto_core::{
    limits::{FORWARD_HANDSHAKES_MAX, REPLICA_HANDSHAKES_MAX},
    peer::NodeId,
    replica::{Config, ReplicaId, Slots},
    target::Target,
};
use socket2::SockRef;
use tokio::{runtime::Handle, task::JoinHandle};

pub use self::counters::LinkCounts;
use self::{counters::Counters, owner::Owner};
use crate::replica::Acceptor;

/// What sessions are forwarded with over replica links.
#[derive(Debug)]
pub struct LinksConfig {
    /// TCP address for the links that peers dial.
    pub listen: SocketAddr,
    /// This node.
    pub local: NodeId,
    /// What may be exchanged later.
    pub settings: LinkSettings,
    /// Whose sessions they are.
    pub gateway: GatewayHandle,
    /// What is told of the peers.
    pub notices: Receiver<LinkNotice>,
    /// Links at most in each direction, with all peers together: [`FORWARD_LINKS_MAX`](adit_proto_core::limits::FORWARD_LINKS_MAX).
    pub max_links: usize,
}

/// What the links of a running gateway go by, and may be told anew.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// What the gateway brings to its handshakes: all links sealed, and either end dials.
    pub replica: Config,
    /// Where peers accept links. Each has an id that is a replica's, too.
    pub peers: BTreeMap<NodeId, Target>,
}

/// The replica links of a running gateway.
#[derive(Debug)]
pub struct Links {
    handle: LinksHandle,
    local_addr: SocketAddr,
    task: JoinHandle<()>,
}

/// The way to a gateway's replica links; cheap to clone.
#[derive(Clone, Debug)]
pub struct LinksHandle {
    settings: Sender<LinkSettings>,
    counters: Arc<Counters>,
}

impl Links {
    /// Starts on the present runtime, which carries all of it.
    ///
    /// # Errors
    /// The address is in use.
    pub fn start(config: LinksConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen)?;
        SockRef::from(&listener).listen(BACKLOG)?;
        let local_addr = listener.local_addr()?;
        // As many as four peers of one address have in progress.
        let slots = Slots::new(REPLICA_HANDSHAKES_MAX, 4 * FORWARD_HANDSHAKES_MAX);
        let replica = Replica::new(config.settings.replica.clone(), slots);
        let acceptor = Acceptor::new(replica.clone(), listener)?;
        let (settings, changes) = handoff(SETTINGS_LEN);
        let counters = Arc::<Counters>::default();
        let owner = Owner::new(config, (replica, acceptor), changes, &counters);
        Ok(Self {
            handle: LinksHandle { settings, counters },
            local_addr,
            task: Handle::current().spawn(owner.run()),
        })
    }

    /// The way in.
    #[must_use]
    pub fn handle(&self) -> LinksHandle {
        self.handle.clone()
    }

    /// The TCP address in use.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Waits for the end of a task that never ends by itself, and tells why it did. The process should end too.
    pub async fn failed(&mut self) -> io::Error {
        match (&mut self.task).await {
            Ok(()) => io::Error::other("stopped"),
            Err(error) => io::Error::other(error),
        }
    }
}

/// Sessions that there are then are cut.
impl Drop for Links {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl LinksHandle {
    /// Has links that begin from here on go by other settings. Those that there are go on, but for those with a peer that
    /// is there no more.
    pub fn configure(&self, settings: LinkSettings) {
        self.settings.push_or_stop(settings);
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> LinkCounts {
        self.counters.read()
    }
}

impl LinkSettings {
    /// The peers with which there are links.
    #[must_use]
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.peers.keys().copied().collect()
    }
}

/// The replica that a node is; none for one whose number is too high.
fn replica_of(node: NodeId) -> Option<ReplicaId> {
    u8::try_from(node.0).ok().map(ReplicaId)
}

fn node_of(replica: ReplicaId) -> NodeId {
    NodeId(replica.0.into())
}

/// Changes that wait; an operator makes them one by one.
const SETTINGS_LEN: usize = 64;
/// Connections that wait for accept: many sessions begin at once where a peer comes back. The standard library has 128.
const BACKLOG: i32 = 4_096;
