//! What is wrong between the entries of `[[peers.peer]]`.

use adit_proto_core::{limits::PEERS_MAX, peer::NodeId};

use super::{PeerConfig, PeerSecurity};
use crate::config::{
    Source,
    reader::{Reader, Sourced},
};

/// Judges the entries with each other and with this gateway; none where something is wrong.
pub(super) fn entries(
    r: &mut Reader<'_>,
    node: &Sourced<NodeId>,
    entries: &[(PeerConfig, Source)],
    security: &PeerSecurity,
) -> Option<()> {
    let mut bad = Vec::new();
    if entries.len() > PEERS_MAX {
        bad.push((
            node.source.clone(),
            format!("there are more than {PEERS_MAX} peers"),
        ));
    }
    for (nth, (peer, source)) in entries.iter().enumerate() {
        let mut say = |message: String| bad.push((source.clone(), message));
        let id = peer.id.0;
        if peer.id == node.value {
            say(format!(
                "peer {id} is this gateway itself; remove the entry, or correct `peers.node`"
            ));
        }
        if let PeerSecurity::Mutual(Some(own)) = security
            && peer.id != node.value
            && peer.pins.contains(&own.files.leaf().spki)
        {
            say(format!(
                "peer {id} has this gateway's own key; correct its `spki`, or `peers.cert` and `peers.key`"
            ));
        }
        if *security != PeerSecurity::Insecure && peer.pins.is_empty() && peer.spiffe_id.is_none() {
            say(format!(
                "peer {id} has neither `spki` nor `spiffe`: any certificate of the CA could speak for it; `adit peers issue` prints the pin"
            ));
        }
        for (other, _) in entries.iter().take(nth) {
            let of = other.id.0;
            if other.id == peer.id {
                say(format!("peer {id} is there twice; remove one entry"));
            } else if other.address == peer.address {
                say(format!("peers {of} and {id} have one address"));
            }
            if other.id != peer.id && other.pins.iter().any(|pin| peer.pins.contains(pin)) {
                say(format!(
                    "peers {of} and {id} have one key; each needs its own"
                ));
            }
            let id_of = peer.spiffe_id.as_ref();
            if other.id != peer.id && id_of.is_some() && other.spiffe_id.as_ref() == id_of {
                say(format!("peers {of} and {id} have one SPIFFE id"));
            }
        }
    }
    let is_good = bad.is_empty();
    bad.into_iter()
        .for_each(|(source, message)| r.problem(source, message));
    is_good.then_some(())
}
