//! Pools of nested routes and of hosts that fall between them, and short names for agents.

use std::sync::OnceLock;

use adit_proto_core::{
    domain::DomainPattern,
    id::AgentId,
    identity::AgentIdentity,
    route::{DomainRoute, RouteSet},
    target::Host,
};
use ipnet::IpNet;
use uuid::Uuid;

use crate::input::Input;

/// What scripts draw from, parsed once.
struct Pool {
    nets: Vec<IpNet>,
    domains: Vec<DomainRoute>,
    hosts: Vec<Host>,
}

pub(crate) fn routes(input: &mut Input<'_>) -> RouteSet {
    let mut routes = RouteSet::default();
    for _ in 0..input.below(5) {
        if input.flag() {
            routes.subnets.push(*input.pick(&pool().nets));
        } else {
            routes.domains.push(input.pick(&pool().domains).clone());
        }
    }
    routes
}

pub(crate) fn host(input: &mut Input<'_>) -> Host {
    input.pick(hosts()).clone()
}

/// Every host of the pool.
pub(crate) fn hosts() -> &'static [Host] {
    &pool().hosts
}

pub(crate) fn agent_id(n: u8) -> AgentId {
    AgentId(Uuid::from_u128(n.into()))
}

pub(crate) fn identity(agent: u8, key: u8) -> AgentIdentity {
    AgentIdentity {
        id: agent_id(agent),
        name: "agent".into(),
        fingerprint: [0; 32],
        spki_sha256: [key; 32],
    }
}

fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    let domain = |text: &&str| DomainRoute {
        pattern: known(DomainPattern::parse(text)),
        auto_detected: false,
    };
    POOL.get_or_init(|| Pool {
        nets: NETS.iter().map(|text| known(text.parse())).collect(),
        domains: DOMAINS.iter().map(domain).collect(),
        hosts: HOSTS.iter().map(|text| known(text.parse())).collect(),
    })
}

fn known<T, E>(parsed: Result<T, E>) -> T {
    let Ok(value) = parsed else {
        unreachable!("the pool is written here");
    };
    value
}

const NETS: [&str; 16] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.2.3/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "10.1.2.3/31",
    "128.0.0.0/1",
    "::/0",
    "2001:db8::/32",
    "2001:db8::5/64",
    "2001:db8::5/128",
    "::ffff:10.0.0.0/104",
    "192.168.0.0/16",
    "127.0.0.1/32",
    "169.254.0.0/16",
];
const DOMAINS: [&str; 12] = [
    "x", "*.x", "h.x", "*.h.x", "a.h.x", "*.a.h.x", "hh.x", "h-.x", "*.h-.x", "h0.x", "*.X",
    "10.1.2.3",
];
const HOSTS: [&str; 16] = [
    "10.1.2.3",
    "10.1.2.2",
    "10.1.9.9",
    "10.9.9.9",
    "192.168.1.1",
    "8.8.8.8",
    "2001:db8::5",
    "2001:db8::1:0:0:1",
    "fe80::1",
    "x",
    "h.x",
    "a.h.x",
    "q.a.h.x",
    "q.h-.x",
    "h0.x",
    "h.x.",
];
