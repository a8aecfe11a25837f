//! The task of one connection: it owns the connection with its sessions, and sends on the shared socket.

use std::{
    collections::VecDeque,
    future::Future,
    io, iter,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use adit_io_common::{
    commands::{COMMANDS_LEN, COMMANDS_PER_ROUND, Command, Commands},
    connection::{Driver, Role, Worker},
    handoff::{Receiver, Sender, handoff},
    socket::Socket,
};
use adit_proto_core::{
    connection::Connection,
    id::{ConnId, Slot},
    output::{ToConnection, ToEndpoint, Transmit},
};
use tokio::time::{Sleep, sleep_until};

use crate::{
    leg::TokioLeg,
    ready::ReadyQueue,
    receive::FromTask,
    udp::{Blocked, Port},
};

/// Datagrams that wait for one connection; more are dropped, which QUIC repairs.
const INBOX_LEN: usize = 4_096;
/// Rounds of work before the task lets others run.
const ROUNDS_MAX: usize = 16;

/// The way to a connection's task.
#[derive(Debug)]
pub(crate) struct ConnectionSender<C> {
    pub(crate) inbox: Sender<ToConnection>,
    pub(crate) notices: Sender<ToConnection>,
    pub(crate) commands: Commands<C>,
}

/// The receiving side of a [`ConnectionSender`], on its way into a task.
#[derive(Debug)]
pub(crate) struct ConnectionReceiver<C> {
    inbox: Receiver<ToConnection>,
    notices: Receiver<ToConnection>,
    commands: Receiver<Command<C>>,
}

/// Makes the queues of one connection.
pub(crate) fn connection_queues<C>() -> (ConnectionSender<C>, ConnectionReceiver<C>) {
    let (inbox, inbox_rx) = handoff(INBOX_LEN);
    // Answers of the endpoint to this connection's own notices, one to each of them at most: few at a time.
    let (notices, notices_rx) = handoff(INBOX_LEN);
    let (commands, commands_rx) = handoff(COMMANDS_LEN);
    (
        ConnectionSender {
            inbox,
            notices,
            commands: Commands::Own(commands),
        },
        ConnectionReceiver {
            inbox: inbox_rx,
            notices: notices_rx,
            commands: commands_rx,
        },
    )
}

/// The task; a future that ends when the connection has said its farewell.
pub(crate) struct ConnectionTask<R: Role> {
    worker: Worker<R, TokioLeg>,
    port: Arc<Port>,
    blocked: Blocked,
    queues: ConnectionReceiver<R::Command>,
    to_endpoint: Sender<FromTask>,
    inputs: VecDeque<ToConnection>,
    commands: VecDeque<Command<R::Command>>,
    ready: Arc<ReadyQueue>,
    timer: Pin<Box<Sleep>>,
    /// When the timer fires; it is left alone when the deadline only moves back.
    armed: Option<Instant>,
}

impl<R: Role> ConnectionTask<R> {
    pub(crate) fn new(
        conn: Connection,
        role: R,
        port: Arc<Port>,
        queues: ConnectionReceiver<R::Command>,
        to_endpoint: Sender<FromTask>,
    ) -> Self {
        let batch = port.get().send_batch();
        Self {
            worker: Worker::new(Instant::now(), conn, role, batch),
            port,
            blocked: None,
            queues,
            to_endpoint,
            inputs: VecDeque::new(),
            commands: VecDeque::new(),
            ready: Arc::default(),
            timer: Box::pin(sleep_until(tokio::time::Instant::now())),
            armed: None,
        }
    }

    /// Takes what has come; tells whether anything had.
    fn take_inputs(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        // Answers to our own notices first: fresh connection ids must not wait behind datagrams. And those wait for the
        // commands that are left: a peer whose requests come to commands must not be read faster than these are done.
        let inbox = self.commands.is_empty().then_some(&self.queues.inbox);
        for queue in iter::once(&self.queues.notices).chain(inbox) {
            if queue.poll_take(cx, &mut self.inputs).is_ready() {
                any = true;
                for message in self.inputs.drain(..) {
                    self.worker.handle_message(now, message);
                }
            }
        }
        let mut commands = std::mem::take(&mut self.commands);
        if self.queues.commands.poll_fill(cx, &mut commands).is_ready() {
            any = true;
            let lot = commands.len().min(COMMANDS_PER_ROUND);
            for command in commands.drain(..lot) {
                let (worker, mut driver) = self.parts(cx);
                worker.handle_command(now, command, &mut driver);
            }
        }
        self.commands = commands;
        any | self.take_timer(now, cx)
    }

    /// Expiry is decided by the clock, not by the timer's future.
    fn take_timer(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        if self.worker.handle_timeout(now) {
            return true;
        }
        let Some(deadline) = self.worker.poll_timeout() else {
            return false;
        };
        if self
            .armed
            .is_none_or(|armed| armed > deadline || armed <= now)
        {
            self.armed = Some(deadline);
            self.timer.as_mut().reset(deadline.into());
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            // It stood for an earlier deadline, or fired a moment early.
            self.armed = None;
            return true;
        }
        false
    }

    fn parts<'a, 'b>(
        &'a mut self,
        cx: &'a mut Context<'b>,
    ) -> (&'a mut Worker<R, TokioLeg>, TaskDriver<'a, 'b>) {
        let driver = TaskDriver {
            port: &self.port,
            blocked: &mut self.blocked,
            to_endpoint: &self.to_endpoint,
            ready: &self.ready,
            cx,
        };
        (&mut self.worker, driver)
    }
}

/// What the task does for its connection.
struct TaskDriver<'a, 'b> {
    port: &'a Port,
    blocked: &'a mut Blocked,
    to_endpoint: &'a Sender<FromTask>,
    ready: &'a Arc<ReadyQueue>,
    cx: &'a mut Context<'b>,
}

impl Driver for TaskDriver<'_, '_> {
    type Leg = TokioLeg;

    fn leg(&mut self, slot: Slot, socket: Socket) -> io::Result<TokioLeg> {
        TokioLeg::new(socket, self.ready, slot)
    }

    fn send(&mut self, transmit: &Transmit, bytes: &[u8]) -> bool {
        let sent = self.port.poll_send(self.cx, transmit, bytes, self.blocked);
        sent.is_ready()
    }

    fn notice(&mut self, id: ConnId, notice: ToEndpoint) {
        // Without an endpoint the process is ending.
        let _ending = self.to_endpoint.push(FromTask::Notice(id, notice));
    }

    fn send_batch(&self) -> usize {
        self.port.get().send_batch()
    }
}

/// A task that is dropped before its time, by the end of the process or by a fault of ours, is told of all the same.
impl<R: Role> Drop for ConnectionTask<R> {
    fn drop(&mut self) {
        self.worker.abandon(Instant::now());
        // Without an endpoint the process is ending.
        let _ending = self.to_endpoint.push(FromTask::Ended(self.worker.id()));
    }
}

impl<R: Role<Command: Unpin> + Unpin> Future for ConnectionTask<R> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        for _ in 0..ROUNDS_MAX {
            let now = Instant::now();
            let mut any = this.take_inputs(now, cx);
            this.ready.take(cx, this.worker.sessions().runnable());
            let (worker, mut driver) = this.parts(cx);
            any |= worker.run(now, &mut driver);
            if this.worker.is_over() {
                return Poll::Ready(());
            }
            if !any {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
