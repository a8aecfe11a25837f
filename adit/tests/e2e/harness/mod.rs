//! Processes, configurations, targets and users for the tests. Everything waits for events with a deadline.

pub(crate) mod clock;
pub(crate) mod cluster;
pub(crate) mod console;
pub(crate) mod crash;
pub(crate) mod deaf;
pub(crate) mod disk;
pub(crate) mod preload;
pub(crate) mod process;
pub(crate) mod reference;
pub(crate) mod reference_agent;
pub(crate) mod relay;
pub(crate) mod site;
pub(crate) mod targets;
pub(crate) mod tls_target;
pub(crate) mod users;
pub(crate) mod websocket;

use std::{
    future::Future,
    sync::{LazyLock, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;

/// Longest wait for anything that should come soon.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// Asks until there is an answer.
pub(crate) fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        // The pace of asking; what is waited for has no event that another process could wait for.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Runs a future for a test that is not one.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(async { tokio::time::timeout(SOON, future).await.expect("in time") })
}

/// Allows this process as many files as it may have.
pub(crate) fn many_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

/// The runtime behind all targets.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
});

/// Held by ordinary tests: they may run beside each other.
pub(crate) fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(|e| e.into_inner())
}

/// Held by tests that measure or use the whole machine.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(|e| e.into_inner())
}

static MACHINE: RwLock<()> = RwLock::new(());
