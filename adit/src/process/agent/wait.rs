//! Waiting for what somebody else does, on a thread that has nothing else to do.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// Waits for a future, for so long at most.
pub(super) fn wait<F: Future + Unpin>(mut future: F, patience: Duration) -> Option<F::Output> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    let began = Instant::now();
    loop {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(&mut cx) {
            return Some(output);
        }
        match patience.saturating_sub(began.elapsed()) {
            Duration::ZERO => return None,
            left => thread::park_timeout(left),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_channel::oneshot;

    use super::*;

    #[test]
    fn what_comes_is_waited_for_and_what_does_not_is_given_up() {
        const LONG: Duration = Duration::from_secs(10);
        assert_eq!(wait(ready(7), Duration::ZERO), Some(7));
        assert_eq!(wait(pending::<()>(), Duration::from_millis(1)), None);
        let (tell, told) = oneshot::channel();
        let telling = thread::spawn(move || tell.send(7).unwrap());
        assert_eq!(wait(told, LONG), Some(Ok(7)));
        telling.join().unwrap();
    }
}
