//! One connection of the QUIC engine, in the words of [`Link`](super::Link).

use std::{net::SocketAddr, sync::atomic::Ordering::Relaxed, time::Instant};

use bytes::Bytes;
use quinn_proto::{
    Connection, ConnectionEvent, ConnectionHandle, Dir, Event, ReadError, Side, StreamEvent,
    StreamId, VarInt, WriteError, crypto::rustls::HandshakeData,
};
use rustls::pki_types::CertificateDer;

use super::{
    Broken, FromConnection, LinkEvent, ReadState, Shape, StreamRef, Streams,
    congestion::AckCounter,
    lost::closed,
    reach::{PAYLOAD_MIN, SEND_MAX},
    tls,
};
use crate::{id::Slot, identity::AgentIdentity, limits, output::Transmit};

/// The engine's connection, and what of it only the engine's words can tell.
pub(super) struct Engine {
    quic: Connection,
    handle: ConnectionHandle,
    /// What its streams are for.
    streams_are: Streams,
    /// Connection window last told to the engine, in bytes.
    window: u64,
    /// Bulk that may be written and not yet acknowledged, in bytes.
    send_window: u64,
    /// Streams of the gateway that an agent's engine was last told to allow.
    streams: u32,
    /// A sign of life is to leave at once.
    probing: bool,
    /// The endpoint was told that the engine is done.
    drained_told: bool,
    /// Acknowledged packets that were seen, and what the present path counted at the last look.
    acked: u64,
    acked_on_path: u64,
    acked_from: SocketAddr,
    /// `acked` at the last ping.
    acked_at_ping: u64,
    /// Pings in a row, the last one left out, since which nothing was acknowledged.
    pings_unanswered: u32,
    /// The first of them.
    unanswered_since: Option<Instant>,
}

impl Engine {
    pub(super) fn new(quic: Connection, handle: ConnectionHandle, shape: Shape) -> Self {
        let acked_from = quic.remote_address();
        Self {
            quic,
            handle,
            streams_are: shape.streams,
            window: shape.window,
            send_window: shape.send_window,
            streams: limits::SESSIONS_PER_AGENT_FIRST,
            probing: false,
            drained_told: false,
            acked: 0,
            acked_on_path: 0,
            acked_from,
            acked_at_ping: 0,
            pings_unanswered: 0,
            unanswered_since: None,
        }
    }

    pub(super) fn handle(&self) -> ConnectionHandle {
        self.handle
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.quic.remote_address()
    }

    pub(super) fn handle_event(&mut self, event: ConnectionEvent) {
        self.quic.handle_event(event);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.quic.handle_timeout(now);
    }

    pub(super) fn handle_rebound(&mut self) {
        self.quic.local_address_changed();
    }

    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        self.quic.poll_timeout()
    }

    pub(super) fn poll_notice(&mut self) -> Option<FromConnection> {
        // The endpoint may have given the place to another connection.
        if self.drained_told {
            return None;
        }
        let event = self.quic.poll_endpoint_events()?;
        self.drained_told |= event.is_drained();
        Some(FromConnection::Engine {
            handle: self.handle,
            event,
        })
    }

    pub(super) fn poll_transmit(
        &mut self,
        now: Instant,
        max_datagrams: usize,
        buf: &mut Vec<u8>,
    ) -> Option<Transmit> {
        // A closed connection heeds no acknowledgement: behind bulk its farewell would wait for ever.
        if self.quic.is_closed() {
            self.let_pass();
        }
        // The pass holds for a batch, so that one is a single datagram.
        let max_datagrams = if self.probing {
            1
        } else {
            max_datagrams.min((SEND_MAX / usize::from(self.quic.current_mtu())).max(1))
        };
        let sent = self.quic.poll_transmit(now, max_datagrams, buf)?;
        self.probing = false;
        Some(transmit(sent))
    }

    pub(super) fn poll_event(&mut self) -> Option<LinkEvent> {
        loop {
            return Some(match self.quic.poll()? {
                Event::Connected => LinkEvent::Connected,
                Event::ConnectionLost { reason } => LinkEvent::Lost(closed(reason)),
                Event::Stream(StreamEvent::Opened { .. }) => LinkEvent::Opened,
                Event::Stream(StreamEvent::Readable { id }) => self.readable(id),
                Event::Stream(StreamEvent::Writable { id }) => LinkEvent::Writable(self.name(id)),
                Event::Stream(StreamEvent::Stopped { id, error_code }) => {
                    LinkEvent::Stopped(self.name(id), error_code.into_inner())
                }
                Event::Stream(StreamEvent::Available { dir: Dir::Bi }) => LinkEvent::Credit,
                Event::Stream(StreamEvent::Finished { id }) => {
                    LinkEvent::Acknowledged(self.name(id))
                }
                Event::Stream(StreamEvent::Available { dir: Dir::Uni })
                | Event::HandshakeDataReady
                | Event::DatagramReceived
                | Event::DatagramsUnblocked => continue,
            });
        }
    }

    /// Who the agent is; none at an agent, and before the handshake.
    pub(super) fn identity(&self) -> Option<AgentIdentity> {
        tls::identity_of(self.chain()?.first()?)
    }

    /// First certificate of the peer's chain, DER; none before the handshake, and of a peer that showed none.
    pub(super) fn leaf(&self) -> Option<Vec<u8>> {
        Some(self.chain()?.first()?.to_vec())
    }

    /// The whole chain; none before the handshake, and of a peer that showed none.
    pub(super) fn chain(&self) -> Option<Vec<CertificateDer<'static>>> {
        let chain = self.quic.crypto_session().peer_identity()?;
        chain.downcast().ok().map(|chain| *chain)
    }

    /// The protocol that both sides chose; none before the handshake.
    pub(super) fn protocol(&self) -> Option<Vec<u8>> {
        let data = self.quic.crypto_session().handshake_data()?;
        data.downcast::<HandshakeData>().ok()?.protocol
    }

    /// What only the two ends of this TLS connection have (RFC 8446 7.5); none before the handshake.
    pub(super) fn export(&self, label: &[u8]) -> Option<[u8; 32]> {
        let mut secret = [0; 32];
        let exported = (self.quic.crypto_session()).export_keying_material(&mut secret, label, b"");
        exported.ok().map(|()| secret)
    }

    /// Both sides have seen the end of the handshake (RFC 9001 4.1.2): what is closed here says why to the peer.
    pub(super) fn is_confirmed(&self) -> bool {
        self.quic.side().is_server() || self.quic.stats().frame_rx.handshake_done > 0
    }

    /// Says what the streams are for, once the protocol is known and before any was opened.
    pub(super) fn set_streams(&mut self, streams: Streams) {
        self.streams_are = streams;
        if streams == Streams::Forwarded && self.quic.side() != streams.opener() {
            let count = VarInt::from_u32(self.streams);
            self.quic.set_max_concurrent_streams(Dir::Bi, count);
        }
    }

    /// Gives the connection another window, in bytes.
    pub(super) fn set_window(&mut self, window: u64) {
        self.window = window;
        self.quic
            .set_receive_window(VarInt::from_u64(window).unwrap_or(VarInt::MAX));
    }

    pub(super) fn close(&mut self, now: Instant, code: u32, reason: &str) {
        self.quic.close(
            now,
            VarInt::from_u32(code),
            Bytes::copy_from_slice(reason.as_bytes()),
        );
    }

    /// The engine is done, and the endpoint was told so.
    pub(super) fn is_drained(&self) -> bool {
        self.drained_told
    }

    /// Asks the peer for a sign of life, and gives it one, past whatever waits to be sent.
    ///
    /// Where several stay without an answer, datagrams become as small as they were at first. A path that has narrowed
    /// loses what is larger, and the engine's own remedy, small probes, does not come: a ping takes bulk with it up to
    /// the size that is lost, and puts the engine's timer off.
    pub(super) fn ping(&mut self, now: Instant) {
        let is_answered = self.acked != self.acked_at_ping;
        self.acked_at_ping = self.acked;
        if is_answered {
            (self.pings_unanswered, self.unanswered_since) = (0, None);
        } else {
            self.pings_unanswered = self.pings_unanswered.saturating_add(1);
        }
        let since = *self.unanswered_since.get_or_insert(now);
        // A path of a second's delay answers late, and has not narrowed.
        let is_late = now.saturating_duration_since(since) >= self.rtt() * 3;
        let is_large = self.quic.current_mtu() > PAYLOAD_MIN;
        if self.pings_unanswered >= limits::PINGS_LARGE_MAX && is_late && is_large {
            self.quic.path_changed(now);
            // The engine has begun to count afresh.
            self.acked_on_path = 0;
        }
        self.let_pass();
        self.quic.ping();
    }

    fn let_pass(&mut self) {
        if let Some(controller) = self.controller() {
            controller.pass.store(true, Relaxed);
            self.probing = true;
        }
    }

    /// Packets of ours that the peer was seen to acknowledge. The engine counts for each path alone: where the peer's
    /// address has changed since the last look, or changed back, another count is no sign of life.
    pub(super) fn acked(&mut self) -> u64 {
        let count = self.controller().map_or(0, |controller| controller.acked);
        let remote = self.quic.remote_address();
        if remote == self.acked_from {
            self.acked += count.saturating_sub(self.acked_on_path);
        }
        self.acked_from = remote;
        self.acked_on_path = count;
        self.acked
    }

    /// A copy of the engine's controller.
    fn controller(&self) -> Option<Box<AckCounter>> {
        let any = self.quic.congestion_state().clone_box().into_any();
        any.downcast::<AckCounter>().ok()
    }

    /// Frames received in packets that proved to come from the peer.
    pub(super) fn received(&self) -> u64 {
        let rx = self.quic.stats().frame_rx;
        rx.acks
            .wrapping_add(rx.ping)
            .wrapping_add(rx.stream)
            .wrapping_add(rx.max_data)
            .wrapping_add(rx.max_stream_data)
    }

    /// Anything at all has come from the peer.
    pub(super) fn has_heard(&self) -> bool {
        self.quic.stats().udp_rx.datagrams > 0
    }

    /// Round-trip time, smoothed.
    pub(super) fn rtt(&self) -> std::time::Duration {
        self.quic.rtt()
    }

    /// Opens a stream, if the peer allows one more. Session streams are the gateway's, control is the agent's.
    pub(super) fn open(&mut self) -> Option<StreamRef> {
        let opened = self.quic.streams().open(Dir::Bi);
        opened.map(|id| self.name(id))
    }

    /// Takes the next stream that the peer opened.
    pub(super) fn accept(&mut self) -> Option<StreamRef> {
        let accepted = self.quic.streams().accept(Dir::Bi);
        accepted.map(|id| self.name(id))
    }

    /// Sends this stream's bytes before those of sessions.
    pub(super) fn prioritise(&mut self, stream: StreamRef) {
        // Fails only on a stream that is gone, which then needs no priority.
        let _gone = self.quic.send_stream(self.id(stream)).set_priority(1);
    }

    /// Reads up to `max` bytes, handing each chunk on without a copy.
    pub(super) fn read(
        &mut self,
        stream: StreamRef,
        max: usize,
        mut sink: impl FnMut(Bytes),
    ) -> Result<ReadState, Broken> {
        let mut recv = self.quic.recv_stream(self.id(stream));
        let mut chunks = recv.read(true).map_err(|_| Broken::Gone)?;
        let mut left = max;
        let state = loop {
            if left == 0 {
                break Ok(ReadState::More);
            }
            match chunks.next(left) {
                Ok(Some(chunk)) => {
                    left = left.saturating_sub(chunk.bytes.len());
                    sink(chunk.bytes);
                }
                Ok(None) => break Ok(ReadState::End),
                Err(ReadError::Blocked) => break Ok(ReadState::Blocked),
                Err(ReadError::Reset(code)) => break Err(Broken::ByPeer(code.into_inner())),
            }
        };
        // What must be transmitted is found by the poll that follows every call.
        let _transmit = chunks.finalize();
        state
    }

    /// Writes what fits of the chunk, without a copy, and leaves the rest in it. Gives the bytes taken; what is left
    /// is blocked.
    pub(super) fn write(&mut self, stream: StreamRef, chunk: &mut Bytes) -> Result<usize, Broken> {
        let len = chunk.len();
        let id = self.id(stream);
        // The engine tells of room only on a stream that it has seen blocked: a write that took a part has not been.
        while !chunk.is_empty() {
            match self
                .quic
                .send_stream(id)
                .write_chunks(std::slice::from_mut(chunk))
            {
                Ok(_) => {}
                Err(WriteError::Blocked) => break,
                Err(WriteError::Stopped(code)) => return Err(Broken::ByPeer(code.into_inner())),
                Err(WriteError::ClosedStream) => return Err(Broken::Gone),
            }
        }
        Ok(len - chunk.len())
    }

    /// Writes as [`write`](Self::write) does, from the reserve that bulk may not touch.
    pub(super) fn write_reserved(
        &mut self,
        stream: StreamRef,
        chunk: &mut Bytes,
    ) -> Result<usize, Broken> {
        self.quic
            .set_send_window(self.send_window + limits::SEND_WINDOW_RESERVE);
        let written = self.write(stream, chunk);
        self.quic.set_send_window(self.send_window);
        written
    }

    /// Ends our half cleanly.
    pub(super) fn finish(&mut self, stream: StreamRef) -> Result<(), Broken> {
        let id = self.id(stream);
        self.quic.send_stream(id).finish().map_err(|e| match e {
            quinn_proto::FinishError::Stopped(code) => Broken::ByPeer(code.into_inner()),
            quinn_proto::FinishError::ClosedStream => Broken::Gone,
        })
    }

    /// Abandons both halves.
    pub(super) fn abandon(&mut self, stream: StreamRef, code: u32) {
        let (code, id) = (VarInt::from_u32(code), self.id(stream));
        // Either half may be over already, which is what is wanted.
        let _over = self.quic.send_stream(id).reset(code);
        let _over = self.quic.recv_stream(id).stop(code);
    }

    /// Wants no more of the peer's half.
    pub(super) fn stop(&mut self, stream: StreamRef, code: u32) {
        let (code, id) = (VarInt::from_u32(code), self.id(stream));
        let _over = self.quic.recv_stream(id).stop(code);
    }

    /// Tells the peer what it may send in all, which the engine otherwise keeps to itself until an eighth of the window
    /// has been read. It does so only where the window grows.
    pub(super) fn announce_window(&mut self) {
        self.window += 1;
        self.quic
            .set_receive_window(VarInt::from_u64(self.window).unwrap_or(VarInt::MAX));
    }

    /// Lets the stream credit of an agent, or of who takes forwarded sessions, follow the number of sessions, so that the opener waits for it in a burst only,
    /// and then for a round trip.
    pub(super) fn fit_streams(&mut self, sessions: usize) {
        let want = u32::try_from(sessions.saturating_mul(2))
            .ok()
            .and_then(u32::checked_next_power_of_two)
            .map_or(limits::SESSIONS_PER_AGENT_MAX, |want| {
                want.min(limits::SESSIONS_PER_AGENT_MAX)
            });
        if self.quic.side() != self.streams_are.opener() && want > self.streams {
            self.streams = want;
            self.quic
                .set_max_concurrent_streams(Dir::Bi, VarInt::from_u32(want));
        }
    }

    fn readable(&mut self, id: StreamId) -> LinkEvent {
        match self.quic.recv_stream(id).received_reset() {
            Ok(Some(code)) => LinkEvent::Reset(self.name(id), code.into_inner()),
            Ok(None) | Err(_) => LinkEvent::Readable(self.name(id)),
        }
    }

    fn name(&self, id: StreamId) -> StreamRef {
        let is_control = id.index() == 0 && self.streams_are.begin_with_control();
        match (id.initiator(), id.dir(), id.index()) {
            (Side::Client, Dir::Bi, _) if is_control => StreamRef::Control,
            (side, Dir::Bi, index) if side == self.streams_are.opener() => {
                StreamRef::Session(Slot(index))
            }
            _ => StreamRef::Stray(VarInt::from(id).into_inner()),
        }
    }

    fn id(&self, stream: StreamRef) -> StreamId {
        match stream {
            StreamRef::Control => StreamId::new(Side::Client, Dir::Bi, 0),
            StreamRef::Session(Slot(index)) => {
                StreamId::new(self.streams_are.opener(), Dir::Bi, index)
            }
            StreamRef::Stray(id) => VarInt::from_u64(id).unwrap_or(VarInt::MAX).into(),
        }
    }
}

pub(crate) fn transmit(t: quinn_proto::Transmit) -> Transmit {
    Transmit {
        destination: t.destination,
        ecn: t.ecn.map(|codepoint| codepoint as u8),
        size: t.size,
        segment_size: t.segment_size,
        src_ip: t.src_ip,
    }
}
