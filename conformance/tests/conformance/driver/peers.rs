//! Peers with either driver, as the scenarios see them.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use adit_io_common::peers::{PeersConfig, PeersHandle, Requests};
use adit_io_mio::Peers as MioPeers;
use adit_io_tokio::Peers as TokioPeers;
use adit_proto_core::env::Env;
use tokio::{runtime::Runtime, time::timeout};

use super::tokio::{runtime, see_no_task};
use crate::bed::wait::{SOON, until, within};

/// What the peers of a gateway are, and what they are asked.
pub(crate) type Started = (Box<dyn PeersNode>, Requests);

/// The peers of a running gateway.
pub(crate) trait PeersNode: Send {
    fn handle(&self) -> PeersHandle;

    fn local_addr(&self) -> SocketAddr;

    /// Lets what is under way have `grace`, and closes; tells whether it ended within `patience`. Nothing of it is left
    /// afterwards.
    fn stop(self: Box<Self>, grace: Duration, patience: Duration) -> bool;

    /// Ends as a process that is killed does: no peer is told.
    fn quit(self: Box<Self>);

    /// Drops it in a process that goes on, and waits until nothing of it is left.
    fn forget(self: Box<Self>);
}

struct OnTokio {
    peers: TokioPeers,
    runtime: Runtime,
}

pub(super) fn start_tokio(config: PeersConfig, env: Env) -> Result<Started, String> {
    let runtime = runtime();
    let (peers, requests) = {
        let _inside = runtime.enter();
        TokioPeers::start(config, env).map_err(|error| error.to_string())?
    };
    Ok((Box::new(OnTokio { peers, runtime }), requests))
}

pub(super) fn start_mio(config: PeersConfig, env: Env) -> Result<Started, String> {
    let (peers, requests) = MioPeers::start(config, env).map_err(|error| error.to_string())?;
    Ok((Box::new(peers), requests))
}

impl PeersNode for OnTokio {
    fn handle(&self) -> PeersHandle {
        self.peers.handle()
    }

    fn local_addr(&self) -> SocketAddr {
        self.peers.local_addr()
    }

    fn stop(self: Box<Self>, grace: Duration, patience: Duration) -> bool {
        let Self { peers, runtime } = *self;
        let stop = peers.stop(grace, patience);
        let limit = patience.mul_f32(0.9);
        let in_time = runtime.block_on(async { timeout(limit, stop).await.is_ok() });
        see_no_task(&runtime);
        runtime.shutdown_timeout(SOON);
        in_time
    }

    fn quit(self: Box<Self>) {
        // The tasks go with their runtime, and with them the socket.
        self.runtime.shutdown_timeout(SOON);
    }

    fn forget(self: Box<Self>) {
        let Self { peers, runtime } = *self;
        drop(peers);
        see_no_task(&runtime);
    }
}

impl PeersNode for MioPeers {
    fn handle(&self) -> PeersHandle {
        self.handle()
    }

    fn local_addr(&self) -> SocketAddr {
        self.local_addr()
    }

    fn stop(mut self: Box<Self>, grace: Duration, patience: Duration) -> bool {
        self.handle().stop(grace);
        let in_time = within(patience, self.ended()).is_some();
        if !in_time {
            PeersNode::quit(self);
        }
        in_time
    }

    fn quit(mut self: Box<Self>) {
        Self::quit(&self);
        within(SOON, self.ended()).expect("ends at once").unwrap();
    }
    fn forget(self: Box<Self>) {
        let addr = self.local_addr();
        drop(self);
        until("the thread has closed its socket", || {
            UdpSocket::bind(addr).ok().map(drop)
        });
    }
}
