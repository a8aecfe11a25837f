//! A connection's streams: opened, accepted, read, written and ended.

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use super::{
    Link,
    engine::Engine,
    tape::{self, Answer, match_of},
};
use crate::id::Slot;

/// A stream by its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StreamRef {
    /// The first stream of the client, where there is one: the agent's, or that of a version handshake.
    Control,
    /// A stream of one session or one call.
    Session(Slot),
    /// A stream that the protocol has no use for, by its id (RFC 9000 2.1).
    Stray(u64),
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
    /// Opens a stream, if the peer allows one more. Session streams are the gateway's, control is the agent's.
    pub(crate) fn open(&mut self) -> Option<StreamRef> {
        let told = |answer| match_of!(answer, Answer::Opened(stream) => stream);
        self.ask(Engine::open, Answer::Opened, told)?
    }

    /// Takes the next stream that the peer opened.
    pub(crate) fn accept(&mut self) -> Option<StreamRef> {
        let told = |answer| match_of!(answer, Answer::Accepted(stream) => stream);
        self.ask(Engine::accept, Answer::Accepted, told)?
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
        let is_kept = self.recording.is_on();
        let read = |engine: &mut Engine| {
            let mut kept = Vec::new();
            let state = engine.read(stream, max, |chunk| {
                if is_kept {
                    kept.extend_from_slice(&chunk);
                }
                sink(chunk);
            });
            (kept, state)
        };
        let kept = |(bytes, state)| Answer::Message(bytes, state);
        let told = |answer| match_of!(answer, Answer::Message(bytes, state) => (bytes, state));
        let (bytes, state) = self.ask(read, kept, told).ok_or(Broken::Gone)?;
        if self.tape().is_some() && !bytes.is_empty() {
            sink(bytes.into());
        }
        state
    }

    /// Reads up to `max` bytes of a user's, handing each chunk on without a copy. A journal gets their number.
    pub(crate) fn read(
        &mut self,
        stream: StreamRef,
        max: usize,
        mut sink: impl FnMut(Bytes),
    ) -> Result<ReadState, Broken> {
        let read = |engine: &mut Engine| {
            let mut len = 0;
            let state = engine.read(stream, max, |chunk| {
                len += chunk.len() as u64;
                sink(chunk);
            });
            (len, state)
        };
        let kept = |(len, state)| Answer::Payload(len, state);
        let told = |answer| match_of!(answer, Answer::Payload(len, state) => (len, state));
        let (len, state) = self.ask(read, kept, told).ok_or(Broken::Gone)?;
        if self.tape().is_some() {
            tape::blanks(len, max, sink);
        }
        state
    }

    /// Writes what fits of a user's bytes, without a copy, and leaves the rest in the chunk. Gives the bytes taken; what
    /// is left is blocked.
    pub(crate) fn write(&mut self, stream: StreamRef, chunk: &mut Bytes) -> Result<usize, Broken> {
        let told = |answer| match_of!(answer, Answer::Wrote(taken) => taken);
        let taken = self.ask(|engine| engine.write(stream, chunk), Answer::Wrote, told);
        self.taken(taken, chunk)
    }

    /// Writes as much of a message of the protocol as fits, from the reserve that bulk may not touch.
    pub(crate) fn write_message(
        &mut self,
        stream: StreamRef,
        chunk: &mut Bytes,
    ) -> Result<usize, Broken> {
        let told = || format!("write {stream:?} {chunk:?}");
        self.recording.told(|_| told());
        let told = |answer| match_of!(answer, Answer::Wrote(taken) => taken);
        let write = |engine: &mut Engine| engine.write_reserved(stream, chunk);
        let taken = self.ask(write, Answer::Wrote, told);
        self.taken(taken, chunk)
    }

    /// Says how much was taken; where a tape did, takes as much out of the chunk.
    fn taken(
        &mut self,
        taken: Option<Result<usize, Broken>>,
        chunk: &mut Bytes,
    ) -> Result<usize, Broken> {
        let mut taken = taken.ok_or(Broken::Gone)??;
        if self.tape().is_some() {
            // Whatever a journal claims.
            taken = taken.min(chunk.len());
            chunk.advance(taken);
        }
        Ok(taken)
    }

    /// Ends our half cleanly.
    pub(crate) fn finish(&mut self, stream: StreamRef) -> Result<(), Broken> {
        self.recording.told(|_| format!("finish {stream:?}"));
        let told = |answer| match_of!(answer, Answer::Finished(done) => done);
        (self.ask(|engine| engine.finish(stream), Answer::Finished, told)).ok_or(Broken::Gone)?
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

    /// Lets an agent's stream credit follow the number of sessions, so that the gateway waits for it in a burst only,
    /// and then for a round trip.
    pub(crate) fn fit_streams(&mut self, sessions: usize) {
        let told = || format!("fit {sessions} streams");
        self.tell(told, |engine| engine.fit_streams(sessions));
    }
}
