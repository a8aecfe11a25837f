//! What can be wrong with a header or its answer.

use crate::{peer::NodeId, target::TargetError};

/// Why a header or an answer is no good. The stream is of no further use; what is `Mac`, `From` or `To` was sent by
/// somebody who may not send it, the rest is the peer's mistake or another version's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// Another version of header or answer.
    #[error(
        "version {got} of a forwarded session; this node speaks {}",
        super::VERSION
    )]
    Version {
        /// The first byte.
        got: u8,
    },
    /// The session came to the sender from a peer already, or was never counted: a session goes one hop.
    #[error("hop {got} of a forwarded session; a session goes one hop")]
    Hop {
        /// What the header says.
        got: u8,
    },
    /// The target's text is empty or too long.
    #[error(
        "target of {got} bytes; 1 to {} are allowed",
        crate::limits::FORWARD_TARGET_LEN_MAX
    )]
    TargetLen {
        /// The length in the header.
        got: u16,
    },
    /// The user's text is too long.
    #[error(
        "origin of {got} bytes; at most {} are allowed",
        crate::limits::FORWARD_ORIGIN_LEN_MAX
    )]
    OriginLen {
        /// The length in the header.
        got: u16,
    },
    /// The tag does not verify: another cluster, another connection, a key that this node does not have, or damage.
    #[error("the tag of a forwarded session does not verify")]
    Mac,
    /// The header speaks for another node than the one whose certificate the connection has.
    #[error("node {got} on the connection of node {expected}")]
    From {
        /// The node in the header.
        got: NodeId,
        /// The node of the connection.
        expected: NodeId,
    },
    /// The header is for another node.
    #[error("for node {got}; this is node {expected}")]
    To {
        /// The node in the header.
        got: NodeId,
        /// This node.
        expected: NodeId,
    },
    /// The target is none.
    #[error("target of a forwarded session: {0}")]
    Target(#[from] TargetError),
    /// A text is not UTF-8.
    #[error("a text of a forwarded session is not UTF-8")]
    NotUtf8,
    /// An answer of a status that this side does not know.
    #[error("unknown status {0} of a forwarded session")]
    Status(u8),
    /// The reason of an answer is too long.
    #[error(
        "reason of {got} bytes; at most {} are allowed",
        crate::limits::REASON_LEN_MAX
    )]
    ReasonLen {
        /// The length in the answer.
        got: u16,
    },
    /// A header on a sealed link names a key, where no tag is.
    #[error("key {got} in the header of a forwarded session that has no tag")]
    KeyId {
        /// What the header says.
        got: u8,
    },
    /// A record has more than the header or the answer that it is.
    #[error("bytes behind the header or the answer of a forwarded session")]
    Behind,
    /// The stream ended before the header or the answer was whole.
    #[error("the stream ended within the header of a forwarded session")]
    Truncated,
}
