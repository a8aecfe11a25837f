//! Two ends of a session joined, in the task that carries it.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use adit_io_common::{
    leg::Leg,
    over::Over,
    pump::Traffic,
    splice::{End, Splice, SpliceTurn},
};
use tokio::time::{Sleep, sleep_until};

use crate::leg::TokioLeg;

/// A leg whose socket wakes the task that polls it.
pub(crate) trait Waking: Leg {
    /// The task to wake from here on.
    fn wake(&mut self, cx: &Context<'_>);
}

impl Waking for TokioLeg {
    fn wake(&mut self, cx: &Context<'_>) {
        Self::wake(self, cx);
    }
}

/// Two ends that are reset when nobody ends them, as when the process does.
pub(crate) struct Joined<L: Waking> {
    splice: Option<Splice<L>>,
    timer: Pin<Box<Sleep>>,
}

impl<L: Waking> Joined<L> {
    pub(crate) fn new(splice: Splice<L>) -> Self {
        Self {
            splice: Some(splice),
            timer: Box::pin(sleep_until(tokio::time::Instant::now())),
        }
    }

    /// One of the ends, while there is something to carry.
    pub(crate) fn leg(&mut self, end: End) -> Option<&mut L> {
        self.splice.as_mut().map(|splice| splice.leg(end))
    }

    /// Bytes carried so far, from the user and to the user.
    pub(crate) fn carried(&self) -> (u64, u64) {
        let traffic = self.splice.as_ref().map(Splice::traffic);
        traffic.map_or((0, 0), |traffic| (traffic.sent, traffic.received))
    }

    /// Carries on until it is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        let Some(splice) = &mut self.splice else {
            return Poll::Ready(Over::Cut);
        };
        splice.leg(End::User).wake(cx);
        splice.leg(End::Target).wake(cx);
        match splice.turn(Instant::now()) {
            SpliceTurn::Over(how) => return Poll::Ready(how),
            SpliceTurn::More => cx.waker().wake_by_ref(),
            SpliceTurn::Waiting => {}
        }
        if let Some(at) = splice.poll_timeout() {
            self.timer.as_mut().reset(at.into());
            if self.timer.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    pub(crate) fn end(&mut self, how: Over) -> Traffic {
        let splice = self.splice.take();
        splice.map_or_else(Traffic::begin, |splice| splice.end(how))
    }
}

impl<L: Waking> Drop for Joined<L> {
    fn drop(&mut self) {
        self.end(Over::Cut);
    }
}
