//! Links between replicas: the waiting around `adit_io_common::replica`, in a loop of the caller's.

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream},
    os::fd::AsRawFd,
    time::Instant,
};

use adit_io_common::replica::{CONNECT_TIMEOUT, Handshake, Link, LinkError, Replica, Turn};
use adit_proto_core::replica::ReplicaId;
use mio::{
    Interest, Registry, Token,
    net::{TcpListener, TcpStream},
    unix::SourceFd,
};
use slab::Slab;

use crate::timers::Timers;

/// Handshakes with other replicas, accepted and dialled, as part of a loop around a `mio::Poll`.
///
/// The loop hands on the poll's events of this one's tokens to [`ready`](Self::ready), calls
/// [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout), and empties
/// [`poll_outcome`](Self::poll_outcome) after either. Dropping it gives up all handshakes.
#[derive(Debug)]
pub struct Replicas {
    replica: Replica,
    registry: Registry,
    first: usize,
    listener: Option<TcpListener>,
    /// When to accept although the listener was not told to be ready.
    accept_at: Option<Instant>,
    entries: Slab<Entry>,
    timers: Timers<usize>,
    outcomes: VecDeque<Outcome>,
}

/// What came of a connection.
#[derive(Debug)]
#[must_use = "dropping a link closes its connection"]
pub enum Outcome {
    /// A replica connected. What fails there is in the log only.
    Accepted(Link),
    /// A replica was dialled, by [`Replicas::dial`]. A failure is in the log as well.
    Dialled(ReplicaId, Result<Link, LinkError>),
}

#[derive(Debug)]
enum Entry {
    Connecting(Connecting),
    /// With the replica that was dialled.
    Shaking(Box<Handshake>, Option<ReplicaId>),
}

#[derive(Debug)]
struct Connecting {
    tcp: TcpStream,
    addr: SocketAddr,
    target: ReplicaId,
    until: Instant,
}

impl Replicas {
    /// Begins without a connection. All tokens from `first` on are this one's.
    #[must_use]
    pub fn new(replica: Replica, registry: Registry, first: Token) -> Self {
        Self {
            replica,
            registry,
            first: first.0,
            listener: None,
            accept_at: None,
            entries: Slab::new(),
            timers: Timers::default(),
            outcomes: VecDeque::new(),
        }
    }

    /// Accepts from a listener from here on, in place of a former one.
    ///
    /// # Errors
    /// What the system says of the listener.
    pub fn listen(&mut self, listener: StdListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        let token = Token(self.first);
        self.registry
            .register(&mut listener, token, Interest::READABLE)?;
        self.listener = Some(listener);
        Ok(())
    }

    /// Connects to a replica, and has both prove to each other that they are of the cluster, within [`CONNECT_TIMEOUT`]
    /// and the handshake's own time. What comes of it is an [`Outcome::Dialled`], in any case but this one:
    ///
    /// # Errors
    /// If `target` is not to be dialled.
    pub fn dial(
        &mut self,
        now: Instant,
        addr: SocketAddr,
        target: ReplicaId,
    ) -> Result<(), LinkError> {
        self.replica.may_dial(now, target)?;
        let tcp = match TcpStream::connect(addr) {
            Ok(tcp) => tcp,
            Err(error) => {
                self.not_connected(addr, target, LinkError::Connect(error));
                return Ok(());
            }
        };
        let until = now + CONNECT_TIMEOUT;
        let key = self.entries.insert(Entry::Connecting(Connecting {
            tcp,
            addr,
            target,
            until,
        }));
        self.timers.arm(key, until);
        self.watch(now, key);
        Ok(())
    }

    /// Takes what the poll has told of one of this one's tokens. One that came late does no harm.
    pub fn ready(&mut self, now: Instant, token: Token) {
        match token.0.checked_sub(self.first) {
            Some(0) => self.accept(now),
            Some(above) => self.go_on(now, above - 1),
            None => {}
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = [self.timers.next(), self.accept_at];
        due.into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept(now);
        }
        while let Some(key) = self.timers.due(now) {
            self.go_on(now, key);
        }
    }

    /// The next link, or dial that failed.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// Accepts what has come, as far as one turn goes.
    fn accept(&mut self, now: Instant) {
        self.accept_at = None;
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = &self.listener else {
                return;
            };
            match listener.accept() {
                Ok((tcp, peer)) => {
                    if let Some(handshake) = self.replica.accept(now, tcp.into(), peer) {
                        let key = self
                            .entries
                            .insert(Entry::Shaking(Box::new(handshake), None));
                        self.watch(now, key);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    if let Some(pause) = self.replica.accept_failed(&error) {
                        self.accept_at = Some(now + pause);
                        return;
                    }
                }
            }
        }
        // There may be more, which the poll does not tell again.
        self.accept_at = Some(now);
    }

    /// Registers an entry's socket and looks at it once.
    fn watch(&mut self, now: Instant, key: usize) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let token = Token(self.first + 1 + key);
        let watched = match entry {
            Entry::Connecting(connecting) => {
                self.registry
                    .register(&mut connecting.tcp, token, Interest::WRITABLE)
            }
            Entry::Shaking(handshake, _) => {
                let both = Interest::READABLE | Interest::WRITABLE;
                self.registry
                    .register(&mut SourceFd(&handshake.as_raw_fd()), token, both)
            }
        };
        match watched {
            Ok(()) => self.go_on(now, key),
            Err(error) => self.give_up(key, LinkError::Socket(error)),
        }
    }

    /// Goes on with an entry whose socket is ready or whose time is over.
    fn go_on(&mut self, now: Instant, key: usize) {
        match self.entries.get_mut(key) {
            Some(Entry::Connecting(connecting)) => match connected(&connecting.tcp) {
                Ok(true) => self.begin(now, key),
                Ok(false) if now >= connecting.until => {
                    self.give_up(key, LinkError::ConnectTimedOut);
                }
                Ok(false) => {}
                Err(error) => self.give_up(key, LinkError::Connect(error)),
            },
            Some(Entry::Shaking(handshake, _)) => match handshake.turn(now) {
                Turn::Waiting => self.timers.arm(key, handshake.poll_timeout()),
                Turn::Over => self.end(key),
            },
            None => {}
        }
    }

    /// A connection has come about.
    fn begin(&mut self, now: Instant, key: usize) {
        let Some(Entry::Connecting(connecting)) = self.remove(key) else {
            return;
        };
        let Connecting {
            mut tcp,
            addr,
            target,
            ..
        } = connecting;
        // One that cannot leave the poll cannot be registered again, which is told then.
        let _watched = self.registry.deregister(&mut tcp);
        match self.replica.dial(now, StdStream::from(tcp), addr, target) {
            Ok(handshake) => {
                let entry = Entry::Shaking(Box::new(handshake), Some(target));
                let key = self.entries.insert(entry);
                self.watch(now, key);
            }
            Err(error) => self.not_connected(addr, target, error),
        }
    }

    /// A handshake is over.
    fn end(&mut self, key: usize) {
        let Some(Entry::Shaking(handshake, dialled)) = self.remove(key) else {
            return;
        };
        // One that cannot leave the poll is watched in vain until it is closed.
        let _watched = self
            .registry
            .deregister(&mut SourceFd(&handshake.as_raw_fd()));
        match (dialled, handshake.end()) {
            (Some(target), outcome) => self.outcomes.push_back(Outcome::Dialled(target, outcome)),
            (None, Ok(link)) => self.outcomes.push_back(Outcome::Accepted(link)),
            // It was told by the handshake.
            (None, Err(_)) => {}
        }
    }

    /// Closes a connection of which nothing comes for another reason than its handshake.
    fn give_up(&mut self, key: usize, error: LinkError) {
        match self.remove(key) {
            Some(Entry::Connecting(Connecting { addr, target, .. })) => {
                self.not_connected(addr, target, error);
            }
            Some(Entry::Shaking(handshake, dialled)) => {
                let peer = handshake.peer_addr();
                drop(handshake);
                match dialled {
                    Some(target) => self.not_connected(peer, target, error),
                    None => self.replica.tell_unusable(peer, &error),
                }
            }
            None => {}
        }
    }

    fn not_connected(&mut self, addr: SocketAddr, target: ReplicaId, error: LinkError) {
        let error = self.replica.tell_unconnected(addr, target, error);
        self.outcomes
            .push_back(Outcome::Dialled(target, Err(error)));
    }

    fn remove(&mut self, key: usize) -> Option<Entry> {
        self.timers.forget(key);
        self.entries.try_remove(key)
    }
}

/// Tells whether a connection is there; it may still be under way.
fn connected(tcp: &TcpStream) -> io::Result<bool> {
    if let Some(error) = tcp.take_error()? {
        return Err(error);
    }
    match tcp.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

/// Accepted before others have their turn.
const ACCEPTS_PER_TURN: usize = 64;

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::fd::OwnedFd,
        time::Duration,
    };

    use adit_io_common::replica::SealedLink;
    use adit_proto_core::{
        limits::REPLICA_HANDSHAKES_PER_SOURCE_MAX,
        replica::{
            Awaited, ClusterId, Config, DialError, Fault, Keys, ReplicaKey, Roster, Seal, Slots,
        },
    };
    use mio::{Events, Poll};
    use rustix::net::{AddressFamily, SocketType};

    use super::*;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
    const OTHER_KEY: &[u8] = b"another key of thirty-two bytes.";
    const TARGET: ReplicaId = ReplicaId(1);
    /// Nothing on loopback takes that long.
    const SOON: Duration = Duration::from_secs(10);

    /// A loop with replicas of one cluster.
    struct Loop {
        poll: Poll,
        all: Vec<Replicas>,
    }

    impl Loop {
        fn new(replicas: impl IntoIterator<Item = Replica>) -> Self {
            let poll = Poll::new().unwrap();
            let registry = || poll.registry().try_clone().unwrap();
            let begun = replicas.into_iter().enumerate();
            let all = begun
                .map(|(n, replica)| Replicas::new(replica, registry(), Token(n * TOKENS)))
                .collect();
            Self { poll, all }
        }

        fn listen(&mut self, which: usize) -> SocketAddr {
            let listener = StdListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            self.all[which].listen(listener).unwrap();
            addr
        }

        /// Waits for what comes next of one of them.
        fn outcome(&mut self, which: usize) -> Outcome {
            let mut events = Events::with_capacity(64);
            loop {
                if let Some(outcome) = self.all[which].poll_outcome() {
                    return outcome;
                }
                let due = self.all.iter().filter_map(Replicas::poll_timeout).min();
                let wait = due.map_or(SOON, |at| at.saturating_duration_since(Instant::now()));
                self.poll.poll(&mut events, Some(wait)).unwrap();
                let now = Instant::now();
                for event in &events {
                    self.all[event.token().0 / TOKENS].ready(now, event.token());
                }
                for replicas in &mut self.all {
                    replicas.handle_timeout(now);
                }
            }
        }

        fn dial(&mut self, which: usize, addr: SocketAddr) {
            let dialled = self.all[which].dial(Instant::now(), addr, TARGET);
            dialled.unwrap();
        }

        /// What came of the next dial, and the link at the other end.
        fn meet(&mut self, addr: SocketAddr) -> (Link, Link) {
            self.dial(0, addr);
            let near = dialled(self.outcome(0)).unwrap();
            let Outcome::Accepted(far) = self.outcome(1) else {
                panic!("it dials nobody");
            };
            (near, far)
        }
    }

    const TOKENS: usize = 1 << 10;

    fn dialled(outcome: Outcome) -> Result<Link, LinkError> {
        match outcome {
            Outcome::Dialled(TARGET, outcome) => outcome,
            other @ (Outcome::Accepted(_) | Outcome::Dialled(..)) => panic!("{other:?}"),
        }
    }

    fn connect_from(host: [u8; 4], addr: SocketAddr) -> OwnedFd {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddr::from((host, 0))).unwrap();
        rustix::net::connect(&socket, &addr).unwrap();
        socket
    }

    fn replica(id: u8, seal: Seal, key: &[u8]) -> Replica {
        let keys = Keys::new(ReplicaKey::new(key).unwrap(), None).unwrap();
        let roster = Roster::dense(2, seal);
        let config = Config::new(ClusterId::of("c"), ReplicaId(id), roster, Some(keys));
        Replica::new(config.unwrap(), Slots::default())
    }

    #[test]
    fn a_plain_socket_leaves_the_loop() {
        let both = [0, 1].map(|id| replica(id, Seal::Never, KEY));
        let mut both = Loop::new(both);
        let addr = both.listen(1);
        for _ in 0..2 {
            let (near, far) = both.meet(addr);
            assert_eq!((near.replica(), far.replica()), (TARGET, ReplicaId(0)));
            let [mut near, mut far] = [near, far].map(|link| link.into_socket().unwrap());
            near.write_all(b"bare").unwrap();
            drop(near);
            far.set_nonblocking(false).unwrap();
            let mut came = String::new();
            far.read_to_string(&mut came).unwrap();
            assert_eq!(came, "bare");
        }
        for replicas in &both.all {
            assert!(replicas.entries.is_empty());
            assert_eq!(replicas.poll_timeout(), None);
        }
    }

    #[test]
    fn a_sealed_socket_does_not_go_alone() {
        let both = [0, 1].map(|id| replica(id, Seal::Require, KEY));
        let mut both = Loop::new(both);
        let addr = both.listen(1);
        let (near, far) = both.meet(addr);
        for link in [near, far] {
            let SealedLink(link) = link.into_socket().unwrap_err();
            assert!(link.is_sealed());
        }
    }

    #[test]
    fn a_failed_handshake_stops_no_later_one() {
        let ends = [(0, KEY), (1, KEY), (0, OTHER_KEY)];
        let mut all = Loop::new(ends.map(|(id, key)| replica(id, Seal::Never, key)));
        let addr = all.listen(1);
        all.dial(2, addr);
        let refused = dialled(all.outcome(2)).unwrap_err();
        let is_told = matches!(refused, LinkError::Handshake(Fault::MacMismatch(_)));
        assert!(is_told, "{refused}");
        all.meet(addr).0.into_socket().unwrap();
    }

    #[test]
    fn silent_connections_of_one_source_keep_no_other_out() {
        let both = [0, 1].map(|id| replica(id, Seal::Never, KEY));
        let mut both = Loop::new(both);
        let addr = both.listen(1);
        let flood: Vec<_> = (0..REPLICA_HANDSHAKES_PER_SOURCE_MAX + 40)
            .map(|_| connect_from([127, 0, 0, 2], addr))
            .collect();
        let (near, _far) = both.meet(addr);
        assert_eq!(near.replica(), TARGET);
        let replicas = &both.all[1];
        assert_eq!(replicas.entries.len(), REPLICA_HANDSHAKES_PER_SOURCE_MAX);
        drop(flood);
    }

    #[test]
    fn an_address_that_does_not_answer_has_5_s_and_a_silent_one_3() {
        let mut dialer = Loop::new([replica(0, Seal::Never, KEY)]);
        let dialer = &mut dialer.all[0];
        let now = Instant::now();
        // A listener that nobody accepts from connects a few, and leaves the others waiting.
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let addr = listener.local_addr().unwrap();
        for _ in 0..4 {
            dialer.dial(now, addr, TARGET).unwrap();
        }
        for key in 0..4 {
            dialer.ready(now, Token(1 + key));
        }
        dialer.handle_timeout(now + CONNECT_TIMEOUT - Duration::from_millis(1));
        let mut silent = 0;
        while let Some(outcome) = dialer.poll_outcome() {
            let error = dialled(outcome).unwrap_err();
            let expected = Fault::Silent(Awaited::Challenge);
            assert!(matches!(error, LinkError::Handshake(fault) if fault == expected));
            silent += 1;
        }
        assert!((1..4).contains(&silent), "{silent}");
        assert_eq!(dialer.poll_timeout(), Some(now + CONNECT_TIMEOUT));
        dialer.handle_timeout(now + CONNECT_TIMEOUT);
        for _ in silent..4 {
            let error = dialled(dialer.poll_outcome().unwrap()).unwrap_err();
            assert!(matches!(error, LinkError::ConnectTimedOut), "{error}");
        }
        assert!(dialer.entries.is_empty() && dialer.poll_timeout().is_none());
    }

    #[test]
    fn who_does_not_answer_the_call_is_told_apart() {
        let mut dialer = Loop::new([replica(0, Seal::Never, KEY)]);
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        dialer.dial(0, addr);
        let refused = dialled(dialer.outcome(0)).unwrap_err();
        assert!(matches!(refused, LinkError::Connect(_)), "{refused}");
        let own = dialer.all[0].dial(Instant::now(), addr, ReplicaId(0));
        let expected = DialError::NotHigher(ReplicaId(0));
        assert!(matches!(own, Err(LinkError::Dial(error)) if error == expected));
    }
}
