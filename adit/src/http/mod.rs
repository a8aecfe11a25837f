//! What the gateway serves over HTTP: enrolment and the agents API to the network (agent-tunnel 14 and 15), its
//! condition to those who watch it.

pub mod agents;
mod bearer;
mod counters;
pub mod health;
pub mod metrics;
mod offload;
mod refusal;

use std::net::SocketAddr;

use axum::{Router, extract::DefaultBodyLimit};

use crate::ingress::websocket::WebSockets;

pub(crate) use bearer::bearer;
pub use counters::{Causes, HttpCounters, ListenerCounters};
use health::Health;
pub(crate) use offload::Offload;
pub use refusal::Refusal;

/// Joins what is served on the public listener.
pub fn public_router(
    enrolment: Router,
    agents: Router,
    websockets: Option<&WebSockets>,
    health: &Health,
) -> Router {
    let users = websockets.map_or_else(Router::new, WebSockets::router);
    whole(enrolment.merge(agents).merge(users).merge(health.router()))
}

/// The two ends of the connection that a request came over; the listener adds it to every request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// Who sent it.
    pub(crate) user: SocketAddr,
    /// Where it was sent to, as far as that is known.
    pub(crate) local: Option<SocketAddr>,
}

/// Joins what is served on the listener for those who watch the gateway.
pub fn watch_router(metrics: Router, health: &Health) -> Router {
    whole(metrics.merge(health.router()))
}

/// Every answer that is no success has a body of the same kind, those for unknown paths and methods too.
fn whole(router: Router) -> Router {
    router
        .fallback(async || Refusal::NotFound)
        .method_not_allowed_fallback(async || Refusal::Method)
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
}

/// A certificate signing request is a few KiB at most.
const BODY_LEN_MAX: usize = 64 * 1024;
