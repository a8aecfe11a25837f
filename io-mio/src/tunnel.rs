//! The tunnel's UDP socket, its endpoint, and all connections.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    os::fd::AsRawFd,
    time::Instant,
};

use adit_io_common::{
    commands::Command,
    connection::{Driver, Role, Worker},
    gateway::EndpointSnapshot,
    handoff::Sender,
    passed_over::PassedOver,
    socket::Socket,
    udp::{Received, RecvBatch, UdpPort},
};
use adit_proto_core::{
    connection::Connection,
    endpoint::Endpoint,
    id::{ConnId, Slot},
    output::{PathMeta, Routed, ToEndpoint, Transmit},
};
use bytes::BytesMut;
use mio::{Interest, event::Event, unix::SourceFd};

use crate::{
    leg::MioLeg,
    sources::{Owner, Place, Sources},
    timers::Timers,
};

/// Batches received before the connections have their turn.
const BATCHES_MAX: usize = 4;

/// Everything about the tunnel but what decides.
pub(crate) struct Tunnel<R: Role> {
    pub(crate) endpoint: Endpoint,
    socket: UdpSource,
    batch: RecvBatch,
    reply: Vec<u8>,
    workers: BTreeMap<ConnId, Worker<R, MioLeg>>,
    /// Connections that have something to do, each once.
    ready: VecDeque<ConnId>,
    queued: BTreeSet<ConnId>,
    /// Connections whose datagrams wait for room in the socket.
    blocked: BTreeSet<ConnId>,
    timers: Timers<ConnId>,
    /// Datagrams of the batches at hand.
    came: Vec<(PathMeta, BytesMut)>,
    notices: Vec<(ConnId, ToEndpoint)>,
    woken: Sender<Owner>,
    passed_over: PassedOver,
}

/// The UDP socket, and what it is ready for.
struct UdpSource {
    port: UdpPort,
    sources: Sources,
    place: Place,
    readable: bool,
    /// Nothing is received before.
    pause: Option<Instant>,
    /// The poll tells when there is room.
    watches_room: bool,
}

impl UdpSource {
    fn new(port: UdpPort, sources: &Sources) -> io::Result<Self> {
        let mut fd = SourceFd(&port.as_raw_fd());
        // Room is asked for only where there was none: the system tells of it after every datagram that it has passed on.
        let place = sources.watch(&mut fd, Owner::Udp, Interest::READABLE)?;
        Ok(Self {
            sources: sources.clone(),
            port,
            place,
            readable: true,
            pause: None,
            watches_room: false,
        })
    }

    fn watch_room(&mut self, watch: bool) {
        if self.watches_room == watch {
            return;
        }
        let interest = if watch {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        let fd = self.port.as_raw_fd();
        match (self.sources).watch_for(&mut SourceFd(&fd), &self.place, interest) {
            Ok(()) => self.watches_room = watch,
            Err(error) => {
                tracing::warn!(%error, "cannot wait for room to send; datagrams wait for the next timer");
            }
        }
    }
}

/// What a connection gets done.
struct TunnelDriver<'a> {
    socket: &'a UdpSource,
    notices: &'a mut Vec<(ConnId, ToEndpoint)>,
    conn: ConnId,
    woken: &'a Sender<Owner>,
}

impl Driver for TunnelDriver<'_> {
    type Leg = MioLeg;

    fn leg(&mut self, slot: Slot, socket: Socket) -> io::Result<MioLeg> {
        let owner = Owner::Leg(self.conn, slot);
        MioLeg::new(socket, &self.socket.sources, owner, self.woken)
    }

    fn send(&mut self, transmit: &Transmit, bytes: &[u8]) -> bool {
        self.socket.port.try_send(transmit, bytes)
    }

    fn notice(&mut self, id: ConnId, notice: ToEndpoint) {
        self.notices.push((id, notice));
    }

    fn send_batch(&self) -> usize {
        self.socket.port.send_batch()
    }
}

impl<R: Role> Tunnel<R> {
    pub(crate) fn new(
        endpoint: Endpoint,
        port: UdpPort,
        sources: &Sources,
        woken: Sender<Owner>,
    ) -> io::Result<Self> {
        Ok(Self {
            endpoint,
            socket: UdpSource::new(port, sources)?,
            batch: RecvBatch::new(),
            reply: Vec::new(),
            workers: BTreeMap::new(),
            ready: VecDeque::new(),
            queued: BTreeSet::new(),
            blocked: BTreeSet::new(),
            timers: Timers::default(),
            came: Vec::new(),
            notices: Vec::new(),
            woken,
            passed_over: PassedOver::default(),
        })
    }

    /// Takes a connection on.
    pub(crate) fn add(&mut self, now: Instant, conn: Connection, role: R) {
        let id = conn.id();
        let batch = self.socket.port.send_batch();
        self.workers.insert(id, Worker::new(now, conn, role, batch));
        self.queue(id);
    }

    /// No connection is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// Those that there are.
    pub(crate) fn connections(&self) -> Vec<ConnId> {
        self.workers.keys().copied().collect()
    }

    /// What has been counted, and how full the endpoint is. No datagram waits for a connection, so none is dropped there.
    pub(crate) fn counters(&self) -> EndpointSnapshot {
        EndpointSnapshot {
            endpoint: self.endpoint.counters(),
            load: self.endpoint.load(),
            overflowed: 0,
            blocked: self.socket.port.blocked(),
        }
    }

    fn queue(&mut self, id: ConnId) {
        if self.queued.insert(id) {
            self.ready.push_back(id);
        }
    }

    /// Gives a command to a connection; one that has ended needs none.
    pub(crate) fn command(&mut self, now: Instant, id: ConnId, command: Command<R::Command>) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let mut driver = TunnelDriver {
            socket: &self.socket,
            notices: &mut self.notices,
            conn: id,
            woken: &self.woken,
        };
        worker.handle_command(now, command, &mut driver);
        self.queue(id);
    }

    /// Takes an event of the UDP socket.
    pub(crate) fn udp_ready(&mut self, event: &Event) {
        self.socket.readable |= event.is_readable() || event.is_error();
        if event.is_writable() {
            self.socket.watch_room(false);
            for id in std::mem::take(&mut self.blocked) {
                self.queue(id);
            }
        }
    }

    /// A session's socket may be ready; `event` says for what, where the poll told of it.
    pub(crate) fn leg_ready(&mut self, id: ConnId, slot: Slot, event: Option<&Event>) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let sessions = worker.sessions();
        let Some(leg) = sessions.leg(slot) else {
            return;
        };
        if let Some(event) = event {
            leg.ready(event);
        }
        sessions.runnable().push(slot);
        self.queue(id);
    }

    /// Tells whether [`turn`](Self::turn) has something to do at once.
    pub(crate) fn has_more(&self) -> bool {
        !self.ready.is_empty() || (self.socket.readable && self.socket.pause.is_none())
    }

    /// When [`turn`](Self::turn) has something to do although nothing has come.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        [self.timers.next(), self.socket.pause]
            .into_iter()
            .flatten()
            .min()
    }

    /// Receives, does what is due, and gives each connection that has something to do one round. `accept` makes the role
    /// of a connection that a peer began. Tells whether there is more to do.
    ///
    /// # Errors
    /// Receiving fails and does not recover.
    pub(crate) fn turn(
        &mut self,
        now: Instant,
        accept: &mut impl FnMut(&Connection) -> Option<R>,
    ) -> io::Result<bool> {
        self.receive(now, accept)?;
        self.expire(now);
        for _ in 0..self.ready.len() {
            if let Some(id) = self.ready.pop_front() {
                self.queued.remove(&id);
                self.run(now, id);
            }
        }
        let counters = || self.endpoint.counters();
        self.passed_over.tell(now, counters, 0);
        Ok(self.has_more())
    }

    fn receive(
        &mut self,
        now: Instant,
        accept: &mut impl FnMut(&Connection) -> Option<R>,
    ) -> io::Result<()> {
        if self.socket.pause.is_some_and(|until| until <= now) {
            self.socket.pause = None;
        }
        let mut batch = std::mem::take(&mut self.batch);
        let mut came = std::mem::take(&mut self.came);
        for _ in 0..BATCHES_MAX {
            if !self.socket.readable || self.socket.pause.is_some() {
                break;
            }
            let received = self
                .socket
                .port
                .receive(&mut batch, |path, data| came.push((path, data)))?;
            match received {
                Received::More(_) => {}
                Received::Drained(_) => self.socket.readable = false,
                Received::Pause(time) => self.socket.pause = Some(now + time),
            }
        }
        self.batch = batch;
        for (path, data) in came.drain(..) {
            self.route(now, path, data, accept);
        }
        self.came = came;
        Ok(())
    }

    fn route(
        &mut self,
        now: Instant,
        path: PathMeta,
        data: BytesMut,
        accept: &mut impl FnMut(&Connection) -> Option<R>,
    ) {
        match self
            .endpoint
            .handle_datagram(now, path, data, &mut self.reply)
        {
            Routed::Existing(id, message) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.handle_message(now, message);
                    self.queue(id);
                }
            }
            Routed::New(conn) => {
                if let Some(role) = accept(&conn) {
                    self.add(now, *conn, role);
                }
            }
            // Sent if the socket takes it now; the peer asks again otherwise.
            Routed::Reply(transmit) => {
                let _sent = self.socket.port.try_send(&transmit, &self.reply);
            }
            Routed::Dropped => {}
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some(id) = self.timers.due(now) {
            let Some(worker) = self.workers.get_mut(&id) else {
                continue;
            };
            if worker.handle_timeout(now) {
                self.queue(id);
            } else if let Some(at) = worker.poll_timeout() {
                self.timers.arm(id, at);
            }
        }
    }

    fn run(&mut self, now: Instant, id: ConnId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let mut driver = TunnelDriver {
            socket: &self.socket,
            notices: &mut self.notices,
            conn: id,
            woken: &self.woken,
        };
        let any = worker.run(now, &mut driver);
        for (id, notice) in self.notices.drain(..) {
            if let Some(answer) = self.endpoint.handle_notice(notice) {
                worker.handle_message(now, answer);
                if self.queued.insert(id) {
                    self.ready.push_back(id);
                }
            }
        }
        if worker.is_over() {
            worker.abandon(now);
            self.workers.remove(&id);
            self.blocked.remove(&id);
            return self.timers.forget(id);
        }
        if worker.is_blocked() {
            self.blocked.insert(id);
            self.socket.watch_room(true);
        }
        if let Some(at) = worker.poll_timeout() {
            self.timers.arm(id, at);
        }
        if any {
            self.queue(id);
        }
    }
}

/// A loop that ends before its time is told of to all who wait, and its sockets are reset.
impl<R: Role> Drop for Tunnel<R> {
    fn drop(&mut self) {
        let now = Instant::now();
        for worker in self.workers.values_mut() {
            worker.abandon(now);
        }
    }
}
