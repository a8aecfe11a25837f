//! The loop of either role: it works, sleeps when nothing is left to do, and hands on what the poll tells.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
    thread,
    time::Instant,
};

use futures_channel::oneshot;
use mio::{Events, Poll, Token, event::Event};

use crate::{
    alarm::Alarm,
    sources::{Owner, Sources},
};

/// What a role does in its loop.
pub(crate) trait Work {
    /// Takes what has come through the queues; tells whether anything had.
    fn take(&mut self, now: Instant, cx: &Context<'_>) -> bool;

    /// Does what is due, and one round of everything else; tells whether anything was done or is left to do.
    ///
    /// # Errors
    /// What ends the loop.
    fn round(&mut self, now: Instant) -> io::Result<bool>;

    /// Takes what the poll has told.
    fn ready(&mut self, now: Instant, owner: Owner, event: &Event);

    /// Tells whether a round has something to do at once.
    fn has_more(&self) -> bool;

    /// When a round has something to do although nothing has come.
    fn next_timeout(&self) -> Option<Instant>;

    /// It was told to stop, and nothing is left: the loop ends after one round more, as what has ended last may have
    /// said so through a queue.
    fn is_over(&self) -> bool;
}

/// A loop that runs on a thread of its own.
#[derive(Debug)]
pub(crate) struct Running {
    /// Tells why the loop has ended; dropped without a word where it has panicked.
    ended: oneshot::Receiver<io::Error>,
    quit: Arc<AtomicBool>,
    waker: Waker,
}

impl Running {
    pub(crate) fn ended(&mut self) -> &mut oneshot::Receiver<io::Error> {
        &mut self.ended
    }

    /// Ends the loop at once, whatever is under way.
    pub(crate) fn quit(&self) {
        self.quit.store(true, Ordering::SeqCst);
        self.waker.wake_by_ref();
    }
}

/// Starts a loop on a thread of this name, with the work that `make` makes there.
///
/// # Errors
/// What the system says.
pub(crate) fn start<W: Work>(
    name: &'static str,
    make: impl FnOnce(&Sources) -> io::Result<W> + Send + 'static,
) -> io::Result<Running> {
    let poll = Poll::new()?;
    let alarm = Alarm::new(mio::Waker::new(poll.registry(), ALARM)?);
    let waker = alarm.waker();
    let quit = Arc::<AtomicBool>::default();
    let quitting = Arc::clone(&quit);
    let (tell, ended) = oneshot::channel();
    let run = move || {
        let why = match run(poll, &alarm, &quitting, make) {
            Ok(()) => io::Error::other("stopped"),
            Err(error) => {
                tracing::error!(thread = name, %error, "the driver's loop has failed");
                error
            }
        };
        // Whoever could hear it may be gone.
        drop(tell.send(why));
    };
    thread::Builder::new().name(name.to_owned()).spawn(run)?;
    Ok(Running { ended, quit, waker })
}

fn run<W: Work>(
    mut poll: Poll,
    alarm: &Arc<Alarm>,
    quit: &AtomicBool,
    make: impl FnOnce(&Sources) -> io::Result<W>,
) -> io::Result<()> {
    let sources = Sources::new(poll.registry().try_clone()?);
    let mut work = make(&sources)?;
    let mut events = Events::with_capacity(EVENTS_MAX);
    let waker = alarm.waker();
    let cx = Context::from_waker(&waker);
    loop {
        for _ in 0..ROUNDS_MAX {
            let (now, is_over) = (Instant::now(), work.is_over());
            let any = work.take(now, &cx) | work.round(now)?;
            if is_over {
                return Ok(());
            }
            if !any {
                break;
            }
        }
        // The queues and flags are looked at a last time: whoever pushes or raises from here on wakes the loop.
        alarm.set();
        if quit.load(Ordering::SeqCst) {
            return Ok(());
        }
        let now = Instant::now();
        let is_busy = work.take(now, &cx) || work.has_more() || work.is_over();
        let until = if is_busy {
            Some(now)
        } else {
            work.next_timeout()
        };
        alarm.sleep(&mut poll, &mut events, until)?;
        let now = Instant::now();
        for event in events.iter() {
            if let Some(owner) = sources.owner(event.token()) {
                work.ready(now, owner, event);
            }
        }
    }
}

/// The token of the alarm: none that a place among the sources ever has.
const ALARM: Token = Token(usize::MAX);
/// Rounds of work before the poll is looked at.
const ROUNDS_MAX: usize = 2;
/// Events taken from the system at once.
const EVENTS_MAX: usize = 1_024;
