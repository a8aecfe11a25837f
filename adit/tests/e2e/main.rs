//! The real binary from end to end, over loopback: processes, signals, logs, sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "helpers of tests fail loudly too, and say what they measured"
)]

mod harness;

mod basics;
mod enrolment;
mod garbage;
mod identity;
mod loss;
mod many;
mod policy;
mod reference_agent;
mod reference_gateway;
mod shutdown;
mod startup;
mod transfer;
