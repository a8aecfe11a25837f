//! Handshakes between replicas, over byte streams that are cut in any way, with an adversary who plays frames back and one
//! who has the cluster's key.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto_core::replica::{
    Acceptor, Binding, ClusterId, Conduct, Config, Dialer, Keys, Nonce, ReplicaId, ReplicaKey,
    Roster, Seal,
};
use bytes::Bytes;

use super::{
    facts::Fact,
    link::{End, Machine, Peer, pass},
    log::Log,
};
use crate::{At, choices::Choices, facts::NodeId, world::base};

/// How a handshake ended at one end.
#[derive(Clone, Copy, Debug)]
pub struct Linked {
    /// Whose end.
    pub by: ReplicaId,
    /// Whom it takes the other end for; none where it failed.
    pub with: Option<ReplicaId>,
    /// Whom it has to take it for.
    pub wanted: Option<ReplicaId>,
    /// Time that the handshake took.
    pub after: At,
}

/// What one end of a link got from the other.
#[derive(Clone)]
pub struct Carried {
    /// The end that got it.
    pub by: ReplicaId,
    /// What the other end said.
    pub said: Bytes,
    /// What came.
    pub got: Bytes,
}

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (said, got) = (self.said.len(), self.got.len());
        write!(f, "{} got {got} of {said} bytes", self.by)
    }
}

/// The replicas of a run, and what the adversary has recorded.
struct Scene<'a> {
    choices: &'a mut Choices,
    log: &'a mut Log,
    at: At,
    base: Instant,
    ids: Vec<ReplicaId>,
    seal: Seal,
    keys: [ReplicaKey; 3],
    /// How far each has come in the exchange of keys (replica-handshake 11.1).
    stages: Vec<usize>,
    /// Frames, in the order of sending.
    recorded: Vec<Bytes>,
}

/// Runs some handshakes behind each other.
pub(super) fn run(choices: &mut Choices, log: &mut Log, at: At) -> At {
    let mut keys = || ReplicaKey::new(&key_of(choices));
    let (Ok(one), Ok(two), Ok(other)) = (keys(), keys(), keys()) else {
        return at;
    };
    let count = u8::try_from(choices.between(2, 5)).unwrap_or(2);
    let step = u8::try_from(choices.between(1, 9)).unwrap_or(1);
    let ids: Vec<ReplicaId> = (0..count).map(|nth| ReplicaId(nth * step)).collect();
    let mut scene = Scene {
        stages: vec![0; ids.len()],
        ids,
        seal: match choices.chance(500) {
            true => Seal::Require,
            false => Seal::Never,
        },
        keys: [one, two, other],
        recorded: Vec::new(),
        choices,
        log,
        at,
        base: base(),
    };
    let handshakes = scene.choices.between(4, 24);
    for _ in 0..handshakes {
        scene.rotate();
        match scene.choices.between(0, 9) {
            0..4 => scene.honest(),
            4..6 => scene.played_to_an_acceptor(),
            6..8 => scene.played_to_a_dialer(),
            8 => scene.spliced(),
            _ => scene.claimed(),
        }
        if scene.log.violation.is_some() {
            break;
        }
    }
    scene.at
}

fn key_of(choices: &mut Choices) -> [u8; 32] {
    let mut key = choices.key();
    // No key is one character over and over, whatever a fuzzer's bytes say.
    key[..2].copy_from_slice(b"ab");
    key
}

impl Scene<'_> {
    /// The next replica takes its next step; no two are more than one apart.
    fn rotate(&mut self) {
        let slowest = self.stages.iter().copied().min().unwrap_or(0);
        if slowest >= 3 || self.choices.chance(700) {
            return;
        }
        let behind = self.stages.iter().position(|stage| *stage == slowest);
        if let Some(stage) = behind.and_then(|nth| self.stages.get_mut(nth)) {
            *stage += 1;
        }
    }

    fn roster(&self) -> Roster {
        self.ids.iter().map(|id| (*id, self.seal)).collect()
    }

    fn config(&self, nth: usize) -> Option<Arc<Config>> {
        let [old, new, _] = &self.keys;
        let (current, previous) = match self.stages.get(nth)? {
            0 => (old, None),
            1 => (old, Some(new)),
            2 => (new, Some(old)),
            _ => (new, None),
        };
        let keys = Keys::new(current.clone(), previous.cloned()).ok()?;
        let config = Config::new(cluster(), *self.ids.get(nth)?, self.roster(), Some(keys));
        config.ok().map(Arc::new)
    }

    /// Two replicas, the one to dial first.
    fn pair(&mut self) -> (usize, usize) {
        let acceptor = 1 + self.choices.index(self.ids.len() - 1);
        (self.choices.index(acceptor), acceptor)
    }

    fn nonce(&mut self) -> Option<Nonce> {
        Nonce::new(key_of(self.choices)).ok()
    }

    fn dialer(&mut self, nth: usize, target: usize) -> Option<End> {
        let (config, nonce) = (self.config(nth)?, self.nonce()?);
        let (now, target) = (self.base + self.at, *self.ids.get(target)?);
        let dialer = Dialer::new(now, config, Binding::Plaintext, target, nonce).ok()?;
        Some(End::new(
            self.ids[nth],
            Machine::Dialer(dialer),
            self.words(),
        ))
    }

    fn acceptor(&mut self, nth: usize) -> Option<End> {
        let (config, nonce) = (self.config(nth)?, self.nonce()?);
        let acceptor = Acceptor::new(self.base + self.at, config, Binding::Plaintext, nonce);
        Some(End::new(
            self.ids[nth],
            Machine::Acceptor(acceptor),
            self.words(),
        ))
    }

    /// What an end says behind its handshake, as soon as that is over.
    fn words(&mut self) -> Vec<u8> {
        let len = self.choices.scaled(0, 3_000);
        (0..len)
            .map(|n| u8::try_from(n % 251).unwrap_or(0))
            .collect()
    }

    fn honest(&mut self) {
        let (one, two) = self.pair();
        let (Some(mut dialer), Some(mut acceptor)) = (self.dialer(one, two), self.acceptor(two))
        else {
            return;
        };
        self.meet(&mut dialer, &mut acceptor, false);
        self.judge(&dialer, Some(acceptor.id));
        self.judge(&acceptor, Some(dialer.id));
        for (end, other) in [(&dialer, &acceptor), (&acceptor, &dialer)] {
            let carried = Carried {
                by: end.id,
                said: other.words.clone().into(),
                got: end.got.clone().into(),
            };
            let node = NodeId(end.id.0.into());
            self.log.note(self.at, node, &Fact::Carried(carried));
        }
        self.recorded.extend(dialer.frames);
        self.recorded.extend(acceptor.frames);
    }

    fn meet(&mut self, one: &mut dyn Peer, two: &mut dyn Peer, may_trickle: bool) {
        let begun = (self.at, may_trickle);
        self.at = pass(self.choices, self.base, begun, one, two);
    }

    fn judge(&mut self, end: &End, wanted: Option<ReplicaId>) {
        let linked = Linked {
            by: end.id,
            with: end.linked,
            wanted,
            after: end.over_at.unwrap_or(self.at).saturating_sub(end.begun_at),
        };
        let node = NodeId(end.id.0.into());
        self.log.note(self.at, node, &Fact::Linked(linked));
    }

    /// Something that was recorded, or a part of it, or a bit of it changed.
    fn frame(&mut self) -> Bytes {
        let nth = self.choices.index(self.recorded.len());
        let Some(frame) = self.recorded.get(nth).cloned() else {
            return Bytes::new();
        };
        match self.choices.between(0, 9) {
            0 => frame.slice(..frame.len() / 2),
            1 => {
                let mut frame = frame.to_vec();
                let at = self.choices.index(frame.len());
                frame[at] ^= 1;
                frame.into()
            }
            _ => frame,
        }
    }

    fn tape(&mut self) -> Tape {
        let count = self.choices.between(1, 4);
        Tape {
            lines: (0..count).map(|_| self.frame()).collect(),
            reflects: self.choices.chance(300),
            waits: self.choices.chance(500),
            out: Vec::new(),
        }
    }

    fn played_to_an_acceptor(&mut self) {
        let (_, two) = self.pair();
        let Some(mut acceptor) = self.acceptor(two) else {
            return;
        };
        let mut tape = self.tape();
        self.meet(&mut tape, &mut acceptor, true);
        self.judge(&acceptor, None);
    }

    fn played_to_a_dialer(&mut self) {
        let (one, two) = self.pair();
        let Some(mut dialer) = self.dialer(one, two) else {
            return;
        };
        let mut tape = self.tape();
        self.meet(&mut dialer, &mut tape, true);
        self.judge(&dialer, None);
    }

    /// The adversary leads a dialer to another replica than the one that it means.
    fn spliced(&mut self) {
        let (one, two) = self.pair();
        let others: Vec<usize> = (0..self.ids.len())
            .filter(|nth| *nth != one && *nth != two)
            .collect();
        let nth = self.choices.index(others.len());
        let Some(three) = others.get(nth).copied() else {
            return;
        };
        let (Some(mut dialer), Some(mut acceptor)) = (self.dialer(one, two), self.acceptor(three))
        else {
            return;
        };
        self.meet(&mut dialer, &mut acceptor, false);
        self.judge(&dialer, None);
        self.judge(&acceptor, None);
    }

    /// Somebody claims an id, with the cluster's key, which allows it to be any lower replica (replica-handshake 13), or
    /// with a key that the cluster does not have any more.
    fn claimed(&mut self) {
        let (_, two) = self.pair();
        let Some(mut acceptor) = self.acceptor(two) else {
            return;
        };
        let has_key = self.choices.chance(500);
        let [old, new, other] = self.keys.clone();
        let key = match (has_key, self.stages.get(two)) {
            (false, Some(3..)) => old,
            (false, _) => other,
            (true, Some(2..)) => new,
            (true, _) => old,
        };
        let claims = ReplicaId(u8::try_from(self.choices.between(0, 40)).unwrap_or(0));
        let target = acceptor.id;
        let roster = [claims, target]
            .map(|id| (id, self.seal))
            .into_iter()
            .collect();
        let keys = Keys::new(key, None).ok();
        let config = Config::new(cluster(), claims, roster, keys);
        let config = config.map(|config| Arc::new(config.with_conduct(Conduct::Reference)));
        let (Ok(config), Some(nonce)) = (config, self.nonce()) else {
            return;
        };
        let now = self.base + self.at;
        let dialer = Dialer::new(now, config, Binding::Plaintext, target, nonce);
        let Ok(dialer) = dialer else {
            return;
        };
        let mut forger = End::new(claims, Machine::Dialer(dialer), Vec::new());
        self.meet(&mut forger, &mut acceptor, false);
        let is_lower = self.ids.contains(&claims) && claims < target;
        self.judge(&acceptor, (has_key && is_lower).then_some(claims));
    }
}

/// The adversary with nothing but a record.
struct Tape {
    lines: Vec<Bytes>,
    /// It begins with what comes.
    reflects: bool,
    /// It waits for something before it says the rest.
    waits: bool,
    out: Vec<u8>,
}

impl Peer for Tape {
    fn begin(&mut self, _at: At) {
        if !self.waits
            && let Some(line) = self.lines.pop()
        {
            self.out.extend_from_slice(&line);
        }
    }

    fn take(&mut self, _now: Instant, _at: At, bytes: &[u8]) {
        if self.reflects {
            self.out.extend_from_slice(bytes);
        }
        for line in self.lines.drain(..) {
            self.out.extend_from_slice(&line);
        }
    }

    fn said(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    fn until(&self) -> Option<Instant> {
        None
    }

    fn expire(&mut self, _now: Instant, _at: At) {}
}

fn cluster() -> ClusterId {
    ClusterId::of("simulated")
}

/// Between two deliveries at most.
pub(super) const PAUSE_MAX: At = Duration::from_millis(5);
