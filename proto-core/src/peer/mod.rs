//! Authenticated RPC between gateways: codecs, judgements and small machines (peer-rpc).
//!
//! ```text
//! QUIC stream = one call: one envelope each way, then the end of the stream
//!   envelope = header, inner frame, HMAC-SHA256 tag        envelope, reader, key
//!   inner frame = header with CRC-32C and epoch, payload   frame, rpc_type
//! ```
//!
//! | Question | Module |
//! |---|---|
//! | which version does the peer speak | `hello`, `negotiate` |
//! | whose message is it, and may that node be here | `identity`, `verdict`, `receive` |
//! | was it here before | `window`, `ledger` |
//! | how much may wait unread | `budget` |
//! | which calls are under way, and until when | `calls` |
//! | which connection goes to which node, and when is one dialled | `node` |
//! | is it worth another attempt | `retry`, `breaker` |
//! | what adit adds where both sides offer it | `capabilities`, `bound`, `refusal` |
//! | is the peer there | `ping` |
//! | who holds which agents and routes | `catalogue`, `body` |
//! | which session is handed to another gateway | `forward` |
//!
//! Nothing here knows a stream: values are handed in. What all connections of a node share is one
//! [`PeerLedger`](ledger::PeerLedger), which alone has locks. Byte layouts beyond the specification are in `docs/protocol-peer.md`.
// Nothing a peer sends may panic; tests may.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

#[cfg(test)]
mod bed;
pub mod body;
pub mod bound;
pub mod breaker;
pub mod budget;
pub mod calls;
pub mod capabilities;
pub mod catalogue;
pub mod config;
pub mod counters;
pub mod directory;
pub mod disbelief;
pub mod envelope;
pub mod epoch;
pub mod event;
pub mod fault;
pub mod forward;
pub mod frame;
pub mod hello;
pub mod identity;
mod in_order;
pub mod interest;
pub mod key;
pub mod ledger;
mod msgpack;
pub mod negotiate;
pub mod node;
pub mod ping;
pub mod reader;
pub mod receive;
pub mod refusal;
pub mod response;
pub mod retry;
pub(crate) mod role;
pub mod rpc_type;
pub mod token;
pub mod verdict;
pub mod window;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits;

/// Names a node of the cluster; it stands in every envelope (peer-rpc 4.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// ALPN value of the peer RPC (peer-rpc 1.1).
pub const PEER_RPC_ALPN: &[u8] = b"nodedb-raft/1";
/// ALPN value of sessions that one gateway forwards to another, on the same endpoint (design 8.15).
pub const FORWARD_ALPN: &[u8] = b"adit-forward/1";
/// Name that a client asks for and every server's certificate is valid for, whatever address is dialled (peer-rpc 1.1).
pub const PEER_SERVER_NAME: &str = "nodedb";

/// An application close of a peer connection: code and reason, which is for logs only (peer-rpc 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerClose {
    /// Orderly shutdown.
    Shutdown,
    /// No common version, or a version handshake that failed; with the error's text.
    Version(String),
    /// A certificate that does not belong to the node that it speaks for.
    IdentityMismatch,
}

impl PeerClose {
    /// A close for a failed version handshake. The text is cut at the border of a character (peer-rpc 2).
    #[must_use]
    pub fn version(error: &dyn fmt::Display) -> Self {
        let mut text = error.to_string();
        text.truncate(text.floor_char_boundary(limits::PEER_REASON_LEN_MAX));
        Self::Version(text)
    }

    /// The application error code.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::Shutdown => 0x00,
            Self::Version(_) => 0x01,
            Self::IdentityMismatch => 0x02,
        }
    }

    /// The reason phrase.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Shutdown => "node shutdown",
            Self::Version(text) => text,
            Self::IdentityMismatch => "peer identity mismatch",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_between_characters() {
        let close = PeerClose::version(&"é".repeat(60));
        assert_eq!(close.reason(), "é".repeat(50));
        let close = PeerClose::version(&format!("x{}", "é".repeat(60)));
        assert_eq!(close.reason(), format!("x{}", "é".repeat(49)));
        assert_eq!(close.code(), 1);
        assert_eq!(PeerClose::version(&"short").reason(), "short");
    }

    #[test]
    fn closes_have_their_codes() {
        assert_eq!(PeerClose::Shutdown.code(), 0);
        assert_eq!(PeerClose::Shutdown.reason(), "node shutdown");
        assert_eq!(PeerClose::IdentityMismatch.code(), 2);
        assert_eq!(
            PeerClose::IdentityMismatch.reason(),
            "peer identity mismatch"
        );
    }
}
