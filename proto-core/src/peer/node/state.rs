//! What a [`Node`](super::Node) remembers.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Instant,
};

use bytes::Bytes;

use super::step::DialId;
use crate::{
    id::{CallId, ConnId},
    peer::{
        NodeId,
        breaker::{Breaker, BreakerSettings, Pass},
        rpc_type::RpcType,
    },
    target::Target,
};

/// Another node.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: Target,
    pub(super) breaker: Breaker,
    pub(super) pooled: Pooled,
    /// Calls that have passed the breaker, oldest first.
    pub(super) waiting: VecDeque<CallId>,
}

impl Peer {
    pub(super) fn new(now: Instant, address: Target, settings: BreakerSettings) -> Self {
        Self {
            address,
            breaker: Breaker::new(now, settings),
            pooled: Pooled::None,
            waiting: VecDeque::new(),
        }
    }
}

/// A node's one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pooled {
    None,
    Dialling(DialId),
    Up(ConnId),
}

impl Pooled {
    pub(super) fn connection(self) -> Option<ConnId> {
        match self {
            Self::Up(conn) => Some(conn),
            Self::None | Self::Dialling(_) => None,
        }
    }
}

/// Whom a call or a dial is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    Node(NodeId),
    /// Whoever answers there.
    Address,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) target: For,
    pub(super) kind: RpcType,
    pub(super) payload: Bytes,
    /// Attempts that were begun.
    pub(super) attempts: u32,
    /// How the present one passed the breaker.
    pub(super) pass: Pass,
    pub(super) state: CallState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallState {
    New,
    /// For its node's connection, or a place on it.
    Waiting {
        until: Instant,
    },
    /// The connection bounds it.
    UnderWay {
        conn: ConnId,
    },
    /// Until the next attempt.
    Resting {
        until: Instant,
    },
    /// It has a connection of its own, which is being made or used.
    Alone {
        until: Instant,
    },
}

impl CallState {
    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Self::New | Self::UnderWay { .. } => None,
            Self::Waiting { until } | Self::Resting { until } | Self::Alone { until } => {
                Some(until)
            }
        }
    }
}

/// A connection that is being made.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) id: DialId,
    pub(super) target: For,
    /// The call that it is made for alone.
    pub(super) call: Option<CallId>,
    /// How it passed the breaker.
    pub(super) pass: Pass,
    /// Once the driver has told.
    pub(super) conn: Option<ConnId>,
    pub(super) since: Instant,
    pub(super) until: Instant,
}

/// A connection that exists.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) role: LinkRole,
    /// Calls of this node on it.
    pub(super) calls: BTreeSet<CallId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkRole {
    /// Its version handshake is not over.
    Dialled(DialId),
    /// Calls to this node go over it, until it is retired.
    To(NodeId),
    /// It is closed when its calls are over.
    Retired,
    /// For one call.
    Alone(CallId),
    /// A peer dialled it.
    Inbound(Inbound),
}

impl LinkRole {
    pub(super) fn inbound(self) -> Option<Inbound> {
        match self {
            Self::Inbound(inbound) => Some(inbound),
            Self::Dialled(_) | Self::To(_) | Self::Retired | Self::Alone(_) => None,
        }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    Calls,
    Sessions,
}

/// A connection that a peer dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inbound {
    pub(super) carries: Carries,
    /// Whose it is: by its certificate where records say, else by the first message that was accepted on it.
    pub(super) node: Option<NodeId>,
    /// When it came up.
    pub(super) since: Instant,
    /// Something was accepted on it.
    pub(super) is_bound: bool,
    /// It is to end, as its node has newer ones.
    pub(super) is_leaving: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Call(CallId),
    Dial(DialId),
    /// Of a connection that a peer dialled, beside more than stay.
    Inbound(ConnId),
}
