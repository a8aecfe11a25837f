//! Opens the store's file again after a fault of the disk: once a read or a write has failed, the library takes nothing
//! more of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{AgentDirectory, FILE, StoreError, reserved::Reserved, vitals::Vitals, worker::Worker};
use crate::state::StateDir;

/// What the store's thread holds.
pub(super) struct Keeper {
    dir: StateDir,
    directory: AgentDirectory,
    reserved: Reserved,
    /// None after a fault of the disk, until it is found sound.
    worker: Option<Worker>,
    /// The same and more for those who do not ask this thread.
    vitals: Arc<Vitals>,
}

impl Keeper {
    /// Opens the file, making it where there is none.
    pub(super) fn make(dir: StateDir, directory: AgentDirectory) -> Result<Self, StoreError> {
        let reserved = Reserved::default();
        let worker = Worker::make(dir.file(FILE), directory.clone(), reserved.clone())?;
        let vitals = Arc::<Vitals>::default();
        vitals.publish(&worker);
        Ok(Self {
            dir,
            directory,
            reserved,
            worker: Some(worker),
            vitals,
        })
    }

    /// What can be known from anywhere.
    pub(super) fn vitals(&self) -> Arc<Vitals> {
        Arc::clone(&self.vitals)
    }

    /// How long to wait for a request before [`mend`](Self::mend); none while all is well.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.worker.is_none().then_some(RETRY)
    }

    /// Opens the file again after a fault of the disk, which writes to it: nobody may come who would, as a gateway that is
    /// not ready is sent nobody.
    pub(super) fn mend(&mut self) {
        // Why not is told to those who ask for something.
        let _still_unsound = self.perform(|_| Ok(()));
    }

    /// Carries out a request. After a fault of the disk the file is opened for the next one, which brings the directory
    /// of agents to what the disk holds.
    pub(super) fn perform<T>(
        &mut self,
        act: impl FnOnce(&mut Worker) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.vitals.begin(Instant::now());
        let outcome = self.open().and_then(|mut worker| {
            let outcome = act(&mut worker);
            if !matches!(outcome, Err(StoreError::Disk { .. })) && self.is_mended() {
                self.vitals.publish(&worker);
                self.worker = Some(worker);
            }
            outcome
        });
        let has_failed = self.worker.is_none();
        if self.vitals.set_failed(has_failed) != has_failed {
            match &outcome {
                Err(error) if has_failed => tracing::error!(%error, "{UNSOUND}"),
                Ok(_) | Err(_) => tracing::info!("the store can be written again"),
            }
        }
        self.vitals.end(Instant::now());
        outcome
    }

    /// After a fault a write that needs no room proves nothing: on a full disk the pages that the file has can be written
    /// anew, and the next change fails as the one before.
    fn is_mended(&self) -> bool {
        !self.vitals.has_failed() || self.dir.prove_room(&[PROBE]).is_ok()
    }

    fn open(&mut self) -> Result<Worker, StoreError> {
        match self.worker.take() {
            Some(worker) => Ok(worker),
            None => Worker::reopen(
                self.dir.file(FILE),
                self.directory.clone(),
                self.reserved.clone(),
            ),
        }
    }
}

const UNSOUND: &str = "the store cannot be read or written; the gateway is not ready until it can";
/// Name of a file that is never there for longer than it takes to write it.
const PROBE: &str = "store.room";
/// Time between attempts to open the file where no request comes.
const RETRY: Duration = Duration::from_secs(5);
