//! The one task of the peers: receives, and performs what the pool asks for.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use adit_io_common::{
    commands::Command,
    handoff::{Receiver, Sender},
    peers::{PeerCommand, PeerParts, PeersCore, PeersHost, PeersInput},
};
use adit_proto_core::{connection::Connection, endpoint::Endpoint, id::ConnId};
use tokio::time::{Sleep, sleep_until};

use crate::{
    connection_task::{ConnectionSender, ConnectionTask, connection_queues},
    receive::{FromTask, Receive},
    udp::Port,
};

/// Rounds before the task lets others run.
const ROUNDS_MAX: usize = 16;

pub(super) struct PeersTask {
    core: PeersCore,
    host: Host,
    inputs: Receiver<PeersInput>,
    batch: VecDeque<PeersInput>,
    timer: Pin<Box<Sleep>>,
}

/// What the task does for the pool.
struct Host(Receive<PeerCommand>);

impl PeersTask {
    pub(super) fn new(
        core: PeersCore,
        receive: Receive<PeerCommand>,
        inputs: Receiver<PeersInput>,
    ) -> Self {
        Self {
            core,
            host: Host(receive),
            inputs,
            batch: VecDeque::new(),
            timer: Box::pin(sleep_until(tokio::time::Instant::now())),
        }
    }

    fn take_inputs(&mut self, now: Instant, cx: &Context<'_>) -> bool {
        let any = self.inputs.poll_take(cx, &mut self.batch).is_ready();
        while let Some(input) = self.batch.pop_front() {
            self.core.take(now, input, &mut self.host);
        }
        any
    }

    fn take_timer(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let Some(at) = self.core.poll_timeout() else {
            return false;
        };
        if at <= now {
            self.core.handle_timeout(now, &mut self.host);
            return true;
        }
        if self.timer.deadline() != at.into() {
            self.timer.as_mut().reset(at.into());
        }
        self.timer.as_mut().poll(cx).is_ready()
    }
}

impl PeersHost for Host {
    fn endpoint(&mut self) -> &mut Endpoint {
        &mut self.0.endpoint
    }

    fn carry(&mut self, _now: Instant, conn: Connection, parts: &PeerParts) {
        let id = conn.id();
        let sender = spawn(conn, parts, self.0.port(), self.0.to_endpoint());
        self.0.know(id, sender);
    }

    fn command(&mut self, _now: Instant, conn: ConnId, command: Command<PeerCommand>) {
        if let Some(sender) = self.0.sender(conn) {
            sender.commands.push_or_stop(command);
        }
    }

    fn command_all(&mut self, _now: Instant, make: &dyn Fn() -> Command<PeerCommand>) {
        for sender in self.0.connections() {
            sender.commands.push_or_stop(make());
        }
    }

    fn stop(&mut self) {
        self.0.stop();
    }
}

fn spawn(
    conn: Connection,
    parts: &PeerParts,
    port: &Arc<Port>,
    to_endpoint: Sender<FromTask>,
) -> ConnectionSender<PeerCommand> {
    let (sender, queues) = connection_queues();
    let role = parts.role(&conn, sender.commands.clone());
    let task = ConnectionTask::new(conn, role, Arc::clone(port), queues, to_endpoint);
    // It bounds its own work per poll.
    tokio::spawn(tokio::task::unconstrained(task));
    sender
}

impl Future for PeersTask {
    type Output = io::Error;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Error> {
        let this = self.get_mut();
        for _ in 0..ROUNDS_MAX {
            let now = Instant::now();
            // First who has ended, then what those have said before.
            let mut any = this.host.0.poll_tasks(cx).is_ready();
            any |= this.take_inputs(now, cx);
            any |= this.take_timer(now, cx);
            let (parts, port) = (this.core.parts(), Arc::clone(this.host.0.port()));
            let to_endpoint = this.host.0.to_endpoint();
            let accept = |conn: Box<Connection>| spawn(*conn, parts, &port, to_endpoint.clone());
            match this.host.0.poll_receive(cx, accept) {
                Poll::Ready(Ok(())) => any = true,
                Poll::Ready(Err(error)) => {
                    tracing::error!(%error, "receiving on the socket for peers failed");
                    return Poll::Ready(error);
                }
                Poll::Pending => {}
            }
            if this.host.0.is_done() {
                return Poll::Ready(io::Error::other("stopped"));
            }
            if !any {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl std::fmt::Debug for PeersTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeersTask")
            .field("core", &self.core)
            .finish_non_exhaustive()
    }
}
