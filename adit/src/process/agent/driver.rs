//! The agent, whichever driver carries it: on a thread of its own, which tells of what has happened.

use std::{
    io,
    sync::{Arc, mpsc::SyncSender},
    time::Duration,
};

use adit_io_common::agent::{AgentConfig, AgentHandle, StartError, Status};
#[cfg(feature = "agent-mio")]
use adit_io_mio::Agent as MioAgent;
use adit_proto_core::env::Env;

#[cfg(feature = "agent-tokio")]
use super::on_tokio::TokioAgent;
use super::{
    events::{Event, offer},
    status::Watched,
    wait::wait,
};
use crate::config::Driver;

/// A running agent.
#[derive(Debug)]
pub(super) enum AgentDriver {
    #[cfg(feature = "agent-tokio")]
    Tokio(TokioAgent),
    #[cfg(feature = "agent-mio")]
    Mio(MioAgent),
}

impl AgentDriver {
    pub(super) fn start(
        driver: Driver,
        config: AgentConfig,
        env: Env,
        told: Told,
    ) -> Result<Self, StartError> {
        match driver {
            #[cfg(feature = "agent-tokio")]
            Driver::Tokio => TokioAgent::start(config, env, told).map(Self::Tokio),
            #[cfg(feature = "agent-mio")]
            Driver::Mio => {
                let publish = move |status: &Status| told.status(status);
                MioAgent::start(config, env, Box::new(publish)).map(Self::Mio)
            }
        }
    }

    /// The way to it.
    pub(super) fn handle(&self) -> &AgentHandle {
        match self {
            #[cfg(feature = "agent-tokio")]
            Self::Tokio(agent) => agent.handle(),
            #[cfg(feature = "agent-mio")]
            Self::Mio(agent) => agent.handle(),
        }
    }

    /// Why it has ended, once it has told that it did.
    pub(super) fn why(&mut self) -> io::Error {
        let why = match self {
            #[cfg(feature = "agent-tokio")]
            Self::Tokio(agent) => wait(agent.ended(), WHY_PATIENCE).and_then(Result::ok),
            #[cfg(feature = "agent-mio")]
            Self::Mio(agent) => wait(agent.ended(), WHY_PATIENCE).and_then(Result::ok),
        };
        why.unwrap_or_else(|| io::Error::other("the agent's thread has panicked"))
    }
}

impl Drop for AgentDriver {
    /// Ends it at once, whatever is under way.
    fn drop(&mut self) {
        match self {
            #[cfg(feature = "agent-tokio")]
            Self::Tokio(agent) => agent.quit(),
            #[cfg(feature = "agent-mio")]
            Self::Mio(agent) => agent.quit(),
        }
    }
}

/// Where a driver tells how the agent is. It is dropped when the driver ends, which is an event, too.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) watched: Arc<Watched>,
    pub(super) events: SyncSender<Event>,
}

impl Told {
    /// Notes how the agent is; does not wait.
    pub(super) fn status(&self, status: &Status) {
        self.watched.set(status.clone());
        // Where there is no room, events wait whose taker looks at the status, too.
        let _noted = offer(&self.events, Event::Status);
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // Nobody may be left to hear it.
        let _heard = self.events.send(Event::Ended);
    }
}

/// From the word that a driver has ended until it has said why.
const WHY_PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn a_driver_that_ends_is_an_event_behind_its_status() {
        let (teller, events) = sync_channel(2);
        let watched = Arc::<Watched>::default();
        let told = Told {
            watched: Arc::clone(&watched),
            events: teller,
        };
        let connected = Some(([192, 0, 2, 1], 4433).into());
        told.status(&Status {
            connected,
            ..Status::default()
        });
        drop(told);
        assert!(watched.is_connected());
        assert!(matches!(events.recv(), Ok(Event::Status)));
        assert!(matches!(events.recv(), Ok(Event::Ended)));
    }
}
