//! Which handshakes are begun, by how many are in progress in all and from one source (design 8.13).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use crate::limits;

/// Bounds of an endpoint that may be changed while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointLimits {
    /// Connections whose handshake has succeeded; from there on none is begun. Handshakes in progress are bounded apart, so
    /// that who has no certificate takes no place of those who have: agents that come in one instant may exceed it by
    /// those.
    pub connections: usize,
    /// Handshakes in progress in all, those that have failed included until their farewell is over; a further one is
    /// refused.
    pub handshakes: usize,
    /// Handshakes in progress above which a client must first prove its address.
    pub handshakes_retry: usize,
    /// Handshakes in progress from one source, an IPv4 address or an IPv6 /64, that has proved its address; a further
    /// one is refused.
    pub handshakes_per_source: usize,
    /// Bytes that may wait for readers that do not keep up, for each connection; sessions of more than a share are ended
    /// above it. [`limits::UNREAD_BUDGET_MIN`] to [`limits::UNREAD_BUDGET_MAX`]; it counts for connections to come.
    pub unread: u64,
    /// Bytes that may wait on all connections together for readers that have stopped; sessions of the connection that
    /// holds most are ended above it. It counts at once.
    pub unread_in_all: u64,
}

impl Default for EndpointLimits {
    fn default() -> Self {
        Self {
            connections: limits::AGENTS_MAX,
            handshakes: limits::HANDSHAKES_MAX,
            handshakes_retry: limits::HANDSHAKES_RETRY,
            handshakes_per_source: limits::HANDSHAKES_PER_SOURCE_MAX,
            unread: limits::UNREAD_BUDGET,
            unread_in_all: limits::UNREAD_IN_ALL,
        }
    }
}

/// Handshakes in progress, and what becomes of one more.
#[derive(Debug, Default)]
pub(super) struct Admission {
    handshakes: usize,
    sources: BTreeMap<Source, Pending>,
}

/// What becomes of a client that would begin a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is a place for it.
    Begin,
    /// It must first prove its address.
    Retry,
    /// There is none.
    Refuse(Limit),
}

/// Who would begin a handshake, or began one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    source: Source,
    proof: Proof,
}

impl Client {
    pub(super) fn of(ip: IpAddr, is_proven: bool) -> Self {
        Self {
            source: Source::of(ip),
            proof: if is_proven {
                Proof::Proven
            } else {
                Proof::Unproven
            },
        }
    }
}

/// What handshakes are counted by: an IPv4 address, or the /64 of an IPv6 one, all of which one host may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source(IpAddr);

impl Source {
    fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        })
    }
}

/// Whether a client has shown that it receives what is sent to its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Proven,
    Unproven,
}

/// A limit of [`EndpointLimits`] that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Connections,
    Handshakes,
    Source,
}

/// Handshakes in progress from one source. They are counted apart, as anybody can begin unproven ones in another's
/// name: those never refuse a client that proved its address.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    proven: usize,
    unproven: usize,
}

impl Pending {
    fn of(&mut self, proof: Proof) -> &mut usize {
        match proof {
            Proof::Proven => &mut self.proven,
            Proof::Unproven => &mut self.unproven,
        }
    }

    fn all(self) -> usize {
        self.proven + self.unproven
    }
}

impl Admission {
    pub(super) fn handshakes(&self) -> usize {
        self.handshakes
    }

    /// `may_retry`: the client can be asked to prove its address. `live` are all connections, those whose handshake is in
    /// progress included.
    pub(super) fn verdict(
        &self,
        client: Client,
        may_retry: bool,
        live: usize,
        allowed: &EndpointLimits,
    ) -> Verdict {
        let pending = (self.sources.get(&client.source).copied()).unwrap_or_default();
        let full = self.full(client.proof, pending, live, allowed);
        match client.proof {
            Proof::Proven => {}
            Proof::Unproven => {
                let retry_mark =
                    limits::HANDSHAKES_PER_SOURCE_RETRY.min(allowed.handshakes_per_source);
                let retry = full.is_some()
                    || self.handshakes >= allowed.handshakes_retry
                    || pending.all() >= retry_mark;
                if retry && may_retry {
                    return Verdict::Retry;
                }
            }
        }
        full.map_or(Verdict::Begin, Verdict::Refuse)
    }

    /// Tells which limit leaves no place for one handshake more.
    fn full(
        &self,
        proof: Proof,
        pending: Pending,
        live: usize,
        allowed: &EndpointLimits,
    ) -> Option<Limit> {
        let source_full = pending.proven >= allowed.handshakes_per_source;
        if live - self.handshakes >= allowed.connections {
            Some(Limit::Connections)
        } else if self.handshakes >= allowed.handshakes {
            Some(Limit::Handshakes)
        } else {
            (proof == Proof::Proven && source_full).then_some(Limit::Source)
        }
    }

    /// Takes a place.
    pub(super) fn begun(&mut self, client: Client) {
        self.handshakes += 1;
        *self
            .sources
            .entry(client.source)
            .or_default()
            .of(client.proof) += 1;
    }

    /// Gives the place back.
    pub(super) fn over(&mut self, client: Client) {
        self.handshakes = self.handshakes.saturating_sub(1);
        if let Some(pending) = self.sources.get_mut(&client.source) {
            *pending.of(client.proof) -= 1;
            if pending.all() == 0 {
                self.sources.remove(&client.source);
            }
        }
    }
}
