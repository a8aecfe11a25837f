//! Whatever the order of events: each session ends once at most, and no load is left behind.

use std::time::Duration;

use proptest::{collection::vec, prelude::*, sample::select};

use super::{bed::*, *};
use crate::peer::{NodeId, catalogue::Holding};

#[derive(Clone, Debug)]
enum Step {
    Open {
        target: &'static str,
        pinned: Option<u64>,
        forwarded: bool,
    },
    /// A connection to a peer.
    Join {
        node: u64,
    },
    /// What a peer holds.
    Holds {
        node: u64,
        agent: u64,
        text: Option<&'static str>,
    },
    Register {
        id: u64,
        key: u8,
    },
    Routes {
        conn: usize,
        epoch: u64,
        text: &'static str,
    },
    Answer {
        nth: usize,
        cause: Option<AttemptError>,
    },
    Dialled {
        nth: usize,
        ok: bool,
    },
    End {
        nth: usize,
    },
    Cancel {
        nth: usize,
    },
    Path {
        conn: usize,
        suspect: bool,
    },
    Close {
        conn: usize,
    },
    Disconnect {
        id: u64,
    },
    Drain {
        id: u64,
        drained: bool,
    },
    Pass {
        ms: u64,
    },
}

fn steps() -> impl Strategy<Value = Step> {
    let targets = select(vec!["10.1.1.1:1", "10.2.1.1:1", "a.x:1", "8.8.8.8:1"]);
    let sets = select(vec!["10.0.0.0/8", "10.1.0.0/16", "*.x", "a.x"]);
    let cause = prop::option::of(select(causes().to_vec()));
    let at = 0usize..1000;
    prop_oneof![
        4 => (targets, prop::option::weighted(0.2, 0u64..4), prop::bool::weighted(0.2))
            .prop_map(|(target, pinned, forwarded)| Step::Open { target, pinned, forwarded }),
        1 => (1u64..3).prop_map(|node| Step::Join { node }),
        1 => (1u64..3, 0u64..4, prop::option::weighted(0.8, sets.clone()))
            .prop_map(|(node, agent, text)| Step::Holds { node, agent, text }),
        2 => (0u64..4, select(vec![0u8, 0, 0, 1])).prop_map(|(id, key)| Step::Register { id, key }),
        3 => (at.clone(), 0u64..3, sets)
            .prop_map(|(conn, epoch, text)| Step::Routes { conn, epoch, text }),
        6 => (at.clone(), cause).prop_map(|(nth, cause)| Step::Answer { nth, cause }),
        1 => (at.clone(), any::<bool>()).prop_map(|(nth, ok)| Step::Dialled { nth, ok }),
        2 => at.clone().prop_map(|nth| Step::End { nth }),
        1 => at.clone().prop_map(|nth| Step::Cancel { nth }),
        1 => (at.clone(), any::<bool>()).prop_map(|(conn, suspect)| Step::Path { conn, suspect }),
        1 => at.prop_map(|conn| Step::Close { conn }),
        1 => (0u64..4).prop_map(|id| Step::Disconnect { id }),
        1 => (0u64..4, any::<bool>()).prop_map(|(id, drained)| Step::Drain { id, drained }),
        2 => select(vec![1u64, 249, 250, 5_000, 30_000]).prop_map(|ms| Step::Pass { ms }),
    ]
}

/// What the world outside remembers; nothing here decides.
struct World {
    dispatch: Dispatch,
    now: Instant,
    conns: u64,
    sessions: u64,
    slots: u64,
    asked: Vec<(ConnId, AttemptId)>,
    dialling: Vec<SessionId>,
    ended: BTreeMap<SessionId, bool>,
    cancelled: BTreeSet<SessionId>,
    pinned: BTreeSet<SessionId>,
    forwarded: BTreeSet<SessionId>,
    tried: BTreeSet<(SessionId, ConnId)>,
    open: Vec<(ConnId, Slot)>,
}

impl World {
    fn step(&mut self, step: Step) {
        let now = self.now;
        let conn_at = |conns: u64, nth: usize| ConnId(nth as u64 % conns.max(1));
        match step {
            Step::Open {
                target,
                pinned,
                forwarded,
            } => self.open(target, pinned, forwarded),
            Step::Join { node } => {
                let conn = ConnId(self.conns);
                self.dispatch.peer_connected(now, conn, NodeId(node));
                self.conns += 1;
            }
            Step::Holds { node, agent, text } => {
                let held = text.map(|text| held(agent, text));
                let held = held.unwrap_or_default();
                self.dispatch.peer_holds(now, NodeId(node), held.into());
            }
            Step::Register { id, key } => {
                self.event(ConnId(self.conns), registered(id, key));
                self.conns += 1;
            }
            Step::Routes { conn, epoch, text } => {
                self.event(conn_at(self.conns, conn), routes(epoch, text));
            }
            Step::Answer { nth, cause } if !self.asked.is_empty() => {
                let (conn, attempt) = self.asked.swap_remove(nth % self.asked.len());
                self.slots += 1;
                let event = match cause {
                    Some(cause) => AgentEvent::Failed { attempt, cause },
                    None => opened(attempt.0, self.slots),
                };
                self.event(conn, event);
            }
            Step::Dialled { nth, ok } if !self.dialling.is_empty() => {
                let id = self.dialling.swap_remove(nth % self.dialling.len());
                let result = if ok { Ok(()) } else { Err("no".into()) };
                self.dispatch.handle_direct(now, id, result);
            }
            Step::End { nth } if !self.open.is_empty() => {
                let (conn, slot) = self.open.swap_remove(nth % self.open.len());
                self.event(conn, AgentEvent::SessionEnded { slot });
            }
            Step::Answer { .. } | Step::Dialled { .. } | Step::End { .. } => {}
            Step::Cancel { nth } => {
                let id = session(nth as u64 % (self.sessions + 1));
                if !self.ended.contains_key(&id) {
                    self.cancelled.insert(id);
                }
                self.dispatch.cancel(now, id);
            }
            Step::Path { conn, suspect } => {
                let event = if suspect {
                    AgentEvent::Suspect
                } else {
                    AgentEvent::Recovered
                };
                self.event(conn_at(self.conns, conn), event);
            }
            Step::Close { conn } => self.close(conn_at(self.conns, conn)),
            Step::Disconnect { id } => self.disconnect(agent(id)),
            Step::Drain { id, drained } => self.dispatch.set_drained(agent(id), drained),
            Step::Pass { ms } => {
                self.now += Duration::from_millis(ms);
                self.dispatch.handle_timeout(self.now);
                assert!(self.dispatch.poll_timeout().is_none_or(|at| at > self.now));
            }
        }
        self.drain();
    }

    fn open(&mut self, target: &str, pinned: Option<u64>, forwarded: bool) {
        self.sessions += 1;
        let (now, id, target) = (self.now, session(self.sessions), target.parse().unwrap());
        self.pinned.extend(pinned.map(|_| id));
        let pinned = pinned.map(agent);
        if forwarded {
            self.forwarded.insert(id);
            self.dispatch.open_forwarded(now, id, target, pinned);
        } else {
            self.dispatch.open(now, id, target, pinned);
        }
    }

    fn event(&mut self, conn: ConnId, event: AgentEvent) {
        self.dispatch.handle_event(self.now, conn, event);
    }

    fn close(&mut self, conn: ConnId) {
        self.asked.retain(|(c, _)| *c != conn);
        self.open.retain(|(c, _)| *c != conn);
        self.event(conn, AgentEvent::Closed);
    }

    /// Answers of its connections may still come; the ends of its sessions do.
    fn disconnect(&mut self, id: AgentId) {
        let of_agent = |d: &Dispatch, now| {
            let mut list = d.hub().list(now);
            list.retain(|info| info.identity.id == id);
            list.into_iter().map(|info| info.conn).collect::<Vec<_>>()
        };
        let wanted = of_agent(&self.dispatch, self.now);
        assert_eq!(self.dispatch.disconnect(self.now, id, |_| false), wanted);
        assert!(of_agent(&self.dispatch, self.now).is_empty());
        let gone: Vec<_> = self
            .open
            .extract_if(.., |(c, _)| wanted.contains(c))
            .collect();
        for (conn, slot) in gone {
            self.event(conn, AgentEvent::SessionEnded { slot });
        }
        for conn in wanted {
            self.event(conn, AgentEvent::Closed);
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.dispatch.poll_output() {
            match output {
                DispatchOutput::Open {
                    conn,
                    attempt,
                    session,
                    ..
                } => {
                    assert!(!self.ended.contains_key(&session), "asked after the end");
                    let of_peer = self.dispatch.peers().node_of(conn).is_some();
                    let identity = self.dispatch.hub().identity(conn);
                    assert_eq!(identity.is_none(), of_peer);
                    assert!(!of_peer || !self.forwarded.contains(&session), "two hops");
                    let drained = identity.is_some_and(|i| self.dispatch.hub().is_drained(i.id));
                    assert!(!drained || self.pinned.contains(&session));
                    assert!(self.tried.insert((session, conn)), "asked twice");
                    self.asked.push((conn, attempt));
                }
                DispatchOutput::DialDirect { session, .. } => {
                    assert!(!self.forwarded.contains(&session), "dialled for a peer");
                    self.dialling.push(session);
                }
                DispatchOutput::Committed { session, route, .. } => {
                    self.end(session, true);
                    self.open.extend(route.place());
                }
                DispatchOutput::Failed { session, .. } => self.end(session, false),
                DispatchOutput::Retire { conn } => {
                    assert!(self.dispatch.hub().identity(conn).is_some())
                }
                DispatchOutput::Discard { conn, slot } => {
                    assert!(
                        !self.open.contains(&(conn, slot)),
                        "a committed session is discarded"
                    );
                }
                DispatchOutput::Cancel { .. }
                | DispatchOutput::AbortDirect { .. }
                | DispatchOutput::Refused { .. }
                | DispatchOutput::RoutesRefused { .. } => {}
            }
        }
        let load: usize = self
            .dispatch
            .hub()
            .list(self.now)
            .iter()
            .map(|a| a.sessions)
            .sum();
        let of_peers: usize = (1..3).map(|n| self.dispatch.peers().load(NodeId(n))).sum();
        let load = load + of_peers;
        assert_eq!(load, self.dispatch.attempts.len() + self.open.len());
        assert_eq!(self.dispatch.timers.len(), self.dispatch.openings.len());
    }

    fn end(&mut self, session: SessionId, ok: bool) {
        assert!(
            !self.cancelled.contains(&session),
            "told after it was cancelled"
        );
        assert_eq!(self.ended.insert(session, ok), None, "two ends");
    }
}

fn held(id: u64, text: &str) -> Holding {
    let AgentEvent::Routes { routes, .. } = routes(1, text) else {
        unreachable!()
    };
    Holding {
        agents: vec![agent(id)],
        subnets: routes.subnets,
        domains: routes.domains.into_iter().map(|d| d.pattern).collect(),
    }
}

proptest! {
    #[test]
    fn each_session_ends_once_and_loads_return_to_zero(script in vec(steps(), 1..120)) {
        #[expect(clippy::disallowed_methods, reason = "the base of a test's virtual time")]
        let now = Instant::now();
        let config = DispatchConfig { direct: vec![everything()], ..DispatchConfig::default() };
        let mut world = World {
            dispatch: Dispatch::new(config),
            now,
            conns: 0,
            sessions: 0,
            slots: 0,
            asked: vec![],
            dialling: vec![],
            ended: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            pinned: BTreeSet::new(),
            forwarded: BTreeSet::new(),
            tried: BTreeSet::new(),
            open: vec![],
        };
        script.into_iter().for_each(|step| world.step(step));
        world.step(Step::Pass { ms: 30_000 });
        for n in 1..=world.sessions {
            let (ended, cancelled) = (&world.ended, &world.cancelled);
            prop_assert!(ended.contains_key(&session(n)) != cancelled.contains(&session(n)));
        }
        while !world.open.is_empty() {
            world.step(Step::End { nth: 0 });
        }
        let d = &world.dispatch;
        prop_assert!(d.hub().list(world.now).iter().all(|a| a.sessions == 0));
        prop_assert!(d.openings.is_empty() && d.attempts.is_empty() && d.carried.is_empty());
        prop_assert_eq!(d.poll_timeout(), None);
        (0..world.conns).for_each(|conn| world.close(ConnId(conn)));
        prop_assert_eq!(world.dispatch.hub().agent_count(), 0);
    }
}
