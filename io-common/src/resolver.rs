//! The system resolver, off the data path and on few threads.

mod found;
mod names;
mod places;

use std::{
    fmt, io,
    net::{IpAddr, ToSocketAddrs},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use adit_proto_core::agent::dial::ResolveError;

use crate::threads::{self, Start};
use names::{Answer, Ask, Begun, Done, Id, Names};

/// Names of targets looked up at a time. A call of the system's resolver cannot be given up, and one about a dead name
/// holds its thread for 10 s and more.
pub const TARGETS_MAX: usize = 256;
/// Names of gateways looked up at a time, by the same shares: 18 for those below one domain of two labels that were not found
/// quickly the last time, so that rounds which a dead resolver holds up leave places to later ones.
pub const GATEWAYS_MAX: usize = 64;

/// Asks the system resolver about a bounded number of names at a time, each on a thread that ends with the answer. Clones
/// share the bound.
///
/// Nothing tells an agent whose session is whose, and a thread that hangs is not to be had back. So it goes by names:
/// however many sessions ask for a name, it holds one place. Half of the places are for names that were found quickly
/// the last time, half for the others; in each half names below one domain hold at most three quarters of what those below
/// its parent may, at each level.
#[derive(Clone, Debug)]
pub struct Resolver(Arc<Shared>);

struct Shared {
    start: Start,
    names: Mutex<Names>,
}

/// One who waits for the addresses of a name. Dropping it gives up: a look-up that has not begun is forgotten with the last
/// who waits for it and leaves its turn; one that has begun keeps its place until the system answers.
#[derive(Debug)]
#[must_use = "dropping it gives up"]
pub struct Lookup {
    shared: Arc<Shared>,
    id: Id,
    caller: Id,
    asked: Instant,
}

impl Resolver {
    /// Begins without look-ups; at most so many names are looked up at a time, half of them such as were found quickly the
    /// last time.
    #[must_use]
    pub fn new(names_max: usize) -> Self {
        Self::started_by(threads::start, names_max)
    }

    fn started_by(start: Start, names_max: usize) -> Self {
        Self(Arc::new(Shared {
            start,
            names: Mutex::new(Names::new(names_max)),
        }))
    }

    /// Has `done` told the addresses of a name, all of them, in the system's order, or why there are none.
    ///
    /// It is called at most once, on a thread of the resolver and with no lock held, so perhaps before this returns, but not
    /// from within. Once the [`Lookup`] was dropped it is not called any more; a call that has begun by then goes on.
    /// Where no thread can be started, a thread that has ended its own look-up tells [`ResolveError::Unavailable`]; where
    /// there is none to tell it, [`Lookup::waits_until`] is over.
    pub fn resolve(
        &self,
        name: &str,
        done: impl FnOnce(Result<Vec<IpAddr>, ResolveError>) + Send + 'static,
    ) -> Lookup {
        let ask = |name: &str| {
            let found = (name, 0).to_socket_addrs()?;
            Ok(found.map(|addr| addr.ip()).collect())
        };
        self.find(name, Box::new(ask), Box::new(done))
    }

    /// Look-ups under way answer those who wait for them, and nobody who comes: they may have asked name servers of
    /// another network.
    pub fn begin_anew(&self) {
        self.0.lock().begin_anew();
    }

    fn find(&self, name: &str, ask: Ask, done: Done) -> Lookup {
        let (shared, asked) = (&self.0, Instant::now());
        let mut names = shared.lock();
        let (id, caller, begun) = names.join(name, ask, done);
        shared.begin(&mut names, begun.into_iter().collect());
        drop(names);
        Lookup {
            shared: Arc::clone(shared),
            id,
            caller,
            asked,
        }
    }
}

impl Lookup {
    /// While other names hold the places that this one could have: when to give up, 10 s after it was asked for, and to
    /// take it for [`ResolveError::Busy`]. None once it has begun. Where no thread could be started, it is when it was asked
    /// for, which is over.
    #[must_use]
    pub fn waits_until(&self) -> Option<Instant> {
        self.shared.lock().waits_until(self.id, self.asked)
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        let mut names = self.shared.lock();
        let (done, begun) = names.give_up(self.id, self.caller);
        self.shared.begin(&mut names, begun);
        drop(names);
        // What it holds may call back when it is dropped.
        drop(done);
    }
}

impl Shared {
    /// Starts a thread for each; gives those for which there is none.
    fn begin(self: &Arc<Self>, names: &mut Names, mut begun: Vec<Begun>) -> Vec<Id> {
        let mut refused = Vec::new();
        while let Some(lookup) = begun.pop() {
            let (shared, id) = (Arc::clone(self), lookup.id);
            let run = Box::new(move || shared.run(lookup));
            if (self.start)("adit-resolver", run).is_err() {
                refused.push(id);
                begun.extend(names.refuse(id));
            }
        }
        refused
    }

    /// Carries out a look-up.
    fn run(self: &Arc<Self>, lookup: Begun) {
        let Begun { id, name, ask } = lookup;
        let begun = Instant::now();
        let answer = match catch_unwind(AssertUnwindSafe(|| ask(&name))) {
            Ok(Ok(addrs)) if addrs.is_empty() => Err(ResolveError::NoAddress),
            Ok(Ok(addrs)) => Ok(addrs),
            Ok(Err(error)) => Err(resolve_error(&error)),
            Err(_panic) => Err(ResolveError::Unavailable),
        };
        let mut names = self.lock();
        let next = names.end(id, answer.is_ok(), begun.elapsed());
        let refused = self.begin(&mut names, next);
        drop(names);
        self.tell(id, &answer);
        for id in refused {
            self.tell(id, &Err(ResolveError::Unavailable));
        }
    }

    /// Tells those who wait, one after the other: each may give up until then.
    fn tell(&self, id: Id, answer: &Answer) {
        let next = || self.lock().next_to_tell(id);
        while let Some(done) = next() {
            let answer = answer.clone();
            // The others are to be told all the same.
            drop(catch_unwind(AssertUnwindSafe(|| done(answer))));
        }
    }

    /// A panic elsewhere leaves the names as they were: nobody is called while they are locked.
    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
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
