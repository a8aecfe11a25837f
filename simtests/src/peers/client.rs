//! A connection of the adversary's own, with a certificate that it has: it greets as it likes, and says what it has made
//! or recorded.

use std::{net::SocketAddr, time::Instant};

use adit_proto_core::{
    env::Seed,
    peer::{
        NodeId as PeerId,
        bound::{Direction, Route, Tags},
        envelope::Header,
        frame::Frame,
        key::{ClusterSecret, KeyId, KeyRing},
        rpc_type::RpcType,
    },
};
use bytes::Bytes;
use quinn_proto::StreamId;

use super::{
    bare::{Bare, Handle},
    facts::{Holder, Made, Serial},
};
use crate::{At, choices::Choices, net::HostId, pki::Pair};

/// How it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    Proper,
    /// Its requests come before its hello, which is not finished for a while, or ever.
    Late,
    /// A byte a second.
    Trickle,
    /// A byte too many.
    Long,
    Never,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) host: HostId,
    pub(super) addr: SocketAddr,
    pub(super) holder: Holder,
    pub(super) bare: Bare,
    handle: Handle,
    greeting: Greeting,
    first: Option<StreamId>,
    /// Bytes of the hello that were said.
    said: usize,
    next_at: At,
    /// What it says, once greeted; last first.
    pub(super) lines: Vec<Line>,
    streams: Vec<(StreamId, Vec<u8>)>,
}

/// One stream's worth of bytes.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) bytes: Bytes,
    /// The half is ended behind them.
    pub(super) ends: bool,
}

impl Client {
    pub(super) fn new(
        now: Instant,
        seed: &Seed,
        (host, addr): (HostId, SocketAddr),
        (holder, pair): (Holder, &Pair),
        (greeting, remote): (Greeting, SocketAddr),
    ) -> Result<Self, rustls::Error> {
        let mut bare = Bare::new(seed, None);
        let handle = bare.dial(now, seed, pair, remote)?;
        Ok(Self {
            host,
            addr,
            holder,
            bare,
            handle,
            greeting,
            first: None,
            said: 0,
            next_at: At::ZERO,
            lines: Vec::new(),
            streams: Vec::new(),
        })
    }

    /// Tells whether its hello is whole.
    pub(super) fn is_greeted(&self) -> bool {
        self.said >= HELLO.len()
    }

    /// Says what it has to; tells whether it said something.
    pub(super) fn run(&mut self, at: At) -> bool {
        if !self.bare.is_up(self.handle) || at < self.next_at {
            return false;
        }
        let handle = self.handle;
        self.first = self.first.or_else(|| self.bare.open(handle));
        let Some(first) = self.first else {
            return false;
        };
        if self.is_greeted() {
            return self.speak();
        }
        let upto = match self.greeting {
            Greeting::Proper | Greeting::Long => HELLO.len(),
            Greeting::Trickle => self.said + 1,
            Greeting::Late if self.said == 0 => 3,
            Greeting::Late => HELLO.len(),
            Greeting::Never => return false,
        };
        let bytes = &HELLO[self.said..upto];
        self.bare.write(handle, first, bytes, false);
        self.said = upto;
        match self.greeting {
            Greeting::Late if !self.is_greeted() => {
                self.next_at = at + 2 * SECOND;
                self.speak();
            }
            Greeting::Trickle => self.next_at = at + SECOND,
            Greeting::Long => self.bare.write(handle, first, b"x", true),
            Greeting::Late | Greeting::Proper => self.bare.write(handle, first, &[], true),
            Greeting::Never => {}
        }
        true
    }

    fn speak(&mut self) -> bool {
        let mut has_spoken = false;
        while let Some(line) = self.lines.pop() {
            let Some(stream) = self.bare.open(self.handle) else {
                self.lines.push(line);
                break;
            };
            (self.bare).write(self.handle, stream, &line.bytes, line.ends);
            self.streams.push((stream, Vec::new()));
            has_spoken = true;
        }
        has_spoken
    }

    /// What it was answered, whole envelopes only.
    pub(super) fn answers(&mut self) -> Vec<Bytes> {
        let mut whole = Vec::new();
        let (bare, handle) = (&mut self.bare, self.handle);
        self.streams.retain_mut(|(stream, bytes)| {
            let got = bare.read(handle, *stream);
            bytes.extend(got.bytes);
            if got.is_end && !bytes.is_empty() {
                whole.push(Bytes::from(std::mem::take(bytes)));
            }
            !got.is_end
        });
        whole
    }

    pub(super) fn next_at(&mut self, base: Instant) -> Option<At> {
        let engine = self.bare.deadline();
        let engine = engine.map(|at| at.saturating_duration_since(base));
        let is_saying = self.bare.is_up(self.handle)
            && self.greeting != Greeting::Never
            && (!self.is_greeted() || !self.lines.is_empty());
        let own = is_saying.then_some(self.next_at);
        engine.into_iter().chain(own).min()
    }
}

/// An envelope of the adversary's making, in the reference's layout.
pub(super) fn envelope(
    ring: &KeyRing,
    (from, to, seq): (PeerId, PeerId, u64),
    kind: RpcType,
    serial: Serial,
) -> Option<Bytes> {
    let body = Bytes::copy_from_slice(&serial.0.to_le_bytes());
    let route = Route { from, to, seq };
    let frame = Frame::new(kind, 0, body);
    let way = Direction::Request;
    let sealed = Tags::plain().seal_frame(ring, way, route, frame, None);
    sealed.ok().map(|sealed| sealed.to_bytes())
}

/// Changes one bit of an envelope's header or of its tag.
pub(super) fn spoil(choices: &mut Choices, bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    // The version and the number are read first, the tag stands last.
    let at = match choices.chance(500) {
        true => choices.between(9, 16),
        false => (bytes.len() as u64).saturating_sub(choices.between(1, 32)),
    };
    if let Some(byte) = bytes.get_mut(usize::try_from(at).unwrap_or(0)) {
        *byte ^= 1 << choices.between(0, 7);
    }
    bytes.into()
}

/// A ring of a key that the cluster never had, or has no more.
pub(super) fn other_ring(secret: [u8; 32]) -> Option<KeyRing> {
    Some(KeyRing::new(KeyId(1), ClusterSecret::new(secret).ok()?))
}

/// Kinds that the adversary asks, and what may become of them.
pub(super) const KINDS: [(RpcType, Made); 6] = [
    (RpcType::Ping, Made::Good),
    (RpcType::DataPropose, Made::Good),
    (RpcType::ShardEnvelope, Made::Good),
    (RpcType::Pong, Made::NoRequest),
    (RpcType::Refusal, Made::NoRequest),
    (RpcType::WindowReset, Made::NoRequest),
];

/// Who says to have sent an envelope of the reference's layout.
pub(super) fn sender_of(bytes: &Bytes) -> Option<PeerId> {
    let layout = adit_proto_core::peer::envelope::Layout::Plain;
    Header::decode(layout, bytes)
        .ok()
        .map(|(header, _)| header.from)
}

/// The hello of the reference (peer-rpc 3.2).
const HELLO: &[u8] = &[0, 0, 0, 5, 0x92, 0x92, 1, 2, 0];
const SECOND: At = At::from_secs(1);
