//! The role of one connection between peers: facts to the owner, requests to the application.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use adit_proto_core::{
    close::CloseReason,
    connection::{CommandError, Connection, PeerStanding},
    id::{AttemptId, CallId, ConnId, Slot},
    limits::RPC_CALLS_PER_CONNECTION,
    output::Event,
    peer::{
        NodeId,
        event::PeerEvent,
        forward::{Forward, Status},
        rpc_type::RpcType,
    },
};
use bytes::Bytes;

use super::{
    PeersInput, Request, Responder,
    forward::{self, Forwarding},
    shares::Shares,
};
use crate::{
    commands::Commands, connection::Role, gateway::GatewayHandle, handoff::Sender, over::Over,
    pump::Traffic, socket::Carried,
};

/// What is asked of a connection between peers.
#[derive(Debug)]
pub enum PeerCommand {
    /// Make a call.
    Call {
        /// Its name.
        call: CallId,
        /// What is asked.
        kind: RpcType,
        /// The body.
        payload: Bytes,
    },
    /// Give a call up.
    Cancel(CallId),
    /// Answer a request.
    Answer(Slot, Bytes),
    /// Do not answer a request.
    Fail(Slot),
    /// Refuse a request that was not executed; it may come again after that time.
    Refuse(Slot, Duration),
    /// Take nothing new, let what runs have so long, and close. Forwarded sessions have for ever, but for no time at all.
    Drain(Duration),
    /// Go by these records: a node that they do not have has no access any more.
    Reconsider(PeerStanding),
    /// Hand a session over.
    Open(AttemptId, Box<Forward>),
    /// Give that attempt up.
    CancelOpen(AttemptId),
    /// A session that the peer hands over is open; this is its other end.
    Accept(Slot, Carried),
    /// A session that the peer hands over is not opened.
    RefuseOpen(Slot, Status, Box<str>),
}

/// What the roles of all connections are made of.
#[derive(Clone, Debug)]
pub struct PeerParts {
    pub(super) owner: Sender<PeersInput>,
    pub(super) requests: Sender<Request>,
    pub(super) shares: Shares,
    /// This node, and the gateway that it is: for sessions that are forwarded.
    pub(super) gateway: Option<(NodeId, GatewayHandle)>,
}

impl PeerParts {
    /// The role of a connection; `own` is the way to it.
    #[must_use]
    pub fn role(&self, conn: &Connection, own: Commands<PeerCommand>) -> PeerConnection {
        PeerConnection {
            id: conn.id(),
            parts: self.clone(),
            own,
            caller: None,
            asked: BTreeSet::new(),
            forwarding: None,
        }
    }
}

/// One connection between peers.
#[derive(Debug)]
pub struct PeerConnection {
    id: ConnId,
    parts: PeerParts,
    /// The way to itself, for answers.
    own: Commands<PeerCommand>,
    /// Who asks on it.
    caller: Option<NodeId>,
    /// Requests that the application has, or that wait for it, whether or not anybody waits for their answers.
    asked: BTreeSet<Slot>,
    /// It carries sessions.
    forwarding: Option<Forwarding>,
}

impl PeerConnection {
    fn tell(&self, input: PeersInput) {
        self.parts.owner.push_or_stop(input);
    }

    /// The application has let go of a request.
    fn heed(&mut self, command: &PeerCommand) {
        if let PeerCommand::Answer(slot, _)
        | PeerCommand::Fail(slot)
        | PeerCommand::Refuse(slot, _) = command
        {
            self.asked.remove(slot);
        }
    }

    fn requested(&mut self, slot: Slot, mut request: Request) {
        if self.caller.is_none() {
            self.caller = Some(request.from);
            self.tell(PeersInput::Caller(self.id, request.from));
        }
        // Whoever gives its requests up makes room on the connection, and none in the application's queue: what finds no
        // place is dropped, and so refused.
        if self.asked.len() >= RPC_CALLS_PER_CONNECTION {
            return;
        }
        let Some(share) = self.parts.shares.take(request.from) else {
            return;
        };
        request.responder.hold(share);
        self.asked.insert(slot);
        if request.kind == RpcType::Catalogue {
            return self.tell(PeersInput::Told(request));
        }
        let _refused = self.parts.requests.push(request);
    }
}

impl Role for PeerConnection {
    type Command = PeerCommand;

    fn on_event(&mut self, _now: Instant, conn: &mut Connection, event: Event) {
        match (&event, &self.parts.gateway) {
            (Event::Peer(PeerEvent::ForwardUp { node, .. }), Some((local, gateway))) => {
                let nodes = (*local, *node);
                self.forwarding = Some(Forwarding::begin(conn, gateway, &self.own, nodes));
            }
            (Event::Peer(PeerEvent::ForwardRequested { slot, .. }), None) => {
                return forward::refuse(conn, *slot);
            }
            _ => {}
        }
        if let Some(forwarding) = &mut self.forwarding {
            forwarding.on_event(&event);
        }
        if let Event::Peer(PeerEvent::Requested {
            slot,
            from,
            accepted: _,
            kind,
            payload,
            interest,
        }) = event
        {
            let responder = Responder::new(slot, self.own.clone());
            let request = Request {
                from,
                kind,
                payload,
                interest,
                responder,
            };
            return self.requested(slot, request);
        }
        self.tell(PeersInput::Event(self.id, event));
    }

    fn on_command(&mut self, now: Instant, conn: &mut Connection, command: PeerCommand) {
        if let PeerCommand::Reconsider(standing) = &command {
            return conn.reconsider(now, standing);
        }
        self.heed(&command);
        if let (Some(forwarding), Some(forward)) = (&mut self.forwarding, conn.as_forward()) {
            return forwarding.on_command(now, forward, command);
        }
        let Some(mut peer) = conn.as_peer() else {
            // Of a connection for sessions that carries none: there is no gateway, or it has come up a moment ago.
            if let PeerCommand::Drain(_) = command {
                conn.close(now, &CloseReason::NodeStopping);
            }
            return;
        };
        // Where an answer comes too late, nobody waits for it.
        let _late = match command {
            PeerCommand::Call {
                call,
                kind,
                payload,
            } => {
                if let Err(refused) = peer.call(now, call, kind, payload) {
                    self.tell(PeersInput::Refused(self.id, call, refused));
                }
                Ok(())
            }
            PeerCommand::Cancel(call) => {
                peer.cancel(call);
                Ok(())
            }
            PeerCommand::Answer(slot, payload) => match peer.answer(now, slot, payload) {
                Err(CommandError::TooLarge) => peer.fail(slot),
                answered => answered,
            },
            PeerCommand::Fail(slot) => peer.fail(slot),
            PeerCommand::Refuse(slot, after) => peer.refuse(now, slot, after),
            PeerCommand::Drain(grace) => {
                peer.drain(now, grace);
                Ok(())
            }
            // Of the connection, and of sessions.
            PeerCommand::Reconsider(_)
            | PeerCommand::Open(..)
            | PeerCommand::CancelOpen(_)
            | PeerCommand::Accept(..)
            | PeerCommand::RefuseOpen(..) => Ok(()),
        };
    }

    fn on_abandoned(&mut self) {
        self.tell(PeersInput::Abandoned(self.id));
    }

    // Calls are no sessions: nothing of them has a socket.

    fn on_moved(&self, sent: u64, received: u64) {
        if let Some(forwarding) = &self.forwarding {
            forwarding.on_moved(sent, received);
        }
    }

    fn on_flushing(&mut self, slots: BTreeSet<Slot>) {
        if let Some(forwarding) = &self.forwarding {
            forwarding.on_flushing(slots);
        }
    }

    fn on_session_over(&mut self, slot: Slot, traffic: Traffic, how: Over) {
        if let Some(forwarding) = &self.forwarding {
            forwarding.on_session_over(slot, traffic, how);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        task::{Context, Poll, Waker},
    };

    use adit_proto_core::peer::interest::Interest;

    use super::*;
    use crate::{
        commands::Command,
        handoff::{Receiver, handoff},
        peers::{
            REQUESTS_PER_NODE,
            request::{Requests, requests},
        },
    };

    type Told = Receiver<(ConnId, Command<PeerCommand>)>;

    fn ask(conn: &mut PeerConnection, slot: u64) {
        let request = Request {
            from: NodeId(2),
            kind: RpcType::Ping,
            payload: Bytes::new(),
            interest: Interest::default(),
            responder: Responder::new(Slot(slot), conn.own.clone()),
        };
        conn.requested(Slot(slot), request);
    }

    /// Which requests were refused.
    fn refused(commands: &Told) -> Vec<u64> {
        let mut batch = VecDeque::new();
        let _taken = commands.poll_take(&Context::from_waker(Waker::noop()), &mut batch);
        let of = |(_, command)| {
            let Command::Role(PeerCommand::Refuse(Slot(slot), _)) = command else {
                panic!("no refusal");
            };
            slot
        };
        batch.into_iter().map(of).collect()
    }

    fn connection(
        parts: PeerParts,
        own: &Sender<(ConnId, Command<PeerCommand>)>,
    ) -> PeerConnection {
        PeerConnection {
            id: ConnId(1),
            parts,
            own: Commands::Shared(ConnId(1), own.clone()),
            caller: None,
            asked: BTreeSet::new(),
            forwarding: None,
        }
    }

    fn parts(requests: Sender<Request>) -> PeerParts {
        let (owner, _inputs) = handoff(8);
        PeerParts {
            owner,
            requests,
            shares: Shares::default(),
            gateway: None,
        }
    }

    /// The application takes the next request, and lets go of it.
    fn take(requests: &mut Requests) {
        let taken = requests.poll_next(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(taken, Poll::Ready(Some(_))));
    }

    #[test]
    fn one_connection_does_not_fill_the_applications_queue() {
        let (own, commands) = handoff(8);
        let (asked, _end, _requests) = requests();
        let mut conn = connection(parts(asked), &own);
        let last = RPC_CALLS_PER_CONNECTION as u64;
        for slot in 0..=last {
            ask(&mut conn, slot);
        }
        // Its callers have given all of them up meanwhile; the application has not.
        assert_eq!(refused(&commands), [last]);
        conn.heed(&PeerCommand::Fail(Slot(7)));
        ask(&mut conn, last + 1);
        ask(&mut conn, last + 2);
        assert_eq!(refused(&commands), [last + 2]);
    }

    #[test]
    fn the_part_of_a_node_lasts_as_long_as_its_requests() {
        let (own, _commands) = handoff(8);
        let (asked, _end, mut requests) = requests();
        let parts = parts(asked);
        for slot in 0..REQUESTS_PER_NODE as u64 {
            // Each on a connection that is over at once.
            ask(&mut connection(parts.clone(), &own), slot);
        }
        let further = || {
            let (own, commands) = handoff(8);
            ask(&mut connection(parts.clone(), &own), 77);
            refused(&commands)
        };
        assert_eq!(further(), [77], "the application has all of the others");
        take(&mut requests);
        assert!(further().is_empty());
    }
}
