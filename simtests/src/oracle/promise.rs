//! What the plan promises happens in time, whatever sessions do on the same connection: a small session completes, and
//! changed routes reach the gateway.

use std::collections::BTreeMap;

use adit_proto_core::id::SessionId;

use super::control::Routes;
use crate::{
    At,
    facts::{Fact, LegFact, NodeId},
    faults::Fault,
    tcp::Side,
};

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Promise {
    sessions: BTreeMap<SessionId, Due>,
    routes: BTreeMap<NodeId, (Due, Routes)>,
    /// What a gateway was told last: nobody repeats what has not changed.
    told: Option<Routes>,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    since: At,
    within: At,
}

impl Promise {
    pub(super) fn observe(&mut self, at: At, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Wish {
                session,
                promise: Some(within),
                ..
            } => {
                self.sessions.insert(*session, Due::new(at, *within));
                None
            }
            Fact::Leg {
                side: Side::User,
                session,
                what: LegFact::Done,
                ..
            } => {
                self.sessions.remove(session);
                None
            }
            Fact::Fault(Fault::SetRoutes(agent, routes, Some(within))) => {
                let (due, routes) = (Due::new(at, *within), Routes::of(routes));
                if self.told.as_ref() != Some(&routes) {
                    self.routes.insert(*agent, (due, routes));
                }
                None
            }
            Fact::RoutesTold { routes, .. } => {
                let told = Routes::of(routes);
                self.routes.retain(|_, (_, due)| *due != told);
                self.told = Some(told);
                None
            }
            Fact::MachineWaits { .. } => self.broken(at),
            _ => None,
        }
    }

    fn broken(&self, at: At) -> Option<String> {
        let session = self.sessions.iter().find(|(_, due)| due.is_over(at));
        let routes = self.routes.iter().find(|(_, (due, _))| due.is_over(at));
        let session = session.map(|(session, due)| {
            let since = due.since;
            format!("{session} is not complete; it was wanted at {since:?}")
        });
        session.or_else(|| {
            let (agent, (due, _)) = routes?;
            let since = due.since;
            Some(format!(
                "no gateway knows the routes of {agent}; they changed at {since:?}"
            ))
        })
    }
}

impl Due {
    fn new(since: At, within: At) -> Self {
        Self { since, within }
    }

    fn is_over(self, at: At) -> bool {
        at > self.since + self.within
    }
}
