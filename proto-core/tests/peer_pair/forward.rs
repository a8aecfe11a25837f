//! Sessions that one gateway hands to another.

use std::collections::{BTreeMap, VecDeque};

use adit_proto_core::{
    close::{Closed, PeerFault},
    endpoint::Protocol,
    gateway::AttemptError,
    id::{AgentId, AttemptId, SessionId, Slot},
    limits::{OPEN_TIMEOUT, RPC_TIMEOUT},
    output::{Event, SessionEnd},
    peer::{
        NodeId,
        capabilities::Capabilities,
        event::PeerEvent,
        fault::RpcFault,
        forward::{Forward, Status},
        rpc_type::RpcType,
        verdict::IdentityError,
    },
    session::{Read, Written},
};
use bytes::Bytes;
use uuid::Uuid;

use super::{
    bare,
    bed::{At, Bed, Place, secs},
    raw::RawConfig,
};

/// What a connection said of forwarded sessions.
#[derive(Default)]
pub(crate) struct Forwards {
    up: Option<NodeId>,
    requested: Vec<(Slot, Forward)>,
    opened: BTreeMap<AttemptId, Slot>,
    refused: BTreeMap<AttemptId, AttemptError>,
    ended: BTreeMap<Slot, SessionEnd>,
}

impl Forwards {
    pub(crate) fn take(&mut self, event: Event) {
        match event {
            Event::Peer(PeerEvent::ForwardUp { node, .. }) => {
                assert!(self.up.replace(node).is_none(), "up twice");
            }
            Event::Peer(PeerEvent::ForwardRequested { slot, forward }) => {
                self.requested.push((slot, *forward));
            }
            Event::SessionOpened { attempt, slot } => {
                assert!(self.opened.insert(attempt, slot).is_none(), "opened twice");
            }
            Event::SessionRefused { attempt, cause } => {
                assert!(
                    self.refused.insert(attempt, cause).is_none(),
                    "refused twice"
                );
            }
            Event::SessionEnded { slot, how } => {
                assert!(self.ended.insert(slot, how).is_none(), "ended twice");
            }
            Event::SessionReadable(_) | Event::SessionWritable(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Both ends of a connection for forwarded sessions, from node 1 to node 2.
struct Pair {
    bed: Bed,
    one: At,
    two: At,
    attempts: u64,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let (mut bed, one, two) = Bed::two(seed, Capabilities::ALL);
        let one = bed.dial_for(one, two, Some(2), Protocol::Forward);
        bed.run_for(secs(1));
        let two = bed.only_wire(two);
        assert_eq!(bed.wire(one).forwards.up, Some(NodeId(2)));
        assert_eq!(bed.wire(two).forwards.up, Some(NodeId(1)));
        let attempts = 0;
        Self {
            bed,
            one,
            two,
            attempts,
        }
    }

    fn ask(&mut self) -> AttemptId {
        self.attempts += 1;
        let attempt = AttemptId(self.attempts);
        let (now, forward) = (self.bed.now(), forward(self.attempts));
        self.bed.with(self.one, |conn| {
            let mut handle = conn.as_forward().unwrap();
            handle.open_session(now, attempt, forward);
        });
        attempt
    }

    fn requested(&self) -> &[(Slot, Forward)] {
        &self.bed.wire(self.two).forwards.requested
    }

    fn accept(&mut self, slot: Slot) {
        let accepted = self
            .bed
            .with(self.two, |conn| conn.as_forward().unwrap().accept(slot));
        assert_eq!(accepted, Ok(()));
    }

    /// Opens a session, whose slot is the same at both ends.
    fn open(&mut self) -> Slot {
        let before = self.requested().len();
        let attempt = self.ask();
        self.bed.run_for(secs(1));
        let slot = self.requested()[before].0;
        self.accept(slot);
        self.bed.run_for(secs(1));
        assert_eq!(self.bed.wire(self.one).forwards.opened[&attempt], slot);
        slot
    }

    fn refused(&self, attempt: AttemptId) -> Option<&AttemptError> {
        self.bed.wire(self.one).forwards.refused.get(&attempt)
    }

    fn write(&mut self, at: At, slot: Slot, bytes: &'static [u8]) {
        let written = self.bed.with(at, |conn| {
            let mut chunk = Bytes::from_static(bytes);
            conn.session(slot).unwrap().write(&mut chunk)
        });
        assert_eq!(written, Ok(Written::All));
    }

    fn read(&mut self, at: At, slot: Slot) -> (Vec<u8>, bool) {
        self.bed.run_for(secs(1));
        self.bed.with(at, |conn| {
            let mut chunks = VecDeque::new();
            let mut session = conn.session(slot).unwrap();
            let mut end = false;
            loop {
                match session.read(1 << 20, &mut chunks) {
                    Ok(Read::More) => {}
                    Ok(Read::Blocked) => break,
                    Ok(Read::End) => {
                        end = true;
                        break;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            (chunks.iter().flatten().copied().collect(), end)
        })
    }
}

fn forward(n: u64) -> Forward {
    Forward {
        from: NodeId(1),
        to: NodeId(2),
        session: SessionId(Uuid::from_u128(n.into())),
        agent: Some(AgentId(Uuid::from_u128(77))),
        target: "10.0.0.5:22".parse().unwrap(),
        origin: "alice at 192.0.2.7".into(),
    }
}

#[test]
fn bytes_go_both_ways_and_each_half_ends_by_itself() {
    let mut pair = Pair::new(1);
    let slot = pair.open();
    assert_eq!(pair.requested()[0].1, forward(1));
    let (one, two) = (pair.one, pair.two);
    pair.write(one, slot, b"from the user");
    assert_eq!(pair.read(two, slot), (b"from the user".to_vec(), false));
    pair.bed
        .with(one, |conn| conn.session(slot).unwrap().finish().unwrap());
    assert_eq!(pair.read(two, slot), (Vec::new(), true));
    pair.write(two, slot, b"from the target");
    pair.bed
        .with(two, |conn| conn.session(slot).unwrap().finish().unwrap());
    assert_eq!(pair.read(one, slot), (b"from the target".to_vec(), true));
    pair.bed.run_for(secs(1));
    for at in [one, two] {
        assert_eq!(pair.bed.wire(at).forwards.ended[&slot], SessionEnd::Clean);
    }
}

#[test]
fn bytes_behind_the_answer_are_the_sessions() {
    let mut pair = Pair::new(2);
    let attempt = pair.ask();
    pair.bed.run_for(secs(1));
    let slot = pair.requested()[0].0;
    let two = pair.two;
    pair.bed.with(two, |conn| {
        // In one datagram.
        conn.as_forward().unwrap().accept(slot).unwrap();
        let mut banner = Bytes::from_static(b"banner");
        let written = conn.session(slot).unwrap().write(&mut banner);
        assert_eq!(written, Ok(Written::All));
    });
    assert_eq!(pair.read_opened(attempt), b"banner");
}

impl Pair {
    fn read_opened(&mut self, attempt: AttemptId) -> Vec<u8> {
        self.bed.run_for(secs(1));
        let slot = self.bed.wire(self.one).forwards.opened[&attempt];
        let one = self.one;
        self.read(one, slot).0
    }
}

#[test]
fn every_refusal_arrives_as_what_it_is() {
    let mut pair = Pair::new(3);
    let text = || AttemptError::Refused("because".to_owned());
    for (n, (status, cause)) in [
        (Status::Refused, text()),
        (Status::NoRoute, text()),
        (Status::Denied, text()),
        (Status::Stopping, text()),
        (Status::TimedOut, AttemptError::TimedOut),
        (Status::Overload, AttemptError::NoCredit),
        (Status::Lost, AttemptError::ConnectionLost),
    ]
    .into_iter()
    .enumerate()
    {
        let attempt = pair.ask();
        pair.bed.run_for(secs(1));
        let slot = pair.requested()[n].0;
        let two = pair.two;
        let refuse = |status| {
            move |conn: &mut adit_proto_core::connection::Connection| {
                (conn.as_forward().unwrap()).refuse(slot, status, "because")
            }
        };
        assert!(pair.bed.with(two, refuse(Status::Open)).is_err());
        assert_eq!(pair.bed.with(two, refuse(status)), Ok(()));
        assert!(
            pair.bed.with(two, refuse(status)).is_err(),
            "answered twice"
        );
        pair.bed.run_for(secs(1));
        assert_eq!(pair.refused(attempt), Some(&cause), "{status:?}");
    }
}

#[test]
fn more_sessions_than_streams_at_first() {
    let mut pair = Pair::new(4);
    let attempts: Vec<AttemptId> = (0..1_500).map(|_| pair.ask()).collect();
    for _ in 0..20 {
        pair.bed.run_for(secs(1));
        let slots: Vec<Slot> = pair.requested().iter().map(|(slot, _)| *slot).collect();
        for slot in slots {
            let two = pair.two;
            let _again = pair
                .bed
                .with(two, |conn| conn.as_forward().unwrap().accept(slot));
        }
    }
    let opened = &pair.bed.wire(pair.one).forwards.opened;
    assert_eq!(opened.len(), attempts.len());
}

#[test]
fn an_attempt_that_is_not_answered_or_cancelled_leaves_nothing() {
    let mut pair = Pair::new(5);
    let (first, second) = (pair.ask(), pair.ask());
    pair.bed.run_for(secs(1));
    let slots = [pair.requested()[0].0, pair.requested()[1].0];
    let one = pair.one;
    pair.bed
        .with(one, |conn| conn.as_forward().unwrap().cancel(first));
    pair.bed.run_for(secs(1));
    let ended = &pair.bed.wire(pair.two).forwards.ended;
    assert!(matches!(ended[&slots[0]], SessionEnd::ResetByPeer(_)));
    pair.bed.run_for(OPEN_TIMEOUT);
    assert_eq!(pair.refused(first), None);
    assert_eq!(pair.refused(second), Some(&AttemptError::TimedOut));
    assert!(
        pair.bed
            .wire(pair.two)
            .forwards
            .ended
            .contains_key(&slots[1])
    );
}

#[test]
fn a_large_transfer_is_intact_beside_a_reader_that_stopped() {
    let mut pair = Pair::new(6);
    let (stopped, moving) = (pair.open(), pair.open());
    let (one, two) = (pair.one, pair.two);
    let fill = vec![7_u8; 64 << 20];
    let mut rest = Bytes::from(fill);
    pair.bed.with(one, |conn| {
        let _blocked = conn.session(stopped).unwrap().write(&mut rest);
    });
    let body = Bytes::from(
        (0..20_000_000_u32)
            .map(|n| n.to_le_bytes()[0] ^ 3)
            .collect::<Vec<_>>(),
    );
    let (mut left, mut got) = (body.clone(), Vec::new());
    for _ in 0..400 {
        pair.bed.with(one, |conn| {
            let _state = conn.session(moving).unwrap().write(&mut left);
        });
        pair.bed.run_for(std::time::Duration::from_millis(50));
        pair.bed.with(two, |conn| {
            let mut chunks = VecDeque::new();
            let _state = conn.session(moving).unwrap().read(8 << 20, &mut chunks);
            got.extend(chunks.iter().flatten().copied());
        });
        if got.len() == body.len() {
            break;
        }
    }
    assert!(got == body, "{} of {} bytes", got.len(), body.len());
}

#[test]
fn calls_and_sessions_share_an_endpoint() {
    let mut pair = Pair::new(7);
    let calls = pair.bed.connect(Place(0), Place(1), 2);
    let slot = pair.open();
    assert!(pair.bed.ask(calls, RpcType::Ping, b"x").is_ok());
    let one = pair.one;
    pair.write(one, slot, b"y");
    let two = pair.two;
    assert_eq!(pair.read(two, slot).0, b"y");
    assert!(pair.bed.with(calls, |conn| conn.as_forward().is_none()));
    assert!(pair.bed.with(one, |conn| conn.as_peer().is_none()));
}

#[test]
fn the_side_that_was_dialled_hands_nothing_over() {
    let mut pair = Pair::new(8);
    let (two, now) = (pair.two, pair.bed.now());
    pair.bed.with(two, |conn| {
        (conn.as_forward().unwrap()).open_session(now, AttemptId(9), forward(9));
    });
    let refused = &pair.bed.wire(two).forwards.refused;
    assert_eq!(refused[&AttemptId(9)], AttemptError::PeerLost);
}

#[test]
fn a_server_that_is_not_the_node_dialled_gets_no_session() {
    let (mut bed, one, two) = Bed::two(9, Capabilities::ALL);
    let at = bed.dial_for(one, two, Some(4), Protocol::Forward);
    let fault = RpcFault::Identity(IdentityError::WrongKey);
    assert_eq!(bed.closed(at), Closed::Fault(PeerFault::Rpc(fault)));
    bed.run_for(secs(1));
    let seen = bed.only_wire(two);
    assert!(matches!(bed.closed(seen), Closed::ByPeer(close) if close.code == 2));
}

/// Node 2, and node 1 as a bare peer that may hand sessions over.
fn hostile(seed: u64) -> (Bed, Place, Place) {
    let mut bed = Bed::new(seed);
    let setup = bed.setup(2);
    let node = bed.add(setup);
    let config = RawConfig {
        alpn: b"adit-forward/1",
        identity: Some(bed.pki.pairs[&1].clone()),
        ..RawConfig::default()
    };
    let bare = bed.add_raw(&config, node);
    bed.run_for(secs(1));
    (bed, node, bare)
}

#[test]
fn what_is_no_header_is_reset_and_never_asked() {
    let (mut bed, node, bare) = hostile(10);
    let mut wrong = vec![1_u8, 1, 1];
    wrong.extend_from_slice(&[0; 48]);
    wrong.extend_from_slice(&[1, 0, 0, 0]);
    wrong.extend_from_slice(&[b'x'; 33]);
    for bytes in [&[9_u8][..], &[1, 1, 2], &[0xff; 600], &wrong] {
        let stream = bare::send(&mut bed, bare, bytes, true);
        let got = bare::read(&mut bed, bare, stream);
        assert!(got.reset.is_some() && got.bytes.is_empty(), "{got:?}");
    }
    let slow = bare::send(&mut bed, bare, &[1], false);
    bed.run_for(RPC_TIMEOUT);
    assert!(bare::read(&mut bed, bare, slow).reset.is_some());
    let at = bed.only_wire(node);
    assert!(bed.wire(at).forwards.requested.is_empty());
    assert!(bed.wire(at).closed.is_none());
    assert_eq!(bed.with(at, |conn| conn.counters().setups_malformed), 4);
}

#[test]
fn a_lost_peer_is_noticed_and_its_sessions_end() {
    let mut pair = Pair::new(11);
    pair.open();
    pair.bed
        .both(Place(0), Place(1), |path| path.black_hole = true);
    pair.bed.run_for(secs(5));
    for at in [pair.one, pair.two] {
        assert_eq!(pair.bed.wire(at).closed, Some(Closed::PathDead));
    }
}
