//! The mio driver: one thread with one `mio::Poll` owns the sockets, the timers and all connections of an agent or of a
//! gateway's tunnel, around `adit-io-common` and `adit-proto-core`.
//!
//! A turn of the loop takes what has come, does what is due, gives every connection that has something to do one round of
//! work, and sleeps if nothing is left. Nothing is shared with other threads but the queues at the loop's edge: orders
//! come in, answers of the resolver and of disks come in, and whoever pushes wakes the loop only where it sleeps.

mod agent;
mod alarm;
mod dials;
mod event_loop;
mod gateway;
mod leg;
mod network;
mod peers;
pub mod replica;
mod sources;
mod splices;
mod timers;
mod tunnel;

pub use agent::{Agent, Publish};
pub use gateway::Gateway;
pub use peers::Peers;
