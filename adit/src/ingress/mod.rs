//! Where users come in: TCP listeners whose connections become sessions.
//!
//! Each connection is a small task: it runs the handshake of its protocol, asks the gateway for a session, answers,
//! hands the socket over and ends.

pub mod answers;
mod establish;
mod forward;
mod http_connect;
mod listener;
mod socks5;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use adit_io_tokio::GatewayHandle;
use adit_proto_core::{gateway::OpenError, id::AgentId, target::Target};
use tokio::net::TcpStream;

use crate::config::Users;
use establish::Ended;

pub use listener::{IngressError, IngressListener};

/// One ingress as the configuration describes it.
#[derive(Clone, Debug)]
pub struct IngressConfig {
    /// Its name in logs and listings.
    pub name: Box<str>,
    /// TCP address to listen on.
    pub listen: SocketAddr,
    /// What is spoken there.
    pub protocol: Protocol,
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
    /// Users who left before their session was open.
    pub left: AtomicU64,
    /// Sessions that could not be opened.
    pub refused: AtomicU64,
    /// Sessions opened and handed over.
    pub opened: AtomicU64,
}

/// The listeners of all ingress configurations, in their order: `forward`, `socks5`, `http_connect`.
#[must_use]
pub fn configs(config: &crate::config::GatewayConfig) -> Vec<IngressConfig> {
    let handshakes_max = config.limits.ingress_handshakes.get() as usize;
    let one = |name: &str, listen, protocol| IngressConfig {
        name: name.into(),
        listen,
        protocol,
        handshakes_max,
    };
    let users = |p: &crate::config::ProxyConfig| p.users.clone().map(Arc::new);
    let forwards = config.forwards.iter().map(|f| {
        let (target, agent) = (f.target.clone(), f.agent);
        one(&f.name, f.listen, Protocol::Forward { target, agent })
    });
    let socks5 = config.socks5.iter();
    let socks5 = socks5.map(|p| one(&p.name, p.listen, Protocol::Socks5 { users: users(p) }));
    let http = config.http_connect.iter();
    let http = http.map(|p| one(&p.name, p.listen, Protocol::HttpConnect { users: users(p) }));
    forwards.chain(socks5).chain(http).collect()
}

/// What the tasks of one ingress share.
#[derive(Debug)]
struct Shared {
    name: Box<str>,
    protocol: Protocol,
    counters: Arc<Counters>,
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
        let mut target = None;
        let result = match &self.protocol {
            Protocol::Forward { target: to, agent } => {
                let wanted = forward::wanted(to, *agent);
                target = Some(to.clone());
                establish::Visit { shared: self, user }
                    .forward(stream, wanted, open)
                    .await
            }
            Protocol::Socks5 { users } => {
                let visit = establish::Visit { shared: self, user };
                socks5::serve(visit, stream, users.as_deref(), permit, &mut target, open).await
            }
            Protocol::HttpConnect { users } => {
                let visit = establish::Visit { shared: self, user };
                http_connect::serve(visit, stream, users.as_deref(), permit, &mut target, open)
                    .await
            }
        };
        match result {
            Ok(established) => {
                bump(&self.counters.opened);
                established
                    .session
                    .attach(established.stream, established.early);
            }
            Err(ended) => self.note(user, target.as_ref(), &ended),
        }
    }

    /// Counts a connection that became no session, and logs it in one line.
    fn note(&self, user: SocketAddr, target: Option<&Target>, ended: &Ended) {
        let counter = match ended {
            Ended::Handshake(_)
            | Ended::Socks5(_)
            | Ended::HandshakeIo(_)
            | Ended::HandshakeTimedOut => &self.counters.handshakes_failed,
            Ended::Unauthorised => &self.counters.unauthorised,
            Ended::UserLeft => &self.counters.left,
            Ended::Refused(_) => &self.counters.refused,
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
            | Ended::Refused(_) => {
                tracing::info!(%user, ingress, target, reason = %ended, "no session");
            }
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
        let shared = Shared {
            name: "web".into(),
            protocol: Protocol::HttpConnect { users: None },
            counters: Arc::default(),
        };
        let c = &shared.counters;
        let user = SocketAddr::from(([127, 0, 0, 1], 1));
        for (ended, counter) in [
            (Ended::Handshake("odd"), &c.handshakes_failed),
            (Ended::HandshakeTimedOut, &c.handshakes_failed),
            (Ended::Unauthorised, &c.unauthorised),
            (Ended::UserLeft, &c.left),
            (Ended::Refused(OpenError::NoRoute), &c.refused),
            (Ended::Refused(OpenError::Stopping), &c.refused),
        ] {
            let before = counter.load(Ordering::Relaxed);
            shared.note(user, None, &ended);
            assert_eq!(counter.load(Ordering::Relaxed), before + 1, "{ended}");
        }
    }
}
