//! What is counted of calls between gateways (peer-rpc 10.3).

use std::{collections::BTreeMap, fmt};

use adit_io_common::peers::{PeerRow, PeersHandle};
use adit_io_tokio::LinkCounts;
use adit_proto_core::peer::{
    NodeId,
    breaker::BreakerState,
    counters::{
        AuthFail, CallResult, HandshakeResult, LATENCY_BOUNDS, Latency, PeerCounters, Side,
    },
    rpc_type::RpcType,
    verdict::Accepted,
};

use prometheus_client::{encoding::NoLabelSet, metrics::MetricType};

use super::Out;
use crate::peers::ends::Own;

/// Everything of the peers at one moment.
#[derive(Debug)]
pub(super) struct Peers {
    counters: PeerCounters,
    rows: Vec<PeerRow>,
    /// The largest step of each node's numbers.
    jumps: Vec<(NodeId, u64)>,
    /// Bytes that are declared and not yet handled.
    buffered: u64,
    own: Option<(NodeId, i64)>,
}

/// What is counted of sessions on replica links.
pub(super) fn links(counts: LinkCounts, out: &mut Out<'_>) -> fmt::Result {
    out.gauges(
        "peer_links_open",
        "Sessions on replica links, or that wait for one, by who dialled",
        "side",
        [
            ("dialled", counts.dialled_open),
            ("accepted", counts.accepted_open),
        ],
    )?;
    out.counters(
        "peer_links_dialled",
        "Replica links that were dialled for sessions",
        "result",
        [("ok", counts.dialled), ("failed", counts.failed)],
    )
}

impl Peers {
    /// Asks for all of it; peers that have stopped list none.
    pub(super) async fn ask(handle: &PeersHandle, own: &Own) -> Self {
        Self {
            own: *own.get(),
            rows: handle.list().await.unwrap_or_default(),
            counters: handle.counters(),
            jumps: handle.ledger().jumps(),
            buffered: handle.ledger().unread().used(),
        }
    }

    pub(super) fn encode(&self, out: &mut Out<'_>) -> fmt::Result {
        self.calls(out)?;
        self.trust(out)?;
        out.gauge(
            "peer_rpc_buffered_bytes",
            "Bytes of messages that peers have declared and that are not yet handled",
            self.buffered,
        )?;
        let breakers = self.rows.iter().map(|row| {
            let state = match row.status.breaker {
                BreakerState::Closed => 0,
                BreakerState::HalfOpen => 1,
                BreakerState::Open => 2,
            };
            (row.status.node, state)
        });
        out.of_nodes(
            "peer_rpc_breaker_state",
            "Whether a peer is called: 0 closed, it is; 1 half-open, one call tries it; 2 open, it is not",
            breakers,
        )?;
        let shown = self.rows.iter();
        let shown = shown.filter_map(|row| Some((row.status.node, row.certificate_end?)));
        let ends = self.own.into_iter().chain(shown);
        out.of_nodes(
            "peer_certificate_end_seconds",
            "Unix time at which the certificate ends that a gateway of the cluster shows; this one, and peers that it has dialled",
            ends.map(|(node, end)| (node, u64::try_from(end).unwrap_or_default())),
        )?;
        out.of_nodes(
            "peer_rpc_replay_window_jump",
            "The largest step of the numbers of a peer's messages",
            self.jumps.iter().copied(),
        )
    }

    fn calls(&self, out: &mut Out<'_>) -> fmt::Result {
        let counters = &self.counters;
        let requests = counters.requests.iter();
        let requests = requests.map(|((side, kind, result), n)| {
            let words = [side_word(*side), kind_word(*kind), result_word(*result)];
            (words, *n)
        });
        out.requests(
            "peer_rpc_requests",
            "Calls between gateways that are over",
            ["dir", "type", "result"],
            requests,
        )?;
        let of_side = |counts: &BTreeMap<Side, u64>, side| {
            (side_word(side), counts.get(&side).copied().unwrap_or(0))
        };
        out.counters(
            "peer_rpc_bytes",
            "Bytes of messages sent to peers and received from them",
            "dir",
            SIDES.map(|side| of_side(&counters.bytes, side)),
        )?;
        out.gauges(
            "peer_rpc_inflight",
            "Calls between gateways that are under way",
            "dir",
            SIDES.map(|side| of_side(&counters.in_flight, side)),
        )?;
        let latency = counters.latency.iter();
        out.latencies(
            "peer_rpc_latency_seconds",
            "How long calls of this gateway to its peers took that were answered",
            "type",
            latency.map(|(kind, latency)| (kind_word(*kind), latency)),
        )
    }

    fn trust(&self, out: &mut Out<'_>) -> fmt::Result {
        let counters = &self.counters;
        let failed = |reason: AuthFail| counters.auth_fail.get(&reason).copied().unwrap_or(0);
        out.counters(
            "peer_rpc_auth_fail",
            "Messages of peers that were not believed",
            "reason",
            AUTH_FAILS.map(|(reason, word)| (word, failed(reason))),
        )?;
        let accepted = |how: Accepted| counters.identity.get(&how).copied().unwrap_or(0);
        let identities = IDENTITIES.map(|(how, word)| (word, accepted(how)));
        let rejected = ("reject", counters.identity_rejected);
        out.counters(
            "peer_rpc_identity",
            "Messages by why their sender was believed, or not",
            "outcome",
            identities.into_iter().chain([rejected]),
        )?;
        let ended =
            |result: HandshakeResult| counters.handshakes.get(&result).copied().unwrap_or(0);
        out.counters(
            "peer_rpc_version_handshake",
            "Version handshakes with peers that are over",
            "result",
            HANDSHAKES.map(|(result, word)| (word, ended(result))),
        )?;
        out.gauge(
            "peer_rpc_insecure_transports",
            "Endpoints for peers where nobody proves anything (peers.insecure)",
            counters.insecure_transports,
        )
    }
}

impl Out<'_> {
    fn of_nodes(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (NodeId, u64)>,
    ) -> fmt::Result {
        let values: Vec<_> = values.map(|(node, n)| (node.0.to_string(), n)).collect();
        self.gauges(
            name,
            help,
            "peer",
            values.iter().map(|(node, n)| (&**node, *n)),
        )
    }

    fn requests(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; 3],
        values: impl Iterator<Item = ([&'static str; 3], u64)>,
    ) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for ([dir, kind, result], value) in values {
            let labels = [(labels[0], dir), (labels[1], kind), (labels[2], result)];
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
        }
        Ok(())
    }

    fn latencies<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'v str, &'v Latency)>,
    ) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (word, latency) in values {
            let bounds = LATENCY_BOUNDS.iter().map(|bound| bound.as_secs_f64());
            let buckets: Vec<_> = bounds.chain([f64::MAX]).zip(latency.counts).collect();
            family
                .encode_family(&[(label, word)])?
                .encode_histogram::<NoLabelSet>(
                    latency.sum.as_secs_f64(),
                    latency.counts.iter().sum(),
                    &buckets,
                    None,
                )?;
        }
        Ok(())
    }
}

fn side_word(side: Side) -> &'static str {
    match side {
        Side::In => "in",
        Side::Out => "out",
    }
}

fn result_word(result: CallResult) -> &'static str {
    match result {
        CallResult::Answered => "answered",
        CallResult::Refused => "refused",
        CallResult::Failed => "failed",
    }
}

fn kind_word(kind: RpcType) -> &'static str {
    match kind {
        RpcType::AppendEntries => "append_entries",
        RpcType::AppendEntriesAnswer => "append_entries_answer",
        RpcType::RequestVote => "request_vote",
        RpcType::RequestVoteAnswer => "request_vote_answer",
        RpcType::InstallSnapshot => "install_snapshot",
        RpcType::InstallSnapshotAnswer => "install_snapshot_answer",
        RpcType::Join => "join",
        RpcType::JoinAnswer => "join_answer",
        RpcType::Ping => "ping",
        RpcType::Pong => "pong",
        RpcType::TopologyUpdate => "topology_update",
        RpcType::TopologyAck => "topology_ack",
        RpcType::ShardEnvelope => "shard_envelope",
        RpcType::MetadataPropose => "metadata_propose",
        RpcType::MetadataProposeAnswer => "metadata_propose_answer",
        RpcType::Execute => "execute",
        RpcType::ExecuteAnswer => "execute_answer",
        RpcType::DataPropose => "data_propose",
        RpcType::DataProposeAnswer => "data_propose_answer",
        RpcType::TimeoutNow => "timeout_now",
        RpcType::PreVote => "pre_vote",
        RpcType::PreVoteAnswer => "pre_vote_answer",
        RpcType::ReadIndex => "read_index",
        RpcType::ReadIndexAnswer => "read_index_answer",
        RpcType::Catalogue => "catalogue",
        RpcType::CatalogueAnswer => "catalogue_answer",
        RpcType::WindowReset => "window_reset",
        RpcType::WindowResetAnswer => "window_reset_answer",
        RpcType::Refusal => "refusal",
    }
}

const SIDES: [Side; 2] = [Side::In, Side::Out];

const AUTH_FAILS: [(AuthFail, &str); 7] = [
    (AuthFail::Mac, "mac"),
    (AuthFail::Replay, "replay"),
    (AuthFail::Stale, "stale"),
    (AuthFail::Reserved, "reserved"),
    (AuthFail::Identity, "identity"),
    (AuthFail::NoCert, "no_cert"),
    (AuthFail::BoundId, "bound_id"),
];

const IDENTITIES: [(Accepted, &str); 6] = [
    (Accepted::Spiffe, "spiffe"),
    (Accepted::Spki, "spki"),
    (Accepted::Bootstrap, "bootstrap"),
    (Accepted::Enrolled, "enrol"),
    (Accepted::Own, "own"),
    (Accepted::Insecure, "insecure"),
];

const HANDSHAKES: [(HandshakeResult, &str); 4] = [
    (HandshakeResult::Agreed, "agreed"),
    (HandshakeResult::Disjoint, "disjoint"),
    (HandshakeResult::Malformed, "malformed"),
    (HandshakeResult::TimedOut, "timed_out"),
];
