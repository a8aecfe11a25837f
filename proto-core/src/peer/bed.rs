//! What the tests of both directions share: nodes 1 and 5, their topology, and envelopes between them.

use std::time::Instant;

use bytes::Bytes;

use super::{
    NodeId,
    bound::{ConnectionSecret, Direction, Route, Tags},
    capabilities::Capabilities,
    directory::Directory,
    envelope::Unverified,
    epoch::EpochMark,
    frame::Frame,
    identity::{Leaf, NodeRecord, PinSet, SpkiPin},
    key::{ClusterSecret, KeyId, KeyRing, Tag},
    ledger::Windows,
    rpc_type::RpcType,
    verdict::Judge,
};

/// The node whose side a test takes.
pub(super) const LOCAL: NodeId = NodeId(1);
/// The other one.
pub(super) const PEER: NodeId = NodeId(5);

/// What a node has.
pub(super) struct Node {
    pub(super) keys: KeyRing,
    pub(super) store: Directory,
    pub(super) windows: Windows,
    pub(super) epochs: EpochMark,
}

impl Node {
    /// Node 1 in a cluster where nodes 5 and 6 are known by their keys.
    pub(super) fn new() -> Self {
        let mut store = Directory::default();
        for node in [5, 6] {
            store.set(record(node)).unwrap();
        }
        Self {
            keys: ring(),
            store,
            windows: Windows::default(),
            epochs: EpochMark::new(0),
        }
    }

    pub(super) fn judge(store: &Directory) -> Judge<'_> {
        Judge {
            local: LOCAL,
            own_spki: SpkiPin([1; 32]),
            store,
            bootstrap_until: 0,
            unix_ms: 1_000,
        }
    }
}

pub(super) fn ring() -> KeyRing {
    KeyRing::new(KeyId(4), ClusterSecret::new([3; 32]).unwrap())
}

/// A node whose key is made of its id.
pub(super) fn record(node: u8) -> NodeRecord {
    NodeRecord {
        node: NodeId(node.into()),
        spki_pins: PinSet::new([SpkiPin([node; 32])]).unwrap(),
        spiffe_id: None,
        address: String::new(),
    }
}

pub(super) fn leaf(node: u8) -> Leaf {
    Leaf {
        spki: SpkiPin([node; 32]),
        spiffe_id: None,
    }
}

pub(super) fn secret() -> ConnectionSecret {
    ConnectionSecret::new([9; 32])
}

/// The tags at the other end of a connection.
pub(super) fn tags(agreed: Capabilities) -> Tags {
    Tags::new(agreed, secret())
}

/// From node 5 to node 1.
pub(super) fn route(seq: u64) -> Route {
    Route {
        from: PEER,
        to: LOCAL,
        seq,
    }
}

/// An envelope, whatever it says.
pub(super) fn sealed(
    tags: &mut Tags,
    direction: Direction,
    route: Route,
    inner: Vec<u8>,
    answered: Option<&Tag>,
) -> Unverified {
    let inner = [Bytes::from(inner)];
    let sealed = tags.seal(&ring(), direction, route, inner, answered);
    Unverified::parse(tags.layout(), sealed.unwrap().to_bytes()).unwrap()
}

/// The inside of an envelope, epoch 7.
pub(super) fn frame(kind: RpcType, payload: &[u8]) -> Vec<u8> {
    let frame = Frame::new(kind, 7, Bytes::copy_from_slice(payload));
    frame.encode().unwrap().concat()
}

/// Some moment: only distances from it count.
#[expect(clippy::disallowed_methods, reason = "the base of a test's time")]
pub(super) fn start() -> Instant {
    Instant::now()
}
