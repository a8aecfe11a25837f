//! The core's registry gives the same ways in the same order as the reference model.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use adit_proto_core::{
    domain::DomainPattern,
    gateway::{
        hub::{Choice, Hub, Registered},
        record::Advert,
        routes::Matched,
    },
    id::{AgentId, ConnId},
    identity::AgentIdentity,
    route::{DomainRoute, RouteSet},
    target::{Host, Target},
};
use adit_simtests::model::router::{Specificity, Way, order};
use ipnet::IpNet;
use proptest::{collection::vec, prelude::*, sample::select};
use uuid::Uuid;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_registry_agrees_with_the_model(
        agents in vec(agent(), 1..8),
        hosts in vec(host(), 1..24),
        again in vec((any::<prop::sample::Index>(), routes()), 0..4),
    ) {
        let now = Instant::now();
        let mut hub = Hub::new();
        let mut accepted = 0;
        let mut ways = Vec::new();
        for (conn, agent) in (0..).map(ConnId).zip(&agents) {
            accepted += 1;
            ways.push(enter(&mut hub, now, conn, agent, accepted));
        }
        for (index, routes) in again {
            accepted += 1;
            let way = &mut ways[index.index(agents.len())];
            prop_assert_eq!(
                hub.set_routes(now, way.conn, 1 + accepted, routes.clone()),
                Some(Advert::Accepted)
            );
            (way.routes, way.accepted_nth) = (routes, accepted);
        }
        ways.retain(|way| !agents[usize::try_from(way.conn.0).unwrap()].suspect);
        for host in hosts {
            let target = Target { host: host.clone(), port: 1 };
            let found: Vec<_> = hub.candidates(now, &target, None).collect();
            let wanted = order(&ways, &host);
            let conns: Vec<_> = wanted.iter().map(|(way, _)| (way.conn, way.agent)).collect();
            let found_conns: Vec<_> = found.iter().map(|c| (c.conn, c.agent)).collect();
            prop_assert_eq!(found_conns, conns, "{}", host);
            let fits: Vec<_> = wanted.iter().map(|(_, fit)| *fit).collect();
            let found_fits: Vec<_> = found.iter().map(fit).collect();
            prop_assert_eq!(&found_fits, &fits, "{}", host);
            for (pair, fits) in found.windows(2).zip(fits.windows(2)) {
                prop_assert_eq!(pair[0].rung.cmp(&pair[1].rung), fits[1].cmp(&fits[0]));
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Agent {
    routes: RouteSet,
    load: usize,
    suspect: bool,
    /// An older connection of the same agent, superseded by the one that counts.
    replaces: Option<RouteSet>,
}

fn enter(hub: &mut Hub, now: Instant, conn: ConnId, agent: &Agent, nth: u64) -> Way {
    let id = AgentId(Uuid::from_u128(conn.0.into()));
    let older = agent.replaces.iter().map(|r| (ConnId(100 + conn.0), r));
    for (conn, routes) in older.chain([(conn, &agent.routes)]) {
        let identity = AgentIdentity {
            id,
            name: id.to_string().into(),
            fingerprint: [0; 32],
            spki_sha256: [0; 32],
        };
        let entered = hub.register(now, conn, identity, false);
        assert_eq!(entered, Ok(Registered { retire: None }));
        let outcome = hub.set_routes(now, conn, 1, routes.clone());
        assert_eq!(outcome, Some(Advert::Accepted));
    }
    hub.set_suspect(conn, agent.suspect);
    (0..agent.load).for_each(|_| hub.add_load(conn));
    Way {
        conn,
        agent: id,
        routes: agent.routes.clone(),
        load: agent.load,
        accepted_nth: nth,
    }
}

fn fit(choice: &Choice) -> Specificity {
    match choice.route.unwrap() {
        Matched::Subnet(net) => Specificity::Prefix(net.prefix_len()),
        Matched::Wildcard { suffix_len } => Specificity::Suffix(suffix_len),
        Matched::Exact => Specificity::Exact,
    }
}

fn agent() -> impl Strategy<Value = Agent> {
    let replaces = prop::option::weighted(0.2, routes());
    (routes(), 0..3usize, prop::bool::weighted(0.2), replaces).prop_map(
        |(routes, load, suspect, replaces)| Agent {
            routes,
            load,
            suspect,
            replaces,
        },
    )
}

fn routes() -> impl Strategy<Value = RouteSet> {
    let nets = prop_oneof![
        (v4(), 0u8..=32).prop_map(|(ip, len)| IpNet::new(ip.into(), len).unwrap()),
        (v6(), 0u8..=128).prop_map(|(ip, len)| IpNet::new(ip.into(), len).unwrap()),
    ];
    let domains = (any::<bool>(), name()).prop_map(|(wildcard, name)| {
        let text = format!("{}{name}", if wildcard { "*." } else { "" });
        DomainRoute {
            pattern: DomainPattern::parse(&text).unwrap(),
            auto_detected: wildcard,
        }
    });
    (vec(nets, 0..6), vec(domains, 0..8))
        .prop_map(|(subnets, domains)| RouteSet { subnets, domains })
}

fn host() -> impl Strategy<Value = Host> {
    prop_oneof![
        v4().prop_map(|ip| Host::Ip(ip.into())),
        v6().prop_map(|ip| Host::Ip(ip.into())),
        (name(), select(vec!["", "", "", "."]))
            .prop_map(|(name, dot)| format!("{name}{dot}").parse().unwrap()),
    ]
}

/// Few addresses that differ in their first, middle and last bits, so that prefixes nest.
fn v4() -> impl Strategy<Value = Ipv4Addr> {
    (select(vec![10u8, 11, 192]), 0u8..2, 0u8..4).prop_map(|(a, b, d)| [a, b, 0, d].into())
}

fn v6() -> impl Strategy<Value = Ipv6Addr> {
    (select(vec![0x2001u16, 0x2003, 0xfe80]), 0u16..2, 0u16..4)
        .prop_map(|(a, b, d)| [a, b, 0, 0, 0, 0, 0, d].into())
}

/// Few labels, one of which ends another and one of which sorts between a label and its dot.
fn name() -> impl Strategy<Value = String> {
    vec(select(vec!["a", "b", "ab", "A-"]), 1..5).prop_map(|labels| labels.join("."))
}
