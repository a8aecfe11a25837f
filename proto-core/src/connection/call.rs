//! Everything that can be asked of a connection, as a value: for journals (design 8.17).

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{AgentHandle, Connection, GatewayHandle, Role};
use crate::{
    agent::{advertise::AdvertiserConfig, role::AgentRole},
    close::CloseReason,
    env::WallClock,
    id::{AttemptId, SessionId, Slot},
    journal::{Begin, Journal, Recording},
    limits,
    link::{Link, tape::Tape},
    output::{Event, Input, Renewed},
    route::RouteSet,
    target::Target,
};

/// One call of a connection by its driver.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    /// The endpoint passed something of the engine's on.
    Heard,
    Unread(u64),
    Timeout,
    SocketRebound,
    /// A poll that found something to do. Which outputs were polled is in the journal as outputs.
    Process,
    Close(CloseReason),
    Stop(CloseReason),
    Accept(Slot),
    Refuse(Slot, String),
    SetRoutes(RouteSet),
    Renew(String),
    Drain,
    Open(AttemptId, SessionId, Target),
    Cancel(AttemptId),
    AnswerRenewal(Result<Renewed, String>),
    Read(Slot, u64),
    Write(Slot, u64),
    Finish(Slot),
    Reset(Slot, u32),
    TakeLeave(CloseReason),
}

impl Connection {
    /// Begins to take down what happens.
    pub(crate) fn record_in(&mut self, now: Instant, journal: &Journal, begin: &Begin) {
        let mut recording = Recording::begin(journal, now, begin);
        if matches!(self.role, Role::Gateway(_)) {
            // Anybody can begin handshakes, and so fill a journal.
            recording.hold();
        }
        self.link.record(recording);
    }

    /// Makes one that does again what another did; none where that could not have begun so.
    pub(crate) fn replay(now: Instant, begin: Begin, link: Link) -> Option<Self> {
        let clock = Arc::new(NoClock);
        match begin {
            Begin::Agent {
                conn,
                routes,
                advertise_interval,
                heartbeat_interval,
                unread,
            } => {
                let intervals = AdvertiserConfig {
                    advertise_interval,
                    heartbeat_interval,
                };
                let role = AgentRole::new(intervals, Arc::new(routes)).ok()?;
                Some(Self::agent(now, conn, link, role, clock, unread))
            }
            Begin::Gateway { conn, unread } => Some(Self::gateway(now, conn, link, clock, unread)),
            Begin::Dispatch(_) | Begin::Supervisor { .. } => None,
        }
    }

    pub(crate) fn recording(&mut self) -> &mut Recording {
        self.link.recording()
    }

    pub(crate) fn tape(&mut self) -> Option<&mut Tape> {
        self.link.tape()
    }

    /// Does once more what was done. Answers that the driver got then nobody gets now.
    pub(crate) fn apply(&mut self, now: Instant, call: Call) {
        match call {
            Call::Heard => self.heard(now),
            Call::Unread(bytes) => self.heed_unread(now, bytes),
            Call::Timeout => self.handle_input(now, Input::Timeout),
            Call::SocketRebound => self.handle_input(now, Input::SocketRebound),
            Call::Process => self.process_again(now),
            Call::Close(reason) => self.close(now, &reason),
            Call::Stop(reason) => self.stop(now, reason),
            Call::TakeLeave(reason) => self.take_leave(now, reason),
            Call::Read(slot, max) => {
                let max = usize::try_from(max).unwrap_or(usize::MAX);
                let _read = self.read_session(slot, max, &mut VecDeque::new());
            }
            Call::Write(slot, len) => {
                let _written = self.write_session(slot, &mut blank(len));
            }
            Call::Finish(slot) => {
                let _finished = self.finish_session(slot);
            }
            Call::Reset(slot, code) => self.reset_session(slot, code),
            Call::Accept(slot) => self.as_agent_again(|agent| agent.accept(slot).is_ok()),
            Call::Refuse(slot, reason) => {
                self.as_agent_again(|agent| agent.refuse(slot, &reason).is_ok());
            }
            Call::SetRoutes(routes) => {
                self.as_agent_again(|agent| agent.set_routes(now, Arc::new(routes)).is_ok());
            }
            Call::Renew(csr_pem) => self.as_agent_again(|agent| agent.renew(csr_pem).is_ok()),
            Call::Drain => self.as_agent_again(|agent| agent.drain()),
            Call::Open(attempt, session, target) => self.as_gateway_again(|gateway| {
                gateway.open_session(now, attempt, session, &target);
            }),
            Call::Cancel(attempt) => self.as_gateway_again(|gateway| gateway.cancel(attempt)),
            Call::AnswerRenewal(answer) => {
                self.as_gateway_again(|gateway| gateway.answer_renewal(answer));
            }
        }
    }

    fn as_agent_again<T>(&mut self, call: impl FnOnce(&mut AgentHandle<'_>) -> T) {
        if let Some(mut agent) = self.as_agent() {
            call(&mut agent);
        }
    }

    fn as_gateway_again<T>(&mut self, call: impl FnOnce(&mut GatewayHandle<'_>) -> T) {
        if let Some(mut gateway) = self.as_gateway() {
            call(&mut gateway);
        }
    }

    /// What a poll did that found something to do. What it had to say to the endpoint, nobody hears.
    fn process_again(&mut self, now: Instant) {
        self.process(now);
        self.notices.clear();
    }
}

/// What the clock said then is on the tape.
struct NoClock;

impl WallClock for NoClock {
    fn unix_ms(&self) -> u64 {
        0
    }
}

/// What a journal says of an event, without users' bytes.
pub(crate) fn describe(event: &Event) -> String {
    if let Event::SessionRest { slot, rest } = event {
        let len: usize = rest.iter().map(Bytes::len).sum();
        return format!("SessionRest {{ slot: {slot:?}, len: {len} }}");
    }
    format!("{event:?}")
}

/// Stands for what a user sent. No pump writes more at a time than a stream's window, whatever a journal claims.
fn blank(len: u64) -> Bytes {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    vec![0; len.min(limits::STREAM_WINDOW as usize)].into()
}
