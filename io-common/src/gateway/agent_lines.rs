//! Log lines that one agent can cause, bounded for each of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use adit_proto_core::id::AgentId;

use crate::lines::Lines;

/// Bounds the lines of each agent as [`Lines`] does: ten thousand agents that come back are told of one by one, an agent
/// that comes a thousand times is not. A new connection does not begin anew. Clones share the bounds.
#[derive(Clone, Debug, Default)]
pub struct AgentLines(Arc<Mutex<BTreeMap<(AgentId, About), Lines>>>);

/// Kinds of lines, each of which is bounded by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    /// It comes and goes.
    Visits,
    /// Its path stalls and works again.
    Path,
    /// It advertises.
    Routes,
    /// It asks for certificates.
    Renewals,
    /// It sends what the protocol has no use for.
    Oddities,
}

impl About {
    /// The message of the lines, for the one that tells how many are missing.
    fn line(self) -> &'static str {
        match self {
            Self::Visits => "agent connected or disconnected",
            Self::Path => "path to the agent",
            Self::Routes => "routes accepted",
            Self::Renewals => "certificate renewed or not renewed",
            Self::Oddities => "the agent sent what the protocol has no use for",
        }
    }
}

impl AgentLines {
    /// Tells whether a line of this kind about this agent may be written now.
    pub(super) fn allow(&self, agent: AgentId, about: About) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Now and then those go that have been quiet; what is left came within the last seconds.
        if kept.len().is_power_of_two() && !kept.contains_key(&(agent, about)) {
            kept.retain(|_, lines| !lines.is_quiet());
        }
        let lines = || Lines::new(format!("{}: {agent}", about.line()));
        kept.entry((agent, about)).or_insert_with(lines).allow()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn one_agent_is_cut_short_and_many_are_not() {
        let lines = AgentLines::default();
        let id = |n| AgentId(Uuid::from_u128(n));
        assert_eq!(
            (0..1_000)
                .filter(|_| lines.allow(id(1), About::Visits))
                .count(),
            20
        );
        // Another kind has its own share.
        assert_eq!(
            (0..1_000)
                .filter(|_| lines.allow(id(1), About::Path))
                .count(),
            20
        );
        assert!((2..2_000).all(|n| lines.allow(id(n), About::Visits)));
    }

    #[test]
    fn those_that_stay_away_are_not_kept_for_ever() {
        let lines = AgentLines::default();
        let id = |n| AgentId(Uuid::from_u128(n));
        let quiet = (0..1_023).map(|n| ((id(n), About::Path), Lines::new("x")));
        lines.0.lock().unwrap().extend(quiet);
        assert!(lines.allow(id(2_000), About::Path));
        assert!(lines.allow(id(2_001), About::Path));
        assert_eq!(lines.0.lock().unwrap().len(), 2);
    }
}
