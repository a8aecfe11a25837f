//! Routing decisions of the reference gateway, and where ours differ from them.
//!
//! Each line is decided four times: by a small router with the reference's rules, which must say what the line says; by
//! the same router with our rules; by the `Hub`; and by the `Dispatch`, which must both say what our rules say. Where
//! the decision differs from the reference's, the rules that make the difference are found: a smallest set of ours
//! that, put beside the reference's, gives our decision, and of which none can be left out.
#![cfg(test)]

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use adit_proto_core::{
    domain::DomainPattern,
    gateway::{
        AttemptError, OpenError,
        dispatch::{AgentEvent, DirectRange, DirectRule, Dispatch, DispatchConfig, DispatchOutput},
    },
    id::{AgentId, ConnId, SessionId},
    identity::AgentIdentity,
    limits::{AGENT_SILENT, ATTEMPTS_MAX},
    route::{DomainRoute, RouteSet},
    target::Target,
};
use ipnet::IpNet;
use serde_json::Value;
use uuid::Uuid;

#[test]
fn decisions_are_the_references_but_for_named_points() {
    let mut differing = 0;
    let mut by_point = BTreeMap::new();
    let lines = crate::load("agent-tunnel-routing.jsonl");
    for line in lines.iter().map(Line::read) {
        let Line { id, decision, .. } = &line;
        assert_eq!(&decide(&line, &[]), decision, "{id}: the reference's rules");
        let ours = decide(&line, &POINTS);
        assert_eq!(by_hub(&line), ours, "{id}: the hub");
        assert_eq!(by_dispatch(&line), ours.clone().cut(), "{id}: the dispatch");
        if ours == *decision {
            continue;
        }
        let mut points = POINTS.to_vec();
        for point in POINTS {
            let fewer: Vec<Point> = points.iter().copied().filter(|p| *p != point).collect();
            if decide(&line, &fewer) == ours {
                points = fewer;
            }
        }
        differing += 1;
        points
            .iter()
            .for_each(|p| *by_point.entry(*p).or_insert(0) += 1);
        println!("{id}: {points:?} make {decision:?} {ours:?}");
    }
    println!("{differing} of {} lines differ: {by_point:?}", lines.len());
}

/// What ours do differently; each is a rule of its own of the small router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Point {
    /// Design 3.4: the longest prefix is the best, where the reference holds all subnets equal.
    LongestPrefix,
    /// Design 3.4: candidates of a lower specificity come after those of the best, which the reference drops.
    Ladder,
    /// Design 3.4: IPv6 literals are routed, and IPv4-mapped ones as the address that they stand for.
    Ipv6,
    /// Design 3.5 as settled in 8.8: the gateway dials itself only where no agent matched, not where one is silent.
    SilentIsNoLeave,
    /// Our form of a target: what is neither an address nor a name is refused before it is routed.
    StrictTarget,
}

const POINTS: [Point; 5] = [
    Point::LongestPrefix,
    Point::Ladder,
    Point::Ipv6,
    Point::SilentIsNoLeave,
    Point::StrictTarget,
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    Direct,
    PinnedNotFound,
    Via(Vec<String>),
    /// Never the reference's.
    Refused,
}

struct Line {
    id: String,
    target: String,
    pinned: Option<String>,
    /// The newest route set first.
    agents: Vec<Agent>,
    decision: Decision,
}

struct Agent {
    name: String,
    silent: Duration,
    routes: RouteSet,
}

/// The small router: the reference's rules, and those of ours that are named.
fn decide(line: &Line, points: &[Point]) -> Decision {
    let has = |point| points.contains(&point);
    if has(Point::StrictTarget) && Target::new(&line.target, PORT).is_err() {
        return Decision::Refused;
    }
    if let Some(pinned) = &line.pinned {
        return match line.agents.iter().any(|a| a.name == *pinned) {
            true => Decision::Via(vec![pinned.clone()]),
            false => Decision::PinnedNotFound,
        };
    }
    let weigh = |agent: &Agent| weight(&agent.routes, &line.target, points);
    let online = line.agents.iter().filter(|a| a.silent < AGENT_SILENT);
    let weighed = online.filter_map(|a| Some((weigh(a)?, a.name.clone())));
    let mut ladder: Vec<(usize, String)> = weighed.collect();
    ladder.sort_by_key(|(weight, _)| Reverse(*weight));
    if !has(Point::Ladder) {
        let best = ladder.first().map(|(weight, _)| *weight);
        ladder.retain(|(weight, _)| Some(*weight) == best);
    }
    if !ladder.is_empty() {
        Decision::Via(ladder.into_iter().map(|(_, name)| name).collect())
    } else if has(Point::SilentIsNoLeave) && line.agents.iter().any(|a| weigh(a).is_some()) {
        Decision::Refused
    } else {
        Decision::Direct
    }
}

/// The best weight of an agent's routes for a host; none where it does not match.
fn weight(routes: &RouteSet, host: &str, points: &[Point]) -> Option<usize> {
    let has = |point| points.contains(&point);
    let host = host.to_ascii_lowercase();
    let prefix = |net: &IpNet| match has(Point::LongestPrefix) {
        true => usize::from(net.prefix_len()),
        false => 0,
    };
    let name = |route: &DomainRoute| {
        let route = route.pattern.as_str();
        match route.strip_prefix('*') {
            None => (route == host).then_some(usize::MAX),
            Some(dotted) => {
                (host.len() > dotted.len() && host.ends_with(dotted)).then_some(route.len())
            }
        }
    };
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) if !has(Point::Ipv6) => None,
        Ok(ip) => {
            let ip = ip.to_canonical();
            let hits = routes.subnets.iter().filter(|net| net.contains(&ip));
            hits.map(prefix).max()
        }
        Err(_) => routes.domains.iter().filter_map(name).max(),
    }
}

fn by_hub(line: &Line) -> Decision {
    let (dispatch, now) = gateway(line);
    let Ok(target) = Target::new(&line.target, PORT) else {
        return Decision::Refused;
    };
    let pinned = line.pinned.as_deref().map(|name| agent_id(line, name));
    let choices = dispatch.hub().candidates(now, &target, pinned);
    let via: Vec<_> = choices.map(|c| name_of(&dispatch, c.conn)).collect();
    match (via.is_empty(), pinned) {
        (false, _) => Decision::Via(via),
        (true, Some(_)) => Decision::PinnedNotFound,
        (true, None) if dispatch.hub().is_advertised(&target.host) => Decision::Refused,
        (true, None) => Decision::Direct,
    }
}

/// Opens a session, fails every attempt and notes where they went.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else comes out is a failure of the test"
)]
fn by_dispatch(line: &Line) -> Decision {
    let (mut dispatch, now) = gateway(line);
    let Ok(target) = Target::new(&line.target, PORT) else {
        return Decision::Refused;
    };
    let pinned = line.pinned.as_deref().map(|name| agent_id(line, name));
    dispatch.open(now, SessionId(Uuid::nil()), target, pinned);
    let mut via = Vec::new();
    loop {
        match dispatch.poll_output().unwrap() {
            DispatchOutput::Open { conn, attempt, .. } => {
                via.push(name_of(&dispatch, conn));
                let cause = AttemptError::Refused("no".into());
                dispatch.handle_event(now, conn, AgentEvent::Failed { attempt, cause });
            }
            DispatchOutput::DialDirect { .. } => return Decision::Direct,
            DispatchOutput::Failed { error, .. } => {
                return match error {
                    OpenError::AgentUnknown(_) => Decision::PinnedNotFound,
                    OpenError::NoneOnline => Decision::Refused,
                    OpenError::AllFailed(causes) if causes.len() == via.len() => Decision::Via(via),
                    other => panic!("{}: {other:?}", line.id),
                };
            }
            other => panic!("{}: {other:?}", line.id),
        }
    }
}

/// A gateway with the agents of a line that may dial every target itself, and the time at which it is asked.
fn gateway(line: &Line) -> (Dispatch, Instant) {
    #[expect(
        clippy::disallowed_methods,
        reason = "the base of a test's virtual time"
    )]
    let start = Instant::now();
    let now = start + SILENT_MAX;
    let mut ranges: Vec<DirectRange> = ["0.0.0.0/0", "::/0"]
        .map(|net| DirectRange::Subnet(net.parse().unwrap()))
        .into();
    let name = line.target.strip_suffix('.').unwrap_or(&line.target);
    ranges.extend(DomainPattern::parse(name).ok().map(DirectRange::Domain));
    let rule = |range| DirectRule { range, port: None };
    let direct = ranges.into_iter().map(rule).collect();
    let mut dispatch = Dispatch::new(DispatchConfig {
        direct,
        ..DispatchConfig::default()
    });
    for (conn, agent) in (0..).map(ConnId).zip(line.agents.iter().rev()) {
        let identity = AgentIdentity {
            id: agent_id(line, &agent.name),
            name: agent.name.as_str().into(),
            fingerprint: [0; 32],
            spki_sha256: [0; 32],
        };
        let routes = agent.routes.clone();
        dispatch.handle_event(
            start,
            conn,
            AgentEvent::Registered {
                identity,
                renewed: false,
            },
        );
        dispatch.handle_event(start, conn, AgentEvent::Routes { epoch: 1, routes });
        dispatch.handle_event(now - agent.silent, conn, AgentEvent::Seen);
    }
    assert_eq!(dispatch.poll_output(), None);
    (dispatch, now)
}

fn name_of(dispatch: &Dispatch, conn: ConnId) -> String {
    dispatch.hub().identity(conn).unwrap().name.to_string()
}

/// Its place in the line, or one beyond for an agent that is not there.
fn agent_id(line: &Line, name: &str) -> AgentId {
    let place = line.agents.iter().position(|a| a.name == name);
    let nth = place.unwrap_or(line.agents.len());
    AgentId(Uuid::from_u64_pair(0, nth as u64))
}

impl Decision {
    /// A dispatch asks no more than this many.
    fn cut(self) -> Self {
        match self {
            Self::Via(mut names) => {
                names.truncate(ATTEMPTS_MAX);
                Self::Via(names)
            }
            Self::Direct | Self::PinnedNotFound | Self::Refused => self,
        }
    }
}

impl Line {
    fn read(line: &Value) -> Self {
        assert_eq!(line["type"], "route_select");
        let decision = match line["decision"].as_str() {
            Some("direct") => Decision::Direct,
            Some(word) => {
                assert_eq!(word, "pinned agent not found");
                Decision::PinnedNotFound
            }
            None => Decision::Via(texts(&line["decision"]["via"])),
        };
        let agents = line["agents_oldest_routes_first"].as_array().unwrap();
        Self {
            id: text(&line["id"]),
            target: text(&line["target"]),
            pinned: line["pinned"].as_str().map(String::from),
            agents: agents.iter().rev().map(Agent::read).collect(),
            decision,
        }
    }
}

impl Agent {
    fn read(agent: &Value) -> Self {
        let subnets = texts(&agent["subnets"]);
        let domains = texts(&agent["domains"]);
        let domain = |text: &String| DomainRoute {
            pattern: DomainPattern::parse(text).unwrap(),
            auto_detected: false,
        };
        let silent = Duration::from_millis(agent["silent_ms"].as_u64().unwrap());
        Self {
            name: text(&agent["name"]),
            silent: silent.min(SILENT_MAX),
            routes: RouteSet {
                subnets: subnets.iter().map(|net| net.parse().unwrap()).collect(),
                domains: domains.iter().map(domain).collect(),
            },
        }
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(text).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().into()
}

/// Routing does not look at ports.
const PORT: u16 = 443;
/// As far back as the tests' time goes.
const SILENT_MAX: Duration = Duration::from_secs(1 << 20);
