//! A changed configuration of an agent takes effect while it runs.

use std::{path::Path, sync::Arc};

use adit_proto_core::route::{DomainRoute, RouteSet};

use super::{AgentProcess, ConfigSource, routes};
use crate::{config::AgentConfig, enroll::files::FilesError, state::StateDir};

impl AgentProcess {
    /// Takes a changed configuration over; one that is bad changes nothing. Sessions are not touched.
    pub(super) fn reload(&mut self, source: &ConfigSource) -> Result<Vec<String>, String> {
        let outcome = self.try_reload(source);
        match &outcome {
            Ok(restart) => {
                for key in restart {
                    tracing::warn!(key, "this change takes effect when the agent is restarted");
                }
                tracing::info!(routes = self.board.routes().len(), "configuration reloaded");
            }
            Err(error) => {
                tracing::error!(%error, "configuration not reloaded; the former one stays in force");
            }
        }
        outcome
    }

    /// The connection is another one than before, perhaps over another network: a domain that is detected may be another
    /// one, too. Nothing is said where nothing has changed.
    pub(super) fn refresh(&mut self, source: &ConfigSource) {
        let now = |process: &Self| (process.board.routes(), process.config.clone());
        let before = now(self);
        match self.try_reload(source) {
            Ok(_) if now(self) == before => {}
            Ok(_) => tracing::info!(
                routes = self.board.routes().len(),
                "configuration read again, as the connection was lost"
            ),
            Err(error) => {
                tracing::error!(%error, "configuration not read again, as the connection was lost; the former one stays in force");
            }
        }
    }

    fn try_reload(&mut self, source: &ConfigSource) -> Result<Vec<String>, String> {
        let (source, dir) = (Arc::clone(source), self.dir.clone());
        let read = move || {
            let config = source().map_err(|error| error.to_string())?;
            let routes = advertised(&config, &dir).map_err(|error| error.to_string())?;
            Ok((config, routes))
        };
        let (config, mut routes) = self.reading.wait(read)?;
        // A network that names no domain takes none away: it may only be about to come up.
        if config.detect_domain && routes.domains.is_empty() {
            routes.domains.extend(self.detected.clone());
        }
        let shown = routes::shown(&routes);
        if self.board.routes() != shown {
            remark(&config, &routes);
        }
        self.detected = detected(&routes);
        let taken = self.driver.handle().reload(routes, &config.restrictions);
        taken.map_err(|error| error.to_string())?;
        crate::log::set_level(&config.log.level)?;
        let restart = restart_only(&self.config, &config);
        self.board.set_routes(shown);
        self.config = AgentConfig {
            advertise: config.advertise,
            detect_domain: config.detect_domain,
            restrictions: config.restrictions,
            grace: config.grace,
            ..self.config.clone()
        };
        Ok(restart.into_iter().map(str::to_owned).collect())
    }
}

pub(super) fn advertised(config: &AgentConfig, dir: &StateDir) -> Result<RouteSet, FilesError> {
    routes::advertised(config, dir, Path::new(RESOLVER_FILE))
}

pub(super) fn detected(routes: &RouteSet) -> Option<DomainRoute> {
    routes.domains.iter().find(|d| d.auto_detected).cloned()
}

/// Has a word on what cannot work, and on what was found.
pub(super) fn remark(config: &AgentConfig, routes: &RouteSet) {
    match detected(routes) {
        Some(domain) => {
            tracing::info!(domain = %domain.pattern, "advertising the domain that this machine searches");
        }
        None if config.detect_domain && routes.domains.is_empty() => tracing::warn!(
            file = RESOLVER_FILE,
            "no domain of two labels or more is searched by this machine; name one in [advertise]"
        ),
        None => {}
    }
    if routes.is_empty() {
        tracing::warn!(
            "nothing is advertised, so no session will come: set [advertise] or use `agent up --advertise`"
        );
    }
    for net in &routes.subnets {
        if net.network().is_ipv6() {
            tracing::warn!(%net, "the protocol cannot carry IPv6 subnets; only names reach IPv6 targets");
        }
    }
}

/// Keys that differ and that only a start looks at.
fn restart_only(now: &AgentConfig, new: &AgentConfig) -> Vec<&'static str> {
    let keys = [
        ("state_dir", now.state_dir == new.state_dir),
        ("driver", now.driver == new.driver),
        ("journal", now.journal == new.journal),
        ("heartbeat", now.heartbeat == new.heartbeat),
        ("limits", now.unread == new.unread),
        ("gateway.endpoints", now.endpoints == new.endpoints),
        ("log.format", now.log.format == new.log.format),
    ];
    let changed = keys.into_iter().filter(|(_, same)| !same);
    changed.map(|(key, _)| key).collect()
}

const RESOLVER_FILE: &str = "/etc/resolv.conf";
