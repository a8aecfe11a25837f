//! Two nodes that nothing disturbs any more talk within a bounded time, whichever of them restarted.

use std::time::Duration;

use super::super::facts::Fact;
use crate::At;

/// Time within which a healthy pair talks: a dial that is under way may take 15 s to be given up, and a breaker then
/// rests for 10 s; a call that waited for either has 5 s more.
pub(in crate::peers) const TALKS_WITHIN: At = Duration::from_secs(30);

pub(super) fn observe(fact: &Fact<'_>) -> Option<String> {
    match fact {
        Fact::Talked { with, after } if *after > TALKS_WITHIN => {
            Some(format!("it took {after:?} until {with} answered"))
        }
        _ => None,
    }
}
