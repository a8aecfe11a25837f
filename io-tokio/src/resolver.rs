//! The system resolver, off the data path and on few threads.

use std::{
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use adit_proto_core::agent::dial::ResolveError;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

/// Names of targets looked up at a time. A call of the system's resolver cannot be given up, and one about a dead name
/// holds its thread for 10 s and more.
pub(crate) const TARGETS_MAX: usize = 256;
/// Names of gateways looked up at a time.
pub(crate) const GATEWAYS_MAX: usize = 8;
/// Wait for a place among them: half of what a dial may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the system resolver about a bounded number of names at a time. Clones share the bound.
#[derive(Clone, Debug)]
pub(crate) struct Resolver(Arc<Semaphore>);

impl Resolver {
    pub(crate) fn new(names_max: usize) -> Self {
        Self(Arc::new(Semaphore::new(names_max)))
    }

    /// Gives the addresses of a name, all of them, in the system's order.
    ///
    /// # Errors
    /// [`ResolveError`]; [`ResolveError::Busy`] where other names held all places for 10 s.
    pub(crate) async fn resolve(
        &self,
        name: String,
        port: u16,
    ) -> Result<Vec<IpAddr>, ResolveError> {
        let found = self.run(move || {
            let found = (name.as_str(), port).to_socket_addrs()?;
            Ok(found.map(|addr| addr.ip()).collect::<Vec<_>>())
        });
        match found.await? {
            Ok(addrs) if addrs.is_empty() => Err(ResolveError::NoAddress),
            Ok(addrs) => Ok(addrs),
            Err(error) => Err(resolve_error(&error)),
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<io::Result<T>, ResolveError> {
        let places = Arc::clone(&self.0);
        let place = timeout(PATIENCE, places.acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return Err(ResolveError::Busy);
        };
        // The place is the thread's, not the caller's: whoever gives up leaves the thread behind.
        let answer = spawn_blocking(move || {
            let answer = call();
            drop(place);
            answer
        });
        Ok(answer.await.unwrap_or_else(|error| Err(error.into())))
    }
}

/// The system resolver's failures come without a kind: only its text tells them apart.
fn resolve_error(error: &io::Error) -> ResolveError {
    let text = error.to_string();
    let says = |part: &str| text.contains(part);
    if error.kind() == io::ErrorKind::NotFound || says("not known") {
        ResolveError::NotFound
    } else if says("No address") {
        ResolveError::NoAddress
    } else if says("Temporary failure") {
        ResolveError::Unavailable
    } else {
        ResolveError::Other(error.raw_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn names_that_hang_hold_their_places_whoever_gives_up() {
        let (targets, gateways) = (Resolver::new(2), Resolver::new(1));
        let (release, hang) = mpsc::channel::<()>();
        let hang = Arc::new(std::sync::Mutex::new(hang));
        let hanging = |hang: &Arc<std::sync::Mutex<mpsc::Receiver<()>>>| {
            let hang = Arc::clone(hang);
            move || {
                // Until it is released.
                let _released = hang.lock().map(|hang| hang.recv());
                Ok(())
            }
        };
        for _ in 0..2 {
            let lookup = targets.run(hanging(&hang));
            // The caller gives up at once.
            assert!(timeout(Duration::ZERO, lookup).await.is_err());
        }
        assert_eq!(targets.0.available_permits(), 0);
        let next = tokio::spawn({
            let targets = targets.clone();
            async move { targets.run(|| Ok(7)).await }
        });
        tokio::task::yield_now().await;
        // Another kind of name does not wait for them.
        assert!(matches!(gateways.run(|| Ok(1)).await, Ok(Ok(1))));
        tokio::time::advance(PATIENCE).await;
        assert!(matches!(next.await.unwrap(), Err(ResolveError::Busy)));
        drop(release);
        assert!(matches!(targets.run(|| Ok(2)).await, Ok(Ok(2))));
    }

    #[tokio::test]
    async fn localhost_is_found_and_nonsense_is_not() {
        let resolver = Resolver::new(1);
        let found = resolver.resolve("localhost".to_owned(), 1).await.unwrap();
        assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
        let unknown = resolver.resolve("no such name".to_owned(), 1).await;
        assert!(unknown.is_err());
    }
}
