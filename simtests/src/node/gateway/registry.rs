//! What a gateway shows of itself to oracles.

use adit_proto_core::{gateway::info::AgentInfo, id::AgentId};

use super::{Ctx, Gateway, Host};
use crate::facts::{Fact, RegistryRow};

impl Gateway {
    /// Tells whether a key is an agent's, by what is durable.
    #[must_use]
    pub fn admits(&self, agent: AgentId, key: [u8; 32]) -> bool {
        self.keys.admits(agent, key)
    }

    pub(super) fn show_registry(&mut self, ctx: &mut Ctx<'_>, host: &Host) {
        if !ctx.log.oracles().wants_registry() {
            return;
        }
        let row = |info: AgentInfo| RegistryRow {
            conn: info.conn,
            agent: info.identity.id,
            key: info.identity.spki_sha256,
            epoch: info.epoch,
            status: info.status,
            sessions: info.sessions,
        };
        let rows: Vec<RegistryRow> = self
            .dispatch
            .hub()
            .list(ctx.now())
            .into_iter()
            .map(row)
            .collect();
        if rows != self.registry {
            ctx.note(host.id, &Fact::Registry(&rows));
            self.registry = rows;
        }
    }
}
