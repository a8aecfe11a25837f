//! No request is executed on a connection whose version handshake is not over.

use std::collections::BTreeSet;

use adit_proto_core::{id::ConnId, output::Event, peer::event::PeerEvent};

use super::super::facts::Fact;
use crate::facts::NodeId;

#[derive(Debug, Default)]
pub(super) struct Greeted {
    up: BTreeSet<(NodeId, ConnId)>,
}

impl Greeted {
    pub(super) fn observe(&mut self, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Event(conn, Event::Peer(PeerEvent::Up { .. })) => {
                let is_new = self.up.insert((node, *conn));
                (!is_new).then(|| format!("{conn} is up twice"))
            }
            Fact::Ended => {
                self.up.retain(|(of, _)| *of != node);
                None
            }
            Fact::Executed(executed) => {
                let is_up = self.up.contains(&(node, executed.conn));
                let (conn, from) = (executed.conn, executed.from);
                (!is_up || !executed.is_greeted)
                    .then(|| format!("{from} was heard on {conn} before its hello"))
            }
            _ => None,
        }
    }
}
