//! The `adit` binary as a library, so that its parts can be tested one by one.

pub mod admin;
pub mod args;
pub mod config;
pub mod control;
pub mod demo_target;
pub mod enroll;
pub mod exit;
pub mod http;
pub mod ingress;
pub mod live;
pub mod log;
pub mod output;
pub mod pki;
pub mod presence;
pub mod process;
mod regular;
pub mod run;
mod share;
pub mod state;
pub mod store;
pub mod token;
pub mod usage;
