//! Work with keys, away from the threads that move users' bytes.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::spawn_blocking};

use super::Refusal;

/// Does short work on threads of its own, a few pieces at a time; more wait.
#[derive(Clone, Debug)]
pub(crate) struct Offload(Arc<Semaphore>);

impl Offload {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_A_TIME)))
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let permit = Arc::clone(&self.0).acquire_owned().await;
        let done = spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.unwrap_or(Err(Refusal::Internal))
    }
}

/// Tokens and certificates are rare, and the data path wants the processors.
const AT_A_TIME: usize = 2;
