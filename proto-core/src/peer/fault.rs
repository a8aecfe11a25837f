//! How a peer broke the protocol so that its connection ends.

use super::{
    PeerClose, frame::FrameError, negotiate::NegotiationError, response::ResponseError,
    verdict::IdentityError,
};

/// The peer's fault, or what passes for it: each ends the connection with a close of its own (peer-rpc 2).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RpcFault {
    /// The version handshake failed.
    #[error(transparent)]
    Negotiation(#[from] NegotiationError),
    /// The peer is not who it says, or not whom this node dialled.
    #[error("the peer's identity is not accepted: {0}")]
    Identity(#[from] IdentityError),
    /// An answer came from somebody else.
    #[error("an answer is not believed: {0}")]
    Answer(#[from] ResponseError),
    /// A frame of another version, from a node whose identity was accepted.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A connection on which nothing was asked that could be accepted: the peer has no use for it, or not the cluster's key.
    #[error("no request was accepted in time")]
    Unproved,
    /// The engine cannot name the connection's secret: a fault of ours.
    #[error("TLS exports no secret for this connection")]
    NoSecret,
}

impl RpcFault {
    /// How the connection is closed.
    #[must_use]
    pub fn close(&self) -> PeerClose {
        match self {
            Self::Negotiation(error) => error.close(),
            Self::Identity(_) => PeerClose::IdentityMismatch,
            Self::Answer(error) => error.close().unwrap_or(PeerClose::Shutdown),
            Self::Frame(error) => PeerClose::version(error),
            Self::Unproved | Self::NoSecret => PeerClose::Shutdown,
        }
    }
}
