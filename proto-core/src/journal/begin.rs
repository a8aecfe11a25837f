//! How a machine began.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    agent::supervisor::KeptPairs, gateway::dispatch::DispatchConfig, id::ConnId, route::RouteSet,
    target::Target,
};

/// What a machine was made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Begin {
    /// A connection with the agent's role.
    Agent {
        conn: ConnId,
        routes: RouteSet,
        advertise_interval: Duration,
        heartbeat_interval: Duration,
        unread: u64,
    },
    /// A connection with the gateway's role.
    Gateway {
        conn: ConnId,
        unread: u64,
    },
    Dispatch(DispatchConfig),
    Supervisor {
        gateways: Vec<Target>,
        kept: KeptPairs,
        /// Of the jitter.
        seed: [u8; 32],
    },
}

impl fmt::Display for Begin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent { conn, .. } => write!(f, "agent's connection {conn}"),
            Self::Gateway { conn, .. } => write!(f, "gateway's connection {conn}"),
            Self::Dispatch(_) => f.write_str("dispatch"),
            Self::Supervisor { .. } => f.write_str("supervisor"),
        }
    }
}
