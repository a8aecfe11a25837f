//! Sessions of this gateway's users that go to a peer.

use std::{io, net::SocketAddr, sync::Arc};

use adit_io_common::{
    gateway::{Bytes as Moved, GatewayHandle, Place},
    over::Over,
    pump::Traffic,
    replica::{CONNECT_TIMEOUT, Link, LinkError, Replica},
};
use adit_proto_core::{
    gateway::AttemptError,
    id::AttemptId,
    limits::{FORWARD_HEADER_TIMEOUT, OPEN_TIMEOUT},
    peer::forward::{Answer, Forward},
    replica::ReplicaId,
    target::{Host, Target},
};
use tokio::{net::lookup_host, sync::Semaphore, time::timeout};

use super::{
    counters::Counters,
    link::{self, LinkLeg, hear, say},
    report::Report,
    session::{Controls, Word, carry},
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

/// Why there is no link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoLink {
    /// Nobody answered at the peer's addresses, or not as the peer would.
    Unreached,
    /// This machine could not even try: that says nothing of the peer.
    Untried,
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
    /// Opens it, carries it, and tells the gateway of both.
    pub(super) async fn run(self, mut controls: Controls) {
        let mut report = Report::new(self.gateway.clone(), self.place, self.attempt);
        let opened = tokio::select! {
            biased;
            _given_up = controls.ended() => Err(AttemptError::PeerLost),
            opened = timeout(OPEN_TIMEOUT, self.open()) => opened.unwrap_or(Err(AttemptError::TimedOut)),
        };
        match opened {
            Ok(leg) => {
                report.opened();
                let (traffic, how) = self.attached(leg, &mut controls).await;
                report.over(traffic, how);
            }
            Err(cause) => report.failed(cause),
        }
    }

    async fn open(&self) -> Result<LinkLeg, AttemptError> {
        let lost = |_| AttemptError::PeerLost;
        let permit = self.way.handshakes.acquire().await;
        let mut dialling = self.counters.dialling();
        let dialled = self.way.dial().await;
        dialling.is_there = dialled.is_ok();
        drop((permit, dialling));
        let mut leg = dialled.map_err(|_| AttemptError::PeerLost)?;
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
                Err(AttemptError::PeerLost)
            }
        }
    }

    /// Waits for the user's socket, and carries the session to its end. A socket that comes behind an end is reset.
    async fn attached(&self, leg: LinkLeg, controls: &mut Controls) -> (Traffic, Over) {
        match controls.word().await {
            Ok(Word::Attach(socket, early, bounds)) => {
                let moved = |sent, received| {
                    self.gateway.moved(sent, received);
                    self.moved.add(sent, received);
                };
                carry(socket, early, bounds, leg, controls, moved).await
            }
            Ok(Word::Accept(_) | Word::Refuse(..)) => (Traffic::begin(), Over::Cut),
            Err(how) => (Traffic::begin(), how),
        }
    }
}

impl Way {
    /// Dials the peer's addresses one after the other, and proves to each other who both are. Why there is no link is in
    /// the log.
    pub(super) async fn dial(&self) -> Result<LinkLeg, NoLink> {
        // Nothing was heard of the peer before one of its addresses was tried.
        let mut no_link = NoLink::Untried;
        for addr in self.addresses().await {
            match replica::dial(&self.replica, addr, self.peer).await {
                Ok(link) => return self.register(link),
                Err(error) if error.is_local() => {}
                Err(_) => no_link = NoLink::Unreached,
            }
        }
        Err(no_link)
    }

    /// Looks whether a link reaches the peer, and ends it at once.
    pub(super) async fn probe(&self) -> Result<(), NoLink> {
        let mut leg = self.dial().await?;
        // It is there, whether it hears of the end or not.
        let _heard = timeout(FORWARD_HEADER_TIMEOUT, link::finish(&mut leg)).await;
        Ok(())
    }

    fn register(&self, link: Link) -> Result<LinkLeg, NoLink> {
        link::register(link).map_err(|error| {
            tracing::warn!(replica = %self.peer, %error, "a link's socket cannot be used; the link is given up");
            NoLink::Untried
        })
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
                let error = LinkError::Unknown(error);
                (self.replica).tell_unconnected(&self.address, self.peer, error);
                Vec::new()
            }
        }
    }
}

/// Addresses of one name that are dialled.
const ADDRESSES_MAX: usize = 4;
