//! Pure codecs: bytes to values and back; no state beyond a frame, no time.
// Nothing a peer sends may panic; tests may.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub mod connect;
pub mod control;
pub mod frame;
mod reader;
mod writer;

/// ALPN value of the agent tunnel; its suffix is the major version of the protocol (agent-tunnel 2 and 8).
pub const AGENT_TUNNEL_ALPN: &[u8] = b"gw-agent-tunnel/1";
