use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use super::*;
use crate::{domain::DomainPattern, gateway::info::Fallback, route::DomainRoute, target::Target};

#[test]
fn late_end_of_an_old_connection_leaves_the_new_record() {
    let mut bed = Bed::new();
    bed.enter(1, 7, "10.0.0.0/8");
    bed.enter(2, 7, "10.0.0.0/8");
    assert_eq!(bed.ways("10.1.1.1:1"), [2]);
    assert_eq!(bed.hub.unregister(ConnId(1)).unwrap().id, agent(7));
    assert_eq!(bed.ways("10.1.1.1:1"), [2]);
    assert_eq!(bed.hub.unregister(ConnId(1)), None);
    assert_eq!(bed.hub.newest(agent(7)), Some(ConnId(2)));
}

#[test]
fn an_older_connection_takes_over_again() {
    let mut bed = Bed::new();
    bed.enter(1, 7, "10.0.0.0/8");
    bed.enter(2, 7, "10.0.0.0/8");
    bed.hub.unregister(ConnId(2));
    assert_eq!(bed.ways("10.1.1.1:1"), [1]);
    assert_eq!(bed.status(1), AgentStatus::Online);
    bed.hub.unregister(ConnId(1));
    assert!(bed.ways("10.1.1.1:1").is_empty());
    assert_eq!(bed.hub.agent_count(), 0);
}

#[test]
fn an_older_connection_is_superseded_once_the_newest_has_routes() {
    let mut bed = Bed::new();
    bed.enter(1, 7, "10.0.0.0/8");
    assert_eq!(bed.register(2, 7, 0), Ok(Registered { retire: None }));
    assert_eq!(bed.ways("10.1.1.1:1"), [1], "no gap before the routes come");
    assert_eq!(
        bed.pinned(7),
        [2],
        "the newest takes what is meant for the agent"
    );
    bed.routes(2, 1, "10.0.0.0/8");
    assert_eq!(bed.ways("10.1.1.1:1"), [2]);
    assert_eq!(bed.status(1), AgentStatus::Superseded);
    assert_eq!(bed.counts(), (1, 0), "one agent, however many connections");
    bed.hub.set_suspect(ConnId(2), true);
    assert_eq!(bed.counts(), (0, 1));
    assert!(
        bed.ways("10.1.1.1:1").is_empty(),
        "a superseded one stays so"
    );
}

#[test]
fn a_third_connection_retires_the_oldest() {
    let mut bed = Bed::new();
    bed.enter(1, 7, "10.0.0.0/8");
    bed.enter(2, 7, "10.0.0.0/8");
    assert_eq!(
        bed.register(3, 7, 0),
        Ok(Registered {
            retire: Some(ConnId(1))
        })
    );
    assert_eq!(
        bed.register(4, 7, 0),
        Ok(Registered {
            retire: Some(ConnId(2))
        })
    );
    assert_eq!(bed.status(1), AgentStatus::Superseded);
    assert_eq!(bed.hub.list(bed.now).len(), 4);
    bed.routes(1, 2, "10.0.0.0/8");
    bed.hub.unregister(ConnId(4));
    bed.hub.unregister(ConnId(3));
    assert!(
        bed.ways("10.1.1.1:1").is_empty(),
        "one that retires never comes back"
    );
    assert_eq!(bed.hub.agent_count(), 0);
}

#[test]
fn one_agent_is_told_with_all_its_connections_and_no_routes_are_copied() {
    let mut bed = Bed::new();
    bed.enter(1, 7, "10.0.0.0/8");
    bed.enter(2, 8, "10.0.0.0/8");
    bed.enter(3, 7, "11.0.0.0/8");
    let told = bed.hub.list_of(bed.now, agent(7));
    let conns: Vec<ConnId> = told.iter().map(|info| info.conn).collect();
    assert_eq!(conns, [ConnId(1), ConnId(3)]);
    let all = bed.hub.list(bed.now);
    assert!(Arc::ptr_eq(&told[1].routes, &all[2].routes));
    assert_eq!(told[1].routes.subnets, ["11.0.0.0/8".parse().unwrap()]);
    assert!(bed.hub.list_of(bed.now, agent(9)).is_empty());
}

#[test]
fn same_id_with_another_key_is_refused_while_one_is_connected() {
    let mut bed = Bed::new();
    bed.enter(1, 7, "10.0.0.0/8");
    assert_eq!(bed.register(2, 7, 1), Err(RegisterError::OtherKey));
    assert_eq!(bed.ways("10.1.1.1:1"), [1]);
    assert_eq!(bed.register(1, 8, 0), Err(RegisterError::Known));
    bed.hub.unregister(ConnId(1));
    assert_eq!(bed.register(2, 7, 1), Ok(Registered { retire: None }));
}

#[test]
fn one_agent_beyond_the_limit_is_refused() {
    let mut bed = Bed::new();
    for n in 0..AGENTS_MAX as u64 {
        assert!(bed.register(n, n, 0).is_ok());
    }
    let next = AGENTS_MAX as u64;
    assert_eq!(bed.register(next, next, 0), Err(RegisterError::TooMany));
    assert!(
        bed.register(next, 0, 0).is_ok(),
        "a known agent may come again"
    );
    bed.hub.unregister(ConnId(5));
    assert!(bed.register(next + 1, next, 0).is_ok());
}

#[test]
fn exact_comes_before_wildcard_and_the_ladder_goes_down() {
    let mut bed = Bed::new();
    bed.enter(1, 1, "*.x");
    bed.enter(2, 2, "h.x");
    bed.enter(3, 3, "*.h.x *.x");
    bed.enter(4, 4, "*.X");
    assert_eq!(bed.ways("h.x:1"), [2, 4, 3, 1]);
    assert_eq!(bed.ways("a.h.x:1"), [3, 4, 1]);
    assert!(bed.ways("x:1").is_empty());
    let target = "a.h.x:1".parse().unwrap();
    let told = bed.hub.explain(bed.now, &target, None);
    let told: Vec<_> = told
        .candidates
        .iter()
        .map(|c| (c.rung, c.route.as_str()))
        .collect();
    assert_eq!(told, [(0, "*.h.x"), (1, "*.x"), (1, "*.x")]);
}

#[test]
fn ties_go_to_the_fewest_sessions_then_to_the_newest_routes() {
    let mut bed = Bed::new();
    for n in 1..=3 {
        bed.enter(n, n, "10.0.0.0/8");
    }
    assert_eq!(bed.ways("10.1.1.1:1"), [3, 2, 1]);
    bed.routes(1, 1, "10.0.0.0/8");
    assert_eq!(bed.ways("10.1.1.1:1"), [3, 2, 1], "a refresh is not newer");
    bed.routes(1, 2, "10.0.0.0/8");
    assert_eq!(bed.ways("10.1.1.1:1"), [1, 3, 2]);
    bed.hub.add_load(ConnId(1));
    assert_eq!(bed.ways("10.1.1.1:1"), [3, 2, 1]);
    bed.hub.add_load(ConnId(3));
    assert_eq!(bed.ways("10.1.1.1:1"), [2, 1, 3]);
    bed.hub.sub_load(ConnId(1));
    assert_eq!(bed.ways("10.1.1.1:1"), [1, 2, 3]);
    bed.enter(4, 4, "10.1.1.0/24 10.0.0.0/8");
    (0..9).for_each(|_| bed.hub.add_load(ConnId(4)));
    assert_eq!(
        bed.ways("10.1.1.1:1"),
        [4, 1, 2, 3],
        "load counts within a rung only"
    );
    assert_eq!(bed.hub.load(ConnId(4)), 9);
}

#[test]
fn it_is_known_when_the_next_agent_falls_silent() {
    let mut bed = Bed::new();
    let start = bed.now;
    assert_eq!(bed.hub.next_silence(start), None);
    bed.enter(1, 1, "10.0.0.0/8");
    bed.enter(2, 2, "10.0.0.0/8");
    bed.now = start + AGENT_SILENT / 3;
    bed.hub.seen(bed.now, ConnId(1));
    assert_eq!(bed.hub.next_silence(bed.now), Some(start + AGENT_SILENT));
    bed.now = start + AGENT_SILENT;
    let second = start + AGENT_SILENT / 3 + AGENT_SILENT;
    assert_eq!(bed.hub.next_silence(bed.now), Some(second));
    let silent = [1, 2, 3].map(|conn| bed.hub.is_silent(bed.now, ConnId(conn)));
    assert_eq!(silent, [false, true, false]);
    assert_eq!(bed.hub.next_silence(second), None);
}

#[test]
fn suspect_and_silent_agents_are_for_pinned_sessions_only() {
    let mut bed = Bed::new();
    bed.enter(1, 1, "10.0.0.0/8");
    let target: Target = "10.1.1.1:1".parse().unwrap();
    let start = bed.now;
    bed.hub.set_suspect(ConnId(1), true);
    assert_eq!((bed.ways("10.1.1.1:1").len(), bed.pinned(1)), (0, vec![1]));
    assert_eq!(bed.status(1), AgentStatus::Suspect);
    assert!(bed.hub.is_advertised(&target.host));
    bed.hub.set_suspect(ConnId(1), false);
    bed.now = start + AGENT_SILENT - Duration::from_millis(1);
    assert_eq!(bed.ways("10.1.1.1:1"), [1]);
    bed.now = start + AGENT_SILENT;
    assert_eq!((bed.ways("10.1.1.1:1").len(), bed.pinned(1)), (0, vec![1]));
    assert_eq!(bed.status(1), AgentStatus::Suspect);
    bed.hub.seen(bed.now, ConnId(1));
    assert_eq!(bed.ways("10.1.1.1:1"), [1]);
    assert!(bed.pinned(2).is_empty());
    let told = bed.hub.explain(bed.now, &target, Some(agent(1)));
    assert_eq!(
        (told.candidates[0].route.as_str(), told.fallback),
        ("pinned", Fallback::Refuse)
    );
}

#[test]
fn a_set_beyond_the_limit_is_refused_and_the_earlier_stays() {
    let mut bed = Bed::new();
    bed.enter(1, 1, "10.0.0.0/8");
    let many = |count| RouteSet {
        subnets: vec!["10.0.0.0/8".parse().unwrap(); count],
        domains: Vec::new(),
    };
    let now = bed.now;
    let over = many(ROUTES_PER_AGENT_MAX + 1);
    assert_eq!(
        bed.hub.set_routes(now, ConnId(1), 2, over),
        Some(Advert::TooMany)
    );
    assert_eq!(bed.ways("10.1.1.1:1"), [1]);
    let full = many(ROUTES_PER_AGENT_MAX);
    assert_eq!(
        bed.hub.set_routes(now, ConnId(1), 2, full),
        Some(Advert::Accepted)
    );
    assert_eq!(bed.hub.set_routes(now, ConnId(9), 1, many(1)), None);
}

#[test]
fn epoch_zero_has_no_effect_and_a_lower_epoch_is_ignored() {
    let mut bed = Bed::new();
    assert!(bed.register(1, 1, 0).is_ok());
    assert_eq!(bed.routes(1, 0, "10.0.0.0/8"), Some(Advert::Refreshed));
    assert!(bed.ways("10.1.1.1:1").is_empty());
    assert_eq!(bed.routes(1, 2, "10.0.0.0/8"), Some(Advert::Accepted));
    assert_eq!(bed.routes(1, 1, "11.0.0.0/8"), Some(Advert::Stale));
    assert_eq!(bed.routes(1, 2, "11.0.0.0/8"), Some(Advert::Refreshed));
    assert_eq!(
        (bed.ways("10.1.1.1:1").len(), bed.ways("11.1.1.1:1").len()),
        (1, 0)
    );
    assert_eq!(bed.hub.list(bed.now)[0].epoch, 2);
}

#[test]
fn a_renewed_key_takes_the_place_of_the_former() {
    let mut bed = Bed::new();
    bed.enter(1, 7, "10.0.0.0/8");
    let done = Ok(Registered { retire: None });
    assert_eq!(bed.register_key(2, 7, 1, true), done);
    bed.hub.unregister(ConnId(2));
    assert_eq!(bed.register(3, 7, 0), Err(RegisterError::OtherKey));
    assert_eq!(bed.register(4, 7, 1), done, "beside one of the former key");
    bed.hub.unregister(ConnId(4));
    bed.hub.unregister(ConnId(1));
    assert_eq!(bed.register(5, 7, 2), done, "nobody is connected");
}

struct Bed {
    hub: Hub,
    now: Instant,
}

impl Bed {
    #[expect(
        clippy::disallowed_methods,
        reason = "the base of a test's virtual time"
    )]
    fn new() -> Self {
        Self {
            hub: Hub::new(),
            now: Instant::now(),
        }
    }

    fn register(&mut self, conn: u64, id: u64, key: u8) -> Result<Registered, RegisterError> {
        self.register_key(conn, id, key, false)
    }

    fn register_key(
        &mut self,
        conn: u64,
        id: u64,
        key: u8,
        renewed: bool,
    ) -> Result<Registered, RegisterError> {
        let identity = AgentIdentity {
            id: agent(id),
            name: format!("agent-{id}").into(),
            fingerprint: [0; 32],
            spki_sha256: [key; 32],
        };
        self.hub.register(self.now, ConnId(conn), identity, renewed)
    }

    fn enter(&mut self, conn: u64, id: u64, routes: &str) {
        assert!(self.register(conn, id, 0).is_ok());
        assert_eq!(self.routes(conn, 1, routes), Some(Advert::Accepted));
    }

    fn routes(&mut self, conn: u64, epoch: u64, text: &str) -> Option<Advert> {
        let mut routes = RouteSet::default();
        for word in text.split(' ') {
            match word.parse() {
                Ok(net) => routes.subnets.push(net),
                Err(_) => routes.domains.push(DomainRoute {
                    pattern: DomainPattern::parse(word).unwrap(),
                    auto_detected: false,
                }),
            }
        }
        self.hub.set_routes(self.now, ConnId(conn), epoch, routes)
    }

    fn ways(&self, target: &str) -> Vec<u64> {
        let target = target.parse().unwrap();
        let all: Vec<_> = self.hub.candidates(self.now, &target, None).collect();
        // The short cut must agree with the whole list, whatever is skipped.
        for skipped in 0..=all.len() {
            let (gone, rest) = all.split_at(skipped);
            let skip = |choice: &Choice| gone.iter().any(|c| c.agent == choice.agent);
            let best = self.hub.best(self.now, &target, None, skip);
            assert_eq!(best, rest.first().copied());
        }
        all.iter().map(|c| c.conn.0).collect()
    }

    fn pinned(&self, id: u64) -> Vec<u64> {
        let target = "1.1.1.1:1".parse().unwrap();
        let all = self.hub.candidates(self.now, &target, Some(agent(id)));
        all.map(|c| c.conn.0).collect()
    }

    fn counts(&self) -> (usize, usize) {
        let counts = self.hub.counts(self.now);
        (counts.online, counts.suspect)
    }

    fn status(&self, conn: u64) -> AgentStatus {
        let list = self.hub.list(self.now);
        list.iter().find(|a| a.conn == ConnId(conn)).unwrap().status
    }
}

fn agent(n: u64) -> AgentId {
    AgentId(Uuid::from_u64_pair(0, n))
}
