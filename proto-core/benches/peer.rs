//! Sealing and verifying an envelope of the peer RPC against the bare HMAC, which is the floor.

use std::hint::black_box;

use adit_proto_core::peer::{
    NodeId,
    bound::{ConnectionSecret, Direction, Route, Tags},
    budget::Budget,
    capabilities::Capabilities,
    envelope::{EnvelopeError, Layout, Sealed, Unverified, Verified},
    frame::Frame,
    key::{ClusterSecret, KeyId, KeyRing},
    reader::{EnvelopeReader, Terms},
    rpc_type::RpcType,
    window::ReplayWindow,
};
use bytes::Bytes;
use divan::Bencher;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

fn main() {
    divan::main();
}

/// Bytes of the inner frame.
const LEN: usize = 1024;

/// What the tag covers, in one piece: header and inner frame.
fn covered() -> Vec<u8> {
    vec![7; Layout::Plain.header_len() + LEN]
}

/// Keyed once, as the keys of the ring are.
fn bare_key() -> Hmac<Sha256> {
    let mut block = [0; 64];
    block[..32].fill(3);
    Hmac::new(&block.into())
}

fn bare(key: &Hmac<Sha256>, data: &[u8]) -> Hmac<Sha256> {
    key.clone().chain_update(data)
}

fn ring() -> Option<KeyRing> {
    let secret = ClusterSecret::new([3; 32]).ok()?;
    Some(KeyRing::new(KeyId(1), secret))
}

fn tags(agreed: Capabilities) -> Tags {
    Tags::new(agreed, ConnectionSecret::new([9; 32]))
}

const ROUTE: Route = Route {
    from: NodeId(1),
    to: NodeId(2),
    seq: 7,
};

const LAYOUTS: [Capabilities; 2] = [Capabilities::NONE, Capabilities::BOUND];

#[divan::bench]
fn bare_sign(bencher: Bencher<'_, '_>) {
    let (key, data) = (bare_key(), covered());
    bencher.bench_local(|| bare(&key, black_box(&data)).finalize());
}

#[divan::bench]
fn bare_verify(bencher: Bencher<'_, '_>) {
    let (key, data) = (bare_key(), covered());
    let tag = bare(&key, &data).finalize().into_bytes();
    bencher.bench_local(|| bare(&key, black_box(&data)).verify(&tag));
}

#[divan::bench(args = LAYOUTS)]
fn seal(bencher: Bencher<'_, '_>, agreed: Capabilities) {
    let (Some(ring), mut tags) = (ring(), tags(agreed)) else {
        return;
    };
    let inner = Bytes::from(vec![7; LEN]);
    bencher.bench_local(|| sealed(&mut tags, &ring, black_box(&inner)));
}

#[divan::bench(args = LAYOUTS)]
fn verify(bencher: Bencher<'_, '_>, agreed: Capabilities) {
    let (Some(ring), mut tags) = (ring(), tags(agreed)) else {
        return;
    };
    let whole = sealed(&mut tags, &ring, &Bytes::from(vec![7; LEN]));
    let whole = whole.map_or_else(|_| Bytes::new(), |sealed| sealed.to_bytes());
    assert!(opened(&mut tags, &ring, whole.clone()).is_ok());
    bencher.bench_local(|| opened(&mut tags, &ring, black_box(&whole).clone()));
}

/// What a receiver does with a request's bytes until its body is at hand, the identity aside.
#[divan::bench]
fn read_and_verify_with_frame_and_window(bencher: Bencher<'_, '_>) {
    let (Some(ring), mut tags) = (ring(), tags(Capabilities::NONE)) else {
        return;
    };
    let frame = Frame::new(RpcType::Ping, 0, Bytes::from(vec![7; LEN]));
    let inner = Bytes::from(frame.encode().unwrap_or_default().concat());
    let whole = sealed(&mut tags, &ring, &inner);
    let whole = whole.map_or_else(|_| Bytes::new(), |sealed| sealed.to_bytes());
    let budget = Budget::new(u64::MAX);
    let mut window = ReplayWindow::new(4_096);
    let mut seq = 0;
    bencher.bench_local(|| {
        let mut reader = EnvelopeReader::new(Layout::Plain, budget.clone(), Terms::Declared);
        reader.feed(black_box(&whole)).ok()?;
        let read = reader.finish().ok()??;
        let message = read.verify(&ring).ok()?;
        seq += 1;
        window.accept(seq).ok()?;
        Frame::decode(message.inner).ok()
    });
}

fn sealed(tags: &mut Tags, ring: &KeyRing, inner: &Bytes) -> Result<Sealed, EnvelopeError> {
    tags.seal(ring, Direction::Request, ROUTE, [inner.clone()], None)
}

fn opened(tags: &mut Tags, ring: &KeyRing, whole: Bytes) -> Result<Verified, EnvelopeError> {
    let envelope = Unverified::parse(tags.layout(), whole)?;
    tags.open(ring, Direction::Request, envelope, None)
}
