//! What a gateway has counted: plain numbers, given out when they are asked for.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use adit_proto_core::{
    connection::Counters,
    endpoint::{EndpointCounters, EndpointLoad},
    gateway::{OpenCause, dispatch::FailoverCounters, info::AgentCounts},
};

use crate::{over::Over, pump::Traffic};

/// Everything since the start, and how things stand.
#[derive(Clone, Debug)]
pub struct GatewayCounters {
    /// Handshakes and stray datagrams.
    pub endpoint: EndpointCounters,
    /// Connections and handshakes of the tunnel, and what is allowed.
    pub load: EndpointLoad,
    /// Datagrams dropped because a connection's inbox was full.
    pub overflowed: u64,
    /// Times that the tunnel's socket had no room for datagrams.
    pub blocked: u64,
    /// Connected agents.
    pub agents: AgentCounts,
    /// Sessions and connections.
    pub node: NodeCounters,
    /// Sessions that are open.
    pub sessions_open: usize,
    /// Sessions that are being opened.
    pub sessions_opening: usize,
    /// How many may be.
    pub opening_max: usize,
    /// How many sessions, open and being opened, one connection of an agent may carry.
    pub sessions_per_agent: usize,
    /// How often agents were raced.
    pub failover: FailoverCounters,
    /// Bytes read from users; of sessions that the gateway carries itself, those of ended ones.
    pub bytes_from_users: u64,
    /// Bytes written to users; likewise.
    pub bytes_to_users: u64,
}

/// What a driver answers to [`EndpointOrder::Counters`](super::EndpointOrder::Counters).
#[derive(Clone, Copy, Debug)]
pub struct EndpointSnapshot {
    /// As in [`GatewayCounters`].
    pub endpoint: EndpointCounters,
    /// As there.
    pub load: EndpointLoad,
    /// As there.
    pub overflowed: u64,
    /// As there.
    pub blocked: u64,
}

/// What happened to sessions and connections.
#[derive(Clone, Debug)]
pub struct NodeCounters {
    /// Sessions opened.
    pub opened: u64,
    /// Sessions that could not be opened, by cause; every cause has an entry.
    pub failed: BTreeMap<OpenCause, u64>,
    /// Sessions given up by their users before they were open.
    pub given_up: u64,
    /// Sessions that have ended, by how; every way has an entry.
    pub ended: BTreeMap<SessionEnding, u64>,
    /// Handshakes that came to nothing after they had begun.
    pub handshakes_failed: u64,
    /// Connections closed because their agent could not be registered.
    pub not_registered: u64,
    /// Advertisements without effect because they were too long.
    pub routes_refused: u64,
    /// What the agents of ended connections sent that the protocol has no use for.
    pub oddities: Counters,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SessionEnding {
    /// Both directions ended cleanly.
    Clean,
    /// The TCP connection at this end was reset or failed.
    UserReset,
    /// The agent's end abandoned it.
    AgentReset,
    /// The connection to the agent was lost.
    ConnectionLost,
    /// It was cut here.
    Cut,
    /// An operator ended it.
    Killed,
    /// Nothing moved for as long as is allowed.
    Idle,
    /// It lived for as long as is allowed.
    Lifetime,
    /// An operator deleted the agent that carried it.
    Deleted,
    /// Its user had stopped reading, and the connection's budget for that was used up.
    NotRead,
}

impl SessionEnding {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Clean,
        Self::UserReset,
        Self::AgentReset,
        Self::ConnectionLost,
        Self::Cut,
        Self::Killed,
        Self::Idle,
        Self::Lifetime,
        Self::Deleted,
        Self::NotRead,
    ];

    /// Gives its name, in small letters with underscores.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::UserReset => "user_reset",
            Self::AgentReset => "agent_reset",
            Self::ConnectionLost => "connection_lost",
            Self::Cut => "cut",
            Self::Killed => "killed",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Deleted => "deleted",
            Self::NotRead => "not_read",
        }
    }
}

impl From<Over> for SessionEnding {
    fn from(over: Over) -> Self {
        match over {
            Over::Clean => Self::Clean,
            Over::TcpReset => Self::UserReset,
            Over::PeerReset => Self::AgentReset,
            Over::ConnectionLost => Self::ConnectionLost,
            Over::Cut => Self::Cut,
            Over::Killed => Self::Killed,
            Over::Idle => Self::Idle,
            Over::Lifetime => Self::Lifetime,
            Over::Deleted => Self::Deleted,
            Over::NotRead(_) => Self::NotRead,
        }
    }
}

impl Default for NodeCounters {
    fn default() -> Self {
        Self {
            opened: 0,
            failed: OpenCause::ALL.map(|cause| (cause, 0)).into(),
            given_up: 0,
            ended: SessionEnding::ALL.map(|how| (how, 0)).into(),
            handshakes_failed: 0,
            not_registered: 0,
            routes_refused: 0,
            oddities: Counters::default(),
        }
    }
}

impl NodeCounters {
    pub(super) fn failed(&mut self, cause: OpenCause) {
        *self.failed.entry(cause).or_default() += 1;
    }

    pub(super) fn ended(&mut self, how: Over) {
        *self.ended.entry(how.into()).or_default() += 1;
    }

    pub(super) fn odd(&mut self, more: Counters) {
        let sum = &mut self.oddities;
        sum.versions_ignored += more.versions_ignored;
        sum.streams_stray += more.streams_stray;
        sum.setups_malformed += more.setups_malformed;
        sum.setups_abandoned += more.setups_abandoned;
    }
}

/// What the node answers to [`NodeInput::Counters`](super::input::NodeInput::Counters).
#[derive(Debug)]
pub struct NodeSnapshot {
    pub(super) counters: NodeCounters,
    pub(super) agents: AgentCounts,
    pub(super) open: usize,
    pub(super) opening: usize,
    pub(super) opening_max: usize,
    pub(super) sessions_per_agent: usize,
    pub(super) failover: FailoverCounters,
}

/// Bytes moved, of all connections. Each task adds what its sessions moved once per batch of work, so that a busy one
/// touches this at most once per wake-up.
#[derive(Debug, Default)]
pub struct Bytes {
    from_users: AtomicU64,
    to_users: AtomicU64,
}

impl Bytes {
    /// Counts what came from users, and what went to them.
    pub fn add(&self, sent: u64, received: u64) {
        self.from_users.fetch_add(sent, Ordering::Relaxed);
        self.to_users.fetch_add(received, Ordering::Relaxed);
    }

    pub(super) fn add_all(&self, traffic: Traffic) {
        self.add(traffic.sent, traffic.received);
    }

    /// What came from users, and what went to them, so far.
    #[must_use]
    pub fn read(&self) -> (u64, u64) {
        (
            self.from_users.load(Ordering::Relaxed),
            self.to_users.load(Ordering::Relaxed),
        )
    }
}
