//! What the reconnect series of one gateway allows, told apart from the core's own reckoning of it.

use adit_proto_core::{
    agent::{backoff::BackoffCause, supervisor::LossKind},
    close::{Closed, PeerFault},
};

use crate::At;

/// One gateway of an agent's list: how far its series is, and when it may be tried again.
#[derive(Debug)]
pub(super) struct Series {
    /// Attempts since the series began, the immediate one included; a refusal takes it to the wait of one second.
    step: u32,
    /// It may be tried not before the first and must not wait beyond the second.
    pub(super) ready: (At, At),
    pub(super) cause: BackoffCause,
    /// The wait was drawn and not told yet.
    pub(super) drawn: bool,
}

impl Series {
    pub(super) fn new(at: At) -> Self {
        Self {
            step: 1,
            ready: (at, at),
            cause: BackoffCause::Unreachable,
            drawn: false,
        }
    }

    /// A round failed, or a connection was lost that was up for so long.
    pub(super) fn failed(&mut self, at: At, cause: BackoffCause, up: At) {
        self.cause = cause;
        if up >= At::from_secs(30) {
            self.step = 0;
        }
        if cause == BackoffCause::Unreachable && up >= STEADY {
            self.step = self.step.max(1);
            self.ready = (at, at);
            self.drawn = false;
            return;
        }
        if cause != BackoffCause::Unreachable {
            self.step = self.step.max(3);
        }
        let (low, high) = match cause {
            BackoffCause::Unreachable => half(self.take().min(At::from_secs(4))),
            BackoffCause::Refused => half(self.take().min(At::from_mins(1))),
            BackoffCause::IdentityRefused => (At::from_mins(1), At::from_secs(75)),
        };
        self.drawn = low < high;
        self.ready = (at + low, at + high);
    }

    /// What failed now had begun then, and the wait counts from there.
    pub(super) fn begun(&mut self, at: At, since: At) {
        let earlier = |ready: At| (ready - (at - since)).max(at);
        self.ready = (earlier(self.ready.0), earlier(self.ready.1));
    }

    /// Its machine's network changed: a gateway that did not answer may be tried sooner.
    pub(super) fn network_changed(&mut self, at: At) {
        if self.cause == BackoffCause::Unreachable {
            self.ready.0 = self.ready.0.min(at);
            self.drawn = false;
        }
    }

    fn take(&mut self) -> At {
        let step = self.step;
        self.step += 1;
        match step {
            0 => At::ZERO,
            1 => At::from_millis(50),
            2 => At::from_millis(200),
            more => At::from_secs(1 << (more - 3).min(6)),
        }
    }
}

fn half(nominal: At) -> (At, At) {
    (nominal / 2, nominal)
}

/// What the end of a connection means for reconnecting, said once more (design 8.4).
pub(super) fn meaning(closed: &Closed) -> LossKind {
    match closed {
        Closed::PeerRestarted => LossKind::Reset,
        Closed::ByPeer(close) if close.code == 0 => LossKind::Reset,
        Closed::ByPeer(close) if close.code == 6 => LossKind::IdentityRefused,
        Closed::ByPeer(_) => LossKind::ClosedByPeer,
        Closed::Overloaded => LossKind::Refused,
        Closed::IdentityRefused { .. } | Closed::PeerNotTrusted { .. } => LossKind::IdentityRefused,
        Closed::HandshakeTimedOut
        | Closed::PathDead
        | Closed::TimedOut
        | Closed::Fault(PeerFault::HeartbeatsUnanswered) => LossKind::TimedOut,
        _ => LossKind::LocalError,
    }
}

/// What the end of an attempt, or of a connection that was up for so long, means for the wait.
pub(super) fn cause_of(why: LossKind, up: At) -> BackoffCause {
    if why == LossKind::IdentityRefused {
        BackoffCause::IdentityRefused
    } else if why == LossKind::Refused || (why == LossKind::ClosedByPeer && up < STEADY) {
        BackoffCause::Refused
    } else {
        BackoffCause::Unreachable
    }
}

/// A connection that was up for so long was no failed attempt.
const STEADY: At = At::from_secs(5);
