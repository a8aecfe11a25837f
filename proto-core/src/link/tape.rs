//! What a connection asked of its link and was answered, for a journal and from one (design 8.17).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Broken, LinkEvent, ReadState, StreamRef};
use crate::{
    connection::Call,
    identity::AgentIdentity,
    journal::{Entry, Records},
    limits,
};

/// What a connection asked of its link, and was answered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// A tape that does not know.
    Unknown,
    Event(Option<LinkEvent>),
    Opened(Option<StreamRef>),
    Accepted(Option<StreamRef>),
    Message(Vec<u8>, Result<ReadState, Broken>),
    /// Of a user's bytes their number.
    Payload(u64, Result<ReadState, Broken>),
    Wrote(Result<usize, Broken>),
    Finished(Result<(), Broken>),
    Identity(Option<AgentIdentity>),
    HasHeard(bool),
    Acked(u64),
    Received(u64),
    Unix(u64),
}

/// The answers that a connection was given, and between them the calls that it had.
#[derive(Debug)]
pub(crate) struct Tape {
    records: Records<Call, Answer>,
}

impl Tape {
    pub(crate) fn new(records: Records<Call, Answer>) -> Self {
        Self { records }
    }

    pub(crate) fn records(&mut self) -> &mut Records<Call, Answer> {
        &mut self.records
    }

    /// The next answer. Where the connection asks something else than it did, there is none that fits; that it asked is
    /// taken down, and differs from what was.
    pub(super) fn answer(&mut self) -> Answer {
        match self.records.peek() {
            Some(Entry::Answer(_)) => match self.records.next() {
                Some(Entry::Answer(answer)) => answer,
                Some(Entry::Call(..) | Entry::Output(_)) | None => Answer::Unknown,
            },
            Some(Entry::Call(..) | Entry::Output(_)) | None => Answer::Unknown,
        }
    }
}

/// Stands for what a user sent, of which a journal has the length only. A stream's window bounds what one read can give,
/// whatever a journal claims.
pub(super) fn blanks(len: u64, max: usize, mut sink: impl FnMut(Bytes)) {
    static BLANK: [u8; 65_536] = [0; 65_536];
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let mut left = len.min(max).min(limits::STREAM_WINDOW as usize);
    while left > 0 {
        let some = left.min(BLANK.len());
        sink(Bytes::from_static(&BLANK[..some]));
        left -= some;
    }
}

/// What is in an answer, if it is of this kind.
macro_rules! match_of {
    ($answer:expr, $kind:pat => $held:expr) => {
        if let $kind = $answer {
            Some($held)
        } else {
            None
        }
    };
}

pub(super) use match_of;
