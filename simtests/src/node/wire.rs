//! One connection with its transmit buffer and the sessions that it carries.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use adit_proto_core::{
    close::session_code,
    connection::Connection,
    endpoint::Endpoint,
    id::{ConnId, SessionId, Slot},
    output::{Event, Input, Output, SessionEnd, ToConnection, Transmit, TransmitBuf},
};

use super::{Ctx, Host};
use crate::{
    At,
    facts::Fact,
    pump::{Pump, Turn},
    tcp::{Script, Side},
};

/// A connection and what a driver's task keeps beside it.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) conn: Connection,
    buf: TransmitBuf,
    unsent: Option<Transmit>,
    deadline: Option<At>,
    pumps: BTreeMap<Slot, Pump>,
    runnable: BTreeSet<Slot>,
    /// Turns in which a session got room on the connection.
    turns: u64,
    /// Sessions that are ending, and when each is cut whatever is left of it.
    ending: BTreeSet<(At, Slot)>,
    /// The last poll was broken off.
    again_at: Option<At>,
    /// When its timer was fired last.
    expired_at: Option<At>,
    /// What was told last of an agent's heartbeats.
    round_trip: Option<At>,
}

/// Time between the failure of a TCP connection and the reset that tells the peer.
const FAIL_PATIENCE: Duration = Duration::from_millis(100);
/// Time for what is left to reach a program after the peer is done with the session.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);
/// The same where the session had ended cleanly when its connection was lost.
const CLEAN_FLUSH_PATIENCE: Duration = Duration::from_secs(60);

impl Wire {
    pub(super) fn new(conn: Connection, host: &Host) -> Self {
        Self {
            conn,
            buf: TransmitBuf::new(host.batch),
            unsent: None,
            deadline: None,
            pumps: BTreeMap::new(),
            runnable: BTreeSet::new(),
            turns: 0,
            ending: BTreeSet::new(),
            again_at: None,
            expired_at: None,
            round_trip: None,
        }
    }

    pub(super) fn id(&self) -> ConnId {
        self.conn.id()
    }

    pub(super) fn input(&mut self, ctx: &Ctx<'_>, message: ToConnection) {
        self.conn
            .handle_input(ctx.now(), Input::FromEndpoint(message));
    }

    /// When the wire wants to be run.
    pub(super) fn next_at(&self, host: &Host) -> Option<At> {
        let deadline = self.deadline.map(|at| at + host.timer_slack);
        let ending = self.ending.first().map(|(at, _)| *at);
        let unsent = self.unsent.as_ref().map(|_| host.blocked_until);
        [deadline, ending, unsent, self.again_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Carries a session's bytes from and to a program. Tells whether the session is still open.
    pub(super) fn attach(
        &mut self,
        ctx: &mut Ctx<'_>,
        host: &Host,
        slot: Slot,
        (side, session, script): (Side, SessionId, Script),
    ) -> bool {
        let place = (self.id(), slot);
        let leg = ctx
            .legs
            .attach(ctx.at, ctx.log, host.id, place, (side, session, script));
        if self.conn.session(slot).is_none() {
            ctx.legs.abort(ctx.at, ctx.log, leg);
            return false;
        }
        self.pumps.insert(slot, Pump::new(leg, slot));
        self.runnable.insert(slot);
        true
    }

    pub(super) fn discard(&mut self, slot: Slot) {
        if let Some(session) = self.conn.session(slot) {
            session.reset(session_code::CANCELLED);
        }
    }

    /// The program behind a session did something.
    pub(super) fn ready(&mut self, slot: Slot) {
        if self.pumps.contains_key(&slot) {
            self.runnable.insert(slot);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.conn.is_drained() && self.pumps.is_empty() && self.unsent.is_none()
    }

    /// The process is gone.
    pub(super) fn kill(&mut self, ctx: &mut Ctx<'_>) {
        for pump in self.pumps.values() {
            ctx.legs.abort(ctx.at, ctx.log, pump.leg);
        }
        self.pumps.clear();
    }

    /// Lets time pass for the connection and its sessions.
    pub(super) fn expire(&mut self, ctx: &mut Ctx<'_>, host: &Host) {
        self.again_at = None;
        if self
            .deadline
            .is_some_and(|at| at + host.timer_slack <= ctx.at)
        {
            self.deadline = None;
            self.expired_at = Some(ctx.at);
            self.conn.handle_input(ctx.now(), Input::Timeout);
        }
        while let Some(&(at, slot)) = self.ending.first().filter(|(at, _)| *at <= ctx.at) {
            self.ending.remove(&(at, slot));
            if let Some(session) = self.conn.session(slot) {
                session.reset(session_code::TCP_RESET);
            }
            self.retire(ctx, slot, false);
        }
    }

    /// Polls once more; gives an event for the role, or none when there is nothing left.
    pub(super) fn poll(
        &mut self,
        ctx: &mut Ctx<'_>,
        host: &Host,
        endpoint: &mut Endpoint,
    ) -> Option<Event> {
        self.send_unsent(ctx, host);
        loop {
            if host.lazy > 0 && ctx.choices.chance(host.lazy) {
                self.again_at = Some(ctx.at + LAZY);
                return None;
            }
            match self.conn.poll_output(ctx.now(), &mut self.buf) {
                Output::Notice(notice) => {
                    if let Some(message) = endpoint.handle_notice(notice) {
                        self.input(ctx, message);
                    }
                }
                Output::Transmit(transmit) => {
                    self.unsent = Some(transmit);
                    self.send_unsent(ctx, host);
                }
                Output::Event(event) => {
                    ctx.note(host.id, &Fact::Event(self.id(), &event));
                    if let Some(event) = self.on_event(ctx, event) {
                        return Some(event);
                    }
                }
                Output::Wait(deadline) => {
                    self.deadline = deadline.map(|instant| ctx.since(instant));
                    if self.run_pumps(ctx) {
                        continue;
                    }
                    let fact = Fact::Waits {
                        conn: self.id(),
                        until: self.deadline,
                        sessions: self.conn.sessions_open(),
                        expired: self.expired_at == Some(ctx.at),
                    };
                    ctx.note(host.id, &fact);
                    self.show_round_trip(ctx, host);
                    return None;
                }
            }
        }
    }

    fn show_round_trip(&mut self, ctx: &mut Ctx<'_>, host: &Host) {
        let told = self.conn.as_agent().and_then(|agent| agent.round_trip());
        if let Some(took) = told.filter(|_| told != self.round_trip) {
            self.round_trip = told;
            ctx.note(host.id, &Fact::RoundTrip(self.id(), took));
        }
    }

    fn send_unsent(&mut self, ctx: &mut Ctx<'_>, host: &Host) {
        if host.blocked_until > ctx.at {
            return;
        }
        let Some(transmit) = self.unsent.take() else {
            return;
        };
        let src = match transmit.src_ip {
            Some(ip) => (ip, host.port).into(),
            None => host.src_for(transmit.destination),
        };
        let bytes = &self.buf.bytes()[..transmit.size.min(self.buf.bytes().len())];
        let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
        for data in bytes.chunks(segment) {
            ctx.send(host, (src, transmit.destination), transmit.ecn, data);
        }
        self.buf.clear();
    }

    /// Does what a driver's task does by itself; gives back what is the role's.
    fn on_event(&mut self, ctx: &mut Ctx<'_>, event: Event) -> Option<Event> {
        match event {
            Event::SessionReadable(slot) => {
                if let Some(pump) = self.pumps.get_mut(&slot) {
                    pump.set_readable();
                    self.runnable.insert(slot);
                }
                None
            }
            Event::SessionWritable(slot) => {
                if let Some(pump) = self.pumps.get_mut(&slot) {
                    pump.set_writable();
                    self.runnable.insert(slot);
                }
                None
            }
            Event::SessionRest { slot, rest } => {
                if let Some(pump) = self.pumps.get_mut(&slot) {
                    pump.set_rest(rest);
                    self.runnable.insert(slot);
                }
                None
            }
            Event::SessionEnded { slot, how } => {
                if let SessionEnd::NotRead { .. } = how {
                    self.retire(ctx, slot, false);
                }
                if let (SessionEnd::ResetByPeer(_) | SessionEnd::Unanswered, Some(pump)) =
                    (how, self.pumps.get_mut(&slot))
                {
                    pump.set_abandoned();
                    self.ending.insert((ctx.at + FLUSH_PATIENCE, slot));
                    self.runnable.insert(slot);
                }
                Some(Event::SessionEnded { slot, how })
            }
            Event::Closed(why) => {
                let slots: Vec<Slot> = self.pumps.keys().copied().collect();
                for slot in slots {
                    if self.pumps.get(&slot).is_some_and(Pump::is_flushing) {
                        self.ending.insert((ctx.at + CLEAN_FLUSH_PATIENCE, slot));
                    } else {
                        self.retire(ctx, slot, false);
                    }
                }
                Some(Event::Closed(why))
            }
            event @ (Event::Established { .. }
            | Event::RoutesAccepted { .. }
            | Event::Seen
            | Event::SessionRequested { .. }
            | Event::SessionOpened { .. }
            | Event::SessionRefused { .. }
            | Event::PathSuspect
            | Event::PathRecovered
            | Event::RenewalRequested { .. }
            | Event::RenewalAnswered(_)
            | Event::Peer(_)) => Some(event),
        }
    }

    /// Gives each session that has something to do a turn; tells whether the connection must be polled again.
    fn run_pumps(&mut self, ctx: &mut Ctx<'_>) -> bool {
        let mut slots: Vec<Slot> = std::mem::take(&mut self.runnable).into_iter().collect();
        slots.sort_by_key(|slot| self.pumps.get(slot).map_or(0, |pump| pump.served));
        for &slot in &slots {
            let Some(pump) = self.pumps.get_mut(&slot) else {
                continue;
            };
            let turn = pump.turn(ctx.at, &mut self.conn, ctx.legs, ctx.log);
            if pump.took_room() {
                self.turns += 1;
                pump.served = self.turns;
            }
            match turn {
                Turn::Waiting => {}
                Turn::More => drop(self.runnable.insert(slot)),
                Turn::Done => self.retire(ctx, slot, true),
                Turn::Failed => {
                    let patience = (self.conn.rtt() * 3).max(FAIL_PATIENCE);
                    self.ending.insert((ctx.at + patience, slot));
                    self.runnable.insert(slot);
                }
                Turn::Broken => self.retire(ctx, slot, false),
            }
        }
        !slots.is_empty()
    }

    fn retire(&mut self, ctx: &mut Ctx<'_>, slot: Slot, clean: bool) {
        if let Some(pump) = self.pumps.remove(&slot) {
            if clean {
                ctx.legs.release(pump.leg);
            } else {
                ctx.legs.abort(ctx.at, ctx.log, pump.leg);
            }
        }
    }
}

/// How long a poll that was broken off waits.
const LAZY: At = Duration::from_micros(200);
