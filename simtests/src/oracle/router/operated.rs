//! What operators change at a gateway, as the reference router takes it.

use super::Gateway;
use crate::{At, facts::Fact};

impl Gateway {
    pub(super) fn operated(&mut self, at: At, fact: &Fact<'_>) {
        if let Fact::DrainTold { agent, drained } = fact {
            match drained {
                true => self.drained.insert(*agent),
                false => self.drained.remove(agent),
            };
            for known in self.conns.iter_mut().filter(|k| k.way.agent == *agent) {
                known.changed = at;
            }
        } else if let Fact::Configured { dispatch, .. } = fact {
            let conns: Vec<_> = self.conns.iter().map(|known| known.way.conn).collect();
            for conn in &conns {
                self.note_full(at, *conn);
            }
            self.config = (*dispatch).clone();
            for known in &mut self.conns {
                known.changed = at;
            }
        } else if let Fact::Deleted(agent) = fact {
            let of_it = self.conns.iter().filter(|k| k.way.agent == *agent);
            let conns: Vec<_> = of_it.map(|known| known.way.conn).collect();
            for conn in conns {
                self.closed(at, conn);
            }
        }
    }
}
