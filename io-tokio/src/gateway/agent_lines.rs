//! Log lines about agents that come and go, bounded for each of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use adit_proto_core::id::AgentId;

use crate::lines::Lines;

/// Bounds the lines of each agent as [`Lines`] does: ten thousand agents that come back are told of one by one, an agent
/// that comes a thousand times is not. Clones share the bounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct AgentLines(Arc<Mutex<BTreeMap<AgentId, Lines>>>);

impl AgentLines {
    /// Tells whether a line about this agent may be written now.
    pub(crate) fn allow(&self, agent: AgentId) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Now and then those go that have been quiet; what is left came within the last seconds.
        if kept.len().is_power_of_two() && !kept.contains_key(&agent) {
            kept.retain(|_, lines| !lines.is_quiet());
        }
        let lines = || Lines::new(format!("agent connected or disconnected: {agent}"));
        kept.entry(agent).or_insert_with(lines).allow()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_agent_is_cut_short_and_many_are_not() {
        let lines = AgentLines::default();
        let id = |n| AgentId(Uuid::from_u128(n));
        assert_eq!((0..1_000).filter(|_| lines.allow(id(1))).count(), 20);
        assert!((2..2_000).all(|n| lines.allow(id(n))));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(lines.allow(id(1)));
        // Those that stay away are not kept for ever.
        assert!((5_000..5_100).all(|n| lines.allow(id(n))));
        assert!(lines.0.lock().unwrap().len() < 2_048);
    }
}
