//! The registry of agents against the naive router.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use adit_proto_core::{
    gateway::{
        hub::{Hub, RegisterError},
        record::Advert,
        routes::Matched,
    },
    id::{AgentId, ConnId},
    limits::AGENT_SILENT,
    route::RouteSet,
    target::{Host, Target},
};
use adit_simtests::model::router::{Specificity, Way, order, specificity};

use crate::{
    input::{Input, start},
    routing::{agent_id, host, hosts, identity, routes as draw_routes},
};

/// After any sequence of changes the registry gives the ways that the rules give, in their order.
pub fn routes(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World {
        hub: Hub::new(),
        now: start(),
        conns: BTreeMap::new(),
        agents: BTreeMap::new(),
        accepted: 0,
        next: 0,
    };
    for _ in 0..STEPS_MAX {
        if !input.has_more() {
            break;
        }
        world.step(&mut input);
        let looked_up = host(&mut input);
        world.check(&world.ways(), &looked_up);
    }
    let ways = world.ways();
    hosts().iter().for_each(|host| world.check(&ways, host));
}

struct World {
    hub: Hub,
    now: Instant,
    conns: BTreeMap<ConnId, Conn>,
    /// Connections that may take sessions, oldest first, and the agent's key.
    agents: BTreeMap<AgentId, (Vec<ConnId>, u8)>,
    accepted: u64,
    next: u64,
}

struct Conn {
    agent: AgentId,
    routes: RouteSet,
    epoch: u64,
    accepted_nth: u64,
    load: usize,
    is_suspect: bool,
    heard: Instant,
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        let kind = input.below(8);
        // Mostly a known one, sometimes one that never was or is gone.
        let conn = ConnId(u64::from(input.byte()) % (self.next + 1));
        match kind {
            0 | 1 => self.register(input, conn),
            2 | 3 => self.set_routes(input, conn),
            4 => {
                self.hub.seen(self.now, conn);
                self.conns.entry(conn).and_modify(|c| c.heard = self.now);
            }
            5 => {
                let is_suspect = input.flag();
                self.hub.set_suspect(conn, is_suspect);
                self.conns
                    .entry(conn)
                    .and_modify(|c| c.is_suspect = is_suspect);
            }
            6 if input.flag() => {
                self.hub.add_load(conn);
                self.conns.entry(conn).and_modify(|c| c.load += 1);
            }
            6 => self.take_away(input, conn),
            _ => self.now += Duration::from_secs(u64::from(input.byte()) / 2),
        }
    }

    fn register(&mut self, input: &mut Input<'_>, conn: ConnId) {
        let (agent, key, is_renewed) = (input.byte() % 5, input.byte() % 2, input.byte() > 200);
        let id = agent_id(agent);
        let outcome = self
            .hub
            .register(self.now, conn, identity(agent, key), is_renewed);
        if self.conns.contains_key(&conn) {
            assert_eq!(outcome.err(), Some(RegisterError::Known));
            return;
        }
        let (list, present) = self.agents.entry(id).or_insert((Vec::new(), key));
        if *present != key && !is_renewed {
            assert_eq!(outcome.err(), Some(RegisterError::OtherKey));
            return;
        }
        *present = key;
        list.push(conn);
        let retire = (list.len() > 2).then(|| list.remove(0));
        assert_eq!(outcome.map(|done| done.retire), Ok(retire));
        self.next = self.next.max(conn.0 + 1);
        let entered = Conn {
            agent: id,
            routes: RouteSet::default(),
            epoch: 0,
            accepted_nth: 0,
            load: 0,
            is_suspect: false,
            heard: self.now,
        };
        self.conns.insert(conn, entered);
    }

    fn set_routes(&mut self, input: &mut Input<'_>, conn: ConnId) {
        let (epoch, routes) = (u64::from(input.byte() % 8), draw_routes(input));
        let outcome = self.hub.set_routes(self.now, conn, epoch, routes.clone());
        let Some(entered) = self.conns.get_mut(&conn) else {
            assert_eq!(outcome, None);
            return;
        };
        entered.heard = self.now;
        let wanted = match epoch.cmp(&entered.epoch) {
            std::cmp::Ordering::Less => Advert::Stale,
            std::cmp::Ordering::Equal => Advert::Refreshed,
            std::cmp::Ordering::Greater => Advert::Accepted,
        };
        assert_eq!(outcome, Some(wanted));
        if wanted == Advert::Accepted {
            self.accepted += 1;
            entered.epoch = epoch;
            entered.accepted_nth = self.accepted;
            entered.routes = routes;
        }
    }

    /// A session less, or the whole connection.
    fn take_away(&mut self, input: &mut Input<'_>, conn: ConnId) {
        if input.flag() {
            if let Some(entered) = self.conns.get_mut(&conn).filter(|c| c.load > 0) {
                entered.load -= 1;
                self.hub.sub_load(conn);
            }
            return;
        }
        let gone = self.hub.unregister(conn).map(|identity| identity.id);
        let Some(entered) = self.conns.remove(&conn) else {
            assert_eq!(gone, None);
            return;
        };
        assert_eq!(gone, Some(entered.agent));
        if let Some((list, _)) = self.agents.get_mut(&entered.agent) {
            list.retain(|c| *c != conn);
            if list.is_empty() {
                self.agents.remove(&entered.agent);
            }
        }
    }

    /// The connection of each agent that new sessions go through, where its path is good.
    fn ways(&self) -> Vec<Way> {
        let way = |(list, _): &(Vec<ConnId>, u8)| {
            let has_routes = |c: &&ConnId| self.conns[c].accepted_nth > 0;
            let conn = *list.iter().rev().find(has_routes).or_else(|| list.last())?;
            let entered = &self.conns[&conn];
            let silence = self.now.saturating_duration_since(entered.heard);
            let is_online = !entered.is_suspect && silence < AGENT_SILENT;
            is_online.then(|| Way {
                conn,
                agent: entered.agent,
                routes: entered.routes.clone(),
                load: entered.load,
                accepted_nth: entered.accepted_nth,
            })
        };
        self.agents.values().filter_map(way).collect()
    }

    fn check(&self, ways: &[Way], host: &Host) {
        let target = Target {
            host: host.clone(),
            port: 1,
        };
        let wanted = order(ways, host)
            .into_iter()
            .map(|(way, fit)| (way.conn, fit));
        let found = self.hub.candidates(self.now, &target, None).map(|choice| {
            let fit = match choice.route {
                Some(Matched::Subnet(net)) => Specificity::Prefix(net.prefix_len()),
                Some(Matched::Wildcard { suffix_len }) => Specificity::Suffix(suffix_len),
                Some(Matched::Exact) => Specificity::Exact,
                None => panic!("a way without a route"),
            };
            (choice.conn, fit)
        });
        assert_eq!(found.collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
        let kept = self.agents.values().flat_map(|(list, _)| list);
        let mut sets = kept.map(|conn| &self.conns[conn].routes);
        assert_eq!(
            self.hub.is_advertised(host),
            sets.any(|routes| specificity(routes, host).is_some())
        );
        assert_eq!(self.hub.agent_count(), self.agents.len());
        for (agent, (list, _)) in &self.agents {
            let mut pinned = self.hub.candidates(self.now, &target, Some(*agent));
            assert_eq!(pinned.next().map(|c| c.conn), list.last().copied());
            assert_eq!(pinned.next(), None);
        }
        for (conn, entered) in &self.conns {
            assert_eq!(self.hub.load(*conn), entered.load);
        }
    }
}

/// Keeps an input under a millisecond.
const STEPS_MAX: usize = 64;
