//! What is under way in one direction of a session is bounded, however fast one program writes and however slowly the
//! other reads: nodes hold windows, not streams.

use std::collections::BTreeMap;

use adit_proto_core::id::SessionId;

use crate::{
    facts::{Fact, LegFact},
    tcp::Side,
};

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// Bytes written by a side and taken by the other; several targets may have written to one user.
    sessions: BTreeMap<(SessionId, bool), Flow>,
}

#[derive(Debug, Default)]
struct Flow {
    wrote: u64,
    got: u64,
    writers: u64,
}

impl Buffers {
    pub(super) fn observe(&mut self, fact: &Fact<'_>) -> Option<String> {
        let Fact::Leg {
            side,
            session,
            what,
            ..
        } = fact
        else {
            return None;
        };
        let from_user = *side == Side::User;
        match what {
            LegFact::Attached => self.flow(*session, from_user).writers += 1,
            LegFact::Wrote(len) => {
                let flow = self.flow(*session, from_user);
                flow.wrote += len;
                let held = flow.wrote.saturating_sub(flow.got);
                if held > HELD_MAX * flow.writers {
                    return Some(format!(
                        "{held} bytes from the {side:?} of {session} are under way"
                    ));
                }
            }
            LegFact::Got { bytes, .. } => {
                self.flow(*session, !from_user).got += bytes.len() as u64;
            }
            LegFact::Fin | LegFact::Reset | LegFact::GotFin | LegFact::GotReset | LegFact::Done => {
            }
        }
        None
    }

    fn flow(&mut self, session: SessionId, from_user: bool) -> &mut Flow {
        self.sessions.entry((session, from_user)).or_default()
    }
}

/// A stream window of 8 MiB, as much as is looked at beside it, 64 KiB at each socket, and what drivers hold in their hands.
const HELD_MAX: u64 = (8 << 20) + (1 << 20) + (384 << 10);
