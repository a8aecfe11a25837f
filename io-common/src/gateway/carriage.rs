//! The way to a connection that carries sessions: an agent's, or one to another gateway.

use std::convert::Infallible;

use adit_proto_core::{
    id::{AttemptId, SessionId},
    peer::{NodeId, forward::Forward},
    target::Target,
};

use super::{handle::OpenRequest, role::GatewayCommand};
use crate::{
    commands::{Command, Commands},
    peers::PeerCommand,
};

/// The way to a connection that carries sessions; cheap to clone.
#[derive(Clone, Debug)]
pub enum Carriage {
    /// To an agent.
    Agent(Commands<GatewayCommand>),
    /// To another gateway, which has an agent.
    Peer(PeerCarriage),
}

/// The way to a connection that this gateway forwards sessions on.
#[derive(Clone, Debug)]
pub struct PeerCarriage {
    /// This gateway.
    pub from: NodeId,
    /// The other one.
    pub to: NodeId,
    /// The way to the connection.
    pub commands: Commands<PeerCommand>,
}

/// The connection has ended, and what was on its way there is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended;

impl Carriage {
    /// Gives a command to the connection.
    ///
    /// # Errors
    /// [`Ended`]. A connection that has ended may take a command all the same, and drops it.
    pub fn push(&self, command: Command<Infallible>) -> Result<(), Ended> {
        match self {
            Self::Agent(commands) => commands.push(command.for_role()).map_err(|_| Ended),
            Self::Peer(peer) => (peer.commands.push(command.for_role())).map_err(|_| Ended),
        }
    }

    /// Gives a command to the connection; one that has ended needs none.
    pub fn push_or_stop(&self, command: Command<Infallible>) {
        match self {
            Self::Agent(commands) => commands.push_or_stop(command.for_role()),
            Self::Peer(peer) => peer.commands.push_or_stop(command.for_role()),
        }
    }

    /// Has a session opened for whoever asked.
    pub(super) fn open(
        &self,
        attempt: AttemptId,
        session: SessionId,
        target: Target,
        request: Option<&OpenRequest>,
    ) {
        match self {
            Self::Agent(commands) => {
                commands.push_or_stop(Command::Role(GatewayCommand::Open {
                    attempt,
                    session,
                    target,
                }));
            }
            Self::Peer(peer) => {
                let origin = request.map(|request| request.user.to_string());
                let forward = Forward {
                    from: peer.from,
                    to: peer.to,
                    session,
                    agent: request.and_then(|request| request.agent),
                    target,
                    origin: origin.unwrap_or_default().into(),
                };
                let open = PeerCommand::Open(attempt, Box::new(forward));
                peer.commands.push_or_stop(Command::Role(open));
            }
        }
    }

    /// Gives an attempt up.
    pub(super) fn cancel(&self, attempt: AttemptId) {
        match self {
            Self::Agent(commands) => {
                commands.push_or_stop(Command::Role(GatewayCommand::Cancel(attempt)));
            }
            Self::Peer(peer) => {
                (peer.commands).push_or_stop(Command::Role(PeerCommand::CancelOpen(attempt)));
            }
        }
    }

    pub(super) fn is_agents(&self) -> bool {
        matches!(self, Self::Agent(_))
    }
}
