//! The sessions of one connection's task: whose turn it is, and how each of them ends.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use adit_proto_core::{
    close::session_code, connection::Connection, id::Slot, session_timer::SessionBounds,
};
use bytes::Bytes;

use crate::{
    clocks::Clocks,
    leg::Leg,
    over::Over,
    pump::{Break, Pool, Pump, Traffic, Turn},
};

/// Least time between the failure of a socket and the reset that tells the peer: what was read before it must reach the
/// peer first, since a reset discards what is still under way.
const FAIL_PATIENCE_MIN: Duration = Duration::from_millis(100);
/// Most of it, on a slow path.
const FAIL_PATIENCE_MAX: Duration = Duration::from_secs(3);
/// Time for what is left to reach a socket after the peer is done with the session.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);
/// The same where the session had ended cleanly when its connection was lost; begun anew whenever the socket takes some.
const CLEAN_FLUSH_PATIENCE: Duration = Duration::from_secs(60);
/// How often sockets that are not being read are asked whether they still stand.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// All sessions of one connection whose sockets are attached.
#[derive(Debug)]
pub struct Sessions<L: Leg> {
    pumps: BTreeMap<Slot, Pump<L>>,
    pool: Pool<L::Buffer>,
    /// Sessions to give a turn.
    runnable: Vec<Slot>,
    turns: u64,
    /// Sessions that are ending, and when each is cut whatever is left of it.
    ending: BTreeSet<(Instant, Slot)>,
    sweep_at: Option<Instant>,
    clocks: Clocks,
    /// Bytes from and to sockets that have not been told of yet.
    moved: (u64, u64),
    over: Vec<(Slot, Traffic, Over)>,
}

impl<L: Leg> Default for Sessions<L> {
    fn default() -> Self {
        Self {
            pumps: BTreeMap::new(),
            pool: Pool::default(),
            runnable: Vec::new(),
            turns: 0,
            ending: BTreeSet::new(),
            sweep_at: None,
            clocks: Clocks::default(),
            moved: (0, 0),
            over: Vec::new(),
        }
    }
}

impl<L: Leg> Sessions<L> {
    /// Takes a socket over for a session that is open on the connection.
    pub fn attach(
        &mut self,
        now: Instant,
        slot: Slot,
        (tcp, early): (L, Bytes),
        bounds: SessionBounds,
    ) {
        self.moved.0 += early.len() as u64;
        self.pumps.insert(slot, Pump::new(slot, tcp, early));
        self.clocks.watch(now, slot, bounds);
        self.runnable.push(slot);
        self.sweep_at.get_or_insert(now + SWEEP_INTERVAL);
    }

    /// Those that are not over.
    pub fn slots(&self) -> BTreeSet<Slot> {
        self.pumps.keys().copied().collect()
    }

    /// Tells whether all are over.
    pub fn is_empty(&self) -> bool {
        self.pumps.is_empty()
    }

    /// Bytes that each session has moved from and to its socket.
    pub fn traffic(&self) -> BTreeMap<Slot, (u64, u64)> {
        let moved = |(slot, pump): (&Slot, &Pump<L>)| {
            let traffic = pump.traffic();
            (*slot, (traffic.sent, traffic.received))
        };
        self.pumps.iter().map(moved).collect()
    }

    /// Where sessions are added whose sockets have become ready.
    pub fn runnable(&mut self) -> &mut Vec<Slot> {
        &mut self.runnable
    }

    /// A session's socket, for its driver to say what it is ready for.
    pub fn leg(&mut self, slot: Slot) -> Option<&mut L> {
        self.pumps.get_mut(&slot).map(Pump::leg)
    }

    /// The connection may have something to read for a session.
    pub fn readable(&mut self, slot: Slot) {
        if let Some(pump) = self.pumps.get_mut(&slot) {
            pump.set_readable();
            self.runnable.push(slot);
        }
    }

    /// The connection may have room for a session.
    pub fn writable(&mut self, slot: Slot) {
        if let Some(pump) = self.pumps.get_mut(&slot) {
            pump.set_writable();
            self.runnable.push(slot);
        }
    }

    /// The peer abandoned a session: its socket is reset once it has what was read before.
    pub fn peer_reset(&mut self, now: Instant, slot: Slot) {
        if let Some(pump) = self.pumps.get_mut(&slot) {
            pump.set_abandoned();
            self.ending.insert((now + FLUSH_PATIENCE, slot));
            self.runnable.push(slot);
        }
    }

    /// The connection is about to be over, and these are the last bytes of a session that is whole.
    pub fn rest(&mut self, slot: Slot, rest: VecDeque<Bytes>) {
        if let Some(pump) = self.pumps.get_mut(&slot) {
            pump.set_rest(rest);
            self.runnable.push(slot);
        }
    }

    /// The connection is over: every socket is reset, but for those that only have to be told the rest of a session
    /// that had ended cleanly.
    pub fn connection_lost(&mut self, now: Instant, how: Over) {
        let cut: Vec<Slot> = self
            .pumps
            .iter()
            .filter(|(_, p)| !p.is_flushing())
            .map(|(s, _)| *s)
            .collect();
        for slot in cut {
            self.retire(slot, how);
        }
        for (slot, pump) in &mut self.pumps {
            pump.makes_progress();
            self.ending.insert((now + CLEAN_FLUSH_PATIENCE, *slot));
        }
    }

    /// Ends a session, whatever is under way.
    pub fn kill(&mut self, slot: Slot, how: Over) {
        self.retire(slot, how);
    }

    /// Resets what is left.
    pub fn cut(&mut self, how: Over) {
        let slots: Vec<Slot> = self.pumps.keys().copied().collect();
        for slot in slots {
            self.retire(slot, how);
        }
    }

    /// Gives each session that has something to do a turn; tells whether any had.
    pub fn run(&mut self, now: Instant, conn: &mut Connection) -> bool {
        if self.runnable.is_empty() {
            return false;
        }
        let mut slots = std::mem::take(&mut self.runnable);
        slots.sort_unstable();
        slots.dedup();
        // Room on the connection goes to those who waited longest for it.
        slots.sort_by_key(|slot| self.pumps.get(slot).map_or(0, |pump| pump.served));
        for slot in slots.drain(..) {
            self.turn(now, conn, slot);
        }
        // The emptied vector keeps its room for the next round.
        if self.runnable.is_empty() {
            self.runnable = slots;
        }
        true
    }

    fn turn(&mut self, now: Instant, conn: &mut Connection, slot: Slot) {
        let Some(pump) = self.pumps.get_mut(&slot) else {
            return;
        };
        let before = pump.traffic();
        let turn = pump.turn(conn, &mut self.pool);
        let after = pump.traffic();
        if (before.sent, before.received) != (after.sent, after.received) {
            self.clocks.handle_bytes(now, slot);
        }
        self.moved.0 += after.sent - before.sent;
        self.moved.1 += after.received - before.received;
        if pump.took_room() {
            self.turns += 1;
            pump.served = self.turns;
        }
        match turn {
            Turn::Waiting => {}
            Turn::More => self.runnable.push(slot),
            Turn::Done => self.retire(slot, Over::Clean),
            Turn::Failed => {
                let patience = (conn.rtt() * 3).clamp(FAIL_PATIENCE_MIN, FAIL_PATIENCE_MAX);
                self.ending.insert((now + patience, slot));
                // It may have more to pass on until then.
                self.runnable.push(slot);
            }
            Turn::Broken(Break::Tcp) => self.retire(slot, Over::TcpReset),
            Turn::Broken(Break::Peer) => self.retire(slot, Over::PeerReset),
        }
    }

    /// Bytes moved from and to sockets since this was asked last, if any were.
    pub fn take_moved(&mut self) -> Option<(u64, u64)> {
        let moved = std::mem::take(&mut self.moved);
        (moved != (0, 0)).then_some(moved)
    }

    /// When [`expire`](Self::expire) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ending = self.ending.first().map(|(at, _)| *at);
        let ends = [ending, self.sweep_at, self.clocks.poll_timeout()];
        ends.into_iter().flatten().min()
    }

    /// Ends the sessions whose time is over, and looks for sockets that died unseen.
    pub fn expire(&mut self, now: Instant, conn: &mut Connection) {
        while let Some(&(at, slot)) = self.ending.first().filter(|(at, _)| *at <= now) {
            self.ending.remove(&(at, slot));
            if self.pumps.get_mut(&slot).is_some_and(Pump::makes_progress) {
                self.ending.insert((now + CLEAN_FLUSH_PATIENCE, slot));
                continue;
            }
            if let Some(session) = conn.session(slot) {
                session.reset(session_code::TCP_RESET);
            }
            let how = match self.pumps.get(&slot) {
                Some(pump) if pump.is_abandoned() => Over::PeerReset,
                Some(_) | None => Over::TcpReset,
            };
            self.retire(slot, how);
        }
        while let Some((slot, over)) = self.clocks.poll_over(now) {
            if let Some(session) = conn.session(slot) {
                session.reset(session_code::TIME_OVER);
            }
            self.retire(slot, over.into());
        }
        if self.sweep_at.is_some_and(|at| at <= now) {
            let dead = self
                .pumps
                .iter_mut()
                .filter_map(|(slot, pump)| pump.died().then_some(*slot));
            self.runnable.extend(dead);
            self.sweep_at = (!self.pumps.is_empty()).then(|| now + SWEEP_INTERVAL);
        }
    }

    /// The next session that is over, to be reported.
    pub fn poll_over(&mut self) -> Option<(Slot, Traffic, Over)> {
        self.over.pop()
    }

    fn retire(&mut self, slot: Slot, how: Over) {
        let Some(pump) = self.pumps.remove(&slot) else {
            return;
        };
        self.clocks.forget(slot);
        let traffic = if how == Over::Clean {
            pump.traffic()
        } else {
            pump.abort(how.text())
        };
        self.over.push((slot, traffic, how));
    }
}
