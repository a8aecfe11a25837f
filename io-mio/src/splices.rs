//! Sessions that the gateway carries itself.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use adit_io_common::{
    gateway::{NodeHost, NodeInput},
    handoff::Sender,
    over::Over,
    pump::Traffic,
    splice::{End, Splice, SpliceTurn, Spliced},
};
use adit_proto_core::id::SessionId;
use mio::event::Event;

use crate::{
    leg::MioLeg,
    sources::{Owner, Sources},
    timers::Timers,
};

/// Joined sockets.
pub(crate) struct Splices {
    sources: Sources,
    woken: Sender<Owner>,
    node: Sender<NodeInput>,
    joined: BTreeMap<SessionId, Splice<MioLeg>>,
    ready: VecDeque<SessionId>,
    queued: BTreeSet<SessionId>,
    timers: Timers<SessionId>,
}

impl Splices {
    pub(crate) fn new(sources: &Sources, woken: Sender<Owner>, node: Sender<NodeInput>) -> Self {
        Self {
            sources: sources.clone(),
            woken,
            node,
            joined: BTreeMap::new(),
            ready: VecDeque::new(),
            queued: BTreeSet::new(),
            timers: Timers::default(),
        }
    }

    /// When [`turn`](Self::turn) has something to do although nothing has come.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// One of a session's sockets may be ready; `event` says for what, where the poll told of it.
    pub(crate) fn ready(&mut self, session: SessionId, end: End, event: Option<&Event>) {
        let Some(splice) = self.joined.get_mut(&session) else {
            return;
        };
        if let Some(event) = event {
            splice.leg(end).ready(event);
        }
        self.queue(session);
    }

    /// Gives each session that has something to do a turn; tells whether there is more to do.
    pub(crate) fn turn(&mut self, now: Instant) -> bool {
        while let Some(session) = self.timers.due(now) {
            self.queue(session);
        }
        for _ in 0..self.ready.len() {
            let Some(session) = self.ready.pop_front() else {
                break;
            };
            self.queued.remove(&session);
            let Some(splice) = self.joined.get_mut(&session) else {
                continue;
            };
            match splice.turn(now) {
                SpliceTurn::Over(how) => self.end(session, how),
                SpliceTurn::More => self.queue(session),
                SpliceTurn::Waiting => {
                    if let Some(at) = splice.poll_timeout() {
                        self.timers.arm(session, at);
                    }
                }
            }
        }
        self.has_more()
    }

    /// Tells whether [`turn`](Self::turn) has something to do at once.
    pub(crate) fn has_more(&self) -> bool {
        !self.ready.is_empty()
    }

    fn queue(&mut self, session: SessionId) {
        if self.queued.insert(session) {
            self.ready.push_back(session);
        }
    }

    fn end(&mut self, session: SessionId, how: Over) {
        if let Some(splice) = self.joined.remove(&session) {
            self.timers.forget(session);
            self.tell(session, splice.end(how), how);
        }
    }

    fn tell(&self, session: SessionId, traffic: Traffic, how: Over) {
        self.node.push_or_stop(NodeInput::SessionOver {
            session,
            traffic,
            how,
        });
    }
}

impl NodeHost for Splices {
    fn splice(&mut self, session: SessionId, spliced: Spliced) {
        let leg = |end, socket| {
            let owner = Owner::Splice(session, end);
            MioLeg::new(socket, &self.sources, owner, &self.woken)
        };
        match spliced.join(Instant::now(), leg) {
            Some(splice) => {
                self.joined.insert(session, splice);
                self.queue(session);
            }
            None => self.tell(session, Traffic::begin(), Over::TcpReset),
        }
    }

    fn end_splice(&mut self, session: SessionId, how: Over) {
        self.end(session, how);
    }
}

/// A loop that ends resets what it has joined.
impl Drop for Splices {
    fn drop(&mut self) {
        for session in self.joined.keys().copied().collect::<Vec<_>>() {
            self.end(session, Over::Cut);
        }
    }
}
