//! What is counted, as plain values; an exporter gives them their names (peer-rpc 10.3).
//!
//! Three of them lie elsewhere: [`Budget::used`](super::budget::Budget::used) is `peer_rpc_buffered_bytes`,
//! [`Breaker::state`](super::breaker::Breaker::state) is `peer_rpc_breaker_state{peer}`, and
//! [`Windows::jumps`](super::ledger::Windows::jumps) is `peer_rpc_replay_window_jump{peer}`.

use std::{collections::BTreeMap, time::Duration};

use super::{
    envelope::EnvelopeError, receive::ReceiveError, response::ResponseError, rpc_type::RpcType,
    verdict::Accepted, verdict::IdentityError, window::ReplayError,
};

/// Counters of a node's peer RPC. Every label has few values, so no peer can make them grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// `peer_rpc_requests_total{dir,type,result}`
    pub requests: BTreeMap<(Side, RpcType, CallResult), u64>,
    /// `peer_rpc_auth_fail_total{reason}`
    pub auth_fail: BTreeMap<AuthFail, u64>,
    /// `peer_rpc_identity_total{outcome}`, where something was accepted.
    pub identity: BTreeMap<Accepted, u64>,
    /// `peer_rpc_identity_total{outcome="reject"}`
    pub identity_rejected: u64,
    /// `peer_rpc_version_handshake_total{result}`
    pub handshakes: BTreeMap<HandshakeResult, u64>,
    /// `peer_rpc_bytes_total{dir}`: whole envelopes, header and tag included; of those received also the ones that are refused.
    pub bytes: BTreeMap<Side, u64>,
    /// `peer_rpc_inflight{dir}`
    pub in_flight: BTreeMap<Side, u64>,
    /// `insecure_transport_count`: endpoints without any security that were made.
    pub insecure_transports: u64,
    /// `peer_rpc_latency_seconds{type}`, of calls that this node made and that were answered.
    pub latency: BTreeMap<RpcType, Latency>,
}

/// How long calls took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Calls that took at most each of [`LATENCY_BOUNDS`] and longer than the bound before; the last are those above all.
    pub counts: [u64; LATENCY_BOUNDS.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

/// Upper bounds of the buckets, from a call within one site to the time that a call may take.
pub const LATENCY_BOUNDS: [Duration; 8] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The peer.
    In,
    /// This node.
    Out,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallResult {
    /// It was answered.
    Answered,
    /// It was refused with a reason.
    Refused,
    /// It failed.
    Failed,
}

/// How a version handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HandshakeResult {
    /// A version was agreed on.
    Agreed,
    /// There is no common one.
    Disjoint,
    /// The message was none.
    Malformed,
    /// It took too long.
    TimedOut,
}

/// Why a message is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuthFail {
    /// The tag.
    Mac,
    /// A number that came before.
    Replay,
    /// A number that is too old.
    Stale,
    /// Number 0.
    Reserved,
    /// A certificate that is not the node's.
    Identity,
    /// No certificate.
    NoCert,
    /// A node on another's connection.
    BoundId,
}

impl AuthFail {
    /// Why a request was not believed; none where it was, and failed for something else.
    #[must_use]
    pub fn of_request(error: &ReceiveError) -> Option<Self> {
        match error {
            ReceiveError::Envelope(error) => Self::of_envelope(error),
            ReceiveError::Identity(error) => Some(Self::of_identity(error)),
            ReceiveError::NotForUs { .. } => Some(Self::Identity),
            ReceiveError::Replay(error) => Some(Self::of_number(error)),
            ReceiveError::BadReset { .. } => Some(Self::Stale),
            ReceiveError::NoWindow
            | ReceiveError::Epoch(_)
            | ReceiveError::Frame(_)
            | ReceiveError::Kind(_)
            | ReceiveError::NoRequest(_) => None,
        }
    }

    /// The same of an answer.
    #[must_use]
    pub fn of_response(error: &ResponseError) -> Option<Self> {
        match error {
            ResponseError::Envelope(error) => Self::of_envelope(error),
            ResponseError::Identity(error) => Some(Self::of_identity(error)),
            ResponseError::NotForUs { .. } => Some(Self::Identity),
            ResponseError::WrongSender { .. } => Some(Self::BoundId),
            ResponseError::Replay(error) => Some(Self::of_number(error)),
            ResponseError::Unanswered
            | ResponseError::NoWindow
            | ResponseError::Epoch(_)
            | ResponseError::Frame(_)
            | ResponseError::Kind(_)
            | ResponseError::WrongAnswer { .. }
            | ResponseError::Refusal(_) => None,
        }
    }

    fn of_envelope(error: &EnvelopeError) -> Option<Self> {
        match error {
            EnvelopeError::Mac => Some(Self::Mac),
            EnvelopeError::TooShort { .. }
            | EnvelopeError::Version { .. }
            | EnvelopeError::InnerLenExceedsMax { .. }
            | EnvelopeError::LengthMismatch { .. }
            | EnvelopeError::UnexpectedEnd { .. }
            | EnvelopeError::OverBudget { .. } => None,
        }
    }

    fn of_number(error: &ReplayError) -> Self {
        match error {
            ReplayError::Reserved => Self::Reserved,
            ReplayError::Stale { .. } => Self::Stale,
            ReplayError::Replay { .. } => Self::Replay,
        }
    }

    fn of_identity(error: &IdentityError) -> Self {
        match error {
            IdentityError::NoCertificate => Self::NoCert,
            IdentityError::BoundTo { .. } => Self::BoundId,
            IdentityError::NotVouched
            | IdentityError::BadLeaf(_)
            | IdentityError::Unknown
            | IdentityError::NoPins
            | IdentityError::WrongKey
            | IdentityError::WrongSpiffe
            | IdentityError::OwnedBy { .. }
            | IdentityError::ClaimsToBeUs
            | IdentityError::JoinRefused => Self::Identity,
        }
    }
}

impl PeerCounters {
    /// A call has ended.
    pub fn ended(&mut self, side: Side, kind: RpcType, result: CallResult) {
        add(&mut self.requests, (side, kind, result), 1);
    }

    /// Bytes of an envelope went one way.
    pub fn moved(&mut self, side: Side, bytes: u64) {
        add(&mut self.bytes, side, bytes);
    }

    /// A version handshake has ended.
    pub fn handshake(&mut self, result: HandshakeResult) {
        add(&mut self.handshakes, result, 1);
    }

    /// A request came whose sender was accepted.
    pub fn accepted(&mut self, accepted: Accepted) {
        add(&mut self.identity, accepted, 1);
    }

    /// A request was refused.
    pub fn refused(&mut self, error: &ReceiveError) {
        if matches!(error, ReceiveError::Identity(_)) {
            self.identity_rejected = self.identity_rejected.saturating_add(1);
        }
        if let Some(reason) = AuthFail::of_request(error) {
            add(&mut self.auth_fail, reason, 1);
        }
    }

    /// An answer was not taken.
    pub fn distrusted(&mut self, error: &ResponseError) {
        if let Some(reason) = AuthFail::of_response(error) {
            add(&mut self.auth_fail, reason, 1);
        }
    }

    /// A call of this node was answered after so long.
    pub fn answered_after(&mut self, kind: RpcType, took: Duration) {
        let latency = self.latency.entry(kind).or_default();
        let bucket = LATENCY_BOUNDS.partition_point(|bound| *bound < took);
        if let Some(count) = latency.counts.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        latency.sum = latency.sum.saturating_add(took);
    }

    /// A call has begun.
    pub fn began(&mut self, side: Side) {
        add(&mut self.in_flight, side, 1);
    }

    /// A call that had begun is over.
    pub fn over(&mut self, side: Side) {
        let running = self.in_flight.entry(side).or_default();
        *running = running.saturating_sub(1);
    }
}

fn add<K: Ord>(counters: &mut BTreeMap<K, u64>, key: K, more: u64) {
    let counter = counters.entry(key).or_default();
    *counter = counter.saturating_add(more);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::NodeId;

    #[test]
    fn every_refusal_has_its_reason() {
        let stale = ReplayError::Stale { seq: 1, high: 9 };
        let bound = IdentityError::BoundTo { bound: NodeId(1) };
        let mut counters = PeerCounters::default();
        for (error, reason) in [
            (EnvelopeError::Mac.into(), AuthFail::Mac),
            (ReplayError::Replay { seq: 1 }.into(), AuthFail::Replay),
            (stale.into(), AuthFail::Stale),
            (ReplayError::Reserved.into(), AuthFail::Reserved),
            (IdentityError::WrongKey.into(), AuthFail::Identity),
            (IdentityError::NoCertificate.into(), AuthFail::NoCert),
            (bound.into(), AuthFail::BoundId),
        ] {
            counters.refused(&error);
            assert_eq!(counters.auth_fail.get(&reason), Some(&1), "{error}");
        }
        assert_eq!(counters.identity_rejected, 3);
        counters.refused(&EnvelopeError::TooShort { len: 1 }.into());
        assert_eq!(counters.auth_fail.values().sum::<u64>(), 7);
    }

    #[test]
    fn what_is_under_way_goes_up_and_down() {
        let mut counters = PeerCounters::default();
        counters.began(Side::In);
        counters.began(Side::In);
        counters.over(Side::In);
        counters.over(Side::Out);
        assert_eq!(counters.in_flight.get(&Side::In), Some(&1));
        assert_eq!(counters.in_flight.get(&Side::Out), Some(&0));
        counters.ended(Side::In, RpcType::Ping, CallResult::Answered);
        counters.moved(Side::In, 53);
        counters.moved(Side::In, 53);
        assert_eq!(counters.bytes.get(&Side::In), Some(&106));
    }
    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let mut counters = PeerCounters::default();
        for took in [0, 500, 501, 5_000_000, 5_000_001] {
            counters.answered_after(RpcType::Ping, Duration::from_micros(took));
        }
        let latency = &counters.latency[&RpcType::Ping];
        assert_eq!(latency.counts, [2, 1, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(latency.sum, Duration::from_micros(10_001_002));
    }
}
