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
    /// Bytes from the user and to the user of each session whose socket was handed over.
    pub moved: BTreeMap<Slot, (u64, u64)>,
}
