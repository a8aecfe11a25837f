//! A TCP listener that survives bursts, slow users and the lack of descriptors.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use adit_io_common::{gateway::GatewayHandle, lines::Lines, tcp::tune};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};

use super::{Counters, Door, IngressConfig, Protocol, Shared, bump, establish::Permit};
use crate::{live::Live, share::Shares};

/// An ingress cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("ingress `{name}` cannot listen on {listen}: {cause}{}", advice(.cause))]
pub struct IngressError {
    /// Its name.
    pub name: Box<str>,
    /// The address.
    pub listen: SocketAddr,
    /// What the system says.
    #[source]
    pub cause: io::Error,
}

/// A bound ingress that does not accept yet: bind all of them before anything else starts.
#[derive(Debug)]
pub struct IngressListener {
    listener: TcpListener,
    door: Arc<LiveIngress>,
}

/// What an ingress goes by, and may be told anew while it accepts.
#[derive(Debug)]
pub struct LiveIngress {
    name: Box<str>,
    counters: Arc<Counters>,
    rules: Live<Rules>,
    told: Told,
}

/// Bounds the lines that users can cause at will.
#[derive(Debug)]
struct Told {
    accept: Lines,
    full: Lines,
    greedy: Lines,
    strange: Lines,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            accept: Lines::new(ACCEPT_FAILS),
            full: Lines::new(FULL),
            greedy: Lines::new(GREEDY),
            strange: Lines::new(STRANGE),
        }
    }
}

#[derive(Debug)]
struct Rules {
    handshakes: Arc<Semaphore>,
    handshakes_max: usize,
    shares: Shares,
    shared: Arc<Shared>,
}

impl LiveIngress {
    fn new(config: IngressConfig) -> Self {
        let counters = Arc::default();
        let name = config.name.clone();
        let rules = Live::new(Rules::new(config, &counters));
        Self {
            name,
            counters,
            rules,
            told: Told::default(),
        }
    }

    /// The ingress's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Handshakes in progress, and how many may be; none at a forward, which has none. With one less than all of them it
    /// says all, as the last place is kept for whoever comes next.
    #[must_use]
    pub fn usage(&self) -> Option<(usize, usize)> {
        let rules = self.rules.get();
        let most = rules.handshakes_max;
        if matches!(rules.shared.protocol, Protocol::Forward { .. }) {
            return None;
        }
        let used = match rules.handshakes.available_permits() {
            0 => most,
            // One is held by the listener itself, for the next user.
            free => most.saturating_sub(free + 1),
        };
        Some((used, most))
    }

    /// Goes by another configuration for those who come from now on; its name and its address are not looked at.
    /// Handshakes in progress are not counted against the changed bound: they last seconds.
    pub fn set(&self, config: IngressConfig) {
        self.rules.set(Rules::new(config, &self.counters));
    }
}

impl Rules {
    fn new(config: IngressConfig, counters: &Arc<Counters>) -> Self {
        Self {
            handshakes: Arc::new(Semaphore::new(config.handshakes_max)),
            handshakes_max: config.handshakes_max,
            shares: Shares::of(config.handshakes_max),
            shared: Arc::new(Shared {
                door: Door {
                    name: config.name,
                    counters: Arc::clone(counters),
                },
                entrance: config.entrance,
                protocol: config.protocol,
            }),
        }
    }
}

impl IngressListener {
    /// Binds. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`IngressError`], which names the ingress and its address.
    pub fn bind(config: IngressConfig) -> Result<Self, IngressError> {
        let listener = listen(config.listen).map_err(|cause| IngressError {
            name: config.name.clone(),
            listen: config.listen,
            cause,
        })?;
        Ok(Self {
            listener,
            door: Arc::new(LiveIngress::new(config)),
        })
    }

    /// The bound address; its port is known even where 0 was asked for.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The ingress's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.door.name()
    }

    /// The way to change what it goes by while it accepts.
    #[must_use]
    pub fn door(&self) -> Arc<LiveIngress> {
        Arc::clone(&self.door)
    }

    /// What has happened here; stays readable while [`Self::serve`] runs.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        self.door.counters.clone()
    }

    /// Accepts until it is dropped. Connections that are being established then go on by themselves.
    pub async fn serve(self, gateway: GatewayHandle) {
        loop {
            let Some((mut rules, mut permit)) = self.permit().await else {
                return;
            };
            let (stream, user) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => {
                    bump(&self.door.counters.accept_failed);
                    if self.door.told.accept.allow() {
                        tracing::warn!(ingress = self.name(), %error, "{ACCEPT_FAILS}");
                    }
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // What has changed while nobody came counts for the one who came.
            if !Arc::ptr_eq(&rules, &self.door.rules.get()) {
                let Some(changed) = self.permit().await else {
                    return;
                };
                (rules, permit) = changed;
            }
            bump(&self.door.counters.accepted);
            if !rules.shared.entrance.admits(user.ip()) {
                bump(&self.door.counters.source_refused);
                if self.door.told.strange.allow() {
                    tracing::warn!(ingress = self.name(), %user, "{STRANGE}");
                }
                // An end would look like an empty answer of the target.
                let _gone = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                continue;
            }
            if let Err(error) = tune(&stream) {
                tracing::debug!(ingress = self.name(), %user, %error, "socket options");
            }
            let Some(permit) = permit.shared(&rules.shares, user.ip()) else {
                bump(&self.door.counters.share_full);
                if self.door.told.greedy.allow() {
                    tracing::warn!(ingress = self.name(), %user, "{GREEDY}");
                }
                continue;
            };
            let (shared, gateway) = (rules.shared.clone(), gateway.clone());
            tokio::spawn(async move { shared.serve(stream, user, permit, gateway).await });
        }
    }

    /// Waits for a place among the handshakes in progress; forwards have none and need no place.
    async fn permit(&self) -> Option<(Arc<Rules>, Permit)> {
        let rules = self.door.rules.get();
        if matches!(rules.shared.protocol, Protocol::Forward { .. }) {
            return Some((rules, Permit::none()));
        }
        if rules.handshakes.available_permits() == 0 {
            bump(&self.door.counters.handshakes_full);
            if self.door.told.full.allow() {
                tracing::warn!(ingress = self.name(), "{FULL}");
            }
        }
        // The semaphore is never closed, so waiting for it cannot fail.
        let permit = rules.handshakes.clone().acquire_owned().await.ok()?;
        Some((rules, Permit::some(permit)))
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Errors that accept(2) passes on from the connection that it would have returned.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

fn advice(cause: &io::Error) -> &'static str {
    let known = [
        (
            io::ErrorKind::AddrInUse,
            "; another program has this port, choose another one",
        ),
        (
            io::ErrorKind::AddrNotAvailable,
            "; this machine does not have that address",
        ),
        (
            io::ErrorKind::PermissionDenied,
            "; ports below 1024 need CAP_NET_BIND_SERVICE",
        ),
    ];
    let kind = cause.kind();
    known
        .iter()
        .find(|(k, _)| *k == kind)
        .map_or("", |(_, text)| text)
}

const ACCEPT_FAILS: &str = "accept fails; trying on";
const FULL: &str = "as many handshakes as allowed are in progress; users wait";
const GREEDY: &str = "one source has its share of handshakes in progress; more are closed";
const STRANGE: &str = "an address that `allow_from` does not name is closed";
/// Connections that wait for accept; the system may cap it (net.core.somaxconn).
const BACKLOG: i32 = 4_096;
/// Rest after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: SocketAddr) -> IngressConfig {
        IngressConfig {
            name: "web".into(),
            listen,
            protocol: Protocol::HttpConnect { users: None },
            entrance: crate::config::Entrance::default(),
            handshakes_max: 1,
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_one_clear_error() {
        let first = IngressListener::bind(config("127.0.0.1:0".parse().unwrap())).unwrap();
        let addr = first.local_addr().unwrap();
        let error = IngressListener::bind(config(addr)).unwrap_err().to_string();
        assert!(
            error.contains("`web`") && error.contains(&addr.to_string()),
            "{error}"
        );
        assert!(error.contains("another program"), "{error}");
    }

    #[tokio::test]
    async fn a_full_handshake_limit_is_counted_and_waits() {
        let ingress = IngressListener::bind(config("127.0.0.1:0".parse().unwrap())).unwrap();
        let first = ingress.permit().await.unwrap();
        let counters = ingress.counters();
        let mut second = std::pin::pin!(ingress.permit());
        let waits = || {
            counters
                .handshakes_full
                .load(std::sync::atomic::Ordering::Relaxed)
        };
        tokio::select! {
            biased;
            _ = &mut second => panic!("no place was free"),
            () = std::future::ready(()) => assert_eq!(waits(), 1),
        }
        drop(first);
        assert!(second.await.is_some());
    }
}
