//! What the state machines of a process were told and answered, taken down so that it can be done again (design 8.17).
//!
//! Each machine, a [`Connection`](crate::connection::Connection), a [`Dispatch`](crate::gateway::dispatch::Dispatch), a
//! [`Supervisor`](crate::agent::supervisor::Supervisor), has a stream of its own: how it began, every call with its time, every answer
//! that it got from QUIC or from a clock, and after each output a hash of all outputs so far, of what calls answered, and of
//! the times at which it wants to be called. [`replay`] makes the machine once more, calls it the same, and takes the same
//! down again: any difference is one of the machine, or of the journal.
//!
//! QUIC and TLS are not replayed; notices to the endpoint are not compared. No key is taken down, and of users' bytes only
//! their number: a hash of them would tell what a short text was, or with a key that is thrown away nothing to anybody.
//! What is taken down: control messages, which hold routes, certificates and requests for them; names and addresses of
//! targets; identities of agents.

mod begin;
mod entry;
mod recorder;
mod replay;

use std::{fmt, sync::Arc, time::Instant};

pub use self::replay::{Fault, Line, Said, Summary, replay};
pub(crate) use self::{
    begin::Begin,
    entry::{Entry, Records},
    recorder::{Recording, wait},
};

/// Where the records of a process go; a driver's.
pub trait Sink: Send + Sync {
    /// Begins the stream of one machine more, and names it.
    fn begin(&self) -> u64;

    /// Takes records of a stream, whole ones, in their order. Must not wait. False: no more of this stream is wanted, ever;
    /// what was taken before it stays good.
    fn take(&self, stream: u64, records: &[u8]) -> bool;
}

/// A journal that machines are recorded in, by `record_in` of each. A clone is the same journal.
#[derive(Clone)]
pub struct Journal {
    sink: Arc<dyn Sink>,
    begun: Instant,
}

impl Journal {
    /// Begins a journal at `begun`, from which its times count.
    #[must_use]
    pub fn new(begun: Instant, sink: Arc<dyn Sink>) -> Self {
        Self { sink, begun }
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Journal")
    }
}
