//! Sessions of this gateway's users that go to a peer.

use std::{io, net::SocketAddr, sync::Arc};

use adit_io_common::{
    gateway::{Bytes as Moved, FromConnection, GatewayHandle, Place},
    over::Over,
    pump::Traffic,
    replica::{CONNECT_TIMEOUT, Replica},
};
use adit_proto_core::{
    gateway::{AttemptError, dispatch::AgentEvent},
    id::AttemptId,
    limits::OPEN_TIMEOUT,
    peer::forward::{Answer, Forward},
    replica::ReplicaId,
    target::{Host, Target},
};
use tokio::{net::lookup_host, sync::Semaphore, time::timeout};

use super::{
    counters::Counters,
    link::{self, LinkLeg, hear, say},
    session::{Control, Controls, carry, ended},
};
use crate::replica;

/// The way to one peer, as a session's task needs it.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) replica: Replica,
    pub(super) peer: ReplicaId,
    pub(super) address: Target,
    /// Handshakes with the peer at once; those beyond it wait.
    pub(super) handshakes: Arc<Semaphore>,
}

/// One session, from the wish for it to its end.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) gateway: GatewayHandle,
    pub(super) place: Place,
    pub(super) attempt: AttemptId,
    pub(super) forward: Box<Forward>,
    pub(super) way: Way,
    /// Counts this session's bytes.
    pub(super) moved: Arc<Moved>,
    pub(super) counters: Arc<Counters>,
}

impl Opening {
    /// Opens it, carries it, and tells the gateway of both. One that is given up is told of no more.
    pub(super) async fn run(self, mut controls: Controls) {
        let opened = tokio::select! {
            biased;
            _given_up = ended(&mut controls) => return,
            opened = timeout(OPEN_TIMEOUT, self.open()) => opened.unwrap_or(Err(AttemptError::TimedOut)),
        };
        let (attempt, slot) = (self.attempt, self.place.1);
        let leg = match opened {
            Ok(leg) => leg,
            Err(cause) => return self.tell_event(AgentEvent::Failed { attempt, cause }),
        };
        self.tell_event(AgentEvent::Opened { attempt, slot });
        if let Some((traffic, how)) = self.attached(leg, &mut controls).await {
            self.tell(FromConnection::SessionOver { slot, traffic, how });
        }
        self.tell_event(AgentEvent::SessionEnded { slot });
    }

    async fn open(&self) -> Result<LinkLeg, AttemptError> {
        let lost = |_| AttemptError::ConnectionLost;
        let permit = self.way.handshakes.acquire().await;
        let dialled = self.way.dial().await;
        drop(permit);
        self.counters.dialled(dialled.is_ok());
        let mut leg = dialled?;
        say(&mut leg, &self.forward.to_record())
            .await
            .map_err(lost)?;
        let record = hear(&mut leg).await.map_err(lost)?;
        match Answer::from_record(&record) {
            Ok(answer) => match AttemptError::of_peer(&answer) {
                None => Ok(leg),
                Some(cause) => Err(cause),
            },
            Err(error) => {
                tracing::debug!(peer = %self.forward.to, %error, "a peer's answer to a forwarded session is not taken");
                Err(AttemptError::ConnectionLost)
            }
        }
    }

    /// Waits for the user's socket, and carries the session to its end. None where there was never one.
    async fn attached(&self, leg: LinkLeg, controls: &mut Controls) -> Option<(Traffic, Over)> {
        match controls.recv().await {
            Some(Control::Attach(socket, early, bounds)) => {
                let moved = |sent, received| {
                    self.gateway.moved(sent, received);
                    self.moved.add(sent, received);
                };
                Some(carry(socket, early, bounds, leg, controls, moved).await)
            }
            Some(Control::End(_) | Control::Accept(_) | Control::Refuse(..)) | None => {
                // The user's socket may be on its way; behind this the owner is told that nobody takes it.
                controls.close();
                let is_coming = matches!(controls.try_recv(), Ok(Control::Attach(..)));
                is_coming.then(|| (Traffic::begin(), Over::ConnectionLost))
            }
        }
    }

    fn tell(&self, what: FromConnection) {
        self.gateway.told_by_connection(self.place.0, what);
    }

    fn tell_event(&self, event: AgentEvent) {
        self.tell(FromConnection::Event(event));
    }
}

impl Way {
    /// Dials the peer's addresses one after the other, and proves to each other who both are. Why there is no link is in
    /// the log.
    pub(super) async fn dial(&self) -> Result<LinkLeg, AttemptError> {
        for addr in self.addresses().await {
            if let Ok(link) = replica::dial(&self.replica, addr, self.peer).await {
                return link::register(link).map_err(|_| AttemptError::ConnectionLost);
            }
        }
        Err(AttemptError::ConnectionLost)
    }

    async fn addresses(&self) -> Vec<SocketAddr> {
        let port = self.address.port;
        let name = match &self.address.host {
            Host::Ip(ip) => return vec![(*ip, port).into()],
            Host::Name(name) => name.to_string(),
        };
        let found = timeout(CONNECT_TIMEOUT, lookup_host((name, port))).await;
        let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match found {
            Ok(found) => found.take(ADDRESSES_MAX).collect(),
            Err(error) => {
                tracing::debug!(address = %self.address, %error, "the name of a replica is not known");
                Vec::new()
            }
        }
    }
}

/// Addresses of one name that are dialled.
const ADDRESSES_MAX: usize = 4;
