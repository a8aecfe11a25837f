//! The two messages of the version handshake (peer-rpc 3.2).

use bytes::Bytes;

use super::{capabilities::Capabilities, msgpack};
use crate::{error::DecodeError, limits::PEER_HELLO_LEN_MAX, wire::frame::FrameDecoder};

/// Versions that a node speaks; `min` above `max` is none at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    /// Lowest.
    pub min: u16,
    /// Highest.
    pub max: u16,
}

impl VersionRange {
    /// The highest version that both speak, if there is one.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let (low, high) = (self.min.max(other.min), self.max.min(other.max));
        (low <= high).then_some(high)
    }

    /// Tells whether a version is one of them.
    #[must_use]
    pub fn holds(self, version: u16) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

/// What the client says first: `[[min, max], capabilities]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Versions that it speaks.
    pub versions: VersionRange,
    /// What it offers.
    pub capabilities: Capabilities,
}

/// What the server answers: `[agreed, capabilities]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The version of this connection.
    pub agreed: u16,
    /// What the server takes of the client's offer.
    pub capabilities: Capabilities,
}

/// Bytes that are no such message: the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// The prefix claims more than [`PEER_HELLO_LEN_MAX`].
    #[error("handshake message of {len} bytes exceeds maximum of {PEER_HELLO_LEN_MAX}")]
    TooLarge {
        /// What it claims, in bytes.
        len: u64,
    },
    /// The message ends before its value does.
    #[error("handshake message ends early")]
    Truncated,
    /// The stream ended inside a message, or before it.
    #[error("stream ended inside the handshake message")]
    UnexpectedEnd,
    /// A value of another type than the one expected.
    #[error("handshake message has marker {marker:#04x}, which is not expected there")]
    Marker {
        /// MessagePack's first byte of the value.
        marker: u8,
    },
    /// An array of another length: another generation of the protocol.
    #[error("handshake message has an array of {got} elements, not {expected}")]
    ArrayLen {
        /// Elements that this generation has.
        expected: u16,
        /// Elements it has.
        got: u16,
    },
    /// A version that does not fit 16 bits.
    #[error("version {value} is out of range")]
    OutOfRange {
        /// The value.
        value: u64,
    },
    /// Bytes follow the value, or the message.
    #[error("{len} bytes behind the handshake message")]
    Trailing {
        /// How many.
        len: usize,
    },
}

impl Hello {
    /// Gives the message behind its length.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        framed(|out| {
            msgpack::write_array(out, 2);
            msgpack::write_array(out, 2);
            msgpack::write_unsigned(out, self.versions.min.into());
            msgpack::write_unsigned(out, self.versions.max.into());
            msgpack::write_unsigned(out, self.capabilities.bits());
        })
    }

    /// Reads the message, its length taken off.
    ///
    /// # Errors
    /// [`HelloError`], of which [`HelloError::Trailing`] comes last.
    pub fn decode(message: &[u8]) -> Result<Self, HelloError> {
        let mut r = msgpack::Reader::new(message);
        r.array(2)?;
        r.array(2)?;
        let (min, max) = (r.unsigned16()?, r.unsigned16()?);
        let capabilities = Capabilities::from_bits(r.unsigned()?);
        r.end()?;
        Ok(Self {
            versions: VersionRange { min, max },
            capabilities,
        })
    }
}

impl Ack {
    /// Gives the message behind its length.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        framed(|out| {
            msgpack::write_array(out, 2);
            msgpack::write_unsigned(out, self.agreed.into());
            msgpack::write_unsigned(out, self.capabilities.bits());
        })
    }

    /// Reads the message, its length taken off.
    ///
    /// # Errors
    /// [`HelloError`], of which [`HelloError::Trailing`] comes last.
    pub fn decode(message: &[u8]) -> Result<Self, HelloError> {
        let mut r = msgpack::Reader::new(message);
        r.array(2)?;
        let agreed = r.unsigned16()?;
        let capabilities = Capabilities::from_bits(r.unsigned()?);
        r.end()?;
        Ok(Self {
            agreed,
            capabilities,
        })
    }
}

/// Collects the one message of a half of the handshake's stream.
#[derive(Debug)]
pub struct HelloReader {
    frame: FrameDecoder,
    done: bool,
}

impl Default for HelloReader {
    fn default() -> Self {
        Self {
            frame: FrameDecoder::new(PEER_HELLO_LEN_MAX),
            done: false,
        }
    }
}

impl HelloReader {
    /// Takes the bytes that came, and gives the message when it is whole, once. A peer need not end its half first.
    ///
    /// # Errors
    /// [`HelloError::TooLarge`] on the prefix alone, [`HelloError::Trailing`] for bytes behind the message.
    pub fn feed(&mut self, data: &[u8]) -> Result<Option<Vec<u8>>, HelloError> {
        let (used, message) = match self.done {
            true => (0, None),
            false => self.frame.feed(data).map_err(too_large)?,
        };
        self.done |= message.is_some();
        match data.len().saturating_sub(used) {
            0 => Ok(message),
            len => Err(HelloError::Trailing { len }),
        }
    }

    /// The half has ended.
    ///
    /// # Errors
    /// [`HelloError::UnexpectedEnd`] where no whole message came.
    pub fn finish(&self) -> Result<(), HelloError> {
        match self.done {
            true => Ok(()),
            false => Err(HelloError::UnexpectedEnd),
        }
    }
}

fn too_large(error: DecodeError) -> HelloError {
    match error {
        DecodeError::MessageTooLarge { size, .. } => HelloError::TooLarge { len: size },
        DecodeError::Truncated { .. }
        | DecodeError::UnknownTag { .. }
        | DecodeError::InvalidField { .. }
        | DecodeError::UnsupportedVersion { .. }
        | DecodeError::UnexpectedEnd => HelloError::Truncated,
    }
}

fn framed(fill: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut message = Vec::new();
    fill(&mut message);
    // At most 21 bytes: three integers and two array headers.
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut out = len.to_be_bytes().to_vec();
    out.append(&mut message);
    out.into()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn hello(min: u16, max: u16, bits: u64) -> Hello {
        Hello {
            versions: VersionRange { min, max },
            capabilities: Capabilities::from_bits(bits),
        }
    }

    #[test]
    fn bytes_of_the_target_revision() {
        assert_eq!(
            hello(1, 2, 0).encode(),
            [0, 0, 0, 5, 0x92, 0x92, 1, 2, 0].as_slice()
        );
        let ack = Ack {
            agreed: 2,
            capabilities: Capabilities::NONE,
        };
        assert_eq!(ack.encode(), [0, 0, 0, 3, 0x92, 2, 0].as_slice());
    }

    #[test]
    fn ranges_meet_at_the_highest_common_version() {
        let range = |min, max| VersionRange { min, max };
        for (a, b, common) in [
            (range(1, 2), range(1, 1), Some(1)),
            (range(1, 2), range(2, 9), Some(2)),
            (range(1, 2), range(3, 9), None),
            // An inverted range is an ordinary failure, even where both are the same.
            (range(2, 1), range(2, 1), None),
            (range(1, 9), range(5, 4), None),
            (range(0, 65535), range(0, 65535), Some(65535)),
        ] {
            assert_eq!(a.common(b), common);
            assert_eq!(b.common(a), common);
        }
        assert!(range(1, 2).holds(2) && !range(1, 2).holds(3) && !range(2, 1).holds(1));
    }

    #[test]
    fn other_generations_are_refused() {
        let two = |got| Err(HelloError::ArrayLen { expected: 2, got });
        assert_eq!(Hello::decode(&[0x91, 0x92, 1, 1]), two(1));
        assert_eq!(Hello::decode(&[0x93, 0x92, 1, 1, 0, 0xa0]), two(3));
        assert_eq!(Hello::decode(&[0x92, 0x93, 1, 1, 1, 0]), two(3));
    }

    #[test]
    fn a_version_has_16_bits() {
        let got = Hello::decode(&[0x92, 0x92, 0xce, 0, 1, 0, 0, 1, 0]);
        assert_eq!(got, Err(HelloError::OutOfRange { value: 65_536 }));
    }

    #[test]
    fn bytes_behind_value_or_message_are_refused() {
        let trailing = Err(HelloError::Trailing { len: 1 });
        assert_eq!(Hello::decode(&[0x92, 0x92, 1, 1, 0, 0]), trailing);
        let mut whole = hello(1, 2, 0).encode().to_vec();
        whole.push(0);
        let mut r = HelloReader::default();
        assert_eq!(r.feed(&whole), Err(HelloError::Trailing { len: 1 }));
        let mut r = HelloReader::default();
        assert!(r.feed(&whole[..9]).unwrap().is_some());
        assert_eq!(r.feed(&whole[9..]), Err(HelloError::Trailing { len: 1 }));
    }

    #[test]
    fn length_is_judged_on_the_prefix() {
        let mut r = HelloReader::default();
        assert_eq!(r.feed(&[0, 0, 0x10, 0]), Ok(None));
        let mut r = HelloReader::default();
        assert_eq!(
            r.feed(&[0, 0, 0x10, 1]),
            Err(HelloError::TooLarge { len: 4097 })
        );
    }

    #[test]
    fn an_end_is_clean_only_behind_the_message() {
        let whole = hello(1, 2, 0).encode();
        for cut in 0..=whole.len() {
            let mut r = HelloReader::default();
            let got = r.feed(&whole[..cut]).unwrap().is_some();
            assert_eq!(got, cut == whole.len());
            assert_eq!(r.finish().is_ok(), got);
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(min: u16, max: u16, bits: u64) {
            let hello = hello(min, max, bits);
            prop_assert_eq!(Hello::decode(&hello.encode()[4..]), Ok(hello));
            let ack = Ack { agreed: min, capabilities: Capabilities::from_bits(bits) };
            prop_assert_eq!(Ack::decode(&ack.encode()[4..]), Ok(ack));
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in vec(any::<u8>(), 0..40), split: prop::sample::Index) {
            if let Ok(hello) = Hello::decode(&bytes) {
                prop_assert_eq!(Hello::decode(&hello.encode()[4..]), Ok(hello));
            }
            let _ack = Ack::decode(&bytes);
            let (a, b) = bytes.split_at(split.index(bytes.len() + 1));
            let outcome = |pieces: &[&[u8]]| {
                let mut r = HelloReader::default();
                let mut message = None;
                for piece in pieces {
                    message = r.feed(piece)?.or(message);
                }
                Ok::<_, HelloError>(message)
            };
            let (whole, split) = (outcome(&[&bytes]), outcome(&[a, b]));
            prop_assert_eq!(whole.is_ok(), split.is_ok());
            if whole.is_ok() {
                prop_assert_eq!(whole, split);
            }
        }
    }
}
