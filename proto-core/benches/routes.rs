//! Looking up a target among 10,000 agents with 100,000 routes: four subnets, an IPv6 subnet and five names each.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use adit_proto_core::{
    domain::DomainPattern,
    gateway::{hub::Hub, routes::RouteTable},
    id::{AgentId, ConnId},
    identity::AgentIdentity,
    route::{DomainRoute, RouteSet},
    target::Target,
};
use divan::Bencher;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use uuid::Uuid;

fn main() {
    divan::main();
}

const AGENTS: u32 = 10_000;
/// Targets asked in turn, spread over the whole table so that it does not stay in the cache.
const TARGETS: u32 = 4_096;

#[derive(Clone, Copy, Debug)]
enum Kind {
    V4,
    V6,
    Exact,
    Wildcard,
    Unknown,
}

const KINDS: [Kind; 5] = [
    Kind::V4,
    Kind::V6,
    Kind::Exact,
    Kind::Wildcard,
    Kind::Unknown,
];

#[divan::bench(args = KINDS, sample_count = 2_000)]
fn hub_best_candidate(bencher: Bencher<'_, '_>, kind: Kind) {
    let (hub, now) = hub();
    let mut target = targets(kind).into_iter().cycle();
    bencher
        .with_inputs(|| target.next())
        .bench_local_refs(|t| black_box(&hub).candidates(now, t.as_ref()?, None).next());
}

#[divan::bench(args = KINDS, sample_count = 2_000)]
fn hub_whole_ladder(bencher: Bencher<'_, '_>, kind: Kind) {
    let (hub, now) = hub();
    let mut target = targets(kind).into_iter().cycle();
    bencher
        .with_inputs(|| target.next())
        .bench_local_refs(|t| Some(black_box(&hub).candidates(now, t.as_ref()?, None).count()));
}

#[divan::bench(args = KINDS, sample_count = 2_000)]
fn table_best_rung(bencher: Bencher<'_, '_>, kind: Kind) {
    let mut table = RouteTable::new();
    (0..AGENTS).for_each(|n| table.replace(ConnId(n.into()), routes(n)));
    let mut target = targets(kind).into_iter().cycle();
    bencher.with_inputs(|| target.next()).bench_local_refs(|t| {
        let rung = black_box(&table).lookup(&t.as_ref()?.host).next()?;
        Some(rung.conns.len())
    });
}

#[divan::bench]
fn table_replace_ten_routes(bencher: Bencher<'_, '_>) {
    let mut table = RouteTable::new();
    (0..AGENTS).for_each(|n| table.replace(ConnId(n.into()), routes(n)));
    let mut n = 0;
    bencher.bench_local(|| {
        n = (n + 7_919) % AGENTS;
        table.replace(ConnId(n.into()), routes(n));
    });
}

fn hub() -> (Hub, Instant) {
    #[expect(
        clippy::disallowed_methods,
        reason = "the base of the benchmark's virtual time"
    )]
    let now = Instant::now();
    let mut hub = Hub::new();
    for n in 0..AGENTS {
        let identity = AgentIdentity {
            id: AgentId(Uuid::from_u64_pair(0, n.into())),
            name: format!("agent-{n}").into(),
            fingerprint: [0; 32],
            spki_sha256: [0; 32],
        };
        let entered = hub.register(now, ConnId(n.into()), identity, false);
        assert!(entered.is_ok(), "{entered:?}");
        hub.set_routes(now, ConnId(n.into()), 1, routes(n));
    }
    (hub, now)
}

/// Ten routes of agent n: of its own /24 to /32, one /16 shared by some 250 agents, names of its site and its zone.
fn routes(n: u32) -> RouteSet {
    let v4 = |ip: u32, len| IpNet::V4(Ipv4Net::new_assert(ip.into(), len));
    let own = 0x0a00_0000 + (n << 8);
    let names = [
        format!("db.site{n}.corp.local"),
        format!("web.site{n}.corp.local"),
        format!("*.site{n}.corp.local"),
        format!("*.apps.site{n}.corp.local"),
        format!("*.zone{}.local", n % 500),
    ];
    let domains = names.iter().filter_map(|name| {
        let pattern = DomainPattern::parse(name).ok()?;
        Some(DomainRoute {
            pattern,
            auto_detected: false,
        })
    });
    RouteSet {
        subnets: vec![
            v4(own, 24),
            v4(own + 128, 25),
            v4(own + 7, 32),
            v4(own & 0xffff_0000, 16),
            IpNet::V6(Ipv6Net::new_assert(v6(n, 0), 64)),
        ],
        domains: domains.collect(),
    }
}

fn v6(n: u32, host: u32) -> Ipv6Addr {
    Ipv6Addr::from((0x2001_0db8 << 96) + (u128::from(n) << 64) + u128::from(host))
}

fn targets(kind: Kind) -> Vec<Target> {
    let target = |nth: u32| {
        let n = nth.wrapping_mul(2_654_435_761) % AGENTS;
        let host = match kind {
            Kind::V4 => IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + (n << 8) + nth % 256)).to_string(),
            Kind::V6 => v6(n, nth).to_string(),
            Kind::Exact => format!("db.site{n}.corp.local"),
            Kind::Wildcard => format!("host{nth}.site{n}.corp.local"),
            Kind::Unknown => format!("host{nth}.site{n}.example.org"),
        };
        Target::new(&host, 443).ok()
    };
    (0..TARGETS).filter_map(target).collect()
}
