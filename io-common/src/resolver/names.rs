//! Names that are looked up or wait for their places, and who waits for them.

use std::{
    collections::BTreeMap,
    io, mem,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto_core::agent::dial::ResolveError;

use super::{found::Found, places::Places};

/// Of a look-up, or of one who waits for its answer; never used twice.
pub(super) type Id = u64;
pub(super) type Answer = Result<Vec<IpAddr>, ResolveError>;
/// The call that looks a name up.
pub(super) type Ask = Box<dyn FnOnce(&str) -> io::Result<Vec<IpAddr>> + Send>;
/// What who waits is told by.
pub(super) type Done = Box<dyn FnOnce(Answer) + Send>;

/// The look-ups of a resolver. Nothing in here calls anybody: what is to be done is handed out.
pub(super) struct Names {
    /// Those that who comes may join.
    joinable: BTreeMap<Arc<str>, Id>,
    lookups: BTreeMap<Id, UnderWay>,
    found: Found,
    /// For names that were found quickly the last time.
    places_of_found: Places,
    places_of_others: Places,
    last_id: Id,
}

/// One name that is looked up, or waits for its place.
struct UnderWay {
    name: Arc<str>,
    was_found: bool,
    stage: Stage,
    waiting: BTreeMap<Id, Done>,
}

enum Stage {
    /// Other names hold the places that this one could have.
    Waiting(Ask),
    Begun,
    /// There is no thread for it.
    Refused,
}

/// A look-up that has its place, for a thread to carry out.
pub(super) struct Begun {
    pub(super) id: Id,
    pub(super) name: Arc<str>,
    pub(super) ask: Ask,
}

impl Names {
    pub(super) fn new(names_max: usize) -> Self {
        Self {
            joinable: BTreeMap::new(),
            lookups: BTreeMap::new(),
            found: Found::default(),
            places_of_found: Places::new(names_max / 2),
            places_of_others: Places::new(names_max / 2),
            last_id: 0,
        }
    }

    /// Has somebody wait for the look-up of a name, which is entered where there is none. Gives the identities of the
    /// look-up and of who waits, and what begins by that.
    pub(super) fn join(&mut self, name: &str, ask: Ask, done: Done) -> (Id, Id, Option<Begun>) {
        let caller = self.next_id();
        let joined = self.joinable.get(name).copied();
        let is_new = joined.is_none();
        let id = joined.unwrap_or_else(|| self.enter(name, ask));
        if let Some(lookup) = self.lookups.get_mut(&id) {
            lookup.waiting.insert(caller, done);
        }
        let begun = is_new.then(|| self.ask_for_place(id)).flatten();
        (id, caller, begun)
    }

    /// Look-ups under way are joined by nobody more.
    pub(super) fn begin_anew(&mut self) {
        self.joinable.clear();
    }

    /// The time at which who has asked at this one is to give up, unless the look-up has begun.
    pub(super) fn waits_until(&self, id: Id, asked: Instant) -> Option<Instant> {
        match self.lookups.get(&id)?.stage {
            Stage::Waiting(_) => Some(asked + PATIENCE),
            Stage::Begun => None,
            Stage::Refused => Some(asked),
        }
    }

    /// Has somebody wait no more; a look-up that has not begun is forgotten with the last one. Gives what told them, and
    /// what begins by that.
    pub(super) fn give_up(&mut self, id: Id, caller: Id) -> (Option<Done>, Vec<Begun>) {
        let Some(lookup) = self.lookups.get_mut(&id) else {
            return (None, Vec::new());
        };
        let done = lookup.waiting.remove(&caller);
        if !lookup.waiting.is_empty() || matches!(lookup.stage, Stage::Begun) {
            return (done, Vec::new());
        }
        let begun = self.leave(id);
        self.lookups.remove(&id);
        (done, begun)
    }

    /// Takes the place of a look-up back, since it has ended; those who wait for it are to be told. Gives what begins by
    /// that.
    pub(super) fn end(&mut self, id: Id, is_found: bool, took: Duration) -> Vec<Begun> {
        if let Some(lookup) = self.lookups.get(&id) {
            if is_found && took <= QUICK {
                self.found.add(&lookup.name);
            } else {
                self.found.remove(&lookup.name);
            }
        }
        self.leave(id)
    }

    /// Takes the place of a look-up back, since there is no thread for it. Gives what begins by that.
    pub(super) fn refuse(&mut self, id: Id) -> Vec<Begun> {
        if let Some(lookup) = self.lookups.get_mut(&id) {
            lookup.stage = Stage::Refused;
        }
        self.leave(id)
    }

    /// What tells the next of those who wait for a look-up that has ended; it is forgotten with the last one.
    pub(super) fn next_to_tell(&mut self, id: Id) -> Option<Done> {
        let lookup = self.lookups.get_mut(&id)?;
        let next = lookup.waiting.pop_first();
        if lookup.waiting.is_empty() {
            self.lookups.remove(&id);
        }
        next.map(|(_, done)| done)
    }

    fn enter(&mut self, name: &str, ask: Ask) -> Id {
        let (id, name) = (self.next_id(), Arc::<str>::from(name));
        self.joinable.insert(Arc::clone(&name), id);
        let lookup = UnderWay {
            was_found: self.found.has(&name),
            name,
            stage: Stage::Waiting(ask),
            waiting: BTreeMap::new(),
        };
        self.lookups.insert(id, lookup);
        id
    }

    fn ask_for_place(&mut self, id: Id) -> Option<Begun> {
        let lookup = self.lookups.get(&id)?;
        let (name, was_found) = (Arc::clone(&lookup.name), lookup.was_found);
        let has_place = self.places(was_found).ask(id, name);
        has_place.then(|| self.begin(id)).flatten()
    }

    fn begin(&mut self, id: Id) -> Option<Begun> {
        let lookup = self.lookups.get_mut(&id)?;
        let name = Arc::clone(&lookup.name);
        match mem::replace(&mut lookup.stage, Stage::Begun) {
            Stage::Waiting(ask) => Some(Begun { id, name, ask }),
            Stage::Begun | Stage::Refused => None,
        }
    }

    /// Ends what a look-up has of the places, and that others join it; gives those that begin in its place.
    fn leave(&mut self, id: Id) -> Vec<Begun> {
        let Some(lookup) = self.lookups.get(&id) else {
            return Vec::new();
        };
        // A later look-up may be in its place.
        if self.joinable.get(&lookup.name) == Some(&id) {
            self.joinable.remove(&lookup.name);
        }
        let was_found = lookup.was_found;
        let next = self.places(was_found).leave(id);
        next.into_iter().filter_map(|id| self.begin(id)).collect()
    }

    fn places(&mut self, of_found: bool) -> &mut Places {
        if of_found {
            &mut self.places_of_found
        } else {
            &mut self.places_of_others
        }
    }

    fn next_id(&mut self) -> Id {
        self.last_id += 1;
        self.last_id
    }
}

/// Wait for a place: half of what a dial may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// A name that was found within this is one whose servers work.
pub(super) const QUICK: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_slow_or_fails_counts_as_found_no_more() {
        let mut names = Names::new(2);
        let slow = QUICK + Duration::from_nanos(1);
        for (is_found, took, counts) in [
            (true, QUICK, true),
            (true, slow, false),
            (true, QUICK, true),
            (false, Duration::ZERO, false),
        ] {
            let (id, _, begun) = names.join("db", Box::new(|_| Ok(Vec::new())), Box::new(drop));
            assert!(begun.is_some());
            assert!(names.end(id, is_found, took).is_empty());
            assert_eq!(names.found.has("db"), counts, "{is_found} {took:?}");
            assert!(names.next_to_tell(id).is_some());
            assert!(names.is_empty());
        }
    }

    impl Names {
        pub(in crate::resolver) fn is_empty(&self) -> bool {
            self.joinable.is_empty() && self.lookups.is_empty()
        }
    }
}
