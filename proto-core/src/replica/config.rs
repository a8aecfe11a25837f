//! What one replica brings to its handshakes.

use super::{ClusterId, Keys, Profile, ReplicaId, Roster};

/// One replica's side of every handshake of its cluster.
#[derive(Clone, Debug)]
pub struct Config {
    pub(super) cluster: ClusterId,
    pub(super) replica: ReplicaId,
    pub(super) roster: Roster,
    pub(super) keys: Option<Keys>,
    pub(super) profile: Profile,
    pub(super) conduct: Conduct,
    pub(super) dialling: Dialling,
}

/// Who of two replicas dials. It is the same on all of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialling {
    /// The one with the lower id, so that a pair has one link (replica-handshake 2).
    #[default]
    Lower,
    /// Whoever has something to say, where a pair has as many links as it has sessions. Both ids stand under the MACs in
    /// their roles, so what one direction proves is worth nothing in the other.
    Either,
}

impl Dialling {
    /// Tells whether `dialer` may dial `acceptor`; no replica dials itself.
    pub(super) fn allows(self, dialer: ReplicaId, acceptor: ReplicaId) -> bool {
        match self {
            Self::Lower => dialer < acceptor,
            Self::Either => dialer != acceptor,
        }
    }
}

/// How much of a peer's oddness is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conduct {
    /// A frame has 256 bytes, a nonce is drawn by who sends it, a refusal does not tell the own cluster's id. What the
    /// reference sends is all taken.
    #[default]
    Strict,
    /// As the reference does, where that differs: a body of up to 64 MiB is skipped, any nonce of an acceptor is taken,
    /// replicas are dialled whatever their ids, a refusal tells the own cluster's id. For comparisons with recorded
    /// exchanges.
    Reference,
}

/// A configuration that cannot work: the operator's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The replica's own id is not in the roster.
    #[error(
        "replica {0} is not in the cluster's list of replicas: add it there, or correct its id"
    )]
    NotInRoster(ReplicaId),
    /// A link is to be sealed and there is no key to do it with.
    #[error("the link with replica {0} is to be sealed, which needs a shared secret")]
    SealWithoutKey(ReplicaId),
}

impl Config {
    /// Puts a configuration together, with profile B and strict conduct. Without keys nothing is proven: whoever
    /// connects is taken for whom it says it is (replica-handshake 11.2).
    ///
    /// # Errors
    /// If the replica itself is not of the roster, or a link is to be sealed without keys.
    pub fn new(
        cluster: ClusterId,
        replica: ReplicaId,
        roster: Roster,
        keys: Option<Keys>,
    ) -> Result<Self, ConfigError> {
        if roster.seal(replica).is_none() {
            return Err(ConfigError::NotInRoster(replica));
        }
        match (&keys, roster.first_sealed()) {
            (None, Some(peer)) => Err(ConfigError::SealWithoutKey(peer)),
            (Some(_), _) | (None, None) => Ok(Self {
                cluster,
                replica,
                roster,
                keys,
                profile: Profile::default(),
                conduct: Conduct::default(),
                dialling: Dialling::default(),
            }),
        }
    }

    /// Selects the bytes under the MAC; the whole cluster has the same.
    #[must_use]
    pub fn with_profile(self, profile: Profile) -> Self {
        Self { profile, ..self }
    }

    /// Selects who dials.
    #[must_use]
    pub fn with_dialling(self, dialling: Dialling) -> Self {
        Self { dialling, ..self }
    }

    /// Tells whether a replica is of the roster.
    #[must_use]
    pub fn knows(&self, replica: ReplicaId) -> bool {
        self.roster.seal(replica).is_some()
    }

    /// Selects how much is taken.
    #[must_use]
    pub fn with_conduct(self, conduct: Conduct) -> Self {
        Self { conduct, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::Seal;

    #[test]
    fn a_configuration_that_cannot_work_is_refused() {
        let of = |replica, seal| {
            let roster = Roster::dense(3, seal);
            Config::new(ClusterId::of("c"), ReplicaId(replica), roster, None).map(|_| ())
        };
        assert_eq!(of(2, Seal::Never), Ok(()));
        assert_eq!(
            of(3, Seal::Never),
            Err(ConfigError::NotInRoster(ReplicaId(3)))
        );
        let missing = ConfigError::SealWithoutKey(ReplicaId(0));
        assert_eq!(of(2, Seal::Require), Err(missing));
    }

    #[test]
    fn the_lower_id_dials_or_either_and_none_itself() {
        let allowed = |dialling: Dialling| {
            let pairs = [(1, 4), (4, 1), (4, 4)];
            pairs.map(|(from, to)| dialling.allows(ReplicaId(from), ReplicaId(to)))
        };
        assert_eq!(allowed(Dialling::Lower), [true, false, false]);
        assert_eq!(allowed(Dialling::Either), [true, true, false]);
    }
}
