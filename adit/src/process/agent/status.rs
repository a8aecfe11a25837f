//! What `agent status` answers.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use adit_io_common::agent::{RenewalStatus, Status};
use uuid::Uuid;

use crate::{
    admin::{AgentStatus, RenewalView},
    enroll::pair::{KeyPairFile, PairName},
    state::StateDir,
};

/// How the connection is, as the driver told last.
#[derive(Debug, Default)]
pub(super) struct Watched {
    status: Mutex<Status>,
    changed: Condvar,
}

impl Watched {
    pub(super) fn set(&self, status: Status) {
        *lock(&self.status) = status;
        self.changed.notify_all();
    }

    pub(super) fn get(&self) -> Status {
        lock(&self.status).clone()
    }

    pub(super) fn is_connected(&self) -> bool {
        lock(&self.status).connected.is_some()
    }

    /// Waits until there is a connection, for so long at most; tells whether there is one.
    pub(super) fn connects(&self, patience: Duration) -> bool {
        let is_down = |status: &mut Status| status.connected.is_none();
        let waited = self
            .changed
            .wait_timeout_while(lock(&self.status), patience, is_down);
        let (status, _) = waited.unwrap_or_else(PoisonError::into_inner);
        status.connected.is_some()
    }
}

/// What stays as it is while the agent runs.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) gateways: Vec<String>,
    /// Where its certificate is.
    pub(super) dir: StateDir,
}

/// All that can be told of a running agent.
#[derive(Debug)]
pub(super) struct Board {
    own: Identity,
    watched: Arc<Watched>,
    sessions: Arc<AtomicUsize>,
    /// What is advertised.
    routes: Mutex<Vec<String>>,
    /// The end of the certificate, and the renewal after which it was looked up.
    certified: Mutex<(RenewalStatus, Option<i64>)>,
}

impl Board {
    pub(super) fn new(
        own: Identity,
        watched: Arc<Watched>,
        sessions: Arc<AtomicUsize>,
        routes: Vec<String>,
    ) -> Self {
        let certified = (RenewalStatus::None, certificate_end(&own.dir));
        Self {
            own,
            watched,
            sessions,
            routes: Mutex::new(routes),
            certified: Mutex::new(certified),
        }
    }

    pub(super) fn routes(&self) -> Vec<String> {
        lock(&self.routes).clone()
    }

    pub(super) fn set_routes(&self, routes: Vec<String>) {
        *lock(&self.routes) = routes;
    }

    /// Open sessions.
    pub(super) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// The answer.
    pub(super) fn view(&self) -> AgentStatus {
        let now = self.watched.get();
        AgentStatus {
            connected: now.connected.is_some(),
            gateway: now.connected,
            since_unix_s: now.since.and_then(unix_s),
            sessions: self.sessions(),
            routes: self.routes(),
            last_error: now.last_error,
            id: self.own.id,
            name: self.own.name.clone(),
            gateways: self.own.gateways.clone(),
            certificate_ends_unix_s: self.certificate_end(&now.renewal),
            renewal: view(now.renewal),
        }
    }

    fn certificate_end(&self, renewal: &RenewalStatus) -> Option<i64> {
        let (after, end) = lock(&self.certified).clone();
        if after == *renewal {
            return end;
        }
        // Whoever asks may have to wait for the disk; nobody else has to.
        let end = certificate_end(&self.own.dir);
        *lock(&self.certified) = (renewal.clone(), end);
        end
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::sync_channel, thread};

    use super::*;

    #[test]
    fn a_connection_is_waited_for() {
        let watched = Arc::new(Watched::default());
        assert!(!watched.connects(Duration::ZERO));
        let (setter, (set, wanted)) = (Arc::clone(&watched), sync_channel(1));
        let setting = thread::spawn(move || {
            let connected = wanted.recv().unwrap();
            setter.set(Status {
                connected,
                ..Status::default()
            });
        });
        set.send(Some(([192, 0, 2, 1], 4433).into())).unwrap();
        assert!(watched.connects(Duration::from_secs(10)));
        setting.join().unwrap();
    }
}
