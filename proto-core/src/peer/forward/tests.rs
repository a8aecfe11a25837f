//! Headers and answers that are good, damaged, cut, sent elsewhere, or too long.

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{
    id::{AgentId, SessionId},
    limits::{FORWARD_ORIGIN_LEN_MAX, REASON_LEN_MAX},
    peer::key::ClusterSecret,
};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

fn ring(id: u8, byte: u8) -> KeyRing {
    KeyRing::new(KeyId(id), ClusterSecret::new([byte; 32]).unwrap())
}

fn connection(byte: u8) -> ConnectionSecret {
    ConnectionSecret::new([byte; 32])
}

fn forward() -> Forward {
    Forward {
        from: A,
        to: B,
        session: SessionId(Uuid::from_u128(5)),
        agent: Some(AgentId(Uuid::from_u128(6))),
        target: "db.corp.local:5432".parse().unwrap(),
        origin: "alice at 192.0.2.7".into(),
    }
}

fn sealed(forward: &Forward) -> (Vec<u8>, AnswerReader) {
    let (header, answer) = forward.seal(&ring(4, 3), &connection(1)).unwrap();
    (header.to_vec(), answer)
}

/// Reads a stream piece by piece; gives the header and what is left behind it.
fn read(stream: &[u8], piece: usize) -> Result<(Option<Unverified>, Vec<u8>), ForwardError> {
    let mut reader = ForwardReader::default();
    let (mut header, mut rest) = (None, Vec::new());
    for piece in stream.chunks(piece) {
        let mut data = Bytes::copy_from_slice(piece);
        if header.is_none() {
            header = reader.feed(&mut data)?;
        }
        rest.extend_from_slice(&data);
    }
    assert_eq!(reader.finish().is_ok(), header.is_some());
    Ok((header, rest))
}

fn verified(stream: &[u8]) -> Result<(Forward, Answering), ForwardError> {
    let (header, _) = read(stream, stream.len())?;
    header
        .ok_or(ForwardError::Truncated)?
        .verify(&ring(4, 3), &connection(1), A, B)
}

#[test]
fn a_session_is_asked_for_and_answered() {
    let (header, mut reader) = sealed(&forward());
    let (got, answering) = verified(&header).unwrap();
    assert_eq!(got, forward());
    let mut answer = answering.seal(Status::Refused, "no such port");
    let got = reader.feed(&mut answer).unwrap().unwrap();
    assert_eq!(
        (got.status, &*got.reason),
        (Status::Refused, "no such port")
    );
    assert!(answer.is_empty() && reader.finish().is_ok());
}

#[test]
fn no_byte_behind_header_or_answer_is_taken() {
    let (mut header, mut reader) = sealed(&forward());
    header.extend_from_slice(b"hello");
    for piece in 1..=header.len() {
        let (unverified, rest) = read(&header, piece).unwrap();
        assert!(unverified.is_some() && rest == b"hello", "{piece}");
    }
    let mut answer = verified(&header).unwrap().1.seal(Status::Open, "").to_vec();
    answer.extend_from_slice(b"world");
    let mut rest = Vec::new();
    for byte in answer {
        let mut data = Bytes::from(vec![byte]);
        let got = reader.feed(&mut data).unwrap();
        assert!(got.is_none_or(|answer| answer.status == Status::Open));
        rest.extend_from_slice(&data);
    }
    assert_eq!(rest, b"world");
}

#[test]
fn a_header_is_good_on_its_own_connection_and_between_its_nodes_only() {
    let (header, _) = sealed(&forward());
    let unverified = read(&header, 7).unwrap().0.unwrap();
    let verify = |keys: &KeyRing, byte, peer, local| {
        let verified = unverified
            .clone()
            .verify(keys, &connection(byte), peer, local);
        verified.map(|_| ())
    };
    let good = ring(4, 3);
    assert_eq!(verify(&good, 1, A, B), Ok(()));
    for (keys, byte) in [(&good, 2), (&ring(4, 9), 1), (&ring(5, 3), 1)] {
        assert_eq!(verify(keys, byte, A, B), Err(ForwardError::Mac));
    }
    let expected = C;
    assert_eq!(
        verify(&good, 1, C, B),
        Err(ForwardError::From { got: A, expected })
    );
    assert_eq!(
        verify(&good, 1, A, C),
        Err(ForwardError::To { got: B, expected })
    );
}

#[test]
fn a_former_key_is_taken_while_the_ring_has_it() {
    let mut keys = ring(5, 8);
    keys.add(KeyId(4), ClusterSecret::new([3; 32]).unwrap())
        .unwrap();
    let (header, mut reader) = sealed(&forward());
    let unverified = read(&header, 9).unwrap().0.unwrap();
    let (_, answering) = unverified.verify(&keys, &connection(1), A, B).unwrap();
    // The answer is under the request's key, so that whoever asked can read it.
    let got = reader.feed(&mut answering.seal(Status::Open, ""));
    assert_eq!(got.unwrap().unwrap().status, Status::Open);
}

#[test]
fn an_answer_is_to_its_own_request() {
    let (first, mut reader) = sealed(&forward());
    let other = Forward {
        session: SessionId(Uuid::from_u128(7)),
        ..forward()
    };
    let (second, _) = sealed(&other);
    let mut wrong = verified(&second).unwrap().1.seal(Status::Open, "");
    assert_eq!(reader.feed(&mut wrong), Err(ForwardError::Mac));
    let (_, mut reader) = sealed(&forward());
    let mut right = verified(&first).unwrap().1.seal(Status::Open, "");
    assert!(reader.feed(&mut right).is_ok());
}

#[test]
fn what_is_wrong_with_a_header_is_known_before_the_rest_of_it_came() {
    let (header, _) = sealed(&forward());
    let with = |at: usize, bytes: &[u8]| {
        let mut header = header[..FIXED].to_vec();
        header[at..][..bytes.len()].copy_from_slice(bytes);
        read(&header, 1).map(|_| ())
    };
    assert_eq!(with(0, &[2]), Err(ForwardError::Version { got: 2 }));
    for hop in [0, 2, 255] {
        assert_eq!(with(2, &[hop]), Err(ForwardError::Hop { got: hop }));
    }
    for got in [0, 262, u16::MAX] {
        let error = ForwardError::TargetLen { got };
        assert_eq!(with(51, &got.to_le_bytes()), Err(error));
    }
    for got in [257, u16::MAX] {
        let error = ForwardError::OriginLen { got };
        assert_eq!(with(53, &got.to_le_bytes()), Err(error));
    }
    assert_eq!(with(0, &[]), Ok(()), "whole so far");
    let version = ForwardReader::default().feed(&mut Bytes::from_static(b"G"));
    assert_eq!(version.err(), Some(ForwardError::Version { got: b'G' }));
}

#[test]
fn texts_of_a_good_tag_are_judged_too() {
    let keys = ring(4, 3);
    let request = key(&keys, &connection(1), KeyId(4), Direction::Request, (A, B)).unwrap();
    let (header, _) = sealed(&forward());
    let signed = |target: &[u8], origin: &[u8]| {
        let mut header = header[..FIXED - 4].to_vec();
        for text in [target, origin] {
            header.extend_from_slice(&u16::try_from(text.len()).unwrap().to_le_bytes());
        }
        let mut header = [&header[..], target, origin].concat();
        let tag = request.tag(&[&header]);
        header.extend_from_slice(&tag);
        verified(&header).map(|(forward, _)| forward.target.to_string())
    };
    assert_eq!(signed(b"a.b:1", b""), Ok("a.b:1".into()));
    assert_eq!(signed(b"a.b:1", b"\xff"), Err(ForwardError::NotUtf8));
    assert_eq!(signed(b"\xff:1", b""), Err(ForwardError::NotUtf8));
    assert!(matches!(
        signed(b"a.b:0", b""),
        Err(ForwardError::Target(_))
    ));
    assert!(matches!(
        signed(b"a b:1", b""),
        Err(ForwardError::Target(_))
    ));
}

#[test]
fn texts_are_cut_between_characters() {
    let long = Forward {
        origin: format!("x{}", "\u{e9}".repeat(FORWARD_ORIGIN_LEN_MAX)).into(),
        target: format!("{}:65535", "a.".repeat(127) + "b").parse().unwrap(),
        ..forward()
    };
    let (header, mut reader) = sealed(&long);
    assert!(header.len() < HEADER_LEN_MAX);
    let (got, answering) = verified(&header).unwrap();
    assert_eq!(got.origin.len(), FORWARD_ORIGIN_LEN_MAX - 1);
    let mut answer = answering.seal(Status::Lost, &"\u{e9}x".repeat(REASON_LEN_MAX));
    let got = reader.feed(&mut answer).unwrap().unwrap();
    assert!((REASON_LEN_MAX - 1..=REASON_LEN_MAX).contains(&got.reason.len()));
}

#[test]
fn an_answer_is_judged_as_it_comes() {
    let (_, reader) = sealed(&forward());
    let feed = |bytes: &'static [u8]| {
        let (_, mut reader) = sealed(&forward());
        reader.feed(&mut Bytes::from_static(bytes))
    };
    assert_eq!(feed(&[9]), Err(ForwardError::Version { got: 9 }));
    assert_eq!(
        feed(&[1, 0, 1, 4]),
        Err(ForwardError::ReasonLen { got: 1_025 })
    );
    assert_eq!(feed(&[1, 0, 0, 0]), Ok(None));
    assert_eq!(reader.finish(), Err(ForwardError::Truncated));
    for value in 0..=255 {
        match Status::try_from(value) {
            Ok(status) => assert_eq!(status.value(), value),
            Err(error) => assert_eq!(error, ForwardError::Status(value)),
        }
    }
    assert!(
        Status::ALL
            .iter()
            .all(|s| Status::try_from(s.value()) == Ok(*s))
    );
}

proptest! {
    #[test]
    fn any_other_byte_is_noticed(at: prop::sample::Index, bit in 0..8_u8) {
        let (mut header, mut reader) = sealed(&forward());
        let (_, answering) = verified(&header).unwrap();
        let place = at.index(header.len());
        header[place] ^= 1 << bit;
        prop_assert!(verified(&header).is_err());
        let mut answer = answering.seal(Status::Refused, "reason").to_vec();
        let place = at.index(answer.len());
        answer[place] ^= 1 << bit;
        let got = reader.feed(&mut Bytes::from(answer));
        prop_assert!(!matches!(got, Ok(Some(_))), "{:?}", got);
    }

    #[test]
    fn whatever_comes_is_read_or_refused(bytes: Vec<u8>, piece in 1..40_usize) {
        match read(&bytes, piece) {
            Ok((None, rest)) => prop_assert!(rest.is_empty() && bytes.len() < HEADER_LEN_MAX),
            Ok((Some(unverified), _)) => {
                let got = unverified.verify(&ring(4, 3), &connection(1), A, B);
                prop_assert_eq!(got.err(), Some(ForwardError::Mac));
            }
            Err(_) => {}
        }
    }
}

/// Bytes in front of the texts.
const FIXED: usize = 55;

#[test]
fn a_record_is_the_header_and_nothing_else() {
    let record = forward().to_record();
    assert_eq!(Forward::from_record(&record, A, B), Ok(forward()));
    for len in 0..record.len() {
        let cut = Forward::from_record(&record[..len], A, B);
        assert_eq!(cut, Err(ForwardError::Truncated), "{len}");
    }
    let long = [&record[..], b"x"].concat();
    let behind = Forward::from_record(&long, A, B);
    assert_eq!(behind, Err(ForwardError::Behind));
    let expected = C;
    assert_eq!(
        Forward::from_record(&record, C, B),
        Err(ForwardError::From { got: A, expected })
    );
    assert_eq!(
        Forward::from_record(&record, A, C),
        Err(ForwardError::To { got: B, expected })
    );
    let with = |at: usize, byte: u8| {
        let mut record = record.to_vec();
        record[at] = byte;
        Forward::from_record(&record, A, B)
    };
    assert_eq!(with(0, 2), Err(ForwardError::Version { got: 2 }));
    assert_eq!(with(1, 4), Err(ForwardError::KeyId { got: 4 }));
    assert_eq!(with(2, 2), Err(ForwardError::Hop { got: 2 }));
    assert_eq!(with(FIXED, 0xff), Err(ForwardError::NotUtf8));
}

#[test]
fn a_record_is_the_answer_and_nothing_else() {
    for status in Status::ALL {
        let is_open = status == Status::Open;
        let reason = if is_open { "" } else { "no such port" };
        let record = Answer::to_record(status, reason);
        let expected = Answer {
            status,
            reason: reason.into(),
        };
        assert_eq!(Answer::from_record(&record), Ok(expected));
        for len in 0..record.len() {
            let cut = Answer::from_record(&record[..len]);
            assert_eq!(cut, Err(ForwardError::Truncated), "{len}");
        }
        let long = [&record[..], b"x"].concat();
        assert_eq!(Answer::from_record(&long), Err(ForwardError::Behind));
    }
    let long = Answer::to_record(Status::Refused, &"\u{e9}".repeat(REASON_LEN_MAX));
    let got = Answer::from_record(&long).unwrap();
    assert_eq!(got.reason.len(), REASON_LEN_MAX);
    assert_eq!(
        Answer::from_record(&[2, 0, 0, 0]),
        Err(ForwardError::Version { got: 2 })
    );
    assert_eq!(
        Answer::from_record(&[1, 8, 0, 0]),
        Err(ForwardError::Status(8))
    );
    let too_long = Answer::from_record(&[1, 0, 1, 4]);
    assert_eq!(too_long, Err(ForwardError::ReasonLen { got: 1_025 }));
    let bad = Answer::from_record(&[1, 1, 1, 0, 0xff]);
    assert_eq!(bad, Err(ForwardError::NotUtf8));
}

proptest! {
    #[test]
    fn any_record_is_judged(record in proptest::collection::vec(any::<u8>(), 0..700)) {
        if let Ok(got) = Forward::from_record(&record, A, B) {
            prop_assert_eq!(got.to_record(), record.clone());
        }
        if let Ok(got) = Answer::from_record(&record) {
            prop_assert_eq!(Answer::to_record(got.status, &got.reason), record);
        }
    }
}
