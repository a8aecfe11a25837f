//! The section `[metrics]`: where the gateway tells how it fares.

use std::net::SocketAddr;

use super::{file::Kind, parse, reader::Reader};

/// Where `/metrics`, `/livez` and `/readyz` are served, over plain HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsConfig {
    /// TCP address to listen on; none: there is no such listener.
    pub listen: Option<SocketAddr>,
}

/// Reads the section; `take` claims the address among all listeners.
pub(super) fn metrics(
    r: &mut Reader<'_>,
    take: impl FnOnce(&mut Reader<'_>, &super::reader::Sourced<SocketAddr>),
) -> Option<MetricsConfig> {
    let listen = r.optional("metrics.listen", Kind::Text, parse::address);
    let public = r.scalar("metrics.public", Kind::Switch, "false", parse::switch);
    let (listen, public) = (listen?, public?);
    if let Some(listen) = &listen {
        take(r, listen);
        if !public.value && !super::gateway::on_loopback(listen.value) {
            let message = format!(
                "metrics would be shown on {} to everybody who reaches it; listen on 127.0.0.1 or [::1], or set \
                 `public = true` where only those who may can reach it",
                listen.value
            );
            r.problem(listen.source.clone(), message);
            return None;
        }
    }
    Some(MetricsConfig {
        listen: listen.map(|l| l.value),
    })
}
