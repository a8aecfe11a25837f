//! Bytes that came and are not read: whose they are, and which session ends where they are too many.
//!
//! The engine has one window for all streams of a connection, and one size of window for each of them. A reader that
//! stops keeps its stream's window, and readers that do may not lack it. So the connection's window is what those need
//! who read, and a budget for those who do not. The engine does not tell how much is unread on a stream: of one that is
//! behind a share is taken out, to be read first. What is empty then was small, and takes nothing of the window any
//! more. Of the others, which may hold a whole stream's window each, as many may be as fit the budget. What is held by
//! those who have stopped, the endpoint is told, which asks some of it back where all connections hold too much.

use std::{cmp::Reverse, collections::VecDeque, time::Instant};

use bytes::{Bytes, BytesMut};

use super::{Connection, sessions::Carried};
use crate::{
    close::session_code,
    endpoint::Held,
    id::Slot,
    limits,
    link::{Broken, FromConnection, Link, ReadState, StreamRef},
    output::SessionEnd,
};

/// The watch over what is unread on one connection.
#[derive(Debug)]
pub(super) struct Hoard {
    /// Bytes of the connection's window that sessions with much unread may hold together.
    budget: u64,
    /// What the endpoint was last told.
    told: Held,
    /// Something came for a session.
    stirred: bool,
    look_at: Option<Instant>,
}

/// A session whose reader is behind.
#[derive(Debug)]
pub(super) struct Behind {
    /// No whole share of it was read since, as far as looks tell.
    still_since: Instant,
    /// Bytes read since then.
    read: usize,
    /// A share of it was read since it was behind.
    is_read: bool,
    /// Taken out of the engine, which holds what follows.
    taken: BytesMut,
    /// Nothing follows but the clean end.
    ended: bool,
    /// The engine holds more than a share.
    is_big: bool,
}

/// A session that holds a part of the budget; the order is that in which they end.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Hoarder {
    charge: Reverse<u64>,
    since: Instant,
    slot: Slot,
    is_read: bool,
}

impl Hoarder {
    fn has_stopped(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= limits::UNREAD_PATIENCE
    }
}

impl Hoard {
    pub(super) fn new(budget: u64) -> Self {
        Self {
            budget,
            told: Held::default(),
            stirred: false,
            look_at: None,
        }
    }

    /// Something came for a session.
    pub(super) fn stir(&mut self) {
        self.stirred = true;
    }

    /// Sees to it that a look follows where something came.
    pub(super) fn arm(&mut self, now: Instant) {
        if self.stirred && self.look_at.is_none() {
            self.look_at = Some(now + limits::UNREAD_LOOK_INTERVAL);
        }
    }

    /// The connection's window that goes with the budget.
    pub(super) fn window(&self) -> u64 {
        crate::link::config::window(self.budget)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.look_at
    }
}

impl Behind {
    fn new(now: Instant) -> Self {
        Self {
            still_since: now,
            read: 0,
            is_read: false,
            taken: BytesMut::new(),
            ended: false,
            is_big: false,
        }
    }

    /// Gives up to `max` bytes of what was taken out. Tells how many, and whether that was all.
    fn give(&mut self, max: usize, out: &mut VecDeque<Bytes>) -> (usize, bool) {
        let len = self.taken.len().min(max);
        self.read += len;
        if len > 0 {
            out.push_back(self.taken.split_to(len).freeze());
        }
        (len, self.taken.is_empty())
    }

    /// Takes out of the engine what is missing to `len` bytes.
    fn take(&mut self, link: &mut Link, slot: Slot, len: usize) -> Result<(), Broken> {
        if self.ended {
            return Ok(());
        }
        let room = len.saturating_sub(self.taken.len());
        let mut chunks = Vec::new();
        let state = link.read(StreamRef::Session(slot), room, |chunk| chunks.push(chunk));
        // Copied: a chunk keeps all of the datagrams that came with it.
        self.taken.reserve(chunks.iter().map(Bytes::len).sum());
        chunks
            .iter()
            .for_each(|chunk| self.taken.extend_from_slice(chunk));
        let state = state?;
        self.is_big = state == ReadState::More;
        self.ended = state == ReadState::End;
        Ok(())
    }

    /// Bytes that it may hold of the budget.
    fn charge(&self) -> u64 {
        match self.is_big {
            true => limits::STREAM_WINDOW.into(),
            false => self.taken.len().saturating_sub(limits::UNREAD_SHARE) as u64,
        }
    }
}

impl Carried {
    /// Reads what was taken out before, then from the engine.
    pub(super) fn read(
        &mut self,
        link: &mut Link,
        slot: Slot,
        max: usize,
        out: &mut VecDeque<Bytes>,
    ) -> Result<ReadState, Broken> {
        let mut left = max;
        if let Some(behind) = &mut self.behind {
            let (given, all) = behind.give(max, out);
            left -= given;
            match (all, behind.ended) {
                (false, _) => return Ok(ReadState::More),
                (true, true) => return Ok(ReadState::End),
                (true, false) => {}
            }
        }
        let mut read = 0;
        let state = link.read(StreamRef::Session(slot), left, |chunk| {
            read += chunk.len();
            out.push_back(chunk);
        })?;
        if let Some(behind) = &mut self.behind {
            behind.read += read;
        }
        if state != ReadState::More {
            self.unread = false;
            self.behind = None;
        }
        Ok(state)
    }

    /// Looks at a session of which something may be unread.
    fn look(&mut self, now: Instant, link: &mut Link, slot: Slot) -> Result<(), Broken> {
        let Some(behind) = &mut self.behind else {
            // Its reader may be at it. It is judged at the next look.
            self.behind = Some(Box::new(Behind::new(now)));
            return Ok(());
        };
        // Who sips does not read: it would hold a window for as long as it likes.
        if behind.read >= limits::UNREAD_SHARE {
            behind.read = 0;
            behind.still_since = now;
            behind.is_read = true;
        }
        if self.unread && !behind.is_big {
            behind.take(link, slot, limits::UNREAD_SHARE)?;
        }
        self.unread = behind.is_big;
        Ok(())
    }

    /// Looks closer at a session with much unread.
    fn measure(&mut self, link: &mut Link, slot: Slot) -> Result<(), Broken> {
        if let Some(behind) = self.behind.as_mut().filter(|behind| behind.is_big) {
            behind.take(link, slot, limits::UNREAD_SAMPLE)?;
            self.unread = behind.is_big;
        }
        Ok(())
    }
}

impl Connection {
    /// Looks who is behind, when it is time to.
    pub(super) fn look_for_hoards(&mut self, now: Instant) {
        if self.hoard.look_at.is_none_or(|at| at > now) {
            return;
        }
        let behind: Vec<Slot> = (self.sessions.iter())
            .filter(|(_, carried)| carried.unread || carried.behind.is_some())
            .map(|(slot, _)| *slot)
            .collect();
        self.hoard.look_at = None;
        self.hoard.stirred = false;
        for slot in behind {
            self.look_at(slot, |carried, link| carried.look(now, link, slot));
        }
        let hoards = self.hoards();
        if charged(&hoards) > self.hoard.budget {
            self.cut_hoards(now, hoards);
        }
        self.tell_unread(now);
    }

    /// Tells the endpoint what is held, as long as anything is: it knows of the other connections.
    fn tell_unread(&mut self, now: Instant) {
        let held = Held {
            behind: charged(&self.hoards()),
            stopped: charged(&self.stopped(now)),
        };
        self.hoard.stirred |= held.behind > 0;
        if held.behind > 0 || self.hoard.told.behind > 0 {
            self.hoard.told = held;
            let handle = self.link.handle();
            (self.notices).push_back(FromConnection::Unread { handle, held });
        }
    }

    /// The connection is over: it holds nothing more.
    pub(super) fn forget_hoards(&mut self) {
        if std::mem::take(&mut self.hoard.told).behind > 0 {
            let (handle, held) = (self.link.handle(), Held::default());
            (self.notices).push_back(FromConnection::Unread { handle, held });
        }
    }

    /// Ends sessions that are not read until those left hold no more than this.
    pub(super) fn give_back(&mut self, now: Instant, most: u64) {
        for Hoarder { slot, .. } in self.stopped(now) {
            self.look_at(slot, |carried, link| carried.measure(link, slot));
        }
        let stopped = self.stopped(now);
        let mut excess = charged(&stopped).saturating_sub(most);
        for hoarder in stopped {
            if excess == 0 {
                break;
            }
            self.cut(now, &hoarder);
            excess = excess.saturating_sub(hoarder.charge.0);
        }
    }

    /// Those of [`hoards`](Self::hoards) that were hardly read for long.
    fn stopped(&self, now: Instant) -> Vec<Hoarder> {
        let mut hoards = self.hoards();
        hoards.retain(|hoarder| hoarder.has_stopped(now));
        hoards
    }

    fn cut(&mut self, now: Instant, hoarder: &Hoarder) {
        let unread_for = now.saturating_duration_since(hoarder.since);
        self.abandon(hoarder.slot, session_code::NOT_READ);
        self.end_session(hoarder.slot, SessionEnd::NotRead { unread_for });
    }

    fn look_at(
        &mut self,
        slot: Slot,
        look: impl FnOnce(&mut Carried, &mut Link) -> Result<(), Broken>,
    ) {
        let Some(carried) = self.sessions.get_mut(&slot) else {
            return;
        };
        let seen = look(carried, &mut self.link);
        self.hoard.stirred |= carried.unread;
        if let Err(broken) = seen {
            let _over = self.broke(slot, broken);
        }
    }

    /// The sessions that hold more than a share. Those that may hold most come first, which are all that were not looked
    /// through, and of them those that were not read for longest.
    fn hoards(&self) -> Vec<Hoarder> {
        let behind = |(slot, carried): (&Slot, &Carried)| {
            let behind = carried.behind.as_ref()?;
            Some(Hoarder {
                charge: Reverse(behind.charge()),
                since: behind.still_since,
                slot: *slot,
                is_read: behind.is_read,
            })
        };
        let behind = self.sessions.iter().filter_map(behind);
        let mut hoards: Vec<Hoarder> = behind.filter(|hoarder| hoarder.charge.0 > 0).collect();
        hoards.sort_unstable();
        hoards
    }

    /// Ends as many sessions as the budget does not cover.
    fn cut_hoards(&mut self, now: Instant, hoards: Vec<Hoarder>) {
        // Only who might go now: what is taken out of the engine lets as much more come.
        for Hoarder { slot, .. } in hoards.into_iter().filter(|h| h.has_stopped(now)) {
            self.look_at(slot, |carried, link| carried.measure(link, slot));
        }
        let hoards = self.hoards();
        let mut excess = charged(&hoards).saturating_sub(self.hoard.budget);
        for hoarder in hoards {
            if excess == 0 {
                break;
            } else if hoarder.has_stopped(now) {
                self.cut(now, &hoarder);
            } else if hoarder.is_read {
                continue;
            }
            // Whoever has just come may read on. Until that is known nobody goes in its stead.
            excess = excess.saturating_sub(hoarder.charge.0);
        }
        if charged(&self.hoards()) > self.hoard.budget {
            // The others wait for what is read of the rest, and no longer than that.
            self.link.announce_window();
            self.hoard.stirred = true;
        }
    }
}

fn charged(hoards: &[Hoarder]) -> u64 {
    hoards.iter().map(|hoarder| hoarder.charge.0).sum()
}
