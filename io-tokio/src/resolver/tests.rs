use std::{net::Ipv4Addr, sync::mpsc};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
};

use super::*;

#[tokio::test(start_paused = true)]
async fn names_that_hang_hold_their_places_whoever_gives_up() {
    let (targets, gateways) = (Resolver::new(4), Resolver::new(2));
    let mut dead = Hanging::new();
    for name in ["a", "b"] {
        let lookup = spawned(&targets, name, dead.ask());
        dead.is_asked().await;
        lookup.abort();
    }
    let next = spawned(&targets, "c", found);
    tokio::task::yield_now().await;
    // Another kind of name does not wait for them.
    assert_eq!(gateways.find("gw", found).await, local());
    tokio::time::advance(PATIENCE).await;
    assert_eq!(next.await.unwrap(), Err(ResolveError::Busy));
    dead.release();
    assert_eq!(targets.find("d", found).await, local());
}

#[tokio::test]
async fn a_name_holds_one_place_for_all_who_wait_for_it() {
    let resolver = Resolver::new(4);
    let mut dead = Hanging::new();
    let ask = |_| spawned(&resolver, "dead", dead.ask());
    let waiting: Vec<_> = (0..300).map(ask).collect();
    dead.is_asked().await;
    assert_eq!(resolver.find("other", found).await, local());
    assert!(dead.asks.is_empty());
    dead.release();
    for lookup in waiting {
        assert_eq!(lookup.await.unwrap(), Err(ResolveError::NoAddress));
    }
    assert!(resolver.0.lock().under_way.is_empty());
}

#[tokio::test]
async fn a_lookup_of_another_network_answers_nobody_who_comes() {
    let resolver = Resolver::new(4);
    let mut dead = Hanging::new();
    let former = spawned(&resolver, "db", dead.ask());
    dead.is_asked().await;
    resolver.begin_anew();
    let mut slow = Hanging::new();
    let first = spawned(&resolver, "db", slow.ask());
    slow.is_asked().await;
    dead.release();
    assert_eq!(former.await.unwrap(), Err(ResolveError::NoAddress));
    // The end of the former one is not that of the present one.
    let second = spawned(&resolver, "db", found);
    tokio::task::yield_now().await;
    slow.release();
    for lookup in [first, second] {
        assert_eq!(lookup.await.unwrap(), Err(ResolveError::NoAddress));
    }
    assert!(resolver.0.lock().under_way.is_empty());
}

/// One user may ask for any number of names of a domain whose servers do not answer, at any depth.
#[tokio::test]
async fn names_that_hang_leave_places_to_others() {
    let resolver = Resolver::new(TARGETS_MAX);
    let known = "db.lab.corp.local";
    assert_eq!(resolver.find(known, found).await, local());
    let mut dead = Hanging::new();
    let ask = |n| {
        let depth = if n % 2 == 0 { "" } else { "x." };
        spawned(&resolver, &format!("{depth}{n}.lab.corp.local"), dead.ask())
    };
    let flood: Vec<_> = (0..2 * TARGETS_MAX).map(ask).collect();
    // Three quarters for each label of the domain.
    let lab_max = TARGETS_MAX / 2 * 27 / 64;
    for _ in 0..lab_max {
        dead.is_asked().await;
    }
    // One was found before, the others were never asked for.
    for name in [known, "wiki.corp.local", "printer.local", "example.org"] {
        let answer = timeout(PATIENCE / 2, resolver.find(name, found)).await;
        assert_eq!(answer.unwrap(), local(), "{name}");
    }
    assert!(dead.asks.is_empty());
    for lookup in flood {
        lookup.abort();
        assert!(lookup.await.unwrap_err().is_cancelled());
    }
    dead.release();
    assert_eq!(resolver.find("new.lab.corp.local", found).await, local());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_slow_or_fails_counts_as_found_no_more() {
    let resolver = Resolver::new(2);
    let mut slow = Hanging::new();
    for (time, is_quick) in [(QUICK, true), (2 * QUICK, false), (QUICK, true)] {
        let lookup = spawned(&resolver, "db", slow.ask());
        slow.is_asked().await;
        tokio::time::advance(time).await;
        slow.until.send(LOCAL).unwrap();
        assert_eq!(lookup.await.unwrap(), local());
        assert_eq!(resolver.0.lock().found.has("db"), is_quick, "{time:?}");
    }
    let refused = |_: &str| Err(io::ErrorKind::NotFound.into());
    let answer = resolver.find("db", refused).await;
    assert_eq!(answer, Err(ResolveError::NotFound));
    assert!(!resolver.0.lock().found.has("db"));
}

#[tokio::test]
async fn localhost_is_found_and_nonsense_is_not() {
    let resolver = Resolver::new(2);
    let found = resolver.resolve("localhost").await.unwrap();
    assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
    assert!(resolver.resolve("no such name").await.is_err());
}

/// Look-ups that take until they are told an address, or released: then there is none.
struct Hanging {
    until: mpsc::Sender<IpAddr>,
    told: Arc<Mutex<mpsc::Receiver<IpAddr>>>,
    asked: UnboundedSender<()>,
    asks: UnboundedReceiver<()>,
}

impl Hanging {
    fn new() -> Self {
        let ((until, told), (asked, asks)) = (mpsc::channel(), unbounded_channel());
        let told = Arc::new(Mutex::new(told));
        Self {
            until,
            told,
            asked,
            asks,
        }
    }

    fn ask(&self) -> impl FnOnce(&str) -> io::Result<Vec<IpAddr>> + Send + 'static {
        let (told, asked) = (Arc::clone(&self.told), self.asked.clone());
        move |_| {
            // The test is over where this or that fails.
            let _over = asked.send(());
            let told = told.lock().unwrap_or_else(PoisonError::into_inner).recv();
            Ok(told.into_iter().collect())
        }
    }

    /// Waits until a thread has begun with one of them.
    async fn is_asked(&mut self) {
        let asked = timeout(PATIENCE / 2, self.asks.recv()).await;
        assert_eq!(asked, Ok(Some(())));
    }

    fn release(self) {
        drop(self);
    }
}

fn spawned(
    resolver: &Resolver,
    name: &str,
    ask: impl FnOnce(&str) -> io::Result<Vec<IpAddr>> + Send + 'static,
) -> JoinHandle<Answer> {
    let (resolver, name) = (resolver.clone(), name.to_owned());
    tokio::spawn(async move { resolver.find(&name, ask).await })
}

fn found(_name: &str) -> io::Result<Vec<IpAddr>> {
    Ok(vec![LOCAL])
}

fn local() -> Answer {
    Ok([LOCAL].into())
}

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
