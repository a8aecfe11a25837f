//! The numbers that the core has to keep, written down once more: taken from the core itself they would move with a
//! fault in it.

use crate::At;

/// A connection of which no control message came for so long gets no new sessions (design 8.6).
pub(super) const AGENT_SILENT: At = At::from_secs(90);
/// Time that an agent's application has beyond the dial's.
pub(super) const ANSWER_GRACE: At = At::from_secs(1);
/// Candidates of one session.
pub(super) const ATTEMPTS_MAX: usize = 64;
/// Time for one address of a target.
pub(super) const DIAL_ADDRESS_TIMEOUT: At = At::from_secs(10);
/// Time between two addresses of a target, while none is given up (RFC 8305, 8).
pub(super) const DIAL_STAGGER: At = At::from_millis(250);
/// Time for one dial to a target (agent-tunnel 7.3).
pub(super) const DIAL_TIMEOUT: At = At::from_secs(20);
/// A candidate that has not answered by then is overtaken.
pub(super) const DISPATCH_STAGGER: At = At::from_millis(250);
/// Time for all candidates of one session together.
pub(super) const DISPATCH_TIMEOUT: At = At::from_secs(30);
/// An agent that failed so recently for a part of the network is not waited for.
pub(super) const FAILURE_MEMORY: At = At::from_secs(10);
/// A gateway that answers no heartbeat for so long is left.
pub(super) const HEARTBEAT_ACK_TIMEOUT: At = At::from_secs(10);
/// A path that is silent for so long gets no new sessions.
pub(super) const PATH_SUSPECT_AFTER: At = At::from_secs(3);
/// A path that is silent for so long is given up.
pub(super) const PATH_DEAD_AFTER: At = At::from_secs(4);
/// Time between two pings of a connection with sessions.
pub(super) const PING_BUSY: At = At::from_millis(300);
/// The same for an agent's without.
pub(super) const PING_IDLE_AGENT: At = At::from_millis(500);
/// The same for a gateway's without.
pub(super) const PING_IDLE_GATEWAY: At = At::from_secs(1);
/// Sessions that an agent lets a gateway ask for before it has heard of any.
pub(super) const REQUESTS_FIRST: u64 = 1_024;
/// Route sets that an agent may send at once, and how often one more.
pub(super) const REPLACEMENTS_BURST: u32 = 8;
/// See [`REPLACEMENTS_BURST`].
pub(super) const REPLACEMENT_INTERVAL: At = At::from_millis(500);
/// Routes that a gateway takes of one agent.
pub(super) const ROUTES_PER_AGENT_MAX: usize = 10_000;
/// Time without a session after which a draining connection is closed.
pub(super) const DRAIN_LINGER: At = At::from_secs(2);
/// How long a connection has to last before its key pair counts as accepted.
pub(super) const CREDENTIALS_PROOF_AFTER: At = At::from_secs(3);
/// One that stops closes its connections within this time.
pub(super) const STOP_PATIENCE: At = At::from_secs(1);
/// Longest wait before a renewal is tried again.
pub(super) const RENEWAL_RETRY_MAX: At = At::from_secs(6 * 3_600);
