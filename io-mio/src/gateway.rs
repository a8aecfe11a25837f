//! The gateway's tunnel: one thread. Users and administration come through the handle, from wherever they are.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, task::Context, time::Instant};

use adit_io_common::{
    commands::{Command, Commands},
    gateway::{
        AgentConnection, AgentLines, EndpointOrder, GatewayCommand, GatewayConfig, GatewayHandle,
        Hooks, NODE_LEN, Node, NodeInput, NodeSettings, ORDERS_LEN, Shared, StartError, Stopped,
    },
    handoff::{Receiver, Sender, handoff},
    resolver::{Resolver, TARGETS_MAX},
    udp::UdpPort,
};
use adit_proto_core::{
    close::CloseReason, connection::Connection, endpoint::Endpoint, env::Env, id::ConnId,
};
use futures_channel::oneshot;
use mio::event::Event;

use crate::{
    dials::{Dials, Requests, dialler},
    event_loop::{Running, Work, start},
    sources::{Owner, Sources},
    splices::Splices,
    tunnel::Tunnel,
};

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    handle: GatewayHandle,
    node: Sender<NodeInput>,
    orders: Sender<EndpointOrder>,
    local_addr: SocketAddr,
    running: Running,
}

impl Gateway {
    /// Starts a gateway's tunnel on a thread of its own.
    ///
    /// # Errors
    /// [`StartError`]: the address is in use, or certificates are unusable.
    pub fn start(config: GatewayConfig, env: &Env) -> Result<Self, StartError> {
        let mut endpoint =
            Endpoint::gateway(&config.tls, config.limits, env).map_err(StartError::Tls)?;
        let port = UdpPort::bind(config.listen).map_err(StartError::Io)?;
        let local_addr = port.local_addr().map_err(StartError::Io)?;
        let (node, inputs) = handoff(NODE_LEN);
        let (orders, orders_rx) = handoff(ORDERS_LEN);
        let settings = NodeSettings {
            dispatch: config.dispatch,
            sessions: config.sessions,
        };
        let confirm = Arc::clone(&config.hooks.confirm);
        let admission = Arc::clone(&config.tls.admission);
        let (dialler, requests) = dialler();
        let own = node.clone();
        let mut machine = Node::new(settings, admission, confirm, &env.seed, dialler, own);
        if let Some(journal) = &config.journal {
            machine.record_in(Instant::now(), journal);
            endpoint.record_in(journal.clone());
        }
        for agent in config.drained {
            machine.set_drained(agent);
        }
        let bytes = machine.bytes();
        let handle = GatewayHandle::new(
            node.clone(),
            orders.clone(),
            Arc::clone(&bytes),
            env.clone(),
        );
        let parts = Parts {
            node: machine,
            hooks: config.hooks,
            shared: Shared {
                bytes,
                lines: AgentLines::default(),
            },
            endpoint,
            port,
            requests,
            queues: (node.clone(), inputs, orders_rx),
        };
        let make = move |sources: &_| GatewayLoop::new(parts, sources);
        let running = start("adit-tunnel", make).map_err(StartError::Io)?;
        Ok(Self {
            handle,
            node,
            orders,
            local_addr,
            running,
        })
    }

    /// The way in for users and administration.
    #[must_use]
    pub fn handle(&self) -> GatewayHandle {
        self.handle.clone()
    }

    /// The UDP address in use.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Completes when the loop has ended, with why it did; without that where it has panicked.
    pub fn ended(&mut self) -> &mut oneshot::Receiver<io::Error> {
        self.running.ended()
    }

    /// As [`GatewayHandle::farewell`]. Afterwards, or to give up on it, call [`stop`](Self::stop).
    ///
    /// # Errors
    /// [`Stopped`]: nothing is left then, either.
    pub async fn farewell(&self) -> Result<(), Stopped> {
        self.handle.farewell().await
    }

    /// Has every connection closed, so that agents know at once, and sessions with them; [`ended`](Self::ended) tells when
    /// the closes have been sent and the sessions' ends logged.
    pub fn stop(&self) {
        self.node.push_or_stop(NodeInput::Stop);
        self.orders.push_or_stop(EndpointOrder::Stop);
    }

    /// Ends the loop at once, whatever is under way: sessions are cut, and agents are not told.
    pub fn quit(&self) {
        self.running.quit();
    }
}

/// What a loop is made of.
struct Parts {
    node: Node,
    hooks: Hooks,
    shared: Shared,
    endpoint: Endpoint,
    port: UdpPort,
    requests: Requests,
    queues: (
        Sender<NodeInput>,
        Receiver<NodeInput>,
        Receiver<EndpointOrder>,
    ),
}

struct GatewayLoop {
    node: Node,
    tunnel: Tunnel<AgentConnection>,
    splices: Splices,
    dials: Dials,
    roles: Roles,
    inputs: Receiver<NodeInput>,
    batch: VecDeque<NodeInput>,
    orders: Receiver<EndpointOrder>,
    ordered: VecDeque<EndpointOrder>,
    commands: Receiver<(ConnId, Command<GatewayCommand>)>,
    commanded: VecDeque<(ConnId, Command<GatewayCommand>)>,
    woken: Receiver<Owner>,
    owners: VecDeque<Owner>,
    stopping: bool,
}

/// Makes the roles of agents' connections.
struct Roles {
    node: Sender<NodeInput>,
    hooks: Hooks,
    commands: Sender<(ConnId, Command<GatewayCommand>)>,
    shared: Shared,
}

impl Roles {
    fn make(&self, conn: &Connection) -> AgentConnection {
        let own = Commands::Shared(conn.id(), self.commands.clone());
        let (node, hooks) = (self.node.clone(), self.hooks.clone());
        AgentConnection::new(conn, node, hooks, own, self.shared.clone())
    }
}

impl GatewayLoop {
    fn new(parts: Parts, sources: &Sources) -> io::Result<Self> {
        let (own, inputs, orders) = parts.queues;
        // Each pipe is in it once at most, and sessions are bounded by what the node takes.
        let (to_woken, woken) = handoff(NODE_LEN);
        let (commands, commands_rx) = handoff(NODE_LEN);
        let dials = Dials::new(parts.requests, Resolver::new(TARGETS_MAX), sources);
        Ok(Self {
            node: parts.node,
            tunnel: Tunnel::new(parts.endpoint, parts.port, sources, to_woken.clone())?,
            splices: Splices::new(sources, to_woken, own.clone()),
            dials,
            roles: Roles {
                node: own,
                hooks: parts.hooks,
                commands,
                shared: parts.shared,
            },
            inputs,
            batch: VecDeque::new(),
            orders,
            ordered: VecDeque::new(),
            commands: commands_rx,
            commanded: VecDeque::new(),
            woken,
            owners: VecDeque::new(),
            stopping: false,
        })
    }

    /// Has every connection closed, and begins none any more. The node tells agents; handshakes are known here only.
    fn stop(&mut self, now: Instant) {
        self.stopping = true;
        for conn in self.tunnel.connections() {
            let stop = Command::Stop(CloseReason::GatewayStopping);
            self.tunnel.command(now, conn, stop);
        }
    }
}

impl Work for GatewayLoop {
    fn take(&mut self, now: Instant, cx: &Context<'_>) -> bool {
        let mut any = self.dials.turn(now, cx);
        any |= self.inputs.poll_take(cx, &mut self.batch).is_ready();
        while let Some(input) = self.batch.pop_front() {
            self.node.handle_input(now, input, &mut self.splices);
        }
        any |= self.commands.poll_take(cx, &mut self.commanded).is_ready();
        while let Some((conn, command)) = self.commanded.pop_front() {
            self.tunnel.command(now, conn, command);
        }
        any |= self.orders.poll_take(cx, &mut self.ordered).is_ready();
        while let Some(order) = self.ordered.pop_front() {
            match order {
                EndpointOrder::Counters(reply) => {
                    // Whoever asked may have gone.
                    let _gone = reply.send(self.tunnel.counters());
                }
                EndpointOrder::Change(change) => change.make(&mut self.tunnel.endpoint),
                EndpointOrder::Stop => self.stop(now),
            }
        }
        any |= self.woken.poll_take(cx, &mut self.owners).is_ready();
        while let Some(owner) = self.owners.pop_front() {
            match owner {
                Owner::Leg(conn, slot) => self.tunnel.leg_ready(conn, slot, None),
                Owner::Splice(session, end) => self.splices.ready(session, end, None),
                Owner::Udp | Owner::Network | Owner::Dial(..) => {}
            }
        }
        any
    }

    fn round(&mut self, now: Instant) -> io::Result<bool> {
        let mut any = false;
        if self.node.poll_timeout().is_some_and(|at| at <= now) {
            self.node.handle_timeout(now);
            any = true;
        }
        let (roles, stopping) = (&self.roles, self.stopping);
        any |= self.tunnel.turn(now, &mut |conn| {
            // When it stops, an agent that comes asks again, and finds the next process.
            (!stopping).then(|| roles.make(conn))
        })?;
        Ok(any | self.splices.turn(now))
    }

    fn ready(&mut self, now: Instant, owner: Owner, event: &Event) {
        match owner {
            Owner::Udp => self.tunnel.udp_ready(event),
            Owner::Leg(conn, slot) => self.tunnel.leg_ready(conn, slot, Some(event)),
            Owner::Dial(number, index) => self.dials.ready(now, number, index),
            Owner::Splice(session, end) => self.splices.ready(session, end, Some(event)),
            Owner::Network => {}
        }
    }

    fn has_more(&self) -> bool {
        self.tunnel.has_more() || self.splices.has_more()
    }

    fn is_over(&self) -> bool {
        self.stopping && self.node.is_over() && self.tunnel.is_empty()
    }

    fn next_timeout(&self) -> Option<Instant> {
        let due = [
            self.node.poll_timeout(),
            self.tunnel.next_timeout(),
            self.splices.next_timeout(),
            self.dials.next_timeout(),
        ];
        due.into_iter().flatten().min()
    }
}
