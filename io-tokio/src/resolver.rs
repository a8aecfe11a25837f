//! The system resolver, off the data path and on few threads.

mod found;
mod places;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use adit_proto_core::agent::dial::ResolveError;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, timeout},
};

use found::Found;
use places::Places;

/// Names of targets looked up at a time. A call of the system's resolver cannot be given up, and one about a dead name
/// holds its thread for 10 s and more.
pub(crate) const TARGETS_MAX: usize = 256;
/// Names of gateways looked up at a time, by the same shares: 18 for those below one domain of two labels that were not found
/// quickly the last time, so that rounds which a dead resolver holds up leave places to later ones.
pub(crate) const GATEWAYS_MAX: usize = 64;
/// Wait for a place among them: half of what a dial may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A name that was found within this is one whose servers work.
const QUICK: Duration = Duration::from_secs(2);

/// Asks the system resolver about a bounded number of names at a time. Clones share the bound.
///
/// Nothing tells an agent whose session is whose, and a thread that hangs is not to be had back. So it goes by names:
/// however many sessions ask for a name, it holds one place. Half of the places are for names that were found quickly
/// the last time, half for the others; in each half no domain holds all ([`Places`]).
#[derive(Clone, Debug)]
pub(crate) struct Resolver(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    found: Arc<Places>,
    others: Arc<Places>,
    names: Mutex<Names>,
}

#[derive(Debug, Default)]
struct Names {
    /// What sessions wait for.
    under_way: BTreeMap<Box<str>, watch::Sender<Progress>>,
    found: Found,
}

#[derive(Debug)]
enum Progress {
    /// Other names hold the places that this one could have.
    Waiting,
    Begun,
    Ended(Answer),
}

type Answer = Result<Arc<[IpAddr]>, ResolveError>;

impl Resolver {
    pub(crate) fn new(names_max: usize) -> Self {
        Self(Arc::new(Shared {
            found: Places::new(names_max / 2),
            others: Places::new(names_max / 2),
            names: Mutex::default(),
        }))
    }

    /// Gives the addresses of a name, all of them, in the system's order.
    ///
    /// # Errors
    /// [`ResolveError`]; [`ResolveError::Busy`] where other names held all places for 10 s.
    pub(crate) async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let ask = |name: &str| {
            let found = (name, 0).to_socket_addrs()?;
            Ok(found.map(|addr| addr.ip()).collect())
        };
        let addrs = self.find(name, ask).await?;
        Ok(addrs.to_vec())
    }

    /// Look-ups under way answer those who wait for them, and nobody who comes: they may have asked name servers of
    /// another network.
    pub(crate) fn begin_anew(&self) {
        self.0.lock().under_way.clear();
    }

    /// Waits for the look-up of a name, which is begun where there is none.
    async fn find(
        &self,
        name: &str,
        ask: impl FnOnce(&str) -> io::Result<Vec<IpAddr>> + Send + 'static,
    ) -> Answer {
        let mut progress = self.join(name, ask);
        let begun = progress.wait_for(|progress| !matches!(progress, Progress::Waiting));
        if timeout(PATIENCE, begun).await.is_err() {
            return Err(ResolveError::Busy);
        }
        let ended = progress.wait_for(|progress| matches!(progress, Progress::Ended(_)));
        match ended.await.as_deref() {
            Ok(Progress::Ended(answer)) => answer.clone(),
            // The process is stopping.
            Ok(Progress::Waiting | Progress::Begun) | Err(_) => Err(ResolveError::Unavailable),
        }
    }

    fn join(
        &self,
        name: &str,
        ask: impl FnOnce(&str) -> io::Result<Vec<IpAddr>> + Send + 'static,
    ) -> watch::Receiver<Progress> {
        let mut names = self.0.lock();
        if let Some(lookup) = names.under_way.get(name) {
            return lookup.subscribe();
        }
        let places = if names.found.has(name) {
            &self.0.found
        } else {
            &self.0.others
        };
        let (progress, reader) = watch::channel(Progress::Waiting);
        names.under_way.insert(name.into(), progress.clone());
        let lookup = Lookup {
            name: name.into(),
            progress,
            shared: Arc::clone(&self.0),
        };
        tokio::spawn(lookup.run(Arc::clone(places), ask));
        reader
    }
}

impl Shared {
    /// A panic elsewhere leaves the names as they were: every change of them is a single step.
    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One name that is looked up, or waits for its place.
struct Lookup {
    name: Arc<str>,
    progress: watch::Sender<Progress>,
    shared: Arc<Shared>,
}

impl Lookup {
    async fn run(
        self,
        places: Arc<Places>,
        ask: impl FnOnce(&str) -> io::Result<Vec<IpAddr>> + Send + 'static,
    ) {
        let place = tokio::select! {
            place = places.take(&self.name) => place,
            () = self.given_up() => return,
        };
        self.progress.send_replace(Progress::Begun);
        let (name, begun) = (Arc::clone(&self.name), Instant::now());
        // The place is the thread's, not the callers': when they give up they leave the thread behind.
        let asked = spawn_blocking(move || {
            let answer = ask(&name);
            drop(place);
            answer
        });
        let answer = match asked.await.unwrap_or_else(|error| Err(error.into())) {
            Ok(addrs) if addrs.is_empty() => Err(ResolveError::NoAddress),
            Ok(addrs) => Ok(addrs.into()),
            Err(error) => Err(resolve_error(&error)),
        };
        let mut names = self.shared.lock();
        self.leave(&mut names);
        if answer.is_ok() && begun.elapsed() <= QUICK {
            names.found.add(&self.name);
        } else {
            names.found.remove(&self.name);
        }
        drop(names);
        self.progress.send_replace(Progress::Ended(answer));
    }

    /// Ends when nobody waits for the name any more; it is forgotten then.
    async fn given_up(&self) {
        loop {
            self.progress.closed().await;
            let mut names = self.shared.lock();
            // Somebody may have come since.
            if self.progress.is_closed() {
                self.leave(&mut names);
                return;
            }
        }
    }

    /// A later look-up may be in its place.
    fn leave(&self, names: &mut Names) {
        let joined = names.under_way.get(&*self.name);
        if joined.is_some_and(|lookup| lookup.same_channel(&self.progress)) {
            names.under_way.remove(&*self.name);
        }
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
mod tests;
