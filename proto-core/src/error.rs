//! Errors of the core, each saying who is to blame (style 9).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Bytes that are not a message: the peer's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DecodeError {
    /// The length prefix of a frame is above the limit of its channel (agent-tunnel 5).
    #[error("message of {size} bytes exceeds the limit of {max} bytes")]
    MessageTooLarge {
        /// Length that the prefix claims, in bytes.
        size: u64,
        /// Limit of the channel, in bytes.
        max: u64,
    },
    /// A payload ends before the field that it promises.
    #[error("message ends early: {expected} more bytes expected")]
    Truncated {
        /// Bytes that the next field needs; informative only.
        expected: u64,
    },
    /// The first byte of a payload, or the result byte of a renewal response, names no message.
    #[error("unknown message tag {tag:#04x}")]
    UnknownTag {
        /// The byte.
        tag: u8,
    },
    /// A field holds what it may not hold.
    #[error("field `{field}` is not valid: {reason}")]
    InvalidField {
        /// `string`, `subnet` or `domain`.
        field: Cow<'static, str>,
        /// What is wrong with it.
        reason: Cow<'static, str>,
    },
    /// The message is of a protocol version that is not spoken here (agent-tunnel 8).
    #[error("protocol version {received} is not supported, only {min} to {max}")]
    UnsupportedVersion {
        /// Version in the message.
        received: u16,
        /// Lowest version spoken here.
        min: u16,
        /// Highest version spoken here.
        max: u16,
    },
    /// The stream ended inside a frame, or before one that had to come.
    #[error("stream ended inside a message")]
    UnexpectedEnd,
}

/// A message that its own sender made too large: the caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message of {size} bytes exceeds the limit of {max} bytes")]
pub struct EncodeError {
    /// Length of the payload, in bytes.
    pub size: usize,
    /// Limit of the channel, in bytes.
    pub max: usize,
}
