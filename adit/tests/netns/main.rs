//! The real binary over real networks: gateway, agents and a router between them, each in a network namespace of its
//! own; and on disks of its own. Needs root, `mount`, and `ip` and `tc` of iproute2, and fails without them.
#![cfg(feature = "gateway")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "helpers of tests fail loudly too, and say what they measured"
)]

#[path = "../e2e/harness/mod.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests over loopback, which need more"
)]
mod harness;

mod lab;
mod namespace;
mod transfer;

mod address;
mod black_hole;
mod bottleneck;
mod families;
mod mounts;
mod mtu;
mod names;
mod nat;
mod outage;
mod shares;
