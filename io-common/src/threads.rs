//! Threads that end with their work.

use std::{io, thread};

/// What a thread does.
pub(crate) type Work = Box<dyn FnOnce() + Send>;

/// How a thread of this name is started. What is not started is dropped.
pub(crate) type Start = fn(&'static str, Work) -> io::Result<()>;

/// Starts a thread of the system.
pub(crate) fn start(name: &'static str, work: Work) -> io::Result<()> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(work).map(drop)
}

/// Starts none, as a system that has no more of them.
#[cfg(test)]
pub(crate) fn start_none(_name: &'static str, _work: Work) -> io::Result<()> {
    Err(io::ErrorKind::WouldBlock.into())
}
