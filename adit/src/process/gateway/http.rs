//! The routers of a gateway's HTTP listeners, put together from its parts.

use std::{io, net::TcpListener, sync::Arc};

use axum::Router;
use tokio::task::JoinSet;

use super::{GatewayState, driver::Watch, peers::Peers};
use crate::{
    config::GatewayConfig,
    control::{Actor, Control},
    enroll::{
        listener,
        server::{self, EnrolParts},
    },
    http::{
        HttpCounters, ListenerCounters,
        agents::{self, AgentsParts},
        health::Health,
        metrics::{self, MetricsParts},
        public_router, watch_router,
    },
    ingress::{
        IngressListener,
        websocket::{self, WebSocketParts, WebSockets},
    },
    live::Live,
    token::TokenVerifier,
    usage::Usage,
};

/// What happens at the HTTP listeners.
#[derive(Clone, Debug)]
pub(super) struct Listeners {
    pub(super) enrolment: Arc<ListenerCounters>,
    pub(super) metrics: Arc<ListenerCounters>,
}

impl Default for Listeners {
    fn default() -> Self {
        let one = || Arc::new(ListenerCounters::new(listener::CONNECTIONS_MAX));
        Self {
            enrolment: one(),
            metrics: one(),
        }
    }
}

/// What the listeners serve from.
pub(super) struct Served<'a> {
    pub(super) config: &'a GatewayConfig,
    pub(super) state: &'a GatewayState,
    pub(super) watch: Watch,
    pub(super) health: &'a Health,
    pub(super) control: &'a Control,
    pub(super) counters: Arc<HttpCounters>,
    pub(super) listeners: Listeners,
    pub(super) tokens: Arc<TokenVerifier>,
    pub(super) peers: &'a Peers,
}

impl Served<'_> {
    /// What agents and consoles reach; agents are told to connect to `endpoint`.
    pub(super) fn public(&self, endpoint: &str, websockets: Option<&WebSockets>) -> Router {
        let enrolment = EnrolParts {
            ca: Arc::clone(&self.state.ca),
            tokens: Arc::clone(&self.tokens),
            store: self.state.store.clone(),
            quic_endpoint: endpoint.to_owned(),
            server_spki_sha256: self.state.tunnel_pin(),
            counters: Arc::clone(&self.counters),
        };
        let gateway = self.control.gateway().clone();
        let enrolment = server::router(enrolment, move |agent| {
            let gateway = gateway.clone();
            async move { gateway.is_connected(agent).await.unwrap_or(false) }
        });
        public_router(enrolment, self.agents(), websockets, self.health)
    }

    /// The way in by WebSocket; none where nobody could make tokens for it.
    pub(super) fn websockets(&self) -> Option<WebSockets> {
        let signed = self.config.provisioner.public_key.is_some();
        signed.then(|| {
            WebSockets::new(WebSocketParts {
                tokens: Arc::clone(&self.tokens),
                store: self.state.store.clone(),
                gateway: self.control.gateway().clone(),
                health: self.health.clone(),
                config: self.config.websocket.clone(),
                http: Arc::clone(&self.counters),
            })
        })
    }

    fn agents(&self) -> Router {
        let [listing, showing, control] = std::array::from_fn(|_| self.control.clone());
        agents::router(AgentsParts {
            tokens: Arc::clone(&self.tokens),
            store: self.state.store.clone(),
            presence: self.watch.presence.clone(),
            agents: Arc::new(move || {
                let control = listing.clone();
                Box::pin(async move { Ok(control.agents().await?) })
            }),
            agent: Arc::new(move |agent| {
                let control = showing.clone();
                Box::pin(async move { Ok(control.agent_by_id(agent).await?) })
            }),
            delete: Arc::new(move |jti, agent| {
                let control = control.clone();
                Box::pin(async move {
                    control.delete_agent(Actor::Token { jti }, agent).await?;
                    Ok(())
                })
            }),
            counters: Arc::clone(&self.counters),
        })
    }

    /// Where operators see how full the gateway is.
    pub(super) fn usage(
        &self,
        doors: &[IngressListener],
        websockets: Option<&WebSockets>,
    ) -> Usage {
        Usage {
            store: self.state.store.clone(),
            enrolment: Arc::clone(&self.listeners.enrolment),
            websockets: websockets.cloned(),
            ingress: doors.iter().map(IngressListener::door).collect(),
        }
    }

    /// What those see who watch the gateway.
    pub(super) fn watch(
        &self,
        doors: &[IngressListener],
        websockets: Option<&WebSockets>,
    ) -> Router {
        let ingress = doors
            .iter()
            .map(|door| (door.name().into(), door.counters()))
            .chain(websockets.map(|door| (websocket::NAME.into(), door.counters())));
        let metrics = metrics::router(MetricsParts {
            gateway: self.control.gateway().clone(),
            directory: self.state.store.directory(),
            admission: Arc::clone(&self.watch.refused),
            http: Arc::clone(&self.counters),
            listeners: [
                ("enrolment", Arc::clone(&self.listeners.enrolment)),
                ("metrics", Arc::clone(&self.listeners.metrics)),
            ],
            ingress: ingress.collect(),
            usage: self.usage(doors, websockets),
            peers: self.peers.handle().map(|peers| (peers, self.peers.own())),
            links: self.peers.links(),
        });
        watch_router(metrics, self.health)
    }
}

/// Serves those who watch the gateway, beside the rest.
pub(super) fn serve_metrics(
    services: &mut JoinSet<()>,
    listener: TcpListener,
    router: Router,
    listeners: &Listeners,
) -> io::Result<()> {
    tracing::info!(addr = %listener.local_addr()?, "metrics open");
    let counters = Arc::clone(&listeners.metrics);
    services.spawn(serve("metrics", listener, None, router, counters));
    Ok(())
}

/// What checks every token that comes in over HTTP.
pub(super) fn verifier(config: &GatewayConfig, state: &GatewayState) -> Arc<TokenVerifier> {
    let provisioner = config.provisioner.clone();
    Arc::new(TokenVerifier::new(
        &state.tokens,
        provisioner.public_key,
        provisioner.gateway_id,
        provisioner.revoked,
    ))
}

/// Serves one listener until it is dropped.
pub(super) async fn serve(
    what: &'static str,
    listener: TcpListener,
    tls: Option<Arc<Live<rustls::ServerConfig>>>,
    router: Router,
    counters: Arc<ListenerCounters>,
) {
    let served = listener::serve(listener, tls, router, counters, std::future::pending());
    if let Err(error) = served.await {
        tracing::error!(%error, "{what} listener failed");
    }
}
