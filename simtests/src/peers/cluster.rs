//! Names, addresses, keys and records of a run's nodes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use adit_proto_core::{
    env::Seed,
    peer::{
        NodeId as PeerId,
        directory::Directory,
        identity::{NodeRecord, PinSet, SpkiPin},
        key::{ClusterSecret, KeyRing},
    },
};

use super::{facts::Holder, member::Member, script::MemberPlan};
use crate::{
    crypto,
    facts::NodeId,
    net::HostId,
    node::SimWall,
    pki::{Pair, Pki},
};

/// The name of a member, or of the adversary's node, by its place.
pub(super) fn id_of(place: usize) -> PeerId {
    PeerId(place as u64 + 1)
}

pub(super) fn addrs(place: usize) -> [SocketAddr; 2] {
    let place = u8::try_from(place).unwrap_or(u8::MAX);
    [1, 2].map(|nth| SocketAddr::new(IpAddr::from([10, 9, place, nth]), PORT))
}

pub(super) fn holders(members: usize) -> BTreeMap<SocketAddr, (Holder, bool)> {
    let of = |place| {
        let holder = Holder {
            node: Some(id_of(place)),
            is_honest: true,
        };
        addrs(place).map(|addr| (addr, (holder, true)))
    };
    (0..members).flat_map(of).collect()
}

pub(super) fn generation(secret: &Seed, key: u8) -> Option<ClusterSecret> {
    ClusterSecret::new(secret.derive_bytes(&format!("cluster {key}"))).ok()
}

pub(super) fn pin(topology: &mut Directory, node: PeerId, pairs: &[&Pair]) {
    let pins = pairs.iter().map(|pair| SpkiPin(pair.spki_sha256));
    let record = NodeRecord {
        node,
        spki_pins: PinSet::new(pins).unwrap_or_default(),
        spiffe_id: None,
        address: String::new(),
    };
    // Every key is of one node only.
    let _pinned = topology.set(record);
}

pub(super) fn member(
    drawn: &MemberPlan,
    (index, host, suite): (usize, HostId, crypto::Suite),
    wall: Arc<SimWall>,
    (secret, pki): (&Seed, &Pki),
    pair: Pair,
    ring: &KeyRing,
) -> Member {
    Member {
        index: NodeId(index),
        id: id_of(index),
        host,
        addrs: addrs(index).into(),
        addr: 0,
        wall,
        seed: secret.child(&format!("node {index}")),
        suite,
        capabilities: drawn.capabilities,
        slack: drawn.slack,
        pair,
        ca: pki.ca().to_vec(),
        topology: Directory::default(),
        ring: ring.clone(),
        retired: 0,
        boot: 0,
        starts: 0,
        process: None,
    }
}

const PORT: u16 = 7_000;
