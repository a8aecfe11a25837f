//! The only module that knows QUIC and TLS: everything above speaks of sessions, control bytes and causes.
//!
//! [`Link`] is also where a journal is taken and replayed (design 8.17): what a connection learns of the outside world it
//! learns through it.

pub(crate) mod cids;
pub(crate) mod config;
mod congestion;
mod engine;
mod losses;
mod lost;
pub mod peer_tls;
pub mod provider;
mod reach;
pub(crate) mod tape;
pub mod tls;

use std::{net::SocketAddr, time::Instant};

use bytes::{Buf, Bytes};
use quinn_proto::{Connection, ConnectionEvent, ConnectionHandle, EndpointEvent};
use serde::{Deserialize, Serialize};

pub(crate) use self::engine::transmit;
use self::{
    engine::Engine,
    tape::{Answer, Tape},
};
use crate::{
    close::Closed, connection::Call, endpoint::Held, env::WallClock, id::Slot,
    identity::AgentIdentity, journal::Recording, output::Transmit,
};

/// One QUIC connection, seen as one control stream and numbered sessions (agent-tunnel 4).
pub(crate) struct Link {
    source: Source,
    recording: Recording,
}

#[expect(
    clippy::large_enum_variant,
    reason = "a tape is rare, and a box would cost every other connection"
)]
enum Source {
    Engine(Engine),
    /// What a connection was answered, long ago.
    Tape(Tape),
}

/// An endpoint's message to a connection.
#[derive(Debug)]
pub(crate) enum FromEndpoint {
    /// The engine's own.
    Engine(ConnectionEvent),
    /// Bytes that those who do not read may keep on this connection, as all connections together hold too much.
    Unread(u64),
}

/// A connection's message to its endpoint.
#[derive(Debug)]
pub(crate) enum FromConnection {
    /// The engine's own.
    Engine {
        handle: ConnectionHandle,
        event: EndpointEvent,
    },
    /// The handshake has succeeded: its place is free.
    HandshakeOver { handle: ConnectionHandle },
    /// What is unread there.
    Unread {
        handle: ConnectionHandle,
        held: Held,
    },
}

/// A stream by its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StreamRef {
    /// The first stream of the agent.
    Control,
    /// A stream of the gateway.
    Session(Slot),
    /// A stream that the protocol has no use for, by its id (RFC 9000 2.1).
    Stray(u64),
}

/// What the engine says happened.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum LinkEvent {
    Connected,
    /// The connection is over; nothing else follows but the engine's own farewell.
    Lost(Closed),
    /// The peer opened streams: see [`Link::accept`].
    Opened,
    Readable(StreamRef),
    Writable(StreamRef),
    /// Our half has ended, and the peer has acknowledged all of it.
    Acknowledged(StreamRef),
    /// The peer wants no more of this stream.
    Stopped(StreamRef, u64),
    /// The peer abandoned this stream.
    Reset(StreamRef, u64),
    /// The peer allows more streams.
    Credit,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ReadState {
    /// There may be more.
    More,
    /// Nothing more for now.
    Blocked,
    /// The peer's clean end.
    End,
}

/// A stream that broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Broken {
    /// The peer reset it, or wants no more of it, with this code.
    ByPeer(u64),
    /// It is over on our side already.
    Gone,
}

impl Link {
    /// `window` is the connection's, as the engine was configured.
    pub(crate) fn new(quic: Connection, handle: ConnectionHandle, window: u64) -> Self {
        Self {
            source: Source::Engine(Engine::new(quic, handle, window)),
            recording: Recording::default(),
        }
    }

    /// Answers what the tape says; `recording` takes down what is asked this time.
    pub(crate) fn replay(tape: Tape, recording: Recording) -> Self {
        Self {
            source: Source::Tape(tape),
            recording,
        }
    }

    /// Takes down from here on what happens.
    pub(crate) fn record(&mut self, recording: Recording) {
        self.recording = recording;
    }

    pub(crate) fn recording(&mut self) -> &mut Recording {
        &mut self.recording
    }

    pub(crate) fn tape(&mut self) -> Option<&mut Tape> {
        match &mut self.source {
            Source::Engine(_) => None,
            Source::Tape(tape) => Some(tape),
        }
    }

    /// The connection was called.
    pub(crate) fn called(&mut self, now: Option<Instant>, call: impl FnOnce() -> Call) {
        self.recording.call(now, call);
    }

    fn engine(&mut self) -> Option<&mut Engine> {
        match &mut self.source {
            Source::Engine(engine) => Some(engine),
            Source::Tape(_) => None,
        }
    }

    fn look(&self) -> Option<&Engine> {
        match &self.source {
            Source::Engine(engine) => Some(engine),
            Source::Tape(_) => None,
        }
    }

    fn ask(&mut self, ask: impl FnOnce(&mut Engine) -> Answer) -> Answer {
        let answer = match &mut self.source {
            Source::Engine(engine) => ask(engine),
            Source::Tape(tape) => tape.answer(),
        };
        self.recording.answer(|| &answer);
        answer
    }

    /// Does what has no answer; a tape only notes that it was done.
    fn tell(&mut self, told: impl FnOnce() -> String, tell: impl FnOnce(&mut Engine)) {
        self.recording.told(told);
        if let Some(engine) = self.engine() {
            tell(engine);
        }
    }

    pub(crate) fn handle(&self) -> ConnectionHandle {
        self.look().map_or(ConnectionHandle(0), Engine::handle)
    }

    /// The peer's present address; of a tape none that means anything.
    pub(crate) fn remote(&self) -> SocketAddr {
        let nowhere = || SocketAddr::from(([0, 0, 0, 0], 0));
        self.look().map_or_else(nowhere, Engine::remote)
    }

    pub(crate) fn handle_event(&mut self, event: ConnectionEvent) {
        if let Some(engine) = self.engine() {
            engine.handle_event(event);
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let Some(engine) = self.engine() {
            engine.handle_timeout(now);
        }
    }

    pub(crate) fn handle_rebound(&mut self) {
        if let Some(engine) = self.engine() {
            engine.handle_rebound();
        }
    }

    pub(crate) fn poll_timeout(&mut self) -> Option<Instant> {
        self.engine()?.poll_timeout()
    }

    pub(crate) fn poll_notice(&mut self) -> Option<FromConnection> {
        self.engine()?.poll_notice()
    }

    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        max_datagrams: usize,
        buf: &mut Vec<u8>,
    ) -> Option<Transmit> {
        self.engine()?.poll_transmit(now, max_datagrams, buf)
    }

    pub(crate) fn poll_event(&mut self) -> Option<LinkEvent> {
        let answer = self.ask(|engine| Answer::Event(engine.poll_event()));
        if let Answer::Event(event) = answer {
            event
        } else {
            None
        }
    }

    /// Who the agent is; none at an agent, and before the handshake.
    pub(crate) fn identity(&mut self) -> Option<AgentIdentity> {
        let answer = self.ask(|engine| Answer::Identity(engine.identity()));
        if let Answer::Identity(identity) = answer {
            identity
        } else {
            None
        }
    }

    pub(crate) fn close(&mut self, now: Instant, code: u32, reason: &str) {
        let told = || format!("close {code} {reason:?}");
        self.tell(told, |engine| engine.close(now, code, reason));
    }

    /// The engine is done, and the endpoint was told so.
    pub(crate) fn is_drained(&self) -> bool {
        self.look().is_some_and(Engine::is_drained)
    }

    /// Asks the peer for a sign of life, and gives it one, past whatever waits to be sent.
    pub(crate) fn ping(&mut self, now: Instant) {
        self.tell(|| "ping".into(), |engine| engine.ping(now));
    }

    /// Packets of ours that the peer was seen to acknowledge.
    pub(crate) fn acked(&mut self) -> u64 {
        let answer = self.ask(|engine| Answer::Acked(engine.acked()));
        if let Answer::Acked(count) = answer {
            count
        } else {
            0
        }
    }

    /// Frames received in packets that proved to come from the peer.
    pub(crate) fn received(&mut self) -> u64 {
        let answer = self.ask(|engine| Answer::Received(engine.received()));
        if let Answer::Received(count) = answer {
            count
        } else {
            0
        }
    }

    /// Anything at all has come from the peer.
    pub(crate) fn has_heard(&mut self) -> bool {
        let answer = self.ask(|engine| Answer::HasHeard(engine.has_heard()));
        matches!(answer, Answer::HasHeard(true))
    }

    /// Unix time in milliseconds: it is told to the peer.
    pub(crate) fn unix_ms(&mut self, clock: &dyn WallClock) -> u64 {
        let answer = self.ask(|_| Answer::Unix(clock.unix_ms()));
        if let Answer::Unix(ms) = answer { ms } else { 0 }
    }

    /// Round-trip time, smoothed; of a tape none.
    pub(crate) fn rtt(&self) -> std::time::Duration {
        self.look().map(Engine::rtt).unwrap_or_default()
    }

    /// Opens a stream, if the peer allows one more. Session streams are the gateway's, control is the agent's.
    pub(crate) fn open(&mut self) -> Option<StreamRef> {
        let answer = self.ask(|engine| Answer::Opened(engine.open()));
        if let Answer::Opened(stream) = answer {
            stream
        } else {
            None
        }
    }

    /// Takes the next stream that the peer opened.
    pub(crate) fn accept(&mut self) -> Option<StreamRef> {
        let answer = self.ask(|engine| Answer::Accepted(engine.accept()));
        if let Answer::Accepted(stream) = answer {
            stream
        } else {
            None
        }
    }

    /// Sends this stream's bytes before those of sessions.
    pub(crate) fn prioritise(&mut self, stream: StreamRef) {
        let told = || format!("prioritise {stream:?}");
        self.tell(told, |engine| engine.prioritise(stream));
    }

    /// Reads up to `max` bytes of the protocol's own messages.
    pub(crate) fn read_message(
        &mut self,
        stream: StreamRef,
        max: usize,
        mut sink: impl FnMut(Bytes),
    ) -> Result<ReadState, Broken> {
        let mut kept = Vec::new();
        let is_kept = self.recording.is_on();
        let answer = self.ask(|engine| {
            let state = engine.read(stream, max, |chunk| {
                if is_kept {
                    kept.extend_from_slice(&chunk);
                }
                sink(chunk);
            });
            Answer::Message(kept, state)
        });
        let Answer::Message(bytes, state) = answer else {
            return Err(Broken::Gone);
        };
        if self.tape().is_some() && !bytes.is_empty() {
            sink(bytes.into());
        }
        state
    }

    /// Reads up to `max` bytes of a user's, handing each chunk on without a copy. A journal gets their number and a
    /// keyed hash of them.
    pub(crate) fn read(
        &mut self,
        stream: StreamRef,
        max: usize,
        mut sink: impl FnMut(Bytes),
    ) -> Result<ReadState, Broken> {
        let mut digest = self.recording.digest();
        let answer = self.ask(|engine| {
            let mut len = 0;
            let state = engine.read(stream, max, |chunk| {
                len += chunk.len() as u64;
                digest.update(&chunk);
                sink(chunk);
            });
            let hash = digest.finish();
            Answer::Payload { len, hash, state }
        });
        let Answer::Payload { len, state, .. } = answer else {
            return Err(Broken::Gone);
        };
        if self.tape().is_some() {
            tape::blanks(len, max, sink);
        }
        state
    }

    /// Writes what fits of a user's bytes, without a copy, and leaves the rest in the chunk. Gives the bytes taken; what
    /// is left is blocked.
    pub(crate) fn write(&mut self, stream: StreamRef, chunk: &mut Bytes) -> Result<usize, Broken> {
        let mut digest = self.recording.digest();
        let answer = self.ask(|engine| {
            digest.update(chunk);
            let hash = digest.finish();
            let taken = engine.write(stream, chunk).map(|taken| taken as u64);
            Answer::WrotePayload { hash, taken }
        });
        let Answer::WrotePayload { taken, .. } = answer else {
            return Err(Broken::Gone);
        };
        self.taken(taken, chunk)
    }

    /// Writes as much of a message of the protocol as fits, from the reserve that bulk may not touch.
    pub(crate) fn write_message(
        &mut self,
        stream: StreamRef,
        chunk: &mut Bytes,
    ) -> Result<usize, Broken> {
        let told = || format!("write {stream:?} {chunk:?}");
        self.recording.told(told);
        let answer = self.ask(|engine| {
            Answer::Wrote(
                engine
                    .write_reserved(stream, chunk)
                    .map(|taken| taken as u64),
            )
        });
        let Answer::Wrote(taken) = answer else {
            return Err(Broken::Gone);
        };
        self.taken(taken, chunk)
    }

    /// Says how much was taken; where a tape did, takes as much out of the chunk.
    fn taken(&mut self, taken: Result<u64, Broken>, chunk: &mut Bytes) -> Result<usize, Broken> {
        let mut taken = usize::try_from(taken?).unwrap_or(usize::MAX);
        if self.tape().is_some() {
            // Whatever a journal claims.
            taken = taken.min(chunk.len());
            chunk.advance(taken);
        }
        Ok(taken)
    }

    /// Ends our half cleanly.
    pub(crate) fn finish(&mut self, stream: StreamRef) -> Result<(), Broken> {
        self.recording.told(|| format!("finish {stream:?}"));
        let answer = self.ask(|engine| Answer::Finished(engine.finish(stream)));
        if let Answer::Finished(done) = answer {
            done
        } else {
            Err(Broken::Gone)
        }
    }

    /// Abandons both halves.
    pub(crate) fn abandon(&mut self, stream: StreamRef, code: u32) {
        let told = || format!("abandon {stream:?} {code}");
        self.tell(told, |engine| engine.abandon(stream, code));
    }

    /// Wants no more of the peer's half.
    pub(crate) fn stop(&mut self, stream: StreamRef, code: u32) {
        let told = || format!("stop {stream:?} {code}");
        self.tell(told, |engine| engine.stop(stream, code));
    }

    /// Tells the peer what it may send in all.
    pub(crate) fn announce_window(&mut self) {
        self.tell(|| "announce window".into(), Engine::announce_window);
    }

    /// Lets an agent's stream credit follow the number of sessions, so that the gateway waits for it in a burst only,
    /// and then for a round trip.
    pub(crate) fn fit_streams(&mut self, sessions: usize) {
        let told = || format!("fit {sessions} streams");
        self.tell(told, |engine| engine.fit_streams(sessions));
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("remote", &self.remote())
            .finish_non_exhaustive()
    }
}
