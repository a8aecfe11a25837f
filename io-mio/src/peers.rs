//! Connections between gateways: one thread.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    task::Context,
    time::{Duration, Instant},
};

use adit_io_common::{
    commands::{Command, Commands},
    gateway::{NODE_LEN, StartError},
    handoff::{Receiver, Sender, handoff},
    peers::{
        INPUTS_LEN, PeerCommand, PeerConnection, PeerParts, PeersConfig, PeersCore, PeersHandle,
        PeersHost, PeersInput, Requests,
    },
    udp::UdpPort,
};
use adit_proto_core::{connection::Connection, endpoint::Endpoint, env::Env, id::ConnId};
use futures_channel::oneshot;
use mio::event::Event;

use crate::{
    event_loop::{Running, Work, start},
    sources::{Owner, Sources},
    tunnel::Tunnel,
};

/// The other nodes of a running gateway. Dropping it is [`PeersHandle::stop`] without a grace.
#[derive(Debug)]
pub struct Peers {
    handle: PeersHandle,
    local_addr: SocketAddr,
    running: Running,
}

impl Peers {
    /// Starts on a thread of its own, which carries all of it. The second value is what peers ask; whoever drops it refuses
    /// all of that.
    ///
    /// # Errors
    /// [`StartError`]: the address is in use, or certificates are of no use.
    pub fn start(config: PeersConfig, env: Env) -> Result<(Self, Requests), StartError> {
        let port = UdpPort::bind(config.listen).map_err(StartError::Io)?;
        let local_addr = port.local_addr().map_err(StartError::Io)?;
        let (own, inputs) = handoff(INPUTS_LEN);
        let made = PeersCore::new(Instant::now(), config, env, local_addr, own);
        let (core, endpoint, handle, requests) = made.map_err(StartError::Tls)?;
        let make = move |sources: &_| PeersLoop::new(core, endpoint, port, inputs, sources);
        let running = start("adit-peers", make).map_err(StartError::Io)?;
        let peers = Self {
            handle,
            local_addr,
            running,
        };
        Ok((peers, requests))
    }

    /// The way in; by it the peers are stopped, too.
    #[must_use]
    pub fn handle(&self) -> PeersHandle {
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

    /// Ends the loop at once, whatever is under way; peers are not told.
    pub fn quit(&self) {
        self.running.quit();
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.handle.stop(Duration::ZERO);
    }
}

struct PeersLoop {
    core: PeersCore,
    host: Host,
    inputs: Receiver<PeersInput>,
    batch: VecDeque<PeersInput>,
    /// Answers of the application.
    commands: Receiver<(ConnId, Command<PeerCommand>)>,
    commanded: VecDeque<(ConnId, Command<PeerCommand>)>,
    /// Ends of forwarded sessions that may be ready.
    woken: Receiver<Owner>,
    owners: VecDeque<Owner>,
}

/// What the loop does for the pool.
struct Host {
    tunnel: Tunnel<PeerConnection>,
    commands: Sender<(ConnId, Command<PeerCommand>)>,
    stopping: bool,
}

fn role(
    conn: &Connection,
    parts: &PeerParts,
    commands: &Sender<(ConnId, Command<PeerCommand>)>,
) -> PeerConnection {
    parts.role(conn, Commands::Shared(conn.id(), commands.clone()))
}

impl PeersHost for Host {
    fn endpoint(&mut self) -> &mut Endpoint {
        &mut self.tunnel.endpoint
    }

    fn carry(&mut self, now: Instant, conn: Connection, parts: &PeerParts) {
        let role = role(&conn, parts, &self.commands);
        self.tunnel.add(now, conn, role);
    }

    fn command(&mut self, now: Instant, conn: ConnId, command: Command<PeerCommand>) {
        self.tunnel.command(now, conn, command);
    }

    fn command_all(&mut self, now: Instant, make: &dyn Fn() -> Command<PeerCommand>) {
        for conn in self.tunnel.connections() {
            self.tunnel.command(now, conn, make());
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
    }
}

impl PeersLoop {
    fn new(
        core: PeersCore,
        endpoint: Endpoint,
        port: UdpPort,
        inputs: Receiver<PeersInput>,
        sources: &Sources,
    ) -> io::Result<Self> {
        // Each pipe is in it once at most, and sessions are bounded by what the gateway takes.
        let (to_woken, woken) = handoff(NODE_LEN);
        // At most one answer to each request that runs, and what the gateway says of sessions.
        let (commands, commands_rx) = handoff(NODE_LEN);
        let tunnel = Tunnel::new(endpoint, port, sources, to_woken)?;
        Ok(Self {
            core,
            host: Host {
                tunnel,
                commands,
                stopping: false,
            },
            inputs,
            batch: VecDeque::new(),
            commands: commands_rx,
            commanded: VecDeque::new(),
            woken,
            owners: VecDeque::new(),
        })
    }
}

impl Work for PeersLoop {
    fn take(&mut self, now: Instant, cx: &Context<'_>) -> bool {
        // All of it: were any left while more is received, a peer could have the queues grow.
        let mut any = self.inputs.poll_take(cx, &mut self.batch).is_ready();
        for input in self.batch.drain(..) {
            self.core.take(now, input, &mut self.host);
        }
        any |= self.commands.poll_take(cx, &mut self.commanded).is_ready();
        for (conn, command) in self.commanded.drain(..) {
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
        let is_due = self.core.poll_timeout().is_some_and(|at| at <= now);
        if is_due {
            self.core.handle_timeout(now, &mut self.host);
        }
        let (parts, stopping) = (self.core.parts(), self.host.stopping);
        let commands = self.host.commands.clone();
        let more = self.host.tunnel.turn(now, &mut |conn| {
            // When it stops, a peer that comes asks again, and finds the next process.
            (!stopping).then(|| role(conn, parts, &commands))
        })?;
        Ok(is_due | more)
    }

    fn ready(&mut self, _now: Instant, owner: Owner, event: &Event) {
        match owner {
            Owner::Udp => self.host.tunnel.udp_ready(event),
            Owner::Leg(conn, slot) => self.host.tunnel.leg_ready(conn, slot, Some(event)),
            Owner::Network | Owner::Dial(..) | Owner::Splice(..) => {}
        }
    }

    fn has_more(&self) -> bool {
        self.host.tunnel.has_more()
    }

    fn is_over(&self) -> bool {
        self.host.stopping && self.host.tunnel.is_empty()
    }

    fn next_timeout(&self) -> Option<Instant> {
        let due = [self.core.poll_timeout(), self.host.tunnel.next_timeout()];
        due.into_iter().flatten().min()
    }
}
