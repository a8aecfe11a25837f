//! What a session's task is told, and how it carries the session's bytes.

use std::{future::poll_fn, time::Instant};

use adit_io_common::{
    over::Over,
    pump::Traffic,
    socket::Carried,
    splice::{End, Splice},
};
use adit_proto_core::{peer::forward::Status, session_timer::SessionBounds};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::link::{LinkLeg, SessionLeg};
use crate::{joined::Joined, leg::TokioLeg};

/// What a session's task is told. It gives up when nobody can tell it anything any more.
#[derive(Debug)]
pub(super) enum Control {
    /// Carry it from and to this socket; the bytes were read from it already.
    Attach(Carried, Bytes, SessionBounds),
    /// It is open, and this is the pipe to its agent.
    Accept(Carried),
    /// It is not opened.
    Refuse(Status, Box<str>),
    /// It is not wanted any more, for this reason.
    End(Over),
}

/// Commands that wait for a session: one of each kind.
const CONTROLS_LEN: usize = 4;

pub(super) type Controls = mpsc::Receiver<Control>;

pub(super) fn controls() -> (mpsc::Sender<Control>, Controls) {
    mpsc::channel(CONTROLS_LEN)
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
        turn
    });
    let how = tokio::select! {
        biased;
        how = ended(controls) => how,
        how = carried => how,
    };
    let is_broken =
        matches!(joined.leg(End::Target), Some(SessionLeg::Link(leg)) if leg.is_broken());
    let by_peer = how == Over::TcpReset && is_broken;
    let how = if by_peer { Over::PeerReset } else { how };
    (joined.end(how), how)
}

/// Waits until the session is not wanted any more.
pub(super) async fn ended(controls: &mut Controls) -> Over {
    loop {
        match controls.recv().await {
            Some(Control::End(how)) => return how,
            // Without its owner the gateway is gone.
            None => return Over::Cut,
            // Each comes once, and came before.
            Some(Control::Attach(..) | Control::Accept(_) | Control::Refuse(..)) => {}
        }
    }
}
