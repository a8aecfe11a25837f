//! Connections to targets.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr, TcpStream as StdStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Context,
    time::Instant,
};

use adit_io_common::{
    dialling::{Dialler, Dialling, Done, Resolved, Step, UnderWay},
    handoff::{Receiver, Sender, handoff},
    resolver::Resolver,
    tcp::tune,
};
use adit_proto_core::{
    agent::{dial::ResolveError, policy::Policy},
    target::Target,
};
use mio::{Interest, net::TcpStream};

use crate::{
    sources::{Owner, Place, Sources},
    timers::Timers,
};

/// Wishes and answers that wait. Each stands for a session being opened, of which the core bounds the number.
const REQUESTS_LEN: usize = 1 << 20;

/// The way to the loop for those who dial.
struct MioDialler {
    requests: Sender<Request>,
    numbers: AtomicU64,
}

enum Request {
    Begin(u64, Target, Arc<Policy>, Done),
    GiveUp(u64),
    Resolved(u64, Result<Vec<IpAddr>, ResolveError>),
}

impl Dialler for MioDialler {
    fn dial(&self, target: Target, policy: Arc<Policy>, done: Done) -> UnderWay {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let begin = Request::Begin(number, target, policy, done);
        self.requests.push_or_stop(begin);
        let requests = self.requests.clone();
        UnderWay::new(move || requests.push_or_stop(Request::GiveUp(number)))
    }
}

/// All dials of a loop.
pub(crate) struct Dials {
    resolver: Resolver,
    sources: Sources,
    requests: Receiver<Request>,
    own: Sender<Request>,
    batch: VecDeque<Request>,
    dials: BTreeMap<u64, Entry>,
    timers: Timers<u64>,
}

struct Entry {
    dialling: Dialling<StdStream>,
    done: Done,
    connecting: BTreeMap<usize, (TcpStream, Place)>,
}

/// The loop's end of a [`MioDialler`], on its way into the loop.
pub(crate) struct Requests {
    own: Sender<Request>,
    requests: Receiver<Request>,
}

/// Makes the way to a loop.
pub(crate) fn dialler() -> (Arc<dyn Dialler>, Requests) {
    let (own, requests) = handoff(REQUESTS_LEN);
    let dialler = MioDialler {
        requests: own.clone(),
        numbers: AtomicU64::new(0),
    };
    (Arc::new(dialler), Requests { own, requests })
}

impl Dials {
    pub(crate) fn new(requests: Requests, resolver: Resolver, sources: &Sources) -> Self {
        let Requests { own, requests } = requests;
        Self {
            resolver,
            sources: sources.clone(),
            requests,
            own,
            batch: VecDeque::new(),
            dials: BTreeMap::new(),
            timers: Timers::default(),
        }
    }

    /// When [`turn`](Self::turn) has something to do although nothing has come.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Takes wishes and answers, and does what is due; tells whether there was anything.
    pub(crate) fn turn(&mut self, now: Instant, cx: &Context<'_>) -> bool {
        let mut batch = std::mem::take(&mut self.batch);
        let mut any = self.requests.poll_take(cx, &mut batch).is_ready();
        for request in batch.drain(..) {
            match request {
                Request::Begin(number, target, policy, done) => {
                    let dialling = Dialling::new(now, target, policy, self.resolver.clone());
                    let entry = Entry {
                        dialling,
                        done,
                        connecting: BTreeMap::new(),
                    };
                    self.dials.insert(number, entry);
                    self.perform(now, number);
                }
                Request::GiveUp(number) => {
                    self.dials.remove(&number);
                    self.timers.forget(number);
                }
                Request::Resolved(number, found) => {
                    if let Some(entry) = self.dials.get_mut(&number) {
                        entry.dialling.handle_resolved(now, found);
                        self.perform(now, number);
                    }
                }
            }
        }
        self.batch = batch;
        while let Some(number) = self.timers.due(now) {
            any = true;
            if let Some(entry) = self.dials.get_mut(&number) {
                entry.dialling.handle_timeout(now);
                self.perform(now, number);
            }
        }
        any
    }

    /// A connection that is being made may be there, or have failed.
    pub(crate) fn ready(&mut self, now: Instant, number: u64, index: usize) {
        let Some(entry) = self.dials.get_mut(&number) else {
            return;
        };
        let Some((tcp, _)) = entry.connecting.get(&index) else {
            return;
        };
        match connected(tcp) {
            Ok(true) => {
                let Some((mut tcp, _)) = entry.connecting.remove(&index) else {
                    return;
                };
                // One that cannot leave the poll is watched in vain until it is closed.
                let _watched = self.sources.leave(&mut tcp);
                let tcp = StdStream::from(tcp);
                // A socket that is gone already tells so at its first use.
                let _gone = tune(&tcp);
                entry.dialling.handle_connected(now, index, tcp);
            }
            Ok(false) => return,
            Err(error) => {
                entry.connecting.remove(&index);
                entry.dialling.handle_failed(now, index, &error);
            }
        }
        self.perform(now, number);
    }

    fn perform(&mut self, now: Instant, number: u64) {
        let Some(entry) = self.dials.get_mut(&number) else {
            return;
        };
        let own = &self.own;
        let answer = || -> Resolved {
            let own = own.clone();
            Box::new(move |found| own.push_or_stop(Request::Resolved(number, found)))
        };
        while let Some(step) = entry.dialling.poll_step(answer) {
            match step {
                Step::Connect(index, addr) => {
                    match connect(&self.sources, addr, Owner::Dial(number, index)) {
                        Ok(connecting) => {
                            entry.connecting.insert(index, connecting);
                        }
                        Err(error) => entry.dialling.handle_failed(now, index, &error),
                    }
                }
                Step::Abort(index) => {
                    entry.connecting.remove(&index);
                }
                Step::Over(outcome) => {
                    self.timers.forget(number);
                    if let Some(entry) = self.dials.remove(&number) {
                        (entry.done)(outcome);
                    }
                    return;
                }
            }
        }
        if let Some(at) = entry.dialling.poll_timeout() {
            self.timers.arm(number, at);
        }
    }
}

fn connect(sources: &Sources, addr: SocketAddr, owner: Owner) -> io::Result<(TcpStream, Place)> {
    let mut tcp = TcpStream::connect(addr)?;
    let place = sources.watch(&mut tcp, owner, Interest::WRITABLE)?;
    Ok((tcp, place))
}

/// Tells whether a connection is there; it may still be under way.
pub(crate) fn connected(tcp: &TcpStream) -> io::Result<bool> {
    if let Some(error) = tcp.take_error()? {
        return Err(error);
    }
    match tcp.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}
