//! Models of the hand-offs between tasks: the driver's own files, with loom's locks and atomics in the place of the
//! standard library's, run in every order that threads can take.
//!
//! A task that is woken too seldom is a deadlock in the end, which loom reports. It may end the whole program, as the
//! receiver's end wants the lock once more: `-- --nocapture` shows the report, and `LOOM_LOG=trace LOOM_LOCATION=1`
//! before the command the run that led there.
#![cfg(test)]

#[expect(dead_code, reason = "a model needs not all of it")]
#[expect(unreachable_pub, reason = "it is public where it lives")]
#[path = "../../io-common/src/handoff.rs"]
mod handoff;
#[path = "../../io-tokio/src/ready.rs"]
mod ready;

mod queue;
mod sockets;
mod task;

/// A session's place on a connection: to the wake-ups no more than a number.
pub(crate) type Slot = u64;
