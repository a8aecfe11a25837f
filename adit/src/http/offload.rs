//! Work with keys, away from the threads that move users' bytes.

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};

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
        self.turn().await.run(work).await
    }

    /// Waits until there is a thread for a piece.
    pub(crate) async fn turn(&self) -> Turn {
        Turn {
            _permit: Arc::clone(&self.0).acquire_owned().await.ok(),
        }
    }
}

/// The right to have one piece done.
#[derive(Debug)]
pub(crate) struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// Does the piece, to its end also where nobody waits for that.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let done = spawn_blocking(move || {
            let _turn = self;
            work()
        });
        done.await.unwrap_or(Err(Refusal::Internal))
    }
}

/// Tokens and certificates are rare, and the data path wants the processors.
const AT_A_TIME: usize = 2;

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        time::Duration,
    };

    use tokio::{sync::mpsc::unbounded_channel, task::JoinSet, time::timeout};

    use super::*;

    #[tokio::test]
    async fn few_pieces_are_done_at_a_time_and_all_in_the_end() {
        let offload = Offload::new();
        let (busy, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (begins, mut begun) = unbounded_channel();
        // Nothing is sent: it holds the pieces until it is dropped.
        let (free, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let mut pieces = JoinSet::new();
        for _ in 0..64 {
            let (busy, most, offload) = (Arc::clone(&busy), Arc::clone(&most), offload.clone());
            let (begins, held) = (begins.clone(), Arc::clone(&held));
            pieces.spawn(async move {
                let work = move || {
                    most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    begins.send(()).unwrap();
                    held.lock().unwrap().recv().unwrap_err();
                    busy.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                };
                offload.run(work).await
            });
        }
        for _ in 0..AT_A_TIME {
            let began = timeout(Duration::from_secs(10), begun.recv());
            began.await.unwrap().unwrap();
        }
        assert_eq!(busy.load(Ordering::SeqCst), AT_A_TIME);
        drop(free);
        assert!(pieces.join_all().await.iter().all(Result::is_ok));
        assert_eq!(most.load(Ordering::SeqCst), AT_A_TIME);
    }
}
