//! What happens in a run, as it is told to the trace and to the oracles.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use adit_proto_core::{
    agent::{
        advertise::AdvertiserConfig,
        backoff::BackoffCause,
        dial::{DialStep, ResolveError},
        policy::Restrictions,
        renewal::RenewalStep,
        supervisor::{DialId, GatewayIndex, LossKind, SupervisorStep},
    },
    endpoint::EndpointLimits,
    gateway::{
        AttemptError,
        dispatch::{DispatchConfig, DispatchOutput},
        info::{AgentStatus, Explanation},
    },
    id::{AgentId, AttemptId, ConnId, SessionId, Slot},
    identity::AgentIdentity,
    output::Event,
    route::RouteSet,
    target::Target,
};

use crate::{
    At,
    faults::Fault,
    net::{Fate, Path},
    plan::Roster,
    tcp::{LegId, Side},
};

/// A node's place in the world: the gateways come first, then the agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(pub usize);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// Something that happened at a node.
#[derive(Debug)]
pub enum Fact<'a> {
    /// A process began.
    Started(&'a Start),
    /// A process was told to stop: it closes its connections.
    Stopping,
    /// A process is gone, with all of its memory and sockets.
    Gone,
    /// The script did something.
    Fault(&'a Fault),
    /// The way from one node to another, as it is at the beginning.
    Path {
        /// Who sends.
        from: NodeId,
        /// Who receives.
        to: NodeId,
        /// How it is.
        path: &'a Path,
    },
    /// From here on there are no faults.
    Calm,
    /// A datagram was handed to the network.
    Sent {
        /// As the sender sees it.
        src: SocketAddr,
        /// Where to.
        dst: SocketAddr,
        /// The datagram.
        data: &'a [u8],
        /// What the network did with it.
        fate: Fate,
    },
    /// A datagram came to a process that runs.
    Received {
        /// As the receiver sees it.
        src: SocketAddr,
        /// Who sent it, in truth.
        from: NodeId,
        /// When.
        sent: At,
        /// The datagram.
        data: &'a [u8],
    },
    /// The datagram just received is for this connection.
    Routed(ConnId),
    /// A connection was begun, by this agent or towards this gateway.
    Begun {
        /// The connection.
        conn: ConnId,
        /// The agent's attempt; none at a gateway.
        dial: Option<DialId>,
        /// The other end's address.
        remote: SocketAddr,
        /// Connections of the endpoint, this one included.
        connections: usize,
    },
    /// A connection said something.
    Event(ConnId, &'a Event),
    /// An agent's connection tells another round trip of its heartbeats than before.
    RoundTrip(ConnId, At),
    /// A connection was polled until it had nothing more to say.
    Waits {
        /// The connection.
        conn: ConnId,
        /// Its deadline.
        until: Option<At>,
        /// Sessions open on it.
        sessions: usize,
        /// Its timer was fired right before.
        expired: bool,
    },
    /// The connection has said its farewell and was dropped.
    Drained(ConnId),
    /// The gateway's dispatch was asked how a target would be routed.
    Explained {
        /// The target.
        target: &'a Target,
        /// The agent asked for by id.
        pinned: Option<AgentId>,
        /// Its answer.
        told: &'a Explanation,
    },
    /// Somebody wants a session.
    Wish {
        /// The gateway's name for it.
        session: SessionId,
        /// Where it goes.
        target: &'a Target,
        /// The agent asked for by id.
        pinned: Option<AgentId>,
        /// Sessions being opened before this one.
        open_before: usize,
        /// The time in which it must complete, where the plan sees to it that it can.
        promise: Option<At>,
    },
    /// The agent's application has answered a request.
    Decided(ConnId, Slot),
    /// The user of a session that is being opened went away.
    GaveUp(SessionId),
    /// The gateway's dispatch was told that an attempt had an outcome.
    Answered {
        /// The connection.
        conn: ConnId,
        /// The attempt.
        attempt: AttemptId,
        /// Where the session is, or why there is none.
        result: Result<Slot, &'a AttemptError>,
    },
    /// The gateway's registry was told of a connection.
    Registering(ConnId, &'a AgentIdentity),
    /// The gateway's dispatch was told that a path stalls or moves again.
    PathTold {
        /// The connection.
        conn: ConnId,
        /// Whether it stalls.
        suspect: bool,
    },
    /// The gateway's dispatch was told of a control message.
    SeenTold(ConnId),
    /// The gateway's dispatch was told of an advertisement.
    RoutesTold {
        /// The connection.
        conn: ConnId,
        /// The epoch.
        epoch: u64,
        /// The routes.
        routes: &'a RouteSet,
    },
    /// The gateway's dispatch was told that a session ended at its connection.
    EndTold(ConnId, Slot),
    /// The gateway's dispatch was told that a connection is over.
    ClosedTold(ConnId),
    /// The gateway's dispatch said something.
    Dispatch(&'a DispatchOutput),
    /// The gateway has made the certificate of a renewed key durable: the key is admitted beside the former one.
    Certified {
        /// Whose.
        agent: AgentId,
        /// SHA-256 of the key.
        key: [u8; 32],
    },
    /// The gateway has made it durable that an agent's renewed key is its only one.
    Confirmed {
        /// Whose.
        agent: AgentId,
        /// SHA-256 of the key.
        key: [u8; 32],
    },
    /// The gateway has made it durable that an agent is deleted, and cuts it off.
    Deleted(AgentId),
    /// The gateway has made it durable that an agent has enrolled.
    Enrolled {
        /// Which.
        agent: AgentId,
        /// SHA-256 of its key.
        key: [u8; 32],
    },
    /// The gateway's dispatch was told whether an agent is to get new sessions.
    DrainTold {
        /// Which.
        agent: AgentId,
        /// Whether it gets none.
        drained: bool,
    },
    /// The gateway was given other bounds.
    Configured {
        /// Of its endpoint.
        limits: EndpointLimits,
        /// Of its dispatch.
        dispatch: &'a DispatchConfig,
    },
    /// The gateway was given its server certificate anew.
    Recertified,
    /// The agent's machine for renewals said something.
    Renewal(&'a RenewalStep),
    /// The agent has made something of its key pairs durable.
    Filed(&'static str),
    /// The gateway's registry after a change.
    Registry(&'a [RegistryRow]),
    /// The agent's supervisor was told what the name of a gateway leads to.
    GatewayFound {
        /// Which gateway was asked for.
        gateway: GatewayIndex,
        /// The resolver's answer.
        answer: &'a Result<Vec<IpAddr>, ResolveError>,
    },
    /// The agent's supervisor was told how an attempt or a connection is.
    SupervisorTold {
        /// Which.
        dial: DialId,
        /// Why it is over; none where it was established.
        why: Option<LossKind>,
    },
    /// The agent's supervisor was told that its machine's network has changed.
    NetworkTold,
    /// The agent's supervisor said something other than that it waits.
    Supervisor(&'a SupervisorStep),
    /// The agent's supervisor waits.
    SupervisorWaits {
        /// Until when.
        until: At,
        /// For which gateway.
        gateway: GatewayIndex,
        /// Why.
        cause: BackoffCause,
    },
    /// A machine without a connection was asked for its deadline.
    MachineWaits {
        /// Which.
        machine: &'static str,
        /// Its deadline.
        until: Option<At>,
        /// Its driver's timers fire so much too late.
        slack: At,
    },
    /// A dial to a target said something.
    Dial {
        /// The connection that wants it; none at a gateway that dials itself.
        place: Option<(ConnId, Slot)>,
        /// The session.
        session: SessionId,
        /// What.
        step: &'a DialStep,
    },
    /// A dial to a target was told how a connection to one of its addresses is.
    DialTold {
        /// The connection that wants it; none at a gateway that dials itself.
        place: Option<(ConnId, Slot)>,
        /// The session.
        session: SessionId,
        /// The address.
        index: usize,
        /// Whether it was made.
        made: bool,
    },
    /// Bytes and ends between a program and a node.
    Leg {
        /// The TCP connection.
        leg: LegId,
        /// Who is at its other end.
        side: Side,
        /// The session that it belongs to.
        session: SessionId,
        /// What.
        what: LegFact<'a>,
    },
}

/// What a process begins with.
#[derive(Clone, Debug)]
pub enum Start {
    /// A gateway.
    Gateway {
        /// What its dispatch was told.
        dispatch: DispatchConfig,
        /// What its endpoint takes.
        limits: EndpointLimits,
        /// Its driver breaks polls off, so that it may be behind its own core.
        lazy: bool,
        /// Who may connect, with which keys.
        roster: Arc<Roster>,
        /// Its certificate does not show an agent what the agent looks for.
        impostor: bool,
        /// Its wall clock is wrong by so many milliseconds.
        wall_off_ms: i64,
    },
    /// An agent.
    Agent {
        /// Its id in its certificate.
        id: AgentId,
        /// The gateways that it knows, in the order in which they are tried.
        gateways: Vec<Target>,
        /// What it advertises.
        routes: Arc<RouteSet>,
        /// Between its control messages.
        intervals: AdvertiserConfig,
        /// Its pin, if it has one, is that of its gateway.
        trusts: bool,
        /// It renews its certificate in the run.
        renews: bool,
        /// What it never dials.
        restrictions: Restrictions,
        /// Its wall clock is wrong by so many milliseconds.
        wall_off_ms: i64,
    },
}

/// One connection in a gateway's registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryRow {
    /// The connection.
    pub conn: ConnId,
    /// Whose it is.
    pub agent: AgentId,
    /// SHA-256 of the key that it proved.
    pub key: [u8; 32],
    /// Epoch of its accepted route set.
    pub epoch: u64,
    /// What the gateway says of it.
    pub status: AgentStatus,
    /// Sessions open and being opened, by the registry's count.
    pub sessions: usize,
}

/// What happened on one TCP connection.
#[derive(Clone, Copy, Debug)]
pub enum LegFact<'a> {
    /// The node took the connection for a session that is open.
    Attached,
    /// The program has written so many bytes more.
    Wrote(u64),
    /// The program ended its direction cleanly.
    Fin,
    /// The program closed it hard.
    Reset,
    /// The node gave these bytes to the program.
    Got {
        /// Position of the first one.
        offset: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The node ended its direction cleanly.
    GotFin,
    /// The node closed it hard.
    GotReset,
    /// The program is done: both directions have ended cleanly.
    Done,
}
