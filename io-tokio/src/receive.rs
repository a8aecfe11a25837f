//! The receiving half of a UDP socket: datagrams to the endpoint, what it routes to the connections' tasks.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use adit_io_common::{
    commands::Command,
    gateway::{EndpointOrder, EndpointSnapshot, ORDERS_LEN},
    handoff::{Receiver, Sender, handoff},
    passed_over::PassedOver,
    udp::RecvBatch,
};
use adit_proto_core::{
    close::CloseReason,
    connection::Connection,
    endpoint::Endpoint,
    id::ConnId,
    output::{PathMeta, Routed, ToConnection, ToEndpoint, Transmit},
};
use bytes::BytesMut;

use crate::{
    connection_task::ConnectionSender,
    udp::{Pause, Port},
};

/// What connections tell their endpoint.
#[derive(Debug)]
pub(crate) enum FromTask {
    Notice(ConnId, ToEndpoint),
    /// The task is over.
    Ended(ConnId),
}

/// Notices that wait; each connection causes only a handful at a time.
const NOTICES_LEN: usize = 1 << 20;

/// Owns the endpoint and the receiving of one socket.
pub(crate) struct Receive<C> {
    pub(crate) endpoint: Endpoint,
    port: Arc<Port>,
    batch: RecvBatch,
    pause: Pause,
    reply: Vec<u8>,
    connections: BTreeMap<ConnId, ConnectionSender<C>>,
    /// Datagrams of one connection, handed over together.
    pending: Vec<ToConnection>,
    pending_for: Option<ConnId>,
    from_tasks: Receiver<FromTask>,
    to_endpoint: Sender<FromTask>,
    messages: VecDeque<FromTask>,
    orders: Receiver<EndpointOrder>,
    to_order: Sender<EndpointOrder>,
    ordered: VecDeque<EndpointOrder>,
    /// Datagrams dropped because a connection's inbox was full.
    overflowed: u64,
    stopping: bool,
    passed_over: PassedOver,
}

impl<C> Receive<C> {
    pub(crate) fn new(endpoint: Endpoint, port: Arc<Port>) -> Self {
        let (to_endpoint, from_tasks) = handoff(NOTICES_LEN);
        let (to_order, orders) = handoff(ORDERS_LEN);
        Self {
            endpoint,
            port,
            batch: RecvBatch::new(),
            pause: None,
            reply: Vec::new(),
            connections: BTreeMap::new(),
            pending: Vec::new(),
            pending_for: None,
            from_tasks,
            to_endpoint,
            messages: VecDeque::new(),
            orders,
            to_order,
            ordered: VecDeque::new(),
            overflowed: 0,
            stopping: false,
            passed_over: PassedOver::default(),
        }
    }

    pub(crate) fn port(&self) -> &Arc<Port> {
        &self.port
    }

    /// Begins no connection any more, and ends with the last one.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    /// Has every connection closed, too. The node tells agents; handshakes are known here only.
    fn stop_gateway(&mut self) {
        self.stop();
        for sender in self.connections() {
            let stop = Command::Stop(CloseReason::GatewayStopping);
            sender.commands.push_or_stop(stop);
        }
    }

    /// The way for a connection's task to its endpoint.
    pub(crate) fn to_endpoint(&self) -> Sender<FromTask> {
        self.to_endpoint.clone()
    }

    /// The way for administration to the endpoint.
    pub(crate) fn to_order(&self) -> Sender<EndpointOrder> {
        self.to_order.clone()
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

    /// Takes what connections and administration say.
    pub(crate) fn poll_tasks(&mut self, cx: &Context<'_>) -> Poll<()> {
        let said = self.from_tasks.poll_take(cx, &mut self.messages);
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
            }
        }
        let ordered = self.orders.poll_take(cx, &mut self.ordered);
        while let Some(order) = self.ordered.pop_front() {
            match order {
                EndpointOrder::Counters(reply) => {
                    // Whoever asked may have gone.
                    let _gone = reply.send(EndpointSnapshot {
                        endpoint: self.endpoint.counters(),
                        load: self.endpoint.load(),
                        overflowed: self.overflowed,
                        blocked: self.port.get().blocked(),
                    });
                }
                EndpointOrder::Change(change) => change.make(&mut self.endpoint),
                EndpointOrder::Stop => self.stop_gateway(),
            }
        }
        if said.is_ready() { said } else { ordered }
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
        let mut pause = self.pause.take();
        let received = port.poll_receive(cx, &mut batch, &mut pause, |path, data| {
            self.route(now, path, data, &mut accept)
        });
        (self.batch, self.pause) = (batch, pause);
        self.hand_over();
        let counters = || self.endpoint.counters();
        self.passed_over.tell(now, counters, self.overflowed);
        received
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
            // Its agent asks again, and finds the next process.
            Routed::New(_) if self.stopping => {}
            Routed::New(connection) => {
                let id = connection.id();
                let sender = accept(connection);
                self.connections.insert(id, sender);
            }
            Routed::Reply(transmit) => self.send_reply(&transmit),
            Routed::Dropped => {}
        }
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
        let _sent = self.port.get().try_send(transmit, &self.reply);
    }
}

impl<C> std::fmt::Debug for Receive<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receive")
            .field("overflowed", &self.overflowed)
            .finish_non_exhaustive()
    }
}
