//! The judges of the peers' world: each watches the facts of a run for one property. One file each.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a judge looks at the few facts that its property is about"
)]

mod again;
mod answers;
mod ended;
mod forged;
mod greeted;
mod linked;
mod once;
mod sender;
mod standing;
mod stream;
mod twice;

pub(super) use self::again::TALKS_WITHIN;
use super::facts::Fact;
use crate::{At, facts::NodeId, oracle::Violation};

/// All judges of a run.
#[derive(Debug, Default)]
pub(super) struct Oracles {
    ended: ended::Ended,
    forged: forged::Forged,
    greeted: greeted::Greeted,
    once: once::Once,
    standing: standing::Standing,
    twice: twice::Twice,
}

impl Oracles {
    /// Shows a fact to every judge; gives the first objection.
    pub(super) fn observe(&mut self, at: At, node: NodeId, fact: &Fact<'_>) -> Option<Violation> {
        let verdicts = [
            ("again", again::observe(fact)),
            ("answers", answers::observe(fact)),
            ("ended", self.ended.observe(at, node, fact)),
            ("forged", self.forged.observe(fact)),
            ("greeted", self.greeted.observe(node, fact)),
            ("linked", linked::observe(fact)),
            ("once", self.once.observe(node, fact)),
            ("sender", sender::observe(fact)),
            ("standing", self.standing.observe(at, fact)),
            ("stream", stream::observe(fact)),
            ("twice", self.twice.observe(fact)),
        ];
        verdict(at, verdicts)
    }

    /// Judges what was to have happened by the end.
    pub(super) fn end(&self, at: At) -> Option<Violation> {
        verdict(at, [("ended", self.ended.end())])
    }
}

fn verdict<const N: usize>(
    at: At,
    verdicts: [(&'static str, Option<String>); N],
) -> Option<Violation> {
    let said = |(oracle, text): (_, Option<String>)| Some((oracle, text?));
    let (oracle, text) = verdicts.into_iter().find_map(said)?;
    Some(Violation { oracle, at, text })
}
