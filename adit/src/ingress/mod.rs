//! Where users come in: TCP listeners whose connections become sessions.
//!
//! Each connection is a small task: it runs the handshake of its protocol, asks the gateway for a session, answers,
//! hands the socket over and ends.

pub mod answers;
mod establish;
mod forward;
mod http_connect;
mod listener;
mod proxy_protocol;
mod socks5;
pub mod websocket;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use adit_io_common::{gateway::GatewayHandle, lines::Lines};
use adit_proto_core::{gateway::OpenError, id::AgentId, target::Target};
use bytes::BytesMut;
use tokio::net::TcpStream;

use crate::config::{Entrance, Users};
use establish::Ended;

pub use listener::{IngressError, IngressListener, LiveIngress};
pub(crate) use proxy_protocol::header as proxy_header;

/// One ingress as the configuration describes it.
#[derive(Clone, Debug)]
pub struct IngressConfig {
    /// Its name in logs and listings.
    pub name: Box<str>,
    /// TCP address to listen on.
    pub listen: SocketAddr,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Who may come in, and what targets are told of them.
    pub entrance: Entrance,
    /// Handshakes in progress at a time; more connections wait in the backlog.
    pub handshakes_max: usize,
}

/// What an ingress speaks.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// Nothing: every connection goes to one target.
    Forward {
        /// That target.
        target: Target,
        /// The agent that must carry it; none: the routing table decides.
        agent: Option<AgentId>,
    },
    /// SOCKS5 (RFC 1928, 1929).
    Socks5 {
        /// Who may use it; none: everybody who reaches it.
        users: Option<Arc<Users>>,
    },
    /// HTTP CONNECT (RFC 9110 section 9.3.6).
    HttpConnect {
        /// Who may use it; none: everybody who reaches it.
        users: Option<Arc<Users>>,
    },
}

/// What has happened at one ingress since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Accepts that failed; the process was out of descriptors or memory.
    pub accept_failed: AtomicU64,
    /// Times that the limit of handshakes in progress made users wait.
    pub handshakes_full: AtomicU64,
    /// Connections closed because their source held its share of handshakes in progress.
    pub share_full: AtomicU64,
    /// Handshakes that broke the protocol, broke off or took too long.
    pub handshakes_failed: AtomicU64,
    /// Users without or with wrong credentials.
    pub unauthorised: AtomicU64,
    /// Connections from addresses that may not use the ingress.
    pub source_refused: AtomicU64,
    /// Sessions refused because their user may not open the target.
    pub not_allowed: AtomicU64,
    /// Users who left before their session was open.
    pub left: AtomicU64,
    /// Sessions that could not be opened.
    pub refused: AtomicU64,
    /// Sessions opened and handed over.
    pub opened: AtomicU64,
    /// Bounds the lines of what anybody can cause, each kind by itself.
    lines: NoSession,
}

/// Bounds the lines about connections that became no session.
#[derive(Debug)]
struct NoSession {
    handshakes: Lines,
    unauthorised: Lines,
    refused: Lines,
}

impl Default for NoSession {
    fn default() -> Self {
        Self {
            handshakes: Lines::new("no session: handshake"),
            unauthorised: Lines::new("no session: credentials"),
            refused: Lines::new("no session"),
        }
    }
}

/// The listeners of all ingress configurations, in their order: `forward`, `socks5`, `http_connect`.
#[must_use]
pub fn configs(config: &crate::config::GatewayConfig) -> Vec<IngressConfig> {
    let handshakes_max = config.limits.ingress_handshakes.get() as usize;
    let one = |name: &str, listen, entrance: &Entrance, protocol| IngressConfig {
        name: name.into(),
        listen,
        protocol,
        entrance: entrance.clone(),
        handshakes_max,
    };
    let users = |p: &crate::config::ProxyConfig| p.users.clone().map(Arc::new);
    let forwards = config.forwards.iter().map(|f| {
        let (target, agent) = (f.target.clone(), f.agent);
        let protocol = Protocol::Forward { target, agent };
        one(&f.name, f.listen, &f.entrance, protocol)
    });
    let socks5 = config.socks5.iter().map(|p| {
        let protocol = Protocol::Socks5 { users: users(p) };
        one(&p.name, p.listen, &p.entrance, protocol)
    });
    let http = config.http_connect.iter().map(|p| {
        let protocol = Protocol::HttpConnect { users: users(p) };
        one(&p.name, p.listen, &p.entrance, protocol)
    });
    forwards.chain(socks5).chain(http).collect()
}

/// What all ways in have.
#[derive(Debug)]
struct Door {
    name: Box<str>,
    counters: Arc<Counters>,
}

/// What the tasks of one ingress share.
#[derive(Debug)]
struct Shared {
    door: Door,
    entrance: Entrance,
    protocol: Protocol,
}

impl Shared {
    /// Takes one connection from its first byte to the hand-over, and says how it ended.
    async fn serve(
        &self,
        stream: TcpStream,
        user: SocketAddr,
        permit: establish::Permit,
        gateway: GatewayHandle,
    ) {
        let open = async |request| gateway.open(request).await;
        let door = &self.door;
        let visit = establish::Visit { door, user };
        // What the user connected to; the socket forgets it when the user resets the connection.
        let local = stream.local_addr().ok();
        let mut target = None;
        let result = match &self.protocol {
            Protocol::Forward { target: to, agent } => {
                let wanted = forward::wanted(to, *agent);
                target = Some(to.clone());
                visit.forward(stream, wanted, open).await
            }
            Protocol::Socks5 { users } => {
                socks5::serve(visit, stream, users.as_deref(), permit, &mut target, open).await
            }
            Protocol::HttpConnect { users } => {
                http_connect::serve(visit, stream, users.as_deref(), permit, &mut target, open)
                    .await
            }
        };
        match result {
            Ok(established) => {
                bump(&door.counters.opened);
                let mut first = BytesMut::from(self.entrance.preface(user, local));
                first.extend_from_slice(&established.early);
                match adit_io_tokio::socket(established.stream) {
                    Ok(socket) => established.session.attach(socket, first.freeze()),
                    Err(error) => {
                        tracing::warn!(%user, %error, "a user's socket cannot be handed over; the session is ended");
                    }
                }
            }
            Err(ended) => door.note(user, target.as_ref(), &ended),
        }
    }
}

impl Door {
    /// Counts a connection that became no session, and logs it in one line.
    fn note(&self, user: SocketAddr, target: Option<&Target>, ended: &Ended) {
        let (all, lines) = (&self.counters, &self.counters.lines);
        let (counter, lines) = match ended {
            Ended::Handshake(_)
            | Ended::Socks5(_)
            | Ended::HandshakeIo(_)
            | Ended::HandshakeTimedOut => (&all.handshakes_failed, &lines.handshakes),
            Ended::Unauthorised => (&all.unauthorised, &lines.unauthorised),
            Ended::NotAllowed(_) => (&all.not_allowed, &lines.refused),
            Ended::UserLeft => (&all.left, &lines.refused),
            Ended::Refused(_) => (&all.refused, &lines.refused),
        };
        bump(counter);
        let target = target.map_or_else(|| "-".to_owned(), ToString::to_string);
        let ingress = &*self.name;
        match ended {
            Ended::Refused(OpenError::Stopping) | Ended::UserLeft => {
                tracing::debug!(%user, ingress, target, reason = %ended, "no session");
            }
            Ended::Handshake(_)
            | Ended::Socks5(_)
            | Ended::HandshakeIo(_)
            | Ended::HandshakeTimedOut
            | Ended::Unauthorised
            | Ended::NotAllowed(_)
            | Ended::Refused(_)
                if lines.allow() =>
            {
                tracing::info!(%user, ingress, target, reason = %ended, "no session");
            }
            // Told in one line, with how many there were.
            Ended::Handshake(_)
            | Ended::Socks5(_)
            | Ended::HandshakeIo(_)
            | Ended::HandshakeTimedOut
            | Ended::Unauthorised
            | Ended::NotAllowed(_)
            | Ended::Refused(_) => {}
        }
    }
}

fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_counter() {
        let door = Door {
            name: "web".into(),
            counters: Arc::default(),
        };
        let c = &door.counters;
        let user = SocketAddr::from(([127, 0, 0, 1], 1));
        for (ended, counter) in [
            (Ended::Handshake("odd"), &c.handshakes_failed),
            (Ended::HandshakeTimedOut, &c.handshakes_failed),
            (Ended::Unauthorised, &c.unauthorised),
            (Ended::NotAllowed("alice".into()), &c.not_allowed),
            (Ended::UserLeft, &c.left),
            (Ended::Refused(OpenError::NoRoute), &c.refused),
            (Ended::Refused(OpenError::Stopping), &c.refused),
        ] {
            let before = counter.load(Ordering::Relaxed);
            door.note(user, None, &ended);
            assert_eq!(counter.load(Ordering::Relaxed), before + 1, "{ended}");
        }
    }
}
