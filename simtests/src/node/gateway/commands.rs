//! Between a gateway's node and one connection: commands there, events back.

use adit_proto_core::{
    gateway::dispatch::AgentEvent,
    id::{ConnId, SessionId, Slot},
    output::Event,
};

use super::Command;
use crate::{
    node::{Ctx, Host, wire::Wire},
    tcp::{Script, Side},
};

/// Does at a connection what the node asks for.
pub(super) fn carry_out(ctx: &mut Ctx<'_>, host: &Host, wire: &mut Wire, command: Command) {
    match command {
        Command::Open(attempt, session, target) => {
            if let Some(mut gateway) = wire.conn.as_gateway() {
                gateway.open_session(ctx.now(), attempt, session, &target);
            }
        }
        Command::Cancel(attempt) => {
            if let Some(mut gateway) = wire.conn.as_gateway() {
                gateway.cancel(attempt);
            }
        }
        Command::Discard(slot) => wire.discard(slot),
        Command::Close(reason) => wire.conn.close(ctx.now(), &reason),
        Command::Attach(slot, session, script) => {
            wire.attach(ctx, host, slot, (Side::User, session, script));
        }
        Command::Renewed(answer) => {
            if let Some(mut gateway) = wire.conn.as_gateway() {
                // One that comes too late for this connection is asked for again on the next.
                let _late = gateway.answer_renewal(answer);
            }
        }
    }
}

/// The connection went before the user's socket came to it, which is reset.
pub(super) fn lose_user(
    ctx: &mut Ctx<'_>,
    host: &Host,
    conn: ConnId,
    session: SessionId,
    script: Script,
) {
    let place = (conn, Slot(u64::MAX));
    let user = (Side::User, session, script);
    let leg = ctx.legs.attach(ctx.at, ctx.log, host.id, place, user);
    ctx.legs.abort(ctx.at, ctx.log, leg);
}

/// What the node is told of a connection's event.
pub(super) fn agent_event(event: Event) -> Option<AgentEvent> {
    match event {
        Event::Established { identity } => identity.map(|identity| AgentEvent::Registered {
            identity,
            renewed: false,
        }),
        Event::RoutesAccepted { epoch, routes } => Some(AgentEvent::Routes { epoch, routes }),
        Event::Seen => Some(AgentEvent::Seen),
        Event::SessionOpened { attempt, slot } => Some(AgentEvent::Opened { attempt, slot }),
        Event::SessionRefused { attempt, cause } => Some(AgentEvent::Failed { attempt, cause }),
        Event::SessionEnded { slot, .. } => Some(AgentEvent::SessionEnded { slot }),
        Event::PathSuspect => Some(AgentEvent::Suspect),
        Event::PathRecovered => Some(AgentEvent::Recovered),
        Event::Closed(_) => Some(AgentEvent::Closed),
        Event::SessionRequested { .. }
        | Event::SessionRest { .. }
        | Event::SessionReadable(_)
        | Event::SessionWritable(_)
        | Event::RenewalRequested { .. }
        | Event::RenewalAnswered(_)
        | Event::Peer(_) => None,
    }
}
