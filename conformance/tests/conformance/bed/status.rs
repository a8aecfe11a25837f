//! How an agent is, as it says itself.

use std::{
    sync::{Arc, Condvar, Mutex},
    time::Instant,
};

use adit_io_common::agent::{RenewalStatus, Status};

use super::{journal::Journal, wait::SOON};
use crate::driver::Publish;

/// What an agent has published last. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Statuses(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    last: Status,
    noted: String,
    /// So many changes are still noted; none: all.
    notes_left: Option<usize>,
}

impl State {
    fn note(&mut self, journal: &Journal, subject: &str) {
        let line = shown(&self.last);
        if line == self.noted || self.notes_left == Some(0) {
            return;
        }
        self.notes_left = self.notes_left.map(|left| left - 1);
        journal.note(subject, &line);
        self.noted = line;
    }
}

impl Statuses {
    /// Takes what is published, and notes every change.
    pub(super) fn publish(&self, journal: &Journal, subject: String) -> Publish {
        let (shared, journal) = (Arc::clone(&self.0), journal.clone());
        Box::new(move |status| {
            let mut state = shared.state.lock().unwrap();
            state.last.clone_from(status);
            state.note(&journal, &subject);
            shared.changed.notify_all();
        })
    }

    /// Notes one more change, and no others until [`resume`](Self::resume): an agent comes back to a gateway that is
    /// stopping, and how often it is sent away is a matter of luck.
    pub(crate) fn note_one_more(&self) {
        self.0.state.lock().unwrap().notes_left.get_or_insert(1);
    }

    /// Notes no changes: what an agent tries in vain is a matter of time.
    pub(crate) fn note_no_more(&self) {
        self.0.state.lock().unwrap().notes_left = Some(0);
    }

    /// Notes how it is now, if that is another state than the one that was noted last, and what changes from here on.
    pub(super) fn resume(&self, journal: &Journal, subject: &str) {
        let mut state = self.0.state.lock().unwrap();
        state.notes_left = None;
        state.note(journal, subject);
    }

    /// Waits until the change was noted of which [`note_one_more`](Self::note_one_more) is.
    pub(crate) fn wait_noted(&self) {
        self.wait_for("told of a change", |state| state.notes_left == Some(0));
    }

    /// Waits until it is as wanted.
    pub(crate) fn wait(&self, what: &str, mut wanted: impl FnMut(&Status) -> bool) {
        self.wait_for(what, |state| wanted(&state.last));
    }

    fn wait_for(&self, what: &str, mut wanted: impl FnMut(&State) -> bool) {
        let start = Instant::now();
        let mut state = self.0.state.lock().unwrap();
        while !wanted(&state) {
            let left = SOON.checked_sub(start.elapsed());
            let left = left.unwrap_or_else(|| panic!("not {what} in time: {:?}", state.last));
            state = self.0.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    pub(crate) fn wait_up(&self) {
        self.wait("up", |status| status.connected.is_some());
    }

    pub(crate) fn wait_down(&self) {
        self.wait("down", |status| status.connected.is_none());
    }
}

/// Without times.
fn shown(status: &Status) -> String {
    let connection = match (status.connected, &status.last_error) {
        (Some(gateway), _) => format!("connected to {gateway}"),
        (None, Some(error)) => format!("not connected: {error}"),
        (None, None) => "not connected".to_owned(),
    };
    let renewal = match &status.renewal {
        RenewalStatus::None => String::new(),
        RenewalStatus::UnderWay => ", renewal under way".to_owned(),
        RenewalStatus::Done { .. } => ", renewed".to_owned(),
        RenewalStatus::Failed { why, .. } => format!(", renewal failed: {why}"),
    };
    connection + &renewal
}
