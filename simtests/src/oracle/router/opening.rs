//! A session that is being opened, as the reference router knows it.

use std::net::{IpAddr, Ipv6Addr};

use adit_proto_core::{
    gateway::dispatch::{DirectRange, DirectRule},
    id::{AgentId, AttemptId, ConnId},
    target::{Host, Target},
};

use crate::{At, model::router::Way};

#[derive(Debug)]
pub(super) struct Opening {
    pub(super) target: Target,
    pub(super) pinned: Option<AgentId>,
    pub(super) since: At,
    pub(super) tried: Vec<Tried>,
    /// When the latest attempt began that nothing was heard of.
    pub(super) waiting_since: Option<At>,
    /// Another candidate is to be asked at once: the one asked last failed lately, or a connection stalls or is outdated.
    pub(super) must_go_on: bool,
    /// When that was for one who failed lately: it is so once in an instant, unless one fails in it.
    pub(super) beside_at: Option<At>,
    /// The first of `tried` that was asked since one failed.
    pub(super) turn_from: usize,
}

/// Targets that are thought to share their fate: a /24, a /64, or one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Area {
    Net(IpAddr),
    Name(Box<str>),
}

impl Area {
    pub(super) fn of(target: &Target) -> Self {
        match &target.host {
            Host::Ip(IpAddr::V4(ip)) => {
                let [a, b, c, _] = ip.octets();
                Self::Net([a, b, c, 0].into())
            }
            Host::Ip(IpAddr::V6(ip)) => {
                Self::Net(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into())
            }
            Host::Name(name) => Self::Name(name.clone()),
        }
    }
}

#[derive(Debug)]
pub(super) struct Tried {
    pub(super) agent: AgentId,
    pub(super) attempt: Option<AttemptId>,
    pub(super) conn: ConnId,
    /// When it was asked.
    pub(super) since: At,
    pub(super) outdated: bool,
}

impl Opening {
    pub(super) fn new(since: At, target: Target, pinned: Option<AgentId>) -> Self {
        Self {
            target,
            pinned,
            since,
            tried: Vec::new(),
            waiting_since: None,
            must_go_on: false,
            beside_at: None,
            turn_from: 0,
        }
    }

    /// One is asked at this time. Another has to be asked beside it if it `failed_lately`, and no third.
    pub(super) fn ask_beside(&mut self, at: At, failed_lately: bool) {
        self.must_go_on = failed_lately && self.beside_at != Some(at);
        if self.must_go_on {
            self.beside_at = Some(at);
        }
    }

    pub(super) fn pass_over(&mut self, way: &Way) {
        self.tried.push(Tried {
            agent: way.agent,
            attempt: None,
            conn: way.conn,
            since: self.since,
            outdated: false,
        });
    }
}

/// What a gateway may dial itself, said simply.
pub(super) fn allows(rule: &DirectRule, target: &Target) -> bool {
    let host = match (&rule.range, &target.host) {
        (DirectRange::Subnet(net), Host::Ip(ip)) => net.network() <= *ip && *ip <= net.broadcast(),
        (DirectRange::Domain(pattern), Host::Name(name)) => pattern.matches(name),
        (DirectRange::Subnet(_), Host::Name(_)) | (DirectRange::Domain(_), Host::Ip(_)) => false,
    };
    host && rule.port.is_none_or(|port| port == target.port)
}
