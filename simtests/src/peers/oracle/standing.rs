//! A certificate that was taken out of the records opens no door, nor keeps one open: nothing is executed that came on a
//! connection from before the node showed another one.

use std::collections::BTreeMap;

use adit_proto_core::peer::NodeId as PeerId;

use super::super::facts::Fact;
use crate::At;

#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Since when nodes show the certificate that they have.
    certified: BTreeMap<PeerId, At>,
    /// What began before then is worth nothing.
    worthless: BTreeMap<PeerId, At>,
}

impl Standing {
    pub(super) fn observe(&mut self, at: At, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Certified(node) => {
                self.certified.insert(*node, at);
                None
            }
            Fact::Distrusted(node) => {
                let since = self.certified.get(node)?;
                self.worthless.insert(*node, *since);
                None
            }
            Fact::Executed(executed) => {
                let from = executed.from;
                let is_worthless = executed.since < *self.worthless.get(&from)?;
                is_worthless.then(|| format!("{from} was heard on a connection from {:?}, with a certificate that nobody has in its records", executed.since))
            }
            _ => None,
        }
    }
}
