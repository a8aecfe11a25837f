//! What operators change in a running gateway.

use adit_proto_core::{
    close::CloseReason, endpoint::EndpointLimits, gateway::dispatch::DispatchConfig, id::AgentId,
    identity::AgentIdentity,
};

use super::{Command, Ctx, Gateway, Host, Message};
use crate::{facts::Fact, faults::Order};

impl Gateway {
    /// Does what an operator asks for; what has to be durable first is in force a moment later.
    pub fn order(&mut self, ctx: &mut Ctx<'_>, host: &Host, order: &Order) {
        match order {
            Order::Delete(agent) => self.keys.delete(ctx, *agent),
            Order::Enroll(agent, key) => self.keys.enroll(ctx, *agent, *key),
            Order::Drain(agent, drained) => {
                let (agent, drained) = (*agent, *drained);
                ctx.note(host.id, &Fact::DrainTold { agent, drained });
                self.dispatch.set_drained(agent, drained);
            }
            Order::Configure(settings) => {
                let (limits, dispatch) = settings.as_ref();
                self.configure(ctx, host, *limits, dispatch);
            }
            Order::Certificate => {
                ctx.note(host.id, &Fact::Recertified);
                let set = self.wires.endpoint.set_server_tls(&self.tls, &host.env());
                debug_assert!(set.is_ok(), "it was good at the start");
            }
        }
    }

    fn configure(
        &mut self,
        ctx: &mut Ctx<'_>,
        host: &Host,
        limits: EndpointLimits,
        dispatch: &DispatchConfig,
    ) {
        ctx.note(host.id, &Fact::Configured { limits, dispatch });
        self.wires.endpoint.set_limits(limits);
        self.dispatch.set_config(dispatch.clone());
    }

    /// The store has forgotten an agent: its connections go, but for those with a key of its next enrolment.
    pub(super) fn deleted(&mut self, ctx: &mut Ctx<'_>, host: &Host, agent: AgentId) {
        ctx.note(host.id, &Fact::Deleted(agent));
        let keys = &self.keys;
        let stays = |identity: &AgentIdentity| keys.admits(identity.id, identity.spki_sha256);
        for conn in self.dispatch.disconnect(ctx.now(), agent, stays) {
            let close = Command::Close(CloseReason::Revoked);
            self.push(ctx, host, Message::ToConnection(conn, close));
        }
        // What is listed from here on, and not only once the connections are closed.
        self.drain_dispatch(ctx, host);
        self.registry.clear();
        self.show_registry(ctx, host);
    }
}
