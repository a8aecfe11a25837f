//! What happens among peers: each fact goes to the trace and to the oracles.

use std::{fmt, net::SocketAddr};

use adit_proto_core::{
    id::{CallId, ConnId},
    output::Event,
    peer::{NodeId as PeerId, node::CallError, rpc_type::RpcType},
};
use bytes::Bytes;

use crate::{At, net::Fate, trace::Topic};

/// Marks a body: no two requests that somebody wants have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Serial(pub u64);

impl Serial {
    /// Reads the mark of a request's body; none of one that nobody wanted.
    #[must_use]
    pub fn of(body: &[u8]) -> Option<Self> {
        body.first_chunk()
            .map(|bytes| Self(u64::from_le_bytes(*bytes)))
    }
}

/// Whose certificate an end of a connection has shown, as the world knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The node that the certificate belongs to; none of one that the topology does not know.
    pub node: Option<PeerId>,
    /// The process that holds it is a node's own and not the adversary's.
    pub is_honest: bool,
}

/// Whether an envelope of the adversary's making may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It is what an honest node could have sent.
    Good,
    /// Its key was given up, or never was one.
    OldKey,
    /// A bit of it was changed behind the tag's back.
    Spoilt,
    /// It is of a kind that is no request.
    NoRequest,
}

/// A request that a node's application is to execute.
#[derive(Debug)]
pub struct Executed<'a> {
    /// The connection that it came on.
    pub conn: ConnId,
    /// When that connection began here.
    pub since: At,
    /// Who dialled that connection.
    pub holder: Holder,
    /// Whoever dialled has said its whole hello.
    pub is_greeted: bool,
    /// Who asks, as the core says.
    pub from: PeerId,
    /// What is asked.
    pub kind: RpcType,
    /// The body.
    pub body: &'a Bytes,
    /// The application does what is asked, and does not refuse it.
    pub is_done: bool,
}

/// Something that happened.
#[derive(Debug)]
pub enum Fact<'a> {
    /// A datagram left.
    Sent {
        /// Source and destination.
        ends: (SocketAddr, SocketAddr),
        /// The payload.
        data: &'a [u8],
        /// What became of it.
        fate: Fate,
    },
    /// A datagram came.
    Received {
        /// The source.
        src: SocketAddr,
        /// The payload.
        data: &'a [u8],
    },
    /// A process began.
    Started {
        /// Its boot epoch.
        boot: u64,
        /// The epoch before was lost.
        is_lost: bool,
    },
    /// A process ended.
    Ended,
    /// The script did something.
    Fault(String),
    /// Nothing disturbs any more.
    Calm,
    /// A connection spoke.
    Event(ConnId, &'a Event),
    /// An application wants an answer.
    Wish {
        /// Its mark.
        serial: Serial,
        /// Of whom.
        to: PeerId,
        /// The node that it asks is the adversary's.
        is_exposed: bool,
        /// What is asked.
        kind: RpcType,
    },
    /// The core makes an attempt: one envelope.
    Attempt {
        /// Its mark.
        serial: Serial,
        /// Its name.
        call: CallId,
    },
    /// A call is over.
    Outcome {
        /// Its mark.
        serial: Serial,
        /// Who was asked.
        to: PeerId,
        /// What was asked.
        kind: RpcType,
        /// The answer.
        outcome: &'a Result<Bytes, CallError>,
    },
    /// The adversary made an envelope for a node, which it sends as often as it likes.
    Made {
        /// Its mark.
        serial: Serial,
        /// May it be taken?
        made: Made,
    },
    /// A request came through every check.
    Executed(Executed<'a>),
    /// A node shows another certificate from here on.
    Certified(PeerId),
    /// Nobody has a node's former certificates in its records any more.
    Distrusted(PeerId),
    /// A pair of nodes that nothing disturbs spoke.
    Talked {
        /// Who answered.
        with: PeerId,
        /// Time since nothing disturbs them any more.
        after: At,
    },
    /// A replica's handshake is over.
    Linked(super::replica::Linked),
    /// What came of a link behind its handshake.
    Carried(super::replica::Carried),
}

impl Fact<'_> {
    /// What it is about.
    #[must_use]
    pub fn topic(&self) -> Topic {
        match self {
            Fact::Sent { .. } | Fact::Received { .. } => Topic::Network,
            Fact::Event(..) | Fact::Linked(_) | Fact::Carried(_) => Topic::Events,
            Fact::Started { .. }
            | Fact::Ended
            | Fact::Fault(_)
            | Fact::Calm
            | Fact::Certified(_)
            | Fact::Distrusted(_) => Topic::Faults,
            Fact::Wish { .. }
            | Fact::Attempt { .. }
            | Fact::Outcome { .. }
            | Fact::Made { .. }
            | Fact::Executed(_)
            | Fact::Talked { .. } => Topic::Sessions,
        }
    }

    /// Bytes that are hashed as they are.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        match self {
            Fact::Sent { data, .. } | Fact::Received { data, .. } => data,
            _ => &[],
        }
    }
}

impl fmt::Display for Fact<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::Sent { ends, data, fate } => {
                write!(
                    f,
                    "Sent {} > {}, {} bytes, {fate:?}",
                    ends.0,
                    ends.1,
                    data.len()
                )
            }
            Fact::Received { src, data } => write!(f, "Received from {src}, {} bytes", data.len()),
            other => write!(f, "{other:?}"),
        }
    }
}
