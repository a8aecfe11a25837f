//! Targets that a gateway dials itself.

use std::net::{IpAddr, SocketAddr};

use adit_proto_core::{
    agent::dial::{ConnectErrorKind, DialStep, ResolveError},
    id::SessionId,
};

use super::{Ctx, Gateway, Host};
use crate::{At, facts::Fact};

/// What the network answered to a dial.
#[derive(Debug)]
pub(super) enum DialAnswer {
    Resolved(Result<Vec<IpAddr>, ResolveError>),
    Connected(usize, Result<(), ConnectErrorKind>),
}

impl Gateway {
    pub(super) fn run_dials(&mut self, ctx: &mut Ctx<'_>, host: &Host) {
        while let Some((&key, _)) = self
            .answers
            .first_key_value()
            .filter(|((at, _), _)| *at <= ctx.at)
        {
            let Some((session, answer)) = self.answers.remove(&key) else {
                break;
            };
            if let Some(dial) = self.dials.get_mut(&session) {
                if let DialAnswer::Connected(index, outcome) = &answer {
                    let fact = Fact::DialTold {
                        place: None,
                        session,
                        index: *index,
                        made: outcome.is_ok(),
                    };
                    ctx.note(host.id, &fact);
                }
                match answer {
                    DialAnswer::Resolved(found) => dial.handle_resolved(ctx.now(), found),
                    DialAnswer::Connected(index, Ok(())) => {
                        dial.handle_connected(ctx.now(), index);
                    }
                    DialAnswer::Connected(index, Err(kind)) => {
                        dial.handle_failed(ctx.now(), index, kind);
                    }
                }
            }
        }
        let sessions: Vec<SessionId> = self.dials.keys().copied().collect();
        for session in sessions {
            self.run_dial(ctx, host, session);
        }
    }

    fn run_dial(&mut self, ctx: &mut Ctx<'_>, host: &Host, session: SessionId) {
        let Some(dial) = self.dials.get_mut(&session) else {
            return;
        };
        if dial.poll_timeout().is_some_and(|at| at <= ctx.now()) {
            dial.handle_timeout(ctx.now());
        }
        let mut outcome = None;
        while let Some(step) = dial.poll_step() {
            let place = None;
            ctx.note(
                host.id,
                &Fact::Dial {
                    place,
                    session,
                    step: &step,
                },
            );
            let answer = match step {
                DialStep::Resolve(name) => ctx
                    .internet
                    .resolve(host.id, &name)
                    .map(|(after, found)| (after, DialAnswer::Resolved(found))),
                DialStep::Connect(index, addr) => connect(ctx, host, index, addr),
                DialStep::Abort(_) => None,
                DialStep::Won(_) => {
                    outcome = Some(Ok(()));
                    None
                }
                DialStep::Failed(error) => {
                    outcome = Some(Err(error.to_string()));
                    None
                }
            };
            if let Some((after, answer)) = answer {
                self.answer_count += 1;
                let key = (ctx.at + after, self.answer_count);
                self.answers.insert(key, (session, answer));
            }
        }
        if let Some(outcome) = outcome {
            self.dials.remove(&session);
            self.dispatch.handle_direct(ctx.now(), session, outcome);
        }
    }
}

fn connect(ctx: &Ctx<'_>, host: &Host, index: usize, addr: SocketAddr) -> Option<(At, DialAnswer)> {
    let (after, outcome) = ctx.internet.connect(host.id, addr)?;
    Some((after, DialAnswer::Connected(index, outcome)))
}
