//! One session being set up, as the agent sees it: the request is read, the application decides.

use std::time::Instant;

use crate::{
    error::DecodeError,
    id::SessionId,
    limits,
    target::Target,
    wire::{connect::ConnectRequest, control::check_version, frame::FrameDecoder},
};

/// Reads one `ConnectRequest` (agent-tunnel 7.1) and waits for the application's answer.
#[derive(Debug)]
pub(crate) struct Accept {
    state: State,
    deadline: Instant,
}

#[derive(Debug)]
enum State {
    Reading(FrameDecoder),
    Deciding,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AcceptStep {
    /// Ask the application.
    Ask { session: SessionId, target: Target },
    /// Answer with an error and end the stream.
    Refuse(String),
    /// Abandon the stream: nobody is there to read an answer.
    Abandon(DecodeError),
}

impl Accept {
    pub(crate) fn new(now: Instant) -> Self {
        let decoder = FrameDecoder::new(limits::SESSION_LEN_MAX);
        Self {
            state: State::Reading(decoder),
            deadline: now + limits::REQUEST_TIMEOUT,
        }
    }

    /// Bytes that it can take; never beyond the request, since raw bytes may follow it. 0: none.
    pub(crate) fn wanted(&self) -> usize {
        match &self.state {
            State::Reading(decoder) => decoder.wanted(),
            State::Deciding => 0,
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(crate) fn is_deciding(&self) -> bool {
        matches!(self.state, State::Deciding)
    }

    /// Takes bytes, no more than [`wanted`](Self::wanted).
    pub(crate) fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) -> Option<AcceptStep> {
        let State::Reading(decoder) = &mut self.state else {
            return None;
        };
        match decoder.feed(bytes) {
            Ok((_, None)) => None,
            Ok((_, Some(payload))) => Some(self.handle_request(now, &payload)),
            Err(error) => Some(AcceptStep::Refuse(format!("malformed request: {error}"))),
        }
    }

    /// The gateway ended its half before the request was whole.
    pub(crate) fn handle_end(&self) -> AcceptStep {
        AcceptStep::Abandon(DecodeError::UnexpectedEnd)
    }

    fn handle_request(&mut self, now: Instant, payload: &[u8]) -> AcceptStep {
        let request = match ConnectRequest::decode(payload) {
            Ok(request) => request,
            Err(error) => return AcceptStep::Refuse(format!("malformed request: {error}")),
        };
        // agent-tunnel 8: the reason mentions the version.
        if let Err(error) = check_version(request.version) {
            return AcceptStep::Refuse(format!("unsupported protocol version: {error}"));
        }
        match request.target.parse() {
            Ok(target) => {
                self.state = State::Deciding;
                // The dial has its own, shorter deadline; this one catches an application that never answers.
                self.deadline = now + limits::DIAL_TIMEOUT + limits::ANSWER_GRACE;
                AcceptStep::Ask {
                    session: request.session,
                    target,
                }
            }
            Err(error) => AcceptStep::Refuse(format!("target is not valid: {error}")),
        }
    }
}
