//! Whole processes put together from their parts: the gateway and the agent, as `run` and `demo` use them.

pub mod agent;
#[cfg(feature = "gateway")]
pub mod gateway;
mod journal;
mod reading;
#[cfg(feature = "gateway")]
pub mod signals;

use rustls_pki_types::UnixTime;

/// The wall clock's time, for certificates and tokens.
#[must_use]
pub fn unix_now() -> UnixTime {
    UnixTime::now()
}
