//! Replica links of a gateway, on which sessions go to some of its peers.

use std::collections::BTreeMap;

use adit_io_common::{
    gateway::GatewayHandle,
    handoff::{Receiver, handoff},
    peers::{LinkNotice, NOTICES_LEN, PeerLinks},
};
use adit_io_tokio::{LinkSettings, Links, LinksConfig};
use adit_proto_core::{
    limits::FORWARD_LINKS_MAX,
    peer::NodeId,
    replica::{ClusterId, Config, Dialling, ReplicaId, Roster, Seal},
};

use super::super::failure;
use crate::{
    config::{ForwardLink, PeerConfig, PeersConfig},
    exit::{Code, CommandFailure},
};

/// Begins to carry links, where any peer is reached so.
///
/// # Errors
/// The address is in use, and keys that were not read.
pub(super) fn start(
    config: &PeersConfig,
    gateway: &GatewayHandle,
    notices: Option<Receiver<LinkNotice>>,
) -> Result<Option<Links>, CommandFailure> {
    let (Some(replica), Some(notices)) = (&config.replica, notices) else {
        return Ok(None);
    };
    let links = Links::start(LinksConfig {
        listen: replica.listen,
        local: config.node,
        settings: settings(config)?,
        gateway: gateway.clone(),
        notices,
        max_links: FORWARD_LINKS_MAX,
    });
    let links = links.map_err(|error| {
        let text = format!("peers: cannot listen on TCP {}: {error}", replica.listen);
        CommandFailure::message(Code::Failure, text)
    })?;
    tracing::info!(listen = %links.local_addr(), "sessions go to some peers over replica links");
    Ok(Some(links))
}

/// What the owner of the pool is to know of links, and what it tells of them.
pub(super) fn notices(config: &PeersConfig) -> (Option<PeerLinks>, Option<Receiver<LinkNotice>>) {
    if config.replica.is_none() {
        return (None, None);
    }
    let (notices, told) = handoff(NOTICES_LEN);
    let nodes = linked(config).map(|peer| peer.id).collect();
    (Some(PeerLinks { nodes, notices }), Some(told))
}

/// What links go by.
///
/// # Errors
/// Keys that were not read.
pub(super) fn settings(config: &PeersConfig) -> Result<LinkSettings, CommandFailure> {
    let replica = config.replica.as_ref();
    let keys = replica.and_then(|replica| Some((replica, replica.keys.as_ref()?)));
    let Some((replica, keys)) = keys else {
        return Err(CommandFailure::message(
            Code::Config,
            "peers: the key of replica links was not read",
        ));
    };
    let local = replica_of(config.node);
    let others = linked(config).map(|peer| replica_of(peer.id));
    let roster: Roster = others
        .chain([local])
        .map(|id| (id, Seal::Require))
        .collect();
    let made = Config::new(ClusterId::of(CLUSTER), local, roster, Some(keys.keys()));
    let made = made.map_err(failure)?;
    let peers = linked(config).filter_map(|peer| Some((peer.id, peer.replica.clone()?)));
    Ok(LinkSettings {
        replica: made
            .with_profile(replica.profile)
            .with_dialling(Dialling::Either),
        peers: peers.collect::<BTreeMap<_, _>>(),
    })
}

fn linked(config: &PeersConfig) -> impl Iterator<Item = &PeerConfig> {
    let is_linked = |peer: &&PeerConfig| peer.forward == ForwardLink::Replica;
    config.peers.iter().filter(is_linked)
}

/// The configuration's reader has seen to it that the number fits.
fn replica_of(node: NodeId) -> ReplicaId {
    ReplicaId(u8::try_from(node.0).unwrap_or(u8::MAX))
}

/// Keeps handshakes for sessions apart from all others under the same key (docs/protocol-peer.md).
const CLUSTER: &str = "adit-forward/1";
