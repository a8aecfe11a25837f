//! The cluster epoch that every frame is stamped with (peer-rpc 5.2).

use super::rpc_type::RpcType;

/// What the transport asks about epochs. Whoever owns the cluster's state implements it; [`EpochMark`] is the reference's
/// behaviour.
pub trait EpochHook {
    /// The stamp of an outgoing frame.
    fn stamp(&self) -> u64;

    /// Takes note of the stamp of a frame whose sender's identity was accepted, or refuses the frame.
    ///
    /// # Errors
    /// [`StaleEpoch`], from a hook that fences.
    fn admit(&mut self, rpc_type: u8, epoch: u64) -> Result<(), StaleEpoch>;
}

/// A frame from before the epoch that this node knows: nobody's fault; the sender must catch up first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("peer is at epoch {peer}, this node at {local}")]
pub struct StaleEpoch {
    /// The frame's stamp.
    pub peer: u64,
    /// This node's mark.
    pub local: u64,
}

/// The highest epoch that was seen, per node and not per process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EpochMark {
    high: u64,
    fence: bool,
}

impl EpochMark {
    /// Begins at what was persisted; 0 at genesis. Frames are never refused.
    #[must_use]
    pub fn new(high: u64) -> Self {
        Self { high, fence: false }
    }

    /// Begins at what was persisted, and refuses lower stamps except those of joins and pings.
    #[must_use]
    pub fn fencing(high: u64) -> Self {
        Self { high, fence: true }
    }
}

impl EpochHook for EpochMark {
    fn stamp(&self) -> u64 {
        self.high
    }

    fn admit(&mut self, rpc_type: u8, epoch: u64) -> Result<(), StaleEpoch> {
        let exempt = EXEMPT.iter().any(|kind| kind.value() == rpc_type);
        if self.fence && !exempt && epoch < self.high {
            return Err(StaleEpoch {
                peer: epoch,
                local: self.high,
            });
        }
        self.high = self.high.max(epoch);
        Ok(())
    }
}

/// What a node that is behind may send to catch up.
const EXEMPT: [RpcType; 4] = [
    RpcType::Join,
    RpcType::JoinAnswer,
    RpcType::Ping,
    RpcType::Pong,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_only_rises() {
        let mut mark = EpochMark::new(5);
        for (epoch, high) in [(0, 5), (4, 5), (7, 7), (6, 7)] {
            assert_eq!(mark.admit(1, epoch), Ok(()));
            assert_eq!(mark.stamp(), high);
        }
    }

    #[test]
    fn a_fence_refuses_the_past_except_what_catches_up() {
        let mut mark = EpochMark::fencing(5);
        assert_eq!(mark.admit(1, 4), Err(StaleEpoch { peer: 4, local: 5 }));
        for kind in EXEMPT {
            assert_eq!(mark.admit(kind.value(), 4), Ok(()));
        }
        assert_eq!(mark.admit(1, 6), Ok(()));
        assert_eq!(mark.admit(1, 5), Err(StaleEpoch { peer: 5, local: 6 }));
    }
}
