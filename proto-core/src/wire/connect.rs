//! The two messages that open a session, at the head of its stream (agent-tunnel 7).

use bytes::Bytes;
use uuid::Uuid;

use super::{frame::encode_frame, reader::Reader};
use crate::{
    error::{DecodeError, EncodeError},
    id::SessionId,
    limits::{REASON_LEN_MAX, SESSION_LEN_MAX, VERSION_MAX},
};

/// Gateway to agent: asks for a TCP connection to a target (agent-tunnel 7.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Protocol version.
    pub version: u16,
    /// For logs only; several streams may carry the same one.
    pub session: SessionId,
    /// `host:port`, as it came: a target that cannot be read is answered with a reason, it is not a broken message.
    pub target: String,
}

/// Agent to gateway: whether the target was reached (agent-tunnel 7.2).
///
/// After an accepting one the stream carries raw bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectResponse {
    /// Protocol version.
    pub version: u16,
    /// The reason of a refusal is free text for humans, never parsed (agent-tunnel 7.3).
    pub result: Result<(), String>,
}

impl ConnectRequest {
    /// Makes a request in the highest version spoken here.
    #[must_use]
    pub fn new(session: SessionId, target: String) -> Self {
        Self {
            version: VERSION_MAX,
            session,
            target,
        }
    }

    /// Reads the payload of one frame. Bytes behind the message are ignored (agent-tunnel 5).
    ///
    /// # Errors
    /// [`DecodeError`] of the kinds of agent-tunnel 6.6.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        // A short header is truncated even if its tag is unknown (agent-tunnel 6.6).
        r.need(REQUEST_HEADER_LEN)?;
        match r.u8()? {
            TAG_TCP => Ok(Self {
                version: r.u16()?,
                session: SessionId(Uuid::from_bytes(r.array()?)),
                target: r.string()?.to_owned(),
            }),
            tag => Err(DecodeError::UnknownTag { tag }),
        }
    }

    /// Writes one complete frame.
    ///
    /// # Errors
    /// [`EncodeError`] if the payload is above [`SESSION_LEN_MAX`].
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        encode_frame(SESSION_LEN_MAX, |w| {
            w.u8(TAG_TCP);
            w.u16(self.version);
            w.bytes(self.session.0.as_bytes());
            w.string(&self.target);
        })
    }
}

impl ConnectResponse {
    /// Makes the answer that the target was reached, in the highest version spoken here.
    #[must_use]
    pub fn accepted() -> Self {
        Self {
            version: VERSION_MAX,
            result: Ok(()),
        }
    }

    /// Makes the answer that the target was not reached. A reason above [`REASON_LEN_MAX`] bytes is cut at the last
    /// character that fits, so that a refusal always encodes.
    #[must_use]
    pub fn refused(reason: &str) -> Self {
        let (kept, _) = reason.split_at(reason.floor_char_boundary(REASON_LEN_MAX));
        Self {
            version: VERSION_MAX,
            result: Err(kept.to_owned()),
        }
    }

    /// Reads the payload of one frame. Bytes behind the message are ignored (agent-tunnel 5).
    ///
    /// # Errors
    /// [`DecodeError`] of the kinds of agent-tunnel 6.6.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        // A short header is truncated even if its tag is unknown (agent-tunnel 6.6).
        r.need(RESPONSE_HEADER_LEN)?;
        let tag = r.u8()?;
        let version = r.u16()?;
        let result = match tag {
            TAG_ACCEPTED => Ok(()),
            TAG_REFUSED => Err(r.string()?.to_owned()),
            tag => return Err(DecodeError::UnknownTag { tag }),
        };
        Ok(Self { version, result })
    }

    /// Writes one complete frame.
    ///
    /// # Errors
    /// [`EncodeError`] if the payload is above [`SESSION_LEN_MAX`], which [`refused`](Self::refused) rules out.
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        encode_frame(SESSION_LEN_MAX, |w| match &self.result {
            Ok(()) => {
                w.u8(TAG_ACCEPTED);
                w.u16(self.version);
            }
            Err(reason) => {
                w.u8(TAG_REFUSED);
                w.u16(self.version);
                w.string(reason);
            }
        })
    }
}

const TAG_TCP: u8 = 0x01;
const TAG_ACCEPTED: u8 = 0x00;
const TAG_REFUSED: u8 = 0x01;
/// Tag, version, session id.
const REQUEST_HEADER_LEN: usize = 19;
/// Tag, version.
const RESPONSE_HEADER_LEN: usize = 3;

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    #[test]
    fn short_header_goes_before_an_unknown_tag() {
        for (len, expected) in [
            (0, DecodeError::Truncated { expected: 19 }),
            (18, DecodeError::Truncated { expected: 19 }),
            (19, DecodeError::UnknownTag { tag: 9 }),
        ] {
            let decoded = ConnectRequest::decode(&vec![9; len]);
            assert_eq!(decoded, Err(expected), "{len}");
        }
        for (len, expected) in [
            (0, DecodeError::Truncated { expected: 3 }),
            (2, DecodeError::Truncated { expected: 3 }),
            (3, DecodeError::UnknownTag { tag: 9 }),
        ] {
            let decoded = ConnectResponse::decode(&vec![9; len]);
            assert_eq!(decoded, Err(expected), "{len}");
        }
    }

    #[test]
    fn long_reason_is_cut_between_characters() {
        for (unit, kept) in [("a", 1024), ("é", 1024), ("€", 1023), ("🚫", 1024)] {
            let response = ConnectResponse::refused(&unit.repeat(40_000));
            assert_eq!(response.result.as_ref().unwrap_err().len(), kept, "{unit}");
            response.encode().unwrap();
        }
        let short = ConnectResponse::refused("no route");
        assert_eq!(short.result, Err("no route".to_owned()));
    }

    #[test]
    fn target_above_the_limit_is_not_encoded() {
        let request = |len| ConnectRequest::new(SessionId(Uuid::nil()), "t".repeat(len));
        assert!(request(65_513).encode().is_ok());
        assert_eq!(
            request(65_514).encode(),
            Err(EncodeError {
                size: 65_537,
                max: 65_536
            })
        );
    }

    proptest! {
        #[test]
        fn request_decodes_to_itself(request in request(), behind in vec(any::<u8>(), 0..9)) {
            let frame = request.encode().unwrap();
            let payload = [&frame[4..], &behind].concat();
            prop_assert_eq!(ConnectRequest::decode(&payload), Ok(request));
        }

        #[test]
        fn response_decodes_to_itself(response in response(), behind in vec(any::<u8>(), 0..9)) {
            let frame = response.encode().unwrap();
            let payload = [&frame[4..], &behind].concat();
            prop_assert_eq!(ConnectResponse::decode(&payload), Ok(response));
        }

        #[test]
        fn what_is_cut_is_truncated(request in request(), response in response(), cut: Index) {
            let frame = request.encode().unwrap();
            let cut_request = ConnectRequest::decode(&frame[4..][..cut.index(frame.len() - 4)]);
            let truncated = matches!(cut_request, Err(DecodeError::Truncated { .. }));
            prop_assert!(truncated, "{cut_request:?}");
            let frame = response.encode().unwrap();
            let cut_response = ConnectResponse::decode(&frame[4..][..cut.index(frame.len() - 4)]);
            let truncated = matches!(cut_response, Err(DecodeError::Truncated { .. }));
            prop_assert!(truncated, "{cut_response:?}");
        }
    }

    fn request() -> impl Strategy<Value = ConnectRequest> {
        any::<(u16, u128, String)>().prop_map(|(version, session, target)| ConnectRequest {
            version,
            session: SessionId(Uuid::from_u128(session)),
            target,
        })
    }

    fn response() -> impl Strategy<Value = ConnectResponse> {
        any::<(u16, Option<String>)>().prop_map(|(version, refusal)| ConnectResponse {
            version,
            result: refusal.map_or(Ok(()), Err),
        })
    }
}
