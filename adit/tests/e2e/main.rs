//! The real binary from end to end, over loopback: processes, signals, logs, sockets.
#![cfg(feature = "gateway")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "helpers of tests fail loudly too, and say what they measured"
)]

mod harness;

mod access;
mod association;
mod authority;
mod basics;
mod bounds;
mod certificates;
mod clock;
mod crash;
mod credit;
mod deaf;
mod disk;
mod draining;
mod enrolment;
mod flood;
mod garbage;
mod http;
mod identity;
mod journal;
mod loss;
mod many;
mod operate;
mod peers;
mod peers_attacked;
mod peers_changed;
mod peers_forward;
mod peers_imposters;
mod peers_replica;
mod policy;
mod reference_agent;
mod reference_gateway;
mod reference_peer;
mod reference_replica;
mod reload;
mod reload_gateway;
mod reload_rules;
mod renewal;
mod renewal_due;
mod revoke;
mod set_up;
mod shutdown;
mod silent_gateway;
mod stalls;
mod startup;
mod tools;
mod transfer;
mod websocket;
