//! Sessions being opened: who asked for each, a user of this gateway or a peer, and what each is told.

use std::{net::TcpStream, sync::Arc, time::Instant};

use adit_proto_core::{
    agent::dial::DialError,
    gateway::OpenError,
    id::{AgentId, SessionId},
    peer::forward::Status,
    session_table::Carrier,
    target::Target,
};
use bytes::Bytes;
use futures_channel::oneshot;
use rand_chacha::rand_core::Rng;
use uuid::Builder;

use super::Node;
use crate::{
    commands::{Command, Commands},
    dialling::UnderWay,
    gateway::{
        handle::{OpenRequest, PendingSession},
        input::{Forwarded, NodeInput, Place},
    },
    peers::PeerCommand,
    pipe::Pipe,
    socket::Carried,
};

/// What the core does not need to know of a session that is being opened.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) request: OpenRequest,
    asked: Asked,
    /// While its target is dialled; dropping it gives up.
    pub(super) dial: Option<UnderWay>,
    dialled: Option<TcpStream>,
}

/// Who asked for a session, and the way for the answer.
#[derive(Debug)]
pub(super) enum Asked {
    /// A user of this gateway.
    User {
        /// By which it is given up.
        number: u64,
        reply: oneshot::Sender<Result<PendingSession, OpenError>>,
    },
    /// Another gateway, at this place.
    Peer {
        place: Place,
        commands: Commands<PeerCommand>,
    },
}

/// Bytes under way within the process, in each direction, of a session that a peer has handed over. Its two connections may
/// be on two threads, and with 64 KiB these mostly woke each other.
const FORWARD_PIPE_LEN: usize = 1 << 20;

/// By what a wish is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asker {
    User(u64),
    Peer(Place),
}

impl Asked {
    fn asker(&self) -> Asker {
        match self {
            Self::User { number, .. } => Asker::User(*number),
            Self::Peer { place, .. } => Asker::Peer(*place),
        }
    }

    fn answer(self, outcome: Result<PendingSession, OpenError>) {
        match (self, outcome) {
            // A user who went away meanwhile drops the session, which ends it.
            (Self::User { reply, .. }, outcome) => drop(reply.send(outcome)),
            (Self::Peer { place, commands }, Ok(pending)) => {
                let (near, far) = Pipe::pair_of(FORWARD_PIPE_LEN);
                pending.attach(far, Bytes::new());
                let accept = PeerCommand::Accept(place.1, Carried::new(near));
                // A connection that has ended drops the pipe, and so resets the session.
                let _ended = commands.push(Command::Role(accept));
            }
            (Self::Peer { place, commands }, Err(error)) => {
                let status = Status::from(error.cause());
                let refuse = PeerCommand::RefuseOpen(place.1, status, error.to_string().into());
                commands.push_or_stop(Command::Role(refuse));
            }
        }
    }
}

impl Node {
    pub(super) fn dialled(
        &mut self,
        now: Instant,
        session: SessionId,
        result: Result<TcpStream, String>,
    ) {
        let outcome = match (result, self.wishes.get_mut(&session)) {
            (Ok(tcp), Some(wish)) => {
                wish.dialled = Some(tcp);
                Ok(())
            }
            (Ok(_unwanted), None) => return,
            (Err(reason), _) => Err(reason),
        };
        self.dispatch.handle_direct(now, session, outcome);
    }

    pub(super) fn open(&mut self, now: Instant, request: OpenRequest, asked: Asked) {
        let known = request
            .association
            .filter(|id| !self.wishes.contains_key(id) && self.sessions.get(*id).is_none());
        let session = known.unwrap_or_else(|| self.draw_id());
        let (target, agent) = (request.target.clone(), request.agent);
        let is_forwarded = matches!(asked, Asked::Peer { .. });
        self.askers.insert(asked.asker(), session);
        self.wishes.insert(
            session,
            Wish {
                request,
                asked,
                dial: None,
                dialled: None,
            },
        );
        match is_forwarded {
            false => self.dispatch.open(now, session, target, agent),
            true => self.dispatch.open_forwarded(now, session, target, agent),
        }
    }

    /// Opens what a peer hands over, under the peer's id for it where that is free, so that both logs agree.
    pub(super) fn open_forwarded(&mut self, now: Instant, forwarded: Forwarded) {
        let Forwarded {
            place,
            forward,
            remote,
            commands,
        } = forwarded;
        let request = OpenRequest {
            association: Some(forward.session),
            target: forward.target,
            agent: forward.agent,
            user: forward.origin.parse().unwrap_or(remote),
            account: None,
            ingress: format!("peer {}", forward.from).into(),
        };
        self.open(now, request, Asked::Peer { place, commands });
    }

    /// Whoever asked for a session that is not open yet went away.
    pub(super) fn give_up(&mut self, now: Instant, asker: Asker) {
        if let Some(session) = self.askers.remove(&asker) {
            self.counters.given_up += 1;
            self.forget_wish(session);
            self.dispatch.cancel(now, session);
        }
    }

    fn draw_id(&mut self) -> SessionId {
        let mut bytes = [0; 16];
        self.ids.fill_bytes(&mut bytes);
        SessionId(Builder::from_random_bytes(bytes).into_uuid())
    }

    pub(super) fn dial_direct(&mut self, session: SessionId, target: Target) {
        let own = self.own.clone();
        let done = move |result: Result<TcpStream, DialError>| {
            let result = result.map_err(|error| error.to_string());
            own.push_or_stop(NodeInput::Dialled(session, result));
        };
        let policy = Arc::clone(&self.direct);
        let dial = self.dialler.dial(target, policy, Box::new(done));
        if let Some(wish) = self.wishes.get_mut(&session) {
            wish.dial = Some(dial);
        }
    }

    pub(super) fn committed(
        &mut self,
        now: Instant,
        session: SessionId,
        agent: Option<AgentId>,
        route: Carrier,
    ) {
        let Some(wish) = self.forget_wish(session) else {
            return;
        };
        let pending = match (route, wish.dialled) {
            (Carrier::Agent { conn, slot } | Carrier::Peer { conn, slot, .. }, _) => {
                let Some(sender) = self.connections.get(&conn) else {
                    return;
                };
                PendingSession::through_agent(
                    session,
                    slot,
                    sender.clone(),
                    self.own.clone(),
                    self.bounds,
                )
            }
            (Carrier::Direct, Some(tcp)) => {
                PendingSession::direct(session, tcp, self.own.clone(), self.bounds)
            }
            (Carrier::Direct, None) => return,
        };
        // The id was drawn here, and a place on a connection is never used twice.
        let entered = self
            .sessions
            .insert(now, session, route, wish.request.target.clone(), agent);
        debug_assert!(entered.is_ok(), "a session is entered once");
        self.users.insert(session, wish.request);
        self.counters.opened += 1;
        wish.asked.answer(Ok(pending));
    }

    pub(super) fn failed(&mut self, session: SessionId, error: OpenError) {
        if let Some(wish) = self.forget_wish(session) {
            self.counters.failed(error.cause());
            wish.asked.answer(Err(error));
        }
    }

    fn forget_wish(&mut self, session: SessionId) -> Option<Wish> {
        let wish = self.wishes.remove(&session)?;
        self.askers.remove(&wish.asked.asker());
        Some(wish)
    }
}
