//! Protocols by which users' programs reach the gateway: bytes in and out, a target as the result.
// Nothing a client sends may panic; tests may.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub mod socks5;
