//! How the node ends with its connections, and sessions with their connection, or after it.

use std::{collections::BTreeSet, convert::Infallible, time::Instant};

use adit_proto_core::{
    close::CloseReason,
    id::{AgentId, ConnId, SessionId, Slot},
    session_table::Carrier,
};
use futures_channel::oneshot;

use super::{Node, NodeHost};
use crate::{commands::Command, gateway::Carriage, over::Over, pump::Traffic};

impl Node {
    pub(super) fn farewell(
        &mut self,
        now: Instant,
        reply: oneshot::Sender<()>,
        host: &mut impl NodeHost,
    ) {
        self.farewells.push(reply);
        self.leave(now, Command::Farewell, host);
    }

    pub(super) fn stop(&mut self, now: Instant, host: &mut impl NodeHost) {
        self.stopping = true;
        self.leave(now, Command::Stop, host);
    }

    /// Begins nothing any more, and ends what there is: agents' connections in this way.
    fn leave(
        &mut self,
        now: Instant,
        how: fn(CloseReason) -> Command<Infallible>,
        host: &mut impl NodeHost,
    ) {
        self.leaving = true;
        self.dispatch.stop(now);
        self.drain(now);
        for sender in self.connections.values() {
            let command = how(CloseReason::GatewayStopping);
            sender.push_or_stop(command);
        }
        for session in &self.spliced {
            host.end_splice(*session, Over::Cut);
        }
    }

    /// All connections that there were when it began to leave have ended, and so has what the gateway carried itself.
    /// The connections tell how their sessions ended before they tell their own end.
    pub(super) fn is_left(&self) -> bool {
        self.connections.is_empty() && self.spliced.is_empty()
    }

    pub(super) fn tell_farewells(&mut self) {
        if self.is_left() {
            for farewell in self.farewells.drain(..) {
                // Whoever waited may have given up.
                let _gone = farewell.send(());
            }
        }
    }

    /// Agents that are told of the stop come back at once, and among many there is always one that has: they are told
    /// again, and not waited for. Nothing is open with them.
    pub(super) fn connection_up(&mut self, conn: ConnId, sender: Carriage) {
        if self.leaving {
            let stop = Command::Stop(CloseReason::GatewayStopping);
            sender.push_or_stop(stop);
        } else {
            self.connections.insert(conn, sender);
        }
    }

    /// A connection is over. Sessions whose sockets were attached have been told of one by one already, but for those
    /// that still flush: they stay open, and may be listed and ended, until they are told of.
    pub(super) fn connection_over(&mut self, conn: ConnId) {
        let is_flushing = |carrier: Carrier| {
            carrier.place().is_some_and(|(conn, slot)| {
                (self.flushing.get(&conn)).is_some_and(|slots| slots.contains(&slot))
            })
        };
        let sessions = self.sessions.remove_conn(conn);
        let (stay, gone): (Vec<_>, Vec<_>) = sessions
            .into_iter()
            .partition(|(_, entry)| is_flushing(entry.carrier));
        for (session, _) in gone {
            self.users.remove(&session);
            self.killed.remove(&session);
            self.counters.ended(Over::ConnectionLost);
        }
        for (session, entry) in stay {
            let entered = self.sessions.insert(
                entry.since,
                session,
                entry.carrier,
                entry.target,
                entry.agent,
            );
            debug_assert!(entered.is_ok(), "its place has just become free");
        }
        if !self.flushing.contains_key(&conn) {
            self.connections.remove(&conn);
        }
    }

    /// A connection is over, and these sessions flush. It is registered until that is told, unless its agent was deleted
    /// meanwhile: with that they end, too.
    pub(super) fn connection_flushes(&mut self, conn: ConnId, slots: BTreeSet<Slot>) {
        let is_agents = self.connections.get(&conn).is_some_and(Carriage::is_agents);
        if is_agents && self.dispatch.hub().identity(conn).is_none() {
            for slot in &slots {
                self.command(conn, Command::Kill(*slot));
            }
        }
        self.flushing.insert(conn, slots);
    }

    /// Where sessions of an agent flush whose connection is over.
    pub(super) fn flushing_of(&self, agent: AgentId) -> Vec<(ConnId, Slot)> {
        let places = (self.flushing.iter())
            .flat_map(|(conn, slots)| slots.iter().map(|slot| (*conn, *slot)));
        let is_of_agent = |(conn, slot): &(ConnId, Slot)| {
            let session = self.sessions.at(*conn, *slot);
            let entry = session.and_then(|session| self.sessions.get(session));
            entry.is_some_and(|entry| entry.agent == Some(agent))
        };
        places.filter(is_of_agent).collect()
    }

    /// A session is over; with the last one that flushed its connection's task is, too.
    pub(super) fn flushed(&mut self, conn: ConnId, slot: Slot) {
        if let Some(slots) = self.flushing.get_mut(&conn)
            && slots.remove(&slot)
            && slots.is_empty()
        {
            self.flushing.remove(&conn);
            self.connections.remove(&conn);
        }
    }

    /// A session is over: counted, and told in the log.
    pub(super) fn session_over(&mut self, session: SessionId, traffic: Traffic, how: Over) {
        let Some(entry) = self.sessions.remove(session) else {
            return;
        };
        self.spliced.remove(&session);
        self.killed.remove(&session);
        let user = self.users.remove(&session);
        self.counters.ended(how);
        if entry.carrier == Carrier::Direct {
            self.bytes.add_all(traffic);
        }
        let peer = match entry.carrier {
            Carrier::Peer { node, .. } => Some(tracing::field::display(node)),
            Carrier::Agent { .. } | Carrier::Direct => None,
        };
        tracing::info!(
            %session,
            user = user.as_ref().map(|user| tracing::field::display(user.user)),
            account = user.as_ref().and_then(|user| user.account.as_deref()),
            ingress = user.as_ref().map(|user| tracing::field::display(&user.ingress)),
            target = %entry.target,
            agent = entry.agent.map(tracing::field::display),
            peer,
            sent = traffic.sent,
            received = traffic.received,
            ms = u64::try_from(traffic.duration().as_millis()).unwrap_or(u64::MAX),
            reason = how.text(),
            "session ended"
        );
        if let Over::NotRead(unread_for) = how {
            tracing::warn!(
                %session,
                agent = entry.agent.map(tracing::field::display),
                unread_s = unread_for.as_secs(),
                "its user reads less than 64 KiB/s: have the program read on, or raise limits.unread_per_agent and limits.unread"
            );
        }
    }
}
