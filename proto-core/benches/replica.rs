//! The replica handshake and sealed records. 5,000 handshakes a second and core are wanted of an acceptor.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto_core::replica::{
    Acceptor, Binding, ClusterId, Config, Dialer, FRAME_LEN, Keys, Nonce, Opened, Opener,
    ReplicaId, ReplicaKey, Roster, Seal, Sealed, Sealer, Step, Stream,
};
use divan::{Bencher, counter::BytesCount};

fn main() {
    divan::main();
}

const SEALS: [Seal; 2] = [Seal::Never, Seal::Require];

/// Both ends of one handshake.
#[divan::bench(args = SEALS)]
fn handshake(bencher: Bencher<'_, '_>, seal: Seal) {
    let configs = configs(seal);
    let now = now();
    assert!(shake(&configs, now).is_some());
    bencher.bench_local(|| shake(black_box(&configs), now));
}

/// What somebody without the key can have an acceptor do: a challenge, and a look at a wrong proof.
#[divan::bench]
fn wrong_proof(bencher: Bencher<'_, '_>) {
    let configs = configs(Seal::Never);
    let now = now();
    bencher.bench_local(|| {
        let (mut dialer, mut acceptor) = ends(&configs, now)?;
        acceptor.handle_bytes(now, &sent(dialer.poll_output())?);
        let mut frame = sent(acceptor.poll_output())?;
        // A finish is a challenge of another command as far as its proof goes.
        *frame.get_mut(60)? = 16;
        acceptor.handle_bytes(now, &frame);
        acceptor.poll_output()
    });
}

const LENGTHS: [usize; 3] = [256, 4_096, 16_384];

#[divan::bench(args = LENGTHS)]
fn seal(bencher: Bencher<'_, '_>, len: usize) {
    let (mut sealer, _) = direction();
    let (data, mut wire) = (vec![7; len], Vec::new());
    bencher.counter(BytesCount::new(len)).bench_local(|| {
        wire.clear();
        sealer.seal(black_box(&data), &mut wire)
    });
}

#[divan::bench(args = LENGTHS)]
fn seal_and_open(bencher: Bencher<'_, '_>, len: usize) {
    let (mut sealer, mut opener) = direction();
    let (data, mut wire) = (vec![7; len], Vec::new());
    bencher.counter(BytesCount::new(len)).bench_local(|| {
        wire.clear();
        let sealed = sealer.seal(black_box(&data), &mut wire).is_ok();
        sealed && matches!(opener.open(&mut wire), Ok(Opened::Data { .. }))
    });
}

/// The direction from the dialer, once the link stands.
#[expect(
    clippy::expect_used,
    reason = "without a link there is nothing to measure"
)]
fn direction() -> (Sealer, Opener) {
    let (dialer, acceptor) = shake(&configs(Seal::Require), now()).expect("a link");
    match (dialer, acceptor) {
        (Stream::Sealed(Sealed { sealer, .. }), Stream::Sealed(Sealed { opener, .. })) => {
            (sealer, opener)
        }
        (Stream::Plain | Stream::Sealed(_), _) => panic!("a link that is not sealed"),
    }
}

fn shake(configs: &[Arc<Config>; 2], now: Instant) -> Option<(Stream, Stream)> {
    let (mut dialer, mut acceptor) = ends(configs, now)?;
    acceptor.handle_bytes(now, &sent(dialer.poll_output())?);
    dialer.handle_bytes(now, &sent(acceptor.poll_output())?);
    let finish = sent(dialer.poll_output())?;
    acceptor.handle_bytes(now, &finish);
    if finish.len() > FRAME_LEN {
        dialer.handle_bytes(now, &sent(acceptor.poll_output())?);
    }
    Some((
        stream(dialer.poll_output())?,
        stream(acceptor.poll_output())?,
    ))
}

fn ends(configs: &[Arc<Config>; 2], now: Instant) -> Option<(Dialer, Acceptor)> {
    let [lower, higher] = configs.each_ref().map(Arc::clone);
    let nonce = |byte| Nonce::new([byte; 32]).ok();
    let (binding, target) = (Binding::Plaintext, ReplicaId(1));
    let dialer = Dialer::new(now, lower, binding, target, nonce(0x11)?).ok()?;
    Some((dialer, Acceptor::new(now, higher, binding, nonce(0x22)?)))
}

#[expect(
    clippy::expect_used,
    reason = "a configuration that is written out here"
)]
fn configs(seal: Seal) -> [Arc<Config>; 2] {
    let key = ReplicaKey::new(b"0123456789abcdef0123456789abcdef").expect("a good key");
    let keys = Keys::new(key, None).expect("one key");
    [0, 1].map(|own| {
        let roster = Roster::dense(2, seal);
        let cluster = ClusterId::of("iggy-cluster");
        let config = Config::new(cluster, ReplicaId(own), roster, Some(keys.clone()));
        Arc::new(config.expect("a good configuration"))
    })
}

fn sent(step: Option<Step>) -> Option<Vec<u8>> {
    match step? {
        Step::Send(bytes) => Some(bytes.to_vec()),
        Step::Verified(_) | Step::Announced(_) | Step::Failed(_) => None,
    }
}

fn stream(step: Option<Step>) -> Option<Stream> {
    match step? {
        Step::Verified(verified) => Some(verified.into_parts().1),
        Step::Send(_) | Step::Announced(_) | Step::Failed(_) => None,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the base of virtual time: only distances from it count"
)]
fn now() -> Instant {
    Instant::now() + Duration::from_secs(1)
}
