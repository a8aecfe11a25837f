//! Behind a replica's handshake no byte is lost and none is invented.

use super::super::facts::Fact;

pub(super) fn observe(fact: &Fact<'_>) -> Option<String> {
    let Fact::Carried(carried) = fact else {
        return None;
    };
    (carried.said != carried.got).then(|| format!("{carried:?}, or others"))
}
