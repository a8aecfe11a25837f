//! One session being set up, as the gateway sees it: the request is out, the answer is awaited.

use std::time::Instant;

use super::AttemptError;
use crate::{
    id::AttemptId,
    limits,
    wire::{connect::ConnectResponse, control::check_version, frame::FrameDecoder},
};

/// Reads one `ConnectResponse` (agent-tunnel 7.2).
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) attempt: AttemptId,
    pub(crate) deadline: Instant,
    decoder: FrameDecoder,
}

impl Open {
    pub(crate) fn new(attempt: AttemptId, deadline: Instant) -> Self {
        Self {
            attempt,
            deadline,
            decoder: FrameDecoder::new(limits::SESSION_LEN_MAX),
        }
    }

    /// Bytes that it can take; never beyond the response, since raw bytes follow it.
    pub(crate) fn wanted(&self) -> usize {
        self.decoder.wanted()
    }

    /// Takes bytes, no more than [`wanted`](Self::wanted); the answer, once it is whole.
    pub(crate) fn handle_bytes(&mut self, bytes: &[u8]) -> Option<Result<(), AttemptError>> {
        match self.decoder.feed(bytes) {
            Ok((_, None)) => None,
            Ok((_, Some(payload))) => Some(read_answer(&payload)),
            Err(error) => Some(Err(AttemptError::Malformed(error))),
        }
    }

    /// The agent ended its half before the answer was whole.
    pub(crate) fn handle_end(&self) -> AttemptError {
        AttemptError::ConnectionLost
    }
}

fn read_answer(payload: &[u8]) -> Result<(), AttemptError> {
    let response = ConnectResponse::decode(payload).map_err(AttemptError::Malformed)?;
    // agent-tunnel 8: another version is a failed attempt, whatever it answers.
    check_version(response.version).map_err(AttemptError::Malformed)?;
    response.result.map_err(|mut reason| {
        // A session's failure may hold the reasons of many agents.
        reason.truncate(reason.floor_char_boundary(limits::REASON_LEN_MAX));
        AttemptError::Refused(reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_cut_and_cannot_begin_a_line() {
        // Made by hand: what adit writes is cut already.
        let text = format!("no\n{}", "ä".repeat(limits::REASON_LEN_MAX));
        let written = ConnectResponse {
            version: limits::VERSION_MAX,
            result: Err(text),
        };
        let frame = written.encode().unwrap();
        let mut decoder = FrameDecoder::new(limits::SESSION_LEN_MAX);
        let payload = decoder.feed(&frame).unwrap().1.unwrap();
        let Err(AttemptError::Refused(reason)) = read_answer(&payload) else {
            panic!("not refused");
        };
        assert_eq!(reason.len(), limits::REASON_LEN_MAX - 1);
        let line = AttemptError::Refused(reason).to_string();
        assert!(line.starts_with("refused: \"no\\nä"), "{line}");
    }
}
