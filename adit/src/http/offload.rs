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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn few_pieces_are_done_at_a_time_and_all_in_the_end() {
        let offload = Offload::new();
        let (busy, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut pieces = tokio::task::JoinSet::new();
        for _ in 0..64 {
            let (busy, most, offload) = (Arc::clone(&busy), Arc::clone(&most), offload.clone());
            pieces.spawn(async move {
                let work = move || {
                    most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    busy.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                };
                offload.run(work).await
            });
        }
        assert!(pieces.join_all().await.iter().all(Result::is_ok));
        assert!(most.load(Ordering::SeqCst) <= AT_A_TIME);
    }
}
