//! A gateway of which only what it holds, and what it knows of its peers, is there.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use adit_io_common::{
    clock::system_env,
    gateway::{FromPeers, GatewayHandle, NodeInput},
    handoff::{Receiver, handoff},
};
use adit_proto_core::peer::{NodeId, catalogue::Holding};

use super::wait::{RUNTIME, until};

pub(crate) struct Holder {
    state: Arc<Mutex<State>>,
    handle: GatewayHandle,
}

#[derive(Default)]
struct State {
    own: Holding,
    peers: BTreeMap<NodeId, Holding>,
    watch: Option<Box<dyn Fn() + Send>>,
}

impl Holder {
    pub(crate) fn new() -> Self {
        let state = Arc::<Mutex<State>>::default();
        let (node, inputs) = handoff(1_024);
        let (endpoint, _none) = handoff(1);
        let handle = GatewayHandle::new(node, endpoint, Arc::default(), system_env(None).unwrap());
        RUNTIME.spawn(serve(inputs, Arc::clone(&state)));
        Self { state, handle }
    }

    pub(crate) fn handle(&self) -> GatewayHandle {
        self.handle.clone()
    }

    pub(crate) fn set(&self, holding: Holding) {
        let mut state = self.state.lock().unwrap();
        state.own = holding;
        if let Some(changed) = &state.watch {
            changed();
        }
    }

    /// Waits until it knows that a peer holds this.
    pub(crate) fn see(&self, peer: u64, holding: &Holding) {
        until("the peer's holding is known", || {
            let state = self.state.lock().unwrap();
            (state.peers.get(&NodeId(peer)) == Some(holding)).then_some(())
        });
    }
}

async fn serve(inputs: Receiver<NodeInput>, state: Arc<Mutex<State>>) {
    let mut batch = VecDeque::new();
    loop {
        inputs.take(&mut batch).await;
        for input in batch.drain(..) {
            // Of connections for sessions, of which there are none.
            if let NodeInput::Connection(..) = input {
                continue;
            }
            let NodeInput::Peers(told) = input else {
                panic!("{input:?} is not of peers");
            };
            let mut state = state.lock().unwrap();
            match told {
                FromPeers::Watch(changed) => state.watch = Some(changed),
                FromPeers::Collect(done) => done(state.own.clone()),
                FromPeers::Holds {
                    peer,
                    holding,
                    taken,
                } => {
                    state.peers.insert(peer, Holding::clone(&holding));
                    taken();
                }
                // Of sessions, of which there are none.
                FromPeers::Connected(..) | FromPeers::Forwarded(_) | FromPeers::GivenUp(_) => {}
            }
        }
    }
}
