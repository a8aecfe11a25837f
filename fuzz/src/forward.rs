//! Header and answer of a forwarded session (design 8.15).

use std::fmt::Debug;

use adit_proto_core::{
    id::{AgentId, SessionId},
    peer::{
        NodeId,
        bound::ConnectionSecret,
        forward::{
            Answer, AnswerReader, Forward, ForwardError, ForwardReader, HEADER_LEN_MAX, Status,
        },
        key::{ClusterSecret, KeyId, KeyRing},
    },
};
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    fixtures::known,
    input::{Input, pieces},
};

/// Any split of a stream has the same outcome, no byte behind header or answer is taken, and what verifies is what was
/// sealed, byte for byte.
pub fn forward(data: &[u8]) {
    let mut input = Input::new(data);
    let (mode, seed) = (input.below(4), input.byte());
    let (header, _) = ask();
    match mode {
        // Bytes as they come.
        0 => request(input.rest(), seed, &header),
        // A good header, with a few bytes of it changed and others behind it.
        1 => request(&changed(&header, &mut input), seed, &header),
        2 => {
            let mut reader = ForwardReader::default();
            let unverified = known(reader.feed(&mut header.clone()));
            let verified = unverified.map(|u| u.verify(&keys(), &connection(), FROM, TO));
            let answering = match verified {
                Some(Ok((_, answering))) => answering,
                other => panic!("a good header is not taken: {other:?}"),
            };
            let status = *input.pick(&Status::ALL);
            let reason = String::from_utf8_lossy(input.rest()).into_owned();
            let good = answering.seal(status, &reason);
            answer(&changed(&good, &mut input), seed, &good);
        }
        _ => records(&mut input),
    }
}

/// The same on a sealed link, where a record is a header or an answer and nothing else.
fn records(input: &mut Input<'_>) {
    let good = session().to_record();
    let header = changed(&good, input);
    if let Ok(forward) = Forward::from_record(&header, FROM, TO) {
        assert!(header.len() < HEADER_LEN_MAX && forward.from == FROM && forward.to == TO);
        // A target may stand there in another way than it is written here.
        let again = Forward::from_record(&forward.to_record(), FROM, TO);
        assert_eq!(again, Ok(forward));
    }
    if let Ok(answer) = Answer::from_record(&header) {
        assert_eq!(Answer::to_record(answer.status, &answer.reason), header);
    }
}

fn request(stream: &[u8], seed: u8, good: &Bytes) {
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut reader = ForwardReader::default();
        let got = collect(pieces, |data| reader.feed(data));
        assert_eq!(reader.finish().is_ok(), matches!(got, Ok((Some(_), _))));
        let judge = |(header, rest): (Option<_>, Vec<u8>)| {
            let verify = |u: adit_proto_core::peer::forward::Unverified| {
                u.verify(&keys(), &connection(), FROM, TO)
                    .map(|(forward, _)| forward)
            };
            (header.map(verify), rest)
        };
        got.map(judge)
    };
    let whole = read(&mut std::iter::once(stream));
    assert_eq!(whole, read(&mut pieces(stream, seed)));
    match whole {
        Ok((Some(Ok(forward)), rest)) => {
            assert_eq!(stream, [good, rest.as_slice()].concat());
            assert_eq!(forward, session());
        }
        Ok((None, rest)) => assert!(rest.is_empty() && stream.len() < HEADER_LEN_MAX),
        Ok((Some(Err(error)), _)) => assert_eq!(error, ForwardError::Mac),
        Err(_) => assert!(!stream.starts_with(good)),
    }
}

fn answer(stream: &[u8], seed: u8, good: &Bytes) {
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut reader = ask().1;
        collect(pieces, |data| reader.feed(data))
    };
    let whole = read(&mut std::iter::once(stream));
    assert_eq!(whole, read(&mut pieces(stream, seed)));
    if let Ok((Some(_), rest)) = whole {
        assert_eq!(stream, [good, rest.as_slice()].concat());
    }
}

/// Feeds a reader until it has its message, and gives what is left behind it.
fn collect<T: Debug>(
    pieces: &mut dyn Iterator<Item = &[u8]>,
    mut feed: impl FnMut(&mut Bytes) -> Result<Option<T>, ForwardError>,
) -> Result<(Option<T>, Vec<u8>), ForwardError> {
    let (mut message, mut rest) = (None, Vec::new());
    for piece in pieces {
        let mut data = Bytes::copy_from_slice(piece);
        if message.is_none() {
            message = feed(&mut data)?;
        }
        assert!(message.is_some() || data.is_empty());
        rest.extend_from_slice(&data);
    }
    Ok((message, rest))
}

fn changed(good: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..input.below(4) {
        let at = usize::from(u16::from_be_bytes([input.byte(), input.byte()])) % bytes.len();
        bytes[at] ^= input.byte();
    }
    bytes.extend_from_slice(input.rest());
    bytes
}

fn ask() -> (Bytes, AnswerReader) {
    known(session().seal(&keys(), &connection()))
}

fn session() -> Forward {
    Forward {
        from: FROM,
        to: TO,
        session: SessionId(Uuid::from_u128(5)),
        agent: Some(AgentId(Uuid::from_u128(6))),
        target: known("db.corp.local:5432".parse()),
        origin: "alice".into(),
    }
}

fn keys() -> KeyRing {
    KeyRing::new(KeyId(4), known(ClusterSecret::new([3; 32])))
}

fn connection() -> ConnectionSecret {
    ConnectionSecret::new([1; 32])
}

const FROM: NodeId = NodeId(1);
const TO: NodeId = NodeId(2);
