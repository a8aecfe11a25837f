//! `/metrics`: everything that is counted, in the OpenMetrics text format.
//!
//! The core and the driver keep plain counters; they are asked for them at each scrape, and nothing here is on the way
//! of users' bytes. Labels take words of this program and the configuration's names of ingresses, so their number is
//! bounded.

mod peers;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use adit_io_common::{
    gateway::{GatewayCounters, GatewayHandle},
    peers::PeersHandle,
};
use adit_io_tokio::LinksHandle;
use axum::{
    Router,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::Registry,
};

use self::peers::Peers;
use super::{Causes, HttpCounters, ListenerCounters, Refusal};
use crate::{admin::UsageRow, ingress, peers::ends::Own, store::AgentDirectory, usage::Usage};

/// Where the figures come from.
#[derive(Clone, Debug)]
pub struct MetricsParts {
    /// Sessions, agents and handshakes.
    pub gateway: GatewayHandle,
    /// How many agents there are.
    pub directory: AgentDirectory,
    /// Agents with a good certificate that were refused.
    pub admission: Arc<Causes>,
    /// Calls of the public listener.
    pub http: Arc<HttpCounters>,
    /// What happened at the HTTP listeners, by their names.
    pub listeners: [(&'static str, Arc<ListenerCounters>); 2],
    /// What happened at each ingress, by its name.
    pub ingress: Vec<(Box<str>, Arc<ingress::Counters>)>,
    /// How much of each bound is used.
    pub usage: Usage,
    /// Other gateways, and the certificate that they see; none where none are configured.
    pub peers: Option<(PeersHandle, Own)>,
    /// Replica links that carry sessions; none where none do.
    pub links: Option<LinksHandle>,
}

/// Makes the route.
pub fn router(parts: MetricsParts) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .with_state(Arc::new(parts))
}

async fn scrape(State(parts): State<Arc<MetricsParts>>) -> Result<Response, Refusal> {
    let gateway = parts.gateway.counters().await;
    let gateway = gateway.map_err(|_| Refusal::NotReady("the gateway is stopping"))?;
    let peers = match &parts.peers {
        Some((handle, own)) => Some(Peers::ask(handle, own).await),
        None => None,
    };
    let page = Page {
        usage: parts.usage.rows(&gateway),
        gateway,
        peers,
        parts: MetricsParts::clone(&parts),
    };
    let text = page.text().map_err(|_| Refusal::Internal)?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

/// Everything at one moment.
#[derive(Debug)]
struct Page {
    usage: Vec<UsageRow>,
    gateway: GatewayCounters,
    peers: Option<Peers>,
    parts: MetricsParts,
}

impl Page {
    fn text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("adit");
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }

    fn agents(&self, out: &mut Out<'_>) -> fmt::Result {
        let connected = self.gateway.agents;
        let known = self.parts.directory.count();
        let offline = known.saturating_sub(connected.online + connected.suspect);
        out.gauges(
            "agents",
            "Enrolled agents by status",
            "status",
            [
                ("online", connected.online as u64),
                ("unresponsive", connected.suspect as u64),
                ("offline", offline as u64),
            ],
        )?;
        let mut refused = self.parts.admission.read();
        refused.insert("not_registered", self.gateway.node.not_registered);
        out.counters(
            "agents_refused",
            "Connections of agents with a good certificate that were refused",
            "cause",
            refused,
        )?;
        out.counter(
            "routes_refused",
            "Route advertisements without effect because they were too long",
            self.gateway.node.routes_refused,
        )?;
        let odd = self.gateway.node.oddities;
        out.counters(
            "protocol_oddities",
            "What agents sent that the protocol has no use for; counted when their connection ends",
            "kind",
            [
                ("version_ignored", odd.versions_ignored),
                ("stream_stray", odd.streams_stray),
                ("setup_malformed", odd.setups_malformed),
                ("setup_abandoned", odd.setups_abandoned),
            ],
        )
    }

    fn sessions(&self, out: &mut Out<'_>) -> fmt::Result {
        let node = &self.gateway.node;
        out.gauge(
            "sessions_open",
            "Sessions that are open",
            self.gateway.sessions_open as u64,
        )?;
        out.gauge(
            "sessions_opening",
            "Sessions that are being opened",
            self.gateway.sessions_opening as u64,
        )?;
        out.gauge(
            "sessions_opening_limit",
            "Sessions being opened that are allowed",
            self.gateway.opening_max as u64,
        )?;
        let failover = self.gateway.failover;
        out.counters(
            "failover",
            "Agents asked beside one that had not answered, and agents overtaken by those",
            "kind",
            [("raced", failover.raced), ("overtaken", failover.overtaken)],
        )?;
        out.counter("sessions_opened", "Sessions opened", node.opened)?;
        out.counters(
            "sessions_failed",
            "Sessions that could not be opened",
            "cause",
            node.failed.iter().map(|(cause, n)| (cause.word(), *n)),
        )?;
        out.counter(
            "sessions_given_up",
            "Sessions whose users left before they were open",
            node.given_up,
        )?;
        out.counters(
            "sessions_ended",
            "Sessions that have ended",
            "how",
            node.ended.iter().map(|(how, n)| (how.word(), *n)),
        )?;
        out.counters(
            "session_bytes",
            "Bytes of users; of sessions that the gateway dials itself, counted when they end",
            "direction",
            [
                ("from_user", self.gateway.bytes_from_users),
                ("to_user", self.gateway.bytes_to_users),
            ],
        )
    }

    fn tunnel(&self, out: &mut Out<'_>) -> fmt::Result {
        let endpoint = self.gateway.endpoint;
        let load = self.gateway.load;
        for (name, help, value) in [
            (
                "connections",
                "Connections of agents, handshakes included",
                load.connections,
            ),
            (
                "connections_limit",
                "Connections of agents that are allowed",
                load.limits.connections,
            ),
            (
                "handshakes_pending",
                "Handshakes in progress",
                load.handshakes,
            ),
            (
                "handshakes_limit",
                "Handshakes in progress that are allowed",
                load.limits.handshakes,
            ),
        ] {
            out.gauge(name, help, value as u64)?;
        }
        out.counter(
            "handshakes_begun",
            "Handshakes that peers began",
            endpoint.accepted,
        )?;
        out.counter(
            "handshakes_retried",
            "Clients asked to prove their address first",
            endpoint.retried,
        )?;
        out.counters(
            "handshakes_refused",
            "Handshakes refused before they began, by the limit that was reached",
            "cause",
            [
                ("agents", endpoint.refused.connections),
                ("handshakes", endpoint.refused.handshakes),
                ("handshakes_per_source", endpoint.refused.source),
                ("malformed", endpoint.malformed),
            ],
        )?;
        out.counter(
            "handshakes_failed",
            "Handshakes that began and came to nothing",
            self.gateway.node.handshakes_failed,
        )?;
        out.counter(
            "udp_send_blocked",
            "Times that the tunnel's UDP socket had no room; what was to be sent waited",
            self.gateway.blocked,
        )?;
        out.counters(
            "datagrams_dropped",
            "Datagrams that led to nothing",
            "cause",
            [
                ("stray", endpoint.dropped),
                ("reset_withheld", endpoint.resets_withheld),
                ("inbox_full", self.gateway.overflowed),
            ],
        )
    }

    fn bounds(&self, out: &mut Out<'_>) -> fmt::Result {
        type Field = fn(&UsageRow) -> u64;
        let each: [(&str, &str, Field); 2] = [
            ("bound_used", "How much of a bound is used", |row| row.used),
            ("bound_limit", "How much is allowed", |row| row.limit),
        ];
        for (name, help, field) in each {
            let rows = self.usage.iter().map(|row| (&*row.what, field(row)));
            out.gauges(name, help, "bound", rows)?;
        }
        Ok(())
    }

    fn calls(&self, out: &mut Out<'_>) -> fmt::Result {
        let http = &self.parts.http;
        out.counter("enrolments", "Agents enrolled", read(&http.enrolments))?;
        out.counters(
            "enrolments_refused",
            "Enrolments refused",
            "cause",
            http.enrolments_refused.read(),
        )?;
        out.counter(
            "api_calls",
            "Calls of the agents API that were answered",
            read(&http.calls),
        )?;
        out.counters(
            "api_calls_refused",
            "Calls of the agents API that were refused",
            "cause",
            http.calls_refused.read(),
        )?;
        out.counters(
            "tokens_refused",
            "Tokens refused, for enrolments and for calls",
            "cause",
            http.tokens_refused.read(),
        )?;
        out.counters(
            "renewals",
            "Renewals of agents' certificates",
            "outcome",
            with_zeros(&http.renewals, ["granted", "refused"]),
        )?;
        out.counters(
            "reloads",
            "Configurations read again",
            "outcome",
            with_zeros(&http.reloads, ["ok", "failed"]),
        )
    }

    fn listeners(&self, out: &mut Out<'_>) -> fmt::Result {
        type Field = fn(&ListenerCounters) -> &AtomicU64;
        let each: [(&str, &str, Field); 5] = [
            ("accepted", "HTTP connections accepted", |c| &c.accepted),
            ("accept_failed", "Accepts that failed", |c| &c.accept_failed),
            ("places_full", "Times that all places were taken", |c| {
                &c.places_full
            }),
            (
                "share_full",
                "HTTP connections closed because their source had its share",
                |c| &c.share_full,
            ),
            ("tls_failed", "TLS handshakes that failed", |c| {
                &c.tls_failed
            }),
        ];
        for (name, help, field) in each {
            let all = self.parts.listeners.iter();
            out.counters(
                &format!("http_{name}"),
                help,
                "listener",
                all.map(|(listener, counters)| (*listener, read(field(counters)))),
            )?;
        }
        Ok(())
    }

    fn ingress(&self, out: &mut Out<'_>) -> fmt::Result {
        type Field = fn(&ingress::Counters) -> &AtomicU64;
        let each: [(&str, &str, Field); 11] = [
            ("accepted", "Connections of users accepted", |c| &c.accepted),
            ("opened", "Connections that became sessions", |c| &c.opened),
            ("refused", "Connections whose session was refused", |c| {
                &c.refused
            }),
            (
                "left",
                "Users who left before their session was open",
                |c| &c.left,
            ),
            (
                "source_refused",
                "Connections from addresses that may not use the ingress",
                |c| &c.source_refused,
            ),
            (
                "not_allowed",
                "Sessions refused because their user may not open the target",
                |c| &c.not_allowed,
            ),
            ("unauthorised", "Users without good credentials", |c| {
                &c.unauthorised
            }),
            ("handshakes_failed", "Proxy handshakes that failed", |c| {
                &c.handshakes_failed
            }),
            (
                "handshakes_full",
                "Times that users waited for the limit of handshakes",
                |c| &c.handshakes_full,
            ),
            (
                "share_full",
                "Connections closed because their source had its share",
                |c| &c.share_full,
            ),
            ("accept_failed", "Accepts that failed", |c| &c.accept_failed),
        ];
        for (name, help, field) in each {
            let all = self.parts.ingress.iter();
            out.counters(
                &format!("ingress_{name}"),
                help,
                "ingress",
                all.map(|(ingress, counters)| (&**ingress, read(field(counters)))),
            )?;
        }
        Ok(())
    }
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        let version = [(env!("CARGO_PKG_VERSION"), 1)];
        out.gauges("build_info", "The running program", "version", version)?;
        self.agents(&mut out)?;
        self.sessions(&mut out)?;
        self.tunnel(&mut out)?;
        self.bounds(&mut out)?;
        self.calls(&mut out)?;
        self.listeners(&mut out)?;
        self.ingress(&mut out)?;
        if let Some(links) = &self.parts.links {
            peers::links(links.counts(), &mut out)?;
        }
        (self.peers.as_ref()).map_or(Ok(()), |peers| peers.encode(&mut out))
    }
}

struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, u64, u64>(&value, None)
    }

    fn gauges<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (word, value) in values {
            family
                .encode_family(&[(label, word)])?
                .encode_gauge(&value)?;
        }
        Ok(())
    }

    fn counters<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (word, value) in values {
            family
                .encode_family(&[(label, word)])?
                .encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
        }
        Ok(())
    }
}

/// The words appear before they are counted for the first time.
fn with_zeros(causes: &Causes, words: [&'static str; 2]) -> BTreeMap<&'static str, u64> {
    let mut counts = causes.read();
    for word in words {
        counts.entry(word).or_default();
    }
    counts
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
