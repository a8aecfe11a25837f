//! The part of `[peers]` about sessions that are forwarded over replica links.

use std::{net::SocketAddr, path::PathBuf};

use adit_proto_core::{peer::NodeId, replica::Profile};

use super::{
    ForwardLink, PeerConfig, PeerSecurity, SealLink,
    keys::{Origin, Secret},
};
use crate::{
    config::{
        Source, Surroundings,
        file::Kind,
        parse,
        reader::{Reader, Sourced},
    },
    peers::key::ReplicaKeys,
};

/// With what sessions are forwarded over replica links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaConfig {
    /// TCP address for the links that peers dial.
    pub listen: SocketAddr,
    /// The bytes under the handshake's MACs.
    pub profile: Profile,
    /// The key or keys of the links; none where files are not to be read.
    pub keys: Option<ReplicaKeys>,
}

/// What stands in the file.
pub(super) struct Raw {
    listen: Sourced<SocketAddr>,
    profile: Sourced<Profile>,
    current: Option<Sourced<PathBuf>>,
    previous: Option<Sourced<PathBuf>>,
}

const KEYS: Secret<ReplicaKeys> = Secret {
    name: "the key of replica links",
    setting: "peers.replica_key_file",
    current: Origin {
        variable: "ADIT_PEERS_REPLICA_KEY",
        credential: "adit-replica-key",
    },
    previous: Origin {
        variable: "ADIT_PEERS_PREVIOUS_REPLICA_KEY",
        credential: "adit-previous-replica-key",
    },
    join: ReplicaKeys::new,
};

impl Raw {
    pub(super) fn read(r: &mut Reader<'_>) -> Option<Self> {
        let listen = r.scalar(
            "peers.replica_listen",
            Kind::Text,
            "[::]:4435",
            parse::address,
        );
        let profile = r.scalar("peers.replica_profile", Kind::Text, "b", profile);
        let [current, previous] = ["replica_key_file", "previous_replica_key_file"]
            .map(|name| r.optional(&format!("peers.{name}"), Kind::Text, parse::path));
        Some(Self {
            listen: listen?,
            profile: profile?,
            current: current?,
            previous: previous?,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        let built_in = [&self.listen.source, &self.profile.source];
        built_in.iter().all(|source| **source == Source::Default) && !self.has_keys()
    }

    fn has_keys(&self) -> bool {
        self.current.is_some() || self.previous.is_some()
    }

    /// Judges it with the rest of the section. The outer option is none after a problem, the inner one where no peer is
    /// reached so.
    #[allow(
        clippy::option_option,
        reason = "a problem and an absence are two things"
    )]
    pub(super) fn check(
        self,
        r: &mut Reader<'_>,
        around: &Surroundings,
        node: &Sourced<NodeId>,
        entries: &[(PeerConfig, Source)],
        security: &PeerSecurity,
    ) -> Option<Option<ReplicaConfig>> {
        let linked = entries
            .iter()
            .filter(|(peer, _)| peer.forward == ForwardLink::Replica);
        let mut bad: Vec<(Source, String)> = linked
            .clone()
            .flat_map(|(peer, source)| problems(peer).map(|said| (source.clone(), said)))
            .collect();
        if linked.count() == 0 {
            if self.has_keys() {
                // A key of no use is found now, and not on the day it is needed.
                KEYS.read(r, around, &node.source, [self.current, self.previous])?;
            }
            return Some(None);
        }
        if !is_replica(node.value) {
            let said = "`peers.node`: replicas have numbers up to 255, and a peer has `forward = \"replica\"`";
            bad.push((node.source.clone(), said.to_owned()));
        }
        if *security == PeerSecurity::Insecure {
            let said =
                "`peers.insecure` and `forward = \"replica\"` do not go together; remove one";
            bad.push((node.source.clone(), said.to_owned()));
        }
        if !bad.is_empty() {
            bad.into_iter()
                .for_each(|(source, said)| r.problem(source, said));
            return None;
        }
        let keys = KEYS.read(r, around, &node.source, [self.current, self.previous])?;
        Some(Some(ReplicaConfig {
            listen: self.listen.value,
            profile: self.profile.value,
            keys,
        }))
    }
}

fn is_replica(node: NodeId) -> bool {
    node.0 <= u64::from(u8::MAX)
}

/// What is wrong with a peer that is reached over replica links.
fn problems(peer: &PeerConfig) -> impl Iterator<Item = String> + use<> {
    let id = peer.id.0;
    let number = (!is_replica(peer.id)).then(|| {
        format!(
            "peer {id}: replicas have numbers up to 255; write another id, or `forward = \"quic\"`"
        )
    });
    let seal = (peer.seal == SealLink::Never).then(|| {
        format!(
            "peer {id}: sessions go over sealed links only; write `seal = \"require\"`, or `forward = \"quic\"`"
        )
    });
    let address = peer.replica.is_none().then(|| {
        format!("peer {id}: `replica` is missing: say where it accepts replica links, as host:port")
    });
    [number, seal, address].into_iter().flatten()
}

/// Tells whether the keys of a gateway that runs, or how they are used, are others now.
pub(super) fn has_other_keys(now: Option<&ReplicaConfig>, new: Option<&ReplicaConfig>) -> bool {
    let differ = |(now, new): (&ReplicaConfig, &ReplicaConfig)| {
        now.keys != new.keys || now.profile != new.profile
    };
    now.zip(new).is_some_and(differ)
}

pub(super) fn is_at_one_place(now: Option<&ReplicaConfig>, new: Option<&ReplicaConfig>) -> bool {
    now.zip(new)
        .is_none_or(|(now, new)| now.listen == new.listen)
}

fn profile(text: &str) -> Result<Profile, String> {
    match text {
        "a" => Ok(Profile::A),
        "b" => Ok(Profile::B),
        _ => Err(format!("`{text}`: write \"b\" or \"a\"")),
    }
}
