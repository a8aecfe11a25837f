//! What a connection's task tells an operator who looks at it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use adit_proto_core::id::Slot;

/// A connection as it is now.
#[derive(Clone, Debug)]
pub struct Glance {
    /// The agent's present address.
    pub remote: SocketAddr,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// When a peer's certificate ends, in seconds of Unix time; none of an agent's connection.
    pub certificate_end: Option<i64>,
    /// Bytes from the user and to the user of each session whose socket was handed over.
    pub moved: BTreeMap<Slot, (u64, u64)>,
}
