//! Bulk bytes of one session, without a copy.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{connection::Connection, id::Slot};

/// One open session of one connection, borrowed for a few calls.
#[derive(Debug)]
pub struct Session<'a> {
    conn: &'a mut Connection,
    slot: Slot,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// The allowance is used up; there may be more.
    More,
    /// Nothing more for now: wait for `SessionReadable`.
    Blocked,
    /// The peer's clean end: no byte will follow.
    End,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All of it was taken.
    All,
    /// What was not taken is still in the chunk: wait for `SessionWritable`.
    Blocked,
}

/// The session broke; it is over at this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The peer abandoned it.
    #[error("the peer abandoned the session (code {0})")]
    Reset(u64),
    /// It has ended already in this direction.
    #[error("the session has ended already")]
    Ended,
}

impl<'a> Session<'a> {
    pub(crate) fn new(conn: &'a mut Connection, slot: Slot) -> Self {
        Self { conn, slot }
    }

    /// Reads up to `max` bytes as slices of the received datagrams and appends them to `out`. Not reading is the
    /// backpressure: without reading the peer gets no credit.
    ///
    /// # Errors
    /// [`SessionError`]; what was read before stays in `out`.
    pub fn read(&mut self, max: usize, out: &mut VecDeque<Bytes>) -> Result<Read, SessionError> {
        self.conn.read_session(self.slot, max, out)
    }

    /// Writes what fits. Nothing is copied: the chunk is kept until the peer has acknowledged it.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn write(&mut self, chunk: &mut Bytes) -> Result<Written, SessionError> {
        self.conn.write_session(self.slot, chunk)
    }

    /// Ends this direction cleanly (half-close); the other goes on.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn finish(&mut self) -> Result<(), SessionError> {
        self.conn.finish_session(self.slot)
    }

    /// Abandons both directions. The peer's TCP side is closed hard.
    pub fn reset(self, code: u32) {
        self.conn.reset_session(self.slot, code);
    }
}
