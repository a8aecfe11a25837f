//! Who is in a cluster.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Bound::{Excluded, Unbounded},
};

/// Names one replica of a cluster. Ids need not be dense (replica-handshake 14).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u8);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names a cluster, as its 16 bytes stand in a frame (replica-handshake 3). It keeps clusters apart; it is no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl ClusterId {
    /// Derives the id from a cluster's name, which is taken as it is: neither trimmed nor folded.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let digest = blake3::hash(name.as_bytes());
        Self(digest.as_bytes().first_chunk().copied().unwrap_or_default())
    }

    /// The id as the number that the reference has.
    #[must_use]
    pub fn number(self) -> u128 {
        u128::from_le_bytes(self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether the stream behind the handshake is sealed (design 8.16). Nothing is negotiated: both ends are configured
/// alike, or their handshake fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// Every byte is in a sealed record. Both ends are adit's.
    Require,
    /// The stream is bare, as the reference has it.
    Never,
}

/// The replicas of a cluster, the same list on each of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster(BTreeMap<ReplicaId, Seal>);

impl Roster {
    /// The roster of ids 0 to `count - 1`, as every roster of the reference is.
    #[must_use]
    pub fn dense(count: u8, seal: Seal) -> Self {
        (0..count).map(|id| (ReplicaId(id), seal)).collect()
    }

    /// How the link with a replica is sealed; none where it is not of the roster.
    #[must_use]
    pub fn seal(&self, id: ReplicaId) -> Option<Seal> {
        self.0.get(&id).copied()
    }

    /// The replicas that `own` dials: those of higher ids (replica-handshake 2).
    pub fn dialled_by(&self, own: ReplicaId) -> impl Iterator<Item = ReplicaId> {
        let higher = self.0.range((Excluded(own), Unbounded));
        higher.map(|(id, _)| *id)
    }

    /// The first replica whose link is to be sealed.
    pub(super) fn first_sealed(&self) -> Option<ReplicaId> {
        let sealed = self.0.iter().find(|(_, seal)| **seal == Seal::Require);
        sealed.map(|(id, _)| *id)
    }
}

impl FromIterator<(ReplicaId, Seal)> for Roster {
    fn from_iter<T: IntoIterator<Item = (ReplicaId, Seal)>>(replicas: T) -> Self {
        Self(replicas.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_id_dials_the_higher_ones() {
        let roster: Roster = [1, 4, 9]
            .map(|id| (ReplicaId(id), Seal::Never))
            .into_iter()
            .collect();
        let dialled: Vec<ReplicaId> = roster.dialled_by(ReplicaId(4)).collect();
        assert_eq!(dialled, [ReplicaId(9)]);
        assert_eq!(roster.dialled_by(ReplicaId(9)).count(), 0);
    }

    #[test]
    fn names_are_taken_as_they_are() {
        let id = ClusterId::of("iggy-cluster");
        assert_eq!(id.to_string(), "21bb05c88727bab88d0ec27be8a72d46");
        for other in ["Iggy-cluster", "iggy-cluster ", "iggy-cluster\n"] {
            assert_ne!(ClusterId::of(other), id);
        }
    }
}
