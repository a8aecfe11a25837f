//! A replica takes the other end for another one exactly where that has proved to hold the key in this handshake, and
//! knows in time.

use std::time::Duration;

use super::super::facts::Fact;
use crate::At;

/// One handshake (replica-handshake 10).
const HANDSHAKE_WITHIN: At = Duration::from_secs(10);

pub(super) fn observe(fact: &Fact<'_>) -> Option<String> {
    let Fact::Linked(linked) = fact else {
        return None;
    };
    let (by, with, wanted) = (linked.by, linked.with, linked.wanted);
    if linked.after > HANDSHAKE_WITHIN {
        return Some(format!("a handshake of {by} took {:?}", linked.after));
    }
    (with != wanted).then(|| format!("{by} takes the other end for {with:?}, not for {wanted:?}"))
}
