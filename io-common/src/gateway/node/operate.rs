//! What operators see and change of a running node.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use adit_proto_core::{
    agent::policy::Policy,
    close::CloseReason,
    gateway::{
        dispatch::{DirectRange, DispatchConfig},
        info::SessionInfo,
    },
    id::{AgentId, ConnId, SessionId},
    session_table::Carrier,
};

use futures_channel::oneshot;

use super::{Node, NodeHost};
use crate::{
    commands::Command,
    gateway::{
        counters::NodeSnapshot,
        handle::SessionRow,
        input::{NodeSettings, Place},
    },
    glance::Glance,
    over::Over,
};

impl Node {
    /// What is open goes on by the former settings.
    pub(super) fn configure(&mut self, settings: NodeSettings) {
        self.direct = Arc::new(direct_policy(&settings.dispatch));
        self.dispatch.set_config(settings.dispatch);
        self.bounds = settings.sessions;
    }

    /// Closes every connection of an agent that has just been deleted; whoever deletes it does that first.
    pub(super) fn disconnect(&mut self, now: Instant, agent: AgentId) -> usize {
        let admission = &self.admission;
        let stays = |identity: &_| admission.admits_still(identity);
        let conns = self.dispatch.disconnect(now, agent, stays);
        for conn in &conns {
            self.command(*conn, Command::Close(CloseReason::Revoked));
        }
        self.holding_changed();
        for (conn, slot) in self.flushing_of(agent) {
            self.command(conn, Command::Kill(slot));
        }
        conns.len()
    }

    /// Its end is logged when whoever has its sockets tells of it.
    pub(super) fn kill(&mut self, session: SessionId, host: &mut impl NodeHost) -> bool {
        let Some(carrier) = self.sessions.get(session).map(|entry| entry.carrier) else {
            return false;
        };
        // A second call finds it ending already.
        if !self.killed.insert(session) {
            return false;
        }
        match carrier {
            Carrier::Agent { conn, slot } | Carrier::Peer { conn, slot, .. } => {
                self.command(conn, Command::Kill(slot));
            }
            Carrier::Direct if self.spliced.contains(&session) => {
                host.end_splice(session, Over::Killed)
            }
            // As soon as its user's socket comes.
            Carrier::Direct => {}
        }
        true
    }

    pub(super) fn snapshot(&self, now: Instant) -> NodeSnapshot {
        NodeSnapshot {
            counters: self.counters.clone(),
            agents: self.dispatch.hub().counts(now),
            open: self.users.len(),
            opening: self.wishes.len(),
            opening_max: self.dispatch.config().opens_max,
            sessions_per_agent: self.dispatch.config().sessions_per_agent,
            failover: self.dispatch.failover(),
        }
    }

    pub(super) fn list_sessions(&self, now: Instant) -> Vec<(SessionRow, Option<Place>)> {
        let place = |id| self.sessions.get(id)?.carrier.place();
        let row = |info: SessionInfo| {
            let (user, place) = (self.users.get(&info.id), place(info.id));
            let row = SessionRow {
                user: user.map(|user| user.user),
                ingress: user.map(|user| user.ingress.clone()),
                moved: None,
                info,
            };
            (row, place)
        };
        self.sessions.list(now).into_iter().map(row).collect()
    }

    /// Passes an operator's look on, so that no connection waits for another.
    pub(super) fn look(
        &self,
        conns: &BTreeSet<ConnId>,
    ) -> BTreeMap<ConnId, oneshot::Receiver<Glance>> {
        let ask = |conn: &ConnId| {
            let (reply, answer) = oneshot::channel();
            self.command(*conn, Command::Look(reply));
            (*conn, answer)
        };
        conns.iter().map(ask).collect()
    }
}

pub(super) fn direct_policy(config: &DispatchConfig) -> Policy {
    let (mut subnets, mut domains) = (Vec::new(), Vec::new());
    for rule in &config.direct {
        match &rule.range {
            DirectRange::Subnet(net) => subnets.push(*net),
            DirectRange::Domain(pattern) => domains.push(pattern.clone()),
        }
    }
    Policy::direct(&subnets, domains)
}
