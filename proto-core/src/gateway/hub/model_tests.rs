//! The registry against a list of connections that is searched from end to end.

use std::{cmp::Reverse, time::Duration};

use proptest::{collection::vec, prelude::*, sample::select};
use uuid::Uuid;

use super::*;
use crate::{
    domain::DomainPattern,
    gateway::info::WhyPassedOver,
    route::DomainRoute,
    target::{Host, Target},
};

#[derive(Clone, Debug)]
enum Op {
    Register {
        conn: u64,
        agent: u8,
        key: u8,
        renewed: bool,
    },
    Unregister(u64),
    Routes {
        conn: u64,
        epoch: u64,
        words: Vec<&'static str>,
    },
    Suspect(u64, bool),
    Seen(u64),
    Load(u64, bool),
    Drain(u8, bool),
    Pass(Duration),
}

fn op() -> impl Strategy<Value = Op> {
    let conn = || 0u64..10;
    let words = select(vec![
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.3/8",
        "0.0.0.0/0",
        "*.x",
        "*.a.x",
        "a.x",
    ]);
    let times = vec![Duration::ZERO, Duration::from_millis(1), AGENT_SILENT / 2];
    prop_oneof![
        6 => (conn(), 0u8..3, select(vec![0u8, 0, 0, 1]), prop::bool::weighted(0.2)).prop_map(
            |(conn, agent, key, renewed)| Op::Register { conn, agent, key, renewed }
        ),
        3 => conn().prop_map(Op::Unregister),
        8 => (conn(), 0u64..6, vec(words, 0..4))
            .prop_map(|(conn, epoch, words)| Op::Routes { conn, epoch, words }),
        1 => (conn(), any::<bool>()).prop_map(|(conn, suspect)| Op::Suspect(conn, suspect)),
        1 => conn().prop_map(Op::Seen),
        4 => (conn(), prop::bool::weighted(0.7)).prop_map(|(conn, more)| Op::Load(conn, more)),
        1 => (0u8..3, any::<bool>()).prop_map(|(agent, drained)| Op::Drain(agent, drained)),
        1 => select(times).prop_map(Op::Pass),
    ]
}

/// One connection, as it was entered and not taken out since; the list holds the oldest first.
#[derive(Clone, Debug)]
struct Entry {
    conn: u64,
    agent: u8,
    key: u8,
    since: Instant,
    seen: Instant,
    epoch: u64,
    /// Position among all sets that were accepted; 0 before the first.
    nth: usize,
    routes: RouteSet,
    suspect: bool,
    load: usize,
    retired: bool,
}

#[derive(Default)]
struct Model {
    entries: Vec<Entry>,
    /// The key each agent showed last.
    keys: BTreeMap<u8, u8>,
    drained: BTreeSet<u8>,
    accepted: usize,
}

impl Model {
    fn at(&mut self, conn: u64) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|e| e.conn == conn)
    }

    /// Connections of an agent that may take sessions, oldest first.
    fn active(&self, agent: u8) -> Vec<&Entry> {
        let own = self.entries.iter();
        own.filter(|e| e.agent == agent && !e.retired).collect()
    }

    fn register(
        &mut self,
        now: Instant,
        (conn, agent, key, renewed): (u64, u8, u8, bool),
    ) -> Result<Registered, RegisterError> {
        if self.at(conn).is_some() {
            return Err(RegisterError::Known);
        }
        let active: Vec<u64> = self.active(agent).iter().map(|e| e.conn).collect();
        if !active.is_empty() && !renewed && self.keys[&agent] != key {
            return Err(RegisterError::OtherKey);
        }
        let retire = active.first().filter(|_| active.len() == 2).copied();
        if let Some(oldest) = retire.and_then(|conn| self.at(conn)) {
            oldest.retired = true;
            oldest.routes = RouteSet::default();
        }
        self.keys.insert(agent, key);
        self.entries.push(Entry {
            conn,
            agent,
            key,
            since: now,
            seen: now,
            epoch: 0,
            nth: 0,
            routes: RouteSet::default(),
            suspect: false,
            load: 0,
            retired: false,
        });
        let retire = retire.map(ConnId);
        Ok(Registered { retire })
    }

    fn set_routes(
        &mut self,
        now: Instant,
        conn: u64,
        epoch: u64,
        routes: RouteSet,
    ) -> Option<Advert> {
        let nth = self.accepted + 1;
        let entry = self.at(conn)?;
        entry.seen = now;
        if epoch < entry.epoch {
            return Some(Advert::Stale);
        }
        if epoch == entry.epoch {
            return Some(Advert::Refreshed);
        }
        (entry.epoch, entry.nth) = (epoch, nth);
        if !entry.retired {
            entry.routes = routes;
        }
        self.accepted = nth;
        Some(Advert::Accepted)
    }

    fn status(&self, now: Instant, entry: &Entry) -> AgentStatus {
        let active = self.active(entry.agent);
        let newest = active.last().map(|e| e.conn);
        let with_routes = active.iter().rfind(|e| e.nth > 0).map(|e| e.conn);
        let takes = [newest, with_routes].contains(&Some(entry.conn));
        if entry.retired || !takes {
            AgentStatus::Superseded
        } else if entry.suspect || now - entry.seen >= AGENT_SILENT {
            AgentStatus::Suspect
        } else {
            AgentStatus::Online
        }
    }

    /// Connection and rung of all ways for a host, the best first.
    fn ways(&self, now: Instant, host: &Host) -> Vec<(u64, usize)> {
        let mut rungs: Vec<usize> = self.entries.iter().flat_map(|e| weights(e, host)).collect();
        rungs.sort_unstable_by_key(|weight| Reverse(*weight));
        rungs.dedup();
        let takes = |e: &&Entry| {
            self.status(now, e) == AgentStatus::Online && !self.drained.contains(&e.agent)
        };
        let mut ways: Vec<_> = self
            .entries
            .iter()
            .filter(takes)
            .filter_map(|e| {
                let best = weights(e, host).into_iter().max()?;
                let rung = rungs.iter().position(|weight| *weight == best)?;
                Some((rung, e.load, Reverse(e.nth), e.conn))
            })
            .collect();
        ways.sort_unstable();
        ways.into_iter()
            .map(|(rung, _, _, conn)| (conn, rung))
            .collect()
    }

    /// Agents with a connection in use that covers a host, and is left out.
    fn passed_over(&self, now: Instant, host: &Host) -> BTreeSet<(AgentId, bool)> {
        let matching = self.entries.iter().filter(|e| !weights(e, host).is_empty());
        let passed = matching.filter_map(|e| match self.status(now, e) {
            AgentStatus::Superseded => None,
            _ if self.drained.contains(&e.agent) => Some((id(e.agent), true)),
            AgentStatus::Suspect => Some((id(e.agent), false)),
            AgentStatus::Online => None,
        });
        passed.collect()
    }
}

proptest! {
    #[test]
    fn registry_agrees_with_a_list(ops in vec(op(), 0..60)) {
        #[expect(clippy::disallowed_methods, reason = "a test's origin of time")]
        let mut now = Instant::now();
        let (mut hub, mut model) = (Hub::new(), Model::default());
        for op in ops {
            match op {
                Op::Register { conn, agent, key, renewed } => {
                    let done = hub.register(now, ConnId(conn), identity(agent, key), renewed);
                    prop_assert_eq!(done, model.register(now, (conn, agent, key, renewed)));
                }
                Op::Unregister(conn) => {
                    let gone = model.entries.extract_if(.., |e| e.conn == conn).next();
                    let wanted = gone.map(|e| identity(e.agent, e.key));
                    prop_assert_eq!(hub.unregister(ConnId(conn)), wanted);
                }
                Op::Routes { conn, epoch, words } => {
                    let routes = set(&words);
                    let outcome = hub.set_routes(now, ConnId(conn), epoch, routes.clone());
                    prop_assert_eq!(outcome, model.set_routes(now, conn, epoch, routes));
                }
                Op::Suspect(conn, suspect) => {
                    hub.set_suspect(ConnId(conn), suspect);
                    model.at(conn).into_iter().for_each(|e| e.suspect = suspect);
                }
                Op::Seen(conn) => {
                    hub.seen(now, ConnId(conn));
                    model.at(conn).into_iter().for_each(|e| e.seen = now);
                }
                Op::Load(conn, true) => {
                    hub.add_load(ConnId(conn));
                    model.at(conn).into_iter().for_each(|e| e.load += 1);
                }
                Op::Load(conn, false) => if let Some(e) = model.at(conn).filter(|e| e.load > 0) {
                    e.load -= 1;
                    hub.sub_load(ConnId(conn));
                },
                Op::Drain(agent, drained) => {
                    hub.set_drained(id(agent), drained);
                    model.drained.remove(&agent);
                    model.drained.extend(drained.then_some(agent));
                }
                Op::Pass(time) => now += time,
            }
            listing_agrees(&hub, &model, now)?;
            ways_agree(&hub, &model, now)?;
        }
    }
}

fn listing_agrees(hub: &Hub, model: &Model, now: Instant) -> Result<(), TestCaseError> {
    let mut entries: Vec<_> = model.entries.iter().collect();
    entries.sort_by_key(|e| e.conn);
    let list = hub.list(now);
    prop_assert_eq!(list.len(), entries.len());
    for (info, e) in list.into_iter().zip(entries) {
        prop_assert_eq!(info.conn, ConnId(e.conn));
        prop_assert_eq!(&info.identity, &identity(e.agent, e.key));
        prop_assert_eq!(&*info.routes, &e.routes);
        prop_assert_eq!(info.epoch, e.epoch);
        prop_assert_eq!(info.drained, model.drained.contains(&e.agent));
        prop_assert_eq!(info.status, model.status(now, e), "{}", info.conn);
        prop_assert_eq!((info.sessions, hub.load(info.conn)), (e.load, e.load));
        prop_assert_eq!((info.silent, info.connected), (now - e.seen, now - e.since));
        let active = model.active(e.agent);
        let older = match active.split_last() {
            Some((newest, older)) if newest.conn == e.conn => older,
            Some(_) | None => &[],
        };
        let older: Vec<_> = older.iter().map(|e| ConnId(e.conn)).collect();
        prop_assert_eq!(hub.superseded_by(info.conn).to_vec(), older);
    }
    let agents = (0..3).filter(|&n| !model.active(n).is_empty());
    prop_assert_eq!(hub.agent_count(), agents.count());
    prop_assert_eq!(hub.keys.len(), hub.agent_count(), "a key is left behind");
    Ok(())
}

fn ways_agree(hub: &Hub, model: &Model, now: Instant) -> Result<(), TestCaseError> {
    for text in ["10.1.2.3:1", "10.9.9.9:1", "a.x:1", "b.a.x:1", "y:1"] {
        let target: Target = text.parse().unwrap();
        let found: Vec<_> = hub.candidates(now, &target, None).collect();
        let ways: Vec<_> = found.iter().map(|c| (c.conn.0, c.rung)).collect();
        prop_assert_eq!(ways, model.ways(now, &target.host), "{}", text);
        for skipped in 0..=found.len() {
            let (gone, rest) = found.split_at(skipped);
            let skip = |next: &Choice| gone.iter().any(|choice| choice.agent == next.agent);
            prop_assert_eq!(hub.best(now, &target, None, skip), rest.first().copied());
        }
        let told = hub.explain(now, &target, None).passed_over;
        let passed = told
            .iter()
            .map(|p| (p.agent, p.why == WhyPassedOver::Drained));
        prop_assert_eq!(
            passed.collect::<BTreeSet<_>>(),
            model.passed_over(now, &target.host)
        );
        let asks = |e: &Entry| !weights(e, &target.host).is_empty();
        let asked = model.entries.iter().any(asks);
        prop_assert_eq!(hub.is_advertised(&target.host), asked);
    }
    let target: Target = "y:1".parse().unwrap();
    for agent in 0..3 {
        let newest = model.active(agent).last().map(|e| ConnId(e.conn));
        prop_assert_eq!(hub.newest(id(agent)), newest);
        let own = model.entries.iter().filter(|e| e.agent == agent);
        let mut own: Vec<_> = own.map(|e| ConnId(e.conn)).collect();
        own.sort_unstable();
        prop_assert_eq!(hub.connections_of(id(agent)), own);
        let pinned = hub.candidates(now, &target, Some(id(agent)));
        prop_assert_eq!(
            pinned.map(|c| c.conn).collect::<Vec<_>>(),
            Vec::from_iter(newest)
        );
    }
    Ok(())
}

/// How specific each route of a connection is for a host that it covers.
fn weights(entry: &Entry, host: &Host) -> Vec<usize> {
    match host {
        Host::Ip(ip) => {
            let nets = entry.routes.subnets.iter().filter(|net| net.contains(ip));
            nets.map(|net| net.prefix_len().into()).collect()
        }
        Host::Name(name) => {
            let patterns = entry.routes.domains.iter().map(|route| &route.pattern);
            patterns
                .filter(|pattern| pattern.matches(name))
                .map(|pattern| pattern.suffix().map_or(usize::MAX, str::len))
                .collect()
        }
    }
}

fn set(words: &[&str]) -> RouteSet {
    let mut routes = RouteSet::default();
    for word in words {
        match word.parse() {
            Ok(net) => routes.subnets.push(net),
            Err(_) => routes.domains.push(DomainRoute {
                pattern: DomainPattern::parse(word).unwrap(),
                auto_detected: false,
            }),
        }
    }
    routes
}

fn identity(agent: u8, key: u8) -> AgentIdentity {
    AgentIdentity {
        id: id(agent),
        name: format!("agent-{agent}").into(),
        fingerprint: [0; 32],
        spki_sha256: [key; 32],
    }
}

fn id(agent: u8) -> AgentId {
    AgentId(Uuid::from_u128(agent.into()))
}
