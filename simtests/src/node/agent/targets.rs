//! The targets of the sessions that a gateway asks for.

use adit_proto_core::{
    agent::dial::{Dial, DialStep},
    id::{ConnId, SessionId, Slot},
};

use super::{Agent, Answer, Ctx, Host, Message};
use crate::{
    At,
    facts::Fact,
    tcp::{Script, Side},
};

/// A session that the gateway asks for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) session: SessionId,
    pub(super) dial: Dial,
    pub(super) timer: Option<At>,
}

impl Agent {
    pub(super) fn forget(&mut self, conn: ConnId, slot: Slot) {
        if let Some(wanted) = self.wanted.remove(&(conn, slot))
            && let Some(timer) = wanted.timer
        {
            self.dial_timers.remove(&(timer, (conn, slot)));
        }
    }

    pub(super) fn run_dial(
        &mut self,
        ctx: &mut Ctx<'_>,
        host: &Host,
        place: (ConnId, Slot),
        act: impl FnOnce(&mut Dial, std::time::Instant),
    ) {
        let Some(wanted) = self.wanted.get_mut(&place) else {
            return;
        };
        act(&mut wanted.dial, ctx.now());
        let (session, (conn, slot)) = (wanted.session, place);
        let mut answers = Vec::new();
        while let Some(step) = wanted.dial.poll_step() {
            let fact = Fact::Dial {
                place: Some(place),
                session,
                step: &step,
            };
            ctx.log.note(ctx.at, host.id, &fact);
            match step {
                DialStep::Resolve(name) => {
                    let found = ctx.internet.resolve(host.id, &name);
                    answers
                        .extend(found.map(|(after, f)| (after, Answer::Resolved(conn, slot, f))));
                }
                DialStep::Connect(index, addr) => {
                    let outcome = ctx.internet.connect(host.id, addr);
                    answers.extend(outcome.map(|(after, outcome)| {
                        (after, Answer::Connected(conn, slot, index, outcome))
                    }));
                }
                DialStep::Abort(_) => {}
                DialStep::Won(_) => {
                    let message = Message::Dialled(conn, slot, Ok(()));
                    self.bus.push_back((ctx.at + host.bus_delay, message));
                }
                DialStep::Failed(error) => {
                    let message = Message::Dialled(conn, slot, Err(error.to_string()));
                    self.bus.push_back((ctx.at + host.bus_delay, message));
                }
            }
        }
        let timer = wanted.dial.poll_timeout().map(|at| ctx.since(at));
        if let Some(old) = std::mem::replace(&mut wanted.timer, timer) {
            self.dial_timers.remove(&(old, place));
        }
        self.dial_timers.extend(timer.map(|at| (at, place)));
        for (after, answer) in answers {
            self.later(ctx.at + after, answer);
        }
    }

    /// A dial ended; the gateway may have given the session up meanwhile.
    pub(super) fn dialled(
        &mut self,
        ctx: &mut Ctx<'_>,
        host: &Host,
        conn: ConnId,
        slot: Slot,
        outcome: Result<(), String>,
    ) {
        let session = self.wanted.get(&(conn, slot)).map(|wanted| wanted.session);
        self.forget(conn, slot);
        let (Some(session), Some(wire)) = (session, self.wires.touch(conn)) else {
            return;
        };
        let Some(mut agent) = wire.conn.as_agent() else {
            return;
        };
        if self.config.mute {
            return;
        }
        ctx.note(host.id, &Fact::Decided(conn, slot));
        match outcome {
            Ok(()) => {
                if agent.accept(slot).is_ok() {
                    let script = ctx.scripts.get(&session).cloned();
                    let script = script.unwrap_or_else(Script::silent);
                    wire.attach(ctx, host, slot, (Side::Target, session, script));
                }
            }
            Err(reason) => {
                // One that the gateway gave up needs no answer.
                let _given_up = agent.refuse(slot, &reason);
            }
        }
    }
}
