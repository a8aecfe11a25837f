//! The network: datagrams in flight, delayed, lost and paced by choice of the test.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use sha2::{Digest, Sha256};

/// One direction between two addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) latency: Duration,
    /// Datagrams lost, of a thousand.
    pub(crate) loss: u64,
    pub(crate) black_hole: bool,
    /// Bytes of a datagram that it has room for; longer ones vanish.
    pub(crate) mtu: usize,
    /// Bytes per second; none: no limit.
    pub(crate) rate: Option<u64>,
    busy_until: Option<Instant>,
}

/// A datagram on its way.
pub(crate) struct Packet {
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) ecn: Option<u8>,
    pub(crate) data: BytesMut,
}

pub(crate) struct Net {
    paths: BTreeMap<(SocketAddr, SocketAddr), Path>,
    flight: BTreeMap<(Instant, u64), Packet>,
    counter: u64,
    dice: u64,
    trace: Sha256,
}

/// Bytes by which AES-GCM and ChaCha20-Poly1305 protect a packet.
const TAG_LEN: usize = 16;

impl Net {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            paths: BTreeMap::new(),
            flight: BTreeMap::new(),
            counter: 0,
            dice: seed,
            trace: Sha256::new(),
        }
    }

    pub(crate) fn path(&mut self, src: SocketAddr, dst: SocketAddr) -> &mut Path {
        self.paths.entry((src, dst)).or_insert(Path {
            latency: Duration::from_millis(10),
            loss: 0,
            black_hole: false,
            mtu: usize::MAX,
            rate: None,
            busy_until: None,
        })
    }

    /// Sends a batch as its datagrams.
    pub(crate) fn send_batch(
        &mut self,
        now: Instant,
        ends: (SocketAddr, SocketAddr),
        ecn: Option<u8>,
        batch: &[u8],
        segment: Option<usize>,
    ) {
        for data in batch.chunks(segment.unwrap_or(batch.len()).max(1)) {
            self.send(now, ends, ecn, data);
        }
    }

    pub(crate) fn send(
        &mut self,
        now: Instant,
        (src, dst): (SocketAddr, SocketAddr),
        ecn: Option<u8>,
        data: &[u8],
    ) {
        // The end of a datagram is a tag over the rest of it.
        self.trace.update(data.len().to_be_bytes());
        self.trace
            .update(&data[data.len().saturating_sub(TAG_LEN)..]);
        let roll = self.roll() % 1_000;
        let path = self.path(src, dst);
        if path.black_hole || data.len() > path.mtu || roll < path.loss {
            return;
        }
        let mut leaves = now;
        if let Some(rate) = path.rate {
            let start = path.busy_until.unwrap_or(now).max(now);
            // A router's queue of 100 ms.
            if start - now > Duration::from_millis(100) {
                return;
            }
            leaves = start + Duration::from_secs_f64(data.len() as f64 / rate as f64);
            path.busy_until = Some(leaves);
        }
        let at = leaves + path.latency;
        self.counter += 1;
        let packet = Packet {
            src,
            dst,
            ecn,
            data: data.into(),
        };
        self.flight.insert((at, self.counter), packet);
    }

    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.flight.keys().next().map(|(at, _)| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<Packet> {
        self.flight.pop_first().map(|(_, packet)| packet)
    }

    /// Hash of the length and the tag of every datagram sent so far.
    pub(crate) fn trace(&self) -> [u8; 32] {
        self.trace.clone().finalize().into()
    }

    /// SplitMix64.
    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
