//! Frames and control messages (agent-tunnel 5 and 6).

use adit_proto_core::{
    error::DecodeError,
    limits::{CONTROL_LEN_MAX, SESSION_LEN_MAX},
    wire::{
        control::{ControlMessage, check_version},
        frame::FrameDecoder,
    },
};

use crate::input::{Input, pieces};

/// Any split of a stream gives the same frames as the whole; whatever decodes encodes canonically.
pub fn control(data: &[u8]) {
    let mut input = Input::new(data);
    let len_max = *input.pick(&[CONTROL_LEN_MAX, SESSION_LEN_MAX, 16]);
    let seed = input.byte();
    let stream = input.rest();
    let whole = frames(len_max, std::iter::once(stream));
    assert_eq!(whole, frames(len_max, pieces(stream, seed)));
    assert_eq!(whole, frames(len_max, pieces(stream, 0)));
    for payload in whole.0.iter().map(Vec::as_slice).chain([stream]) {
        message(payload);
    }
}

/// Payloads, bytes used unless it failed, and how the stream ended.
type Frames = (Vec<Vec<u8>>, usize, Result<(), DecodeError>);

fn frames<'a>(len_max: usize, pieces: impl Iterator<Item = &'a [u8]>) -> Frames {
    let (mut decoder, mut payloads, mut used_all) = (FrameDecoder::new(len_max), Vec::new(), 0);
    for piece in pieces {
        let mut rest = piece;
        while !rest.is_empty() {
            let wanted = decoder.wanted();
            assert!(wanted >= 1 && wanted <= len_max.max(4));
            match decoder.feed(rest) {
                Ok((used, payload)) => {
                    assert!(used >= 1 && used <= rest.len());
                    used_all += used;
                    rest = &rest[used..];
                    if let Some(payload) = payload {
                        assert!(payload.len() <= len_max);
                        assert!(payload.capacity() <= 2 * used_all + 64);
                        assert_eq!(decoder.end(), Ok(()));
                        payloads.push(payload);
                    }
                }
                Err(error) => {
                    assert_eq!(decoder.wanted(), 0);
                    assert_eq!(decoder.feed(b"x"), Err(error.clone()));
                    return (payloads, 0, Err(error));
                }
            }
        }
    }
    let end = decoder.end();
    (payloads, used_all, end)
}

fn message(payload: &[u8]) {
    let Ok(message) = ControlMessage::decode(payload) else {
        return;
    };
    assert_eq!(
        check_version(message.version()).is_ok(),
        message.version() == 1
    );
    if let ControlMessage::RouteAdvertise(routes) = &message {
        // A vector that grows holds at most twice what came, and never less than four elements.
        assert!(routes.subnets.capacity() * 5 <= payload.len());
        assert!(routes.domains.capacity() * 6 <= 2 * payload.len() + 24);
    }
    let Ok(encoded) = message.encode() else {
        assert!(payload.len() > CONTROL_LEN_MAX, "a good message is lost");
        return;
    };
    assert!(encoded.len() <= payload.len() + 4);
    let again = ControlMessage::decode(&encoded[4..]);
    assert_eq!(again.as_ref(), Ok(&message));
    assert_eq!(again.map(|m| m.encode()), Ok(Ok(encoded)));
}
