//! The inner frame: kind, checksum, epoch stamp and payload (peer-rpc 5).

use bytes::{Buf, BufMut, Bytes};

use super::rpc_type::{RpcType, RpcTypeError};
use crate::limits::RPC_LEN_MAX;

/// Bytes before the payload.
pub const FRAME_HEADER_LEN: usize = 18;
/// First byte of a frame; another number than the cluster wire version and than that of the envelope.
pub const FRAME_VERSION: u8 = 3;

/// A frame. The payload is opaque.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The kind as it stands in the frame; see [`Frame::kind`].
    pub rpc_type: u8,
    /// The sender's cluster epoch; 0 says nothing.
    pub epoch: u64,
    /// The body.
    pub payload: Bytes,
}

/// Bytes that are no frame: the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Not even a header.
    #[error("frame of {len} bytes is too short")]
    TooShort {
        /// Bytes there are.
        len: usize,
    },
    /// Another version of the header.
    #[error("unsupported frame version {got}, only {FRAME_VERSION}")]
    UnsupportedVersion {
        /// First byte of the frame.
        got: u8,
    },
    /// The payload is too large; where the frame is being made it is the caller's fault.
    #[error("payload of {len} bytes exceeds maximum of {max}")]
    PayloadLenExceedsMax {
        /// Declared or real length, in bytes.
        len: u64,
        /// What is allowed.
        max: u32,
    },
    /// The payload ends early.
    #[error("payload of {got} bytes, the header says {expected}")]
    Truncated {
        /// Declared length, in bytes.
        expected: u32,
        /// Bytes there are.
        got: usize,
    },
    /// Bytes follow the payload. The reference passes over them (peer-rpc 5.1).
    #[error("{len} bytes behind the payload")]
    Trailing {
        /// How many.
        len: usize,
    },
    /// The payload is damaged.
    #[error("payload checksum does not match")]
    Crc,
}

impl Frame {
    /// A frame to be sent.
    #[must_use]
    pub fn new(kind: RpcType, epoch: u64, payload: Bytes) -> Self {
        Self {
            rpc_type: kind.value(),
            epoch,
            payload,
        }
    }

    /// The kind, if it is one that this side knows.
    ///
    /// # Errors
    /// [`RpcTypeError`].
    pub fn kind(&self) -> Result<RpcType, RpcTypeError> {
        RpcType::try_from(self.rpc_type)
    }

    /// Gives the header and, untouched, the payload.
    ///
    /// # Errors
    /// [`FrameError::PayloadLenExceedsMax`] where the frame would not fit into an envelope.
    pub fn encode(self) -> Result<[Bytes; 2], FrameError> {
        Ok([Bytes::copy_from_slice(&self.header()?), self.payload])
    }

    /// The header.
    ///
    /// # Errors
    /// [`FrameError::PayloadLenExceedsMax`] where the frame would not fit into an envelope.
    pub(super) fn header(&self) -> Result<[u8; FRAME_HEADER_LEN], FrameError> {
        let len = self.payload.len();
        let payload_len = u32::try_from(len)
            .ok()
            .filter(|&len| len <= PAYLOAD_LEN_MAX)
            .ok_or_else(|| FrameError::PayloadLenExceedsMax {
                len: u64::try_from(len).unwrap_or(u64::MAX),
                max: PAYLOAD_LEN_MAX,
            })?;
        let mut header = [0; FRAME_HEADER_LEN];
        let mut out = &mut header[..];
        out.put_u8(FRAME_VERSION);
        out.put_u8(self.rpc_type);
        out.put_u32_le(payload_len);
        out.put_u32_le(crc32c::crc32c(&self.payload));
        out.put_u64_le(self.epoch);
        Ok(header)
    }

    /// Reads a frame out of the whole of an envelope's inside.
    ///
    /// # Errors
    /// In the order of the checks (peer-rpc 5.1): [`FrameError::TooShort`] of nothing,
    /// [`FrameError::UnsupportedVersion`], [`FrameError::TooShort`], [`FrameError::PayloadLenExceedsMax`],
    /// [`FrameError::Truncated`], [`FrameError::Crc`], [`FrameError::Trailing`].
    pub fn decode(mut inner: Bytes) -> Result<Self, FrameError> {
        let len = inner.len();
        match inner.first() {
            None => return Err(FrameError::TooShort { len }),
            Some(&got) if got != FRAME_VERSION => {
                return Err(FrameError::UnsupportedVersion { got });
            }
            Some(_) if len < FRAME_HEADER_LEN => return Err(FrameError::TooShort { len }),
            Some(_) => inner.advance(1),
        }
        let rpc_type = inner.get_u8();
        let payload_len = inner.get_u32_le();
        let crc = inner.get_u32_le();
        let epoch = inner.get_u64_le();
        if payload_len > RPC_LEN_MAX {
            return Err(FrameError::PayloadLenExceedsMax {
                len: payload_len.into(),
                max: RPC_LEN_MAX,
            });
        }
        let got = inner.len();
        let expected = usize::try_from(payload_len).unwrap_or(usize::MAX);
        if expected > got {
            return Err(FrameError::Truncated {
                expected: payload_len,
                got,
            });
        }
        let trailing = inner.split_off(expected);
        if crc32c::crc32c(&inner) != crc {
            return Err(FrameError::Crc);
        }
        // Last, so that everything which the reference refuses is refused with the same error.
        match trailing.len() {
            0 => Ok(Self {
                rpc_type,
                epoch,
                payload: inner,
            }),
            len => Err(FrameError::Trailing { len }),
        }
    }
}

/// The largest payload that can travel: with its header of 18 bytes it fills an envelope (peer-rpc 4.3).
pub const PAYLOAD_LEN_MAX: u32 = RPC_LEN_MAX - 18;

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn encoded(frame: Frame) -> Vec<u8> {
        frame.encode().unwrap().concat()
    }

    fn decode(bytes: &[u8]) -> Result<Frame, FrameError> {
        Frame::decode(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn a_header_is_little_endian_with_the_payloads_checksum() {
        let frame = Frame::new(RpcType::Ping, 5, Bytes::from_static(b"123456789"));
        let expected = [
            3, 9, 9, 0, 0, 0, 0x83, 0x92, 0x06, 0xe3, 5, 0, 0, 0, 0, 0, 0, 0,
        ];
        let [head, payload] = frame.encode().unwrap();
        assert_eq!(head, expected.as_slice());
        assert_eq!(payload, b"123456789".as_slice());
    }

    #[test]
    fn the_payload_is_not_copied() {
        let payload = Bytes::from(vec![1; 100]);
        let [head, sent] = Frame::new(RpcType::Ping, 0, payload.clone())
            .encode()
            .unwrap();
        assert_eq!(sent.as_ptr(), payload.as_ptr());
        let whole = Bytes::from([head, sent].concat());
        let got = Frame::decode(whole.clone()).unwrap();
        assert_eq!(got.payload.as_ptr(), whole.as_ptr().wrapping_add(18));
    }

    #[test]
    fn checks_come_in_their_order() {
        assert_eq!(decode(&[]), Err(FrameError::TooShort { len: 0 }));
        // One byte of a wrong version is a wrong version.
        assert_eq!(decode(&[1]), Err(FrameError::UnsupportedVersion { got: 1 }));
        assert_eq!(decode(&[3; 17]), Err(FrameError::TooShort { len: 17 }));
        let mut bytes = encoded(Frame::new(RpcType::Ping, 0, Bytes::from_static(b"ab")));
        bytes[2..6].copy_from_slice(&(RPC_LEN_MAX + 1).to_le_bytes());
        let exceeds = FrameError::PayloadLenExceedsMax {
            len: 67_108_865,
            max: RPC_LEN_MAX,
        };
        assert_eq!(decode(&bytes), Err(exceeds));
        bytes[2..6].copy_from_slice(&RPC_LEN_MAX.to_le_bytes());
        let truncated = FrameError::Truncated {
            expected: RPC_LEN_MAX,
            got: 2,
        };
        assert_eq!(decode(&bytes), Err(truncated));
        bytes[2..6].copy_from_slice(&1_u32.to_le_bytes());
        assert_eq!(decode(&bytes), Err(FrameError::Crc));
        bytes[2..6].copy_from_slice(&2_u32.to_le_bytes());
        bytes.push(0);
        assert_eq!(decode(&bytes), Err(FrameError::Trailing { len: 1 }));
        bytes[18] ^= 1;
        assert_eq!(decode(&bytes), Err(FrameError::Crc));
    }

    #[test]
    fn unknown_and_retired_kinds_decode_and_have_no_kind() {
        for (value, error) in [
            (14, RpcTypeError::Retired(14)),
            (0, RpcTypeError::Unknown(0)),
            (99, RpcTypeError::Unknown(99)),
        ] {
            let frame = Frame {
                rpc_type: value,
                epoch: 1,
                payload: Bytes::new(),
            };
            let got = decode(&encoded(frame)).unwrap();
            assert_eq!(got.kind(), Err(error));
        }
    }

    #[test]
    fn a_frame_fits_into_an_envelope() {
        let of = |len: usize| Frame::new(RpcType::Ping, 0, Bytes::from(vec![0; len])).encode();
        let max = PAYLOAD_LEN_MAX as usize;
        let whole: usize = of(max).unwrap().iter().map(Bytes::len).sum();
        assert_eq!(whole, RPC_LEN_MAX as usize);
        assert!(matches!(
            of(max + 1),
            Err(FrameError::PayloadLenExceedsMax {
                len: 67_108_847,
                ..
            })
        ));
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(rpc_type: u8, epoch: u64, payload in vec(any::<u8>(), 0..200)) {
            let frame = Frame { rpc_type, epoch, payload: payload.into() };
            prop_assert_eq!(decode(&encoded(frame.clone())), Ok(frame));
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(mut bytes in vec(any::<u8>(), 18..60)) {
            bytes[0] = 3;
            let len = u32::try_from(bytes.len() - 18).unwrap();
            bytes[2..6].copy_from_slice(&len.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[18..]);
            bytes[6..10].copy_from_slice(&crc.to_le_bytes());
            prop_assert_eq!(encoded(decode(&bytes).unwrap()), bytes);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in vec(any::<u8>(), 0..60)) {
            if let Ok(frame) = decode(&bytes) {
                prop_assert_eq!(encoded(frame), bytes);
            }
        }
    }
}
