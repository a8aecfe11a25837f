//! What a gateway shows its peers, and whom it believes.

use std::sync::Arc;

use adit_proto_core::{
    link::{
        insecure_tls::{Exposure, Insecure},
        peer_tls::{PeerSecurity, PeerTls},
    },
    peer::{
        NodeId, PEER_SERVER_NAME,
        directory::Directory,
        identity::Leaf,
        key::{ClusterSecret, KeyId, KeyRing},
        receive::JoinCheck,
    },
};
use rcgen::KeyPair;

use super::super::failure;
use crate::{
    config::{PeerCredentials, PeerSecurity as Configured, PeersConfig},
    exit::{Code, CommandFailure},
};

/// Peers are those of the configuration.
pub(super) struct NoJoins;

impl JoinCheck for NoJoins {
    fn allows(&self, _from: NodeId, _payload: &[u8], _leaf: &Leaf) -> bool {
        false
    }
}

/// The cluster's keys.
pub(super) fn ring(config: &PeersConfig) -> KeyRing {
    match &config.security {
        Configured::Mutual(Some(credentials)) => credentials.keys.ring(),
        Configured::Mutual(None) | Configured::Insecure => {
            KeyRing::new(KeyId(0), ClusterSecret::insecure())
        }
    }
}

/// Certificates, and the identities of the peers.
///
/// # Errors
/// Two peers with one identity, and an address that the insecure mode is not for.
pub(super) fn security(config: &PeersConfig) -> Result<PeerSecurity, CommandFailure> {
    match &config.security {
        Configured::Mutual(Some(credentials)) => mutual(config, credentials),
        Configured::Mutual(None) => Err(CommandFailure::message(
            Code::Config,
            "peers: the files of this node were not read",
        )),
        Configured::Insecure => insecure(config),
    }
}

fn mutual(
    config: &PeersConfig,
    credentials: &PeerCredentials,
) -> Result<PeerSecurity, CommandFailure> {
    let mut topology = Directory::complete();
    for peer in &config.peers {
        topology.set(peer.record()).map_err(failure)?;
    }
    let files = &credentials.files;
    Ok(PeerSecurity::Mutual(Arc::new(PeerTls {
        local: config.node,
        cert_chain: files.chain().iter().map(|der| der.to_vec()).collect(),
        key: files.key().secret_der().to_vec().into(),
        roots: files.roots().iter().map(|der| der.to_vec()).collect(),
        crls: Vec::new(),
        identities: Arc::new(topology),
        bootstrap_until: 0,
    })))
}

/// The operator has named the network, and the configuration's reader has looked at the address.
fn insecure(config: &PeersConfig) -> Result<PeerSecurity, CommandFailure> {
    let key = KeyPair::generate().map_err(failure)?;
    let params = rcgen::CertificateParams::new([PEER_SERVER_NAME.to_owned()]).map_err(failure)?;
    let cert = params.self_signed(&key).map_err(failure)?;
    let insecure = Insecure::new(
        config.node,
        vec![cert.der().to_vec()],
        key.serialize_der().into(),
        config.listen,
        Exposure::Everywhere,
    );
    tracing::warn!(listen = %config.listen, "anybody who reaches this address can be a peer of this gateway (peers.insecure)");
    Ok(PeerSecurity::Insecure(Arc::new(insecure.map_err(failure)?)))
}
