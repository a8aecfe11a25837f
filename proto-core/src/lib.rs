//! The protocols of adit as pure state machines.
//!
//! Nothing in this crate performs I/O, reads a clock or draws randomness of its own: bytes, time and commands go in,
//! bytes, events and deadlines come out. Drivers own the sockets; a simulator owns the time.
#![forbid(unsafe_code)]

pub mod agent;
pub mod close;
pub mod connection;
pub mod domain;
pub mod endpoint;
pub mod env;
pub mod error;
pub mod gateway;
pub mod id;
pub mod identity;
pub mod ingress;
pub mod journal;
pub mod limits;
pub mod link;
pub mod liveness;
pub mod output;
pub mod peer;
pub mod replica;
pub mod route;
pub mod session;
pub mod session_table;
pub mod session_timer;
pub mod target;
pub mod wire;
