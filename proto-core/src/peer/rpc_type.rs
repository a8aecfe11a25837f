//! What kind of message a frame carries (peer-rpc 5.3).

/// The kinds that this side knows. Values are stable for ever and never used twice.
///
/// Bodies are opaque here, and adit's own: a kind says which request a response answers, and how a call may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub enum RpcType {
    AppendEntries = 1,
    AppendEntriesAnswer = 2,
    RequestVote = 3,
    RequestVoteAnswer = 4,
    InstallSnapshot = 5,
    InstallSnapshotAnswer = 6,
    Join = 7,
    JoinAnswer = 8,
    Ping = 9,
    Pong = 10,
    TopologyUpdate = 11,
    TopologyAck = 12,
    /// Request and answer alike.
    ShardEnvelope = 15,
    MetadataPropose = 16,
    MetadataProposeAnswer = 17,
    Execute = 18,
    ExecuteAnswer = 19,
    DataPropose = 20,
    DataProposeAnswer = 21,
    /// One way: its answer is the end of the stream.
    TimeoutNow = 40,
    PreVote = 45,
    PreVoteAnswer = 46,
    ReadIndex = 47,
    ReadIndexAnswer = 48,
    /// An adit extension: what the sender holds (see `docs/protocol-peer.md`).
    Catalogue = 251,
    /// An adit extension: what the receiver knows of that.
    CatalogueAnswer = 252,
    /// An adit extension: asks for a new beginning of the replay window (see `docs/protocol-peer.md`).
    WindowReset = 253,
    /// An adit extension: the window begins anew.
    WindowResetAnswer = 254,
    /// An adit extension: a typed refusal, in the place of any answer.
    Refusal = 255,
}

/// A byte that names no kind: the peer's fault, or a later version's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RpcTypeError {
    /// The value was given up and must never be used again.
    #[error("rpc type {0} is retired")]
    Retired(u8),
    /// The value is not known here.
    #[error("rpc type {0} is unknown")]
    Unknown(u8),
}

impl RpcType {
    /// Every kind.
    pub const ALL: [Self; 29] = [
        Self::AppendEntries,
        Self::AppendEntriesAnswer,
        Self::RequestVote,
        Self::RequestVoteAnswer,
        Self::InstallSnapshot,
        Self::InstallSnapshotAnswer,
        Self::Join,
        Self::JoinAnswer,
        Self::Ping,
        Self::Pong,
        Self::TopologyUpdate,
        Self::TopologyAck,
        Self::ShardEnvelope,
        Self::MetadataPropose,
        Self::MetadataProposeAnswer,
        Self::Execute,
        Self::ExecuteAnswer,
        Self::DataPropose,
        Self::DataProposeAnswer,
        Self::TimeoutNow,
        Self::PreVote,
        Self::PreVoteAnswer,
        Self::ReadIndex,
        Self::ReadIndexAnswer,
        Self::Catalogue,
        Self::CatalogueAnswer,
        Self::WindowReset,
        Self::WindowResetAnswer,
        Self::Refusal,
    ];

    /// The byte in the frame.
    #[must_use]
    pub const fn value(self) -> u8 {
        self as u8
    }

    /// What answers it; none for answers, and for a request that goes one way.
    #[must_use]
    pub fn answer(self) -> Option<Self> {
        Some(match self {
            Self::AppendEntries => Self::AppendEntriesAnswer,
            Self::RequestVote => Self::RequestVoteAnswer,
            Self::InstallSnapshot => Self::InstallSnapshotAnswer,
            Self::Join => Self::JoinAnswer,
            Self::Ping => Self::Pong,
            Self::TopologyUpdate => Self::TopologyAck,
            Self::ShardEnvelope => Self::ShardEnvelope,
            Self::MetadataPropose => Self::MetadataProposeAnswer,
            Self::Execute => Self::ExecuteAnswer,
            Self::DataPropose => Self::DataProposeAnswer,
            Self::PreVote => Self::PreVoteAnswer,
            Self::ReadIndex => Self::ReadIndexAnswer,
            Self::Catalogue => Self::CatalogueAnswer,
            Self::WindowReset => Self::WindowResetAnswer,
            Self::AppendEntriesAnswer
            | Self::RequestVoteAnswer
            | Self::InstallSnapshotAnswer
            | Self::JoinAnswer
            | Self::Pong
            | Self::TopologyAck
            | Self::MetadataProposeAnswer
            | Self::ExecuteAnswer
            | Self::DataProposeAnswer
            | Self::TimeoutNow
            | Self::PreVoteAnswer
            | Self::ReadIndexAnswer
            | Self::CatalogueAnswer
            | Self::WindowResetAnswer
            | Self::Refusal => return None,
        })
    }

    /// Tells whether it may come as a request.
    #[must_use]
    pub fn is_request(self) -> bool {
        self.answer().is_some() || self == Self::TimeoutNow
    }

    /// Tells whether a request that may have been executed can be sent again without harm (peer-rpc 9.3). What Raft
    /// itself repeats is; a proposal or an execution is not, as it would take effect twice. A catalogue is told again by
    /// its own clock, so that nothing old is sent.
    #[must_use]
    pub fn is_idempotent(self) -> bool {
        match self {
            Self::AppendEntries
            | Self::RequestVote
            | Self::InstallSnapshot
            | Self::Join
            | Self::Ping
            | Self::TopologyUpdate
            | Self::PreVote
            | Self::ReadIndex => true,
            Self::AppendEntriesAnswer
            | Self::RequestVoteAnswer
            | Self::InstallSnapshotAnswer
            | Self::JoinAnswer
            | Self::Pong
            | Self::TopologyAck
            | Self::ShardEnvelope
            | Self::MetadataPropose
            | Self::MetadataProposeAnswer
            | Self::Execute
            | Self::ExecuteAnswer
            | Self::DataPropose
            | Self::DataProposeAnswer
            | Self::TimeoutNow
            | Self::PreVoteAnswer
            | Self::ReadIndexAnswer
            | Self::Catalogue
            | Self::CatalogueAnswer
            | Self::WindowReset
            | Self::WindowResetAnswer
            | Self::Refusal => false,
        }
    }
}

impl TryFrom<u8> for RpcType {
    type Error = RpcTypeError;

    fn try_from(value: u8) -> Result<Self, RpcTypeError> {
        match Self::ALL.iter().find(|known| known.value() == value) {
            Some(known) => Ok(*known),
            None if RETIRED.contains(&value) => Err(RpcTypeError::Retired(value)),
            None => Err(RpcTypeError::Unknown(value)),
        }
    }
}

/// The former forward request and response.
const RETIRED: [u8; 2] = [13, 14];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_a_kind_or_refused() {
        let mut known = 0;
        for value in 0..=255 {
            match RpcType::try_from(value) {
                Ok(kind) => {
                    assert_eq!(kind.value(), value);
                    known += 1;
                }
                Err(RpcTypeError::Retired(v)) => assert!(v == value && (13..=14).contains(&v)),
                Err(RpcTypeError::Unknown(v)) => assert_eq!(v, value),
            }
        }
        assert_eq!(known, RpcType::ALL.len());
    }

    #[test]
    fn answers_are_not_answered_except_where_both_are_one() {
        for kind in RpcType::ALL {
            if let Some(answer) = kind.answer() {
                let alike = kind == RpcType::ShardEnvelope;
                assert_eq!(answer.is_request(), alike, "{kind:?}");
            }
        }
        assert_eq!(RpcType::Ping.answer(), Some(RpcType::Pong));
        assert!(RpcType::TimeoutNow.is_request() && RpcType::TimeoutNow.answer().is_none());
        assert!(!RpcType::Refusal.is_request());
    }

    #[test]
    fn only_requests_are_repeated_and_none_that_takes_effect() {
        for kind in RpcType::ALL.into_iter().filter(|k| k.is_idempotent()) {
            assert!(kind.is_request(), "{kind:?}");
        }
        assert!(!RpcType::DataPropose.is_idempotent() && !RpcType::Execute.is_idempotent());
    }
}
