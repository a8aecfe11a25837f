//! The agent's side: what it advertises, what it dials, and how it stays connected.
//!
//! Every machine here eats decoded values and gives steps; the connection's role or a driver performs them.

pub(crate) mod accept;
pub mod advertise;
pub mod backoff;
pub mod dial;
pub mod policy;
mod race;
pub mod renewal;
pub mod role;
pub mod supervisor;
