//! Two ends of a byte stream, of which what the one says reaches the other in pieces of any size.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use adit_proto_core::replica::{Acceptor, Dialer, Opened, ReplicaId, Sealed, Step, Stream};
use bytes::Bytes;

use super::replica::PAUSE_MAX;
use crate::{At, choices::Choices};

/// One end of a stream.
pub(super) trait Peer {
    /// The connection is there.
    fn begin(&mut self, at: At);
    /// Bytes came.
    fn take(&mut self, now: Instant, at: At, bytes: &[u8]);
    /// What it has to say.
    fn said(&mut self) -> Vec<u8>;
    /// When it wants to run.
    fn until(&self) -> Option<Instant>;
    /// Time has passed.
    fn expire(&mut self, now: Instant, at: At);
}

/// A replica's handshake, and the stream behind it.
#[derive(Debug)]
pub(super) struct End {
    pub(super) id: ReplicaId,
    machine: Machine,
    /// What it says behind the handshake.
    pub(super) words: Vec<u8>,
    /// What it got behind the handshake.
    pub(super) got: Vec<u8>,
    /// What it sent in the handshake.
    pub(super) frames: Vec<Bytes>,
    /// Whom it takes the other end for.
    pub(super) linked: Option<ReplicaId>,
    pub(super) begun_at: At,
    pub(super) over_at: Option<At>,
    stream: Option<Stream>,
    /// A part of a sealed record.
    pending: Vec<u8>,
    out: Vec<u8>,
}

#[derive(Debug)]
pub(super) enum Machine {
    Dialer(Dialer),
    Acceptor(Acceptor),
}

impl Machine {
    fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) -> usize {
        match self {
            Self::Dialer(dialer) => dialer.handle_bytes(now, bytes),
            Self::Acceptor(acceptor) => acceptor.handle_bytes(now, bytes),
        }
    }

    fn poll(&mut self) -> Option<Step> {
        match self {
            Self::Dialer(dialer) => dialer.poll_output(),
            Self::Acceptor(acceptor) => acceptor.poll_output(),
        }
    }
}

impl End {
    pub(super) fn new(id: ReplicaId, machine: Machine, words: Vec<u8>) -> Self {
        Self {
            id,
            machine,
            words,
            got: Vec::new(),
            frames: Vec::new(),
            linked: None,
            begun_at: At::ZERO,
            over_at: None,
            stream: None,
            pending: Vec::new(),
            out: Vec::new(),
        }
    }

    fn steps(&mut self, at: At) {
        while let Some(step) = self.machine.poll() {
            match step {
                Step::Send(bytes) => {
                    self.out.extend_from_slice(&bytes);
                    self.frames.push(bytes);
                }
                Step::Verified(verified) => {
                    let (replica, stream) = verified.into_parts();
                    self.linked = Some(replica);
                    self.over_at = Some(at);
                    self.stream = Some(stream);
                    self.speak();
                }
                Step::Announced(_) | Step::Failed(_) => self.over_at = Some(at),
            }
        }
    }

    fn speak(&mut self) {
        match &mut self.stream {
            Some(Stream::Plain) => self.out.extend_from_slice(&self.words),
            Some(Stream::Sealed(Sealed { sealer, .. })) => {
                let sealed = sealer.seal(&self.words, &mut self.out);
                // What is not sealed is missing at the other end, where it is seen.
                let _missing = sealed.and_then(|()| sealer.end(&mut self.out));
            }
            None => {}
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        match &mut self.stream {
            Some(Stream::Plain) => self.got.extend_from_slice(bytes),
            Some(Stream::Sealed(Sealed { opener, .. })) => {
                self.pending.extend_from_slice(bytes);
                while let Ok(Opened::Data { payload, used }) = opener.open(&mut self.pending) {
                    self.got.extend_from_slice(payload);
                    self.pending.drain(..used);
                }
            }
            None => {}
        }
    }
}

impl Peer for End {
    fn begin(&mut self, at: At) {
        self.begun_at = at;
        self.steps(at);
    }

    fn take(&mut self, now: Instant, at: At, bytes: &[u8]) {
        let used = match self.over_at {
            None => self.machine.handle_bytes(now, bytes),
            Some(_) => 0,
        };
        self.steps(at);
        // What the handshake did not take is of the stream behind it.
        self.hear(bytes.get(used..).unwrap_or_default());
    }

    fn said(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    fn until(&self) -> Option<Instant> {
        match &self.machine {
            Machine::Dialer(dialer) => dialer.poll_timeout(),
            Machine::Acceptor(acceptor) => acceptor.poll_timeout(),
        }
    }

    fn expire(&mut self, now: Instant, at: At) {
        match &mut self.machine {
            Machine::Dialer(dialer) => dialer.handle_timeout(now),
            Machine::Acceptor(acceptor) => acceptor.handle_timeout(now),
        }
        self.steps(at);
    }
}

/// Carries bytes both ways until nobody has anything to say and no handshake is under way; gives the time then.
pub(super) fn pass(
    choices: &mut Choices,
    base: Instant,
    (begun, may_trickle): (At, bool),
    one: &mut dyn Peer,
    two: &mut dyn Peer,
) -> At {
    let mut at = begun;
    let mut ways = [VecDeque::new(), VecDeque::new()];
    let is_trickle = may_trickle && choices.chance(150);
    let largest = choices.scaled(1, 5_000);
    one.begin(at);
    two.begin(at);
    loop {
        ways[0].extend(one.said());
        ways[1].extend(two.said());
        let is_quiet = ways.iter().all(VecDeque::is_empty);
        let deadline = one.until().into_iter().chain(two.until()).min();
        let deadline = deadline.map(|at| at.saturating_duration_since(base));
        if is_quiet {
            let Some(due) = deadline else {
                return at;
            };
            at = at.max(due);
        } else {
            let pause = if is_trickle { TRICKLE_MAX } else { PAUSE_MAX };
            let next = at + choices.time(At::ZERO, pause);
            at = deadline.map_or(next, |due| next.min(due)).max(at);
        }
        let now = base + at;
        expire(one, now, at);
        expire(two, now, at);
        let way = match (ways[0].is_empty(), ways[1].is_empty()) {
            (true, true) => continue,
            (false, true) => 0,
            (true, false) => 1,
            (false, false) => choices.index(2),
        };
        let len = usize::try_from(choices.between(1, largest)).unwrap_or(1);
        let len = if is_trickle { 8 } else { len }.min(ways[way].len());
        let piece: Vec<u8> = ways[way].drain(..len).collect();
        match way {
            0 => two.take(now, at, &piece),
            _ => one.take(now, at, &piece),
        }
    }
}

fn expire(end: &mut dyn Peer, now: Instant, at: At) {
    if end.until().is_some_and(|due| due <= now) {
        end.expire(now, at);
    }
}

const TRICKLE_MAX: At = Duration::from_millis(1_500);
