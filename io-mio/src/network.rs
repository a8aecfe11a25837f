//! Watches this machine's addresses and routes (rtnetlink(7)), so that an agent need not find out by waiting.

use std::{
    io,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use mio::{Interest, unix::SourceFd};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::sources::{Owner, Place, Sources};

/// Groups of rtnetlink(7): addresses and routes, of IPv4 and of IPv6.
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;
/// Changes come in bursts; what comes within this time is told once.
const QUIET: Duration = Duration::from_millis(250);
/// A message is not read further than this; that one came is all that counts.
const MESSAGE_LEN: usize = 64;
/// Rest after a watch that has failed; the first one, and the longest.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// rtnetlink(7): the socket's buffer was full.
const ENOBUFS: i32 = 105;

/// The watch, or the rest until it begins again.
#[derive(Debug)]
pub(crate) struct Network {
    sources: Sources,
    state: State,
    pause: Duration,
}

#[derive(Debug)]
enum State {
    Watching {
        socket: Socket,
        _place: Place,
        since: Instant,
        /// Something has changed; it is told then.
        tell_at: Option<Instant>,
    },
    Resting {
        until: Instant,
    },
}

impl Network {
    /// Begins to watch. Where the system forbids it, changes are found by missed acknowledgements, seconds later.
    pub(crate) fn new(now: Instant, sources: &Sources) -> Self {
        let mut network = Self {
            sources: sources.clone(),
            state: State::Resting { until: now },
            pause: PAUSE_FIRST,
        };
        match open(sources) {
            Ok((socket, place)) => network.watch(now, socket, place, None),
            Err(error) => network.rest(now, &error),
        }
        network
    }

    fn watch(&mut self, now: Instant, socket: Socket, place: Place, tell_at: Option<Instant>) {
        self.state = State::Watching {
            socket,
            _place: place,
            since: now,
            tell_at,
        };
    }

    fn rest(&mut self, now: Instant, error: &io::Error) {
        let pause = self.pause;
        tracing::warn!(%error, again_s = pause.as_secs(), "this machine's addresses cannot be watched; changes are noticed some seconds later meanwhile");
        self.pause = (2 * pause).min(PAUSE_MAX);
        self.state = State::Resting { until: now + pause };
    }

    /// The socket has messages.
    pub(crate) fn ready(&mut self, now: Instant) {
        let State::Watching {
            socket,
            since,
            tell_at,
            ..
        } = &mut self.state
        else {
            return;
        };
        loop {
            match socket.recv(&mut Vec::with_capacity(MESSAGE_LEN), 0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() != Some(ENOBUFS) => {
                    if now.saturating_duration_since(*since) >= PAUSE_MAX {
                        self.pause = PAUSE_FIRST;
                    }
                    return self.rest(now, &error);
                }
                // More than the system keeps: something has changed, that is all.
                Ok(_) | Err(_) => {
                    tell_at.get_or_insert(now + QUIET);
                }
            }
        }
    }

    /// When [`changed`](Self::changed) is to be asked.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Watching { tell_at, .. } => *tell_at,
            State::Resting { until } => Some(*until),
        }
    }

    /// Tells whether something has changed since it was asked last.
    pub(crate) fn changed(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Watching { tell_at, .. } => {
                let due = tell_at.is_some_and(|at| at <= now);
                if due {
                    *tell_at = None;
                }
                due
            }
            State::Resting { until } if *until <= now => {
                match open(&self.sources) {
                    // What came in between was missed.
                    Ok((socket, place)) => self.watch(now, socket, place, Some(now)),
                    Err(error) => self.rest(now, &error),
                }
                false
            }
            State::Resting { .. } => false,
        }
    }
}

fn open(sources: &Sources) -> io::Result<(Socket, Place)> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.set_non_blocking(true)?;
    socket.bind(&SocketAddr::new(0, GROUPS))?;
    let fd = socket.as_raw_fd();
    let place = sources.watch(&mut SourceFd(&fd), Owner::Network, Interest::READABLE)?;
    Ok((socket, place))
}
