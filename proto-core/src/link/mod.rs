//! The only module that knows QUIC and TLS: everything above speaks of sessions, control bytes and causes.
//!
//! `Link` is also where a journal is taken and replayed (design 8.17): what a connection learns of the outside world it
//! learns through it.

pub(crate) mod cids;
pub(crate) mod config;
mod congestion;
mod engine;
pub mod insecure_tls;
mod losses;
mod lost;
pub mod peer_tls;
pub mod provider;
mod reach;
mod shape;
mod streams;
pub(crate) mod tape;
pub mod tls;

use std::{net::SocketAddr, time::Instant};

use quinn_proto::{Connection, ConnectionEvent, ConnectionHandle, EndpointEvent};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use self::{
    engine::Engine,
    tape::{Answer, Tape, match_of},
};
pub(crate) use self::{
    engine::transmit,
    shape::{Shape, Streams},
    streams::{Broken, ReadState, StreamRef},
};
use crate::{
    close::Closed, connection::Call, endpoint::Held, env::WallClock, identity::AgentIdentity,
    journal::Recording, output::Transmit,
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

/// What the engine says happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
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

impl Link {
    pub(crate) fn new(quic: Connection, handle: ConnectionHandle, shape: Shape) -> Self {
        Self {
            source: Source::Engine(Engine::new(quic, handle, shape)),
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

    /// The connection's caller got this answer.
    pub(crate) fn answered(&mut self, answer: &impl std::fmt::Debug) {
        self.recording.told(|_| format!("{answer:?}"));
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

    /// Asks the engine, or the tape what it was asked at this place. `kept` is what is taken down of an answer, `told`
    /// what a tape's answer says; none where it is one to another question.
    fn ask<T: Clone>(
        &mut self,
        ask: impl FnOnce(&mut Engine) -> T,
        kept: impl FnOnce(T) -> Answer,
        told: impl FnOnce(Answer) -> Option<T>,
    ) -> Option<T> {
        match &mut self.source {
            Source::Engine(engine) => {
                let answer = ask(engine);
                self.recording.answer(|| kept(answer.clone()));
                Some(answer)
            }
            Source::Tape(tape) => {
                let answer = tape.answer();
                self.recording.answer(|| &answer);
                told(answer)
            }
        }
    }

    /// Does what has no answer; a tape only notes that it was done.
    fn tell(&mut self, told: impl FnOnce() -> String, tell: impl FnOnce(&mut Engine)) {
        self.recording.told(|_| told());
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
        let told = |answer| match_of!(answer, Answer::Event(event) => event);
        self.ask(Engine::poll_event, Answer::Event, told)?
    }

    /// Who the agent is; none at an agent, and before the handshake.
    pub(crate) fn identity(&mut self) -> Option<AgentIdentity> {
        let told = |answer| match_of!(answer, Answer::Identity(identity) => identity);
        self.ask(|engine| engine.identity(), Answer::Identity, told)?
    }

    /// First certificate of the peer's chain, DER. No journal has it: those of peers are not kept.
    pub(crate) fn leaf(&self) -> Option<Vec<u8>> {
        self.look()?.leaf()
    }

    /// The whole chain of the peer.
    pub(crate) fn chain(&self) -> Option<Vec<CertificateDer<'static>>> {
        self.look()?.chain()
    }

    /// The protocol that was chosen.
    pub(crate) fn protocol(&self) -> Option<Vec<u8>> {
        self.look()?.protocol()
    }

    /// What only the two ends of the connection have.
    pub(crate) fn export(&self, label: &[u8]) -> Option<[u8; 32]> {
        self.look()?.export(label)
    }

    /// Gives the connection another window, in bytes.
    pub(crate) fn set_window(&mut self, window: u64) {
        if let Some(engine) = self.engine() {
            engine.set_window(window);
        }
    }

    /// Both sides have seen the end of the handshake.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.look().is_none_or(Engine::is_confirmed)
    }

    /// Says what the streams are for.
    pub(crate) fn set_streams(&mut self, streams: Streams) {
        if let Some(engine) = self.engine() {
            engine.set_streams(streams);
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
        let told = |answer| match_of!(answer, Answer::Acked(count) => count);
        (self.ask(Engine::acked, Answer::Acked, told)).unwrap_or_default()
    }

    /// Frames received in packets that proved to come from the peer.
    pub(crate) fn received(&mut self) -> u64 {
        let told = |answer| match_of!(answer, Answer::Received(count) => count);
        (self.ask(|engine| engine.received(), Answer::Received, told)).unwrap_or_default()
    }

    /// Anything at all has come from the peer.
    pub(crate) fn has_heard(&mut self) -> bool {
        let told = |answer| match_of!(answer, Answer::HasHeard(has) => has);
        (self.ask(|engine| engine.has_heard(), Answer::HasHeard, told)).unwrap_or_default()
    }

    /// Unix time in milliseconds: it is told to the peer.
    pub(crate) fn unix_ms(&mut self, clock: &dyn WallClock) -> u64 {
        let told = |answer| match_of!(answer, Answer::Unix(ms) => ms);
        (self.ask(|_| clock.unix_ms(), Answer::Unix, told)).unwrap_or_default()
    }

    /// Round-trip time, smoothed; of a tape none.
    pub(crate) fn rtt(&self) -> std::time::Duration {
        self.look().map(Engine::rtt).unwrap_or_default()
    }

    /// Tells the peer what it may send in all.
    pub(crate) fn announce_window(&mut self) {
        self.tell(|| "announce window".into(), Engine::announce_window);
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("remote", &self.remote())
            .finish_non_exhaustive()
    }
}
