//! Waiting, always for something and never for longer than it may take.

use std::{
    future::{Future, IntoFuture},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

/// Longest wait for anything that should come soon.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// The runtime of what is no driver.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
});

/// Waits for a future, but not for longer than that.
pub(crate) fn within<F: IntoFuture>(limit: Duration, future: F) -> Option<F::Output> {
    let future = future.into_future();
    RUNTIME.block_on(async { timeout(limit, future).await.ok() })
}

/// Waits for a future that completes soon.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    within(SOON, future).expect("in time")
}

/// Asks until there is an answer.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}");
        // The pace of asking: what is waited for has no event.
        thread::park_timeout(Duration::from_millis(2));
    }
}
