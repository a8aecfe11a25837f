//! An agent's attempts to connect.

use std::{net::SocketAddr, sync::Arc};

use adit_proto_core::{
    agent::supervisor::{DialId, LossKind},
    endpoint::AgentConfig as CoreConfig,
    link::tls::AgentTls,
};

use super::Agent;
use crate::{
    facts::Fact,
    node::{Ctx, Host},
};

impl Agent {
    pub(super) fn connect(
        &mut self,
        ctx: &mut Ctx<'_>,
        host: &Host,
        dial: DialId,
        addr: SocketAddr,
        (server_name, tls): (&str, Option<Arc<AgentTls>>),
    ) {
        let Some(tls) = tls else {
            return self.no_connection(ctx, host, dial);
        };
        let core = CoreConfig {
            tls,
            routes: Arc::clone(&self.config.routes),
            intervals: self.config.intervals,
        };
        let made = self
            .wires
            .endpoint
            .connect(ctx.now(), &core, addr, server_name, &self.env);
        let Ok(conn) = made else {
            return self.no_connection(ctx, host, dial);
        };
        self.dials.insert(dial, conn.id());
        self.names.insert(conn.id(), dial);
        self.wires.begin(ctx, host, conn, Some(dial));
    }

    /// An attempt came to nothing by this machine's own fault.
    fn no_connection(&mut self, ctx: &mut Ctx<'_>, host: &Host, dial: DialId) {
        let why = LossKind::LocalError;
        let fact = Fact::SupervisorTold {
            dial,
            why: Some(why),
        };
        ctx.note(host.id, &fact);
        self.supervisor.handle_closed(ctx.now(), dial, why);
    }
}
