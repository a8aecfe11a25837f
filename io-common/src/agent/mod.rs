//! The agent, all but its sockets: one connection to one of its gateways, kept up by the core's `Supervisor`.

mod attempt;
mod core;
mod files;
pub mod probe;
mod renewal;
mod role;
mod sources;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::AtomicUsize},
    time::SystemTime,
};

use adit_proto_core::{
    agent::{
        dial::ResolveError,
        policy::Policy,
        role::{RoutesError, check_routes},
        supervisor::{DialId, GatewayIndex, SupervisorError},
    },
    close::Closed,
    journal::Journal,
    link::tls::AgentTls,
    output::Renewed,
    route::RouteSet,
    target::Target,
};
use futures_channel::oneshot;

pub use self::{
    attempt::Attempt,
    core::{AgentCore, AgentHost, Wanted},
    renewal::RenewalNews,
    role::{AgentCommand, GatewayConnection, RoleParts},
};
use crate::handoff::Sender;

pub use adit_proto_core::agent::{
    advertise::AdvertiserConfig,
    policy::Restrictions,
    renewal::Validity,
    supervisor::{Credentials, KeptPairs, Swap},
};

/// What an agent is started with.
pub struct AgentConfig {
    /// Gateways, tried in turn.
    pub gateways: Vec<Target>,
    /// Certificates, keys and pin, and what becomes of them.
    pub pairs: Arc<dyn KeyPairs>,
    /// What is advertised, and allowed.
    pub routes: Arc<RouteSet>,
    /// What is forbidden all the same.
    pub restrictions: Restrictions,
    /// Intervals of control messages.
    pub intervals: AdvertiserConfig,
    /// Where what happens is taken down; none for nowhere.
    pub journal: Option<Journal>,
    /// Bytes that may wait for targets that do not read; see
    /// [`EndpointLimits::unread`](adit_proto_core::endpoint::EndpointLimits::unread).
    pub unread: u64,
}

/// Where an agent keeps its key pair, and the renewed one until it has proved itself (design 8.6). Every call may read
/// and write files; errors are texts for the log.
pub trait KeyPairs: Send + Sync {
    /// Reads a pair; asked before every attempt, so that files that were exchanged are used (agent-tunnel 13).
    ///
    /// # Errors
    /// What is unusable.
    fn tls(&self, which: Credentials) -> Result<AgentTls, String>;

    /// The life of the current certificate.
    ///
    /// # Errors
    /// What is unusable.
    fn validity(&self) -> Result<Validity, String>;

    /// Tells which pairs there are beside the current one. One that cannot be read at the moment counts as there.
    fn kept(&self) -> KeptPairs;

    /// What the gateway can take.
    fn swap(&self) -> Swap;

    /// Makes a certificate request, PEM, and keeps its key for [`store`](Self::store).
    ///
    /// # Errors
    /// Why there is none.
    fn request(&self) -> Result<String, String>;

    /// Checks what the gateway issued for the latest request, and makes it the next pair, durably.
    ///
    /// # Errors
    /// What is wrong with it, or with the disk.
    fn store(&self, renewed: Renewed) -> Result<(), String>;

    /// Puts the next pair in the place of the current one, durably and at once, and keeps that one as the previous.
    ///
    /// # Errors
    /// What is wrong with the disk; the next pair stays.
    fn adopt(&self) -> Result<Validity, String>;

    /// Puts the next pair aside, as the previous one.
    ///
    /// # Errors
    /// What is wrong with the disk.
    fn discard(&self) -> Result<(), String>;

    /// Exchanges the previous pair, as [`tls`](Self::tls) gave it last, with the current one; a next pair goes. A crash
    /// leaves what is found by trying. Done again it changes nothing: a call that was given up may end late, and is asked
    /// for again.
    ///
    /// # Errors
    /// What is wrong with the disk.
    fn revert(&self) -> Result<Validity, String>;
}

impl fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentConfig")
            .field("gateways", &self.gateways)
            .finish_non_exhaustive()
    }
}

/// Why an agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The UDP socket.
    #[error("UDP socket: {0}")]
    Io(#[from] io::Error),
    /// The list of gateways.
    #[error(transparent)]
    Gateways(#[from] SupervisorError),
    /// Certificates, key or routes.
    #[error("{0}")]
    Unusable(String),
}

/// How the agent is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The gateway's address while connected.
    pub connected: Option<SocketAddr>,
    /// Since when.
    pub since: Option<SystemTime>,
    /// Why the last connection or attempt ended.
    pub last_error: Option<String>,
    /// How the latest renewal of the certificate fares.
    pub renewal: RenewalStatus,
}

/// How the latest renewal fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RenewalStatus {
    /// There was none since the start.
    #[default]
    None,
    /// It is asked for, or what came of it has to prove itself.
    UnderWay,
    /// The renewed certificate is in use.
    Done {
        /// Since when.
        at: SystemTime,
    },
    /// It came to nothing; it is tried again.
    Failed {
        /// When.
        at: SystemTime,
        /// Why.
        why: String,
        /// When the next attempt is made as things are, in Unix seconds; none for the moment before that is known.
        next_unix_s: Option<i64>,
    },
}

impl Status {
    /// A connection or an attempt ended. One that lost against the connection in use is no error to tell of.
    fn ended(&mut self, was_up: bool, why: String) {
        if was_up {
            self.connected = None;
            self.since = None;
        }
        if self.connected.is_none() {
            self.last_error = Some(why);
        }
    }
}

/// What an agent is told.
#[derive(Debug)]
pub enum AgentInput {
    /// The addresses of a gateway.
    Resolved(GatewayIndex, Result<Vec<IpAddr>, ResolveError>),
    /// A call about files has ended; what came of it.
    Filed(u64, Box<Self>),
    /// The key pair for an attempt has been read.
    Attempt(Box<Attempt>),
    /// A connection is up.
    Established(DialId),
    /// A connection or an attempt is over.
    Closed(DialId, Closed),
    /// What is advertised from here on, and what may be dialled, where that changes.
    Routes(Arc<RouteSet>, Option<Arc<Policy>>),
    /// What came of a step of a renewal.
    Renewal(RenewalNews),
    /// Addresses or routes of this machine have changed.
    NetworkChanged,
    /// An operator wants a renewal; the answer tells whether one begins.
    Renew(oneshot::Sender<bool>),
    /// Close once all has reached the gateway.
    Farewell,
    /// Close now, or as good as.
    Stop,
}

/// Messages that wait for an agent; a handful per connection.
pub const INPUTS_LEN: usize = 65_536;

/// The way to a running agent; cheap to clone.
#[derive(Clone, Debug)]
pub struct AgentHandle {
    inputs: Sender<AgentInput>,
    sessions: Arc<AtomicUsize>,
}

impl AgentHandle {
    /// Of the agent that takes these inputs and counts its sessions there.
    #[must_use]
    pub fn new(inputs: Sender<AgentInput>, sessions: Arc<AtomicUsize>) -> Self {
        Self { inputs, sessions }
    }

    /// Counts open sessions, as they come and go.
    #[must_use]
    pub fn sessions(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.sessions)
    }

    /// Advertises nothing more, on this connection and on later ones: the gateway asks for no more sessions, and those
    /// that are open go on.
    pub fn withdraw(&self) {
        self.inputs
            .push_or_stop(AgentInput::Routes(Arc::default(), None));
    }

    /// Exchanges what is advertised and what may be dialled, on this connection and on later ones. Open sessions go on,
    /// whatever their targets are.
    ///
    /// # Errors
    /// [`RoutesError`] for a set that cannot be advertised; nothing is changed then.
    pub fn reload(&self, routes: RouteSet, restrictions: &Restrictions) -> Result<(), RoutesError> {
        check_routes(&routes)?;
        let policy = Arc::new(Policy::new(&routes).restricted(restrictions));
        self.inputs
            .push_or_stop(AgentInput::Routes(Arc::new(routes), Some(policy)));
        Ok(())
    }

    /// Renews the certificate now, or with the next connection. The answer is false where a renewal is under way already;
    /// none comes from an agent that has stopped.
    pub fn renew(&self) -> oneshot::Receiver<bool> {
        let (reply, answer) = oneshot::channel();
        self.inputs.push_or_stop(AgentInput::Renew(reply));
        answer
    }

    /// Has the connection closed as soon as the gateway has all that sessions which are over have sent, however long that
    /// takes; those that are open are cut then.
    pub fn farewell(&self) {
        self.inputs.push_or_stop(AgentInput::Farewell);
    }

    /// Has the connection closed now, so that the gateway knows at once.
    pub fn stop(&self) {
        self.inputs.push_or_stop(AgentInput::Stop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loser_of_a_race_is_no_error_of_the_connection() {
        let mut status = Status {
            connected: Some(([192, 0, 2, 1], 4433).into()),
            since: Some(SystemTime::now()),
            last_error: None,
            renewal: RenewalStatus::None,
        };
        status.ended(false, "redundant".to_owned());
        assert_eq!(status.last_error, None);
        status.ended(true, "lost".to_owned());
        assert_eq!((status.connected, status.since), (None, None));
        assert_eq!(status.last_error.as_deref(), Some("lost"));
        status.ended(false, "timed out".to_owned());
        assert_eq!(status.last_error.as_deref(), Some("timed out"));
    }
}
