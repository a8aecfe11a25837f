//! How an agent comes to be trusted: enrolment at the gateway's HTTP listener (agent-tunnel 14).

pub mod client;
pub mod files;
#[cfg(feature = "gateway")]
pub mod listener;
mod nearest;
pub mod pair;
#[cfg(feature = "gateway")]
mod patient;
mod pending;
pub mod renewal;
pub mod routes;
#[cfg(feature = "gateway")]
pub mod server;
mod transport;
#[cfg(feature = "gateway")]
mod watched;
mod wire;

pub use transport::TransportError;
#[cfg(feature = "gateway")]
pub(crate) use wire::Problem;

/// Path of the enrolment call.
pub const ENROL_PATH: &str = "/jet/tunnel/enroll";
