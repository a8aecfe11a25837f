//! The role of one connection that carries sessions between gateways: facts to the gateway's node, commands from it.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use adit_proto_core::{
    close::CloseReason,
    connection::{Connection, ForwardHandle},
    gateway::dispatch::AgentEvent,
    id::{ConnId, Slot},
    output::Event,
    peer::{NodeId, event::PeerEvent, forward::Forward, forward::Status},
    session_timer::SessionBounds,
};
use bytes::Bytes;

use super::PeerCommand;
use crate::{
    commands::{Command, Commands},
    gateway::{Forwarded, FromConnection, FromPeers, GatewayHandle, PeerCarriage},
    over::Over,
    pump::Traffic,
};

/// One connection that carries forwarded sessions, at either end.
#[derive(Debug)]
pub(super) struct Forwarding {
    id: ConnId,
    gateway: GatewayHandle,
    /// The way to the connection itself.
    own: Commands<PeerCommand>,
    side: Side,
}

#[derive(Debug)]
enum Side {
    /// It was dialled here, and carries sessions of this gateway's users.
    Opener {
        /// It is to end with the sessions that it has.
        is_leaving: bool,
    },
    /// It carries sessions of the peer's users.
    Taker {
        /// The peer's address.
        remote: SocketAddr,
        /// Sessions that the node has not decided on.
        asked: BTreeSet<Slot>,
    },
}

impl Forwarding {
    /// The connection is up, with that node at the other end.
    pub(super) fn begin(
        conn: &mut Connection,
        gateway: &GatewayHandle,
        own: &Commands<PeerCommand>,
        (local, peer): (NodeId, NodeId),
    ) -> Self {
        let (id, gateway, own) = (conn.id(), gateway.clone(), own.clone());
        let remote = SocketAddr::new(conn.remote().ip().to_canonical(), conn.remote().port());
        let is_dialler = conn
            .as_forward()
            .is_some_and(|forward| forward.is_dialler());
        let side = match is_dialler {
            true => {
                let carriage = PeerCarriage {
                    from: local,
                    to: peer,
                    commands: own.clone(),
                };
                gateway.told_by_peers(FromPeers::Connected(id, carriage));
                Side::Opener { is_leaving: false }
            }
            false => {
                let asked = BTreeSet::new();
                Side::Taker { remote, asked }
            }
        };
        Self {
            id,
            gateway,
            own,
            side,
        }
    }

    fn tell(&self, what: FromConnection) {
        self.gateway.told_by_connection(self.id, what);
    }

    pub(super) fn on_event(&mut self, event: &Event) {
        let told = match event {
            Event::SessionOpened { attempt, slot } => AgentEvent::Opened {
                attempt: *attempt,
                slot: *slot,
            },
            Event::SessionRefused { attempt, cause } => AgentEvent::Failed {
                attempt: *attempt,
                cause: cause.clone(),
            },
            Event::SessionEnded { slot, .. } => {
                self.given_up(*slot);
                AgentEvent::SessionEnded { slot: *slot }
            }
            Event::PathSuspect => AgentEvent::Suspect,
            // The gateway would give it sessions again.
            Event::PathRecovered if self.is_leaving() => return,
            Event::PathRecovered => AgentEvent::Recovered,
            Event::Closed(_) => {
                self.all_given_up();
                AgentEvent::Closed
            }
            Event::Peer(PeerEvent::ForwardRequested { slot, forward }) => {
                return self.requested(*slot, forward.clone());
            }
            // The task's own, or of connections of other roles.
            Event::Established { .. }
            | Event::RoutesAccepted { .. }
            | Event::Seen
            | Event::SessionRequested { .. }
            | Event::SessionReadable(_)
            | Event::SessionWritable(_)
            | Event::SessionRest { .. }
            | Event::RenewalRequested { .. }
            | Event::RenewalAnswered(_)
            | Event::Peer(_) => return,
        };
        // The node knows none of the connections that peers dialled: it has their sessions' other ends.
        if let Side::Opener { .. } = self.side {
            self.tell(FromConnection::Event(told));
        }
    }

    fn is_leaving(&self) -> bool {
        matches!(self.side, Side::Opener { is_leaving: true })
    }

    fn requested(&mut self, slot: Slot, forward: Box<Forward>) {
        let Side::Taker { remote, asked } = &mut self.side else {
            return;
        };
        asked.insert(slot);
        let forwarded = Forwarded {
            place: (self.id, slot),
            forward,
            remote: *remote,
            commands: self.own.clone(),
        };
        (self.gateway).told_by_peers(FromPeers::Forwarded(forwarded));
    }

    /// The peer waits for a session no more, where it did.
    fn given_up(&mut self, slot: Slot) {
        if let Side::Taker { asked, .. } = &mut self.side
            && asked.remove(&slot)
        {
            (self.gateway).told_by_peers(FromPeers::GivenUp((self.id, slot)));
        }
    }

    fn all_given_up(&mut self) {
        if let Side::Taker { asked, .. } = &mut self.side {
            for slot in std::mem::take(asked) {
                (self.gateway).told_by_peers(FromPeers::GivenUp((self.id, slot)));
            }
        }
    }

    pub(super) fn on_command(
        &mut self,
        now: Instant,
        mut forward: ForwardHandle<'_>,
        command: PeerCommand,
    ) {
        match command {
            PeerCommand::Open(attempt, wanted) => forward.open_session(now, attempt, *wanted),
            PeerCommand::CancelOpen(attempt) => forward.cancel(attempt),
            PeerCommand::Accept(slot, pipe) => {
                self.decided(slot);
                // One that has ended meanwhile drops the pipe, and so resets the session with the agent.
                if forward.accept(slot).is_ok() {
                    // Through the queue, as it is the driver that owns the sockets. The time of the session is judged
                    // at the agent's end of the pipe.
                    let bounds = SessionBounds::default();
                    let attach = Command::Attach(slot, pipe, Bytes::new(), bounds);
                    let _ended = self.own.push(attach);
                }
            }
            PeerCommand::RefuseOpen(slot, status, reason) => {
                self.decided(slot);
                // One that has ended meanwhile needs no answer.
                let _ended = forward.refuse(slot, status, &reason);
            }
            PeerCommand::Drain(Duration::ZERO) => {
                self.own
                    .push_or_stop(Command::Close(CloseReason::NodeStopping));
            }
            PeerCommand::Drain(_) => {
                if let Side::Opener { is_leaving } = &mut self.side {
                    *is_leaving = true;
                }
                forward.drain();
            }
            // Of calls.
            PeerCommand::Reconsider(_)
            | PeerCommand::Call { .. }
            | PeerCommand::Cancel(_)
            | PeerCommand::Answer(..)
            | PeerCommand::Fail(_)
            | PeerCommand::Refuse(..) => {}
        }
    }

    fn decided(&mut self, slot: Slot) {
        if let Side::Taker { asked, .. } = &mut self.side {
            asked.remove(&slot);
        }
    }

    /// What a peer's sessions move is counted where they leave to the agent.
    pub(super) fn on_moved(&self, sent: u64, received: u64) {
        if let Side::Opener { .. } = self.side {
            self.gateway.moved(sent, received);
        }
    }

    pub(super) fn on_flushing(&self, slots: BTreeSet<Slot>) {
        if let Side::Opener { .. } = self.side
            && !slots.is_empty()
        {
            self.tell(FromConnection::Flushing(slots));
        }
    }

    pub(super) fn on_session_over(&self, slot: Slot, traffic: Traffic, how: Over) {
        if let Side::Opener { .. } = self.side {
            self.tell(FromConnection::SessionOver { slot, traffic, how });
        }
    }
}

/// Refuses sessions that a peer hands over where there is no gateway for them.
pub(super) fn refuse(conn: &mut Connection, slot: Slot) {
    if let Some(mut forward) = conn.as_forward() {
        // One that has ended meanwhile needs no answer.
        let _ended = forward.refuse(slot, Status::Denied, "this node takes no sessions");
    }
}
