//! A sealed link in the task that speaks on it.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    task::{Context, Poll, ready},
};

use adit_io_common::{
    leg::Leg,
    replica::{Carrier, Link, SealedLeg},
    tcp,
};
use bytes::{Bytes, BytesMut};

use crate::{joined::Waking, leg::TokioLeg};

/// A link that was verified and is sealed.
pub(super) type LinkLeg = SealedLeg<TokioLeg>;

/// Registers a link's socket with the present runtime.
///
/// # Errors
/// What the system says, and a link that is not sealed.
pub(super) fn register(link: Link) -> io::Result<LinkLeg> {
    let Carrier::Sealed(socket, sealed) = link.into_carrier() else {
        let error = "a link for sessions is not sealed";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
    };
    tcp::tune(&socket)?;
    Ok(SealedLeg::new(TokioLeg::alone(socket.into())?, *sealed))
}

/// Writes one record.
///
/// # Errors
/// The link is broken.
pub(super) async fn say(leg: &mut LinkLeg, record: &Bytes) -> io::Result<()> {
    let mut is_sealed = false;
    poll_fn(|cx| {
        leg.socket().wake(cx);
        if !is_sealed {
            // A header and an answer are shorter than a record, and nothing was written before.
            ready!(leg.poll_write(&[IoSlice::new(record)]))?;
            is_sealed = true;
        }
        leg.poll_flush()
    })
    .await
}

/// Waits for one record; empty bytes are the end. Dropping the future loses nothing.
///
/// # Errors
/// The link is broken, or its peer has reset the session.
pub(super) async fn hear(leg: &mut LinkLeg) -> io::Result<Bytes> {
    let mut buffer = BytesMut::new();
    poll_fn(|cx| {
        leg.socket().wake(cx);
        leg.begin_turn();
        leg.poll_read(&mut buffer)
    })
    .await
}

/// Ends the half that is written here.
///
/// # Errors
/// The link is broken.
pub(super) async fn finish(leg: &mut LinkLeg) -> io::Result<()> {
    poll_fn(|cx| {
        leg.socket().wake(cx);
        leg.poll_shutdown()
    })
    .await
}

/// An end of a session that a link carries.
#[derive(Debug)]
pub(super) enum SessionLeg {
    /// At this gateway: a user's socket, or a pipe to the agent.
    Local(TokioLeg),
    /// To the peer.
    Link(Box<LinkLeg>),
}

impl Waking for SessionLeg {
    fn wake(&mut self, cx: &Context<'_>) {
        match self {
            Self::Local(leg) => leg.wake(cx),
            Self::Link(leg) => leg.socket().wake(cx),
        }
    }
}

impl Leg for SessionLeg {
    type Buffer = BytesMut;

    fn begin_turn(&mut self) {
        match self {
            Self::Local(leg) => leg.begin_turn(),
            Self::Link(leg) => leg.begin_turn(),
        }
    }

    fn poll_read(&mut self, buffer: &mut BytesMut) -> Poll<io::Result<Bytes>> {
        match self {
            Self::Local(leg) => leg.poll_read(buffer),
            Self::Link(leg) => leg.poll_read(buffer),
        }
    }

    fn poll_write(&mut self, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Local(leg) => leg.poll_write(slices),
            Self::Link(leg) => leg.poll_write(slices),
        }
    }

    fn poll_shutdown(&mut self) -> Poll<io::Result<()>> {
        match self {
            Self::Local(leg) => leg.poll_shutdown(),
            Self::Link(leg) => leg.poll_shutdown(),
        }
    }

    fn reset(self, why: &'static str) {
        match self {
            Self::Local(leg) => leg.reset(why),
            Self::Link(leg) => leg.reset(why),
        }
    }

    fn has_failed(&self) -> bool {
        match self {
            Self::Local(leg) => leg.has_failed(),
            Self::Link(leg) => leg.has_failed(),
        }
    }
}
