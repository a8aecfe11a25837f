//! Open sessions of a connection: flags, ends, and the calls behind `Session`.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Call, Connection, hoard::Behind};
use crate::{
    close::session_code,
    id::Slot,
    link::{Broken, ReadState, StreamRef},
    output::{Event, SessionEnd},
    session::{Read, Session, SessionError, Written},
};

/// One open session: which events are queued, and which directions have ended.
#[derive(Debug, Default)]
pub(super) struct Carried {
    readable_queued: bool,
    writable_queued: bool,
    sent_end: bool,
    got_end: bool,
    /// The engine may hold something of it.
    pub(super) unread: bool,
    /// Its reader was behind at the last look.
    pub(super) behind: Option<Box<Behind>>,
}

impl Carried {
    /// Our half has ended, the peer's was not read to its end.
    pub(super) fn lacks_only_the_peers_end(&self) -> bool {
        self.sent_end && !self.got_end
    }
}

impl Connection {
    /// Borrows an open session; none when it has ended.
    pub fn session(&mut self, slot: Slot) -> Option<Session<'_>> {
        self.sessions
            .contains_key(&slot)
            .then(|| Session::new(self, slot))
    }

    /// Sessions open on this connection.
    #[must_use]
    pub fn sessions_open(&self) -> usize {
        self.sessions.len()
    }

    /// A session is about to be set up: the peer must be able to open more.
    pub(super) fn make_room(&mut self) {
        self.link
            .fit_streams(self.sessions.len() + self.deadlines.len() + 1);
    }

    /// Set-up is over; bytes flow.
    pub(super) fn carry(&mut self, slot: Slot) {
        self.sessions.insert(slot, Carried::default());
        // What came behind the set-up message is already there.
        self.mark_readable(slot);
    }

    pub(super) fn mark_readable(&mut self, slot: Slot) {
        let Some(carried) = self.sessions.get_mut(&slot).filter(|c| !c.got_end) else {
            return;
        };
        carried.unread = true;
        self.hoard.stir();
        if !carried.readable_queued {
            carried.readable_queued = true;
            self.events.push_back(Event::SessionReadable(slot));
        }
    }

    pub(super) fn mark_writable(&mut self, slot: Slot) {
        if let Some(carried) = self
            .sessions
            .get_mut(&slot)
            .filter(|c| !c.writable_queued && !c.sent_end)
        {
            carried.writable_queued = true;
            self.events.push_back(Event::SessionWritable(slot));
        }
    }

    /// An event leaves the queue: the next one of its kind may be queued again.
    pub(super) fn unmark(&mut self, event: &Event) {
        if let Event::SessionReadable(slot) = event {
            if let Some(carried) = self.sessions.get_mut(slot) {
                carried.readable_queued = false;
            }
        } else if let Event::SessionWritable(slot) = event
            && let Some(carried) = self.sessions.get_mut(slot)
        {
            carried.writable_queued = false;
        }
    }

    pub(super) fn end_session(&mut self, slot: Slot, how: SessionEnd) {
        if self.sessions.remove(&slot).is_some() {
            // A clean end follows what is still unsent; any other overtakes it.
            if how != SessionEnd::Clean {
                self.unsent.remove(&slot);
            }
            self.events.push_back(Event::SessionEnded { slot, how });
        }
    }

    /// The peer abandoned one half: the session is over in both (agent-tunnel 11.2).
    pub(super) fn session_broken(&mut self, slot: Slot, code: u64) {
        if self.sessions.contains_key(&slot) {
            self.abandon(slot, session_code::TCP_RESET);
            self.end_session(slot, SessionEnd::ResetByPeer(code));
        }
    }

    pub(crate) fn read_session(
        &mut self,
        slot: Slot,
        max: usize,
        out: &mut VecDeque<Bytes>,
    ) -> Result<Read, SessionError> {
        self.link.called(None, || Call::Read(slot, max as u64));
        let read = self.read_open(slot, max, out);
        self.link.answered(&read);
        read
    }

    fn read_open(
        &mut self,
        slot: Slot,
        max: usize,
        out: &mut VecDeque<Bytes>,
    ) -> Result<Read, SessionError> {
        let Some(carried) = self.sessions.get_mut(&slot).filter(|c| !c.got_end) else {
            return Err(SessionError::Ended);
        };
        self.dirty = true;
        match carried.read(&mut self.link, slot, max, out) {
            Ok(ReadState::More) => Ok(Read::More),
            Ok(ReadState::Blocked) => Ok(Read::Blocked),
            Ok(ReadState::End) => {
                self.half_ended(slot, |carried| carried.got_end = true);
                Ok(Read::End)
            }
            Err(broken) => Err(self.broke(slot, broken)),
        }
    }

    pub(crate) fn write_session(
        &mut self,
        slot: Slot,
        chunk: &mut Bytes,
    ) -> Result<Written, SessionError> {
        let len = chunk.len() as u64;
        self.link.called(None, || Call::Write(slot, len));
        let written = self.write_open(slot, chunk);
        self.link.answered(&written);
        written
    }

    fn write_open(&mut self, slot: Slot, chunk: &mut Bytes) -> Result<Written, SessionError> {
        if self
            .sessions
            .get(&slot)
            .is_none_or(|carried| carried.sent_end)
        {
            return Err(SessionError::Ended);
        }
        // Bytes may not overtake the answer that opens the session.
        if self.unsent.contains_key(&slot) {
            return Ok(Written::Blocked);
        }
        self.dirty = true;
        match self.link.write(StreamRef::Session(slot), chunk) {
            Ok(_) if chunk.is_empty() => Ok(Written::All),
            Ok(_) => Ok(Written::Blocked),
            Err(broken) => Err(self.broke(slot, broken)),
        }
    }

    pub(crate) fn finish_session(&mut self, slot: Slot) -> Result<(), SessionError> {
        self.link.called(None, || Call::Finish(slot));
        let finished = self.finish_open(slot);
        self.link.answered(&finished);
        finished
    }

    fn finish_open(&mut self, slot: Slot) -> Result<(), SessionError> {
        if self
            .sessions
            .get(&slot)
            .is_none_or(|carried| carried.sent_end)
        {
            return Err(SessionError::Ended);
        }
        self.dirty = true;
        if let Some(unsent) = self.unsent.get_mut(&slot) {
            unsent.finish = true;
        } else if let Err(broken) = self.finish(slot) {
            return Err(self.broke(slot, broken));
        }
        self.half_ended(slot, |carried| carried.sent_end = true);
        Ok(())
    }

    pub(crate) fn reset_session(&mut self, slot: Slot, code: u32) {
        self.link.called(None, || Call::Reset(slot, code));
        if self.sessions.contains_key(&slot) {
            self.dirty = true;
            self.abandon(slot, code);
            self.end_session(slot, SessionEnd::ResetHere);
        }
    }

    fn half_ended(&mut self, slot: Slot, mark: impl FnOnce(&mut Carried)) {
        let Some(carried) = self.sessions.get_mut(&slot) else {
            return;
        };
        mark(carried);
        if carried.sent_end && carried.got_end {
            self.end_session(slot, SessionEnd::Clean);
        }
    }

    pub(super) fn broke(&mut self, slot: Slot, broken: Broken) -> SessionError {
        match broken {
            Broken::ByPeer(code) => {
                self.session_broken(slot, code);
                SessionError::Reset(code)
            }
            Broken::Gone => {
                self.session_broken(slot, 0);
                SessionError::Ended
            }
        }
    }
}
