//! TCP connections between nodes and the programs behind them: users at gateways, targets at agents.
//!
//! What a program writes follows a pattern of the session, the direction and the offset, so that every byte which comes
//! out can be judged where it comes out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use adit_proto_core::id::{ConnId, SessionId, Slot};
use bytes::Bytes;

use crate::{
    At,
    facts::{Fact, LegFact, NodeId},
    log::Log,
};

/// Names one TCP connection of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LegId(pub u64);

/// Who is at the far end of a TCP connection, seen from the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// A user's program, at a gateway.
    User,
    /// A target, at an agent or at a gateway that dials itself.
    Target,
}

/// What a program does.
#[derive(Clone, Debug)]
pub struct Script {
    /// Bytes to write in all.
    pub total: u64,
    /// Bytes written at once.
    pub chunk: u64,
    /// Time between two such writes.
    pub gap: At,
    /// How it ends its direction.
    pub ending: Ending,
    /// It stops reading after so many bytes, for so long.
    pub stall: Option<(u64, At)>,
    /// It closes hard so long after the beginning.
    pub reset_after: Option<At>,
    /// What it wrote and the node has not read is lost when it closes hard.
    pub reset_discards: bool,
    /// Time that it takes to react.
    pub latency: At,
}

impl Script {
    /// A program that writes nothing and ends when the other side has.
    #[must_use]
    pub fn silent() -> Self {
        Self {
            total: 0,
            chunk: 0,
            gap: At::ZERO,
            ending: Ending::FinAfterPeer,
            stall: None,
            reset_after: None,
            reset_discards: false,
            latency: At::from_micros(300),
        }
    }

    /// A program that writes so many bytes at once and ends when the other side has.
    #[must_use]
    pub fn short(total: u64) -> Self {
        Self {
            total,
            chunk: total,
            ..Self::silent()
        }
    }
}

/// How a program ends its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As soon as everything is written.
    Fin,
    /// When everything is written and the other direction has ended.
    FinAfterPeer,
    /// Not before the calm.
    Hold,
}

/// What a node's read found.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Bytes.
    Bytes(Bytes),
    /// The program's clean end.
    End,
    /// The connection is reset.
    Reset,
    /// Nothing for now.
    Nothing,
}

/// What became of a node's write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// All was taken.
    All,
    /// The rest waits.
    Blocked,
    /// The connection is reset.
    Reset,
}

#[derive(Debug)]
struct Leg {
    node: NodeId,
    place: (ConnId, Slot),
    side: Side,
    session: SessionId,
    script: Script,
    began: At,
    written: u64,
    /// Of these, read by the node.
    taken: u64,
    fin: bool,
    /// The node has read the end behind the last byte.
    fin_taken: bool,
    given: u64,
    /// Of these, read by the program.
    read: u64,
    fin_given: bool,
    reset: bool,
    /// The node has let go of it.
    released: bool,
    write_at: At,
    stalled_until: Option<At>,
}

/// All TCP connections of a run.
#[derive(Debug, Default)]
pub struct Legs {
    legs: BTreeMap<LegId, Leg>,
    wakes: BTreeSet<(At, LegId)>,
    count: u64,
    ready: VecDeque<(NodeId, ConnId, Slot)>,
    /// Sessions whose users have seen both ends.
    done: BTreeSet<SessionId>,
    calm: bool,
}

impl Legs {
    /// Connects a program to a place of a node's connection; the program begins at once.
    pub fn attach(
        &mut self,
        at: At,
        log: &mut Log,
        node: NodeId,
        place: (ConnId, Slot),
        (side, session, script): (Side, SessionId, Script),
    ) -> LegId {
        let id = LegId(self.count);
        self.count += 1;
        self.wakes.insert((at + script.latency, id));
        let leg = Leg {
            node,
            place,
            side,
            session,
            script,
            began: at,
            written: 0,
            taken: 0,
            fin: false,
            fin_taken: false,
            given: 0,
            read: 0,
            fin_given: false,
            reset: false,
            released: false,
            write_at: at,
            stalled_until: None,
        };
        leg.tell(at, log, id, LegFact::Attached);
        self.legs.insert(id, leg);
        id
    }

    /// When a program acts next.
    #[must_use]
    pub fn next_at(&self) -> Option<At> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Lets every program act whose time has come.
    pub fn run(&mut self, at: At, log: &mut Log) {
        while let Some(&(due, id)) = self.wakes.first().filter(|(due, _)| *due <= at) {
            self.wakes.remove(&(due, id));
            let Some(leg) = self.legs.get_mut(&id) else {
                continue;
            };
            let changed = leg.act(at, id, self.calm, log);
            if changed {
                self.ready.push_back((leg.node, leg.place.0, leg.place.1));
            }
            if leg.is_over() || (leg.reset && leg.released) {
                if leg.is_over() {
                    leg.tell(at, log, id, LegFact::Done);
                    self.done
                        .extend((leg.side == Side::User).then_some(leg.session));
                }
                self.legs.remove(&id);
            } else if let Some(next) = leg.next_at(at, self.calm) {
                self.wakes.insert((next, id));
            }
        }
    }

    /// A place whose node should look at its TCP connection.
    pub fn poll_ready(&mut self) -> Option<(NodeId, ConnId, Slot)> {
        self.ready.pop_front()
    }

    /// Programs behave from here on: they read, write and end.
    pub fn calm(&mut self, at: At) {
        self.calm = true;
        self.wakes.extend(self.legs.keys().map(|id| (at, *id)));
    }

    /// Tells whether the user of a session has seen the clean end of both directions.
    #[must_use]
    pub fn is_done(&self, session: SessionId) -> bool {
        self.done.contains(&session)
    }

    /// One TCP connection that is not over, in words.
    #[must_use]
    pub fn describe_first(&self) -> String {
        self.legs
            .first_key_value()
            .map_or_else(String::new, |(_, leg)| format!("{leg:?}"))
    }

    /// TCP connections that are not over.
    #[must_use]
    pub fn len(&self) -> usize {
        self.legs.len()
    }

    /// Tells whether all TCP connections are over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.legs.is_empty()
    }

    /// The node reads up to `max` bytes.
    pub fn read(&mut self, at: At, id: LegId, max: usize) -> Taken {
        let Some(leg) = self.legs.get_mut(&id) else {
            return Taken::Reset;
        };
        let there = leg.written - leg.taken;
        if there > 0 {
            let bytes = pattern(leg.session, leg.side, leg.taken, there.min(max as u64));
            leg.taken += bytes.len() as u64;
            let wake = (at + leg.script.latency, id);
            self.wakes.insert(wake);
            return Taken::Bytes(bytes);
        }
        match (leg.reset, leg.fin) {
            (true, _) => Taken::Reset,
            (false, true) => {
                leg.fin_taken = true;
                self.wakes.insert((at + leg.script.latency, id));
                Taken::End
            }
            (false, false) => Taken::Nothing,
        }
    }

    /// The node writes what the program has room for.
    pub fn write(&mut self, at: At, log: &mut Log, id: LegId, bytes: &mut Bytes) -> Given {
        let Some(leg) = self.legs.get_mut(&id).filter(|leg| !leg.reset) else {
            return Given::Reset;
        };
        let room = WINDOW - (leg.given - leg.read).min(WINDOW);
        let len = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if len > 0 {
            let taken = bytes.split_to(len);
            let offset = leg.given;
            leg.given += len as u64;
            self.wakes.insert((at + leg.script.latency, id));
            leg.tell(
                at,
                log,
                id,
                LegFact::Got {
                    offset,
                    bytes: &taken,
                },
            );
        }
        if bytes.is_empty() {
            Given::All
        } else {
            Given::Blocked
        }
    }

    /// The node ends its direction cleanly. Tells whether the connection still stands.
    pub fn finish(&mut self, at: At, log: &mut Log, id: LegId) -> bool {
        let Some(leg) = self.legs.get_mut(&id).filter(|leg| !leg.reset) else {
            return false;
        };
        leg.fin_given = true;
        leg.tell(at, log, id, LegFact::GotFin);
        self.wakes.insert((at + leg.script.latency, id));
        true
    }

    /// The node closes the connection hard, or its process is gone.
    pub fn abort(&mut self, at: At, log: &mut Log, id: LegId) {
        if let Some(leg) = self.legs.remove(&id)
            && !leg.reset
        {
            leg.tell(at, log, id, LegFact::GotReset);
        }
    }

    /// The node lets go of a connection of which it has seen both ends.
    pub fn release(&mut self, id: LegId) {
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.released = true;
            if leg.reset {
                self.legs.remove(&id);
            }
        }
    }
}

impl Leg {
    fn tell(&self, at: At, log: &mut Log, leg: LegId, what: LegFact<'_>) {
        let (side, session) = (self.side, self.session);
        let fact = Fact::Leg {
            leg,
            side,
            session,
            what,
        };
        log.note(at, self.node, &fact);
    }

    /// Does what is due; tells whether the node should look.
    fn act(&mut self, at: At, id: LegId, calm: bool, log: &mut Log) -> bool {
        if self.reset {
            return false;
        }
        let resets = self.script.reset_after.map(|after| self.began + after);
        if resets.is_some_and(|due| due <= at) && !calm {
            self.reset = true;
            if self.script.reset_discards {
                self.written = self.taken;
            }
            self.tell(at, log, id, LegFact::Reset);
            return true;
        }
        let read = self.consume(at, calm);
        let wrote = self.produce(at, id, calm, log);
        let ended = self.end(at, id, calm, log);
        read | wrote | ended
    }

    fn consume(&mut self, at: At, calm: bool) -> bool {
        if let Some((after, time)) = self.script.stall
            && self.given > after
            && !calm
        {
            let until = *self.stalled_until.get_or_insert(at + time);
            if at < until {
                return false;
            }
        }
        let moved = self.read != self.given;
        self.read = self.given;
        moved
    }

    fn produce(&mut self, at: At, id: LegId, calm: bool, log: &mut Log) -> bool {
        let left = self.script.total - self.written;
        let room = WINDOW - (self.written - self.taken).min(WINDOW);
        let chunk = if calm { WINDOW } else { self.script.chunk };
        let len = left.min(room).min(chunk);
        if len == 0 || (at < self.write_at && !calm) {
            return false;
        }
        self.written += len;
        self.write_at = at + self.script.gap;
        self.tell(at, log, id, LegFact::Wrote(len));
        true
    }

    fn end(&mut self, at: At, id: LegId, calm: bool, log: &mut Log) -> bool {
        let may = match self.script.ending {
            Ending::Fin => true,
            Ending::FinAfterPeer => self.has_read_all() || calm,
            Ending::Hold => calm,
        };
        if self.fin || self.written < self.script.total || !may {
            return false;
        }
        self.fin = true;
        self.tell(at, log, id, LegFact::Fin);
        true
    }

    fn has_read_all(&self) -> bool {
        self.fin_given && self.read == self.given
    }

    fn is_over(&self) -> bool {
        !self.reset && self.fin_taken && self.has_read_all()
    }

    /// When the program acts next by itself; a node's read or write wakes it sooner.
    fn next_at(&self, at: At, calm: bool) -> Option<At> {
        if self.reset {
            return None;
        }
        let resets = self.script.reset_after.map(|after| self.began + after);
        let writes = (self.written < self.script.total
            && self.written - self.taken < WINDOW
            && self.write_at > at)
            .then_some(self.write_at);
        let reads = self.stalled_until;
        let next = [resets.filter(|_| !calm), writes, reads];
        next.into_iter().flatten().filter(|due| *due > at).min()
    }
}

/// Bytes under way in one direction between a node and a program.
const WINDOW: u64 = 64 << 10;

/// What a session's program writes at an offset: up to `len` bytes of it. The period is prime, so that a byte lost,
/// doubled or moved by any power of two shows.
#[must_use]
pub fn pattern(session: SessionId, from: Side, offset: u64, len: u64) -> Bytes {
    static BYTES: [u8; PERIOD] = bytes();
    let (high, low) = session.0.as_u64_pair();
    let salt = (high ^ low) % PERIOD as u64
        + match from {
            Side::User => 13,
            Side::Target => 7_001,
        };
    let start = usize::try_from((offset % PERIOD as u64 + salt) % PERIOD as u64).unwrap_or(0);
    let len = usize::try_from(len.min(CHUNK_MAX)).unwrap_or(0);
    Bytes::from_static(&BYTES[start..(start + len).min(PERIOD)])
}

const CHUNK_MAX: u64 = 16 << 10;
const PERIOD: usize = 65_521;

const fn bytes() -> [u8; PERIOD] {
    let mut bytes = [0; PERIOD];
    let mut state: u32 = 12_345;
    let mut i = 0;
    while i < PERIOD {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes[i] = state.to_be_bytes()[0];
        i += 1;
    }
    bytes
}

#[cfg(test)]
mod tests;
