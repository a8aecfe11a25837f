//! Bytes out equal bytes in, per session and direction, and an end is clean only if it was sent as clean.

use std::collections::BTreeMap;

use adit_proto_core::id::SessionId;

use crate::{
    facts::{Fact, LegFact},
    tcp::{LegId, Side, pattern},
};

/// What one program has said and heard.
#[derive(Debug, Default)]
struct Ends {
    wrote: u64,
    fin: bool,
    got: u64,
    got_fin: bool,
}

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    legs: BTreeMap<LegId, (Side, SessionId, Ends)>,
    /// The user's and the targets' TCP connections of each session.
    sessions: BTreeMap<SessionId, Vec<LegId>>,
}

impl Bytes {
    pub(super) fn observe(&mut self, fact: &Fact<'_>) -> Option<String> {
        let Fact::Leg {
            leg,
            side,
            session,
            what,
        } = fact
        else {
            return None;
        };
        if let LegFact::Attached = what {
            self.legs.insert(*leg, (*side, *session, Ends::default()));
            self.sessions.entry(*session).or_default().push(*leg);
            return None;
        }
        let (_, _, ends) = self.legs.get_mut(leg)?;
        match what {
            LegFact::Wrote(len) => ends.wrote += len,
            LegFact::Fin => ends.fin = true,
            LegFact::Got { offset, bytes } => {
                if *offset != ends.got || ends.got_fin {
                    return Some(format!("bytes of {session} out of order, at {offset}"));
                }
                ends.got += bytes.len() as u64;
                let from = opposite(*side);
                return intact(*session, from, *offset, bytes)
                    .or_else(|| self.compare(*session, *leg));
            }
            LegFact::GotFin => {
                if ends.got_fin {
                    return Some(format!("{session} ended twice"));
                }
                ends.got_fin = true;
                return self.compare(*session, *leg);
            }
            LegFact::Attached | LegFact::Reset | LegFact::GotReset | LegFact::Done => {}
        }
        None
    }

    /// Nothing comes out that did not go in, and no clean end where none was sent behind the last byte.
    fn compare(&self, session: SessionId, leg: LegId) -> Option<String> {
        let (side, _, ends) = self.legs.get(&leg)?;
        let others = self.sessions.get(&session)?.iter();
        let sources = others
            .filter_map(|id| self.legs.get(id))
            .filter(|(s, ..)| s != side);
        let (mut wrote, mut clean) = (0, false);
        for (_, _, source) in sources {
            wrote = wrote.max(source.wrote);
            clean |= source.fin && source.wrote == ends.got;
        }
        if ends.got > wrote {
            return Some(format!(
                "{side:?} of {session} got {} bytes of the {wrote} that were written",
                ends.got
            ));
        }
        (ends.got_fin && !clean).then(|| {
            format!(
                "{side:?} of {session} saw a clean end after {} bytes; {wrote} were written, and no end was sent behind them",
                ends.got
            )
        })
    }
}

fn opposite(side: Side) -> Side {
    match side {
        Side::User => Side::Target,
        Side::Target => Side::User,
    }
}

fn intact(session: SessionId, from: Side, mut offset: u64, bytes: &[u8]) -> Option<String> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let want = pattern(session, from, offset, rest.len() as u64);
        if rest[..want.len()] != want[..] {
            return Some(format!(
                "bytes of {session} from {offset} on are not what was written"
            ));
        }
        rest = &rest[want.len()..];
        offset += want.len() as u64;
    }
    None
}
