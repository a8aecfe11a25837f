//! Both ends of a handshake in virtual time.

mod acceptor;
mod dialer;
mod pair;
mod seal;

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use super::*;

#[expect(
    clippy::disallowed_methods,
    reason = "the base of virtual time: only distances from it count"
)]
pub(super) fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(|| Instant::now() + Duration::from_secs(86_400))
}

pub(super) fn key(psk: &str) -> ReplicaKey {
    ReplicaKey::new(psk.as_bytes()).unwrap()
}

pub(super) fn keys(current: &str, previous: Option<&str>) -> Keys {
    Keys::new(key(current), previous.map(key)).unwrap()
}

/// Replica `own` of four, with the key of all.
pub(super) fn config(own: u8, seal: Seal) -> Config {
    config_with(own, seal, Some(keys(PSK, None)))
}

pub(super) fn config_with(own: u8, seal: Seal, keys: Option<Keys>) -> Config {
    let roster = Roster::dense(4, seal);
    Config::new(ClusterId::of(CLUSTER), ReplicaId(own), roster, keys).unwrap()
}

pub(super) fn nonce(byte: u8) -> Nonce {
    Nonce::new([byte; 32]).unwrap()
}

/// Replica 1, which dials replica 2.
pub(super) fn dialer(config: Config) -> Dialer {
    let config = Arc::new(config);
    Dialer::new(
        start(),
        config,
        Binding::Plaintext,
        ReplicaId(2),
        nonce(0x11),
    )
    .unwrap()
}

/// Replica 2.
pub(super) fn acceptor(config: Config) -> Acceptor {
    Acceptor::new(start(), Arc::new(config), Binding::Plaintext, nonce(0x22))
}

/// Either end.
pub(super) enum End {
    Dialer(Dialer),
    Acceptor(Acceptor),
}

impl End {
    pub(super) fn handle_bytes(&mut self, now: Instant, data: &[u8]) -> usize {
        match self {
            Self::Dialer(dialer) => dialer.handle_bytes(now, data),
            Self::Acceptor(acceptor) => acceptor.handle_bytes(now, data),
        }
    }

    pub(super) fn handle_end(&mut self) {
        match self {
            Self::Dialer(dialer) => dialer.handle_end(),
            Self::Acceptor(acceptor) => acceptor.handle_end(),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Dialer(dialer) => dialer.handle_timeout(now),
            Self::Acceptor(acceptor) => acceptor.handle_timeout(now),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Dialer(dialer) => dialer.poll_timeout(),
            Self::Acceptor(acceptor) => acceptor.poll_timeout(),
        }
    }

    pub(super) fn wanted(&self) -> usize {
        match self {
            Self::Dialer(dialer) => dialer.wanted(),
            Self::Acceptor(acceptor) => acceptor.wanted(),
        }
    }

    pub(super) fn drain(&mut self) -> Told {
        let mut told = Told::default();
        loop {
            let step = match self {
                Self::Dialer(dialer) => dialer.poll_output(),
                Self::Acceptor(acceptor) => acceptor.poll_output(),
            };
            match step {
                None => return told,
                Some(Step::Send(bytes)) => {
                    assert!(told.outcome.is_none(), "sent behind the outcome");
                    told.sent.extend_from_slice(&bytes);
                }
                Some(step) => {
                    assert!(told.outcome.is_none(), "a second outcome");
                    told.outcome = Some(step);
                }
            }
        }
    }

    /// Hands bytes over and gives what came of it.
    pub(super) fn take(&mut self, data: &[u8]) -> Told {
        assert_eq!(self.handle_bytes(start(), data), data.len());
        self.drain()
    }
}

/// What an end wanted done.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) sent: Vec<u8>,
    pub(super) outcome: Option<Step>,
}

impl Told {
    pub(super) fn fault(&self) -> Option<Fault> {
        match &self.outcome {
            Some(Step::Failed(fault)) => Some(*fault),
            Some(Step::Send(_) | Step::Verified(_) | Step::Announced(_)) | None => None,
        }
    }

    pub(super) fn verified(self) -> (ReplicaId, KeyUsed, Stream) {
        match self.outcome {
            Some(Step::Verified(verified)) => {
                let key = verified.key();
                let (replica, stream) = verified.into_parts();
                (replica, key, stream)
            }
            other => panic!("not verified: {other:?}"),
        }
    }

    pub(super) fn sealed(self) -> Sealed {
        match self.verified().2 {
            Stream::Sealed(sealed) => sealed,
            Stream::Plain => panic!("not sealed"),
        }
    }

    /// The one frame that was sent.
    pub(super) fn frame(&self) -> Frame {
        let mut reader = FrameReader::new(Profile::B, Conduct::Strict);
        let (used, frame) = reader.handle_bytes(&self.sent);
        assert_eq!(used, self.sent.len());
        frame.unwrap().unwrap()
    }
}

pub(super) const PSK: &str = "0123456789abcdef0123456789abcdef";
pub(super) const OTHER_PSK: &str = "fedcba9876543210fedcba9876543210";
pub(super) const CLUSTER: &str = "iggy-cluster";
