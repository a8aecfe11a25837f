//! The node of the cluster that the adversary has: honest nodes call it, and it keeps what they say.

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use adit_proto_core::{
    env::Seed,
    peer::{
        NodeId as PeerId,
        bound::{Direction, Route, Tags},
        capabilities::Capabilities,
        envelope::{Layout, Unverified, Verified},
        frame::Frame,
        key::KeyRing,
        rpc_type::RpcType,
    },
};
use bytes::Bytes;
use quinn_proto::StreamId;

use super::{
    bare::{Bare, Handle},
    facts::Serial,
    member::answer_to,
};
use crate::{choices::Choices, net::HostId, pki::Pair};

/// A message as it was above TLS.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    /// Who made it.
    pub(super) from: PeerId,
    pub(super) bytes: Bytes,
}

/// A node that is the adversary's, with its certificate and the cluster's key.
#[derive(Debug)]
pub(super) struct Compromised {
    pub(super) id: PeerId,
    pub(super) host: HostId,
    pub(super) addr: SocketAddr,
    pub(super) pair: Pair,
    pub(super) ring: KeyRing,
    /// Its numbers, of answers and of all that it makes.
    numbers: u64,
    pub(super) bare: Bare,
    links: BTreeMap<Handle, Link>,
    /// Requests of honest nodes.
    pub(super) requests: Vec<Recorded>,
    /// Answers of its own, and what came back to the adversary's clients.
    pub(super) answers: Vec<Recorded>,
    /// Marks of the bodies that it has answered with since somebody asked. An answer may be the kind of a request, too.
    pub(super) made: Vec<Serial>,
}

#[derive(Debug, Default)]
struct Link {
    greeting: Option<StreamId>,
    hello: Vec<u8>,
    tags: Option<Tags>,
    streams: BTreeMap<StreamId, Vec<u8>>,
}

/// What it does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conduct {
    Proper,
    /// Sends the request back.
    Reflects,
    /// Says what it, or somebody, said before.
    Repeats,
    /// Answers something else.
    OtherKind,
    /// Ends without a byte.
    Nothing,
    /// Says half of it, and no more.
    Half,
    /// Says nothing at all.
    Holds,
}

impl Compromised {
    pub(super) fn new(
        seed: &Seed,
        (id, host, addr): (PeerId, HostId, SocketAddr),
        pair: Pair,
        ring: KeyRing,
    ) -> Result<Self, rustls::Error> {
        Ok(Self {
            bare: Bare::server(seed, &pair)?,
            id,
            host,
            addr,
            pair,
            ring,
            numbers: 1 << 44,
            links: BTreeMap::new(),
            requests: Vec::new(),
            answers: Vec::new(),
            made: Vec::new(),
        })
    }

    /// Takes the next of its numbers.
    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Reads what has come, and answers as it likes.
    pub(super) fn run(&mut self, choices: &mut Choices) {
        for handle in self.bare.handles() {
            if !self.bare.is_up(handle) {
                continue;
            }
            let mut link = self.links.remove(&handle).unwrap_or_default();
            self.greet(choices, handle, &mut link);
            if link.tags.is_some() {
                self.serve(choices, handle, &mut link);
            }
            self.links.insert(handle, link);
        }
    }

    fn greet(&mut self, choices: &mut Choices, handle: Handle, link: &mut Link) {
        if link.tags.is_some() {
            return;
        }
        link.greeting = link.greeting.or_else(|| self.bare.accept(handle));
        let Some(stream) = link.greeting else {
            return;
        };
        link.hello.extend(self.bare.read(handle, stream).bytes);
        // A hello with capabilities of one byte (peer-rpc 3.2).
        let Some(offered) = link.hello.get(8).copied() else {
            return;
        };
        let granted = if choices.chance(500) { offered & 7 } else { 0 };
        let active = Capabilities::active(
            Capabilities::from_bits(offered.into()),
            Capabilities::from_bits(granted.into()),
        );
        let Some(secret) = self.bare.secret(handle) else {
            return;
        };
        link.tags = Some(Tags::new(active, secret));
        let ack = [0, 0, 0, 3, 0x92, 2, granted];
        self.bare.write(handle, stream, &ack, true);
    }

    fn serve(&mut self, choices: &mut Choices, handle: Handle, link: &mut Link) {
        while let Some(stream) = self.bare.accept(handle) {
            link.streams.insert(stream, Vec::new());
        }
        let Some(tags) = &mut link.tags else {
            return;
        };
        let mut over = Vec::new();
        for (stream, bytes) in &mut link.streams {
            let got = self.bare.read(handle, *stream);
            bytes.extend(got.bytes);
            if got.is_end {
                over.push((*stream, Bytes::from(std::mem::take(bytes))));
            }
        }
        for (stream, bytes) in over {
            link.streams.remove(&stream);
            let Some(request) = open(tags, &self.ring, &bytes) else {
                self.bare.write(handle, stream, &[], true);
                continue;
            };
            let from = request.header.from;
            self.requests.push(Recorded {
                from,
                bytes: bytes.clone(),
            });
            self.answer(choices, (handle, stream), tags, (&request, &bytes));
        }
    }

    fn answer(
        &mut self,
        choices: &mut Choices,
        (handle, stream): (Handle, StreamId),
        tags: &mut Tags,
        (request, raw): (&Verified, &Bytes),
    ) {
        let conduct = match choices.between(0, 99) {
            0..50 => Conduct::Proper,
            50..60 => Conduct::Reflects,
            60..75 => Conduct::Repeats,
            75..80 => Conduct::OtherKind,
            80..85 => Conduct::Nothing,
            85..90 => Conduct::Half,
            _ => Conduct::Holds,
        };
        let said = match conduct {
            Conduct::Proper | Conduct::Half | Conduct::OtherKind => {
                self.made(tags, request, conduct == Conduct::OtherKind)
            }
            Conduct::Reflects => Some(raw.clone()),
            Conduct::Repeats => self.repeated(choices, tags.layout()),
            Conduct::Nothing => Some(Bytes::new()),
            Conduct::Holds => return,
        };
        let said = said.unwrap_or_default();
        match conduct {
            Conduct::Half => {
                let half = &said[..said.len() / 2];
                self.bare.write(handle, stream, half, false);
            }
            Conduct::Proper
            | Conduct::Reflects
            | Conduct::Repeats
            | Conduct::OtherKind
            | Conduct::Nothing
            | Conduct::Holds => self.bare.write(handle, stream, &said, true),
        }
        if conduct == Conduct::Proper && !said.is_empty() {
            let from = self.id;
            self.answers.push(Recorded { from, bytes: said });
        }
    }

    /// What somebody said before. Without tags that are bound to the request it may lie itself, so there only what others
    /// said is to be seen through.
    fn repeated(&self, choices: &mut Choices, layout: Layout) -> Option<Bytes> {
        let answers = self.answers.iter();
        let answers = answers.filter(|said| layout == Layout::Bound || said.from != self.id);
        let answers: Vec<&Recorded> = answers.collect();
        let nth = choices.index(answers.len());
        answers.get(nth).map(|said| said.bytes.clone())
    }

    /// Makes an answer: the right one, or one to something that was not asked.
    fn made(&mut self, tags: &mut Tags, request: &Verified, is_other: bool) -> Option<Bytes> {
        let frame = Frame::decode(request.inner.clone()).ok()?;
        let kind = frame.kind().ok()?;
        let serial = Serial::of(&frame.payload)?;
        let answer = match is_other {
            true => RpcType::RequestVoteAnswer,
            false => kind.answer()?,
        };
        if is_other && kind == RpcType::RequestVote {
            return None;
        }
        let route = Route {
            from: self.id,
            to: request.header.from,
            seq: self.number(),
        };
        let body = answer_to(serial, kind, self.id);
        self.made.extend(Serial::of(&body));
        let frame = Frame::new(answer, 0, body);
        let way = Direction::Response;
        let sealed = tags.seal_frame(&self.ring, way, route, frame, Some(&request.tag));
        sealed.ok().map(|sealed| sealed.to_bytes())
    }

    pub(super) fn deadline(&mut self) -> Option<Instant> {
        self.bare.deadline()
    }
}

fn open(tags: &mut Tags, ring: &KeyRing, bytes: &Bytes) -> Option<Verified> {
    let envelope = Unverified::parse(tags.layout(), bytes.clone()).ok()?;
    tags.open(ring, Direction::Request, envelope, None).ok()
}
