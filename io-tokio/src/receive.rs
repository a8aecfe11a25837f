//! The receiving half of a UDP socket: datagrams to the endpoint, what it routes to the connections' tasks.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use adit_proto_core::{
    connection::Connection,
    endpoint::{Endpoint, EndpointCounters, EndpointLoad},
    id::ConnId,
    output::{PathMeta, Routed, ToConnection, ToEndpoint, Transmit},
};
use bytes::BytesMut;
use tokio::sync::oneshot;

use crate::{
    connection_task::ConnectionSender,
    handoff::{Receiver, Sender, handoff},
    udp::{RecvBatch, UdpPort},
};

/// What connections tell their endpoint.
#[derive(Debug)]
pub(crate) enum FromTask {
    Notice(ConnId, ToEndpoint),
    /// The task is over.
    Ended(ConnId),
    /// What has been counted, how full is it, and datagrams dropped because a connection's inbox was full?
    Counters(oneshot::Sender<(EndpointCounters, EndpointLoad, u64)>),
    /// Exchange certificates or limits.
    Change(EndpointChange),
    /// The process stops: end when the last connection has said its farewell.
    Stop,
}

/// A change of the endpoint, made between two datagrams.
pub(crate) struct EndpointChange(pub(crate) Box<dyn FnOnce(&mut Endpoint) + Send>);

impl std::fmt::Debug for EndpointChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EndpointChange")
    }
}

/// Notices that wait; each connection causes only a handful at a time.
const NOTICES_LEN: usize = 1 << 20;

/// Between two lines about what was passed over.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// Owns the endpoint and the receiving of one socket.
pub(crate) struct Receive<C> {
    pub(crate) endpoint: Endpoint,
    port: Arc<UdpPort>,
    batch: RecvBatch,
    reply: Vec<u8>,
    connections: BTreeMap<ConnId, ConnectionSender<C>>,
    /// Datagrams of one connection, handed over together.
    pending: Vec<ToConnection>,
    pending_for: Option<ConnId>,
    from_tasks: Receiver<FromTask>,
    to_endpoint: Sender<FromTask>,
    messages: VecDeque<FromTask>,
    /// Datagrams dropped because a connection's inbox was full.
    overflowed: u64,
    stopping: bool,
    /// What was told of last, and when.
    told: Told,
}

/// What an endpoint passed over, as it was logged last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    at: Option<Instant>,
    counters: EndpointCounters,
    overflowed: u64,
}

impl<C> Receive<C> {
    pub(crate) fn new(endpoint: Endpoint, port: Arc<UdpPort>) -> Self {
        let (to_endpoint, from_tasks) = handoff(NOTICES_LEN);
        Self {
            endpoint,
            port,
            batch: RecvBatch::new(),
            reply: Vec::new(),
            connections: BTreeMap::new(),
            pending: Vec::new(),
            pending_for: None,
            from_tasks,
            to_endpoint,
            messages: VecDeque::new(),
            overflowed: 0,
            stopping: false,
            told: Told::default(),
        }
    }

    pub(crate) fn port(&self) -> &Arc<UdpPort> {
        &self.port
    }

    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.port.local_addr()
    }

    /// The way for a connection's task to its endpoint.
    pub(crate) fn to_endpoint(&self) -> Sender<FromTask> {
        self.to_endpoint.clone()
    }

    pub(crate) fn know(&mut self, id: ConnId, sender: ConnectionSender<C>) {
        self.connections.insert(id, sender);
    }

    pub(crate) fn connections(&self) -> impl Iterator<Item = &ConnectionSender<C>> {
        self.connections.values()
    }

    pub(crate) fn sender(&self, id: ConnId) -> Option<&ConnectionSender<C>> {
        self.connections.get(&id)
    }

    /// Tells whether the process stops and no connection is left.
    pub(crate) fn is_done(&self) -> bool {
        self.stopping && self.connections.is_empty()
    }

    /// Takes what connections say.
    pub(crate) fn poll_tasks(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self
            .from_tasks
            .poll_take(cx, &mut self.messages)
            .is_pending()
        {
            return Poll::Pending;
        }
        while let Some(message) = self.messages.pop_front() {
            match message {
                FromTask::Notice(id, notice) => {
                    if let Some(answer) = self.endpoint.handle_notice(notice)
                        && let Some(sender) = self.connections.get(&id)
                    {
                        // A task that is over needs no answer.
                        let _over = sender.notices.push(answer);
                    }
                }
                FromTask::Ended(id) => {
                    self.connections.remove(&id);
                }
                FromTask::Counters(reply) => {
                    // Whoever asked may have gone.
                    let _gone = reply.send((
                        self.endpoint.counters(),
                        self.endpoint.load(),
                        self.overflowed,
                    ));
                }
                FromTask::Change(change) => (change.0)(&mut self.endpoint),
                FromTask::Stop => self.stopping = true,
            }
        }
        Poll::Ready(())
    }

    /// Receives one batch. `accept` makes the task of a connection that a peer began, and gives the way to it.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        mut accept: impl FnMut(Box<Connection>) -> ConnectionSender<C>,
    ) -> Poll<io::Result<()>> {
        let port = Arc::clone(&self.port);
        let mut batch = std::mem::take(&mut self.batch);
        let now = Instant::now();
        let received = port.poll_recv(cx, &mut batch, |path, data| {
            self.route(now, path, data, &mut accept)
        });
        self.batch = batch;
        self.hand_over();
        self.tell(now);
        received.map_ok(|_| ())
    }

    fn route(
        &mut self,
        now: Instant,
        path: PathMeta,
        data: BytesMut,
        accept: &mut impl FnMut(Box<Connection>) -> ConnectionSender<C>,
    ) {
        match self
            .endpoint
            .handle_datagram(now, path, data, &mut self.reply)
        {
            Routed::Existing(id, message) => {
                if self.pending_for != Some(id) {
                    self.hand_over();
                    self.pending_for = Some(id);
                }
                self.pending.push(message);
            }
            Routed::New(connection) => {
                let id = connection.id();
                let sender = accept(connection);
                self.connections.insert(id, sender);
            }
            Routed::Reply(transmit) => self.send_reply(&transmit),
            Routed::Dropped => {}
        }
    }

    /// Logs what was passed over since the last line, at most once per interval: what hostile or lost datagrams cause is
    /// seen, and cannot fill the log.
    fn tell(&mut self, now: Instant) {
        let recent = |at| now.saturating_duration_since(at) < TELL_INTERVAL;
        if self.told.at.is_some_and(recent) {
            return;
        }
        let counters = self.endpoint.counters();
        let before = self.told.counters;
        // Accepted handshakes have lines of their own.
        let quiet = EndpointCounters {
            accepted: before.accepted,
            ..counters
        } == before;
        if !quiet || self.told.overflowed != self.overflowed {
            tracing::info!(
                retried = counters.retried - before.retried,
                refused = counters.refused.total() - before.refused.total(),
                malformed = counters.malformed - before.malformed,
                resets_withheld = counters.resets_withheld - before.resets_withheld,
                dropped = counters.dropped - before.dropped,
                overflowed = self.overflowed - self.told.overflowed,
                "datagrams passed over: strays, garbage, or more handshakes than the limits allow"
            );
        }
        self.told = Told {
            at: Some(now),
            counters,
            overflowed: self.overflowed,
        };
    }

    /// One wake-up for a batch of datagrams.
    fn hand_over(&mut self) {
        let Some(id) = self.pending_for.take() else {
            return;
        };
        match self.connections.get(&id) {
            Some(sender) => self.overflowed += sender.inbox.push_all(&mut self.pending) as u64,
            None => self.pending.clear(),
        }
    }

    /// Stateless answers are sent if the socket takes them now; the peer asks again otherwise.
    fn send_reply(&self, transmit: &Transmit) {
        let _sent = self.port.try_send(transmit, &self.reply);
    }
}

impl<C> std::fmt::Debug for Receive<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receive")
            .field("overflowed", &self.overflowed)
            .finish_non_exhaustive()
    }
}
