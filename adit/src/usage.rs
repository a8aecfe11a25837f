//! How much of each bound a gateway uses, for `adit gateway status` and `/metrics` alike.

use std::sync::Arc;

use adit_io_common::gateway::GatewayCounters;
use adit_proto_core::limits::ROUTES_PER_AGENT_MAX;

use crate::{
    admin::UsageRow,
    http::ListenerCounters,
    ingress::{LiveIngress, websocket::WebSockets},
    store::{Store, TokenKind},
};

/// Where it can be seen how much of the bounds is used, beside the gateway itself.
#[derive(Clone, Debug)]
pub struct Usage {
    /// Used tokens that are remembered.
    pub store: Store,
    /// Places of the enrolment listener.
    pub enrolment: Arc<ListenerCounters>,
    /// Places of users by WebSocket; none where there is no such way in.
    pub websockets: Option<WebSockets>,
    /// Proxy handshakes at each ingress.
    pub ingress: Vec<Arc<LiveIngress>>,
}

impl Usage {
    /// Gives all rows, in an order that stays. Waits for nothing: a disk that hangs must not blind whoever looks why.
    #[must_use]
    pub fn rows(&self, counters: &GatewayCounters) -> Vec<UsageRow> {
        let (load, agents) = (&counters.load, &counters.agents);
        let limits = load.limits;
        let established = load.connections.saturating_sub(load.handshakes);
        let used = |kind| Some(self.store.used(kind));
        let users = self.websockets.as_ref().map(WebSockets::usage);
        let count = |(used, limit): (usize, usize)| (used as u64, limit as u64);
        let counts = [
            ("connections", Some((established, limits.connections))),
            ("handshakes", Some((load.handshakes, limits.handshakes))),
            (
                "sessions_opening",
                Some((counters.sessions_opening, counters.opening_max)),
            ),
            (
                "sessions_of_one_agent",
                Some((agents.sessions_max, counters.sessions_per_agent)),
            ),
            (
                "routes_of_one_agent",
                Some((agents.routes_max, ROUTES_PER_AGENT_MAX)),
            ),
            ("websocket_users", users),
            ("enrolment_connections", Some(self.enrolment.usage())),
            ("used_scope_tokens", used(TokenKind::Scope)),
            ("used_association_tokens", used(TokenKind::Association)),
        ];
        let counts = counts.map(|(what, usage)| Some((what.to_owned(), count(usage?))));
        let bytes = [
            ("unread_bytes", (load.unread.in_all, limits.unread_in_all)),
            (
                "unread_bytes_of_one_agent",
                (load.unread.most, limits.unread),
            ),
        ];
        let bytes = bytes.map(|(what, usage)| Some((what.to_owned(), usage)));
        let ingress = self.ingress.iter().map(|door| {
            let what = format!("ingress_handshakes:{}", door.name());
            Some((what, count(door.usage()?)))
        });
        let rows = counts.into_iter().chain(bytes).chain(ingress).flatten();
        rows.map(|(what, (used, limit))| UsageRow { what, used, limit })
            .collect()
    }
}
