//! Enrolment against the real listener on loopback.
#![cfg(feature = "gateway")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

mod agent;
mod gateway;
mod http;
