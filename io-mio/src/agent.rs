//! The agent: one thread.

use std::{collections::VecDeque, io, net::Ipv6Addr, sync::Arc, task::Context, time::Instant};

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
use mio::event::Event;

use crate::{
    dials::{Dials, dialler},
    event_loop::{Running, Work, start},
    network::Network,
    sources::{Owner, Sources},
    tunnel::Tunnel,
};

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    handle: AgentHandle,
    running: Running,
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
        let running = start("adit-agent", move |sources| {
            AgentLoop::new(core, port, sources, inputs, publish)
        })?;
        Ok(Self { handle, running })
    }

    /// The way to the agent.
    #[must_use]
    pub fn handle(&self) -> &AgentHandle {
        &self.handle
    }

    /// Completes when the loop has ended, with why it did; without that where it has panicked.
    pub fn ended(&mut self) -> &mut oneshot::Receiver<io::Error> {
        self.running.ended()
    }

    /// Ends the loop at once, whatever is under way: sessions are cut, and the gateway is not told.
    pub fn quit(&self) {
        self.running.quit();
    }
}

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
        sources: &Sources,
        inputs: Receiver<AgentInput>,
        publish: Publish,
    ) -> io::Result<Self> {
        let (to_woken, woken) = handoff(COMMANDS_LEN);
        let (commands, commands_rx) = handoff(COMMANDS_LEN);
        let (dialler, requests) = dialler();
        let dials = Dials::new(requests, core.target_names(), sources);
        Ok(Self {
            host: Host {
                tunnel: Tunnel::new(core.endpoint(), port, sources, to_woken)?,
                dialler,
                commands,
                publish,
                stopping: false,
            },
            core,
            dials,
            network: Network::new(Instant::now(), sources),
            inputs,
            batch: VecDeque::new(),
            commands: commands_rx,
            ordered: VecDeque::new(),
            woken,
            owners: VecDeque::new(),
        })
    }
}

impl Work for AgentLoop {
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

    fn round(&mut self, now: Instant) -> io::Result<bool> {
        let any = self.core.run(now, &mut self.host);
        Ok(any | self.host.tunnel.turn(now, &mut |_| None)?)
    }

    fn ready(&mut self, now: Instant, owner: Owner, event: &Event) {
        match owner {
            Owner::Udp => self.host.tunnel.udp_ready(event),
            Owner::Leg(conn, slot) => self.host.tunnel.leg_ready(conn, slot, Some(event)),
            Owner::Dial(number, index) => self.dials.ready(now, number, index),
            Owner::Network => self.network.ready(now),
            Owner::Splice(..) => {}
        }
    }

    fn has_more(&self) -> bool {
        self.host.tunnel.has_more()
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
