//! One connection under watch: what it may say and when, and an application that moves patterned bytes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use adit_proto_core::{
    connection::Connection,
    id::{AttemptId, Slot},
    output::{Event, TransmitBuf},
    session::{Read, SessionError, Written},
};
use bytes::Bytes;

/// What the agent's application does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Accept,
    Refuse(String),
    Hold,
}

/// Bytes of one session at one end. What is written follows a pattern that the other end checks.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    /// Bytes to write in all, and whether the end follows them.
    pub(crate) goal: u64,
    pub(crate) finish: bool,
    pub(crate) paused: bool,
    pub(crate) written: u64,
    pub(crate) finished: bool,
    pub(crate) read: u64,
    pub(crate) got_end: bool,
    pub(crate) error: Option<SessionError>,
    /// The last write did not take everything.
    pub(crate) blocked: bool,
}

pub(crate) struct Peer {
    pub(crate) conn: Connection,
    pub(crate) buf: TransmitBuf,
    pub(crate) deadline: Option<Instant>,
    pub(crate) is_gateway: bool,
    /// Everything that it said, with the time since the start.
    pub(crate) events: Vec<(Duration, Event)>,
    pub(crate) flows: BTreeMap<Slot, Flow>,
    /// Attempts that wait for an outcome.
    pub(crate) attempts: BTreeSet<AttemptId>,
    answer: Answer,
    closed: bool,
    asked: BTreeSet<Slot>,
    open: BTreeSet<Slot>,
    ended: BTreeSet<Slot>,
}

impl Peer {
    pub(crate) fn new(conn: Connection, answer: Answer) -> Self {
        let mut conn = conn;
        Self {
            is_gateway: conn.as_gateway().is_some(),
            conn,
            buf: TransmitBuf::new(10),
            deadline: None,
            events: Vec::new(),
            flows: BTreeMap::new(),
            attempts: BTreeSet::new(),
            answer,
            closed: false,
            asked: BTreeSet::new(),
            open: BTreeSet::new(),
            ended: BTreeSet::new(),
        }
    }

    pub(crate) fn set_answer(&mut self, answer: Answer) {
        self.answer = answer;
    }

    /// Accepts a session that was held.
    pub(crate) fn accept(&mut self, slot: Slot) {
        self.conn.as_agent().unwrap().accept(slot).unwrap();
        assert!(self.open.insert(slot), "{slot} accepted twice");
        self.flows.insert(slot, Flow::default());
    }

    /// Judges an event against what was said before, then reacts as an application would.
    pub(crate) fn take(&mut self, at: Duration, event: Event) {
        assert!(!self.closed, "event after Closed: {event:?}");
        match &event {
            Event::SessionRequested { slot, .. } => {
                let slot = *slot;
                assert!(!self.is_gateway && self.asked.insert(slot), "{event:?}");
                match self.answer.clone() {
                    Answer::Accept => self.accept(slot),
                    Answer::Refuse(why) => {
                        self.conn.as_agent().unwrap().refuse(slot, &why).unwrap();
                    }
                    Answer::Hold => {}
                }
            }
            Event::SessionOpened { attempt, slot } => {
                assert!(self.attempts.remove(attempt), "unknown attempt: {event:?}");
                assert!(self.is_gateway && self.open.insert(*slot), "{event:?}");
                self.flows.insert(*slot, Flow::default());
            }
            Event::SessionRefused { attempt, .. } => {
                assert!(self.attempts.remove(attempt), "unknown attempt: {event:?}");
            }
            Event::SessionReadable(slot) => {
                self.expect_live(*slot, &event);
                self.pump(*slot);
            }
            Event::SessionWritable(slot) => {
                self.expect_live(*slot, &event);
                self.pump(*slot);
            }
            Event::SessionRest { slot, rest } => {
                self.expect_live(*slot, &event);
                let from_agent = self.is_gateway;
                let flow = self.flows.get_mut(slot).unwrap();
                assert!(flow.finished && !flow.got_end, "{event:?}");
                check(*slot, flow, !from_agent, rest);
                flow.got_end = true;
            }
            Event::SessionEnded { slot, .. } => {
                assert!(self.ended.insert(*slot), "ended twice: {event:?}");
                let known = self.open.contains(slot) || self.asked.contains(slot);
                assert!(known, "unknown session: {event:?}");
            }
            Event::Closed(_) => self.closed = true,
            Event::Established { .. }
            | Event::RoutesAccepted { .. }
            | Event::Seen
            | Event::PathSuspect
            | Event::PathRecovered
            | Event::RenewalRequested { .. }
            | Event::RenewalAnswered(_)
            | Event::Peer(_) => {}
        }
        self.events.push((at, event));
    }

    fn expect_live(&self, slot: Slot, event: &Event) {
        let live = self.open.contains(&slot) && !self.ended.contains(&slot);
        assert!(live, "session is not open: {event:?}");
    }

    /// Reads so many bytes of a session whose reader is paused, or fewer where there are none.
    pub(crate) fn sip(&mut self, slot: Slot, len: usize) {
        let flow = self.flows.get_mut(&slot).unwrap();
        let Some(mut session) = self.conn.session(slot) else {
            return;
        };
        let mut chunks = VecDeque::new();
        let state = session.read(len, &mut chunks);
        check(slot, flow, !self.is_gateway, &chunks);
        flow.got_end |= state == Ok(Read::End);
    }

    /// Moves what can be moved.
    pub(crate) fn pump(&mut self, slot: Slot) {
        let Some(flow) = self.flows.get_mut(&slot) else {
            return;
        };
        if let Err(error) = pump_in(&mut self.conn, slot, flow, !self.is_gateway)
            .and_then(|()| pump_out(&mut self.conn, slot, flow, self.is_gateway))
        {
            flow.error = Some(error);
        }
    }
}

fn pump_in(
    conn: &mut Connection,
    slot: Slot,
    flow: &mut Flow,
    by_gateway: bool,
) -> Result<(), SessionError> {
    while !flow.paused && !flow.got_end {
        let Some(mut session) = conn.session(slot) else {
            return Ok(());
        };
        let mut chunks = VecDeque::new();
        let state = session.read(64 << 10, &mut chunks);
        check(slot, flow, by_gateway, &chunks);
        match state? {
            Read::More => {}
            Read::Blocked => return Ok(()),
            Read::End => flow.got_end = true,
        }
    }
    Ok(())
}

fn check(slot: Slot, flow: &mut Flow, by_gateway: bool, chunks: &VecDeque<Bytes>) {
    for chunk in chunks {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let want = pattern(slot, by_gateway, flow.read, rest.len());
            assert_eq!(
                rest[..want.len()],
                want[..],
                "bytes of {slot} are not intact"
            );
            rest = &rest[want.len()..];
            flow.read += want.len() as u64;
        }
    }
}

fn pump_out(
    conn: &mut Connection,
    slot: Slot,
    flow: &mut Flow,
    by_gateway: bool,
) -> Result<(), SessionError> {
    while flow.written < flow.goal {
        let Some(mut session) = conn.session(slot) else {
            return Ok(());
        };
        let left = usize::try_from(flow.goal - flow.written).unwrap();
        let mut chunk = pattern(slot, by_gateway, flow.written, left);
        let len = chunk.len();
        let state = session.write(&mut chunk)?;
        flow.written += (len - chunk.len()) as u64;
        flow.blocked = state == Written::Blocked;
        assert_eq!(flow.blocked, !chunk.is_empty());
        if flow.blocked {
            return Ok(());
        }
    }
    if flow.finish && !flow.finished {
        let Some(mut session) = conn.session(slot) else {
            return Ok(());
        };
        session.finish()?;
        flow.finished = true;
    }
    Ok(())
}

/// What stands at this offset, up to `len` bytes of it. The period is prime, so that a byte lost, doubled or moved by
/// any power of two shows.
/// What one end writes.
pub(crate) fn pattern(slot: Slot, by_gateway: bool, offset: u64, len: usize) -> Bytes {
    static BYTES: [u8; PERIOD] = bytes();
    let salt = slot.0 * 977 + if by_gateway { 13 } else { 7_001 };
    let start = usize::try_from((offset + salt) % PERIOD as u64).unwrap();
    let end = (start + len.min(16 << 10)).min(PERIOD);
    Bytes::from_static(&BYTES[start..end])
}

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
