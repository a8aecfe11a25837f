//! What a run is made of, drawn from its choices before it begins.

use std::time::Duration;

use adit_proto_core::peer::{capabilities::Capabilities, rpc_type::RpcType};

use crate::{At, choices::Choices, crypto::Suite, net::Path};

/// What a run begins with, and what happens in it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) members: Vec<MemberPlan>,
    pub(super) suite: Suite,
    /// End of the safety phase.
    pub(super) safety: At,
    pub(super) script: Vec<(At, Act)>,
    /// In the liveness phase a node restarts once more, and may lose its epoch.
    pub(super) last: (usize, bool),
}

#[derive(Debug)]
pub(super) struct MemberPlan {
    pub(super) capabilities: Capabilities,
    pub(super) slack: At,
    pub(super) clock_off_ms: i64,
}

/// Something that happens to a member, named by its place.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Its process dies.
    Kill(usize),
    /// A process begins; the boot epoch on disk may be lost.
    Start(usize, bool),
    Cut(usize, usize),
    Mend(usize, usize),
    Block(usize),
    Unblock(usize),
    Path(usize, usize, Path),
    /// It takes its other address.
    Move(usize),
    /// It hears where another one is.
    Tell(usize, usize),
    Clock(usize, i64),
    /// Its ring gets the key of a generation.
    AddKey(usize, u8),
    /// It signs with that.
    Promote(usize, u8),
    /// It forgets the one before.
    Retire(usize, u8),
    /// All know another one's next key beside its present one.
    Trust(usize),
    /// It shows the certificate of that key.
    Certify(usize),
    /// All forget its former key.
    Distrust(usize),
    /// An application asks; the last place is the adversary's node.
    Wish(usize, usize, RpcType, usize),
    /// The adversary does something to it.
    Strike(usize),
}

/// Draws a run.
pub(super) fn draw(choices: &mut Choices) -> Plan {
    let count = usize::try_from(choices.between(3, 5)).unwrap_or(3);
    let suite = match choices.between(0, 9) {
        0 => Suite::Ecdsa,
        _ => Suite::Plain,
    };
    let offered = match choices.between(0, 9) {
        0..6 => [Capabilities::ALL; 2],
        6..8 => [Capabilities::ALL, Capabilities::NONE],
        _ => [Capabilities::NONE; 2],
    };
    let members = (0..count).map(|_| MemberPlan {
        capabilities: *choices.pick(&offered),
        slack: match choices.chance(300) {
            true => choices.scaled_time(MS, 60 * MS),
            false => At::ZERO,
        },
        clock_off_ms: clock(choices),
    });
    let members: Vec<MemberPlan> = members.collect();
    // Without the extensions nobody is heard again who has lost the epoch (peer-rpc 7.3).
    let may_lose = members.iter().all(|m| m.capabilities == Capabilities::ALL);
    let safety = choices.time(15 * SECOND, 45 * SECOND);
    let mut draft = Draft {
        choices,
        count,
        may_lose,
        safety,
        script: Vec::new(),
    };
    draft.wishes();
    draft.faults();
    draft.operators();
    let strikes = draft.choices.between(3, 14);
    for _ in 0..strikes {
        let at = draft.time();
        let target = draft.member();
        draft.script.push((at, Act::Strike(target)));
    }
    let mut script = draft.script;
    script.sort_by_key(|(at, _)| *at);
    let last = (choices.index(count), may_lose && choices.chance(500));
    Plan {
        members,
        suite,
        safety,
        script,
        last,
    }
}

struct Draft<'a> {
    choices: &'a mut Choices,
    count: usize,
    may_lose: bool,
    safety: At,
    script: Vec<(At, Act)>,
}

impl Draft<'_> {
    fn time(&mut self) -> At {
        self.choices.time(At::ZERO, self.safety)
    }

    fn member(&mut self) -> usize {
        self.choices.index(self.count)
    }

    fn another(&mut self, than: usize) -> usize {
        let step = 1 + self.choices.index(self.count - 1);
        (than + step) % self.count
    }

    fn wishes(&mut self) {
        let wishes = self.choices.scaled(40, 300);
        for _ in 0..wishes {
            let (at, from) = (self.time(), self.member());
            let to = match self.choices.chance(200) {
                true => self.count,
                false => self.another(from),
            };
            let kind = *self.choices.pick(&KINDS);
            let len = match self.choices.chance(60) {
                true => self.choices.scaled(1_000, 200_000),
                false => self.choices.between(0, 200),
            };
            let len = usize::try_from(len).unwrap_or(0);
            // Some come together.
            let burst = if self.choices.chance(30) { 40 } else { 1 };
            let wish = Act::Wish(from, to, kind, len);
            self.script.extend((0..burst).map(|_| (at, wish.clone())));
        }
    }

    fn faults(&mut self) {
        let faults = self.choices.between(0, 10);
        for _ in 0..faults {
            let (at, a) = (self.time(), self.member());
            let b = self.another(a);
            let lasts = self.choices.scaled_time(100 * MS, 12 * SECOND);
            let (one, other) = match self.choices.between(0, 9) {
                0..4 => {
                    let down = match self.choices.chance(600) {
                        true => self.choices.scaled_time(MS, SECOND),
                        false => lasts,
                    };
                    let is_lost = self.may_lose && self.choices.chance(400);
                    self.script.push((at, Act::Kill(a)));
                    self.script.push((at + down, Act::Start(a, is_lost)));
                    continue;
                }
                4 => (Act::Cut(a, b), Act::Mend(a, b)),
                5 => {
                    self.script.push((at, Act::Cut(b, a)));
                    self.script.push((at + lasts, Act::Mend(b, a)));
                    (Act::Cut(a, b), Act::Mend(a, b))
                }
                6 => (Act::Block(a), Act::Unblock(a)),
                7..9 => {
                    let path = Path::draw(self.choices);
                    self.script.push((at, Act::Path(a, b, path)));
                    continue;
                }
                _ => {
                    let off = clock(self.choices);
                    self.script.push((at, Act::Clock(a, off)));
                    continue;
                }
            };
            self.script.push((at, one));
            self.script.push((at + lasts, other));
        }
        for a in 0..self.count {
            for b in (0..=self.count).filter(|b| *b != a) {
                if self.choices.chance(400) {
                    let path = Path::draw(self.choices);
                    self.script.push((At::ZERO, Act::Path(a, b, path)));
                }
            }
        }
    }

    /// Addresses, keys and certificates change.
    fn operators(&mut self) {
        let moves = self.choices.between(0, 2);
        for _ in 0..moves {
            let (at, a) = (self.time(), self.member());
            self.script.push((at, Act::Move(a)));
            for b in (0..self.count).filter(|b| *b != a) {
                let heard = at + self.choices.scaled_time(10 * MS, 5 * SECOND);
                self.script.push((heard, Act::Tell(b, a)));
            }
        }
        let generations = if self.choices.chance(500) {
            self.choices.between(1, 2)
        } else {
            0
        };
        let mut at = self.choices.time(At::ZERO, 5 * SECOND);
        for generation in 2..2 + u8::try_from(generations).unwrap_or(0) {
            // One may be slow to give the former key up.
            let keeps = self.choices.index(2 * self.count);
            for place in 0..=self.count {
                let mut after =
                    |low: u32, high: u32| at + self.choices.time(low * SECOND, high * SECOND);
                let (added, promoted, retired) = (after(0, 2), after(3, 6), after(7, 9));
                self.script.extend([
                    (added, Act::AddKey(place, generation)),
                    (promoted, Act::Promote(place, generation)),
                ]);
                if place != keeps {
                    let former = Act::Retire(place, generation - 1);
                    self.script.push((retired, former));
                }
            }
            at += 10 * SECOND;
        }
        if self.choices.chance(400) {
            let (at, a) = (self.time(), self.member());
            self.script.extend([
                (at, Act::Trust(a)),
                (at + SECOND, Act::Certify(a)),
                (at + 4 * SECOND, Act::Distrust(a)),
            ]);
        }
    }
}

/// Half of the clocks are wrong, by up to a month.
fn clock(choices: &mut Choices) -> i64 {
    if choices.chance(500) {
        return 0;
    }
    let off = i64::try_from(choices.scaled(1, 30 * 86_400_000)).unwrap_or(0);
    if choices.chance(500) { -off } else { off }
}

const KINDS: [RpcType; 9] = [
    RpcType::Ping,
    RpcType::AppendEntries,
    RpcType::RequestVote,
    RpcType::ReadIndex,
    RpcType::ShardEnvelope,
    RpcType::MetadataPropose,
    RpcType::DataPropose,
    RpcType::Execute,
    RpcType::TimeoutNow,
];
const MS: At = Duration::from_millis(1);
const SECOND: At = Duration::from_secs(1);
