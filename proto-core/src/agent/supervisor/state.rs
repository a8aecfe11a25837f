//! What a supervisor remembers of its gateways and connections.

use std::time::Instant;

use super::{Credentials, DialId, Round};
use crate::{
    agent::backoff::{Backoff, BackoffCause},
    limits::GATEWAYS_MAX,
    target::Target,
};

#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) target: Target,
    pub(super) backoff: Backoff,
    pub(super) ready_at: Instant,
    /// What it waits for; a network change ends only some waits.
    pub(super) cause: BackoffCause,
}

/// What is done for the next connection.
#[derive(Debug)]
pub(super) enum Phase {
    /// Nothing: one is up.
    Idle,
    Waiting {
        until: Instant,
    },
    Round(Round),
    Stopped,
}

/// A connection that was established.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) dial: DialId,
    pub(super) gateway: usize,
    pub(super) since: Instant,
    pub(super) credentials: Credentials,
    /// When its having lasted says something of its credentials.
    pub(super) proof_at: Option<Instant>,
}

/// Why a list of gateways is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// The list is empty.
    #[error("no gateway is configured")]
    NoGateway,
    /// The list is longer than [`GATEWAYS_MAX`].
    #[error("more than {GATEWAYS_MAX} gateways are configured")]
    TooManyGateways,
}
