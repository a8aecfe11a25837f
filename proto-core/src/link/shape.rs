//! What differs between the protocols' connections, as far as the engine is concerned.

use quinn_proto::Side;

use crate::limits;

/// What a connection's streams are for, and its windows as the engine was configured, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) streams: Streams,
    pub(crate) window: u64,
    pub(crate) send_window: u64,
}

impl Shape {
    /// A connection between agent and gateway.
    pub(crate) fn tunnel(window: u64) -> Self {
        Self {
            streams: Streams::Tunnel,
            window,
            send_window: limits::SEND_WINDOW,
        }
    }
}

/// Which side opens the streams that have a [`Slot`](crate::id::Slot), and whether there is one before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streams {
    /// Sessions are the server's, which is the gateway; the agent's first is control (agent-tunnel 2 and 4).
    Tunnel,
    /// Calls are the client's, behind its first for the version handshake (peer-rpc 3.1).
    Calls,
    /// Sessions are the client's.
    Forwarded,
}

impl Streams {
    /// Who opens those that have a slot.
    pub(super) fn opener(self) -> Side {
        match self {
            Self::Tunnel => Side::Server,
            Self::Calls | Self::Forwarded => Side::Client,
        }
    }

    /// The client's first stream is the control stream, or that of the version handshake.
    pub(super) fn begin_with_control(self) -> bool {
        match self {
            Self::Tunnel | Self::Calls => true,
            Self::Forwarded => false,
        }
    }
}
