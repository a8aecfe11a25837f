//! What stands for the gateway of a node.

use std::{collections::BTreeMap, sync::Arc};

use adit_proto_core::{
    id::{ConnId, Slot},
    peer::{NodeId, catalogue::Holding},
};

use crate::{
    clock::system_env,
    gateway::{Forwarded, FromConnection, FromPeers, GatewayHandle, NodeInput, PeerCarriage},
    handoff::{Receiver, handoff},
};

/// What the gateway of a node is told.
pub(in crate::peers) struct TestGateway {
    pub(super) handle: GatewayHandle,
    pub(super) inputs: Receiver<NodeInput>,
    pub(in crate::peers) holding: Holding,
    pub(in crate::peers) peers: BTreeMap<NodeId, Holding>,
    pub(in crate::peers) carriages: Vec<(ConnId, PeerCarriage)>,
    pub(in crate::peers) forwarded: Vec<Forwarded>,
    pub(in crate::peers) given_up: Vec<(ConnId, Slot)>,
    pub(in crate::peers) told: Vec<(ConnId, FromConnection)>,
}

impl TestGateway {
    pub(super) fn new() -> Self {
        let (node, inputs) = handoff(1_024);
        let (orders, _none) = handoff(1);
        let env = system_env(None).unwrap();
        Self {
            handle: GatewayHandle::new(node, orders, Arc::default(), env),
            inputs,
            holding: Holding::default(),
            peers: BTreeMap::new(),
            carriages: Vec::new(),
            forwarded: Vec::new(),
            given_up: Vec::new(),
            told: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, input: NodeInput) {
        if let NodeInput::Connection(conn, told) = input {
            return self.told.push((conn, told));
        }
        let NodeInput::Peers(told) = input else {
            panic!("{input:?} is not of peers");
        };
        match told {
            FromPeers::Watch(_) => {}
            FromPeers::Collect(done) => done(self.holding.clone()),
            FromPeers::Holds(peer, holding) => {
                self.peers.insert(peer, holding);
            }
            FromPeers::Connected(conn, way) => self.carriages.push((conn, way)),
            FromPeers::Forwarded(forwarded) => self.forwarded.push(forwarded),
            FromPeers::GivenUp(place) => self.given_up.push(place),
        }
    }
}
