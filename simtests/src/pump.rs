//! Moves one session's bytes between its place on a connection and a TCP connection, as a driver does.

use std::collections::VecDeque;

use adit_proto_core::{
    close::session_code,
    connection::Connection,
    id::Slot,
    session::{Read, Written},
};
use bytes::Bytes;

use crate::{
    At,
    log::Log,
    tcp::{Given, LegId, Legs, Taken},
};

/// One session at one of its ends.
#[derive(Debug)]
pub(crate) struct Pump {
    pub(crate) leg: LegId,
    slot: Slot,
    to_peer: Bytes,
    to_leg: VecDeque<Bytes>,
    outbound: Outbound,
    inbound: Inbound,
    /// When this session last got room on the connection, in turns of the connection: those who waited longest go
    /// first, so that none starves.
    pub(crate) served: u64,
    took_room: bool,
    told_failed: bool,
}

/// Program to connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outbound {
    Open,
    /// The connection takes no more for now.
    Blocked,
    Ended,
    /// The TCP connection failed; what came before has been passed on.
    Failed,
}

/// Connection to program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inbound {
    Open,
    /// The connection has nothing for now.
    Blocked,
    /// The peer's end was read.
    Ending,
    Ended,
    Failed,
    /// The peer abandoned the session.
    Abandoned,
}

/// What a turn led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing to do until something happens.
    Waiting,
    /// The turn's allowance is used up; there is more.
    More,
    /// Both directions have ended cleanly.
    Done,
    /// The TCP connection failed; the peer is to be told once what came before has reached it. Said once.
    Failed,
    /// The session is over otherwise; the TCP connection must be closed hard.
    Broken,
}

impl Pump {
    pub(crate) fn new(leg: LegId, slot: Slot) -> Self {
        Self {
            leg,
            slot,
            to_peer: Bytes::new(),
            to_leg: VecDeque::new(),
            outbound: Outbound::Open,
            inbound: Inbound::Open,
            served: 0,
            took_room: false,
            told_failed: false,
        }
    }

    /// Tells whether the last turn got room on the connection.
    pub(crate) fn took_room(&mut self) -> bool {
        std::mem::take(&mut self.took_room)
    }

    pub(crate) fn set_readable(&mut self) {
        if self.inbound == Inbound::Blocked {
            self.inbound = Inbound::Open;
        }
    }

    pub(crate) fn set_writable(&mut self) {
        if self.outbound == Outbound::Blocked {
            self.outbound = Outbound::Open;
        }
    }

    pub(crate) fn set_abandoned(&mut self) {
        self.inbound = Inbound::Abandoned;
    }

    /// The connection is lost, and these are the last bytes of a session that is whole.
    pub(crate) fn set_rest(&mut self, rest: VecDeque<Bytes>) {
        if let Inbound::Open | Inbound::Blocked = self.inbound {
            self.to_leg.extend(rest);
            self.inbound = Inbound::Ending;
        }
    }

    /// Tells whether the session has ended cleanly and only the program has to be told the rest.
    pub(crate) fn is_flushing(&self) -> bool {
        self.outbound == Outbound::Ended && self.inbound == Inbound::Ending
    }

    pub(crate) fn turn(
        &mut self,
        at: At,
        conn: &mut Connection,
        legs: &mut Legs,
        log: &mut Log,
    ) -> Turn {
        if self.inbound == Inbound::Abandoned {
            return match self.write_leg(at, legs, log) {
                Given::Blocked => Turn::Waiting,
                Given::All | Given::Reset => Turn::Broken,
            };
        }
        let (Some(sent), Some(received)) =
            (self.send(at, conn, legs), self.receive(at, conn, legs, log))
        else {
            if let Some(session) = conn.session(self.slot) {
                session.reset(session_code::TCP_RESET);
            }
            return Turn::Broken;
        };
        if self.outbound == Outbound::Ended && self.inbound == Inbound::Ended {
            Turn::Done
        } else if (self.outbound == Outbound::Failed || self.inbound == Inbound::Failed)
            && !self.told_failed
        {
            self.told_failed = true;
            Turn::Failed
        } else if sent | received {
            Turn::More
        } else {
            Turn::Waiting
        }
    }

    /// Gives whether the turn ended before the bytes did; none where the session is over.
    fn send(&mut self, at: At, conn: &mut Connection, legs: &mut Legs) -> Option<bool> {
        let mut moved = 0;
        while self.outbound == Outbound::Open {
            if !self.to_peer.is_empty() {
                let before = self.to_peer.len();
                let written = conn.session(self.slot)?.write(&mut self.to_peer).ok()?;
                self.took_room |= self.to_peer.len() < before;
                if written == Written::Blocked {
                    self.outbound = Outbound::Blocked;
                    break;
                }
            }
            if moved >= TURN_LEN {
                return Some(true);
            }
            match legs.read(at, self.leg, READ_LEN) {
                Taken::Bytes(bytes) => {
                    moved += bytes.len();
                    self.to_peer = bytes;
                }
                Taken::End => {
                    conn.session(self.slot)?.finish().ok()?;
                    self.outbound = Outbound::Ended;
                }
                Taken::Reset => self.outbound = Outbound::Failed,
                Taken::Nothing => break,
            }
        }
        Some(false)
    }

    fn receive(
        &mut self,
        at: At,
        conn: &mut Connection,
        legs: &mut Legs,
        log: &mut Log,
    ) -> Option<bool> {
        let mut moved = 0;
        loop {
            match self.write_leg(at, legs, log) {
                Given::All => {}
                Given::Blocked => return Some(false),
                Given::Reset => self.fail_inbound(),
            }
            match self.inbound {
                Inbound::Open if moved >= TURN_LEN => return Some(true),
                Inbound::Open => {
                    let mut session = conn.session(self.slot)?;
                    match session.read(READ_LEN, &mut self.to_leg).ok()? {
                        Read::More => {}
                        Read::Blocked => self.inbound = Inbound::Blocked,
                        Read::End => self.inbound = Inbound::Ending,
                    }
                    moved += self.to_leg.iter().map(Bytes::len).sum::<usize>();
                }
                Inbound::Ending if legs.finish(at, log, self.leg) => self.inbound = Inbound::Ended,
                Inbound::Ending => self.fail_inbound(),
                Inbound::Blocked | Inbound::Ended | Inbound::Failed | Inbound::Abandoned => {
                    return Some(false);
                }
            }
        }
    }

    fn fail_inbound(&mut self) {
        self.inbound = Inbound::Failed;
        self.to_leg.clear();
    }

    fn write_leg(&mut self, at: At, legs: &mut Legs, log: &mut Log) -> Given {
        while let Some(bytes) = self.to_leg.front_mut() {
            match legs.write(at, log, self.leg, bytes) {
                Given::All => drop(self.to_leg.pop_front()),
                stop @ (Given::Blocked | Given::Reset) => return stop,
            }
        }
        Given::All
    }
}

/// Read at once, in bytes.
const READ_LEN: usize = 64 << 10;
/// Moved in one direction of one session before the next session has its turn, in bytes.
const TURN_LEN: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use adit_proto_core::id::{ConnId, SessionId};
    use uuid::Uuid;

    use super::*;
    use crate::{
        facts::NodeId,
        oracle::Oracles,
        tcp::{Script, Side},
        trace::Trace,
    };

    fn bed(script: Script) -> (Pump, Legs, Log) {
        let (mut legs, mut log) = (
            Legs::default(),
            Log::new(Trace::default(), Oracles::default()),
        );
        let (place, session) = ((ConnId(0), Slot(0)), SessionId(Uuid::nil()));
        let who = (Side::User, session, script);
        let leg = legs.attach(At::ZERO, &mut log, NodeId(0), place, who);
        (Pump::new(leg, Slot(0)), legs, log)
    }

    #[test]
    fn news_about_a_direction_wake_it_only_where_it_waits() {
        let (mut pump, ..) = bed(Script::silent());
        (pump.outbound, pump.inbound) = (Outbound::Blocked, Inbound::Blocked);
        pump.set_readable();
        assert_eq!(
            (pump.outbound, pump.inbound),
            (Outbound::Blocked, Inbound::Open)
        );
        pump.set_writable();
        assert_eq!(
            (pump.outbound, pump.inbound),
            (Outbound::Open, Inbound::Open)
        );
        for (outbound, inbound) in [
            (Outbound::Ended, Inbound::Ending),
            (Outbound::Failed, Inbound::Abandoned),
        ] {
            (pump.outbound, pump.inbound) = (outbound, inbound);
            pump.set_readable();
            pump.set_writable();
            assert_eq!((pump.outbound, pump.inbound), (outbound, inbound));
        }
    }

    #[test]
    fn a_pump_flushes_while_only_the_program_has_to_be_told() {
        let (mut pump, ..) = bed(Script::silent());
        assert!(!pump.is_flushing());
        (pump.outbound, pump.inbound) = (Outbound::Ended, Inbound::Ending);
        assert!(pump.is_flushing());
        pump.inbound = Inbound::Ended;
        assert!(!pump.is_flushing());
    }

    #[test]
    fn what_the_program_does_not_take_waits_in_order() {
        let (mut pump, mut legs, mut log) = bed(Script::silent());
        let zeros = Bytes::from(vec![0; READ_LEN]);
        pump.to_leg = [zeros.clone(), zeros].into();
        assert_eq!(
            pump.write_leg(At::ZERO, &mut legs, &mut log),
            Given::Blocked
        );
        assert_eq!(pump.to_leg.len(), 1);
        let later = At::from_secs(1);
        legs.run(later, &mut log);
        assert_eq!(pump.write_leg(later, &mut legs, &mut log), Given::All);
        assert!(pump.to_leg.is_empty());
        legs.abort(later, &mut log, pump.leg);
        pump.to_leg = [Bytes::from_static(b"x")].into();
        assert_eq!(pump.write_leg(later, &mut legs, &mut log), Given::Reset);
        pump.fail_inbound();
        assert!(pump.to_leg.is_empty());
        assert_eq!(pump.inbound, Inbound::Failed);
    }
}
