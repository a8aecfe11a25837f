//! The version handshake on the first stream of a connection, both sides (peer-rpc 3).

use std::time::Instant;

use bytes::Bytes;

use super::{
    PeerClose,
    capabilities::Capabilities,
    hello::{Ack, Hello, HelloError, HelloReader, VersionRange},
};
use crate::limits::PEER_HELLO_TIMEOUT;

/// What a connection's two sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The cluster wire version.
    pub version: u16,
    /// The bits that are active.
    pub capabilities: Capabilities,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiationError {
    /// Nothing that both speak: one of them must be updated.
    #[error(
        "no common version: this node speaks {} to {}, the peer {} to {}",
        local.min, local.max, remote.min, remote.max
    )]
    NoCommonVersion {
        /// What this side speaks.
        local: VersionRange,
        /// What the peer says it speaks.
        remote: VersionRange,
    },
    /// A version was agreed on that this side did not offer: the peer's fault.
    #[error("the peer agreed on version {agreed}, which was not offered")]
    NotOffered {
        /// What the ack says.
        agreed: u16,
    },
    /// The message is none: the peer's fault, or a peer of another generation.
    #[error(transparent)]
    Message(#[from] HelloError),
    /// The message did not come in time: the peer's fault, or the path's.
    #[error("the version handshake did not end in time")]
    TimedOut,
}

impl NegotiationError {
    /// How a server closes the connection, and a client the one that it will not use.
    #[must_use]
    pub fn close(&self) -> PeerClose {
        PeerClose::version(self)
    }
}

/// The side that accepted the connection: waits for a hello and answers it.
#[derive(Debug)]
pub struct Acceptor {
    local: VersionRange,
    capabilities: Capabilities,
    reader: HelloReader,
    deadline: Option<Instant>,
}

/// The side that dialled: says hello and waits for the answer.
#[derive(Debug)]
pub struct Dialler {
    hello: Hello,
    reader: HelloReader,
    deadline: Option<Instant>,
}

impl Acceptor {
    /// Starts the clock: the hello must be whole in [`PEER_HELLO_TIMEOUT`] from the connection's acceptance.
    #[must_use]
    pub fn new(now: Instant, local: VersionRange, capabilities: Capabilities) -> Self {
        Self {
            local,
            capabilities,
            reader: HelloReader::default(),
            deadline: now.checked_add(PEER_HELLO_TIMEOUT),
        }
    }

    /// Takes bytes of the first stream; gives the ack to be written, and what is agreed, once the hello is whole.
    ///
    /// # Errors
    /// [`NegotiationError`]; the connection is to be closed with [`NegotiationError::close`] and no ack.
    pub fn handle_bytes(
        &mut self,
        data: &[u8],
    ) -> Result<Option<(Bytes, Agreed)>, NegotiationError> {
        let Some(message) = self.reader.feed(data)? else {
            return Ok(None);
        };
        let hello = Hello::decode(&message)?;
        self.deadline = None;
        let no_common = NegotiationError::NoCommonVersion {
            local: self.local,
            remote: hello.versions,
        };
        let version = self.local.common(hello.versions).ok_or(no_common)?;
        let capabilities = Capabilities::active(hello.capabilities, self.capabilities);
        let ack = Ack {
            agreed: version,
            capabilities,
        };
        let agreed = Agreed {
            version,
            capabilities,
        };
        Ok(Some((ack.encode(), agreed)))
    }

    /// The client has ended its half.
    ///
    /// # Errors
    /// [`HelloError::UnexpectedEnd`] where the hello is not whole.
    pub fn handle_end(&self) -> Result<(), NegotiationError> {
        Ok(self.reader.finish()?)
    }

    /// When [`Acceptor::handle_timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Time has passed.
    ///
    /// # Errors
    /// [`NegotiationError::TimedOut`] at the deadline.
    pub fn handle_timeout(&self, now: Instant) -> Result<(), NegotiationError> {
        expired(self.deadline, now)
    }
}

impl Dialler {
    /// Gives the hello to be written, and starts the clock.
    #[must_use]
    pub fn new(now: Instant, local: VersionRange, capabilities: Capabilities) -> (Self, Bytes) {
        let hello = Hello {
            versions: local,
            capabilities,
        };
        let dialler = Self {
            hello,
            reader: HelloReader::default(),
            deadline: now.checked_add(PEER_HELLO_TIMEOUT),
        };
        (dialler, hello.encode())
    }

    /// Takes bytes of the first stream; gives what is agreed once the ack is whole.
    ///
    /// # Errors
    /// [`NegotiationError`]; the connection is not to be used.
    pub fn handle_bytes(&mut self, data: &[u8]) -> Result<Option<Agreed>, NegotiationError> {
        let Some(message) = self.reader.feed(data)? else {
            return Ok(None);
        };
        let ack = Ack::decode(&message)?;
        self.deadline = None;
        if !self.hello.versions.holds(ack.agreed) {
            return Err(NegotiationError::NotOffered { agreed: ack.agreed });
        }
        Ok(Some(Agreed {
            version: ack.agreed,
            capabilities: Capabilities::active(self.hello.capabilities, ack.capabilities),
        }))
    }

    /// The server has ended its half.
    ///
    /// # Errors
    /// [`HelloError::UnexpectedEnd`] where the ack is not whole.
    pub fn handle_end(&self) -> Result<(), NegotiationError> {
        Ok(self.reader.finish()?)
    }

    /// When [`Dialler::handle_timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Time has passed.
    ///
    /// # Errors
    /// [`NegotiationError::TimedOut`] at the deadline.
    pub fn handle_timeout(&self, now: Instant) -> Result<(), NegotiationError> {
        expired(self.deadline, now)
    }
}

fn expired(deadline: Option<Instant>, now: Instant) -> Result<(), NegotiationError> {
    match deadline.is_some_and(|at| at <= now) {
        true => Err(NegotiationError::TimedOut),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::peer::bed::start;

    const G2: VersionRange = VersionRange { min: 1, max: 2 };

    fn acceptor(local: VersionRange) -> Acceptor {
        Acceptor::new(start(), local, Capabilities::ALL)
    }

    fn hello(min: u16, max: u16) -> Bytes {
        let versions = VersionRange { min, max };
        Dialler::new(start(), versions, Capabilities::NONE).1
    }

    #[test]
    fn both_sides_agree_on_version_and_capabilities() {
        let now = start();
        let (mut dialler, hello) = Dialler::new(now, G2, Capabilities::ALL);
        let mut acceptor = acceptor(VersionRange { min: 2, max: 7 });
        let (ack, theirs) = acceptor.handle_bytes(&hello).unwrap().unwrap();
        let ours = dialler.handle_bytes(&ack).unwrap().unwrap();
        assert_eq!(ours, theirs);
        assert_eq!(ours.version, 2);
        assert_eq!(ours.capabilities, Capabilities::ALL);
        assert_eq!(
            (dialler.poll_timeout(), acceptor.poll_timeout()),
            (None, None)
        );
    }

    #[test]
    fn a_reference_peer_gets_reference_bytes() {
        let mut acceptor = acceptor(G2);
        let (ack, agreed) = acceptor.handle_bytes(&hello(1, 2)).unwrap().unwrap();
        assert_eq!(ack, [0, 0, 0, 3, 0x92, 2, 0].as_slice());
        assert_eq!(agreed.capabilities, Capabilities::NONE);
    }

    #[test]
    fn disjoint_and_inverted_ranges_close_with_a_reason_and_no_ack() {
        for (min, max) in [(3, 9), (2, 1), (65535, 0)] {
            let error = acceptor(G2).handle_bytes(&hello(min, max)).unwrap_err();
            assert!(matches!(error, NegotiationError::NoCommonVersion { .. }));
            let close = error.close();
            assert_eq!(close.code(), 1);
            assert!(close.reason().starts_with("no common version"));
            assert!(close.reason().len() <= 100);
        }
    }

    #[test]
    fn a_client_takes_only_what_it_offered() {
        let (mut dialler, _) = Dialler::new(start(), G2, Capabilities::NONE);
        let ack = Ack {
            agreed: 3,
            capabilities: Capabilities::NONE,
        };
        let got = dialler.handle_bytes(&ack.encode());
        assert_eq!(got, Err(NegotiationError::NotOffered { agreed: 3 }));
    }

    #[test]
    fn a_server_does_not_choose_what_was_not_offered() {
        let (mut dialler, _) = Dialler::new(start(), G2, Capabilities::REFUSALS);
        let ack = Ack {
            agreed: 2,
            capabilities: Capabilities::ALL,
        };
        let agreed = dialler.handle_bytes(&ack.encode()).unwrap().unwrap();
        assert_eq!(agreed.capabilities, Capabilities::REFUSALS);
    }

    #[test]
    fn a_hello_has_five_seconds() {
        let now = start();
        let mut acceptor = Acceptor::new(now, G2, Capabilities::NONE);
        let at = acceptor.poll_timeout().unwrap();
        assert_eq!(at, now + Duration::from_secs(5));
        // A byte now and then buys no time.
        assert_eq!(acceptor.handle_bytes(&[0]), Ok(None));
        assert_eq!(acceptor.poll_timeout(), Some(at));
        let just_before = at - Duration::from_nanos(1);
        assert_eq!(acceptor.handle_timeout(just_before), Ok(()));
        let error = acceptor.handle_timeout(at).unwrap_err();
        assert_eq!(error, NegotiationError::TimedOut);
        assert_eq!(error.close().code(), 1);
    }

    #[test]
    fn an_answer_does_not_wait_for_the_end_of_the_half() {
        let mut acceptor = acceptor(G2);
        let hello = hello(1, 2);
        for byte in &hello[..hello.len() - 1] {
            assert_eq!(acceptor.handle_bytes(&[*byte]), Ok(None));
            let end = Err(NegotiationError::Message(HelloError::UnexpectedEnd));
            assert_eq!(acceptor.handle_end(), end);
        }
        assert!(
            acceptor
                .handle_bytes(&hello[hello.len() - 1..])
                .unwrap()
                .is_some()
        );
        assert_eq!(acceptor.handle_end(), Ok(()));
    }

    #[test]
    fn what_is_no_hello_closes() {
        let error = acceptor(G2).handle_bytes(&[0, 0, 0x20, 0]).unwrap_err();
        assert_eq!(error.close().code(), 1);
        let error = acceptor(G2).handle_bytes(&[0, 0, 0, 1, 0x90]).unwrap_err();
        assert!(matches!(
            error,
            NegotiationError::Message(HelloError::ArrayLen { got: 0, .. })
        ));
    }
}
