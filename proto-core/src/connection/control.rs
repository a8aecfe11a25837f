//! The control stream: messages in and out, bounded both ways.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    close::PeerFault,
    error::EncodeError,
    limits,
    link::{Broken, Link, ReadState, StreamRef},
    wire::{control::ControlMessage, frame::FrameDecoder},
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
