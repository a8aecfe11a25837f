//! How an agent comes to be trusted: enrolment at the gateway's HTTP listener (agent-tunnel 14).

pub mod client;
pub mod files;
pub mod listener;
mod nearest;
pub mod pair;
mod patient;
mod pending;
pub mod renewal;
pub mod routes;
pub mod server;
mod transport;
mod watched;
mod wire;

pub use transport::TransportError;

/// Path of the enrolment call.
pub const ENROL_PATH: &str = "/jet/tunnel/enroll";
