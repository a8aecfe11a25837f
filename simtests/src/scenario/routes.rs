//! Subnets, names and targets that overlap and nest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_proto_core::{
    domain::DomainPattern,
    limits::{DIAL_ADDRESS_TIMEOUT, DIAL_STAGGER},
    route::{DomainRoute, RouteSet},
    target::Target,
};
use ipnet::IpNet;

use crate::{
    choices::Choices,
    internet::{Answer, Internet, Resolution},
};

/// Nested on purpose; the last one is of a family that the protocol does not carry.
const SUBNETS: &[&str] = &[
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.77/25",
    "10.1.2.3/32",
    "10.9.0.0/16",
    "127.0.0.0/8",
    "169.254.169.254/32",
    "fd12::/16",
];

/// Nested too; `10.1.2.9` is the address behind most of these names.
const DOMAINS: &[&str] = &[
    "*.corp.test",
    "*.db.corp.test",
    "one.db.corp.test",
    "*.one.db.corp.test",
    "plain.test",
    "*.test",
];

/// Where users want to go, beside the agents' homes.
const TARGETS: &[&str] = &[
    "10.1.2.3:80",
    "10.1.2.9:80",
    "10.1.2.200:443",
    "10.1.9.9:22",
    "10.9.9.9:5432",
    "10.200.0.1:80",
    "10.200.0.1:81",
    "8.8.8.8:53",
    "127.0.0.1:6379",
    "169.254.169.254:80",
    "[fd12::9]:80",
    "web.corp.test:80",
    "web.corp.test.:80",
    "one.db.corp.test:5432",
    "x.one.db.corp.test:5432",
    "two.db.corp.test:5432",
    "plain.test:80",
    "nowhere.test:80",
    "inside.corp.test:80",
    "other.example:80",
];

const NAMES: &[&str] = &[
    "web.corp.test",
    "one.db.corp.test",
    "x.one.db.corp.test",
    "two.db.corp.test",
    "plain.test",
    "inside.corp.test",
    "other.example",
];

/// The subnet that only one agent has.
pub(super) fn home(agent: usize) -> IpNet {
    let third = u8::try_from(agent % 250).unwrap_or(0);
    let net = Ipv4Addr::new(172, 20, third, 0);
    ipnet::Ipv4Net::new_assert(net, 24).into()
}

/// A target in it.
pub(super) fn home_target(agent: usize, host: u8) -> Target {
    let third = u8::try_from(agent % 250).unwrap_or(0);
    let ip = Ipv4Addr::new(172, 20, third, host.clamp(1, 254));
    std::net::SocketAddr::from((ip, 80)).into()
}

/// Draws what an agent advertises: its home, and some of what others have too.
pub(super) fn draw_routes(choices: &mut Choices, agent: usize) -> RouteSet {
    let mut routes = RouteSet {
        subnets: vec![home(agent)],
        domains: Vec::new(),
    };
    for text in SUBNETS {
        if choices.chance(250)
            && let Ok(net) = text.parse()
        {
            routes.subnets.push(net);
        }
    }
    for text in DOMAINS {
        if choices.chance(250)
            && let Ok(pattern) = DomainPattern::parse(text)
        {
            routes.domains.push(DomainRoute {
                pattern,
                auto_detected: choices.chance(300),
            });
        }
    }
    routes
}

/// Draws where a user goes, of so many agents' homes and of what is shared.
pub(super) fn draw_target(choices: &mut Choices, agents: usize) -> Target {
    if choices.chance(450) {
        let agent = choices.index(agents);
        return home_target(agent, u8::try_from(choices.between(1, 254)).unwrap_or(1));
    }
    let text = choices.pick(TARGETS);
    text.parse().unwrap_or_else(|_| home_target(0, 1))
}

/// Draws how targets and the resolver behave.
pub(super) fn draw_internet(choices: &mut Choices, agents: usize) -> Internet {
    let mut internet = Internet::default();
    let listed = TARGETS
        .iter()
        .filter_map(|text| text.parse::<std::net::SocketAddr>().ok());
    let homes = (0..agents).filter_map(|agent| match home_target(agent, 7).host {
        adit_proto_core::target::Host::Ip(ip) => Some(ip),
        adit_proto_core::target::Host::Name(_) => None,
    });
    // Connections that are made just when they have been given up.
    let late = choices.chance(40);
    for ip in listed.map(|addr| addr.ip()).chain(homes) {
        if late {
            let after = choices.time(
                DIAL_ADDRESS_TIMEOUT,
                DIAL_ADDRESS_TIMEOUT + DIAL_STAGGER * 2,
            );
            internet.hosts.insert(ip, Answer::Accept(after));
            continue;
        }
        let after = draw_wait(choices);
        let answer = match choices.between(0, 19) {
            0..=11 => Answer::Accept(after),
            12..=14 => Answer::Refuse(after),
            15..=16 => Answer::Unreachable(after),
            17 => Answer::BlackHole,
            _ => Answer::Accept(after * 20),
        };
        internet.hosts.insert(ip, answer);
    }
    for name in NAMES {
        let after = draw_wait(choices);
        let addrs = draw_addresses(choices, name);
        let resolution = match choices.between(0, 19) {
            0..=15 => Resolution::Found(addrs, after),
            16..=17 => Resolution::Found(addrs, after * 20),
            18 => Resolution::NotFound(after),
            _ => Resolution::Silent,
        };
        internet.names.insert((*name).into(), resolution);
    }
    internet
}

fn draw_wait(choices: &mut Choices) -> crate::At {
    choices.scaled_time(
        std::time::Duration::from_micros(200),
        std::time::Duration::from_millis(100),
    )
}

fn draw_addresses(choices: &mut Choices, name: &str) -> Vec<IpAddr> {
    let mut addrs: Vec<IpAddr> = vec![Ipv4Addr::new(10, 1, 2, 9).into()];
    if choices.chance(300) {
        addrs.insert(0, Ipv6Addr::new(0xfd12, 0, 0, 0, 0, 0, 0, 9).into());
    }
    if choices.chance(300) {
        addrs.push(Ipv4Addr::new(10, 9, 9, 9).into());
    }
    // A name that leads where no name should.
    if name == "inside.corp.test" {
        addrs = vec![*choices.pick(&[
            Ipv4Addr::LOCALHOST.into(),
            Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
            Ipv6Addr::LOCALHOST.into(),
            Ipv4Addr::new(169, 254, 169, 254).into(),
            Ipv4Addr::new(169, 254, 7, 7).into(),
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7).into(),
        ])];
    }
    addrs
}
