//! The control stream: messages in and out, bounded both ways, between the wire and the role.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;

use super::{Connection, Role};
use crate::{
    close::PeerFault,
    error::EncodeError,
    limits,
    link::{Broken, Link, ReadState, StreamRef},
    wire::{
        control::{ControlMessage, check_version},
        frame::FrameDecoder,
    },
};

/// Both directions of the control stream of one connection (agent-tunnel 4 and 5).
#[derive(Debug)]
pub(super) struct ControlChannel {
    decoder: FrameDecoder,
    /// Whole frames that wait to be sent, oldest first.
    out: VecDeque<Bytes>,
    out_len: usize,
    /// Whether the stream exists: the agent opens it, and the gateway sees it with the first byte (agent-tunnel 4).
    open: bool,
}

impl ControlChannel {
    pub(super) fn new() -> Self {
        Self {
            decoder: FrameDecoder::new(limits::CONTROL_LEN_MAX),
            out: VecDeque::new(),
            out_len: 0,
            open: false,
        }
    }

    pub(super) fn set_open(&mut self, link: &mut Link) {
        self.open = true;
        // A bulk transfer may not delay a heartbeat (style 2.4).
        link.prioritise(StreamRef::Control);
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Messages wait to be sent.
    pub(super) fn is_sending(&self) -> bool {
        !self.out.is_empty()
    }

    /// Tells whether the peer takes what it is sent, so that more may be queued.
    pub(super) fn has_room(&self) -> bool {
        self.out_len <= limits::CONTROL_OUT_MAX
    }

    /// Queues a message; it leaves with [`flush`](Self::flush). Tells its size in bytes.
    pub(super) fn send(&mut self, message: &ControlMessage) -> Result<usize, EncodeError> {
        let frame = message.encode()?;
        let len = frame.len();
        self.out_len += len;
        self.out.push_back(frame);
        Ok(len)
    }

    /// Hands the engine what it takes.
    pub(super) fn flush(&mut self, link: &mut Link) -> Result<(), PeerFault> {
        if !self.open {
            return Ok(());
        }
        while let Some(frame) = self.out.front_mut() {
            match link.write_message(StreamRef::Control, frame) {
                Ok(written) => self.out_len -= written,
                Err(Broken::ByPeer(_) | Broken::Gone) => return Err(PeerFault::ControlEnded),
            }
            if !frame.is_empty() {
                return Ok(());
            }
            self.out.pop_front();
        }
        Ok(())
    }

    /// Reads the next message. A peer that does not take our answers is not read either, so it stalls only itself.
    pub(super) fn poll_message(
        &mut self,
        link: &mut Link,
    ) -> Result<Option<ControlMessage>, PeerFault> {
        if !self.open || !self.has_room() {
            return Ok(None);
        }
        loop {
            let mut fed = Ok(None);
            let decoder = &mut self.decoder;
            let state = link.read_message(StreamRef::Control, decoder.wanted(), |chunk| {
                if let Ok(None) = fed {
                    fed = decoder.feed(&chunk).map(|(_, payload)| payload);
                }
            });
            if let Some(payload) = fed.map_err(PeerFault::Control)? {
                return ControlMessage::decode(&payload)
                    .map(Some)
                    .map_err(PeerFault::Control);
            }
            match state {
                Ok(ReadState::More) => {}
                Ok(ReadState::Blocked) => return Ok(None),
                Ok(ReadState::End) => {
                    self.decoder.end().map_err(PeerFault::Control)?;
                    return Err(PeerFault::ControlEnded);
                }
                Err(Broken::ByPeer(_) | Broken::Gone) => return Err(PeerFault::ControlEnded),
            }
        }
    }
}

impl Connection {
    /// Sends what the role has to say and gives it what came, until there is no more of either.
    pub(super) fn run_control(&mut self, now: Instant) -> Result<(), PeerFault> {
        loop {
            self.queue_control(now)?;
            self.control.flush(&mut self.link)?;
            if let Role::Gateway(role) = &mut self.role
                && !role.may_read(now)
            {
                return Ok(());
            }
            let Some(message) = self.control.poll_message(&mut self.link)? else {
                return Ok(());
            };
            if check_version(message.version()).is_err() {
                // agent-tunnel 8: decoded, counted, ignored.
                self.counters.versions_ignored += 1;
                continue;
            }
            self.handle_control(now, message)?;
        }
    }

    fn queue_control(&mut self, now: Instant) -> Result<(), PeerFault> {
        if let Role::Agent(role) = &mut self.role {
            let open = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
            while let Some(message) = role.poll_control(
                now,
                || self.link.unix_ms(&*self.wall_clock.0),
                open,
                self.control.has_room(),
            )? {
                // Route sets are checked when they are set, so that none is too large to be sent.
                let sent = self.control.send(&message);
                debug_assert!(sent.is_ok(), "control message too large");
                role.handle_sent(now, sent.unwrap_or_default());
            }
        }
        Ok(())
    }

    fn handle_control(&mut self, now: Instant, message: ControlMessage) -> Result<(), PeerFault> {
        match &mut self.role {
            Role::Agent(role) => {
                self.events.extend(role.handle_control(now, message)?);
            }
            Role::Gateway(role) => {
                let answer = role.handle_control(now, message)?;
                self.events.extend(answer.event);
                if let Some(reply) = answer.reply {
                    let sent = self.control.send(&reply);
                    debug_assert!(sent.is_ok(), "an ack is 11 bytes");
                }
            }
            // There is no control stream.
            Role::Peer(_) | Role::Forward(_) => {}
        }
        Ok(())
    }
}
