//! Opens the store's file again after a fault of the disk: once a read or a write has failed, the library takes nothing
//! more of it.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{AgentDirectory, StoreError, reserved::Reserved, worker::Worker};

/// What the store's thread holds.
pub(super) struct Keeper {
    path: PathBuf,
    directory: AgentDirectory,
    reserved: Reserved,
    /// None after a fault of the disk, until it is found sound.
    worker: Option<Worker>,
    /// The same for those who do not ask this thread.
    is_sound: Arc<AtomicBool>,
}

impl Keeper {
    /// Opens the file, making it where there is none.
    pub(super) fn make(path: PathBuf, directory: AgentDirectory) -> Result<Self, StoreError> {
        let reserved = Reserved::default();
        let worker = Worker::make(path.clone(), directory.clone(), reserved.clone())?;
        Ok(Self {
            path,
            directory,
            reserved,
            worker: Some(worker),
            is_sound: Arc::new(AtomicBool::new(true)),
        })
    }

    /// Tells from anywhere whether the last request, or the last attempt to open the file again, found the disk sound.
    pub(super) fn soundness(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_sound)
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
        let outcome = self.open().and_then(|mut worker| {
            let outcome = act(&mut worker);
            if !matches!(outcome, Err(StoreError::Disk { .. })) {
                self.worker = Some(worker);
            }
            outcome
        });
        let is_sound = self.worker.is_some();
        if self.is_sound.swap(is_sound, Ordering::Relaxed) != is_sound {
            match &outcome {
                Err(error) if !is_sound => tracing::error!(%error, "{UNSOUND}"),
                Ok(_) | Err(_) => tracing::info!("the store can be written again"),
            }
        }
        outcome
    }

    fn open(&mut self) -> Result<Worker, StoreError> {
        match self.worker.take() {
            Some(worker) => Ok(worker),
            None => Worker::reopen(
                self.path.clone(),
                self.directory.clone(),
                self.reserved.clone(),
            ),
        }
    }
}

const UNSOUND: &str = "the store cannot be read or written; the gateway is not ready until it can";
/// Time between attempts to open the file where no request comes.
const RETRY: Duration = Duration::from_secs(5);
