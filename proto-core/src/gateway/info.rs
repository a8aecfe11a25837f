//! What the gateway tells about itself: plain values for listings.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    id::{AgentId, ConnId, SessionId},
    identity::AgentIdentity,
    peer::NodeId,
    route::RouteSet,
    target::Target,
};

/// One connection of an agent.
#[derive(Clone, Debug)]
pub struct AgentInfo {
    /// Who it is.
    pub identity: AgentIdentity,
    /// The connection.
    pub conn: ConnId,
    /// What it advertises; shared with the routing table, so that a listing copies no routes.
    pub routes: Arc<RouteSet>,
    /// Epoch of the accepted route set; 0 before the first (agent-tunnel 9).
    pub epoch: u64,
    /// How the path is.
    pub status: AgentStatus,
    /// The operator keeps new sessions away from the agent.
    pub drained: bool,
    /// Sessions open and being opened.
    pub sessions: usize,
    /// Time since its last control message.
    pub silent: Duration,
    /// Time since the connection was registered.
    pub connected: Duration,
}

/// How the path to an agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentStatus {
    /// New sessions go there.
    Online,
    /// Nothing was acknowledged for a while; new sessions go elsewhere (design 8.3).
    Suspect,
    /// An older connection of the same agent, which keeps its own sessions only (design 8.7).
    Superseded,
}

/// Connected agents by how they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentCounts {
    /// New sessions go there.
    pub online: usize,
    /// Connected, but nothing was acknowledged for a while, or no control message came.
    pub suspect: usize,
    /// Most sessions, open and being opened, on one connection of an agent.
    pub sessions_max: usize,
    /// Most routes of one connection of an agent.
    pub routes_max: usize,
}

/// One session.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// The session.
    pub id: SessionId,
    /// Where it goes.
    pub target: Target,
    /// The agent that carries it; none for a direct one, and for one that a peer carries.
    pub agent: Option<AgentId>,
    /// The peer that carries it.
    pub peer: Option<NodeId>,
    /// Time since it was committed.
    pub age: Duration,
}

/// How a target would be routed.
#[derive(Clone)]
pub struct Explanation {
    /// Candidates in the order in which they would be tried.
    pub candidates: Vec<Candidate>,
    /// Peers that would be tried, in their order.
    pub peers: Vec<PeerCandidate>,
    /// Agents with a route for the target that would not be tried at the moment, the most specific route first.
    pub passed_over: Vec<PassedOver>,
    /// What happens where there is none, or where all fail.
    pub fallback: Fallback,
}

impl fmt::Debug for Explanation {
    // Hashes of recorded runs are over this text: what has no peers reads as it would without them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Explanation");
        shown.field("candidates", &self.candidates);
        if !self.peers.is_empty() {
            shown.field("peers", &self.peers);
        }
        shown.field("passed_over", &self.passed_over);
        shown.field("fallback", &self.fallback).finish()
    }
}

/// One candidate for a target.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The agent.
    pub agent: AgentId,
    /// Its name.
    pub name: Box<str>,
    /// The advertised route that matched, as text; `pinned` where the user named the agent.
    pub route: String,
    /// Rung of the ladder of specificity, 0 the most specific.
    pub rung: usize,
    /// Sessions open and being opened through it.
    pub sessions: usize,
}

/// A peer that would be asked to carry a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCandidate {
    /// The peer.
    pub node: NodeId,
    /// Its route that matched, as text; `pinned` where the user named an agent that it holds.
    pub route: String,
    /// Sessions open and being opened through it.
    pub sessions: usize,
    /// How many of this gateway's own candidates are tried before it.
    pub after: usize,
}

/// An agent that advertises a target and gets no sessions for it at the moment.
#[derive(Clone, Debug)]
pub struct PassedOver {
    /// The agent.
    pub agent: AgentId,
    /// Its name.
    pub name: Box<str>,
    /// The advertised route that matched, as text.
    pub route: String,
    /// Why it gets none.
    pub why: WhyPassedOver,
}

/// Why an agent gets no sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyPassedOver {
    /// The operator keeps new sessions away from it.
    Drained,
    /// Nothing was heard from it for a while (design 8.3).
    Suspect,
}

/// What happens where no agent matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The session is refused.
    Refuse,
    /// The gateway dials the target itself; only where no agent matched.
    Direct,
}
