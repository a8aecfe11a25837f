//! Enrolment against the real listener on loopback.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

mod agent;
mod gateway;
mod http;
