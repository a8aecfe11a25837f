//! What goes in and out of endpoints and connections.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use bytes::Bytes;

use crate::{
    close::Closed,
    connection::Connection,
    gateway::AttemptError,
    id::{AttemptId, ConnId, SessionId, Slot},
    identity::AgentIdentity,
    link,
    peer::event::PeerEvent,
    route::RouteSet,
    target::Target,
};

/// The outside world did something to a connection.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every input is a datagram, which a box would cost an allocation each"
)]
pub enum Input {
    /// The endpoint has something for it: a datagram, or fresh connection ids.
    FromEndpoint(ToConnection),
    /// The deadline of [`Output::Wait`] has passed. Harmless when early.
    Timeout,
    /// The local socket was exchanged for another one.
    SocketRebound,
}

/// What a connection has to say; one totally ordered queue (style 2.2).
#[derive(Debug)]
pub enum Output {
    /// For the endpoint.
    Notice(ToEndpoint),
    /// For the application.
    Event(Event),
    /// Datagrams stand in the buffer, ready to be sent.
    Transmit(Transmit),
    /// Nothing more until the deadline or the next input.
    Wait(Option<Instant>),
}

/// A fact, with ids and small values, never bulk bytes.
#[derive(Debug)]
pub enum Event {
    /// The handshake is complete. At a gateway: who the agent is.
    Established {
        /// None at an agent.
        identity: Option<AgentIdentity>,
    },
    /// Gateway: the agent advertised a route set of a higher epoch (agent-tunnel 9).
    RoutesAccepted {
        /// Its epoch, 1 or more.
        epoch: u64,
        /// The whole set.
        routes: RouteSet,
    },
    /// Gateway: a heartbeat or a repeated advertisement came.
    Seen,
    /// Agent: the gateway asks for a session; answer with `AgentHandle::accept` or `refuse`.
    SessionRequested {
        /// Its place on this connection.
        slot: Slot,
        /// The gateway's name for it; several may carry the same (agent-tunnel 7.1).
        session: SessionId,
        /// Where it goes.
        target: Target,
    },
    /// Gateway: the agent has connected to the target.
    SessionOpened {
        /// The attempt that asked for it.
        attempt: AttemptId,
        /// Its place on this connection.
        slot: Slot,
    },
    /// Gateway: the attempt has failed.
    SessionRefused {
        /// The attempt.
        attempt: AttemptId,
        /// Why.
        cause: AttemptError,
    },
    /// There may be bytes, or the end, to read. At most one per session is queued.
    SessionReadable(Slot),
    /// There may be room to write. At most one per session is queued.
    SessionWritable(Slot),
    /// The connection was lost when this session lacked nothing but its reader: both ends are there, and these are the
    /// last bytes, behind those that were read; at most a stream's window and a share. Its clean end follows.
    SessionRest {
        /// The session.
        slot: Slot,
        /// In order.
        rest: VecDeque<Bytes>,
    },
    /// The session is over at this connection; once per session, and last for it. Not sent when the connection ends.
    SessionEnded {
        /// The session.
        slot: Slot,
        /// How.
        how: SessionEnd,
    },
    /// Nothing was acknowledged for a while: new sessions should go elsewhere (design 8.3).
    PathSuspect,
    /// The path works again.
    PathRecovered,
    /// Gateway: the agent asks for a new certificate; answer with `GatewayHandle::answer_renewal`.
    RenewalRequested {
        /// Certificate signing request, PEM; not verified.
        csr_pem: String,
    },
    /// Agent: the gateway has answered a renewal.
    RenewalAnswered(Result<Renewed, String>),
    /// Something of the peer RPC, between gateways.
    Peer(PeerEvent),
    /// The connection is over; exactly once, and the last event.
    Closed(Closed),
}

/// Certificates of a successful renewal, PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// The agent's certificate.
    pub client_cert_pem: String,
    /// The gateway's CA.
    pub gateway_ca_pem: String,
}

/// How a session ended on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// Both directions reached their clean end.
    Clean,
    /// The peer abandoned it with this code; the TCP side is to be closed hard.
    ResetByPeer(u64),
    /// This side abandoned it.
    ResetHere,
    /// This side abandoned it because much of it was unread, hardly any was read for long, and too much was unread on the
    /// connection, or on all of the endpoint's.
    NotRead {
        /// Less than [`UNREAD_SHARE`](crate::limits::UNREAD_SHARE) was read for so long, at least.
        unread_for: Duration,
    },
    /// The application did not answer the request in time; it was refused.
    Unanswered,
}

/// Datagrams to send. The bytes are in the [`TransmitBuf`] that was handed to the poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub destination: SocketAddr,
    /// ECN code point, two bits; none: not ECN-capable.
    pub ecn: Option<u8>,
    /// Bytes in all.
    pub size: usize,
    /// Bytes of each datagram but the last, where there are several.
    pub segment_size: Option<usize>,
    /// Source address to use, where it matters.
    pub src_ip: Option<IpAddr>,
}

/// How a datagram came.
#[derive(Clone, Copy, Debug)]
pub struct PathMeta {
    /// From where.
    pub remote: SocketAddr,
    /// To which local address, where known.
    pub local_ip: Option<IpAddr>,
    /// ECN code point, two bits.
    pub ecn: Option<u8>,
}

/// One batch of datagrams, owned by the driver. While it is occupied a poll yields no transmit, but still everything
/// else: a blocked socket must not stop timers.
#[derive(Debug)]
pub struct TransmitBuf {
    pub(crate) bytes: Vec<u8>,
    max_datagrams: usize,
    occupied: bool,
    held: bool,
}

impl TransmitBuf {
    /// Makes a buffer for up to `max_datagrams` datagrams at once, at least 1.
    #[must_use]
    pub fn new(max_datagrams: usize) -> Self {
        Self {
            bytes: Vec::new(),
            max_datagrams: max_datagrams.max(1),
            occupied: false,
            held: false,
        }
    }

    /// The datagrams, one after the other.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Tells whether the next transmit may be polled.
    #[must_use]
    pub fn is_free(&self) -> bool {
        !self.occupied && !self.held
    }

    /// Changes how many datagrams the next transmit may have; the kernel may withdraw its segmentation.
    pub fn set_max_datagrams(&mut self, max_datagrams: usize) {
        self.max_datagrams = max_datagrams.max(1);
    }

    /// Yields no transmit until [`release`](Self::release): what happens meanwhile rides in the same datagrams.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Ends a [`hold`](Self::hold).
    pub fn release(&mut self) {
        self.held = false;
    }

    /// The datagrams are sent, or given up.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.occupied = false;
    }

    pub(crate) fn fill(
        &mut self,
        poll: impl FnOnce(usize, &mut Vec<u8>) -> Option<Transmit>,
    ) -> Option<Transmit> {
        debug_assert!(!self.occupied, "polled while occupied");
        self.bytes.clear();
        let transmit = poll(self.max_datagrams, &mut self.bytes)?;
        self.occupied = true;
        Some(transmit)
    }
}

/// A message from the endpoint to one of its connections. Opaque.
#[derive(Debug)]
pub struct ToConnection(pub(crate) link::FromEndpoint);

/// A message from a connection to its endpoint. Opaque.
#[derive(Debug)]
pub struct ToEndpoint(pub(crate) link::FromConnection);

/// Where a datagram went.
#[derive(Debug)]
pub enum Routed {
    /// To a connection that exists.
    Existing(ConnId, ToConnection),
    /// It began a connection.
    New(Box<Connection>),
    /// It is answered without state: version negotiation, Retry, refusal, reset. The bytes are in `reply`.
    Reply(Transmit),
    /// It is dropped, and counted by the endpoint.
    Dropped,
}
