//! Typed payloads of adit's own calls: postcard, with a bound for each kind (docs/protocol-peer.md, "Typed payloads").

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::rpc_type::RpcType;

/// What the payload of one kind of frame is.
///
/// A layout is for ever: postcard has no names, so a field more or less is another kind.
pub trait Body: Serialize + DeserializeOwned {
    /// The kind of its frame.
    const KIND: RpcType;
    /// Longest payload, in bytes, both ways.
    const LEN_MAX: usize;

    /// Writes the payload.
    ///
    /// # Errors
    /// [`BodyError::TooLong`], the caller's mistake.
    fn encode(&self) -> Result<Bytes, BodyError> {
        let bytes = postcard::to_stdvec(self).map_err(|_| BodyError::Malformed)?;
        match bytes.len() <= Self::LEN_MAX {
            true => Ok(bytes.into()),
            false => Err(Self::too_long(bytes.len())),
        }
    }

    /// Reads a payload, which is one value and nothing behind it.
    ///
    /// # Errors
    /// [`BodyError`], the peer's mistake, or another version's layout.
    fn decode(payload: &[u8]) -> Result<Self, BodyError> {
        if payload.len() > Self::LEN_MAX {
            return Err(Self::too_long(payload.len()));
        }
        match postcard::take_from_bytes(payload) {
            Ok((body, [])) => Ok(body),
            Ok((_, behind)) => Err(BodyError::Trailing { len: behind.len() }),
            Err(_) => Err(BodyError::Malformed),
        }
    }

    #[doc(hidden)]
    fn too_long(len: usize) -> BodyError {
        BodyError::TooLong {
            len,
            max: Self::LEN_MAX,
        }
    }
}

/// A request whose answer has a type of its own.
pub trait Call: Body {
    /// What answers it; of the kind that [`RpcType::answer`] names.
    type Answer: Body;
}

/// Bytes that are no payload of their kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// Longer than its kind may be.
    #[error("payload of {len} bytes; at most {max} are allowed")]
    TooLong {
        /// How long.
        len: usize,
        /// How long it may be.
        max: usize,
    },
    /// Not the layout of its kind.
    #[error("the payload is malformed")]
    Malformed,
    /// Bytes behind the value: a field that this side does not know.
    #[error("{len} bytes behind the payload")]
    Trailing {
        /// How many.
        len: usize,
    },
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Small(u8, String);

    impl Body for Small {
        const KIND: RpcType = RpcType::Ping;
        const LEN_MAX: usize = 8;
    }

    #[test]
    fn a_body_is_one_value_within_its_bound() {
        let body = Small(7, "abcdef".into());
        let bytes = body.encode().unwrap();
        assert_eq!(bytes, b"\x07\x06abcdef".as_slice());
        assert_eq!(Small::decode(&bytes), Ok(body));
        let (len, max) = (9, 8);
        let long = Small(7, "abcdefg".into());
        assert_eq!(long.encode(), Err(BodyError::TooLong { len, max }));
        assert_eq!(Small::decode(&[0; 9]), Err(BodyError::TooLong { len, max }));
    }

    #[test]
    fn what_is_no_body_is_refused() {
        for bytes in [b"".as_slice(), b"\x07", b"\x07\x06abc", b"\x07\x01\xff"] {
            assert_eq!(Small::decode(bytes), Err(BodyError::Malformed));
        }
        let trailing = Err(BodyError::Trailing { len: 1 });
        assert_eq!(Small::decode(b"\x07\x01ab"), trailing);
    }
}
