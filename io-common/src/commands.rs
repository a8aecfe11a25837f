//! What a connection is asked to do, and the way to it.

use std::convert::Infallible;

use adit_proto_core::{
    close::CloseReason,
    id::{ConnId, Slot},
    session_timer::SessionBounds,
};
use bytes::Bytes;
use futures_channel::oneshot;

use crate::{
    glance::Glance,
    handoff::{Rejected, Sender},
    socket::Carried,
};

/// Commands that wait for one connection. Each stands for a session being opened, of which the core bounds the number.
pub const COMMANDS_LEN: usize = 65_536;

/// Commands that a connection takes before what they come to is sent. Calls and answers come in lots as large as what is
/// under way: were all of a lot sealed first, the peer would have nothing to do meanwhile, and the two would work in turns.
pub const COMMANDS_PER_ROUND: usize = 16;

/// What both roles ask of a connection.
#[derive(Debug)]
pub enum Command<C> {
    /// Close it.
    Close(CloseReason),
    /// Close it as soon as what has ended on it has reached the peer, or after the core's patience.
    Stop(CloseReason),
    /// The same without an end of the patience.
    Farewell(CloseReason),
    /// Carry a session's bytes from and to this socket, for so long; the `Bytes` were read from it already.
    Attach(Slot, Carried, Bytes, SessionBounds),
    /// The session is not wanted any more.
    Discard(Slot),
    /// An operator ends the session.
    Kill(Slot),
    /// An operator looks.
    Look(oneshot::Sender<Glance>),
    /// What only one role asks.
    Role(C),
}

impl Command<Infallible> {
    /// The same for a connection of any role: what is common to all needs none.
    #[must_use]
    pub fn for_role<C>(self) -> Command<C> {
        match self {
            Self::Close(reason) => Command::Close(reason),
            Self::Stop(reason) => Command::Stop(reason),
            Self::Farewell(reason) => Command::Farewell(reason),
            Self::Attach(slot, socket, early, bounds) => {
                Command::Attach(slot, socket, early, bounds)
            }
            Self::Discard(slot) => Command::Discard(slot),
            Self::Kill(slot) => Command::Kill(slot),
            Self::Look(reply) => Command::Look(reply),
            Self::Role(never) => match never {},
        }
    }
}

/// The way of commands to one connection; cheap to clone.
#[derive(Debug)]
pub enum Commands<C> {
    /// The connection takes them from a queue of its own.
    Own(Sender<Command<C>>),
    /// One queue is for all connections.
    Shared(ConnId, Sender<(ConnId, Command<C>)>),
}

impl<C> Clone for Commands<C> {
    fn clone(&self) -> Self {
        match self {
            Self::Own(queue) => Self::Own(queue.clone()),
            Self::Shared(id, queue) => Self::Shared(*id, queue.clone()),
        }
    }
}

impl<C> Commands<C> {
    /// Gives a command to the connection.
    ///
    /// # Errors
    /// [`Rejected`], with the command. A connection that has ended may take a command all the same, and drops it.
    pub fn push(&self, command: Command<C>) -> Result<(), Rejected<Command<C>>> {
        match self {
            Self::Own(queue) => queue.push(command),
            Self::Shared(id, queue) => {
                queue
                    .push((*id, command))
                    .map_err(|rejected| match rejected {
                        Rejected::Full((_, command)) => Rejected::Full(command),
                        Rejected::Closed((_, command)) => Rejected::Closed(command),
                    })
            }
        }
    }

    /// Gives a command to the connection; one that has ended needs none.
    pub fn push_or_stop(&self, command: Command<C>) {
        match self {
            Self::Own(queue) => queue.push_or_stop(command),
            Self::Shared(id, queue) => queue.push_or_stop((*id, command)),
        }
    }
}
