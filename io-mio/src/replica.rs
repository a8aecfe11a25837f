//! Links between replicas: the waiting around `adit_io_common::replica`, in a loop of the caller's.

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream},
    os::fd::AsRawFd,
    time::Instant,
};

use adit_io_common::replica::{CONNECT_TIMEOUT, Handshake, Link, LinkError, Replica, Turn};
use adit_proto_core::replica::ReplicaId;
use mio::{
    Interest, Registry, Token,
    net::{TcpListener, TcpStream},
    unix::SourceFd,
};
use slab::Slab;

use crate::{dials::connected, timers::Timers};

/// Handshakes with other replicas, accepted and dialled, as part of a loop around a `mio::Poll`.
///
/// The loop hands on the poll's events of this one's tokens to [`ready`](Self::ready), calls
/// [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout), and empties
/// [`poll_outcome`](Self::poll_outcome) after either. Dropping it gives up all handshakes.
#[derive(Debug)]
pub struct Replicas {
    replica: Replica,
    registry: Registry,
    first: usize,
    listener: Option<TcpListener>,
    /// When to accept although the listener was not told to be ready.
    accept_at: Option<Instant>,
    entries: Slab<Entry>,
    timers: Timers<usize>,
    outcomes: VecDeque<Outcome>,
}

/// What came of a connection.
#[derive(Debug)]
#[must_use = "dropping a link closes its connection"]
pub enum Outcome {
    /// A replica connected. What fails there is in the log only.
    Accepted(Link),
    /// A replica was dialled, by [`Replicas::dial`]. A failure is in the log as well.
    Dialled(ReplicaId, Result<Link, LinkError>),
}

#[derive(Debug)]
enum Entry {
    Connecting(Connecting),
    /// With the replica that was dialled.
    Shaking(Box<Handshake>, Option<ReplicaId>),
}

#[derive(Debug)]
struct Connecting {
    tcp: TcpStream,
    addr: SocketAddr,
    target: ReplicaId,
    until: Instant,
}

impl Replicas {
    /// Begins without a connection. All tokens from `first` on are this one's.
    #[must_use]
    pub fn new(replica: Replica, registry: Registry, first: Token) -> Self {
        Self {
            replica,
            registry,
            first: first.0,
            listener: None,
            accept_at: None,
            entries: Slab::new(),
            timers: Timers::default(),
            outcomes: VecDeque::new(),
        }
    }

    /// Accepts from a listener from here on, in place of a former one.
    ///
    /// # Errors
    /// What the system says of the listener.
    pub fn listen(&mut self, listener: StdListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        let token = Token(self.first);
        self.registry
            .register(&mut listener, token, Interest::READABLE)?;
        self.listener = Some(listener);
        Ok(())
    }

    /// Connects to a replica, and has both prove to each other that they are of the cluster, within [`CONNECT_TIMEOUT`]
    /// and the handshake's own time. What comes of it is an [`Outcome::Dialled`], in any case but this one:
    ///
    /// # Errors
    /// If `target` is not to be dialled.
    pub fn dial(
        &mut self,
        now: Instant,
        addr: SocketAddr,
        target: ReplicaId,
    ) -> Result<(), LinkError> {
        self.replica.may_dial(now, target)?;
        let tcp = match TcpStream::connect(addr) {
            Ok(tcp) => tcp,
            Err(error) => {
                self.not_connected(addr, target, LinkError::of_connect(error));
                return Ok(());
            }
        };
        let until = now + CONNECT_TIMEOUT;
        let key = self.entries.insert(Entry::Connecting(Connecting {
            tcp,
            addr,
            target,
            until,
        }));
        self.timers.arm(key, until);
        self.watch(now, key);
        Ok(())
    }

    /// Takes what the poll has told of one of this one's tokens. One that came late does no harm.
    pub fn ready(&mut self, now: Instant, token: Token) {
        match token.0.checked_sub(self.first) {
            Some(0) => self.accept(now),
            Some(above) => self.go_on(now, above - 1),
            None => {}
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = [self.timers.next(), self.accept_at];
        due.into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept(now);
        }
        while let Some(key) = self.timers.due(now) {
            self.go_on(now, key);
        }
    }

    /// The next link, or dial that failed.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// Accepts what has come, as far as one turn goes.
    fn accept(&mut self, now: Instant) {
        self.accept_at = None;
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = &self.listener else {
                return;
            };
            match listener.accept() {
                Ok((tcp, peer)) => {
                    if let Some(handshake) = self.replica.accept(now, tcp.into(), peer) {
                        let key = self
                            .entries
                            .insert(Entry::Shaking(Box::new(handshake), None));
                        self.watch(now, key);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    if let Some(pause) = self.replica.accept_failed(&error) {
                        self.accept_at = Some(now + pause);
                        return;
                    }
                }
            }
        }
        // There may be more, which the poll does not tell again.
        self.accept_at = Some(now);
    }

    /// Registers an entry's socket and looks at it once.
    fn watch(&mut self, now: Instant, key: usize) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let token = Token(self.first + 1 + key);
        let watched = match entry {
            Entry::Connecting(connecting) => {
                self.registry
                    .register(&mut connecting.tcp, token, Interest::WRITABLE)
            }
            Entry::Shaking(handshake, _) => {
                let both = Interest::READABLE | Interest::WRITABLE;
                self.registry
                    .register(&mut SourceFd(&handshake.as_raw_fd()), token, both)
            }
        };
        match watched {
            Ok(()) => self.go_on(now, key),
            Err(error) => self.give_up(key, LinkError::Socket(error)),
        }
    }

    /// Goes on with an entry whose socket is ready or whose time is over.
    fn go_on(&mut self, now: Instant, key: usize) {
        match self.entries.get_mut(key) {
            Some(Entry::Connecting(connecting)) => match connected(&connecting.tcp) {
                Ok(true) => self.begin(now, key),
                Ok(false) if now >= connecting.until => {
                    self.give_up(key, LinkError::ConnectTimedOut);
                }
                Ok(false) => {}
                Err(error) => self.give_up(key, LinkError::of_connect(error)),
            },
            Some(Entry::Shaking(handshake, _)) => match handshake.turn(now) {
                Turn::Waiting => self.timers.arm(key, handshake.poll_timeout()),
                Turn::Over => self.end(key),
            },
            None => {}
        }
    }

    /// A connection has come about.
    fn begin(&mut self, now: Instant, key: usize) {
        let Some(Entry::Connecting(connecting)) = self.remove(key) else {
            return;
        };
        let Connecting {
            mut tcp,
            addr,
            target,
            ..
        } = connecting;
        // One that cannot leave the poll cannot be registered again, which is told then.
        let _watched = self.registry.deregister(&mut tcp);
        match self.replica.dial(now, StdStream::from(tcp), addr, target) {
            Ok(handshake) => {
                let entry = Entry::Shaking(Box::new(handshake), Some(target));
                let key = self.entries.insert(entry);
                self.watch(now, key);
            }
            Err(error) => self.not_connected(addr, target, error),
        }
    }

    /// A handshake is over.
    fn end(&mut self, key: usize) {
        let Some(Entry::Shaking(handshake, dialled)) = self.remove(key) else {
            return;
        };
        // One that cannot leave the poll is watched in vain until it is closed.
        let _watched = self
            .registry
            .deregister(&mut SourceFd(&handshake.as_raw_fd()));
        match (dialled, handshake.end()) {
            (Some(target), outcome) => self.outcomes.push_back(Outcome::Dialled(target, outcome)),
            (None, Ok(link)) => self.outcomes.push_back(Outcome::Accepted(link)),
            // It was told by the handshake.
            (None, Err(_)) => {}
        }
    }

    /// Closes a connection of which nothing comes for another reason than its handshake.
    fn give_up(&mut self, key: usize, error: LinkError) {
        match self.remove(key) {
            Some(Entry::Connecting(Connecting { addr, target, .. })) => {
                self.not_connected(addr, target, error);
            }
            Some(Entry::Shaking(handshake, dialled)) => {
                let peer = handshake.peer_addr();
                drop(handshake);
                match dialled {
                    Some(target) => self.not_connected(peer, target, error),
                    None => self.replica.tell_unusable(peer, &error),
                }
            }
            None => {}
        }
    }

    fn not_connected(&mut self, addr: SocketAddr, target: ReplicaId, error: LinkError) {
        let error = self.replica.tell_unconnected(addr, target, error);
        self.outcomes
            .push_back(Outcome::Dialled(target, Err(error)));
    }

    fn remove(&mut self, key: usize) -> Option<Entry> {
        self.timers.forget(key);
        self.entries.try_remove(key)
    }
}

/// Accepted before others have their turn.
const ACCEPTS_PER_TURN: usize = 64;

#[cfg(test)]
mod tests;
