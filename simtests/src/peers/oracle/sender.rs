//! A request is taken for nobody's but that of the node whose certificate its connection has shown.

use super::super::facts::Fact;

pub(super) fn observe(fact: &Fact<'_>) -> Option<String> {
    let Fact::Executed(executed) = fact else {
        return None;
    };
    let holder = executed.holder.node;
    (holder != Some(executed.from)).then(|| {
        format!(
            "{} was believed on a connection of {holder:?}",
            executed.from
        )
    })
}
