//! The `adit` binary as a library, so that its parts can be tested one by one.
//!
//! Without the feature `gateway` there is the agent alone, and with `agent-mio` as its one driver no tokio.

#[cfg(not(any(feature = "agent-tokio", feature = "agent-mio")))]
compile_error!("name a driver for the agent: the feature `agent-mio` or `agent-tokio`");

pub mod admin;
pub mod args;
pub mod config;
#[cfg(feature = "gateway")]
pub mod control;
#[cfg(feature = "gateway")]
pub mod demo_target;
pub mod enroll;
pub mod exit;
#[cfg(feature = "gateway")]
pub mod http;
#[cfg(feature = "gateway")]
pub mod ingress;
#[cfg(feature = "gateway")]
pub mod live;
pub mod log;
pub mod output;
#[cfg(feature = "gateway")]
pub mod peers;
pub mod pki;
#[cfg(feature = "gateway")]
pub mod presence;
pub mod process;
#[cfg(feature = "gateway")]
pub mod regular;
pub mod run;
#[cfg(feature = "gateway")]
mod share;
pub mod state;
#[cfg(feature = "gateway")]
pub mod store;
#[cfg(feature = "gateway")]
pub mod token;
#[cfg(feature = "gateway")]
pub mod usage;
