//! Opens the store's file again after a fault of the disk: once a read or a write has failed, the library takes nothing
//! more of it.

use std::path::PathBuf;

use super::{AgentDirectory, StoreError, reserved::Reserved, worker::Worker};

/// What the store's thread holds.
pub(super) struct Keeper {
    path: PathBuf,
    directory: AgentDirectory,
    reserved: Reserved,
    /// None after a fault of the disk, until a request finds it sound.
    worker: Option<Worker>,
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
        })
    }

    /// Carries out a request. After a fault of the disk the file is opened for the next one, which brings the directory
    /// of agents to what the disk holds.
    pub(super) fn perform<T>(
        &mut self,
        act: impl FnOnce(&mut Worker) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut worker = match self.worker.take() {
            Some(worker) => worker,
            None => Worker::reopen(
                self.path.clone(),
                self.directory.clone(),
                self.reserved.clone(),
            )?,
        };
        let outcome = act(&mut worker);
        if !matches!(outcome, Err(StoreError::Disk { .. })) {
            self.worker = Some(worker);
        }
        outcome
    }
}
