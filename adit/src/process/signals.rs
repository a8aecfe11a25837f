//! SIGINT and SIGTERM: the first lets sessions end, the second does not. SIGHUP: the configuration has changed.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals of a process that runs until it is asked to end. Listen before the start: one that comes meanwhile counts.
#[derive(Debug)]
pub struct Signals {
    pub(super) stop: StopSignals,
    pub(super) reload: ReloadSignal,
}

impl Signals {
    /// Begins to listen; from now on none of them ends the process by itself.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            stop: StopSignals::listen()?,
            reload: ReloadSignal::listen()?,
        })
    }
}

/// Both signals that ask a process to end.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Begins to listen; from now on the signals no longer end the process by themselves.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// SIGHUP: the configuration is to be read again.
#[derive(Debug)]
pub struct ReloadSignal(Signal);

impl ReloadSignal {
    /// Begins to listen; from now on the signal no longer ends the process.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        self.0.recv().await;
    }
}
