//! Envelopes of the peer RPC, and requests with good tags and bad manners (peer-rpc 4 and 6).

use adit_proto_core::peer::{
    NodeId,
    bound::{ConnectionSecret, Direction, Route, Tags},
    budget::Budget,
    capabilities::Capabilities,
    directory::Directory,
    envelope::{EnvelopeError, Layout, Unverified},
    epoch::{EpochHook, EpochMark},
    identity::{IdentityStore, Leaf, NodeRecord, PinSet},
    key::{ClusterSecret, KeyId, KeyRing},
    ledger::Windows,
    reader::{EnvelopeReader, Terms},
    receive::{Callee, JoinCheck},
    verdict::{Accepted, Judge},
};
use bytes::Bytes;

use crate::{
    fixtures,
    input::{Input, pieces},
};

/// Any split of a stream reads as the whole does, within its budget; what somebody without the key sends never opens;
/// what a node with the key sends changes nothing of another node's.
pub fn envelope(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(3) {
        0 => read(&mut input, Layout::Plain),
        1 => read(&mut input, Layout::Bound),
        _ => requests(&mut input),
    }
}

fn read(input: &mut Input<'_>, layout: Layout) {
    let seed = input.byte();
    let stream = input.rest();
    let whole = one(layout, std::iter::once(stream));
    assert_eq!(whole, one(layout, pieces(stream, seed)));
    let parsed = Unverified::parse(layout, Bytes::copy_from_slice(stream));
    match whole {
        Ok(Some(envelope)) => {
            assert_eq!(Ok(&envelope), parsed.as_ref());
            if layout == Layout::Plain {
                assert_eq!(envelope.verify(&ring()).err(), Some(EnvelopeError::Mac));
            }
        }
        Ok(None) => assert!(stream.is_empty()),
        Err(_) => assert!(parsed.is_err()),
    }
}

fn one<'a>(
    layout: Layout,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<Option<Unverified>, EnvelopeError> {
    let budget = Budget::new(BUDGET);
    let mut reader = EnvelopeReader::new(layout, budget.clone(), Terms::Declared);
    for piece in pieces {
        let fed = reader.feed(piece);
        assert!(budget.used() <= BUDGET);
        fed?;
    }
    let envelope = reader.finish()?;
    if envelope.is_none() {
        assert_eq!(budget.used(), 0);
    }
    Ok(envelope)
}

/// A node's connection with another one that has the cluster's key.
fn requests(input: &mut Input<'_>) {
    let agreed = Capabilities::from_bits(input.below(8).try_into().unwrap_or(0));
    let agreed = Capabilities::active(agreed, Capabilities::ALL);
    let Ok(leaf) = Leaf::from_der(fixtures::AGENT) else {
        panic!("the fixture is no certificate");
    };
    let store = topology(&leaf);
    let judge = Judge {
        local: NodeId(1),
        own_spki: adit_proto_core::peer::identity::SpkiPin([1; 32]),
        store: &store,
        bootstrap_until: 0,
        unix_ms: 1,
    };
    let (mut windows, mut epochs) = (Windows::default(), EpochMark::new(0));
    let secret = || ConnectionSecret::new([9; 32]);
    let mut callee = Callee::new(agreed, secret(), Some(fixtures::AGENT));
    let mut tags = Tags::new(agreed, secret());
    while input.has_more() {
        let route = Route {
            from: NodeId(input.below(4).try_into().unwrap_or(0)),
            to: NodeId(input.below(3).try_into().unwrap_or(0)),
            seq: u64::from(input.byte()) << (input.byte() % 64),
        };
        let len = input.below(40);
        let inner = take(input, len);
        let before = (windows.clone(), epochs, callee.bound());
        let sealed = tags.seal(&ring(), Direction::Request, route, [inner], None);
        let Ok(sealed) = sealed else {
            panic!("a short envelope is not sealed");
        };
        let Ok(envelope) = Unverified::parse(tags.layout(), sealed.to_bytes()) else {
            panic!("what was sealed does not parse");
        };
        let state = (&mut windows, &mut epochs as &mut dyn EpochHook);
        let got = callee.receive(envelope, &ring(), &judge, &Refuses, state);
        match got {
            Ok(request) => {
                assert_eq!((request.from, request.accepted), (MEMBER, Accepted::Spki));
                assert_eq!(callee.bound(), Some(MEMBER));
                assert!(request.kind.is_request() && request.tag == sealed.tag);
            }
            Err(refused) => {
                let _consequence = callee.consequence(&refused, 0);
                if route.from != MEMBER {
                    let after = (windows.jumps().count(), epochs, callee.bound());
                    assert_eq!(after, (before.0.jumps().count(), before.1, before.2));
                }
            }
        }
    }
}

/// The node with the fixture's certificate.
const MEMBER: NodeId = NodeId(2);

fn topology(leaf: &Leaf) -> Directory {
    let mut store = Directory::default();
    let record = PinSet::new([leaf.spki]).map(|spki_pins| NodeRecord {
        node: MEMBER,
        spki_pins,
        spiffe_id: None,
        address: String::new(),
    });
    assert!(record.is_ok_and(|record| store.set(record).is_ok()));
    assert!(!store.is_empty());
    store
}

struct Refuses;

impl JoinCheck for Refuses {
    fn allows(&self, _from: NodeId, _payload: &[u8], _leaf: &Leaf) -> bool {
        false
    }
}

fn take(input: &mut Input<'_>, len: usize) -> Bytes {
    (0..len).map(|_| input.byte()).collect()
}

fn ring() -> KeyRing {
    match ClusterSecret::new([0x5d; 32]) {
        Ok(secret) => KeyRing::new(KeyId(1), secret),
        Err(error) => panic!("{error}"),
    }
}

/// More than any input needs, and less than a header may claim.
const BUDGET: u64 = 1 << 20;
