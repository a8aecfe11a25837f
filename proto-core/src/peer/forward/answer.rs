//! The answer: whether the peer carries the session, or why it does not.

use std::cmp::Ordering;

use bytes::{Buf, Bytes};

use super::{ForwardError, VERSION};
use crate::{
    limits::REASON_LEN_MAX,
    peer::key::{MacKey, TAG_LEN, Tag},
};

/// What became of a forwarded session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Status {
    /// It is open: what follows in both directions is the session's.
    Open = 0,
    /// The agent, or the target, refused it.
    Refused = 1,
    /// The peer has no agent for it, or none that answers.
    NoRoute = 2,
    /// No agent answered in time.
    TimedOut = 3,
    /// The peer, or its agent, carries as much as it may.
    Overload = 4,
    /// The connection to the agent was lost.
    Lost = 5,
    /// The peer takes no sessions of this node.
    Denied = 6,
    /// The peer is stopping.
    Stopping = 7,
}

/// A verified answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether the session is open.
    pub status: Status,
    /// Why it is not, for humans; at most [`REASON_LEN_MAX`] bytes.
    pub reason: Box<str>,
}

/// Answers one header; made where that was verified.
#[derive(Debug)]
pub struct Answering {
    key: MacKey,
    asked: Tag,
}

/// Reads one answer off a stream, whatever pieces it comes in, and leaves every byte behind it where it is. An error
/// is final.
#[derive(Debug)]
pub struct AnswerReader {
    key: MacKey,
    asked: Tag,
    buffer: Vec<u8>,
    is_done: bool,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Open,
        Self::Refused,
        Self::NoRoute,
        Self::TimedOut,
        Self::Overload,
        Self::Lost,
        Self::Denied,
        Self::Stopping,
    ];

    /// The byte in the answer.
    #[must_use]
    pub const fn value(self) -> u8 {
        self as u8
    }
}

impl TryFrom<u8> for Status {
    type Error = ForwardError;

    fn try_from(value: u8) -> Result<Self, ForwardError> {
        let known = Self::ALL.into_iter().find(|known| known.value() == value);
        known.ok_or(ForwardError::Status(value))
    }
}

impl Answer {
    /// Writes an answer as the one record that it is on a sealed link, whose own proof it is under. A reason that is too
    /// long is cut between characters.
    #[must_use]
    pub fn to_record(status: Status, reason: &str) -> Bytes {
        unsigned(status, reason).into()
    }

    /// Reads the answer off the first record of a sealed link.
    ///
    /// # Errors
    /// [`ForwardError::Version`] and [`ForwardError::ReasonLen`] on the fixed part; [`ForwardError::Truncated`] or
    /// [`ForwardError::Behind`] where the record is not the answer and nothing else; [`ForwardError::Status`] and
    /// [`ForwardError::NotUtf8`].
    pub fn from_record(record: &[u8]) -> Result<Self, ForwardError> {
        if let Some(&got) = record.first().filter(|version| **version != VERSION) {
            return Err(ForwardError::Version { got });
        }
        let (fixed, reason) = record.split_first_chunk().ok_or(ForwardError::Truncated)?;
        let [_, status, low, high] = *fixed;
        match reason.len().cmp(&reason_len([low, high])?) {
            Ordering::Less => Err(ForwardError::Truncated),
            Ordering::Greater => Err(ForwardError::Behind),
            Ordering::Equal => Self::read(status, reason),
        }
    }

    fn read(status: u8, reason: &[u8]) -> Result<Self, ForwardError> {
        let status = status.try_into()?;
        let reason = str::from_utf8(reason).map_err(|_| ForwardError::NotUtf8)?;
        let reason = reason.into();
        Ok(Self { status, reason })
    }
}

impl Answering {
    pub(super) fn new(key: MacKey, asked: Tag) -> Self {
        Self { key, asked }
    }

    /// Writes the answer. A reason that is too long is cut between characters.
    #[must_use]
    pub fn seal(self, status: Status, reason: &str) -> Bytes {
        let mut answer = unsigned(status, reason);
        let tag = self.key.tag(&[&answer, &self.asked]);
        answer.extend_from_slice(&tag);
        answer.into()
    }
}

impl AnswerReader {
    pub(super) fn new(key: MacKey, asked: Tag) -> Self {
        Self {
            key,
            asked,
            buffer: Vec::new(),
            is_done: false,
        }
    }

    /// Takes what it needs off the front of `data`. What is left there once the answer is whole is the session's.
    ///
    /// # Errors
    /// [`ForwardError::Version`] and [`ForwardError::ReasonLen`] on the fixed part, then [`ForwardError::Mac`],
    /// [`ForwardError::Status`] and [`ForwardError::NotUtf8`].
    pub fn feed(&mut self, data: &mut Bytes) -> Result<Option<Answer>, ForwardError> {
        if self.is_done {
            return Ok(None);
        }
        self.take(data, FIXED_LEN);
        if let Some(&version) = self.buffer.first().filter(|version| **version != VERSION) {
            return Err(ForwardError::Version { got: version });
        }
        let Some(&[_, status, low, high]) = self.buffer.first_chunk::<FIXED_LEN>() else {
            return Ok(None);
        };
        let reason_len = reason_len([low, high])?;
        let len = FIXED_LEN.saturating_add(reason_len).saturating_add(TAG_LEN);
        self.take(data, len);
        if self.buffer.len() < len {
            return Ok(None);
        }
        self.is_done = true;
        self.verify(status).map(Some)
    }

    /// Bytes that it can take; never beyond the answer, since the session's own follow it.
    pub(crate) fn wanted(&self) -> usize {
        let len = match self.buffer.first_chunk::<FIXED_LEN>() {
            _ if self.is_done => return 0,
            None => FIXED_LEN,
            Some(&[_, _, low, high]) => FIXED_LEN
                .saturating_add(usize::from(u16::from_le_bytes([low, high])))
                .saturating_add(TAG_LEN),
        };
        len.saturating_sub(self.buffer.len())
    }

    /// Takes the end of the peer's half, or the stream's.
    ///
    /// # Errors
    /// [`ForwardError::Truncated`]: it was not whole before.
    pub fn finish(&self) -> Result<(), ForwardError> {
        match self.is_done {
            true => Ok(()),
            false => Err(ForwardError::Truncated),
        }
    }

    fn verify(&self, status: u8) -> Result<Answer, ForwardError> {
        let parts = self.buffer.split_last_chunk();
        let (signed, tag): (_, &Tag) = parts.ok_or(ForwardError::Mac)?;
        if !self.key.verifies(&[signed, &self.asked], tag) {
            return Err(ForwardError::Mac);
        }
        Answer::read(status, signed.get(FIXED_LEN..).unwrap_or_default())
    }

    fn take(&mut self, data: &mut Bytes, len: usize) {
        let missing = len.saturating_sub(self.buffer.len()).min(data.remaining());
        self.buffer.extend_from_slice(&data.split_to(missing));
    }
}

/// An answer up to its tag.
fn unsigned(status: Status, reason: &str) -> Vec<u8> {
    let (reason, _) = reason.split_at(reason.floor_char_boundary(REASON_LEN_MAX));
    // A kilobyte at most.
    let len = u16::try_from(reason.len()).unwrap_or(u16::MAX);
    let mut answer = vec![VERSION, status.value()];
    answer.extend_from_slice(&len.to_le_bytes());
    answer.extend_from_slice(reason.as_bytes());
    answer
}

fn reason_len(bytes: [u8; 2]) -> Result<usize, ForwardError> {
    let got = u16::from_le_bytes(bytes);
    match usize::from(got) {
        len if len <= REASON_LEN_MAX => Ok(len),
        _ => Err(ForwardError::ReasonLen { got }),
    }
}

/// Version, status, length of the reason.
const FIXED_LEN: usize = 4;
