//! The tokio driver: sockets, timers and threads around `adit-io-common` and `adit-proto-core`.
//!
//! A connection and all of its sessions belong to one task on one thread: no lock, no hand-over between threads and
//! no task switch per chunk of bytes. The core decides; this crate performs.

pub mod agent;
mod connection_task;
mod dial;
mod gateway;
mod joined;
mod leg;
mod links;
mod peers;
mod pipe;
mod ready;
mod receive;
pub mod replica;
mod shards;
mod udp;

pub use gateway::Gateway;
pub use leg::socket;
pub use links::{LinkCounts, LinkSettings, Links, LinksConfig, LinksHandle};
pub use peers::Peers;
pub use pipe::Pipe;
