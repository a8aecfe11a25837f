//! The section `[peers]`: which other gateways this one works with, and by what they know each other.

mod judge;
mod keys;
mod replica;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use adit_proto_core::{
    peer::{
        NodeId,
        identity::{NodeRecord, PinSet, SpkiPin},
    },
    target::Target,
};

use self::keys::{Origin, Secret};
pub use self::replica::ReplicaConfig;
use super::{
    Source, Surroundings,
    file::Kind,
    gateway::on_loopback,
    parse,
    reader::{Reader, Sourced},
};
use crate::{
    peers::{
        key::ClusterKeys,
        node::{NodeFileError, NodeFiles},
    },
    pki::parse_hex_32,
};

/// What a gateway is among its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeersConfig {
    /// This gateway.
    pub node: NodeId,
    /// UDP address for peers; another one than agents'.
    pub listen: SocketAddr,
    /// How peers prove who they are.
    pub security: PeerSecurity,
    /// The others, in the order of their ids.
    pub peers: Vec<PeerConfig>,
    /// With what sessions are forwarded over replica links; none where they are to no peer.
    pub replica: Option<ReplicaConfig>,
}

/// How peers prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerSecurity {
    /// By certificates and the cluster's key; none where files are not to be read.
    Mutual(Option<Box<PeerCredentials>>),
    /// Not at all; the operator has asked for it twice.
    Insecure,
}

/// What a node proves itself with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// This node's certificate, its key, and the CA of all.
    pub files: NodeFiles,
    /// The cluster's key or keys.
    pub keys: ClusterKeys,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its id.
    pub id: NodeId,
    /// Where it listens.
    pub address: Target,
    /// SHA-256 of its key; of the next one, too, while it changes it.
    pub pins: Vec<SpkiPin>,
    /// The SPIFFE id that its certificate must have.
    pub spiffe_id: Option<String>,
    /// On what sessions are forwarded to it.
    pub forward: ForwardLink,
    /// Whether a replica link with it is sealed.
    pub seal: SealLink,
    /// Where it accepts replica links.
    pub replica: Option<Target>,
}

/// On what sessions are forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardLink {
    /// On the QUIC connection between both.
    #[default]
    Quic,
    /// On replica links over TCP.
    Replica,
}

/// Whether a replica link is sealed (design 8.16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SealLink {
    /// Always.
    #[default]
    Require,
    /// Never: for links to reference replicas.
    Never,
}

/// What a changed section means for a gateway that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeersChange {
    /// The cluster's keys are others.
    pub keys: bool,
    /// Certificate, key or CA are others.
    pub files: bool,
    /// Peers that are there for the first time.
    pub added: Vec<NodeId>,
    /// Peers that are gone.
    pub removed: Vec<NodeId>,
    /// Peers of which something is another.
    pub changed: Vec<NodeId>,
    /// Keys of the configuration whose change takes effect with a restart.
    pub restart: Vec<&'static str>,
}

impl PeersConfig {
    /// Compares with what is in force.
    #[must_use]
    pub fn change(now: Option<&Self>, new: Option<&Self>) -> PeersChange {
        let (Some(now), Some(new)) = (now, new) else {
            let restart = match now.is_some() == new.is_some() {
                true => Vec::new(),
                false => vec!["peers (added or removed)"],
            };
            return PeersChange {
                restart,
                ..PeersChange::default()
            };
        };
        let (mut keys, files, mut restart) = now.security.change(&new.security);
        keys |= replica::has_other_keys(now.replica.as_ref(), new.replica.as_ref());
        for (key, same) in [
            ("peers.node", now.node == new.node),
            ("peers.listen", now.listen == new.listen),
            ("peers.peer.forward", now.forwards_alike(new)),
            (
                "peers.replica_listen",
                replica::is_at_one_place(now.replica.as_ref(), new.replica.as_ref()),
            ),
        ] {
            restart.extend((!same).then_some(key));
        }
        let ids = |of: &Self, without: &Self| {
            let is_new = |peer: &&PeerConfig| without.peer(peer.id).is_none();
            of.peers.iter().filter(is_new).map(|peer| peer.id).collect()
        };
        let differs = |peer: &&PeerConfig| now.peer(peer.id).is_some_and(|other| other != *peer);
        let changed = new.peers.iter().filter(differs);
        PeersChange {
            keys,
            files,
            added: ids(new, now),
            removed: ids(now, new),
            changed: changed.map(|peer| peer.id).collect(),
            restart,
        }
    }

    /// When the certificate ends that this gateway shows, in seconds of Unix time; none where it needs none.
    #[must_use]
    pub fn certificate_end(&self) -> Option<i64> {
        match &self.security {
            PeerSecurity::Mutual(Some(own)) => Some(own.files.not_after()),
            PeerSecurity::Mutual(None) | PeerSecurity::Insecure => None,
        }
    }

    /// Tells whether sessions go to each peer that is there before and after on the same, and over replica links to any
    /// or none.
    fn forwards_alike(&self, new: &Self) -> bool {
        let is_alike = |peer: &PeerConfig| {
            let other = self.peer(peer.id);
            other.is_none_or(|other| other.forward == peer.forward)
        };
        new.peers.iter().all(is_alike) && self.replica.is_some() == new.replica.is_some()
    }

    /// One peer.
    #[must_use]
    pub fn peer(&self, id: NodeId) -> Option<&PeerConfig> {
        self.peers.iter().find(|peer| peer.id == id)
    }
}

impl PeerSecurity {
    /// Tells whether keys, and files, are others, and what needs a restart.
    fn change(&self, new: &Self) -> (bool, bool, Vec<&'static str>) {
        match (self, new) {
            (Self::Mutual(Some(now)), Self::Mutual(Some(new))) => {
                (now.keys != new.keys, now.files != new.files, Vec::new())
            }
            (Self::Mutual(_), Self::Mutual(_)) => (false, false, Vec::new()),
            (Self::Insecure, Self::Insecure) => (false, false, Vec::new()),
            (Self::Mutual(_), Self::Insecure) | (Self::Insecure, Self::Mutual(_)) => {
                (false, false, vec!["peers.insecure"])
            }
        }
    }
}

impl PeerConfig {
    /// What the topology says of it.
    #[must_use]
    pub fn record(&self) -> NodeRecord {
        NodeRecord {
            node: self.id,
            // Two at most.
            spki_pins: PinSet::new(self.pins.iter().copied()).unwrap_or_default(),
            spiffe_id: self.spiffe_id.clone(),
            address: self.address.to_string(),
        }
    }
}

/// Reads the section; without any of its keys there are no peers. The outer option is none after a problem.
#[allow(
    clippy::option_option,
    reason = "a problem and an absence are two things"
)]
pub(super) fn peers(r: &mut Reader<'_>, around: &Surroundings) -> Option<Option<PeersConfig>> {
    let place = r.place("peers.node");
    let node = r.optional("peers.node", Kind::Number, node_id);
    let listen = r.scalar("peers.listen", Kind::Text, "[::]:4434", parse::address);
    let files = ["cert", "key", "ca"]
        .map(|name| r.optional(&format!("peers.{name}"), Kind::Text, parse::path));
    let keys = ["cluster_key_file", "previous_key_file"]
        .map(|name| r.optional(&format!("peers.{name}"), Kind::Text, parse::path));
    let links = replica::Raw::read(r);
    let insecure = r.scalar("peers.insecure", Kind::Switch, "false", parse::switch);
    let network = r.optional("peers.insecure_network", Kind::Text, network);
    let entries = entries(r);
    let (node, listen, insecure, network) = (node?, listen?, insecure?, network?);
    let links = links?;
    let [cert, key, ca] = files;
    let (cert, key, ca) = (cert?, key?, ca?);
    let [current, previous] = keys;
    let (current, previous, mut entries) = (current?, previous?, entries?);
    let given = [&cert, &key, &ca, &current, &previous];
    let Some(node) = node else {
        let is_empty = given.iter().all(|one| one.is_none()) && entries.is_empty();
        let is_empty = is_empty && listen.source == Source::Default;
        if is_empty && !insecure.value && network.is_none() && links.is_empty() {
            return Some(None);
        }
        let message = "`peers.node` is missing: say which number this gateway has among its peers";
        r.problem(place, message.to_owned());
        return None;
    };
    let security = match insecure.value {
        true => insecure_mode(r, &insecure.source, &listen, network)?,
        false => {
            let files = node_files(r, &node.source, cert, key, ca);
            let keys = CLUSTER_KEYS.read(r, around, &node.source, [current, previous]);
            let both = files?.zip(keys?);
            let both = both.map(|(files, keys)| PeerCredentials { files, keys });
            PeerSecurity::Mutual(both.map(Box::new))
        }
    };
    judge::entries(r, &node, &entries, &security)?;
    let replica = links.check(r, around, &node, &entries, &security)?;
    entries.sort_by_key(|(peer, _)| peer.id);
    Some(Some(PeersConfig {
        node: node.value,
        listen: listen.value,
        security,
        peers: entries.into_iter().map(|(peer, _)| peer).collect(),
        replica,
    }))
}

/// The entries of `[[peers.peer]]`, each with its place.
fn entries(r: &mut Reader<'_>) -> Option<Vec<(PeerConfig, Source)>> {
    let mut all = Some(Vec::new());
    for (prefix, entry) in r.entries("peers.peer") {
        let key = |name: &str| format!("{prefix}{name}");
        let id = r.required(&key("id"), Kind::Number, &entry, node_id);
        let address = r.required(&key("address"), Kind::Text, &entry, parse::target);
        let spki = r.optional(&key("spki"), Kind::Text, pin);
        let next = r.optional(&key("spki_next"), Kind::Text, pin);
        let spiffe_id = r.optional(&key("spiffe"), Kind::Text, spiffe);
        let forward = r.scalar(&key("forward"), Kind::Text, "quic", forward);
        let seal = r.scalar(&key("seal"), Kind::Text, "require", seal);
        let replica = r.optional(&key("replica"), Kind::Text, parse::target);
        let one = || {
            let pins = spki?.into_iter().chain(next?).map(|pin| pin.value);
            let config = PeerConfig {
                id: id?.value,
                address: address?.value,
                pins: pins.collect(),
                spiffe_id: spiffe_id?.map(|id| id.value),
                forward: forward?.value,
                seal: seal?.value,
                replica: replica?.map(|target| target.value),
            };
            Some((config, entry))
        };
        all = all.zip(one()).map(|(mut list, one)| {
            list.push(one);
            list
        });
    }
    all
}

/// Both options have to be there, and fit the address.
fn insecure_mode(
    r: &mut Reader<'_>,
    place: &Source,
    listen: &Sourced<SocketAddr>,
    network: Option<Sourced<Network>>,
) -> Option<PeerSecurity> {
    let message = match network.map(|network| network.value) {
        Some(Network::Any) => return Some(PeerSecurity::Insecure),
        Some(Network::Loopback) if on_loopback(listen.value) => {
            return Some(PeerSecurity::Insecure);
        }
        Some(Network::Loopback) => {
            "`peers.insecure_network` is \"loopback\", and `peers.listen` is another address"
        }
        None => {
            "`peers.insecure` lets anybody be a peer; remove it, or say where with `peers.insecure_network = \"loopback\"`"
        }
    };
    r.problem(place.clone(), message.to_owned());
    None
}

#[allow(
    clippy::option_option,
    reason = "a problem and an absence are two things"
)]
fn node_files(
    r: &mut Reader<'_>,
    place: &Source,
    cert: Option<Sourced<PathBuf>>,
    key: Option<Sourced<PathBuf>>,
    ca: Option<Sourced<PathBuf>>,
) -> Option<Option<NodeFiles>> {
    let (Some(cert), Some(key), Some(ca)) = (cert, key, ca) else {
        let message = "`peers.cert`, `peers.key` and `peers.ca` go together; `adit peers issue` makes all three";
        r.problem(place.clone(), message.to_owned());
        return None;
    };
    if !r.reads_named_files() {
        return Some(None);
    }
    match NodeFiles::read(&cert.value, &key.value, &ca.value) {
        Ok(files) => Some(Some(files)),
        Err(error) => {
            let is = |file: &Path, of: &PathBuf| (file == of).then_some(());
            let source = match &error {
                NodeFileError::Pem { path, .. }
                | NodeFileError::Certificate(path)
                | NodeFileError::Name(path)
                | NodeFileError::Key(path) => {
                    let of_key = is(path, &key.value).map(|()| &key.source);
                    let of_ca = is(path, &ca.value).map(|()| &ca.source);
                    of_key.or(of_ca).unwrap_or(&cert.source).clone()
                }
            };
            r.problem(source, error.to_string());
            None
        }
    }
}

const CLUSTER_KEYS: Secret<ClusterKeys> = Secret {
    name: "the cluster's key",
    setting: "peers.cluster_key_file",
    current: Origin {
        variable: "ADIT_PEERS_CLUSTER_KEY",
        credential: "adit-cluster-key",
    },
    previous: Origin {
        variable: "ADIT_PEERS_PREVIOUS_KEY",
        credential: "adit-previous-cluster-key",
    },
    join: ClusterKeys::new,
};

/// Where peers that prove nothing may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Loopback,
    Any,
}

fn network(text: &str) -> Result<Network, String> {
    match text {
        "loopback" => Ok(Network::Loopback),
        "any" => Ok(Network::Any),
        _ => Err(format!("`{text}`: write \"loopback\" or \"any\"")),
    }
}

fn forward(text: &str) -> Result<ForwardLink, String> {
    match text {
        "quic" => Ok(ForwardLink::Quic),
        "replica" => Ok(ForwardLink::Replica),
        _ => Err(format!("`{text}`: write \"quic\" or \"replica\"")),
    }
}

fn seal(text: &str) -> Result<SealLink, String> {
    match text {
        "require" => Ok(SealLink::Require),
        "never" => Ok(SealLink::Never),
        _ => Err(format!("`{text}`: write \"require\" or \"never\"")),
    }
}

/// 0 stands for whoever answers (peer-rpc 11.1).
fn node_id(text: &str) -> Result<NodeId, String> {
    let id = text.parse().ok().filter(|id| *id > 0);
    id.map(NodeId)
        .ok_or_else(|| format!("`{text}` is no node id; write a whole number from 1"))
}

fn pin(text: &str) -> Result<SpkiPin, String> {
    parse_hex_32(text).map(SpkiPin).ok_or_else(|| {
        format!("`{text}` is no pin; write the 64 hex digits that `adit peers issue` prints")
    })
}

fn spiffe(text: &str) -> Result<String, String> {
    spiffe_id(text)?;
    Ok(text.to_owned())
}

/// Judges a SPIFFE id: it is compared byte for byte (peer-rpc 1.3).
pub(crate) fn spiffe_id(text: &str) -> Result<(), String> {
    let rest = text.strip_prefix("spiffe://").unwrap_or_default();
    let is_good = !rest.is_empty() && !rest.starts_with('/') && text.len() <= 2_048;
    match is_good && rest.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(format!(
            "`{text}` is no SPIFFE id; write one as spiffe://cluster.example/gateway/1"
        )),
    }
}
