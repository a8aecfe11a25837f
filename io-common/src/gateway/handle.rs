//! The gateway as its ingress and its administration see it.

mod peers;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use adit_proto_core::{
    endpoint::{Endpoint, EndpointLimits},
    env::Env,
    gateway::{
        OpenError,
        dispatch::DispatchConfig,
        info::{AgentInfo, Explanation, SessionInfo},
    },
    id::{AgentId, ConnId, SessionId, Slot},
    link::tls::{GatewayTls, TlsError},
    session_timer::SessionBounds,
    target::Target,
};
use bytes::Bytes;
use futures_channel::oneshot;

use super::{
    EndpointChange, EndpointOrder,
    carriage::Carriage,
    counters::{Bytes as MovedBytes, GatewayCounters},
    input::{NodeInput, NodeSettings, Place},
};
use crate::{
    commands::Command,
    glance::Glance,
    handoff::Sender,
    over::Over,
    pump::Traffic,
    socket::{Carried, Socket},
    splice::Spliced,
};

/// A running gateway; cheap to clone. Every call fails with a typed error once the gateway has stopped.
#[derive(Clone, Debug)]
pub struct GatewayHandle {
    node: Sender<NodeInput>,
    endpoint: Sender<EndpointOrder>,
    bytes: Arc<MovedBytes>,
    numbers: Arc<AtomicU64>,
    env: Env,
}

/// What a user asks for.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// The session's id as whoever sent the user knows it; none, or one that a session has already: the gateway draws
    /// one.
    pub association: Option<SessionId>,
    /// Where to.
    pub target: Target,
    /// The agent that must carry it; none: the routing table decides.
    pub agent: Option<AgentId>,
    /// Who asks, for the log and `sessions list`.
    pub user: SocketAddr,
    /// The name that was proved with a password, for the log; none where there was none.
    pub account: Option<Box<str>>,
    /// Which ingress took it, for the log and `sessions list`: its name in the configuration.
    pub ingress: Box<str>,
}

/// One open session, with who asked for it.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// What the core knows.
    pub info: SessionInfo,
    /// Who asked.
    pub user: Option<SocketAddr>,
    /// Which ingress took it.
    pub ingress: Option<Box<str>>,
    /// Bytes from and to the user so far; none for one that the gateway carries itself, and at its very beginning and end.
    pub moved: Option<(u64, u64)>,
}

/// Why certificates were not exchanged.
#[derive(Debug)]
pub enum SetTlsError {
    /// They cannot be used.
    Tls(TlsError),
    /// The gateway has stopped.
    Stopped,
}

impl fmt::Display for SetTlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(error) => error.fmt(f),
            Self::Stopped => f.write_str("the gateway has stopped"),
        }
    }
}

impl std::error::Error for SetTlsError {}

impl From<TlsError> for SetTlsError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

/// The gateway has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

impl GatewayHandle {
    /// The way to this node and this endpoint; `bytes` is where connections count.
    #[must_use]
    pub fn new(
        node: Sender<NodeInput>,
        endpoint: Sender<EndpointOrder>,
        bytes: Arc<MovedBytes>,
        env: Env,
    ) -> Self {
        Self {
            node,
            endpoint,
            bytes,
            numbers: Arc::default(),
            env,
        }
    }

    /// Opens a session. Dropping the future cancels the open.
    ///
    /// # Errors
    /// [`OpenError`], within 30 s at the latest.
    pub async fn open(&self, request: OpenRequest) -> Result<PendingSession, OpenError> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.node
            .push(NodeInput::Open {
                number,
                request,
                reply,
            })
            .map_err(|_| OpenError::Stopping)?;
        let mut guard = GiveUp {
            number,
            node: Some(&self.node),
        };
        let answer = answer.await.unwrap_or(Err(OpenError::Stopping));
        guard.node = None;
        answer
    }

    /// Lists the connections of agents, oldest first.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn agents(&self) -> Result<Vec<AgentInfo>, Stopped> {
        self.ask(NodeInput::Agents).await
    }

    /// Lists the connections of one agent, oldest first; none while it is offline.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn agent(&self, agent: AgentId) -> Result<Vec<AgentInfo>, Stopped> {
        self.ask(|reply| NodeInput::Agent(agent, reply)).await
    }

    /// Lists the open sessions, oldest first.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn sessions(&self) -> Result<Vec<SessionRow>, Stopped> {
        let listed = self.ask(NodeInput::Sessions).await?;
        let conns = listed
            .iter()
            .filter_map(|(_, place)| Some((*place)?.0))
            .collect();
        let glances = self.look(conns).await?;
        let with_bytes = |(mut row, place): (SessionRow, Option<Place>)| {
            row.moved =
                place.and_then(|(conn, slot)| glances.get(&conn)?.moved.get(&slot).copied());
            row
        };
        Ok(listed.into_iter().map(with_bytes).collect())
    }

    /// Looks at connections as they are now; those that have ended are left out.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn look(&self, conns: BTreeSet<ConnId>) -> Result<BTreeMap<ConnId, Glance>, Stopped> {
        let answers = self.ask(|reply| NodeInput::Look(conns, reply)).await?;
        let mut glances = BTreeMap::new();
        for (conn, answer) in answers {
            if let Ok(glance) = answer.await {
                glances.insert(conn, glance);
            }
        }
        Ok(glances)
    }

    /// Tells whether a session is open or being opened.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn is_busy(&self) -> Result<bool, Stopped> {
        self.ask(NodeInput::IsBusy).await
    }

    /// Tells how a target would be routed now.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn explain(
        &self,
        target: Target,
        agent: Option<AgentId>,
    ) -> Result<Explanation, Stopped> {
        self.ask(|reply| NodeInput::Explain {
            target,
            agent,
            reply,
        })
        .await
    }

    /// Tells whether an agent of that id is connected now.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn is_connected(&self, agent: AgentId) -> Result<bool, Stopped> {
        self.ask(|reply| NodeInput::IsConnected { agent, reply })
            .await
    }

    /// Closes the connections of an agent at once, and their sessions with them; tells how many there were. One that is
    /// admitted all the same stays: the agent has enrolled again.
    ///
    /// The caller has made the gateway's [`Admission`](adit_proto_core::link::tls::Admission) refuse the agent before:
    /// a handshake that is under way is then refused too, whenever it ends. The agent takes the close for a refusal of
    /// its identity.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn disconnect(&self, agent: AgentId) -> Result<usize, Stopped> {
        self.ask(|reply| NodeInput::Disconnect { agent, reply })
            .await
    }

    /// Says whether an agent is to get new sessions by routing, on the connections it has and those it will have, until
    /// this says otherwise. What it carries goes on, and what names the agent still goes there.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn set_drained(&self, agent: AgentId, drained: bool) -> Result<(), Stopped> {
        self.ask(|reply| NodeInput::Drain {
            agent,
            drained,
            reply,
        })
        .await
    }

    /// Ends an open session: its user and its target see a reset. Tells whether there was one.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn kill(&self, session: SessionId) -> Result<bool, Stopped> {
        self.ask(|reply| NodeInput::Kill { session, reply }).await
    }

    /// Closes every connection as soon as its agent has all that sessions which are over have sent, however long that
    /// takes; those that are open are cut then, and at once where the gateway carries them itself. Agents that come
    /// meanwhile are sent away. Returns when nothing is left; the gateway answers on until it is stopped.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn farewell(&self) -> Result<(), Stopped> {
        self.ask(NodeInput::Farewell).await
    }

    /// Gives everything that was counted since the start.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn counters(&self) -> Result<GatewayCounters, Stopped> {
        let node = self.ask(NodeInput::Counters).await?;
        let (reply, answer) = oneshot::channel();
        self.endpoint
            .push(EndpointOrder::Counters(reply))
            .map_err(|_| Stopped)?;
        let driver = answer.await.map_err(|_| Stopped)?;
        let (bytes_from_users, bytes_to_users) = self.bytes.read();
        Ok(GatewayCounters {
            endpoint: driver.endpoint,
            load: driver.load,
            overflowed: driver.overflowed,
            blocked: driver.blocked,
            agents: node.agents,
            node: node.counters,
            sessions_open: node.open,
            sessions_opening: node.opening,
            opening_max: node.opening_max,
            sessions_per_agent: node.sessions_per_agent,
            failover: node.failover,
            bytes_from_users,
            bytes_to_users,
        })
    }

    /// Exchanges the bounds of the tunnel and of sessions. What is open goes on; it counts against the bounds.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn configure(
        &self,
        limits: EndpointLimits,
        dispatch: DispatchConfig,
        sessions: SessionBounds,
    ) -> Result<(), Stopped> {
        self.change(move |endpoint| endpoint.set_limits(limits))
            .await?;
        let settings = NodeSettings { dispatch, sessions };
        self.ask(|reply| NodeInput::Configure(settings, reply))
            .await
    }

    /// Exchanges certificates, key and roots for the handshakes that begin from now on; connections that exist keep
    /// theirs. The admission that is asked once a handshake is over stays that of the start.
    ///
    /// # Errors
    /// [`SetTlsError`]; then the former ones stay.
    pub async fn set_tls(&self, tls: GatewayTls) -> Result<(), SetTlsError> {
        let env = self.env.clone();
        let change = move |endpoint: &mut Endpoint| endpoint.set_server_tls(&tls, &env);
        let changed = self.change(change).await;
        Ok(changed.map_err(|Stopped| SetTlsError::Stopped)??)
    }

    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Endpoint) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        let change = EndpointChange(Box::new(move |endpoint| {
            // Whoever asked may have gone; what was changed stays changed.
            let _gone = reply.send(change(endpoint));
        }));
        let sent = self.endpoint.push(EndpointOrder::Change(change));
        sent.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    async fn ask<T>(
        &self,
        input: impl FnOnce(oneshot::Sender<T>) -> NodeInput,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.node.push(input(reply)).map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

/// Gives a wish up when whoever waits for it is dropped.
struct GiveUp<'a> {
    number: u64,
    node: Option<&'a Sender<NodeInput>>,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        if let Some(node) = self.node {
            node.push_or_stop(NodeInput::GiveUp(self.number));
        }
    }
}

/// A session whose target has answered and whose user's socket is still with the ingress. Dropping it ends it.
#[derive(Debug)]
pub struct PendingSession {
    id: SessionId,
    carrier: Option<Pending>,
    bounds: SessionBounds,
    node: Sender<NodeInput>,
}

#[derive(Debug)]
enum Pending {
    Agent { slot: Slot, commands: Carriage },
    Direct { target: Carried },
}

impl PendingSession {
    pub(super) fn through_agent(
        id: SessionId,
        slot: Slot,
        commands: Carriage,
        node: Sender<NodeInput>,
        bounds: SessionBounds,
    ) -> Self {
        Self {
            id,
            bounds,
            carrier: Some(Pending::Agent { slot, commands }),
            node,
        }
    }

    pub(super) fn direct(
        id: SessionId,
        target: TcpStream,
        node: Sender<NodeInput>,
        bounds: SessionBounds,
    ) -> Self {
        Self {
            id,
            bounds,
            carrier: Some(Pending::Direct {
                target: Carried::new(target),
            }),
            node,
        }
    }

    /// The session's id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Hands the user's socket over; from here on the gateway moves the bytes. `early` goes to the target before them:
    /// what was read from the socket beyond the ingress protocol, at most one read's worth.
    pub fn attach(mut self, socket: impl Into<Socket>, early: Bytes) {
        let socket = socket.into();
        match self.carrier.take() {
            Some(Pending::Agent { slot, commands }) => {
                let sent = commands.push(Command::Attach(
                    slot,
                    Carried::new(socket),
                    early,
                    self.bounds,
                ));
                // A connection that has ended drops the socket, and so resets it.
                sent.unwrap_or_else(|_| self.over(Over::ConnectionLost));
            }
            Some(Pending::Direct { target }) => {
                let spliced = Spliced {
                    user: Carried::new(socket),
                    target,
                    early,
                    bounds: self.bounds,
                };
                self.node.push_or_stop(NodeInput::Splice(self.id, spliced));
            }
            None => {}
        }
    }

    fn over(&self, how: Over) {
        let traffic = Traffic::begin();
        self.node.push_or_stop(NodeInput::SessionOver {
            session: self.id,
            traffic,
            how,
        });
    }
}

impl Drop for PendingSession {
    fn drop(&mut self) {
        let Some(carrier) = self.carrier.take() else {
            return;
        };
        if let Pending::Agent { slot, commands } = carrier {
            // One that has ended already is discarded by its end.
            let _ended = commands.push(Command::Discard(slot));
        }
        self.over(Over::Cut);
    }
}
