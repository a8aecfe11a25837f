//! The gateway of a node, of which only what it holds, and what it is told, is there.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use adit_proto_core::{
    id::{ConnId, Slot},
    peer::{NodeId, catalogue::Holding},
};

use super::all;
use crate::{
    clock::system_env,
    gateway::{Forwarded, FromConnection, FromPeers, GatewayHandle, NodeInput, PeerCarriage},
    handoff::{Receiver, handoff},
};

/// What the gateway of a node is told.
pub(in crate::peers) struct TestGateway {
    pub(super) handle: GatewayHandle,
    inputs: Receiver<NodeInput>,
    pub(in crate::peers) holding: Holding,
    pub(in crate::peers) peers: BTreeMap<NodeId, Holding>,
    /// How often it was told what a peer holds.
    pub(in crate::peers) holdings: usize,
    /// What it is told waits.
    pub(in crate::peers) is_deaf: bool,
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
            holdings: 0,
            is_deaf: false,
            carriages: Vec::new(),
            forwarded: Vec::new(),
            given_up: Vec::new(),
            told: Vec::new(),
        }
    }

    /// Takes what waits; tells whether that was anything.
    pub(super) fn turn(&mut self) -> bool {
        let batch = match self.is_deaf {
            true => VecDeque::new(),
            false => all(&self.inputs),
        };
        let any = !batch.is_empty();
        batch.into_iter().for_each(|input| self.take(input));
        any
    }

    fn take(&mut self, input: NodeInput) {
        if let NodeInput::Connection(conn, told) = input {
            return self.told.push((conn, told));
        }
        let NodeInput::Peers(told) = input else {
            panic!("{input:?} is not of peers");
        };
        match told {
            FromPeers::Watch(_) => {}
            FromPeers::Collect(done) => done(self.holding.clone()),
            FromPeers::Holds {
                peer,
                holding,
                taken,
            } => {
                self.holdings += 1;
                self.peers.insert(peer, Holding::clone(&holding));
                taken();
            }
            FromPeers::Connected(conn, way) => self.carriages.push((conn, way)),
            FromPeers::Forwarded(forwarded) => self.forwarded.push(forwarded),
            FromPeers::GivenUp(place) => self.given_up.push(place),
        }
    }
}
