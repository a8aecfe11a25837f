use std::{
    net::Ipv4Addr,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use super::{names::PATIENCE, *};

#[test]
fn names_that_hang_hold_their_places_whoever_gives_up() {
    let (targets, gateways) = (Resolver::new(4), Resolver::new(2));
    let dead = Hanging::new();
    for name in ["a", "b"] {
        let lookup = ask(&targets, name, dead.ask());
        dead.is_asked();
        drop(lookup);
    }
    let next = ask(&targets, "c", Box::new(found));
    // Another kind of name does not wait for them.
    assert_eq!(ask(&gateways, "gw", Box::new(found)).answer(), local());
    let until = next.lookup.asked + PATIENCE;
    assert_eq!(next.lookup.waits_until(), Some(until));
    dead.release();
    assert_eq!(next.answer(), local());
    assert_eq!(next.lookup.waits_until(), None);
    assert_eq!(ask(&targets, "d", Box::new(found)).answer(), local());
}

#[test]
fn a_lookup_that_nobody_waits_for_leaves_its_turn() {
    let resolver = Resolver::new(2);
    let dead = Hanging::new();
    let held = ask(&resolver, "a", dead.ask());
    dead.is_asked();
    assert_eq!(held.lookup.waits_until(), None);
    let waiting = [(); 2].map(|()| ask(&resolver, "b", dead.ask()));
    let last = ask(&resolver, "c", Box::new(found));
    for given_up in waiting {
        assert!(given_up.lookup.waits_until().is_some());
        given_up.give_up();
    }
    dead.answer(LOCAL);
    assert_eq!(last.answer(), local());
    // The name that was given up was never asked for.
    assert!(!dead.was_asked());
    assert_eq!(held.answer(), local());
    assert!(resolver.0.lock().is_empty());
}

#[test]
fn a_name_holds_one_place_for_all_who_wait_for_it() {
    let resolver = Resolver::new(4);
    let dead = Hanging::new();
    let waiting: Vec<_> = (0..300)
        .map(|_| ask(&resolver, "dead", dead.ask()))
        .collect();
    dead.is_asked();
    assert_eq!(ask(&resolver, "other", Box::new(found)).answer(), local());
    assert!(!dead.was_asked());
    dead.release();
    for lookup in waiting {
        assert_eq!(lookup.answer(), Err(ResolveError::NoAddress));
    }
    assert!(resolver.0.lock().is_empty());
}

#[test]
fn a_lookup_of_another_network_answers_nobody_who_comes() {
    let resolver = Resolver::new(4);
    let dead = Hanging::new();
    let former = ask(&resolver, "db", dead.ask());
    dead.is_asked();
    resolver.begin_anew();
    let slow = Hanging::new();
    let first = ask(&resolver, "db", slow.ask());
    slow.is_asked();
    dead.release();
    assert_eq!(former.answer(), Err(ResolveError::NoAddress));
    // The end of the former one is not that of the present one.
    let second = ask(&resolver, "db", Box::new(found));
    slow.release();
    for lookup in [first, second] {
        assert_eq!(lookup.answer(), Err(ResolveError::NoAddress));
    }
    assert!(resolver.0.lock().is_empty());
}

/// One user may ask for any number of names of a domain whose servers do not answer, at any depth.
#[test]
fn names_that_hang_leave_places_to_others() {
    let resolver = Resolver::new(TARGETS_MAX);
    let known = "db.lab.corp.local";
    assert_eq!(ask(&resolver, known, Box::new(found)).answer(), local());
    let dead = Hanging::new();
    let flood: Vec<_> = (0..2 * TARGETS_MAX)
        .map(|n| {
            let depth = if n % 2 == 0 { "" } else { "x." };
            ask(&resolver, &format!("{depth}{n}.lab.corp.local"), dead.ask())
        })
        .collect();
    // Three quarters for each label of the domain.
    let lab_max = TARGETS_MAX / 2 * 27 / 64;
    for _ in 0..lab_max {
        dead.is_asked();
    }
    let waits = |asked: &&Asked| asked.lookup.waits_until().is_some();
    assert_eq!(flood.iter().filter(waits).count(), flood.len() - lab_max);
    // One was found before, the others were never asked for.
    for name in [known, "wiki.corp.local", "printer.local", "example.org"] {
        let answer = ask(&resolver, name, Box::new(found)).answer();
        assert_eq!(answer, local(), "{name}");
    }
    for lookup in flood {
        lookup.give_up();
    }
    assert!(!dead.was_asked());
    dead.release();
    let new = "new.lab.corp.local";
    assert_eq!(ask(&resolver, new, Box::new(found)).answer(), local());
}

#[test]
fn a_panic_gives_the_place_back() {
    let resolver = Resolver::new(2);
    for _ in 0..3 {
        let lookup = ask(&resolver, "db", Box::new(|_| panic!("on purpose")));
        assert_eq!(lookup.answer(), Err(ResolveError::Unavailable));
    }
    assert_eq!(ask(&resolver, "db", Box::new(found)).answer(), local());
    assert!(resolver.0.lock().is_empty());
}

#[test]
fn who_is_told_may_ask_again_and_panic_and_the_others_are_told() {
    let resolver = Resolver::new(2);
    let dead = Hanging::new();
    let (tell, told) = channel();
    let again = resolver.clone();
    let panics = Box::new(move |answer| {
        let asked = ask(&again, "db", Box::new(found));
        let thread = thread::current().name().map(ToOwned::to_owned);
        tell.send((answer, asked, thread)).unwrap();
        panic!("on purpose");
    });
    let _panics = resolver.find("db", dead.ask(), panics);
    let other = ask(&resolver, "db", Box::new(found));
    dead.answer(LOCAL);
    let (answer, asked, thread) = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(thread.as_deref(), Some("adit-resolver"));
    for answer in [answer, asked.answer(), other.answer()] {
        assert_eq!(answer, local());
    }
}

#[test]
fn without_a_thread_there_is_nothing_to_wait_for() {
    let resolver = Resolver::started_by(threads::start_none, 2);
    let asked = [(); 2].map(|()| ask(&resolver, "db", Box::new(found)));
    for asked in asked {
        assert_eq!(asked.lookup.waits_until(), Some(asked.lookup.asked));
        asked.give_up();
    }
    assert!(resolver.0.lock().is_empty());
}

#[test]
fn those_for_whom_no_thread_is_left_are_told() {
    /// Has none for those who wait until another ends.
    fn start(name: &'static str, work: threads::Work) -> io::Result<()> {
        let is_at_end = thread::current().name() == Some(name);
        if is_at_end {
            threads::start_none(name, work)
        } else {
            threads::start(name, work)
        }
    }
    let resolver = Resolver::started_by(start, 2);
    let dead = Hanging::new();
    let first = ask(&resolver, "a", dead.ask());
    let waiting = ["b", "b", "c"].map(|name| ask(&resolver, name, Box::new(found)));
    dead.answer(LOCAL);
    assert_eq!(first.answer(), local());
    for lookup in waiting {
        assert_eq!(lookup.answer(), Err(ResolveError::Unavailable));
    }
    assert!(resolver.0.lock().is_empty());
    assert_eq!(ask(&resolver, "d", Box::new(found)).answer(), local());
}

#[test]
fn localhost_is_found_and_nonsense_is_not() {
    let resolver = Resolver::new(2);
    let answer = |name| {
        let (tell, told) = channel();
        let _lookup = resolver.resolve(name, move |answer| tell.send(answer).unwrap());
        told.recv_timeout(PATIENCE).unwrap()
    };
    let found = answer("localhost").unwrap();
    assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
    assert!(answer("no such name").is_err());
}

/// A look-up and what it is told by.
struct Asked {
    lookup: Lookup,
    told: Receiver<Answer>,
}

fn ask(resolver: &Resolver, name: &str, ask: Ask) -> Asked {
    let (tell, told) = channel();
    // Where the test is over nobody listens.
    let done = move |answer| drop(tell.send(answer));
    let lookup = resolver.find(name, ask, Box::new(done));
    Asked { lookup, told }
}

impl Asked {
    fn answer(&self) -> Answer {
        let answer = self.told.recv_timeout(PATIENCE).unwrap();
        // Nobody is told twice.
        assert!(self.told.recv_timeout(PATIENCE).is_err());
        answer
    }

    /// Nobody is told any more.
    fn give_up(self) {
        drop(self.lookup);
        let told = self.told.recv_timeout(Duration::ZERO);
        assert_eq!(told, Err(RecvTimeoutError::Disconnected));
    }
}

/// Look-ups that take until they are told an address, or released: then there is none.
struct Hanging {
    until: Sender<IpAddr>,
    told: Arc<Mutex<Receiver<IpAddr>>>,
    asked: Sender<()>,
    asks: Receiver<()>,
}

impl Hanging {
    fn new() -> Self {
        let ((until, told), (asked, asks)) = (channel(), channel());
        Self {
            until,
            told: Arc::new(Mutex::new(told)),
            asked,
            asks,
        }
    }

    fn ask(&self) -> Ask {
        let (told, asked) = (Arc::clone(&self.told), self.asked.clone());
        Box::new(move |_| {
            // The test is over where this or that fails.
            let _over = asked.send(());
            let told = told.lock().unwrap_or_else(PoisonError::into_inner).recv();
            Ok(told.into_iter().collect())
        })
    }

    /// Waits until a thread has begun with one of them.
    fn is_asked(&self) {
        self.asks.recv_timeout(PATIENCE).unwrap();
    }

    /// Tells whether a thread has begun with one more than were waited for.
    fn was_asked(&self) -> bool {
        self.asks.try_recv().is_ok()
    }

    fn answer(&self, addr: IpAddr) {
        self.until.send(addr).unwrap();
    }

    fn release(self) {
        drop(self);
    }
}

fn found(_name: &str) -> io::Result<Vec<IpAddr>> {
    Ok(vec![LOCAL])
}

fn local() -> Answer {
    Ok(vec![LOCAL])
}

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
