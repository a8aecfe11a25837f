//! Why a handshake failed, in words for the log. Nothing of it goes to the peer but a [`Status`](super::Status).

use std::fmt;

use super::{
    Binding, ClusterId, Command, FrameError, KeyUsed, Keys, Mac, OpenFault, Profile, ReplicaId,
    SealError, Signer, Status, Transcript,
};
use crate::limits::{REPLICA_HANDSHAKE_TIMEOUT, REPLICA_SILENCE_MAX};

/// Why a handshake failed. The connection is closed, once what was sent before is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The connection ended. An acceptor that refuses without an answer looks like this (replica-handshake 8).
    #[error("the peer closed the connection while {0} was awaited{hint}", hint = .0.hint())]
    Closed(Awaited),
    /// Nothing came for [`REPLICA_SILENCE_MAX`].
    #[error(
        "the peer was silent for {wait:?} while {0} was awaited{hint}",
        wait = REPLICA_SILENCE_MAX,
        hint = .0.hint(),
    )]
    Silent(Awaited),
    /// The handshake took longer than [`REPLICA_HANDSHAKE_TIMEOUT`].
    #[error(
        "the handshake was not over after {wait:?}; {0} was awaited",
        wait = REPLICA_HANDSHAKE_TIMEOUT,
    )]
    TimedOut(Awaited),
    /// What came is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame of another command than the one that had to come.
    #[error("the peer sent command {} while {awaited} was awaited", .command.byte())]
    UnexpectedCommand {
        /// What had to come.
        awaited: Awaited,
        /// What came.
        command: Command,
    },
    /// A hello of another cluster: the cluster's name differs at the two ends.
    #[error("the peer is of cluster {0}: compare the cluster's name at both ends")]
    ClusterMismatch(ClusterId),
    /// A hello of a replica that is not in the roster, or that is to be dialled from here.
    #[error(
        "replica {0} may not connect here: it has to be in the list of replicas, with an id below this one's"
    )]
    DirectionalRule(ReplicaId),
    /// A hello without a nonce: the peer does not authenticate.
    #[error("replica {0} does not authenticate: set the shared secret there")]
    AuthRequired(ReplicaId),
    /// A challenge or finish whose MAC fits no key.
    #[error("the peer's proof does not fit: {0}")]
    MacMismatch(MacHint),
    /// The acceptor refused. Not authenticated: a hint, never proof (replica-handshake 8).
    #[error("the peer refuses with status {} ({})", .0.byte(), .0.label())]
    Refused(Status),
    /// A challenge without a nonce, or with the dialer's own: nobody who draws one sends that.
    #[error("the peer's nonce is not one that it drew: something plays frames back")]
    NonceNotDrawn,
    /// The stream behind the frames is not sealed with the keys that both have just proven.
    #[error("the peer does not seal the link: set `seal` alike at both ends ({0})")]
    NotSealed(#[source] OpenFault),
    /// The cipher of a sealed link failed here: a defect.
    #[error("the link cannot be sealed: {0}")]
    CannotSeal(#[source] SealError),
}

impl Fault {
    /// The status that names the fault at an acceptor, whether or not it is sent.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::UnexpectedCommand { .. } => Some(Status::UnknownCommand),
            Self::ClusterMismatch(_) => Some(Status::ClusterMismatch),
            Self::DirectionalRule(_) => Some(Status::DirectionalRule),
            Self::AuthRequired(_) => Some(Status::AuthRequired),
            Self::MacMismatch(_) => Some(Status::MacMismatch),
            Self::Closed(_)
            | Self::Silent(_)
            | Self::TimedOut(_)
            | Self::Frame(_)
            | Self::Refused(_)
            | Self::NonceNotDrawn
            | Self::NotSealed(_)
            | Self::CannotSeal(_) => None,
        }
    }
}

/// What a handshake waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The dialer's first frame.
    Hello,
    /// The acceptor's answer to it.
    Challenge,
    /// The dialer's proof.
    Finish,
    /// The first sealed record of the peer.
    Confirmation,
}

impl Awaited {
    /// What else may lie behind an end without a word.
    fn hint(self) -> &'static str {
        match self {
            Self::Hello => "",
            Self::Challenge => ": it may not know the shared secret, or not authenticate",
            Self::Finish => ": it found this end's proof wrong; compare the shared secrets",
            Self::Confirmation => {
                ": it found this end's proof wrong, or does not seal the link; compare the settings"
            }
        }
    }
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hello => "its hello",
            Self::Challenge => "its challenge",
            Self::Finish => "its finish",
            Self::Confirmation => "its first sealed record",
        })
    }
}

/// What would have made a MAC fit. Each is told only where a MAC was found that fits, which the holder of a key alone can
/// make, so all but the last are certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MacHint {
    /// The peer has the other profile.
    #[error(
        "the peer has profile {profile:?}, with the {key} key: set the same profile at both ends"
    )]
    Profile {
        /// The peer's profile.
        profile: Profile,
        /// The key that fits.
        key: KeyUsed,
    },
    /// The peer speaks no TLS, and this end does: something in between does that for it.
    #[error("the peer speaks no TLS, with the {0} key: something between both ends does it")]
    Plaintext(KeyUsed),
    /// The peer is another replica of the cluster.
    #[error("the address belongs to replica {0}: correct the list of replicas")]
    Replica(ReplicaId),
    /// The peer has the key and is of another cluster.
    #[error("the peer is of cluster {0}: compare the cluster's name at both ends")]
    Cluster(ClusterId),
    /// This end's own MAC came back.
    #[error("it is this end's own, sent back")]
    Reflected,
    /// Nothing that is known: another key, another TLS session, or bytes that were changed on their way.
    #[error("compare the shared secrets; with equal ones something changes bytes on their way")]
    Unknown,
}

/// A MAC that does not fit, and whose it should be.
pub(super) struct Misfit<'a> {
    pub(super) keys: &'a Keys,
    pub(super) profile: Profile,
    pub(super) signer: Signer,
    pub(super) mac: &'a Mac,
}

impl Misfit<'_> {
    /// Looks for what would fit: a handful of MACs, of a peer whose connection is closed then.
    pub(super) fn explain(&self, transcript: &Transcript) -> MacHint {
        let own = transcript.mac(self.profile, self.signer.peer(), self.keys.current().mac());
        if own == *self.mac {
            return MacHint::Reflected;
        }
        let other = self.profile.other();
        if let Some(key) = self.fits(transcript, other) {
            return MacHint::Profile {
                profile: other,
                key,
            };
        }
        let plaintext = Transcript {
            binding: Binding::Plaintext,
            ..transcript.clone()
        };
        match self.fits(&plaintext, self.profile) {
            Some(key) => MacHint::Plaintext(key),
            None => MacHint::Unknown,
        }
    }

    /// As [`explain`](Self::explain), of an acceptor that says it is `replica` of `cluster`.
    pub(super) fn explain_as(
        &self,
        transcript: &Transcript,
        cluster: ClusterId,
        replica: ReplicaId,
    ) -> MacHint {
        let acceptor = Transcript {
            acceptor: replica,
            ..transcript.clone()
        };
        let elsewhere = Transcript {
            cluster,
            ..transcript.clone()
        };
        if self.fits(&acceptor, self.profile).is_some() {
            MacHint::Replica(replica)
        } else if self.fits(&elsewhere, self.profile).is_some() {
            MacHint::Cluster(cluster)
        } else {
            self.explain(transcript)
        }
    }

    fn fits(&self, transcript: &Transcript, profile: Profile) -> Option<KeyUsed> {
        let key = self.keys.verify(transcript, profile, self.signer, self.mac);
        key.map(|(used, _)| used)
    }
}

impl fmt::Display for KeyUsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Current => "current",
            Self::Previous => "previous",
        })
    }
}
