//! Keeps what `agent status` answers up to date.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use adit_io_common::agent::{RenewalStatus, Status};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    admin::{AgentStatus, RenewalView},
    enroll::pair::{KeyPairFile, PairName},
    state::StateDir,
};

/// What stays as it is while the agent runs.
pub(super) struct Identity {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) gateways: Vec<String>,
    /// Where its certificate is.
    pub(super) dir: StateDir,
}

/// Publishes until the driver ends.
pub(super) async fn report(
    mut driver: watch::Receiver<Status>,
    sessions: Arc<AtomicUsize>,
    mut routes: watch::Receiver<Vec<String>>,
    publish: watch::Sender<AgentStatus>,
    own: Identity,
) {
    let mut certified = (RenewalStatus::None, certificate_end(&own.dir));
    let mut tick = tokio::time::interval(TICK);
    loop {
        let now = driver.borrow_and_update().clone();
        if certified.0 != now.renewal {
            certified = (now.renewal.clone(), certificate_end(&own.dir));
        }
        publish.send_replace(AgentStatus {
            connected: now.connected.is_some(),
            gateway: now.connected,
            since_unix_s: now.since.and_then(unix_s),
            sessions: sessions.load(Ordering::Relaxed),
            routes: routes.borrow_and_update().clone(),
            last_error: now.last_error,
            id: own.id,
            name: own.name.clone(),
            gateways: own.gateways.clone(),
            certificate_ends_unix_s: certified.1,
            renewal: view(now.renewal),
        });
        tokio::select! {
            changed = driver.changed() => if changed.is_err() { return },
            changed = routes.changed() => if changed.is_err() { return },
            _ = tick.tick() => {}
        }
    }
}

fn unix_s(time: SystemTime) -> Option<u64> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    Some(since.as_secs())
}

fn certificate_end(dir: &StateDir) -> Option<i64> {
    let pair = KeyPairFile::load(dir, PairName::Current).ok()??;
    Some(pair.validity().ok()?.not_after)
}

fn view(renewal: RenewalStatus) -> RenewalView {
    let view = |state: &str| RenewalView {
        state: state.to_owned(),
        ..RenewalView::default()
    };
    match renewal {
        RenewalStatus::None => view("none"),
        RenewalStatus::UnderWay => view("under_way"),
        RenewalStatus::Done { at } => RenewalView {
            at_unix_s: unix_s(at),
            ..view("done")
        },
        RenewalStatus::Failed {
            at,
            why,
            next_unix_s,
        } => RenewalView {
            at_unix_s: unix_s(at),
            error: Some(why),
            next_unix_s,
            ..view("failed")
        },
    }
}

/// How often the number of sessions is refreshed.
const TICK: Duration = Duration::from_secs(1);
