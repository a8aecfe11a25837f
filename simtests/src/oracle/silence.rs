//! A silent path is noticed in time: by an agent, by a gateway that carries sessions, and before it gets new ones; and
//! what is said of paths makes sense.

use std::collections::{BTreeMap, BTreeSet};

use adit_proto_core::{
    close::Closed,
    gateway::dispatch::DispatchOutput,
    id::{ConnId, SessionId},
    output::Event,
};

use super::bounds::{
    PATH_DEAD_AFTER, PATH_SUSPECT_AFTER, PING_BUSY, PING_IDLE_AGENT, PING_IDLE_GATEWAY,
};
use super::pulse::{Pulse, SLACK};
use crate::{
    At,
    facts::{Fact, NodeId},
    faults::Fault,
};

/// The judge.
///
/// A proof of life is a packet acknowledged, or at an idle gateway one received, and it counts from the last datagram
/// before the check that sees it. Either needs a datagram from the peer, so that silence is judged by datagrams:
/// the other way round, that there was an acknowledgement is not known here, so an early suspicion is judged only where
/// it is impossible: right after the handshake, and over the clean paths of the calm.
#[derive(Debug, Default)]
pub(super) struct Silence {
    pulse: Pulse,
    conns: BTreeMap<(NodeId, ConnId), Path>,
    /// Sessions that go through the agent that their user named.
    pinned: BTreeSet<SessionId>,
    /// Since when datagrams from one node to another vanish.
    cuts: BTreeMap<(NodeId, NodeId), At>,
    /// Who sent the datagram that came last.
    from: Option<NodeId>,
    /// When a process stood still last, and until when.
    absences: BTreeMap<NodeId, (At, At)>,
    calm: Option<At>,
    look_at: At,
}

/// One end of a connection.
#[derive(Debug)]
struct Path {
    is_agent: bool,
    established: Option<At>,
    heard: At,
    peer: Option<NodeId>,
    /// Since when it has carried sessions without a break.
    busy: Option<At>,
    suspect: Option<At>,
}

impl Silence {
    pub(super) fn observe(&mut self, at: At, node: NodeId, fact: &Fact<'_>) -> Option<String> {
        self.pulse.observe(at, node, fact);
        if let Fact::Received { from, .. } = fact {
            self.from = Some(*from);
        } else if let Fact::Routed(conn) = fact {
            let from = self.from;
            let path = self.path(node, *conn)?;
            (path.heard, path.peer) = (at, from);
        } else if let Fact::Fault(fault) = fact {
            self.fault(at, fault);
        } else if let Fact::Waits { conn, sessions, .. } = fact {
            let path = self.path(node, *conn)?;
            path.busy = (*sessions > 0).then(|| path.busy.unwrap_or(at));
        } else if let Fact::Event(conn, event) = fact {
            return self.event(at, (node, *conn), event);
        } else if let Fact::Dispatch(DispatchOutput::Open { conn, session, .. }) = fact {
            return self.chosen(at, (node, *conn), *session);
        } else if let Fact::Begun { conn, dial, .. } = fact {
            let path = Path {
                is_agent: dial.is_some(),
                established: None,
                heard: at,
                peer: None,
                busy: None,
                suspect: None,
            };
            self.conns.insert((node, *conn), path);
        } else if let Fact::Wish {
            session,
            pinned: Some(_),
            ..
        } = fact
        {
            self.pinned.insert(*session);
        } else if let Fact::Gone = fact {
            self.conns.retain(|(at_node, _), _| *at_node != node);
        } else if let Fact::Calm = fact {
            self.calm = Some(at);
            self.cuts.clear();
            for (_, until) in self.absences.values_mut() {
                *until = at.min(*until);
            }
        }
        self.look_around(at)
    }

    fn fault(&mut self, at: At, fault: &Fault) {
        if let Fault::Cut(from, to) = fault {
            self.cuts.entry((*from, *to)).or_insert(at);
        } else if let Fault::Mend(from, to) = fault {
            self.cuts.remove(&(*from, *to));
        } else if let Fault::Freeze(node) = fault {
            self.absences.insert(*node, (at, At::MAX));
        } else if let Fault::Thaw(node) = fault
            && let Some((_, until)) = self.absences.get_mut(node)
        {
            *until = at.min(*until);
        }
    }

    fn path(&mut self, node: NodeId, conn: ConnId) -> Option<&mut Path> {
        self.conns.get_mut(&(node, conn))
    }

    fn event(&mut self, at: At, place: (NodeId, ConnId), event: &Event) -> Option<String> {
        let calm = self.calm.is_some_and(|calm| calm + CALM_SETTLE <= at);
        let (node, conn) = place;
        if let Event::Closed(why) = event {
            let late = self.overdue(at, place);
            let path = self.conns.remove(&place)?;
            if late.is_some() || *why != Closed::PathDead {
                return late;
            }
            let young = path.established? + PATH_DEAD_AFTER > at + SLACK;
            let hasty = self.absences.get(&node).is_some_and(|(since, until)| {
                // Whoever was away judges after one more ping.
                *until - *since > AWAY_MIN
                    && path.established.is_some_and(|up| up < *since)
                    && path.suspect.is_some_and(|suspect| suspect >= *until)
                    && at < *until + PING_BUSY / 2
            });
            return (calm || young || hasty || path.suspect.is_none())
                .then(|| format!("{node} takes the path of {conn} for dead, which it is not"));
        }
        let path = self.conns.get_mut(&place)?;
        if let Event::Established { .. } = event {
            path.established = Some(at);
            path.heard = at;
        } else if let Event::PathSuspect = event {
            let young = path.established? + PATH_SUSPECT_AFTER > at + SLACK;
            if calm || young || path.suspect.replace(at).is_some() {
                return Some(format!("{node} suspects the path of {conn} without cause"));
            }
        } else if let Event::PathRecovered = event {
            let heard = path.heard + SLACK;
            if path.suspect.take().is_none_or(|since| heard < since) {
                return Some(format!(
                    "the path of {conn} at {node} recovered from nothing"
                ));
            }
        }
        None
    }

    fn chosen(&self, at: At, place: (NodeId, ConnId), session: SessionId) -> Option<String> {
        let steady = self.pulse.steady_since(place.0)?;
        let silent = at.saturating_sub(self.conns.get(&place)?.heard.max(steady));
        let over = silent > PATH_SUSPECT_AFTER + SLACK;
        (over && !self.pinned.contains(&session)).then(|| {
            let (node, conn) = place;
            format!("{node} asks for {session} over {conn}, silent for {silent:?}")
        })
    }

    /// Looks at every connection now and then; one that ends between two looks is judged at its end.
    fn look_around(&mut self, at: At) -> Option<String> {
        if at < self.look_at {
            return None;
        }
        self.look_at = at + LOOK_EVERY;
        self.conns.keys().find_map(|&place| self.overdue(at, place))
    }

    fn overdue(&self, at: At, place: (NodeId, ConnId)) -> Option<String> {
        let (node, conn) = place;
        let path = self.conns.get(&place)?;
        path.established?;
        let steady = self.pulse.steady_since(node)?;
        if path.is_agent
            && let Some(since) = path.peer.and_then(|peer| self.cuts.get(&(node, peer)))
            && at > (*since).max(steady).max(path.established?) + ONE_WAY_MAX
        {
            return Some(format!(
                "{node} keeps {conn}, over which nothing has got out since {since:?}"
            ));
        }
        let (since, interval) = if path.is_agent {
            (path.heard, PING_IDLE_AGENT)
        } else {
            let busy = path.busy?;
            let interval = if busy <= path.heard {
                PING_BUSY
            } else {
                PING_IDLE_GATEWAY
            };
            (path.heard.max(busy), interval)
        };
        let silent = at.saturating_sub(since.max(steady));
        (silent > PATH_DEAD_AFTER + interval + SLACK)
            .then(|| format!("{node} keeps {conn}, silent for {silent:?}"))
    }
}

/// A process that stood still for so long missed more than one check of its paths.
const AWAY_MIN: At = At::from_millis(1_200);
/// Time in which a path must be found dead that works in the other direction: what is on its way when the cut begins
/// may still be acknowledged late.
const ONE_WAY_MAX: At = At::from_secs(8);
/// Time after the calm in which what went wrong before may still show.
const CALM_SETTLE: At = At::from_secs(10);
const LOOK_EVERY: At = At::from_millis(500);
