//! Names of things, one type each, so that no bare integer travels.

use std::fmt;

use serde::{Deserialize, Serialize};

use uuid::Uuid;

/// Names an agent for its whole life: the UUID in the `urn:uuid:` URI SAN of its certificate (agent-tunnel 2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AgentId(pub Uuid);

/// Names a session across the whole gateway, whichever connection carries it (design 8.2).
///
/// It travels in the `ConnectRequest` for log correlation only (agent-tunnel 7.1); a peer may repeat it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub Uuid);

/// Names one QUIC connection of one endpoint; never used twice in the life of the endpoint, nor by a gateway's endpoint for
/// agents and by the one for its peers, nor for the way to a peer over replica links.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnId(pub u64);

/// Names one session's place on one connection; never used twice on that connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u64);

/// Names one try to open a session through one connection; never used twice in the life of a `Dispatch`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId(pub u64);

/// Names one call of this node to a peer; never used twice in the life of a `peer::node::Node`. An attempt that is made
/// again keeps the name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallId(pub u64);

macro_rules! shows {
    ($($name:ident => $prefix:literal),* $(,)?) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

shows!(AgentId => "", SessionId => "", ConnId => "c", Slot => "s", AttemptId => "t", CallId => "r");
