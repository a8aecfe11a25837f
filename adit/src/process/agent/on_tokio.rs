//! The agent on tokio, with a runtime on a thread of its own.

use std::{io, sync::Arc, thread};

use adit_io_common::agent::{AgentConfig, AgentHandle, StartError};
use adit_io_tokio::agent::Agent;
use adit_proto_core::env::Env;
use tokio::{
    runtime::Builder,
    sync::{Notify, oneshot},
};

use super::driver::Told;

/// A running agent.
#[derive(Debug)]
pub(super) struct TokioAgent {
    handle: AgentHandle,
    ended: oneshot::Receiver<io::Error>,
    quit: Arc<Notify>,
}

impl TokioAgent {
    /// Starts an agent and the thread that carries all of it.
    pub(super) fn start(config: AgentConfig, env: Env, told: Told) -> Result<Self, StartError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let agent = {
            let _within = runtime.enter();
            Agent::start(config, env)?
        };
        let handle = agent.handle().clone();
        let (tell, ended) = oneshot::channel();
        let quit = Arc::<Notify>::default();
        let quitting = Arc::clone(&quit);
        let run = move || {
            let why = runtime.block_on(carry(agent, &told, &quitting));
            // What blocks is not waited for.
            runtime.shutdown_background();
            drop(told);
            // Whoever could hear it may be gone.
            let _heard = tell.send(why);
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

    pub(super) fn handle(&self) -> &AgentHandle {
        &self.handle
    }

    /// Completes when the agent has ended, with why it did; without that where its thread has panicked.
    pub(super) fn ended(&mut self) -> &mut oneshot::Receiver<io::Error> {
        &mut self.ended
    }

    /// Ends it at once, whatever is under way: sessions are cut, and the gateway is not told.
    pub(super) fn quit(&self) {
        self.quit.notify_one();
    }
}

/// Tells of the agent until it ends, or is to be left.
async fn carry(mut agent: Agent, told: &Told, quit: &Notify) -> io::Error {
    let mut status = agent.status();
    loop {
        tokio::select! {
            Ok(()) = status.changed() => told.status(&status.borrow_and_update()),
            why = agent.failed() => return why,
            () = quit.notified() => return io::Error::other("stopped"),
        }
    }
}
