//! Why a request is not answered, said to the peer (docs/protocol-peer.md, "Refusals").

use bytes::Bytes;

/// A typed refusal; only where both sides have [`REFUSALS`](super::capabilities::Capabilities::REFUSALS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request's number is not acceptable; `high` is the highest that came from its sender.
    Number {
        /// See [`ReplayWindow::high`](super::window::ReplayWindow::high).
        high: u64,
    },
    /// The sender is not who it says. The connection ends after this.
    Identity,
    /// Too much is going on; nothing was executed.
    Overload {
        /// When another attempt is worth while, in milliseconds from here.
        retry_after_ms: u64,
    },
}

/// Bytes that are no refusal: the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusalError {
    /// Not nine bytes.
    #[error("refusal of {len} bytes, not {REFUSAL_LEN}")]
    Len {
        /// How many.
        len: usize,
    },
    /// A reason that this side does not know.
    #[error("unknown reason {0} of a refusal")]
    Unknown(u8),
}

impl Refusal {
    /// The payload of a frame of the kind `Refusal`.
    #[must_use]
    pub fn encode(self) -> Bytes {
        let (reason, value) = match self {
            Self::Number { high } => (NUMBER, high),
            Self::Identity => (IDENTITY, 0),
            Self::Overload { retry_after_ms } => (OVERLOAD, retry_after_ms),
        };
        let mut payload = vec![reason];
        payload.extend_from_slice(&value.to_le_bytes());
        payload.into()
    }

    /// Reads such a payload.
    ///
    /// # Errors
    /// [`RefusalError`].
    pub fn decode(payload: &[u8]) -> Result<Self, RefusalError> {
        let len = RefusalError::Len { len: payload.len() };
        let (reason, value) = payload.split_first().ok_or(len)?;
        let value = u64::from_le_bytes(value.try_into().map_err(|_| len)?);
        match *reason {
            NUMBER => Ok(Self::Number { high: value }),
            IDENTITY => Ok(Self::Identity),
            OVERLOAD => Ok(Self::Overload {
                retry_after_ms: value,
            }),
            other => Err(RefusalError::Unknown(other)),
        }
    }
}

const NUMBER: u8 = 1;
const IDENTITY: u8 = 2;
const OVERLOAD: u8 = 3;
/// One byte for the reason, eight for its value.
const REFUSAL_LEN: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_nine_bytes() {
        let high = 0x0102_0304_0506_0708;
        let encoded = Refusal::Number { high }.encode();
        assert_eq!(encoded, [1, 8, 7, 6, 5, 4, 3, 2, 1].as_slice());
        for refusal in [
            Refusal::Number { high },
            Refusal::Identity,
            Refusal::Overload { retry_after_ms: 50 },
        ] {
            assert_eq!(Refusal::decode(&refusal.encode()), Ok(refusal));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for len in [0, 1, 8, 10] {
            let got = Refusal::decode(&vec![1; len]);
            assert_eq!(got, Err(RefusalError::Len { len }));
        }
        for reason in [0, 4, 255] {
            let got = Refusal::decode(&[reason, 0, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(got, Err(RefusalError::Unknown(reason)));
        }
    }
}
