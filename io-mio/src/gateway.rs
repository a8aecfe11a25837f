//! The gateway's tunnel: one thread. Users and administration come through the handle, from wherever they are.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Context,
    thread,
    time::Instant,
};

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
use adit_proto_core::{close::CloseReason, endpoint::Endpoint, env::Env, id::ConnId};
use futures_channel::oneshot;
use mio::{Events, Poll, Waker as PollWaker};

use crate::{
    agent::{ALARM, EVENTS_MAX, Quit},
    alarm::Alarm,
    dials::{Dials, Requests, dialler},
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
    ended: oneshot::Receiver<io::Error>,
    quit: Quit,
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
        let poll = Poll::new().map_err(StartError::Io)?;
        let waker = PollWaker::new(poll.registry(), ALARM).map_err(StartError::Io)?;
        let alarm = Alarm::new(waker);
        let (node, inputs) = handoff(NODE_LEN);
        let (orders, orders_rx) = handoff(ORDERS_LEN);
        let flag = Arc::<AtomicBool>::default();
        let quit = Quit::new(Arc::clone(&flag), alarm.waker());
        let (tell, ended) = oneshot::channel();
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
            poll,
            alarm,
            queues: (node.clone(), inputs, orders_rx),
        };
        let run = move || {
            let why = match GatewayLoop::new(parts) {
                Ok(gateway) => gateway.run(&flag),
                Err(error) => error,
            };
            // Whoever could hear it may be gone.
            drop(tell.send(why));
        };
        let thread = thread::Builder::new().name("adit-tunnel".to_owned());
        thread.spawn(run).map_err(StartError::Io)?;
        Ok(Self {
            handle,
            node,
            orders,
            local_addr,
            ended,
            quit,
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
        &mut self.ended
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
        self.quit.quit();
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
    poll: Poll,
    alarm: Arc<Alarm>,
    queues: (
        Sender<NodeInput>,
        Receiver<NodeInput>,
        Receiver<EndpointOrder>,
    ),
}

/// Rounds of work before the poll is looked at.
const ROUNDS_MAX: usize = 2;

struct GatewayLoop {
    node: Node,
    tunnel: Tunnel<AgentConnection>,
    splices: Splices,
    dials: Dials,
    makes: Roles,
    inputs: Receiver<NodeInput>,
    batch: VecDeque<NodeInput>,
    orders: Receiver<EndpointOrder>,
    ordered: VecDeque<EndpointOrder>,
    commands: Receiver<(ConnId, Command<GatewayCommand>)>,
    commanded: VecDeque<(ConnId, Command<GatewayCommand>)>,
    woken: Receiver<Owner>,
    owners: VecDeque<Owner>,
    sources: Sources,
    poll: Poll,
    alarm: Arc<Alarm>,
    stopping: bool,
}

/// Makes the roles of agents' connections.
struct Roles {
    node: Sender<NodeInput>,
    hooks: Hooks,
    commands: Sender<(ConnId, Command<GatewayCommand>)>,
    shared: Shared,
}

impl GatewayLoop {
    fn new(parts: Parts) -> io::Result<Self> {
        let (own, inputs, orders) = parts.queues;
        let sources = Sources::new(parts.poll.registry().try_clone()?);
        // Each pipe is in it once at most, and sessions are bounded by what the node takes.
        let (to_woken, woken) = handoff(NODE_LEN);
        let (commands, commands_rx) = handoff(NODE_LEN);
        let dials = Dials::new(parts.requests, Resolver::new(TARGETS_MAX), &sources);
        Ok(Self {
            node: parts.node,
            tunnel: Tunnel::new(parts.endpoint, parts.port, &sources, to_woken.clone())?,
            splices: Splices::new(&sources, to_woken, own.clone()),
            dials,
            makes: Roles {
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
            sources,
            poll: parts.poll,
            alarm: parts.alarm,
            stopping: false,
        })
    }

    fn run(mut self, quit: &AtomicBool) -> io::Error {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let waker = self.alarm.waker();
        let cx = Context::from_waker(&waker);
        loop {
            match self.turn(&cx) {
                Ok(true) => {}
                Ok(false) => return io::Error::other("stopped"),
                Err(error) => {
                    tracing::error!(%error, "the tunnel's loop has failed");
                    return error;
                }
            }
            self.alarm.set();
            // Whoever raises it from here on wakes the loop.
            if quit.load(Ordering::SeqCst) {
                return io::Error::other("stopped");
            }
            if let Err(error) = self.sleep(&cx, &mut events) {
                tracing::error!(%error, "the tunnel's poll has failed");
                return error;
            }
        }
    }

    /// Works until nothing is left to do, or for some rounds; gives whether it goes on.
    fn turn(&mut self, cx: &Context<'_>) -> io::Result<bool> {
        for _ in 0..ROUNDS_MAX {
            let now = Instant::now();
            let mut any = self.take(now, cx);
            if self.node.poll_timeout().is_some_and(|at| at <= now) {
                self.node.handle_timeout(now);
                any = true;
            }
            // What its connections have said last is taken by now.
            if self.is_over() {
                return Ok(false);
            }
            let Self { tunnel, makes, .. } = self;
            let stopping = self.stopping;
            any |= tunnel.turn(now, &mut |conn| {
                if stopping {
                    // Its agent asks again, and finds the next process.
                    return None;
                }
                let own = Commands::Shared(conn.id(), makes.commands.clone());
                let (node, hooks) = (makes.node.clone(), makes.hooks.clone());
                let shared = makes.shared.clone();
                Some(AgentConnection::new(conn, node, hooks, own, shared))
            })?;
            any |= self.splices.turn(now);
            if !any {
                break;
            }
        }
        Ok(true)
    }

    /// Takes what has come through the queues; tells whether anything had.
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

    /// Begins no connection any more. The node knows agents; handshakes are known here only.
    fn stop(&mut self, now: Instant) {
        self.stopping = true;
        for conn in self.tunnel.connections() {
            let stop = Command::Stop(CloseReason::GatewayStopping);
            self.tunnel.command(now, conn, stop);
        }
    }

    /// Looks at the queues a last time, and sleeps unless there is something. The alarm is set already.
    fn sleep(&mut self, cx: &Context<'_>, events: &mut Events) -> io::Result<()> {
        let now = Instant::now();
        let any = self.take(now, cx);
        let more = self.tunnel.has_more() || self.splices.has_more() || self.is_over();
        let until = if any || more {
            Some(now)
        } else {
            self.next_timeout()
        };
        self.alarm.sleep(&mut self.poll, events, until)?;
        let now = Instant::now();
        for event in events.iter() {
            match self.sources.owner(event.token()) {
                Some(Owner::Udp) => self.tunnel.udp_ready(event),
                Some(Owner::Leg(conn, slot)) => self.tunnel.leg_ready(conn, slot, Some(event)),
                Some(Owner::Dial(number, index)) => self.dials.ready(now, number, index),
                Some(Owner::Splice(session, end)) => {
                    self.splices.ready(session, end, Some(event));
                }
                Some(Owner::Network) | None => {}
            }
        }
        Ok(())
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
