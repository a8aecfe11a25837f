//! What a gateway is among its peers, and what it tells of them.

use std::sync::Arc;

use super::failure;
use crate::{
    admin::{PeerLister, PeerRow},
    config::{PeerConfig, PeersConfig},
    exit::CommandFailure,
    peers::boot_epoch,
    state::StateDir,
};

/// Counts this start where there are peers, and gives what lists them. Nothing connects them, so none of them is
/// connected.
pub(super) fn start(
    config: Option<&PeersConfig>,
    dir: &StateDir,
) -> Result<PeerLister, CommandFailure> {
    if let Some(config) = config {
        let start = boot_epoch::next(dir).map_err(failure)?;
        tracing::info!(node = config.node.0, start, "one of several gateways");
    }
    let row = |peer: &PeerConfig| PeerRow {
        id: peer.id.0,
        address: peer.address.to_string(),
        breaker: "closed".to_owned(),
        ..PeerRow::default()
    };
    let peers = config.iter().flat_map(|config| &config.peers);
    let rows: Vec<PeerRow> = peers.map(row).collect();
    Ok(Arc::new(move || {
        let rows = rows.clone();
        Box::pin(async move { rows })
    }))
}
