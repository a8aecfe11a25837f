//! What both ends of a handshake have in common: what is awaited, until when, and what is to be done.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Awaited, Conduct, FRAME_LEN, Fault, Frame, FrameReader, KeyUsed, Profile, RECORD_OVERHEAD,
    ReplicaId, Sealed, Step, Stream, Verified, frame::Collected,
};
use crate::limits::{REPLICA_HANDSHAKE_TIMEOUT, REPLICA_SILENCE_MAX};

/// One handshake, as far as both ends do the same.
#[derive(Debug)]
pub(super) struct Exchange {
    profile: Profile,
    conduct: Conduct,
    due: Due,
    deadline: Instant,
    silent_at: Instant,
    steps: VecDeque<Step>,
}

/// What comes next.
#[derive(Debug)]
enum Due {
    Frame(Awaited, Box<FrameReader>),
    /// The peer's first sealed record; everything else is done.
    Confirmation(Box<Unconfirmed>),
    Nothing,
}

#[derive(Debug)]
struct Unconfirmed {
    record: Collected<RECORD_OVERHEAD>,
    replica: ReplicaId,
    key: KeyUsed,
    sealed: Sealed,
}

impl Exchange {
    pub(super) fn new(now: Instant, profile: Profile, conduct: Conduct) -> Self {
        Self {
            profile,
            conduct,
            due: Due::Nothing,
            deadline: after(now, REPLICA_HANDSHAKE_TIMEOUT),
            silent_at: after(now, REPLICA_SILENCE_MAX),
            steps: VecDeque::new(),
        }
    }

    pub(super) fn expect_frame(&mut self, awaited: Awaited) {
        let reader = FrameReader::new(self.profile, self.conduct);
        self.due = Due::Frame(awaited, Box::new(reader));
    }

    pub(super) fn wanted(&self) -> usize {
        match &self.due {
            Due::Frame(_, reader) => reader.wanted(),
            Due::Confirmation(unconfirmed) => unconfirmed.record.missing(),
            Due::Nothing => 0,
        }
    }

    /// Takes bytes and tells how many; gives a frame with its last byte, and takes nothing behind it.
    pub(super) fn handle_bytes(&mut self, now: Instant, data: &[u8]) -> (usize, Option<Frame>) {
        self.handle_timeout(now);
        let (used, frame) = match &mut self.due {
            Due::Frame(_, reader) => match reader.handle_bytes(data) {
                (used, Ok(frame)) => (used, frame),
                (used, Err(error)) => {
                    self.fail(error.into());
                    (used, None)
                }
            },
            Due::Confirmation(unconfirmed) => {
                let used = unconfirmed.record.take(data);
                self.confirm();
                (used, None)
            }
            Due::Nothing => (0, None),
        };
        if used > 0 {
            self.silent_at = after(now, REPLICA_SILENCE_MAX);
        }
        (used, frame)
    }

    pub(super) fn handle_end(&mut self) {
        if let Some(awaited) = self.expected() {
            self.fail(Fault::Closed(awaited));
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.expected().map(|_| self.deadline.min(self.silent_at))
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let Some(awaited) = self.expected() else {
            return;
        };
        if now >= self.deadline {
            self.fail(Fault::TimedOut(awaited));
        } else if now >= self.silent_at {
            self.fail(Fault::Silent(awaited));
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    pub(super) fn send(&mut self, frame: &Frame) {
        let bytes = Bytes::copy_from_slice(&frame.encode());
        self.steps.push_back(Step::Send(bytes));
    }

    /// Sends what is left to send, and ends: at once, or with the peer's first sealed record where the link is sealed.
    pub(super) fn verified(
        &mut self,
        frame: Option<&Frame>,
        replica: ReplicaId,
        key: KeyUsed,
        sealed: Option<Sealed>,
    ) {
        let mut bytes = Vec::with_capacity(FRAME_LEN.saturating_add(RECORD_OVERHEAD));
        if let Some(frame) = frame {
            bytes.extend_from_slice(&frame.encode());
        }
        let Some(mut sealed) = sealed else {
            self.send_bytes(bytes);
            self.end(Verified::new(replica, key, Stream::Plain));
            return;
        };
        if let Err(error) = sealed.sealer.confirm(&mut bytes) {
            return self.fail(Fault::CannotSeal(error));
        }
        self.send_bytes(bytes);
        self.due = Due::Confirmation(Box::new(Unconfirmed {
            record: Collected::new(),
            replica,
            key,
            sealed,
        }));
    }

    pub(super) fn announced(&mut self, replica: ReplicaId) {
        self.due = Due::Nothing;
        self.steps.push_back(Step::Announced(replica));
    }

    pub(super) fn fail(&mut self, fault: Fault) {
        self.due = Due::Nothing;
        self.steps.push_back(Step::Failed(fault));
    }

    fn end(&mut self, verified: Verified) {
        self.due = Due::Nothing;
        self.steps.push_back(Step::Verified(Box::new(verified)));
    }

    fn send_bytes(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.steps.push_back(Step::Send(bytes.into()));
        }
    }

    /// Judges the peer's first sealed record if it is whole.
    fn confirm(&mut self) {
        let Due::Confirmation(unconfirmed) = &mut self.due else {
            return;
        };
        let Some(record) = unconfirmed.record.whole_mut() else {
            return;
        };
        let verdict = unconfirmed.sealed.opener.confirm(record);
        match (verdict, std::mem::replace(&mut self.due, Due::Nothing)) {
            (Err(fault), _) => self.fail(Fault::NotSealed(fault)),
            (Ok(()), Due::Confirmation(confirmed)) => {
                let Unconfirmed {
                    replica,
                    key,
                    sealed,
                    record: _,
                } = *confirmed;
                self.end(Verified::new(replica, key, Stream::Sealed(sealed)));
            }
            (Ok(()), Due::Frame(..) | Due::Nothing) => {}
        }
    }

    fn expected(&self) -> Option<Awaited> {
        match &self.due {
            Due::Frame(awaited, _) => Some(*awaited),
            Due::Confirmation(_) => Some(Awaited::Confirmation),
            Due::Nothing => None,
        }
    }
}

/// A deadline; one that time cannot express is as good as the moment itself.
fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now)
}
