//! Which connection is the link with each replica, when two claim to be.

use std::collections::BTreeMap;

use super::ReplicaId;

/// The one link with each replica. `L` names a connection, in the caller's words.
#[derive(Debug)]
pub struct Links<L> {
    duplicates: Duplicates,
    links: BTreeMap<ReplicaId, L>,
}

/// Which of two verified connections with one replica stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duplicates {
    /// The one that came last: its replica has just proven itself, and has no other that it uses. One that is half dead
    /// keeps nobody out.
    #[default]
    NewestWins,
    /// The one that came first, as the reference has it (replica-handshake 9): its end has to be noticed before another
    /// takes its place.
    FirstWins,
}

/// What comes of a connection that was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed<L> {
    /// It is the link.
    Alone,
    /// It is the link, and this one is to be closed.
    Replaces(L),
    /// It is to be closed: the link that there was stays.
    Refused,
}

impl<L: Copy + PartialEq> Links<L> {
    /// No links.
    #[must_use]
    pub fn new(duplicates: Duplicates) -> Self {
        Self {
            duplicates,
            links: BTreeMap::new(),
        }
    }

    /// Takes a connection with a verified replica.
    pub fn install(&mut self, replica: ReplicaId, link: L) -> Installed<L> {
        match (self.links.get(&replica), self.duplicates) {
            (None, _) => {
                self.links.insert(replica, link);
                Installed::Alone
            }
            (Some(former), Duplicates::NewestWins) => {
                let former = *former;
                self.links.insert(replica, link);
                Installed::Replaces(former)
            }
            (Some(_), Duplicates::FirstWins) => Installed::Refused,
        }
    }

    /// Takes a connection whose peer proved nothing, as where authentication is off. It never replaces another: anybody
    /// could end a link so.
    pub fn install_unverified(&mut self, replica: ReplicaId, link: L) -> Installed<L> {
        match self.links.contains_key(&replica) {
            true => Installed::Refused,
            false => self.install(replica, link),
        }
    }

    /// Notes the end of a connection, and tells whether it was its replica's link. The late end of one that was replaced
    /// changes nothing.
    pub fn remove(&mut self, replica: ReplicaId, link: L) -> bool {
        let is_link = self.get(replica) == Some(link);
        if is_link {
            self.links.remove(&replica);
        }
        is_link
    }

    /// The link with a replica.
    #[must_use]
    pub fn get(&self, replica: ReplicaId) -> Option<L> {
        self.links.get(&replica).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: ReplicaId = ReplicaId(3);

    #[test]
    fn the_newest_verified_connection_wins() {
        let mut links = Links::new(Duplicates::default());
        assert_eq!(links.install(PEER, 'a'), Installed::Alone);
        assert_eq!(links.install(ReplicaId(4), 'x'), Installed::Alone);
        assert_eq!(links.install(PEER, 'b'), Installed::Replaces('a'));
        // The end of the one that was replaced comes late.
        assert!(!links.remove(PEER, 'a'));
        assert_eq!(links.get(PEER), Some('b'));
        assert!(links.remove(PEER, 'b'));
        assert_eq!(
            (links.get(PEER), links.get(ReplicaId(4))),
            (None, Some('x'))
        );
    }

    #[test]
    fn the_first_wins_where_that_is_chosen() {
        let mut links = Links::new(Duplicates::FirstWins);
        assert_eq!(links.install(PEER, 'a'), Installed::Alone);
        assert_eq!(links.install(PEER, 'b'), Installed::Refused);
        assert!(!links.remove(PEER, 'b'));
        assert!(links.remove(PEER, 'a'));
        assert_eq!(links.install(PEER, 'b'), Installed::Alone);
    }

    #[test]
    fn who_proves_nothing_ends_no_link() {
        let mut links = Links::new(Duplicates::NewestWins);
        assert_eq!(links.install_unverified(PEER, 'a'), Installed::Alone);
        assert_eq!(links.install_unverified(PEER, 'b'), Installed::Refused);
        assert_eq!(links.install(PEER, 'c'), Installed::Replaces('a'));
    }
}
