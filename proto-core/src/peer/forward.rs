//! The header of a session that one gateway hands to another (design 8.15; docs/protocol-peer.md, "Forwarded sessions").
//!
//! One stream carries one session: a header, its answer, and then the session's own bytes. Both are under the cluster's
//! key, bound to the connection as envelopes are, so that neither is worth anything elsewhere.

mod answer;
mod fault;
mod header;
pub(crate) mod role;
#[cfg(test)]
mod tests;

pub use self::{
    answer::{Answer, AnswerReader, Answering, Status},
    fault::ForwardError,
    header::{Forward, ForwardReader, HEADER_LEN_MAX, Unverified},
};
use super::{
    NodeId,
    bound::{self, ConnectionSecret, Direction},
    key::{KeyId, KeyRing, MacKey},
};

/// Label with which TLS exports the secret of such a connection; the context is empty and the length 32 bytes.
pub const EXPORTER_LABEL: &[u8] = b"adit-forward/1";

/// Version of header and answer.
const VERSION: u8 = 1;

/// The key of one direction, in a session between two nodes.
fn key(
    keys: &KeyRing,
    connection: &ConnectionSecret,
    key_id: KeyId,
    direction: Direction,
    (from, to): (NodeId, NodeId),
) -> Option<MacKey> {
    let cluster = &keys.by_id(key_id)?.secret;
    bound::derive(cluster, connection, key_id, direction, from, to)
}
