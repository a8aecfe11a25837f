//! What a session's task is told, and how it carries the session's bytes.

use std::{future::poll_fn, task::Poll, time::Instant};

use adit_io_common::{
    over::Over,
    pump::Traffic,
    socket::Carried,
    splice::{End, Splice},
};
use adit_proto_core::{peer::forward::Status, session_timer::SessionBounds};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::link::{LinkLeg, SessionLeg};
use crate::{joined::Joined, leg::TokioLeg};

/// What a session's task is told once.
#[derive(Debug)]
pub(super) enum Word {
    /// Carry it from and to this socket; the bytes were read from it already.
    Attach(Carried, Bytes, SessionBounds),
    /// It is open, and this is the pipe to its agent.
    Accept(Carried),
    /// It is not opened.
    Refuse(Status, Box<str>),
}

/// The way to a session's task. Its word and its end have a place each, so neither is lost for want of room.
#[derive(Debug)]
pub(super) struct Control {
    word: Option<oneshot::Sender<Word>>,
    end: Option<oneshot::Sender<Over>>,
}

/// What a session's task hears. It gives up when nobody can tell it anything any more.
#[derive(Debug)]
pub(super) struct Controls {
    word: oneshot::Receiver<Word>,
    end: oneshot::Receiver<Over>,
}

pub(super) fn controls() -> (Control, Controls) {
    let ((word, heard), (end, ended)) = (oneshot::channel(), oneshot::channel());
    let control = Control {
        word: Some(word),
        end: Some(end),
    };
    let controls = Controls {
        word: heard,
        end: ended,
    };
    (control, controls)
}

impl Control {
    /// Tells whether the word was taken. A session that has ended needs none, and drops a socket that comes with it, which
    /// resets that; so does one that was told before.
    pub(super) fn tell(&mut self, word: Word) -> bool {
        let way = self.word.take();
        way.is_some_and(|way| way.send(word).is_ok())
    }

    /// The session is not wanted any more. The first reason holds.
    pub(super) fn end(&mut self, how: Over) {
        if let Some(end) = self.end.take() {
            // One that has ended by itself needs no end.
            let _has_ended = end.send(how);
        }
    }
}

impl Controls {
    /// Waits for the word, or why none is waited for any more: nothing follows either.
    pub(super) async fn word(&mut self) -> Result<Word, Over> {
        tokio::select! {
            biased;
            how = &mut self.end => Err(how.unwrap_or(Over::Cut)),
            word = &mut self.word => word.map_err(|_| Over::Cut),
        }
    }

    /// Waits until the session is not wanted any more. Nothing may be waited for behind it.
    pub(super) async fn ended(&mut self) -> Over {
        // Without its owner the gateway is gone.
        (&mut self.end).await.unwrap_or(Over::Cut)
    }
}

/// Moves bytes between a socket and a link until both directions have ended, or somebody or its bounds end them. `moved` is
/// told of bytes from the socket and to it.
pub(super) async fn carry(
    socket: Carried,
    early: Bytes,
    bounds: SessionBounds,
    link: LinkLeg,
    controls: &mut Controls,
    moved: impl Fn(u64, u64),
) -> (Traffic, Over) {
    let Some(Ok(local)) = socket.release().map(TokioLeg::alone) else {
        tracing::warn!("a session's socket cannot be used; the session is ended");
        return (Traffic::begin(), Over::TcpReset);
    };
    let ends = (SessionLeg::Local(local), SessionLeg::Link(Box::new(link)));
    let mut joined = Joined::new(Splice::new(Instant::now(), ends, early, bounds));
    let mut told = (0, 0);
    let carried = poll_fn(|cx| {
        let turn = joined.poll(cx);
        let (sent, received) = joined.carried();
        moved(sent - told.0, received - told.1);
        told = (sent, received);
        // Nobody may read the link or write to it any more, and find it broken.
        match joined.leg(End::Target) {
            Some(SessionLeg::Link(leg)) if turn.is_pending() && leg.is_broken() => {
                Poll::Ready(Over::TcpReset)
            }
            _ => turn,
        }
    });
    let how = tokio::select! {
        biased;
        how = controls.ended() => how,
        how = carried => how,
    };
    let is_broken =
        matches!(joined.leg(End::Target), Some(SessionLeg::Link(leg)) if leg.is_broken());
    let by_peer = how == Over::TcpReset && is_broken;
    let how = if by_peer { Over::PeerReset } else { how };
    (joined.end(how), how)
}
