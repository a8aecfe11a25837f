//! One handshake on one connection.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    time::Instant,
};

use adit_proto_core::{
    limits::REPLICA_HANDSHAKE_TIMEOUT,
    replica::{Acceptor, Dialer, FRAME_LEN, KeyUsed, ReplicaId, Step, Verified},
};
use bytes::{Buf, BytesMut};

use super::{Carrier, Link, LinkError, Proof, places::Held};
use crate::lines::Lines;

/// One handshake on a TCP connection that does not block. The driver waits until the socket is ready or the time is over,
/// and calls [`turn`](Self::turn); dropping it gives up and closes the connection.
///
/// No byte behind the handshake is ever read from the socket, which [`end`](Self::end) hands over with the outcome.
#[derive(Debug)]
#[must_use = "a handshake that is dropped closes its connection"]
pub struct Handshake {
    machine: Machine,
    tcp: TcpStream,
    peer: SocketAddr,
    /// When the last byte has to be written, as the machine looks only at what comes.
    deadline: Instant,
    unwritten: BytesMut,
    /// Why nothing can be written any more. What the peer said before is still read: it may say why.
    cut: Option<io::Error>,
    outcome: Option<Result<Outcome, LinkError>>,
    place: Option<Held>,
    /// Of failures, and of links.
    lines: [Lines; 2],
}

/// What a turn led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing to do until the socket is ready or the time is over.
    Waiting,
    /// It is over; [`Handshake::end`] is next.
    Over,
}

#[derive(Debug)]
pub(super) enum Machine {
    Dialer(Dialer, ReplicaId),
    Acceptor(Acceptor),
}

#[derive(Debug)]
enum Outcome {
    Verified(Box<Verified>),
    Announced(ReplicaId),
}

impl Handshake {
    pub(super) fn new(
        now: Instant,
        machine: Machine,
        tcp: TcpStream,
        peer: SocketAddr,
        place: Option<Held>,
        lines: [Lines; 2],
    ) -> Self {
        Self {
            machine,
            tcp,
            peer,
            deadline: now + REPLICA_HANDSHAKE_TIMEOUT,
            unwritten: BytesMut::new(),
            cut: None,
            outcome: None,
            place,
            lines,
        }
    }

    /// Goes on as far as that is possible without waiting.
    pub fn turn(&mut self, now: Instant) -> Turn {
        self.machine.handle_timeout(now);
        loop {
            self.take_steps();
            self.write();
            if self.is_over(now) {
                return Turn::Over;
            }
            if !self.read(now) {
                return Turn::Waiting;
            }
        }
    }

    /// When [`turn`](Self::turn) is due although the socket is not ready.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let machine = self.machine.poll_timeout();
        machine.map_or(self.deadline, |at| at.min(self.deadline))
    }

    /// The address of the peer's end.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// Tells whether something is awaited from the peer. What else comes is not of the handshake.
    #[must_use]
    pub fn awaits_read(&self) -> bool {
        self.machine.wanted() > 0
    }

    /// Tells whether something is left to be written.
    #[must_use]
    pub fn awaits_write(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Ends it, with a line in the log: the link, or why there is none. The socket must be registered with nobody.
    ///
    /// # Errors
    /// If the handshake failed, or is not over; the connection was closed.
    pub fn end(self) -> Result<Link, LinkError> {
        let Self {
            machine,
            tcp,
            peer,
            outcome,
            lines,
            place,
            ..
        } = self;
        // The next one may begin from here on.
        drop(place);
        let link = match outcome.unwrap_or(Err(LinkError::GivenUp)) {
            Ok(Outcome::Verified(verified)) => {
                let proof = Proof::Verified(verified.key());
                let (replica, stream) = verified.into_parts();
                let carrier = Carrier::new(tcp, stream);
                Ok(Link {
                    replica,
                    peer,
                    proof,
                    carrier,
                })
            }
            Ok(Outcome::Announced(replica)) => Ok(Link {
                replica,
                peer,
                proof: Proof::None,
                carrier: Carrier::Plain(tcp),
            }),
            Err(error) => Err(error),
        };
        let [failures, links] = &lines;
        match &link {
            Ok(link) if links.allow() => tell(link),
            Ok(_) => {}
            Err(error) => machine.tell_failure(peer, error, failures),
        }
        link
    }

    fn take_steps(&mut self) {
        while let Some(step) = self.machine.poll_output() {
            match step {
                Step::Send(bytes) if self.cut.is_none() => self.unwritten.extend_from_slice(&bytes),
                Step::Send(_) => {}
                Step::Verified(verified) => self.outcome = Some(Ok(Outcome::Verified(verified))),
                Step::Announced(replica) => self.outcome = Some(Ok(Outcome::Announced(replica))),
                Step::Failed(fault) => self.outcome = Some(Err(fault.into())),
            }
        }
    }

    /// Writes what the socket takes at once.
    fn write(&mut self) {
        while !self.unwritten.is_empty() {
            match self.tcp.write(&self.unwritten) {
                Ok(0) => return self.cut(io::ErrorKind::WriteZero.into()),
                Ok(len) => self.unwritten.advance(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.cut(error),
            }
        }
    }

    fn cut(&mut self, error: io::Error) {
        self.unwritten.clear();
        self.cut = Some(error);
    }

    /// A success is one only once everything is written. A failure is told as far as the socket takes it at once, and
    /// waits for nobody (replica-handshake 8).
    fn is_over(&mut self, now: Instant) -> bool {
        if !matches!(self.outcome, Some(Ok(_))) {
            return self.outcome.is_some();
        }
        if let Some(error) = self.cut.take() {
            self.outcome = Some(Err(LinkError::Cut(error)));
        } else if !self.unwritten.is_empty() && now >= self.deadline {
            self.outcome = Some(Err(LinkError::Unwritten));
        }
        self.unwritten.is_empty() || matches!(self.outcome, Some(Err(_)))
    }

    /// Reads at most what is awaited; tells whether there may be something to do.
    fn read(&mut self, now: Instant) -> bool {
        let mut buffer = [0; FRAME_LEN];
        let wanted = self.machine.wanted().min(buffer.len());
        if wanted == 0 {
            return false;
        }
        let room = &mut buffer[..wanted];
        match self.tcp.read(room) {
            Ok(0) => self.machine.handle_end(),
            Ok(len) => {
                let used = self.machine.handle_bytes(now, &room[..len]);
                debug_assert!(used == len || self.machine.wanted() == 0, "bytes were lost");
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => self.machine.handle_end(),
        }
        true
    }
}

/// For a driver to register the socket with.
impl AsFd for Handshake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

impl AsRawFd for Handshake {
    fn as_raw_fd(&self) -> RawFd {
        self.tcp.as_raw_fd()
    }
}

impl Machine {
    fn wanted(&self) -> usize {
        match self {
            Self::Dialer(dialer, _) => dialer.wanted(),
            Self::Acceptor(acceptor) => acceptor.wanted(),
        }
    }

    fn handle_bytes(&mut self, now: Instant, data: &[u8]) -> usize {
        match self {
            Self::Dialer(dialer, _) => dialer.handle_bytes(now, data),
            Self::Acceptor(acceptor) => acceptor.handle_bytes(now, data),
        }
    }

    fn handle_end(&mut self) {
        match self {
            Self::Dialer(dialer, _) => dialer.handle_end(),
            Self::Acceptor(acceptor) => acceptor.handle_end(),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Dialer(dialer, _) => dialer.handle_timeout(now),
            Self::Acceptor(acceptor) => acceptor.handle_timeout(now),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Dialer(dialer, _) => dialer.poll_timeout(),
            Self::Acceptor(acceptor) => acceptor.poll_timeout(),
        }
    }

    fn poll_output(&mut self) -> Option<Step> {
        match self {
            Self::Dialer(dialer, _) => dialer.poll_output(),
            Self::Acceptor(acceptor) => acceptor.poll_output(),
        }
    }

    fn tell_failure(&self, peer: SocketAddr, error: &LinkError, lines: &Lines) {
        if matches!(error, LinkError::GivenUp) || !lines.allow() {
            return;
        }
        match self {
            Self::Dialer(_, replica) => {
                tracing::warn!(%replica, %peer, %error, "no link with a replica that was dialled");
            }
            Self::Acceptor(_) => {
                tracing::warn!(%peer, %error, "no link with whoever connected to the replica port");
            }
        }
    }
}

fn tell(link: &Link) {
    let (replica, peer, sealed) = (link.replica(), link.peer_addr(), link.is_sealed());
    match link.proof() {
        Proof::Verified(KeyUsed::Current) => {
            tracing::info!(%replica, %peer, sealed, "link with a replica");
        }
        Proof::Verified(KeyUsed::Previous) => tracing::warn!(
            %replica, %peer, sealed,
            "link with a replica that still signs with the previous shared secret: change it there, before it is \
             removed here"
        ),
        Proof::None => tracing::warn!(
            %replica, %peer,
            "link with a replica that has proven nothing, as authentication is off: set the shared secret"
        ),
    }
}
