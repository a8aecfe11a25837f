//! What a run consists of: its topology, its script, and how long its first phase is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use adit_proto_core::{id::AgentId, identity::AgentIdentity, link::tls::Admission, target::Target};

use crate::{
    At,
    crypto::Suite,
    facts::NodeId,
    faults::Fault,
    internet::Internet,
    net::{NatConfig, Path},
    node::{agent::AgentConfig, gateway::GatewayConfig},
};

/// A whole run, drawn or written down.
#[derive(Debug)]
pub struct Plan {
    /// Keys, key exchange and signatures.
    pub suite: Suite,
    /// Gateways; nodes 0 and up.
    pub gateways: Vec<NodePlan<GatewayConfig>>,
    /// Agents; the nodes after the gateways.
    pub agents: Vec<NodePlan<AgentConfig>>,
    /// Agents whose identity lets them stay connected; the liveness phase waits for these.
    pub welcome: BTreeSet<NodeId>,
    /// For each agent a target that it always reaches.
    pub homes: BTreeMap<AgentId, Target>,
    /// Targets and names.
    pub internet: Internet,
    /// Paths that are not clean from the start: from, to, how.
    pub paths: Vec<(NodeId, NodeId, Path)>,
    /// What happens when, in any order.
    pub script: Vec<(At, Fault)>,
    /// Length of the safety phase.
    pub safety: At,
}

/// A node of a plan.
#[derive(Debug)]
pub struct NodePlan<C> {
    /// What its process is configured with.
    pub config: C,
    /// Its addresses.
    pub addrs: Vec<IpAddr>,
    /// The NAT before it.
    pub nat: Option<NatConfig>,
    /// Its wall clock is wrong by so many milliseconds.
    pub wall_off_ms: i64,
    /// How its driver behaves.
    pub driver: DriverPlan,
}

/// How a node's driver behaves, within what the core allows.
#[derive(Clone, Copy, Debug)]
pub struct DriverPlan {
    /// Its timers fire so much too late.
    pub timer_slack: At,
    /// Time between a connection's task and the process's, each way.
    pub bus_delay: At,
    /// Chance in a thousand that a poll is broken off early.
    pub lazy: u32,
    /// Datagrams of one send.
    pub batch: usize,
}

impl Default for DriverPlan {
    fn default() -> Self {
        Self {
            timer_slack: At::ZERO,
            bus_delay: At::ZERO,
            lazy: 0,
            batch: 10,
        }
    }
}

/// The agents that a gateway lets in, each with the keys that are its own.
#[derive(Clone, Debug, Default)]
pub struct Roster(pub BTreeSet<(AgentId, [u8; 32])>);

impl Admission for Roster {
    fn admit(&self, identity: &AgentIdentity) -> bool {
        self.0.contains(&(identity.id, identity.spki_sha256))
    }
}

impl Plan {
    /// The nodes of gateways.
    pub fn gateway_nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.gateways.len()).map(NodeId)
    }

    /// The nodes of agents.
    pub fn agent_nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        let first = self.gateways.len();
        (first..first + self.agents.len()).map(NodeId)
    }
}
