//! A gateway's and an agent's endpoint joined in memory and in virtual time, with fair, lossy and hostile partners.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names what it looks for"
)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests may fail the test"
)]

mod admission;
mod farewell;
mod handshake;
mod hoard;
mod hostile;
mod journal;
mod liveness;
mod net;
mod peer;
mod pki;
mod raw;
mod sessions;
mod set_up;
mod transfer;
mod world;
