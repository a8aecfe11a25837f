//! The numbers of a node: those it gives out, and those of the others (peer-rpc 7).

mod shared;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

pub use self::shared::PeerLedger;
use super::{
    NodeId,
    window::{ReplayError, ReplayWindow},
};
use crate::limits::{PEERS_MAX, REPLAY_WINDOW};

/// The counter that all outgoing messages of a process draw from, requests and answers, whatever their target.
///
/// Each start of a node begins at a higher boot epoch, so that peers which remember numbers of the former start do not
/// refuse the new ones. There are 2^44 numbers in an epoch, and about a million epochs.
#[derive(Debug, Default)]
pub struct Outbound(AtomicU64);

impl Outbound {
    /// A counter in a boot epoch. The caller has made the epoch durable before, and never hands in one twice; 0 is the
    /// reference's counter without epochs.
    #[must_use]
    pub fn new(boot_epoch: u64) -> Self {
        Self(AtomicU64::new(first_of(boot_epoch)))
    }

    /// Takes a number. None is given twice, and 0 never.
    ///
    /// # Errors
    /// [`NumbersSpent`] after 2^64 - 1.
    pub fn take(&self) -> Result<u64, NumbersSpent> {
        let next = |last: u64| last.checked_add(1);
        let last = self.0.fetch_update(Relaxed, Relaxed, next);
        last.ok().and_then(next).ok_or(NumbersSpent)
    }

    /// Moves to a boot epoch; never back.
    pub fn enter(&self, boot_epoch: u64) {
        self.0.fetch_max(first_of(boot_epoch), Relaxed);
    }
}

/// There are no more numbers: this node's epoch was set to nonsense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all message numbers are spent")]
pub struct NumbersSpent;

/// Judges the numbers of nodes that proved who they are.
pub trait Numbers {
    /// Takes a number of this node's, once, of a message that is not bound to its connection.
    ///
    /// # Errors
    /// [`NumberRefused`]
    fn accept(&mut self, from: NodeId, seq: u64) -> Result<(), NumberRefused>;
}

/// Why a number is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberRefused {
    /// It is no good: the peer's fault, or somebody repeats what the peer sent.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// More nodes send than a cluster has: this node's limit.
    #[error("no room for the replay window of another node")]
    NoWindow,
}

/// The replay windows of the nodes that proved who they are: a plain value. [`PeerLedger`] is what connections share.
#[derive(Clone, Debug, Default)]
pub struct Windows {
    of: BTreeMap<NodeId, ReplayWindow>,
}

impl Windows {
    /// The window of a node whose identity was accepted; none where [`PEERS_MAX`] others have one.
    pub fn of(&mut self, node: NodeId) -> Option<&mut ReplayWindow> {
        if self.of.len() >= PEERS_MAX && !self.of.contains_key(&node) {
            return None;
        }
        let fresh = || ReplayWindow::new(REPLAY_WINDOW);
        Some(self.of.entry(node).or_insert_with(fresh))
    }

    /// Forgets a node that left the cluster. While it is a member its window stays: a reconnection resets nothing.
    pub fn forget(&mut self, node: NodeId) {
        self.of.remove(&node);
    }

    /// The largest step of each node's numbers, for the metric `peer_rpc_replay_window_jump`.
    pub fn jumps(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.of.iter().map(|(node, w)| (*node, w.jump_max()))
    }
}

impl Numbers for Windows {
    fn accept(&mut self, from: NodeId, seq: u64) -> Result<(), NumberRefused> {
        let window = self.of(from).ok_or(NumberRefused::NoWindow)?;
        Ok(window.accept_plain(seq)?)
    }
}

fn first_of(boot_epoch: u64) -> u64 {
    boot_epoch.saturating_mul(NUMBERS_PER_BOOT)
}

/// Numbers of one boot epoch (peer-rpc 7.3).
const NUMBERS_PER_BOOT: u64 = 1 << 44;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_at_one_and_epochs_behind_them() {
        let out = Outbound::new(0);
        assert_eq!([out.take(), out.take()], [Ok(1), Ok(2)]);
        assert_eq!(Outbound::new(3).take(), Ok(3 * (1 << 44) + 1));
    }

    #[test]
    fn an_epoch_never_moves_the_counter_back() {
        let out = Outbound::new(2);
        out.take().unwrap();
        out.enter(1);
        assert_eq!(out.take(), Ok((2 << 44) + 2));
        out.enter(2);
        assert_eq!(out.take(), Ok((2 << 44) + 3));
        out.enter(5);
        assert_eq!(out.take(), Ok((5 << 44) + 1));
    }

    #[test]
    fn the_last_number_is_followed_by_an_error_and_not_by_zero() {
        let out = Outbound::new(u64::MAX);
        assert_eq!(out.take(), Err(NumbersSpent));
        let out = Outbound(AtomicU64::new(u64::MAX - 1));
        assert_eq!(out.take(), Ok(u64::MAX));
        assert_eq!(out.take(), Err(NumbersSpent));
    }

    #[test]
    fn a_restarted_sender_is_heard_at_once() {
        let mut windows = Windows::default();
        let first = Outbound::new(1);
        let window = windows.of(NodeId(1)).unwrap();
        for _ in 0..1000 {
            window.accept(first.take().unwrap()).unwrap();
        }
        let again = Outbound::new(2);
        assert_eq!(window.accept(again.take().unwrap()), Ok(()));
    }

    #[test]
    fn windows_are_apart_and_bounded() {
        let mut windows = Windows::default();
        for node in 0..PEERS_MAX as u64 {
            windows.of(NodeId(node)).unwrap().accept(7).unwrap();
        }
        assert!(windows.of(NodeId(1 << 40)).is_none());
        assert!(windows.of(NodeId(3)).is_some());
        windows.forget(NodeId(3));
        let fresh = windows.of(NodeId(1 << 40)).unwrap();
        assert_eq!(fresh.high(), 0);
        assert_eq!(windows.jumps().count(), PEERS_MAX);
    }
}
