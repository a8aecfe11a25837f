//! What a gateway is among its peers: connections to them, with either driver, and what it tells of them.

mod links;
mod security;

use std::{io, sync::Arc, time::Duration};

use adit_io_common::{
    clock::system_env,
    gateway::{GatewayHandle, StartError},
    peers::{
        CatalogueConfig, LostEpoch, PeerRow as Known, PeersConfig as DriverConfig, PeersHandle,
        Requests,
    },
};
use adit_io_mio::Peers as MioPeers;
use adit_io_tokio::{Links, LinksHandle, Peers as TokioPeers};
use adit_proto_core::{
    endpoint::EndpointLimits,
    env::EndpointSecrets,
    peer::{
        NodeId,
        breaker::{BreakerSettings, BreakerState},
        config::PeerConfig as NodeConfig,
        epoch::EpochMark,
        ledger::PeerLedger,
        ping,
        rpc_type::RpcType,
    },
    target::Target,
};
use tokio::{runtime::Handle, time::timeout};

use self::security::{NoJoins, ring, security};
use super::{GatewayState, failure};
use crate::{
    admin::{PeerLister, PeerRow, PeersView},
    config::{Driver, GatewayConfig, PeersConfig},
    exit::{Code, CommandFailure},
    live::Live,
    peers::{
        boot_epoch,
        ends::{self, Ends, Own, Shown},
    },
    process::unix_now,
    state::StateDir,
};

/// The peers of a running gateway; nothing where none are configured.
pub(super) struct Peers {
    running: Option<Running>,
    /// Links on which sessions go to some of them, whichever driver carries the rest.
    links: Option<Links>,
    own: Own,
    ends: Ends,
}

enum Running {
    Tokio(TokioPeers),
    Mio(MioPeers),
}

impl Peers {
    /// Counts this start and connects, where there are peers.
    ///
    /// # Errors
    /// What is unusable or in use, and what to do.
    pub(super) fn start(
        config: &GatewayConfig,
        state: &GatewayState,
        gateway: GatewayHandle,
    ) -> Result<Self, CommandFailure> {
        let driver = config.driver;
        let Some(config) = &config.peers else {
            return Ok(Self {
                running: None,
                links: None,
                own: Arc::new(Live::new(None)),
                ends: Ends::default(),
            });
        };
        let start = boot_epoch::next(&state.dir).map_err(failure)?;
        let (node, env) = (config.node, env(state)?);
        let ledger = PeerLedger::new(start, ring(config), Box::new(EpochMark::new(0)));
        let (linked, notices) = links::notices(config);
        let links = links::start(config, &gateway, notices)?;
        let parts = DriverConfig {
            listen: config.listen,
            security: security(config)?,
            config: NodeConfig::new(Arc::new(ledger), Arc::new(NoJoins)),
            limits: EndpointLimits::default(),
            breaker: BreakerSettings::default(),
            peers: addresses(config),
            catalogue: Some(CatalogueConfig {
                local: node,
                epoch: start,
                lost_epoch: lift(state.dir.clone()),
                gateway,
            }),
            links: linked,
        };
        let started = match driver {
            Driver::Tokio => {
                TokioPeers::start(parts, env).map(|(peers, asked)| (Running::Tokio(peers), asked))
            }
            Driver::Mio => {
                MioPeers::start(parts, env).map(|(peers, asked)| (Running::Mio(peers), asked))
            }
        };
        let (running, requests) = started.map_err(|error| match error {
            StartError::Io(error) => CommandFailure::message(
                Code::Failure,
                format!("peers: cannot listen on UDP {}: {error}", config.listen),
            ),
            StartError::Tls(error) => failure(error),
        })?;
        tokio::spawn(serve(node, requests));
        let listen = match &running {
            Running::Tokio(peers) => peers.local_addr(),
            Running::Mio(peers) => peers.local_addr(),
        };
        tracing::info!(node = node.0, start, %listen, "one of several gateways");
        Ok(Self {
            running: Some(running),
            links,
            own: Arc::new(Live::new(own(config))),
            ends: Ends::default(),
        })
    }

    /// The way in; none where there are no peers.
    pub(super) fn handle(&self) -> Option<PeersHandle> {
        match self.running.as_ref()? {
            Running::Tokio(peers) => Some(peers.handle()),
            Running::Mio(peers) => Some(peers.handle()),
        }
    }

    /// The way to the links; none where there are none.
    pub(super) fn links(&self) -> Option<LinksHandle> {
        self.links.as_ref().map(Links::handle)
    }

    /// The certificate of this gateway, as it is now.
    pub(super) fn own(&self) -> Own {
        Arc::clone(&self.own)
    }

    /// What lists them.
    pub(super) fn lister(&self) -> PeerLister {
        let (handle, own) = (self.handle(), self.own());
        Arc::new(move || {
            let (handle, own) = (handle.clone(), own.get());
            Box::pin(async move {
                let Some(handle) = handle else {
                    return PeersView::default();
                };
                // One that has stopped has none.
                let rows = handle.list().await.unwrap_or_default();
                PeersView {
                    own_certificate_ends_unix_s: own.map(|(_, end)| end),
                    peers: rows.into_iter().map(row).collect(),
                }
            })
        })
    }

    /// Another configuration is in force.
    pub(super) fn configured(&mut self, config: &PeersConfig) {
        self.own.set(own(config));
        self.ends.forget();
    }

    /// Tells of certificates that end soon: that of this gateway, and those of peers that are connected.
    pub(super) async fn check_certificates(&mut self) {
        let Some(handle) = self.handle() else {
            return;
        };
        // Who does not answer now is looked at the next time.
        let rows = timeout(LIST_PATIENCE, handle.list()).await;
        let rows = rows.map_or_else(|_| Vec::new(), Result::unwrap_or_default);
        let shown = rows
            .iter()
            .filter_map(|row| Some((Shown::By(row.status.node), row.certificate_end?)));
        let own = self.own.get().map(|(_, end)| (Shown::Here, end));
        let now = i64::try_from(unix_now().as_secs()).unwrap_or(i64::MAX);
        for (whose, end) in self.ends.due(now, own.into_iter().chain(shown)) {
            ends::tell(now, whose, end);
        }
    }

    /// Waits for an end that never comes by itself, and tells why it did.
    pub(super) async fn failed(&mut self) -> io::Error {
        let links = async {
            match &mut self.links {
                None => std::future::pending().await,
                Some(links) => links.failed().await,
            }
        };
        let running = async {
            match &mut self.running {
                None => std::future::pending().await,
                Some(Running::Tokio(peers)) => peers.failed().await,
                Some(Running::Mio(peers)) => match peers.ended().await {
                    Ok(why) => why,
                    Err(_panicked) => io::Error::other("the thread of the peers has panicked"),
                },
            }
        };
        tokio::select! {
            why = links => why,
            why = running => why,
        }
    }

    /// Has peers told that nothing more is to be sent here; sessions that there are go on.
    pub(super) fn leave(&self) {
        if let Some(handle) = self.handle() {
            handle.stop(LEAVE_GRACE);
        }
    }

    /// Ends what is left, after `patience` at the latest.
    pub(super) async fn stop(self, patience: Duration) {
        match self.running {
            None => {}
            Some(Running::Tokio(peers)) => peers.stop(LEAVE_GRACE, patience).await,
            Some(Running::Mio(mut peers)) => {
                peers.handle().stop(LEAVE_GRACE);
                if timeout(patience, peers.ended()).await.is_err() {
                    peers.quit();
                }
            }
        }
    }
}

/// Takes another configuration over: keys, certificates and peers. What needs a restart is left.
///
/// # Errors
/// Why not, for people; what was changed before stays changed.
pub(super) async fn configure(
    handle: &PeersHandle,
    links: Option<&LinksHandle>,
    new: &PeersConfig,
) -> Result<(), String> {
    if let Some(links) = links {
        let settings = links::settings(new).map_err(|error| error.to_string())?;
        handle.set_links(settings.nodes());
        links.configure(settings);
    }
    let keys = ring(new);
    let changed = handle.change_keys(move |ring| {
        *ring = keys;
        Ok(())
    });
    changed.map_err(|error| error.to_string())?;
    let security = security(new).map_err(|error| error.to_string())?;
    let set = handle.set_security(security).await;
    set.map_err(|error| error.to_string())?;
    let set = handle.set_peers(addresses(new)).await;
    set.map_err(|_| "the gateway is stopping".to_owned())
}

/// The endpoint's keys are others than the tunnel's, and the same after a restart: peers learn of it by their next
/// datagram.
fn env(state: &GatewayState) -> Result<adit_proto_core::env::Env, CommandFailure> {
    let derive = |key: &[u8; 32]| blake3::derive_key("adit peers v1 endpoint key", key);
    let keys = &state.keys;
    let secrets = EndpointSecrets::new(derive(&keys.reset_key), derive(&keys.address_token_key));
    Ok(system_env(Some(secrets))?)
}

fn own(config: &PeersConfig) -> Option<(NodeId, i64)> {
    Some((config.node, config.certificate_end()?))
}

fn addresses(config: &PeersConfig) -> Vec<(NodeId, Target)> {
    let peers = config.peers.iter();
    peers.map(|peer| (peer.id, peer.address.clone())).collect()
}

/// What is done where a peer knows of a later start: the file is written on a thread that may wait.
fn lift(dir: StateDir) -> LostEpoch {
    let runtime = Handle::current();
    Box::new(move |known, done| {
        let dir = dir.clone();
        runtime.spawn_blocking(move || {
            done(boot_epoch::lift(&dir, known).map_err(|error| error.to_string()));
        });
    })
}

/// Tells a peer of any kind that this gateway is there. It has no use for what else members of another kind of cluster ask.
async fn serve(local: NodeId, mut requests: Requests) {
    while let Some(request) = requests.next().await {
        if request.kind == RpcType::Ping
            && let Some(pong) = ping::pong(local, &request.payload)
        {
            request.responder.answer(pong);
            continue;
        }
        tracing::debug!(peer = %request.from, kind = ?request.kind, "request that a gateway does not know");
        request.responder.fail();
    }
}

fn row(known: Known) -> PeerRow {
    let status = &known.status;
    let dialled = status.connection.is_some();
    let breaker = match status.breaker {
        BreakerState::Closed => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half-open",
    };
    let direction = match (dialled, known.calls_us > 0) {
        (true, _) => Some("dialled".to_owned()),
        (false, true) => Some("accepted".to_owned()),
        (false, false) => None,
    };
    PeerRow {
        id: status.node.0,
        address: status.address.to_string(),
        connected: direction.is_some(),
        direction,
        version: known.agreed.map(|agreed| agreed.version),
        rtt_us: known
            .rtt
            .map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        agents: known.agents,
        routes: known.routes,
        forward: if known.is_linked { "replica" } else { "quic" }.to_owned(),
        breaker: breaker.to_owned(),
        certificate_ends_unix_s: known.certificate_end,
        last_refusal: known.refusal,
    }
}

/// How long connections have to tell of themselves.
const LIST_PATIENCE: Duration = Duration::from_secs(2);
/// Time for calls that are under way when a gateway stops; each takes a round trip.
const LEAVE_GRACE: Duration = Duration::from_secs(1);
