//! Endpoints of peers joined in memory and in virtual time: version handshake, calls, identities, hostile peers, drain,
//! restart.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names what it looks for"
)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests may fail the test"
)]

mod bare;
mod bed;
mod calls;
mod cluster;
mod forward;
mod hostile;
mod identity;
#[expect(dead_code, reason = "the tunnel's tests use all of it")]
#[path = "../pair/net.rs"]
mod net;
#[expect(dead_code, reason = "the tunnel's tests use all of it")]
#[path = "../pair/pki.rs"]
mod pki;
mod pool;
#[expect(dead_code, reason = "the tunnel's tests use all of it")]
#[path = "../pair/raw.rs"]
mod raw;
mod reference;
mod standing;
mod stop;
