//! What the owner of all links knows of peers, sessions and tasks.

use std::sync::Arc;

use adit_io_common::gateway::{Bytes as Moved, Place};
use adit_proto_core::{
    id::{AttemptId, ConnId},
    limits::FORWARD_HANDSHAKES_MAX,
    peer::NodeId,
    target::Target,
};
use tokio::sync::Semaphore;

use super::session::Control;

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: Target,
    pub(super) handshakes: Arc<Semaphore>,
    /// What the way to it is to the gateway, since it was reached first.
    pub(super) conn: Option<ConnId>,
    /// No call reaches it.
    pub(super) is_down: bool,
    /// Whether a link does is being tried.
    pub(super) is_probed: bool,
}

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) node: NodeId,
    pub(super) control: Control,
    pub(super) moved: Arc<Moved>,
}

/// What a task is for.
#[derive(Clone, Debug)]
pub(super) enum Running {
    Session(Place, Option<AttemptId>),
    /// Whether a peer that no call reaches is reached by a link.
    Probe(NodeId, Target),
}

impl Peer {
    pub(super) fn new(address: Target) -> Self {
        Self {
            address,
            handshakes: Arc::new(Semaphore::new(FORWARD_HANDSHAKES_MAX)),
            conn: None,
            is_down: false,
            is_probed: false,
        }
    }
}
