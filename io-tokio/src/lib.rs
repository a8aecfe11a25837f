//! The tokio driver: sockets, timers and threads around `adit-proto-core`.
//!
//! A connection and all of its sessions belong to one task on one thread: no lock, no hand-over between threads and
//! no task switch per chunk of bytes. The core decides; this crate performs.

pub mod agent;
mod burst;
mod clock;
mod clocks;
mod connection_task;
mod dial;
pub mod gateway;
mod glance;
mod handoff;
mod lines;
mod over;
mod pipe;
mod pump;
mod ready;
mod receive;
mod resolver;
mod sessions;
mod shards;
mod socket;
mod splice;
mod tcp;
mod udp;

pub use clock::{SystemClock, system_env};
pub use gateway::{GatewayHandle, OpenRequest, PendingSession, SessionRow, Stopped};
pub use glance::Glance;
pub use lines::Lines;
pub use pipe::{PIPE_LEN, Pipe};
pub use socket::Socket;
pub use tcp::tune;
