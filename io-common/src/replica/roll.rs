//! The one link with each replica, whoever carries it.

use adit_proto_core::replica::{Duplicates, Installed, Links, ReplicaId};

use super::{Link, Proof};

/// Knows the link with each replica by its number. The links themselves are with whoever carries them, in another thread
/// or process as well.
#[derive(Debug)]
pub struct Roll {
    links: Links<LinkId>,
    next: u64,
}

/// Names a link among all that one [`Roll`] has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(u64);

/// What comes of a link.
#[derive(Debug)]
#[must_use = "a link that was taken has to be carried, and one that it replaces to be closed"]
pub enum Rolled {
    /// It is the link with its replica.
    Taken {
        /// Its number, for [`Roll::remove`] when it has ended.
        id: LinkId,
        /// The link.
        link: Link,
        /// The former link with the same replica, which is to be closed by whoever carries it.
        replaces: Option<LinkId>,
    },
    /// There is another, which stays; this one was closed.
    Refused(ReplicaId),
}

impl Roll {
    /// No links.
    #[must_use]
    pub fn new(duplicates: Duplicates) -> Self {
        Self {
            links: Links::new(duplicates),
            next: 0,
        }
    }

    /// Takes a link, or closes it where another stays. One that proves nothing never replaces another.
    pub fn install(&mut self, link: Link) -> Rolled {
        let (id, replica, peer) = (LinkId(self.next), link.replica(), link.peer_addr());
        self.next += 1;
        let installed = match link.proof() {
            Proof::Verified(_) => self.links.install(replica, id),
            Proof::None => self.links.install_unverified(replica, id),
        };
        let replaces = match installed {
            Installed::Alone => None,
            Installed::Replaces(former) => Some(former),
            Installed::Refused => {
                tracing::warn!(%replica, %peer, "a second link with a replica was closed: the first one stays");
                return Rolled::Refused(replica);
            }
        };
        if replaces.is_some() {
            tracing::warn!(
                %replica, %peer,
                "a link with a replica takes the place of its former one: where this happens again and again, two \
                 processes have the same id"
            );
        }
        Rolled::Taken { id, link, replaces }
    }

    /// Notes that a link has ended, and tells whether it was its replica's. The late end of one that was replaced
    /// changes nothing.
    pub fn remove(&mut self, replica: ReplicaId, id: LinkId) -> bool {
        self.links.remove(replica, id)
    }

    /// The link with a replica.
    #[must_use]
    pub fn get(&self, replica: ReplicaId) -> Option<LinkId> {
        self.links.get(replica)
    }
}
