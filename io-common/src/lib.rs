//! What the drivers share: everything about connections, agents and gateways but sockets' readiness, timers and threads.
//!
//! Nothing here waits. A driver calls when something has come or a time is over, and performs what it is told. The
//! exceptions are two of the operating system's calls that block, the resolver's and a disk's: each has threads of its
//! own ([`resolver`], [`turns`]); and [`agent::probe`], which no driver calls.

pub mod agent;
pub mod burst;
pub mod clock;
mod clocks;
pub mod commands;
pub mod connection;
pub mod dialling;
pub mod gateway;
pub mod glance;
pub mod handoff;
pub mod journal;
pub mod leg;
pub mod lines;
pub mod over;
pub mod passed_over;
pub mod peers;
pub mod pipe;
pub mod pump;
pub mod replica;
pub mod resolver;
pub mod sessions;
pub mod socket;
pub mod splice;
pub mod tcp;
mod threads;
pub mod turns;
pub mod udp;
