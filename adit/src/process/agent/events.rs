//! What an agent's process waits for.

use std::{
    io,
    sync::mpsc::{SyncSender, TrySendError},
    thread,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals as Caught,
};

use crate::admin::AgentOrder;

/// Something that has happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A signal asks for the end.
    Stop,
    /// A signal says that the configuration has changed.
    Hangup,
    /// The connection may be another one; its status tells.
    Status,
    /// An operator wants something.
    Order(AgentOrder),
    /// The driver has ended.
    Ended,
}

/// Events that wait. A status that finds no room is looked at with those before it; an order is refused.
pub(super) const EVENTS_MAX: usize = 64;

/// Adds an event where there is room, and waits for none.
pub(super) fn offer(events: &SyncSender<Event>, event: Event) -> bool {
    match events.try_send(event) {
        Ok(()) => true,
        Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
    }
}

/// SIGINT and SIGTERM: the first lets sessions end, the second does not. SIGHUP: the configuration has changed. Listen
/// before the start: one that comes meanwhile counts.
#[derive(Debug)]
pub struct Signals(Caught);

impl Signals {
    /// Begins to listen; from now on none of them ends the process by itself.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen() -> io::Result<Self> {
        Caught::new([SIGINT, SIGTERM, SIGHUP]).map(Self)
    }

    /// Makes events of them from now on, on a thread of its own, until nobody takes those any more.
    pub(super) fn forward(mut self, events: SyncSender<Event>) -> io::Result<()> {
        let forward = move || {
            for signal in self.0.forever() {
                let event = match signal {
                    SIGHUP => Event::Hangup,
                    _ => Event::Stop,
                };
                if events.send(event).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("signals".to_owned());
        thread.spawn(forward).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::sync_channel, time::Duration};

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[test]
    fn a_signal_from_before_the_start_counts() {
        let signals = Signals::listen().unwrap();
        for signal in [Signal::HUP, Signal::TERM] {
            kill_process(getpid(), signal).unwrap();
        }
        let (teller, events) = sync_channel(EVENTS_MAX);
        signals.forward(teller).unwrap();
        let next = || events.recv_timeout(Duration::from_secs(10)).unwrap();
        let both = [next(), next()];
        assert!(both.iter().any(|event| matches!(event, Event::Hangup)));
        assert!(both.iter().any(|event| matches!(event, Event::Stop)));
    }

    #[test]
    fn what_finds_no_room_is_not_waited_for() {
        let (teller, events) = sync_channel(1);
        assert!(offer(&teller, Event::Status));
        assert!(!offer(&teller, Event::Status));
        drop(events);
        assert!(!offer(&teller, Event::Status));
    }
}
