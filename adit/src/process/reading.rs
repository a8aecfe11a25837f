//! Reading files beside everything else that a process does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::Duration,
};

/// Reads on a thread that nobody has to wait for, since the caller's carries users' bytes and a disk may not answer. One
/// at a time: threads that hang do not pile up.
#[derive(Debug, Default)]
pub(super) struct Reading(Arc<AtomicBool>);

#[cfg(feature = "gateway")]
impl Reading {
    /// Reads, for 10 s at most.
    ///
    /// # Errors
    /// Those of `read`, or why it was not done.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let (tell, told) = tokio::sync::oneshot::channel();
        // Whoever waits may have given up.
        self.begin(read, |outcome| drop(tell.send(outcome)))?;
        let read = tokio::time::timeout(PATIENCE, told).await;
        read.map_err(|_| LATE)?
            .unwrap_or_else(|_| Err(PANICKED.to_owned()))
    }
}

impl Reading {
    /// Reads, for 10 s at most, where nothing else is to be done meanwhile.
    ///
    /// # Errors
    /// Those of `read`, or why it was not done.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let (tell, told) = sync_channel(1);
        self.begin(read, move |outcome| drop(tell.send(outcome)))?;
        told.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout => LATE,
            RecvTimeoutError::Disconnected => PANICKED,
        })?
    }

    fn begin<T>(
        &self,
        read: impl FnOnce() -> Result<T, String> + Send + 'static,
        tell: impl FnOnce(Result<T, String>) + Send + 'static,
    ) -> Result<(), String> {
        if self.0.swap(true, Ordering::Relaxed) {
            return Err(
                "files of an earlier reload are still being read; is a disk not answering?"
                    .to_owned(),
            );
        }
        let busy = Busy(Arc::clone(&self.0));
        let read = move || {
            let outcome = read();
            drop(busy);
            tell(outcome);
        };
        thread::Builder::new()
            .name("reload".to_owned())
            .spawn(read)
            .map(drop)
            .map_err(|error| format!("cannot start a thread: {error}"))
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
const LATE: &str =
    "the files that the configuration names cannot be read in time; is a disk not answering?";
const PANICKED: &str = "internal error";

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[cfg(feature = "gateway")]
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

    #[test]
    fn who_waits_gets_what_was_read_or_why_there_is_nothing() {
        let reading = Reading::default();
        assert_eq!(reading.wait(|| Ok(7)), Ok(7));
        let refused = reading.wait(|| Err::<(), _>("line 3".to_owned()));
        assert_eq!(refused.unwrap_err(), "line 3");
        let panicked = reading.wait(|| -> Result<(), String> { panic!("in a test") });
        assert_eq!(panicked.unwrap_err(), PANICKED);
        assert_eq!(reading.wait(|| Ok(8)), Ok(8));
    }
}
