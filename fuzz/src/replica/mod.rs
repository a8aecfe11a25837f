//! The handshake between replicas and the sealed stream behind it. Without the key nobody makes a proof or a record, so
//! what must come out follows from which bytes of a good exchange were changed.
#![expect(clippy::expect_used, reason = "where it fails it is a find")]

mod acceptor;
mod dialer;
mod seal;

use std::{
    fmt::Debug,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto_core::replica::{
    Acceptor, Binding, ClusterId, Conduct, Config, Dialer, FRAME_LEN, Keys, Nonce, Profile,
    ReplicaId, ReplicaKey, Roster, Seal, Step, Stream,
};

pub use self::{acceptor::replica_acceptor, dialer::replica_dialer, seal::replica_seal};

use crate::input::{Input, start};

/// Either end, as far as both are driven alike.
trait End {
    fn handle_bytes(&mut self, now: Instant, data: &[u8]) -> usize;
    fn handle_end(&mut self);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_timeout(&self) -> Option<Instant>;
    fn poll_output(&mut self) -> Option<Step>;
    fn wanted(&self) -> usize;
}

macro_rules! end {
    ($name:ident) => {
        impl End for $name {
            fn handle_bytes(&mut self, now: Instant, data: &[u8]) -> usize {
                $name::handle_bytes(self, now, data)
            }
            fn handle_end(&mut self) {
                $name::handle_end(self);
            }
            fn handle_timeout(&mut self, now: Instant) {
                $name::handle_timeout(self, now);
            }
            fn poll_timeout(&self) -> Option<Instant> {
                $name::poll_timeout(self)
            }
            fn poll_output(&mut self) -> Option<Step> {
                $name::poll_output(self)
            }
            fn wanted(&self) -> usize {
                $name::wanted(self)
            }
        }
    };
}

end!(Dialer);
end!(Acceptor);

/// How both ends are set up.
#[derive(Clone, Copy, Debug)]
struct Settings {
    seal: Seal,
    profile: Profile,
    conduct: Conduct,
    with_keys: bool,
    is_changing: bool,
}

impl Settings {
    fn draw(input: &mut Input<'_>) -> Self {
        let flags = input.byte();
        let with_keys = flags & 7 != 7;
        Self {
            seal: match flags & 8 != 0 && with_keys {
                true => Seal::Require,
                false => Seal::Never,
            },
            profile: match flags & 16 == 0 {
                true => Profile::B,
                false => Profile::A,
            },
            conduct: match flags & 32 == 0 {
                true => Conduct::Strict,
                false => Conduct::Reference,
            },
            with_keys,
            is_changing: flags & 64 != 0,
        }
    }

    fn config(self, own: u8) -> Arc<Config> {
        let key = |psk: &[u8]| ReplicaKey::new(psk).expect("a good key");
        let keys = self.with_keys.then(|| {
            let previous = self.is_changing.then(|| key(PREVIOUS_PSK));
            Keys::new(key(PSK), previous).expect("two keys")
        });
        let roster = Roster::dense(4, self.seal);
        let cluster = ClusterId::of("iggy-cluster");
        let config = Config::new(cluster, ReplicaId(own), roster, keys).expect("a good roster");
        Arc::new(config.with_profile(self.profile).with_conduct(self.conduct))
    }

    /// Replica 1, which dials replica 2.
    fn dialer(self) -> Dialer {
        let (binding, nonce) = (Binding::Plaintext, nonce(0x11));
        let dialer = Dialer::new(start(), self.config(1), binding, ReplicaId(2), nonce);
        dialer.expect("a higher replica")
    }

    fn acceptor(self) -> Acceptor {
        Acceptor::new(start(), self.config(2), Binding::Plaintext, nonce(0x22))
    }

    /// What each end receives of a good exchange: the dialer, then the acceptor.
    fn good(self) -> [Vec<u8>; 2] {
        let (mut dialer, mut acceptor) = (self.dialer(), self.acceptor());
        let (mut to_dialer, mut to_acceptor) = (Vec::new(), sent(&mut dialer));
        let mut at = [0, 0];
        loop {
            at[1] += acceptor.handle_bytes(start(), &to_acceptor[at[1]..]);
            let answer = sent(&mut acceptor);
            at[0] += dialer.handle_bytes(start(), &[&to_dialer[at[0]..], &answer[..]].concat());
            to_dialer.extend_from_slice(&answer);
            let reply = sent(&mut dialer);
            to_acceptor.extend_from_slice(&reply);
            if answer.is_empty() && reply.is_empty() {
                return [to_dialer, to_acceptor];
            }
        }
    }
}

fn nonce(byte: u8) -> Nonce {
    Nonce::new([byte; 32]).expect("no zeros")
}

/// All that an end has to send at the moment; an outcome is passed over.
fn sent(end: &mut impl End) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(step) = end.poll_output() {
        if let Step::Send(more) = step {
            bytes.extend_from_slice(&more);
        }
    }
    bytes
}

/// What an end did with a stream, as values that compare.
#[derive(Debug, PartialEq)]
struct Run {
    sent: Vec<u8>,
    used: usize,
    outcome: Option<Outcome>,
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Verified(ReplicaId, bool),
    Announced(ReplicaId),
    Failed(String),
}

/// Feeds an end and checks what holds for any bytes.
fn play<'a>(mut end: impl End + Debug, pieces: impl Iterator<Item = &'a [u8]>) -> Run {
    let mut run = Run {
        sent: Vec::new(),
        used: 0,
        outcome: None,
    };
    drain(&mut end, &mut run);
    for piece in pieces {
        let is_over = run.outcome.is_some();
        assert_eq!(
            (end.wanted() == 0, end.poll_timeout().is_none()),
            (is_over, is_over)
        );
        let used = end.handle_bytes(start(), piece);
        assert!(used <= piece.len());
        assert!(!is_over || used == 0, "taken behind the end");
        run.used += used;
        drain(&mut end, &mut run);
        assert!(
            used == piece.len() || run.outcome.is_some(),
            "left without a reason"
        );
    }
    if run.outcome.is_none() {
        let due = end
            .poll_timeout()
            .expect("a deadline while something is awaited");
        end.handle_timeout(due);
        drain(&mut end, &mut run);
    }
    let outcome = run.outcome.take().expect("no outcome at the deadline");
    end.handle_end();
    end.handle_timeout(start() + Duration::from_secs(3_600));
    assert_eq!(end.handle_bytes(start(), &[0; 300]), 0);
    drain(&mut end, &mut run);
    assert_eq!(run.outcome, None, "a second outcome");
    run.outcome = Some(outcome);
    run
}

fn drain(end: &mut impl End, run: &mut Run) {
    while let Some(step) = end.poll_output() {
        let outcome = match step {
            Step::Send(bytes) => {
                assert_eq!(run.outcome, None, "sent behind the outcome");
                run.sent.extend_from_slice(&bytes);
                continue;
            }
            Step::Verified(verified) => {
                let (replica, stream) = verified.into_parts();
                let is_sealed = matches!(stream, Stream::Sealed(_));
                Outcome::Verified(replica, is_sealed)
            }
            Step::Announced(replica) => Outcome::Announced(replica),
            Step::Failed(fault) => Outcome::Failed(fault.to_string()),
        };
        assert_eq!(run.outcome.replace(outcome), None, "a second outcome");
    }
}

/// A good stream with some of its bytes changed, cut, and followed by others; or something else altogether.
fn spoiled(good: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    if input.byte() == 0xff {
        return input.rest().to_vec();
    }
    let mut stream = good.to_vec();
    for _ in 0..input.below(4) {
        let at = usize::from(u16::from_be_bytes([input.byte(), input.byte()]));
        let bits = input.byte();
        if let Some(byte) = stream.get_mut(at) {
            *byte ^= bits;
        }
    }
    if input.flag() {
        stream.truncate(usize::from(u16::from_be_bytes([
            input.byte(),
            input.byte(),
        ])));
    }
    stream.extend_from_slice(input.rest());
    stream
}

/// Tells whether a stream has all bytes of the good one that count: the fields of each frame that are looked at, and all
/// that is behind the frames.
fn is_good(good: &[u8], stream: &[u8], fields: &[&[Range<usize>]]) -> bool {
    let same = |range: Range<usize>| stream.get(range.clone()) == good.get(range);
    let frames = fields.iter().enumerate().all(|(nth, frame)| {
        let base = nth * FRAME_LEN;
        frame
            .iter()
            .all(|field| same(base + field.start..base + field.end))
    });
    let behind = fields.len() * FRAME_LEN;
    frames && stream.len() >= good.len() && same(behind..good.len())
}

const PSK: &[u8] = b"0123456789abcdef0123456789abcdef";
const PREVIOUS_PSK: &[u8] = b"fedcba9876543210fedcba9876543210";

// Fields of a frame.
const CLUSTER: Range<usize> = 32..48;
const SIZE: Range<usize> = 48..52;
const COMMAND: Range<usize> = 60..61;
const REPLICA: Range<usize> = 61..62;
const NONCE: Range<usize> = 128..160;
const MAC: Range<usize> = 160..192;
const STATUS: Range<usize> = 192..193;
