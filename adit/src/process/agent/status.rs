//! Keeps what `agent status` answers up to date.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use adit_io_tokio::agent::Status;
use tokio::sync::watch;

use crate::admin::AgentStatus;

/// Publishes until the driver ends.
pub(super) async fn report(
    mut driver: watch::Receiver<Status>,
    sessions: Arc<AtomicUsize>,
    mut routes: watch::Receiver<Vec<String>>,
    publish: watch::Sender<AgentStatus>,
) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        let now = driver.borrow_and_update().clone();
        let since = now
            .since
            .and_then(|since| since.duration_since(UNIX_EPOCH).ok());
        publish.send_replace(AgentStatus {
            connected: now.connected.is_some(),
            gateway: now.connected,
            since_unix_s: since.map(|since| since.as_secs()),
            sessions: sessions.load(Ordering::Relaxed),
            routes: routes.borrow_and_update().clone(),
            last_error: now.last_error,
        });
        tokio::select! {
            changed = driver.changed() => if changed.is_err() { return },
            changed = routes.changed() => if changed.is_err() { return },
            _ = tick.tick() => {}
        }
    }
}

/// How often the number of sessions is refreshed.
const TICK: Duration = Duration::from_secs(1);
