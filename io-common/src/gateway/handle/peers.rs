//! What a gateway and its connections to other gateways have to tell each other.

use std::sync::Arc;

use adit_proto_core::{
    id::ConnId,
    peer::{NodeId, catalogue::Holding},
};

use super::GatewayHandle;
use crate::gateway::input::{FromConnection, FromPeers, NodeInput};

impl GatewayHandle {
    /// Has `changed` called whenever what the gateway holds may be another set than before; it may not block. A later
    /// watch takes the place of this one.
    pub fn watch_holding(&self, changed: impl Fn() + Send + 'static) {
        self.told_by_peers(FromPeers::Watch(Box::new(changed)));
    }

    /// Has `done` told what the gateway holds itself; it may not block. A gateway that has stopped tells nothing.
    pub fn collect_holding(&self, done: impl FnOnce(Holding) + Send + 'static) {
        self.told_by_peers(FromPeers::Collect(Box::new(done)));
    }

    /// Takes what a peer holds in the place of what it held; an empty holding where it is gone. `taken` is called once that
    /// is so; it may not block. Whoever waits for it has one holding of a peer in the queue, which may be of megabytes.
    pub fn peer_holds(
        &self,
        peer: NodeId,
        holding: Arc<Holding>,
        taken: impl FnOnce() + Send + 'static,
    ) {
        self.told_by_peers(FromPeers::Holds {
            peer,
            holding,
            taken: Box::new(taken),
        });
    }

    /// Takes a fact about a connection to another gateway that sessions are forwarded on.
    pub fn told_by_connection(&self, conn: ConnId, what: FromConnection) {
        self.node.push_or_stop(NodeInput::Connection(conn, what));
    }

    /// Counts bytes from and to users.
    pub fn moved(&self, from_users: u64, to_users: u64) {
        self.bytes.add(from_users, to_users);
    }

    /// Takes what connections to other gateways ask and tell.
    pub fn told_by_peers(&self, told: FromPeers) {
        self.node.push_or_stop(NodeInput::Peers(told));
    }
}
