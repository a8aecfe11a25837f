use proptest::{collection::vec, prelude::*};

use super::*;
use crate::peer::key::ClusterSecret;

fn ring() -> KeyRing {
    KeyRing::new(KeyId(1), ClusterSecret::new([3; 32]).unwrap())
}

fn key() -> MacKey {
    MacKey::new(&[3; 32])
}

fn plain(seq: u64) -> Header {
    Header {
        from: NodeId(7),
        seq,
        address: None,
    }
}

fn bound() -> Header {
    Header {
        address: Some(Address {
            key_id: KeyId(9),
            to: NodeId(8),
        }),
        ..plain(5)
    }
}

fn sealed(inner: &[u8]) -> Bytes {
    let inner = Bytes::copy_from_slice(inner);
    plain(1).seal([inner], &key(), None).unwrap().to_bytes()
}

fn parse(bytes: &[u8]) -> Result<Unverified, EnvelopeError> {
    Unverified::parse(Layout::Plain, Bytes::copy_from_slice(bytes))
}

#[test]
fn a_plain_header_is_little_endian() {
    let envelope = sealed(b"ab");
    let head = [
        1, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0,
    ];
    assert_eq!(envelope[..21], head);
    assert_eq!(envelope.len(), 21 + 2 + 32);
}

#[test]
fn a_bound_header_names_key_and_receiver() {
    let envelope = bound().seal([Bytes::from_static(b"x")], &key(), None);
    let envelope = envelope.unwrap().to_bytes();
    let mut head = vec![2, 9];
    for number in [7_u64, 8, 5] {
        head.extend(number.to_le_bytes());
    }
    head.extend(1_u32.to_le_bytes());
    assert_eq!(envelope[..30], head);
    let read = Unverified::parse(Layout::Bound, envelope).unwrap();
    assert_eq!(read.header(), &bound());
    assert_eq!(read.verify_bound(&key(), None).unwrap().inner, "x");
}

#[test]
fn the_body_is_not_copied_unless_asked_for() {
    let body = Bytes::from(vec![7; 1000]);
    let head = Bytes::from_static(b"head");
    let sealed = plain(1).seal([head, body.clone()], &key(), None).unwrap();
    assert_eq!(sealed.parts.len(), 4);
    assert_eq!(sealed.parts[2].as_ptr(), body.as_ptr());
    let copied = plain(1)
        .seal_copied(&[b"head", &body], &key(), None)
        .unwrap();
    assert_eq!(
        (copied.to_bytes(), copied.tag),
        (sealed.to_bytes(), sealed.tag)
    );
    assert_eq!(copied.parts.len(), 1);
    let read = parse(&sealed.to_bytes()).unwrap();
    let from = read.bytes.as_ptr();
    let verified = read.verify(&ring()).unwrap();
    assert_eq!(verified.inner.as_ptr(), from.wrapping_add(21));
    assert_eq!(verified.tag, sealed.tag);
}

#[test]
fn checks_come_in_their_order() {
    let good = sealed(b"ab");
    let mut all_wrong = good.to_vec();
    all_wrong.truncate(52);
    all_wrong[0] = 9;
    assert_eq!(
        parse(&all_wrong).err(),
        Some(EnvelopeError::TooShort { len: 52 })
    );
    all_wrong.resize(60, 0);
    all_wrong[17..21].fill(0xff);
    let version = EnvelopeError::Version {
        got: 9,
        expected: 1,
    };
    assert_eq!(parse(&all_wrong).err(), Some(version));
    all_wrong[0] = 1;
    let exceeds = EnvelopeError::InnerLenExceedsMax { len: 0xffff_ffff };
    assert_eq!(parse(&all_wrong).err(), Some(exceeds));
    all_wrong[17..21].copy_from_slice(&9_u32.to_le_bytes());
    let mismatch = EnvelopeError::LengthMismatch {
        expected: 62,
        got: 60,
    };
    assert_eq!(parse(&all_wrong).err(), Some(mismatch));
    all_wrong[17..21].copy_from_slice(&7_u32.to_le_bytes());
    let read = parse(&all_wrong).unwrap();
    assert_eq!(read.verify(&ring()).err(), Some(EnvelopeError::Mac));
}

#[test]
fn the_limit_is_inclusive() {
    let header = |len: u32| {
        let mut bytes = [0; 21];
        bytes[0] = 1;
        bytes[17..].copy_from_slice(&len.to_le_bytes());
        Header::decode(Layout::Plain, &bytes).map(|(_, len)| len)
    };
    assert_eq!(header(RPC_LEN_MAX), Ok(RPC_LEN_MAX));
    let exceeds = EnvelopeError::InnerLenExceedsMax { len: 67_108_865 };
    assert_eq!(header(RPC_LEN_MAX + 1), Err(exceeds));
    let body = Bytes::from(vec![0; RPC_LEN_MAX as usize]);
    let one = Bytes::from_static(&[0]);
    assert_eq!(
        plain(1).seal([body, one], &key(), None).err(),
        Some(exceeds)
    );
}

#[test]
fn empty_inner_frame_is_an_envelope() {
    let read = parse(&sealed(b"")).unwrap();
    assert!(read.verify(&ring()).unwrap().inner.is_empty());
}

#[test]
fn one_layout_is_not_the_other() {
    let envelope = sealed(&[0; 20]);
    let version = EnvelopeError::Version {
        got: 1,
        expected: 2,
    };
    assert_eq!(
        Unverified::parse(Layout::Bound, envelope).err(),
        Some(version)
    );
}

#[test]
fn a_response_belongs_to_its_request() {
    let request = [1; 32];
    let sealed = bound().seal([Bytes::new()], &key(), Some(&request));
    let bytes = sealed.unwrap().to_bytes();
    let read = || Unverified::parse(Layout::Bound, bytes.clone()).unwrap();
    assert!(read().verify_bound(&key(), Some(&request)).is_ok());
    for other in [None, Some(&[2; 32])] {
        let got = read().verify_bound(&key(), other);
        assert_eq!(got.err(), Some(EnvelopeError::Mac));
    }
}

proptest! {
    #[test]
    fn what_is_sealed_opens_and_nothing_else(
        from: u64, seq: u64, inner in vec(any::<u8>(), 0..200), flip: prop::sample::Index,
    ) {
        let header = Header { from: NodeId(from), seq, address: None };
        let bytes = header.seal([Bytes::from(inner.clone())], &key(), None).unwrap().to_bytes();
        let opened = parse(&bytes).unwrap().verify(&ring()).unwrap();
        prop_assert_eq!(opened.header, header);
        prop_assert_eq!(opened.inner, inner);
        let mut bad = bytes.to_vec();
        let at = flip.index(bad.len() * 8);
        bad[at / 8] ^= 1 << (at % 8);
        prop_assert!(parse(&bad).and_then(|read| read.verify(&ring())).is_err());
    }

    #[test]
    fn any_bytes_end_in_an_error(bytes in vec(any::<u8>(), 0..200), layout: bool) {
        let layout = if layout { Layout::Plain } else { Layout::Bound };
        if let Ok(read) = Unverified::parse(layout, Bytes::from(bytes)) {
            prop_assert_eq!(read.verify(&ring()).err(), Some(EnvelopeError::Mac));
        }
    }
}
