//! Simulation of gateways, agents, users and targets in virtual time over a hostile network, from one seed.
//!
//! The real core runs here, QUIC and TLS included; only sockets, clocks, disks and programs are imitated. Everything
//! that could make two runs differ comes from [`choices::Choices`], so that a seed replays bit by bit.
#![forbid(unsafe_code)]

pub mod choices;
pub mod crypto;
pub mod disk;
pub mod experiment;
pub mod facts;
pub mod faults;
pub mod golden;
pub mod internet;
pub mod log;
pub mod model;
pub mod mutants;
pub mod net;
pub mod node;
pub mod observer;
pub mod oracle;
pub mod peers;
pub mod pki;
pub mod plan;
mod pump;
pub mod recorded;
pub mod run;
pub mod scenario;
pub mod seeds;
pub mod tcp;
pub mod trace;
pub mod world;

/// Virtual time since the start of a run. The core's `Instant`s are a fixed base plus this; traces hold only this.
pub type At = std::time::Duration;
