//! The way in: calls, and what an operator asks and changes.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit_proto_core::{
    link::{peer_tls::PeerSecurity, tls::TlsError},
    peer::{
        NodeId,
        counters::PeerCounters,
        key::{KeyError, KeyRing},
        ledger::PeerLedger,
        negotiate::Agreed,
        node::{CallError, PeerStatus},
        rpc_type::RpcType,
    },
    target::Target,
};
use bytes::Bytes;
use futures_channel::oneshot;

use super::{CALLS_MAX, PeersInput};
use crate::{
    gateway::Stopped,
    handoff::{Rejected, Sender},
};

/// The other nodes, as this one reaches them; cheap to clone.
#[derive(Clone, Debug)]
pub struct PeersHandle {
    owner: Sender<PeersInput>,
    ledger: Arc<PeerLedger>,
    numbers: Arc<AtomicU64>,
    under_way: Arc<AtomicUsize>,
}

/// One other node.
#[derive(Clone, Debug)]
pub struct PeerRow {
    /// Its address, breaker, and connection.
    pub status: PeerStatus,
    /// What was agreed on with it; none without a connection.
    pub agreed: Option<Agreed>,
    /// The address that the connection goes to.
    pub remote: Option<SocketAddr>,
    /// Smoothed round-trip time on it.
    pub rtt: Option<Duration>,
    /// When the certificate ends that the node has shown on that connection, in seconds of Unix time.
    pub certificate_end: Option<i64>,
    /// Connections that the node has dialled, and asked something on.
    pub calls_us: usize,
    /// Calls to it that are over.
    pub calls: Calls,
    /// Agents that it holds.
    pub agents: usize,
    /// Routes that it holds.
    pub routes: usize,
    /// Sessions go to it over replica links, and not over QUIC.
    pub is_linked: bool,
    /// Why the last attempt to connect, or the last call, came to nothing; none once one has succeeded.
    pub refusal: Option<String>,
}

/// How calls ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// With an answer.
    pub answered: u64,
    /// Without one, after whatever attempts.
    pub failed: u64,
}

/// Why certificates were not exchanged; the former ones stay.
#[derive(Debug, thiserror::Error)]
pub enum SetSecurityError {
    /// They are of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

impl PeersHandle {
    pub(super) fn new(owner: Sender<PeersInput>, ledger: Arc<PeerLedger>) -> Self {
        Self {
            owner,
            ledger,
            numbers: Arc::default(),
            under_way: Arc::default(),
        }
    }

    /// Calls a node, and gives the body of its answer. Dropping the future gives the call up; the node may have executed
    /// it.
    ///
    /// # Errors
    /// [`CallError`], after three attempts of at most 15 s each, and one dial for each (peer-rpc 9).
    pub async fn call(
        &self,
        node: NodeId,
        kind: RpcType,
        payload: Bytes,
    ) -> Result<Bytes, CallError> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let is_full = self.under_way.fetch_add(1, Ordering::Relaxed) >= CALLS_MAX;
        let mut wish = Wish {
            handle: self,
            number,
            is_over: is_full,
        };
        if is_full {
            return Err(CallError::Busy { node });
        }
        let (reply, answer) = oneshot::channel();
        let call = PeersInput::Call {
            number,
            node,
            kind,
            payload,
            reply,
        };
        if let Err(rejected) = self.owner.push(call) {
            wish.is_over = true;
            return Err(match rejected {
                Rejected::Full(_) => CallError::Busy { node },
                Rejected::Closed(_) => CallError::Stopping,
            });
        }
        let answer = answer.await;
        wish.is_over = true;
        answer.unwrap_or(Err(CallError::Stopping))
    }

    /// Dials a node that has no connection, so that the first call does not wait for that.
    pub fn warm(&self, node: NodeId) {
        self.owner.push_or_stop(PeersInput::Warm(node));
    }

    /// Knows these nodes from here on, and no other. A node that is gone is called no more, and connections that it dialled
    /// are closed; of one at another address, calls under way end where they were begun.
    ///
    /// Where certificates are exchanged too, [`set_security`](Self::set_security) comes first: a node that is gone must not
    /// be let in again in between.
    ///
    /// # Errors
    /// [`Stopped`]
    pub async fn set_peers(&self, peers: Vec<(NodeId, Target)>) -> Result<(), Stopped> {
        self.ask(|reply| PeersInput::SetPeers(peers, reply)).await
    }

    /// Has sessions go over replica links with these nodes and no other, where such links are carried at all. A node that
    /// is there already keeps to what it has until it comes anew.
    pub fn set_links(&self, nodes: BTreeSet<NodeId>) {
        self.owner.push_or_stop(PeersInput::SetLinks(nodes));
    }

    /// Exchanges certificate, key, roots, revocation lists and the nodes' records. Connections that exist keep their keys;
    /// one with a node that the records do not have any more, or not with the certificate that it showed, is closed, and so
    /// is one whose certificate is not good any more.
    ///
    /// # Errors
    /// [`SetSecurityError`]
    pub async fn set_security(&self, security: PeerSecurity) -> Result<(), SetSecurityError> {
        let input = |reply| PeersInput::SetSecurity(Box::new(security), reply);
        let set = self.ask(input).await;
        set.unwrap_or(Err(SetSecurityError::Stopped))
    }

    /// Exchanges keys: takes effect with the next message of every connection.
    ///
    /// # Errors
    /// That of `change`; the ring is as it was.
    pub fn change_keys(
        &self,
        change: impl FnOnce(&mut KeyRing) -> Result<(), KeyError>,
    ) -> Result<(), KeyError> {
        self.ledger.change_keys(change)
    }

    /// Lists the other nodes by their ids.
    ///
    /// # Errors
    /// [`Stopped`]
    pub async fn list(&self) -> Result<Vec<PeerRow>, Stopped> {
        let mut rows = Vec::new();
        for (mut row, glance) in self.ask(PeersInput::List).await? {
            // A connection that has just ended has nothing to show.
            if let Some(glance) = glance
                && let Ok(glance) = glance.await
            {
                (row.remote, row.rtt) = (Some(glance.remote), Some(glance.rtt));
                row.certificate_end = glance.certificate_end;
            }
            rows.push(row);
        }
        Ok(rows)
    }

    /// What was counted of all connections.
    #[must_use]
    pub fn counters(&self) -> PeerCounters {
        self.ledger.counters()
    }

    /// What all connections share.
    #[must_use]
    pub fn ledger(&self) -> &Arc<PeerLedger> {
        &self.ledger
    }

    /// Makes and takes no call any more, lets what is under way have `grace`, and closes (peer-rpc 8). The driver ends once
    /// nothing is left.
    pub fn stop(&self, grace: Duration) {
        self.owner.push_or_stop(PeersInput::Stop(grace));
    }

    async fn ask<T>(
        &self,
        input: impl FnOnce(oneshot::Sender<T>) -> PeersInput,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.owner.push(input(reply)).map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

/// A call that is given up when whoever waits for it is dropped.
struct Wish<'a> {
    handle: &'a PeersHandle,
    number: u64,
    is_over: bool,
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.handle.under_way.fetch_sub(1, Ordering::Relaxed);
        if !self.is_over {
            (self.handle.owner).push_or_stop(PeersInput::GiveUp(self.number));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use adit_proto_core::peer::{
        epoch::EpochMark,
        key::{ClusterSecret, KeyId},
    };

    use super::*;
    use crate::handoff::handoff;

    #[test]
    fn a_queue_that_is_full_is_no_stop() {
        let (owner, inputs) = handoff(1);
        let ring = KeyRing::new(KeyId(1), ClusterSecret::new([3; 32]).unwrap());
        let ledger = PeerLedger::new(1, ring, Box::new(EpochMark::new(0)));
        let handle = PeersHandle::new(owner, Arc::new(ledger));
        handle.owner.push(PeersInput::Warm(NodeId(1))).unwrap();
        let node = NodeId(2);
        let call = || {
            let call = pin!(handle.call(node, RpcType::Ping, Bytes::new()));
            call.poll(&mut Context::from_waker(Waker::noop()))
        };
        assert_eq!(call(), Poll::Ready(Err(CallError::Busy { node })));
        drop(inputs);
        assert_eq!(call(), Poll::Ready(Err(CallError::Stopping)));
    }
}
