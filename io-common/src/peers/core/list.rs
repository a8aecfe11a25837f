//! What an operator sees of the nodes.

use std::time::Instant;

use adit_proto_core::{
    id::ConnId,
    peer::{
        NodeId,
        node::{CallError, PeerStatus},
        retry::Failure,
    },
};
use bytes::Bytes;
use futures_channel::oneshot;

use super::{Link, PeersCore, PeersHost};
use crate::{
    commands::Command,
    glance::Glance,
    peers::{PeerLinks, PeerRow},
};

impl PeersCore {
    pub(super) fn list(
        &self,
        now: Instant,
        host: &mut impl PeersHost,
    ) -> Vec<(PeerRow, Option<oneshot::Receiver<Glance>>)> {
        let row = |status: PeerStatus| {
            let conn = status.connection;
            let glance = conn.map(|conn| {
                let (reply, glance) = oneshot::channel();
                host.command(now, conn, Command::Look(reply));
                glance
            });
            let link = conn.and_then(|conn| self.links.get(&conn));
            let told = self.told.as_ref();
            let held = told.and_then(|told| told.machine.held_by(status.node));
            let is_caller = |link: &&Link| link.caller == Some(status.node);
            let row = PeerRow {
                agreed: link.map(|link| link.agreed),
                calls_us: self.links.values().filter(is_caller).count(),
                calls: self.calls.get(&status.node).copied().unwrap_or_default(),
                rtt: None,
                remote: None,
                certificate_end: None,
                agents: held.map_or(0, |held| held.agents.len()),
                routes: held.map_or(0, |held| held.subnets.len() + held.domains.len()),
                is_linked: PeerLinks::with(self.replica_links.as_ref(), status.node).is_some(),
                refusal: self.refusals.get(&status.node).cloned(),
                status,
            };
            (row, glance)
        };
        self.pool.peers().map(row).collect()
    }

    /// Remembers why a call has no answer, where that tells an operator more than the connection's state does.
    pub(super) fn note_outcome(&mut self, node: NodeId, outcome: &Result<Bytes, CallError>) {
        match outcome {
            Ok(_) => {
                self.refusals.remove(&node);
            }
            Err(CallError::Failed(why @ (Failure::Reset | Failure::BadAnswer(_)))) => {
                self.refusals.insert(node, format!("{why}; see its log"));
            }
            Err(CallError::Failed(why @ (Failure::Refused(_) | Failure::Identity))) => {
                self.refusals.insert(node, why.to_string());
            }
            Err(_) => {}
        }
    }

    /// The node that was dialled last by this connection.
    pub(super) fn dialling(&self, conn: ConnId) -> Option<NodeId> {
        let is_it = |dialled: &(_, ConnId)| dialled.1 == conn;
        let found = self.dialled.iter().find(|(_, dialled)| is_it(dialled));
        found.map(|(node, _)| *node)
    }
}
