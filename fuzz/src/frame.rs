//! Inner frames and refusals of the peer RPC (peer-rpc 5).

use adit_proto_core::peer::{
    frame::{FRAME_HEADER_LEN, FRAME_VERSION, Frame, FrameError},
    refusal::Refusal,
    rpc_type::RpcType,
};
use bytes::Bytes;

use crate::input::Input;

/// What decodes is what it encodes to, byte by byte; one damaged byte of a payload is noticed.
pub fn frame(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.below(3);
    let bytes = input.rest();
    match kind {
        0 => whole(bytes),
        1 => made(bytes),
        _ => refusal(bytes),
    }
}

fn whole(bytes: &[u8]) {
    let inner = Bytes::copy_from_slice(bytes);
    match Frame::decode(inner.clone()) {
        Ok(frame) => {
            assert_eq!(encoded(frame), inner);
        }
        Err(FrameError::Trailing { len }) => {
            assert!(Frame::decode(inner.slice(..inner.len() - len)).is_ok());
        }
        Err(FrameError::UnsupportedVersion { got }) => assert_ne!(got, FRAME_VERSION),
        Err(FrameError::TooShort { len }) => assert!(len < FRAME_HEADER_LEN),
        Err(_) => assert!(inner.len() >= FRAME_HEADER_LEN),
    }
}

/// A good frame, and the same with one bit of its payload changed.
fn made(bytes: &[u8]) {
    let Some((&[rpc_type, flip, e0, e1], payload)) = bytes.split_first_chunk() else {
        return;
    };
    let frame = Frame {
        rpc_type,
        epoch: u64::from_be_bytes([e0, e1, e1, e0, 0, e0, 0, e1]),
        payload: Bytes::copy_from_slice(payload),
    };
    let inner = encoded(frame.clone());
    assert_eq!(Frame::decode(inner.clone()).as_ref(), Ok(&frame));
    if let Ok(kind) = frame.kind() {
        assert_eq!(kind.value(), rpc_type);
        assert!(RpcType::ALL.contains(&kind));
    }
    let at = FRAME_HEADER_LEN + usize::from(flip) % payload.len().max(1);
    let mut damaged = inner.to_vec();
    if let Some(byte) = damaged.get_mut(at) {
        *byte ^= 1 << (flip % 8);
        assert_eq!(Frame::decode(damaged.into()), Err(FrameError::Crc));
    }
}

fn refusal(bytes: &[u8]) {
    if let Ok(refusal) = Refusal::decode(bytes) {
        assert_eq!(Refusal::decode(&refusal.encode()), Ok(refusal));
        // Only an identity has no value.
        assert!(refusal == Refusal::Identity || refusal.encode() == bytes);
    }
}

fn encoded(frame: Frame) -> Bytes {
    match frame.encode() {
        Ok(parts) => parts.concat().into(),
        Err(error) => panic!("{error}"),
    }
}
