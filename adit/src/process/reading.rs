//! Reading files beside everything else that a process does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

/// Reads on a thread that nobody has to wait for, since the caller's carries users' bytes and a disk may not answer. One
/// at a time: threads that hang do not pile up.
#[derive(Debug, Default)]
pub(super) struct Reading(Arc<AtomicBool>);

impl Reading {
    /// Reads, for 10 s at most.
    ///
    /// # Errors
    /// Those of `read`, or why it was not done.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        if self.0.swap(true, Ordering::Relaxed) {
            return Err(
                "files of an earlier reload are still being read; is a disk not answering?"
                    .to_owned(),
            );
        }
        let busy = Busy(Arc::clone(&self.0));
        let (tell, told) = oneshot::channel();
        let read = move || {
            let outcome = read();
            drop(busy);
            // Whoever waits may have given up.
            drop(tell.send(outcome));
        };
        thread::Builder::new()
            .name("reload".to_owned())
            .spawn(read)
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        let late = "the files that the configuration names cannot be read in time; is a disk not answering?";
        let read = timeout(PATIENCE, told).await.map_err(|_| late)?;
        read.unwrap_or_else(|_| Err("internal error".to_owned()))
    }
}

/// A thread that reads.
struct Busy(Arc<AtomicBool>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_holds_up_nobody_and_one_thread_only() {
        let reading = Reading::default();
        let (release, hang) = mpsc::channel::<()>();
        let hanging = reading.run(move || {
            // Until it is released.
            let _released = hang.recv();
            Ok(())
        });
        assert!(hanging.await.unwrap_err().contains("in time"));
        assert!(reading.run(|| Ok(())).await.unwrap_err().contains("still"));
        drop(release);
        while reading.0.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        tokio::time::resume();
        assert_eq!(reading.run(|| Ok(7)).await, Ok(7));
    }
}
