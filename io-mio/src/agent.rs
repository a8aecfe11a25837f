//! The agent: one thread.

use std::{
    collections::VecDeque,
    io,
    net::Ipv6Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
    thread,
    time::Instant,
};

use adit_io_common::{
    agent::{
        AgentCommand, AgentConfig, AgentCore, AgentHandle, AgentHost, AgentInput,
        GatewayConnection, INPUTS_LEN, RoleParts, StartError, Status, Wanted,
    },
    commands::{COMMANDS_LEN, Command, Commands},
    dialling::Dialler,
    handoff::{Receiver, Sender, handoff},
    udp::UdpPort,
};
use adit_proto_core::{endpoint::ConnectError, env::Env, id::ConnId};
use futures_channel::oneshot;
use mio::{Events, Poll, Waker as PollWaker};

use crate::{
    alarm::Alarm,
    dials::{Dials, dialler},
    network::Network,
    sources::{Owner, Sources},
    tunnel::Tunnel,
};

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    handle: AgentHandle,
    /// Tells why the loop has ended; dropped without a word where it has panicked.
    ended: oneshot::Receiver<io::Error>,
    quit: Quit,
}

/// Ends a loop at once.
#[derive(Debug)]
pub(crate) struct Quit {
    flag: Arc<AtomicBool>,
    waker: Waker,
}

impl Quit {
    pub(crate) fn new(flag: Arc<AtomicBool>, waker: Waker) -> Self {
        Self { flag, waker }
    }

    pub(crate) fn quit(&self) {
        self.flag.store(true, Ordering::SeqCst);
        self.waker.wake_by_ref();
    }
}

/// Called with how the agent is, as it changes, on the agent's thread; may not block.
pub type Publish = Box<dyn FnMut(&Status) + Send>;

impl Agent {
    /// Starts an agent on a thread of its own, which carries all of it.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: AgentConfig, env: Env, publish: Publish) -> Result<Self, StartError> {
        let port = UdpPort::bind((Ipv6Addr::UNSPECIFIED, 0).into())?;
        let (own, inputs) = handoff(INPUTS_LEN);
        let local = port.local_addr()?;
        let core = AgentCore::new(Instant::now(), config, env, local, own.clone())?;
        let handle = AgentHandle::new(own, core.sessions());
        let poll = Poll::new()?;
        let alarm = Alarm::new(PollWaker::new(poll.registry(), ALARM)?);
        let flag = Arc::<AtomicBool>::default();
        let quit = Quit::new(Arc::clone(&flag), alarm.waker());
        let (tell, ended) = oneshot::channel();
        let run = move || {
            let why = match AgentLoop::new(core, port, (poll, alarm), inputs, publish) {
                Ok(agent) => agent.run(&flag),
                Err(error) => error,
            };
            // Whoever could hear it may be gone.
            drop(tell.send(why));
        };
        thread::Builder::new()
            .name("adit-agent".to_owned())
            .spawn(run)?;
        Ok(Self {
            handle,
            ended,
            quit,
        })
    }

    /// The way to the agent.
    #[must_use]
    pub fn handle(&self) -> &AgentHandle {
        &self.handle
    }

    /// Completes when the loop has ended, with why it did; without that where it has panicked.
    pub fn ended(&mut self) -> &mut oneshot::Receiver<io::Error> {
        &mut self.ended
    }

    /// Ends the loop at once, whatever is under way: sessions are cut, and the gateway is not told.
    pub fn quit(&self) {
        self.quit.quit();
    }
}

/// The token of the alarm: none that a place among the sources ever has.
pub(crate) const ALARM: mio::Token = mio::Token(usize::MAX);
/// Rounds of work before the poll is looked at.
const ROUNDS_MAX: usize = 2;
/// Events taken from the system at once.
pub(crate) const EVENTS_MAX: usize = 1_024;

struct AgentLoop {
    core: AgentCore,
    host: Host,
    dials: Dials,
    network: Network,
    inputs: Receiver<AgentInput>,
    batch: VecDeque<AgentInput>,
    commands: Receiver<(ConnId, Command<AgentCommand>)>,
    ordered: VecDeque<(ConnId, Command<AgentCommand>)>,
    woken: Receiver<Owner>,
    owners: VecDeque<Owner>,
    sources: Sources,
    poll: Poll,
    alarm: Arc<Alarm>,
}

/// What the loop does for the agent.
struct Host {
    tunnel: Tunnel<GatewayConnection>,
    dialler: Arc<dyn Dialler>,
    commands: Sender<(ConnId, Command<AgentCommand>)>,
    publish: Publish,
    stopping: bool,
}

impl AgentHost for Host {
    fn connect(
        &mut self,
        now: Instant,
        wanted: &Wanted<'_>,
        parts: RoleParts,
    ) -> Result<ConnId, ConnectError> {
        let (remote, name) = (wanted.remote, wanted.server_name);
        let endpoint = &mut self.tunnel.endpoint;
        let conn = endpoint.connect(now, &wanted.config, remote, name, wanted.env)?;
        let id = conn.id();
        let own = Commands::Shared(id, self.commands.clone());
        let role = GatewayConnection::new(parts, Arc::clone(&self.dialler), own);
        self.tunnel.add(now, conn, role);
        Ok(id)
    }

    fn command(&mut self, conn: ConnId, command: Command<AgentCommand>) {
        self.commands.push_or_stop((conn, command));
    }

    fn command_all(&mut self, make: &dyn Fn() -> Command<AgentCommand>) {
        for conn in self.tunnel.connections() {
            self.commands.push_or_stop((conn, make()));
        }
    }

    fn publish(&mut self, status: &Status) {
        (self.publish)(status);
    }

    fn stop(&mut self) {
        self.stopping = true;
    }
}

impl AgentLoop {
    fn new(
        core: AgentCore,
        port: UdpPort,
        (poll, alarm): (Poll, Arc<Alarm>),
        inputs: Receiver<AgentInput>,
        publish: Publish,
    ) -> io::Result<Self> {
        let sources = Sources::new(poll.registry().try_clone()?);
        let (to_woken, woken) = handoff(COMMANDS_LEN);
        let (commands, commands_rx) = handoff(COMMANDS_LEN);
        let (dialler, requests) = dialler();
        let dials = Dials::new(requests, core.target_names(), &sources);
        Ok(Self {
            host: Host {
                tunnel: Tunnel::new(core.endpoint(), port, &sources, to_woken)?,
                dialler,
                commands,
                publish,
                stopping: false,
            },
            core,
            dials,
            network: Network::new(Instant::now(), &sources),
            inputs,
            batch: VecDeque::new(),
            commands: commands_rx,
            ordered: VecDeque::new(),
            woken,
            owners: VecDeque::new(),
            sources,
            poll,
            alarm,
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
                    tracing::error!(%error, "the agent's loop has failed");
                    return error;
                }
            }
            self.alarm.set();
            // Whoever raises it from here on wakes the loop.
            if quit.load(Ordering::SeqCst) {
                return io::Error::other("stopped");
            }
            if let Err(error) = self.sleep(&cx, &mut events) {
                tracing::error!(%error, "the agent's poll has failed");
                return error;
            }
        }
    }

    /// Works until nothing is left to do, or for some rounds; gives whether it goes on.
    fn turn(&mut self, cx: &Context<'_>) -> io::Result<bool> {
        for _ in 0..ROUNDS_MAX {
            let now = Instant::now();
            let mut any = self.take(now, cx);
            any |= self.core.run(now, &mut self.host);
            // What its connections have said last is taken by now.
            if self.is_over() {
                return Ok(false);
            }
            any |= self.host.tunnel.turn(now, &mut |_| None)?;
            if !any {
                break;
            }
        }
        Ok(true)
    }

    /// Takes what has come through the queues; tells whether anything had.
    fn take(&mut self, now: Instant, cx: &Context<'_>) -> bool {
        let mut any = self.dials.turn(now, cx);
        if self.network.changed(now) {
            self.core
                .take(now, AgentInput::NetworkChanged, &mut self.host);
            any = true;
        }
        any |= self.inputs.poll_take(cx, &mut self.batch).is_ready();
        while let Some(input) = self.batch.pop_front() {
            self.core.take(now, input, &mut self.host);
        }
        any |= self.commands.poll_take(cx, &mut self.ordered).is_ready();
        while let Some((conn, command)) = self.ordered.pop_front() {
            self.host.tunnel.command(now, conn, command);
        }
        any |= self.woken.poll_take(cx, &mut self.owners).is_ready();
        while let Some(owner) = self.owners.pop_front() {
            if let Owner::Leg(conn, slot) = owner {
                self.host.tunnel.leg_ready(conn, slot, None);
            }
        }
        any
    }

    /// Looks at the queues a last time, and sleeps unless there is something. The alarm is set already.
    fn sleep(&mut self, cx: &Context<'_>, events: &mut Events) -> io::Result<()> {
        let now = Instant::now();
        let any = self.take(now, cx);
        let more = self.host.tunnel.has_more() || self.is_over();
        let until = if any || more {
            Some(now)
        } else {
            self.next_timeout()
        };
        self.alarm.sleep(&mut self.poll, events, until)?;
        let now = Instant::now();
        for event in events.iter() {
            match self.sources.owner(event.token()) {
                Some(Owner::Udp) => self.host.tunnel.udp_ready(event),
                Some(Owner::Leg(conn, slot)) => {
                    self.host.tunnel.leg_ready(conn, slot, Some(event));
                }
                Some(Owner::Dial(number, index)) => self.dials.ready(now, number, index),
                Some(Owner::Network) => self.network.ready(now),
                Some(Owner::Splice(..)) | None => {}
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.host.stopping && self.host.tunnel.is_empty()
    }

    fn next_timeout(&self) -> Option<Instant> {
        let due = [
            self.core.poll_timeout(),
            self.host.tunnel.next_timeout(),
            self.dials.next_timeout(),
            self.network.next_timeout(),
        ];
        due.into_iter().flatten().min()
    }
}
