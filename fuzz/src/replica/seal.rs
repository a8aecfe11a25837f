//! The sealed stream.

use adit_proto_core::replica::{
    OpenFault, Opened, Opener, RECORD_OVERHEAD, Seal, Sealed, Step, Stream,
};

use super::{End, Settings, sent};
use crate::input::{Input, start};

/// What is opened is what was sealed, up to the first byte that differs from what the sealer wrote; an end is one only
/// where it was sealed and everything before it came.
pub fn replica_seal(data: &[u8]) {
    let mut input = Input::new(data);
    let (mut from, mut to) = link();
    let mut wire = Vec::new();
    // Where each record ends, and what it carries.
    let mut records: Vec<(usize, Vec<u8>)> = Vec::new();
    for nth in 0..input.below(6) {
        let len = match input.byte() {
            0xff => 16_384,
            0xfe => 16_385,
            len => usize::from(len),
        };
        let payload = vec![u8::try_from(nth).unwrap_or(0); len];
        let before = wire.len();
        from.sealer
            .seal(&payload, &mut wire)
            .expect("a few records");
        let mut at = before;
        for piece in payload.chunks(16_384) {
            at += piece.len() + RECORD_OVERHEAD;
            records.push((at, piece.to_vec()));
        }
        assert_eq!(at, wire.len());
    }
    let is_ended = input.flag();
    if is_ended {
        from.sealer.end(&mut wire).expect("the first end");
        assert!(from.sealer.seal(b"x", &mut wire).is_err());
    }
    let came = changed(&wire, &mut input);
    let (opened, end) = open_all(&mut to.opener, &came, input.byte());
    let common = wire.iter().zip(&came).take_while(|(a, b)| a == b).count();
    let whole = records.iter().take_while(|(at, _)| *at <= common);
    let expected: Vec<u8> = whole
        .flat_map(|(_, payload)| payload.iter().copied())
        .collect();
    assert!(
        opened == expected,
        "{} of {} bytes",
        opened.len(),
        expected.len()
    );
    assert_eq!(end.is_ok(), is_ended && came == wire, "{end:?}");
}

/// Both ends of a link that has just been confirmed.
fn link() -> (Sealed, Sealed) {
    let settings = Settings {
        seal: Seal::Require,
        ..Settings::draw(&mut Input::new(&[]))
    };
    let [to_dialer, to_acceptor] = settings.good();
    let (mut dialer, mut acceptor) = (settings.dialer(), settings.acceptor());
    (of(&mut dialer, &to_dialer), of(&mut acceptor, &to_acceptor))
}

fn of(end: &mut impl End, stream: &[u8]) -> Sealed {
    assert_eq!(end.handle_bytes(start(), stream), stream.len());
    loop {
        match end.poll_output() {
            Some(Step::Verified(verified)) => match verified.into_parts().1 {
                Stream::Sealed(sealed) => return sealed,
                Stream::Plain => panic!("not sealed"),
            },
            Some(Step::Send(_)) => {}
            other => panic!("{other:?}; left to send: {:?}", sent(end)),
        }
    }
}

/// The bytes with a few of them changed, left out, repeated, added or exchanged.
fn changed(wire: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    let mut came = wire.to_vec();
    for _ in 0..input.below(4) {
        let kind = input.below(6);
        let at = usize::from(u16::from_be_bytes([input.byte(), input.byte()])).min(came.len());
        let byte = input.byte();
        let end = (at + usize::from(byte)).min(came.len());
        match kind {
            0 => came.iter_mut().skip(at).take(1).for_each(|b| *b ^= byte),
            1 => came.truncate(at),
            2 => drop(came.drain(at..end)),
            3 => came.insert(at, byte),
            4 => {
                let again = came[at..end].to_vec();
                came.extend(again);
            }
            _ => came.rotate_left(at),
        }
    }
    came
}

/// Hands bytes over in pieces, as they come from a socket, and gives all that was opened and how it ended.
fn open_all(opener: &mut Opener, came: &[u8], piece: u8) -> (Vec<u8>, Result<(), OpenFault>) {
    let (mut held, mut opened) = (Vec::new(), Vec::new());
    for bytes in came.chunks(1 + 64 * usize::from(piece)) {
        held.extend_from_slice(bytes);
        while !held.is_empty() {
            match opener.open(&mut held) {
                Ok(Opened::Missing(len)) => {
                    assert!(len > 0 && held.len() + len <= 16_384 + RECORD_OVERHEAD);
                    break;
                }
                Ok(Opened::Data { payload, used }) => {
                    assert_eq!(used, payload.len() + RECORD_OVERHEAD);
                    opened.extend_from_slice(payload);
                    held.drain(..used);
                }
                Ok(Opened::End { used }) => drop(held.drain(..used)),
                Err(fault) => {
                    assert_eq!(opener.open(&mut held), Err(fault));
                    return (opened, Err(fault));
                }
            }
        }
    }
    (opened, opener.handle_end())
}
