//! What all connections of a node share: its numbers, its windows, its keys, its epoch (design 8.18).
#![expect(
    clippy::disallowed_types,
    reason = "the one value that connections on several threads share (design 8.18)"
)]

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{NumberRefused, Numbers, NumbersSpent, Outbound};
use crate::{
    limits::{
        PEERS_MAX, REPLAY_WINDOW, RPC_UNREAD_IN_ALL, RPC_UNREAD_OF_A_KIND,
        RPC_UNREAD_UNPROVED_IN_ALL,
    },
    peer::{
        NodeId,
        budget::Budget,
        counters::{AuthFail, PeerCounters},
        disbelief::Disbelief,
        epoch::{EpochHook, StaleEpoch},
        key::{KeyError, KeyRing},
        receive::{Callee, Identified, ReceiveError, Refused, Request},
        window::ReplayWindow,
    },
};

/// One per node, in an `Arc`: every connection of the node judges by it, whichever thread it is on.
///
/// Locks are held for single looks and changes, and across no call to outside but the application's [`EpochHook`], which may
/// not wait; a node's window has a lock of its own, so that no node waits for another (peer-rpc 7.5).
pub struct PeerLedger {
    outbound: Outbound,
    windows: Mutex<BTreeMap<NodeId, Arc<Mutex<ReplayWindow>>>>,
    keys: Mutex<Arc<KeyRing>>,
    epochs: Mutex<Box<dyn EpochHook + Send>>,
    unread: Budget,
    requests: Budget,
    strangers: Budget,
    answers: Budget,
    counters: Mutex<PeerCounters>,
    disbelief: Mutex<Disbelief>,
}

impl PeerLedger {
    /// Begins in a boot epoch, see [`Outbound::new`], with these keys and without windows.
    #[must_use]
    pub fn new(boot_epoch: u64, keys: KeyRing, epochs: Box<dyn EpochHook + Send>) -> Self {
        let unread = Budget::new(RPC_UNREAD_IN_ALL);
        let requests = unread.child(RPC_UNREAD_OF_A_KIND);
        Self {
            strangers: Budget::new(RPC_UNREAD_UNPROVED_IN_ALL),
            requests,
            answers: unread.child(RPC_UNREAD_OF_A_KIND),
            unread,
            outbound: Outbound::new(boot_epoch),
            windows: Mutex::default(),
            keys: Mutex::new(Arc::new(keys)),
            epochs: Mutex::new(epochs),
            counters: Mutex::default(),
            disbelief: Mutex::default(),
        }
    }

    /// Exchanges keys: what `change` does to the ring takes effect with the next message of every connection.
    ///
    /// # Errors
    /// That of `change`; the ring is as it was.
    pub fn change_keys(
        &self,
        change: impl FnOnce(&mut KeyRing) -> Result<(), KeyError>,
    ) -> Result<(), KeyError> {
        let mut keys = locked(&self.keys);
        let mut changed = KeyRing::clone(&keys);
        change(&mut changed)?;
        *keys = Arc::new(changed);
        Ok(())
    }

    /// The keys of this moment.
    #[must_use]
    pub fn keys(&self) -> Arc<KeyRing> {
        Arc::clone(&locked(&self.keys))
    }

    /// Takes the next number of this node.
    ///
    /// # Errors
    /// [`NumbersSpent`]
    pub fn number(&self) -> Result<u64, NumbersSpent> {
        self.outbound.take()
    }

    /// Moves to a boot epoch; never back.
    pub fn enter(&self, boot_epoch: u64) {
        self.outbound.enter(boot_epoch);
    }

    /// The budget of the process: all that envelopes of peers hold or have declared, until the application lets go of their
    /// bodies.
    #[must_use]
    pub fn unread(&self) -> &Budget {
        &self.unread
    }

    /// The part of requests.
    pub(crate) fn unread_requests(&self) -> &Budget {
        &self.requests
    }

    /// What those may take of it together, until it is whole, who have proved nothing yet. It is charged beside the part of
    /// requests, so that what is accepted stays charged there and leaves room here.
    pub(crate) fn unread_of_strangers(&self) -> &Budget {
        &self.strangers
    }

    /// The part of answers, so that no request of a peer keeps an answer out.
    pub(crate) fn unread_answers(&self) -> &Budget {
        &self.answers
    }

    /// Forgets a node that left the cluster.
    pub fn forget(&self, node: NodeId) {
        locked(&self.windows).remove(&node);
        locked(&self.disbelief).forget(node);
    }

    /// The highest number that came from a node; 0 where none did.
    #[must_use]
    pub fn high(&self, node: NodeId) -> u64 {
        let window = locked(&self.windows).get(&node).cloned();
        window.map_or(0, |window| locked(&window).high())
    }

    /// The largest step of each node's numbers, for the metric `peer_rpc_replay_window_jump`.
    #[must_use]
    pub fn jumps(&self) -> Vec<(NodeId, u64)> {
        let windows = locked(&self.windows).clone();
        let jumps = windows.into_iter();
        jumps
            .map(|(node, window)| (node, locked(&window).jump_max()))
            .collect()
    }

    /// Copies the counters.
    #[must_use]
    pub fn counters(&self) -> PeerCounters {
        locked(&self.counters).clone()
    }

    /// Says whose messages were not believed.
    #[must_use]
    pub fn disbelief(&self) -> Disbelief {
        locked(&self.disbelief).clone()
    }

    /// A message on the connection of a node, or of nobody that records know, was not believed.
    pub(crate) fn disbelieve(&self, node: Option<NodeId>, remote: SocketAddr, reason: AuthFail) {
        locked(&self.disbelief).note(node, remote, reason);
    }

    /// Counts something.
    pub(crate) fn count(&self, count: impl FnOnce(&mut PeerCounters)) {
        count(&mut locked(&self.counters));
    }

    /// The last steps of [`Callee::receive`], with this node's windows.
    pub(crate) fn admit(
        &self,
        callee: &mut Callee,
        identified: Identified,
    ) -> Result<Request, Refused> {
        let no_window = identified.refused(ReceiveError::NoWindow);
        let window = self.window(identified.from()).ok_or(no_window)?;
        let mut epochs = self;
        callee.admit(identified, &mut locked(&window), &mut epochs)
    }

    fn window(&self, node: NodeId) -> Option<Arc<Mutex<ReplayWindow>>> {
        let mut windows = locked(&self.windows);
        if windows.len() >= PEERS_MAX && !windows.contains_key(&node) {
            return None;
        }
        let fresh = || Arc::new(Mutex::new(ReplayWindow::new(REPLAY_WINDOW)));
        Some(Arc::clone(windows.entry(node).or_insert_with(fresh)))
    }
}

impl Numbers for &PeerLedger {
    fn accept(&mut self, from: NodeId, seq: u64) -> Result<(), NumberRefused> {
        let window = self.window(from).ok_or(NumberRefused::NoWindow)?;
        Ok(locked(&window).accept_plain(seq)?)
    }
}

impl EpochHook for &PeerLedger {
    fn stamp(&self) -> u64 {
        locked(&self.epochs).stamp()
    }

    fn admit(&mut self, rpc_type: u8, epoch: u64) -> Result<(), StaleEpoch> {
        locked(&self.epochs).admit(rpc_type, epoch)
    }
}

impl fmt::Debug for PeerLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerLedger(..)")
    }
}

/// What a lock guards is whole after every change, so that a thread which panicked leaves nothing broken.
fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        limits::RPC_LEN_MAX,
        peer::{
            bed,
            envelope::Layout,
            epoch::EpochMark,
            key::{ClusterSecret, KeyId},
            reader::{EnvelopeReader, Terms},
        },
    };

    fn ledger() -> PeerLedger {
        PeerLedger::new(1, bed::ring(), Box::new(EpochMark::new(5)))
    }

    #[test]
    fn windows_are_apart_bounded_and_seen_by_all() {
        let ledger = ledger();
        let (mut one, mut two) = (&ledger, &ledger);
        assert_eq!(one.accept(NodeId(1), 7), Ok(()));
        assert!(matches!(
            two.accept(NodeId(1), 7),
            Err(NumberRefused::Replay(_))
        ));
        assert_eq!(two.accept(NodeId(2), 7), Ok(()));
        assert_eq!((ledger.high(NodeId(1)), ledger.high(NodeId(3))), (7, 0));
        for node in 3..=PEERS_MAX as u64 {
            assert_eq!(one.accept(NodeId(node), 1), Ok(()));
        }
        let full = one.accept(NodeId(1 << 40), 1);
        assert_eq!(full, Err(NumberRefused::NoWindow));
        ledger.forget(NodeId(1));
        assert_eq!(one.accept(NodeId(1 << 40), 1), Ok(()));
        assert_eq!(ledger.jumps().len(), PEERS_MAX);
    }

    #[test]
    fn whoever_has_proved_nothing_leaves_room_for_who_has() {
        let ledger = ledger();
        let requests = ledger.unread_requests();
        let stranger = |len: u64| {
            let terms = Terms::Taken(ledger.unread_of_strangers().clone());
            let mut reader = EnvelopeReader::new(Layout::Plain, requests.clone(), terms);
            let mut header = [0; 21];
            header[0] = 1;
            header[17..].copy_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
            reader.feed(&header).unwrap();
            reader
                .feed(&vec![0; usize::try_from(len).unwrap()])
                .map(|()| reader)
        };
        let len = u64::from(RPC_LEN_MAX);
        let held: Vec<_> = (0..4).map(|_| stranger(len).unwrap()).collect();
        assert!(stranger(1 << 20).is_err(), "that is all for those");
        let left = RPC_UNREAD_OF_A_KIND - RPC_UNREAD_UNPROVED_IN_ALL;
        assert!(left >= RPC_UNREAD_OF_A_KIND / 2);
        assert!(requests.charge(left).is_some());
        drop(held);
        assert_eq!(ledger.unread().used(), 0);
    }

    #[test]
    fn keys_change_all_at_once_or_not() {
        let ledger = ledger();
        let before = ledger.keys();
        let secret = || ClusterSecret::new([9; 32]).unwrap();
        let failed = ledger.change_keys(|ring| {
            ring.add(KeyId(9), secret())?;
            ring.retire(KeyId(77))
        });
        assert_eq!(failed, Err(KeyError::Unknown(KeyId(77))));
        assert!(ledger.keys().by_id(KeyId(9)).is_none());
        let added = ledger.change_keys(|ring| ring.add(KeyId(9), secret()));
        assert_eq!(added, Ok(()));
        assert!(ledger.keys().by_id(KeyId(9)).is_some());
        assert!(before.by_id(KeyId(9)).is_none(), "who reads keeps its ring");
    }

    #[test]
    fn numbers_and_epochs_are_the_nodes() {
        let ledger = ledger();
        assert_eq!(ledger.number(), Ok((1 << 44) + 1));
        ledger.enter(2);
        assert_eq!(ledger.number(), Ok((2 << 44) + 1));
        let mut hook = &ledger;
        assert_eq!(EpochHook::admit(&mut hook, 1, 9), Ok(()));
        assert_eq!(hook.stamp(), 9);
    }
}
