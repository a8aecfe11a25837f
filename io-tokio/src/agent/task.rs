//! The agent's one task: receives, and performs what the agent asks for.

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
    agent::{
        AgentCommand, AgentCore, AgentHost, AgentInput, GatewayConnection, RoleParts, Status,
        Wanted,
    },
    commands::Command,
    dialling::Dialler,
    handoff::{Receiver, Sender},
};
use adit_proto_core::{endpoint::ConnectError, id::ConnId};
use tokio::{
    sync::watch,
    time::{Sleep, sleep_until},
};

use super::network::Watch;
use crate::{
    connection_task::{ConnectionTask, connection_queues},
    dial::TokioDialler,
    receive::Receive,
};

/// Batches received before the task lets others run.
const ROUNDS_MAX: usize = 16;

/// Receives, keeps one connection up, and reports.
pub(super) struct AgentTask {
    core: AgentCore,
    host: Host,
    inputs: Receiver<AgentInput>,
    batch: VecDeque<AgentInput>,
    timer: Pin<Box<Sleep>>,
    /// Tells of changes until it is dropped.
    _network: Option<Watch>,
}

/// What the task does for the agent.
struct Host {
    receive: Receive<AgentCommand>,
    dialler: Arc<dyn Dialler>,
    status: watch::Sender<Status>,
}

impl AgentTask {
    pub(super) fn new(
        core: AgentCore,
        receive: Receive<AgentCommand>,
        (own, inputs): (Sender<AgentInput>, Receiver<AgentInput>),
        status: watch::Sender<Status>,
    ) -> Self {
        let network = Watch::begin(own);
        if let Err(error) = &network {
            tracing::warn!(%error, "this machine's addresses cannot be watched; changes are noticed some seconds later");
        }
        Self {
            host: Host {
                receive,
                dialler: Arc::new(TokioDialler::new(core.target_names())),
                status,
            },
            core,
            inputs,
            batch: VecDeque::new(),
            timer: Box::pin(sleep_until(tokio::time::Instant::now())),
            _network: network.ok(),
        }
    }

    fn take_inputs(&mut self, cx: &Context<'_>) -> bool {
        let any = self.inputs.poll_take(cx, &mut self.batch).is_ready();
        while let Some(input) = self.batch.pop_front() {
            self.core.take(Instant::now(), input, &mut self.host);
        }
        any
    }

    fn run_core(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = self.core.run(Instant::now(), &mut self.host);
        if let Some(at) = self.core.poll_timeout() {
            if self.timer.deadline() != at.into() {
                self.timer.as_mut().reset(at.into());
            }
            any |= self.timer.as_mut().poll(cx).is_ready();
        }
        any
    }
}

impl AgentHost for Host {
    fn connect(
        &mut self,
        now: Instant,
        wanted: &Wanted<'_>,
        parts: RoleParts,
    ) -> Result<ConnId, ConnectError> {
        let endpoint = &mut self.receive.endpoint;
        let (remote, name) = (wanted.remote, wanted.server_name);
        let conn = endpoint.connect(now, &wanted.config, remote, name, wanted.env)?;
        let id = conn.id();
        let (sender, queues) = connection_queues();
        let dialler = Arc::clone(&self.dialler);
        let role = GatewayConnection::new(parts, dialler, sender.commands.clone());
        self.receive.know(id, sender);
        let (port, to_endpoint) = (Arc::clone(self.receive.port()), self.receive.to_endpoint());
        let task = ConnectionTask::new(conn, role, port, queues, to_endpoint);
        // It bounds its own work per poll.
        tokio::spawn(tokio::task::unconstrained(task));
        Ok(id)
    }

    fn command(&mut self, conn: ConnId, command: Command<AgentCommand>) {
        if let Some(sender) = self.receive.sender(conn) {
            sender.commands.push_or_stop(command);
        }
    }

    fn command_all(&mut self, make: &dyn Fn() -> Command<AgentCommand>) {
        for sender in self.receive.connections() {
            sender.commands.push_or_stop(make());
        }
    }

    fn publish(&mut self, status: &Status) {
        self.status.send_replace(status.clone());
    }

    fn stop(&mut self) {
        self.receive.stop();
    }
}

impl Future for AgentTask {
    type Output = io::Error;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Error> {
        let this = self.get_mut();
        for _ in 0..ROUNDS_MAX {
            // First who has ended, then what those have said before.
            let mut any = this.host.receive.poll_tasks(cx).is_ready();
            any |= this.take_inputs(cx);
            any |= this.run_core(cx);
            // An agent's endpoint takes no connections, so nothing is ever accepted.
            let accept = |_| connection_queues().0;
            match this.host.receive.poll_receive(cx, accept) {
                Poll::Ready(Ok(())) => any = true,
                Poll::Ready(Err(error)) => {
                    tracing::error!(%error, "receiving on the agent's socket failed");
                    return Poll::Ready(error);
                }
                Poll::Pending => {}
            }
            if this.host.receive.is_done() {
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

impl std::fmt::Debug for AgentTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentTask").finish_non_exhaustive()
    }
}
