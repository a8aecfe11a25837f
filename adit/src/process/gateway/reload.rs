//! A changed configuration of a gateway takes effect while it runs.

use std::{mem::discriminant, net::IpAddr, sync::Arc};

use adit_io_common::gateway::GatewayHandle;

use super::{GatewayProcess, driver, operator_tls, peers};
use crate::{
    config::{ConfigError, GatewayConfig, PeersConfig},
    http::HttpCounters,
    ingress::{self, IngressConfig, IngressListener, LiveIngress, websocket::WebSockets},
    process::reading::Reading,
    token::TokenVerifier,
};

/// Reads the configuration again.
pub type ConfigSource = Arc<dyn Fn() -> Result<GatewayConfig, ConfigError> + Send + Sync>;

/// What goes by the configuration and can be told anew.
pub(super) struct Reloadable {
    pub(super) config: GatewayConfig,
    pub(super) tokens: Arc<TokenVerifier>,
    /// Counts reloads.
    pub(super) counters: Arc<HttpCounters>,
    pub(super) doors: Vec<Arc<LiveIngress>>,
    pub(super) websockets: Option<WebSockets>,
    reading: Reading,
}

impl GatewayProcess {
    /// Takes a changed configuration over; one that is bad changes nothing. Sessions are not touched. Gives the keys
    /// whose change needs a restart.
    pub(super) async fn reload(&mut self, source: &ConfigSource) -> Result<Vec<String>, String> {
        let outcome = self.try_reload(source).await;
        let counted = if outcome.is_ok() { "ok" } else { "failed" };
        self.reloadable.counters.reloads.add(counted);
        match &outcome {
            Ok(restart) => {
                for key in restart {
                    tracing::warn!(
                        key,
                        "this change takes effect when the gateway is restarted"
                    );
                }
                tracing::info!("configuration reloaded");
            }
            Err(error) => {
                tracing::error!(%error, "configuration not reloaded; the former one stays in force");
            }
        }
        outcome
    }

    async fn try_reload(&mut self, source: &ConfigSource) -> Result<Vec<String>, String> {
        // What may still be refused comes before anything is changed.
        let source = Arc::clone(source);
        let read = move || {
            let new = source().map_err(|error| error.to_string())?;
            let operator = operator_tls(&new).map_err(|error| error.to_string())?;
            Ok((new, operator))
        };
        let (new, operator) = self.reloadable.reading.run(read).await?;
        crate::log::set_level(&new.log.level)?;
        configure(&self.gateway.handle(), &new).await?;
        let now = self.reloadable.config.peers.as_ref();
        let change = PeersConfig::change(now, new.peers.as_ref());
        if change.restart.is_empty()
            && let (Some(handle), Some(peers)) = (self.peers.handle(), &new.peers)
        {
            peers::configure(&handle, self.peers.links().as_ref(), peers).await?;
            self.peers.configured(peers);
            self.reloadable.config.peers = new.peers.clone();
        }
        let restart = self.reloadable.take(&new);
        // The pin in enrolment strings goes with our own certificate: one of another kind is for the next start.
        if let (Some(shown), Some(config)) = (&self.operator_tls, operator) {
            shown.set(config);
        }
        self.check_certificates().await;
        Ok(restart)
    }

    /// Looks at all certificates: makes those that this gateway makes, and tells of the others.
    pub(super) async fn check_certificates(&mut self) {
        self.certificates.check().await;
        self.peers.check_certificates().await;
    }
}

async fn configure(gateway: &GatewayHandle, new: &GatewayConfig) -> Result<(), String> {
    let (limits, dispatch) = (driver::endpoint_limits(new), driver::dispatch(new));
    let configured = gateway.configure(limits, dispatch, new.limits.sessions);
    let stopped = |_| "the gateway is stopping".to_owned();
    configured.await.map_err(stopped)
}

impl Reloadable {
    pub(super) fn new(
        config: &GatewayConfig,
        tokens: Arc<TokenVerifier>,
        counters: Arc<HttpCounters>,
        doors: &[IngressListener],
        websockets: Option<WebSockets>,
    ) -> Self {
        Self {
            config: config.clone(),
            tokens,
            counters,
            doors: doors.iter().map(IngressListener::door).collect(),
            websockets,
            reading: Reading::default(),
        }
    }

    /// Takes over what can be; gives the keys of the rest that differs.
    fn take(&mut self, new: &GatewayConfig) -> Vec<String> {
        let now = &self.config;
        self.tokens
            .set_provisioner(new.provisioner.public_key.clone());
        self.tokens.set_revoked(new.provisioner.revoked.clone());
        if let Some(websockets) = &self.websockets {
            websockets.set_entrance(new.websocket.entrance.clone());
        }
        let mut restart: Vec<String> = restart_only(now, new).map(str::to_owned).collect();
        let (before, after) = (ingress::configs(now), ingress::configs(new));
        for config in &before {
            if !after.iter().any(|other| other.name == config.name) {
                restart.push(format!("ingress {} (removed)", config.name));
            }
        }
        for config in after {
            let is_same = |other: &&IngressConfig| other.name == config.name;
            match before.iter().find(is_same) {
                None => restart.push(format!("ingress {} (added)", config.name)),
                // What is meant for those who reach one address is not shown to all who reach another one.
                Some(other) if moves(other.listen.ip(), config.listen.ip()) => {
                    restart.push(format!(
                        "ingress {} (listen, and with it all its keys)",
                        config.name
                    ));
                }
                Some(other) => {
                    if other.listen != config.listen {
                        restart.push(format!("ingress {} (listen)", config.name));
                    }
                    let door = self.doors.iter().find(|door| door.name() == &*config.name);
                    if let Some(door) = door {
                        door.set(config);
                    }
                }
            }
        }
        // What needs a restart is compared with what is in force the next time, too.
        self.config.grace = new.grace;
        restart
    }
}

/// Tells whether an ingress that others than this machine reach is meant for another address.
fn moves(now: IpAddr, new: IpAddr) -> bool {
    let (now, new) = (now.to_canonical(), new.to_canonical());
    now != new && !now.is_loopback()
}

/// Keys that differ and that only a start looks at.
fn restart_only(
    now: &GatewayConfig,
    new: &GatewayConfig,
) -> impl Iterator<Item = &'static str> + use<> {
    let keys = [
        ("state_dir", now.state_dir == new.state_dir),
        ("threads", now.threads == new.threads),
        ("driver", now.driver == new.driver),
        ("journal", now.journal == new.journal),
        ("tunnel.listen", now.tunnel.listen == new.tunnel.listen),
        ("tunnel.names", now.tunnel.names == new.tunnel.names),
        (
            "tunnel.public_endpoint",
            now.tunnel.public_endpoint == new.tunnel.public_endpoint,
        ),
        ("enroll.listen", now.enroll.listen == new.enroll.listen),
        ("enroll.url", now.enroll.url == new.enroll.url),
        (
            "enroll.cert, enroll.key or enroll.insecure_http",
            discriminant(&now.enroll.tls) == discriminant(&new.enroll.tls),
        ),
        (
            "provisioner.gateway_id",
            now.provisioner.gateway_id == new.provisioner.gateway_id,
        ),
        (
            "websocket.sessions",
            now.websocket.sessions == new.websocket.sessions,
        ),
        ("websocket.ping", now.websocket.ping == new.websocket.ping),
        (
            "websocket.target_roots",
            now.websocket.target_roots == new.websocket.target_roots,
        ),
        (
            "websocket (provisioner.public_key_file added or removed)",
            now.provisioner.public_key.is_some() == new.provisioner.public_key.is_some(),
        ),
        ("metrics", now.metrics == new.metrics),
        ("log.format", now.log.format == new.log.format),
    ];
    let changed = keys.into_iter().filter(|(_, same)| !same);
    let peers = PeersConfig::change(now.peers.as_ref(), new.peers.as_ref());
    changed.map(|(key, _)| key).chain(peers.restart)
}
