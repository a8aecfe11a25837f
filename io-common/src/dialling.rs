//! The core's `Dial`, all but the sockets.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, TcpStream},
    sync::Arc,
    time::Instant,
};

use adit_proto_core::{
    agent::{
        dial::{ConnectErrorKind, Dial, DialError, DialStep, ResolveError},
        policy::Policy,
    },
    target::Target,
};

use crate::resolver::{Lookup, Resolver};

/// Told how a dial has ended, once, unless it was given up.
pub type Done = Box<dyn FnOnce(Result<TcpStream, DialError>) + Send>;

/// A driver's way to connect to targets.
pub trait Dialler: Send + Sync {
    /// Connects to a target as the policy allows, within 20 s at the latest.
    fn dial(&self, target: Target, policy: Arc<Policy>, done: Done) -> UnderWay;
}

/// A dial that is under way; dropping this gives up.
pub struct UnderWay(Option<Box<dyn FnOnce() + Send>>);

impl UnderWay {
    /// Gives up by calling this.
    #[must_use]
    pub fn new(give_up: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(give_up)))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(give_up) = self.0.take() {
            give_up();
        }
    }
}

impl fmt::Debug for UnderWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnderWay")
    }
}

/// Told what a look-up has found.
pub type Resolved = Box<dyn FnOnce(Result<Vec<IpAddr>, ResolveError>) + Send>;

/// One dial. `S` is a driver's socket while it connects, and after.
#[derive(Debug)]
pub struct Dialling<S> {
    machine: Dial,
    resolver: Resolver,
    lookup: Option<Lookup>,
    winner: Option<(usize, S)>,
}

/// What a driver is to do for a dial.
#[derive(Debug)]
pub enum Step<S> {
    /// Begin to connect, by this number.
    Connect(usize, SocketAddr),
    /// Give that one up.
    Abort(usize),
    /// It is over; what is left is given up.
    Over(Result<S, DialError>),
}

impl<S> Dialling<S> {
    /// Begins.
    #[must_use]
    pub fn new(now: Instant, target: Target, policy: Arc<Policy>, resolver: Resolver) -> Self {
        Self {
            machine: Dial::new(now, target, policy),
            resolver,
            lookup: None,
            winner: None,
        }
    }

    /// What is to be done next. `answer` makes the way for what a look-up finds; it is called on another thread, and leads
    /// to [`handle_resolved`](Self::handle_resolved).
    pub fn poll_step(&mut self, answer: impl Fn() -> Resolved) -> Option<Step<S>> {
        loop {
            match self.machine.poll_step()? {
                DialStep::Resolve(name) => {
                    self.lookup = Some(self.resolver.resolve(&name, answer()));
                }
                DialStep::Connect(index, addr) => return Some(Step::Connect(index, addr)),
                DialStep::Abort(index) => return Some(Step::Abort(index)),
                DialStep::Won(index) => {
                    if let Some((won, socket)) = self.winner.take()
                        && won == index
                    {
                        return Some(Step::Over(Ok(socket)));
                    }
                }
                DialStep::Failed(error) => return Some(Step::Over(Err(error))),
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waits = self.lookup.as_ref().and_then(Lookup::waits_until);
        let due = [self.machine.poll_timeout(), waits];
        due.into_iter().flatten().min()
    }

    /// The name was looked up.
    pub fn handle_resolved(&mut self, now: Instant, answer: Result<Vec<IpAddr>, ResolveError>) {
        if self.lookup.take().is_some() {
            self.machine.handle_resolved(now, answer);
        }
    }

    /// A connection has come about.
    pub fn handle_connected(&mut self, now: Instant, index: usize, socket: S) {
        self.winner = Some((index, socket));
        self.machine.handle_connected(now, index);
    }

    /// A connection has not come about.
    pub fn handle_failed(&mut self, now: Instant, index: usize, error: &io::Error) {
        self.machine.handle_failed(now, index, kind(error));
    }

    /// A time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        let waits = self.lookup.as_ref().and_then(Lookup::waits_until);
        if waits.is_some_and(|at| at <= now) {
            self.handle_resolved(now, Err(ResolveError::Busy));
        }
        self.machine.handle_timeout(now);
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not told apart is one kind, whatever the system adds"
)]
fn kind(error: &io::Error) -> ConnectErrorKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectErrorKind::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
            ConnectErrorKind::Reset
        }
        io::ErrorKind::TimedOut => ConnectErrorKind::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            ConnectErrorKind::Unreachable
        }
        _ => ConnectErrorKind::Other(error.raw_os_error()),
    }
}
