//! The core's replica handshake with a TCP connection to it, all but waiting for it (replica-handshake, design 8.16).
//!
//! [`Replica`] begins a [`Handshake`] on a connection that was accepted or opened, and out of that comes a [`Link`]: who
//! the peer is, together with the socket and with how its bytes are carried. [`Roll`] says which of two links with one
//! replica stays.

mod error;
mod handshake;
mod link;
mod places;
mod roll;
mod sealed_leg;
#[cfg(test)]
mod tests;

use std::{
    fmt::Display,
    io,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto_core::{
    link::provider::default_provider,
    replica::{Acceptor, Binding, Config, Dialer, Nonce, ReplicaId, Slots},
};

use self::{handshake::Machine, places::Places};
use crate::lines::Lines;

pub use self::{
    error::LinkError,
    handshake::{Handshake, Turn},
    link::{Carrier, Link, Proof, SealedLink},
    roll::{LinkId, Roll, Rolled},
    sealed_leg::{SealedLeg, UNWRITTEN_MAX},
};

/// How long a driver lets a connection to a replica come about. The reference leaves that to the operating system
/// (replica-handshake 10), which takes minutes.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One replica's end of all its handshakes. Clones share the places of handshakes in progress, and the bounds of the log
/// lines that peers can cause.
#[derive(Clone, Debug)]
pub struct Replica {
    config: Arc<Config>,
    places: Places,
    turned_away: Lines,
    accepting: Lines,
    dialling: Lines,
    failing: Lines,
    links: Lines,
}

impl Replica {
    /// Takes what the replica brings to its handshakes, and the places of those that it accepts.
    #[must_use]
    pub fn new(config: Config, slots: Slots) -> Self {
        Self {
            config: Arc::new(config),
            places: Places::new(slots),
            turned_away: Lines::new(TURNED_AWAY),
            accepting: Lines::new("no link with whoever connected to the replica port"),
            dialling: Lines::new("no link with a replica that was dialled"),
            failing: Lines::new(ACCEPT_FAILS),
            links: Lines::new("link with a replica"),
        }
    }

    /// Brings something else to the handshakes that begin from here on. Places and bounds stay shared with those that are
    /// in progress.
    pub fn set_config(&mut self, config: Config) {
        self.config = Arc::new(config);
    }

    /// Begins the handshake of a connection from `peer` that was accepted. Without a place for it, it is closed unread,
    /// and there is none.
    pub fn accept(&self, now: Instant, tcp: TcpStream, peer: SocketAddr) -> Option<Handshake> {
        let place = match self.places.take(peer.ip()) {
            Ok(place) => place,
            Err(error) => {
                if self.turned_away.allow() {
                    tracing::warn!(%peer, %error, "{TURNED_AWAY}");
                }
                return None;
            }
        };
        let begun = prepare(&tcp).and_then(|()| {
            let config = Arc::clone(&self.config);
            Ok(Acceptor::new(now, config, Binding::Plaintext, draw()?))
        });
        match begun {
            Ok(machine) => {
                let machine = Machine::Acceptor(machine);
                let lines = [&self.accepting, &self.links].map(Lines::clone);
                Some(Handshake::new(now, machine, tcp, peer, Some(place), lines))
            }
            Err(error) => {
                self.tell_unusable(peer, &error);
                None
            }
        }
    }

    /// Tells whether `target` is one to dial, before there is a connection to it.
    ///
    /// # Errors
    /// If it is not of the list of replicas or does not have a higher id than this one, or the system gives no randomness.
    pub fn may_dial(&self, now: Instant, target: ReplicaId) -> Result<(), LinkError> {
        self.dialer(now, target).map(drop)
    }

    /// Begins the handshake of a connection to `target`, at the address `peer`, that was opened.
    ///
    /// # Errors
    /// If `target` is not to be dialled, or the socket or the system's randomness cannot be used.
    pub fn dial(
        &self,
        now: Instant,
        tcp: TcpStream,
        peer: SocketAddr,
        target: ReplicaId,
    ) -> Result<Handshake, LinkError> {
        prepare(&tcp)?;
        let machine = Machine::Dialer(self.dialer(now, target)?, target);
        let lines = [&self.dialling, &self.links].map(Lines::clone);
        Ok(Handshake::new(now, machine, tcp, peer, None, lines))
    }

    /// Writes down that there is no connection to `target`, at the address or name `peer`, and gives the error back.
    pub fn tell_unconnected(
        &self,
        peer: impl Display,
        target: ReplicaId,
        error: LinkError,
    ) -> LinkError {
        if self.dialling.allow() {
            tracing::warn!(replica = %target, %peer, %error, "no link with a replica that was dialled");
        }
        error
    }

    /// Writes down that a connection from `peer` was closed, as this machine cannot use it.
    pub fn tell_unusable(&self, peer: SocketAddr, error: &LinkError) {
        if self.accepting.allow() {
            tracing::error!(%peer, %error, "a connection to the replica port was closed");
        }
    }

    /// Judges the failure of a listener to accept, and writes it down. Where the connection alone was at fault, the next
    /// one may be taken at once; anything else is a lack that takes time, for which a driver waits.
    #[must_use]
    pub fn accept_failed(&self, error: &io::Error) -> Option<Duration> {
        let kind = error.kind();
        if kind == io::ErrorKind::ConnectionAborted || kind == io::ErrorKind::Interrupted {
            return None;
        }
        if self.failing.allow() {
            tracing::warn!(%error, "{ACCEPT_FAILS}");
        }
        Some(ACCEPT_PAUSE)
    }

    /// Handshakes of accepted connections that are in progress.
    #[must_use]
    pub fn accepting(&self) -> usize {
        self.places.taken()
    }

    fn dialer(&self, now: Instant, target: ReplicaId) -> Result<Dialer, LinkError> {
        let config = Arc::clone(&self.config);
        Ok(Dialer::new(
            now,
            config,
            Binding::Plaintext,
            target,
            draw()?,
        )?)
    }
}

/// What is written is sent at once, as at both ends of the reference (replica-handshake 9).
fn prepare(tcp: &TcpStream) -> Result<(), LinkError> {
    let prepared = tcp.set_nonblocking(true).and_then(|()| {
        let socket = socket2::SockRef::from(tcp);
        socket.set_tcp_nodelay(true)
    });
    prepared.map_err(LinkError::Socket)
}

fn draw() -> Result<Nonce, LinkError> {
    let mut drawn = [0; 32];
    let filled = default_provider().secure_random.fill(&mut drawn);
    filled.map_err(|_| LinkError::NoRandomness)?;
    Nonce::new(drawn).map_err(|_| LinkError::NoRandomness)
}

const TURNED_AWAY: &str = "a replica's connection was closed unread: too many handshakes";
const ACCEPT_FAILS: &str =
    "replicas' connections cannot be accepted; the limit of open files may be too low";
/// How long nothing is accepted when the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
