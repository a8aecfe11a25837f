//! One QUIC connection with the role that is played on it: inputs to link to role to outputs.

mod agent_side;
mod call;
mod control;
mod deadlines;
mod events;
mod farewell;
mod forward_side;
mod gateway_side;
mod hoard;
mod path;
mod peer;
mod sessions;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

pub(crate) use self::call::{Call, describe};
pub use self::{
    agent_side::{AgentHandle, CommandError},
    forward_side::ForwardHandle,
    gateway_side::GatewayHandle,
    peer::{CallRefused, PeerHandle, PeerStanding},
};
use self::{control::ControlChannel, farewell::Farewell, hoard::Hoard, sessions::Carried};
use crate::{
    agent::role::AgentRole,
    close::{CODE_FAULT, CloseReason, Closed, PeerFault},
    env::WallClock,
    gateway::role::GatewayRole,
    id::{ConnId, Slot},
    journal::wait,
    limits,
    link::{FromConnection, FromEndpoint, Link, StreamRef},
    liveness::Liveness,
    output::{Event, Input, Output, ToConnection, ToEndpoint, TransmitBuf},
    peer::{forward::role::ForwardRole, role::PeerRole},
};

/// One QUIC connection and the agent's or the gateway's role on it.
///
/// **Drain rule**: after any call that takes `&mut Connection`, poll until [`Output::Wait`]. Breaking it only delays
/// output, never loses it (style 2.2).
#[derive(Debug)]
pub struct Connection {
    id: ConnId,
    link: Link,
    role: Role,
    state: State,
    control: ControlChannel,
    /// From the handshake's end on.
    liveness: Option<Liveness>,
    /// The endpoint passed something on at this time, which mostly is a datagram. Whether that was the peer's, its
    /// counters tell.
    heard_at: Option<Instant>,
    /// Open sessions. Those being set up are with the role.
    sessions: BTreeMap<Slot, Carried>,
    /// Set-up messages that the peer's flow control did not take at once.
    unsent: BTreeMap<Slot, Unsent>,
    /// Deadlines of sessions being set up.
    deadlines: BTreeSet<(Instant, Slot)>,
    events: VecDeque<Event>,
    notices: VecDeque<FromConnection>,
    counters: Counters,
    wall_clock: WallClockRef,
    /// Streams of sessions whose end was sent and is not acknowledged.
    unacked: BTreeSet<Slot>,
    /// It is to be closed here as soon as it may be.
    farewell: Option<Farewell>,
    /// What came and is not read.
    hoard: Hoard,
    /// Something happened since the engine was last asked what it has to say.
    dirty: bool,
}

#[derive(Debug)]
enum Role {
    Agent(Box<AgentRole>),
    Gateway(Box<GatewayRole>),
    Peer(Box<PeerRole>),
    Forward(Box<ForwardRole>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Handshaking { begun: Instant, deadline: Instant },
    Up,
    Closed,
}

#[derive(Debug)]
struct Unsent {
    rest: Bytes,
    finish: bool,
}

/// What a connection passed over without ending for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Control messages of a protocol version that is not spoken here (agent-tunnel 8).
    pub versions_ignored: u64,
    /// Streams that the protocol has no use for; they were reset.
    pub streams_stray: u64,
    /// Session requests or answers that were no message.
    pub setups_malformed: u64,
    /// Session requests that ended, or took too long, before they were whole.
    pub setups_abandoned: u64,
}

struct WallClockRef(Arc<dyn WallClock>);

impl std::fmt::Debug for WallClockRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WallClock")
    }
}

impl Connection {
    pub(crate) fn agent(
        now: Instant,
        id: ConnId,
        link: Link,
        role: AgentRole,
        clock: Arc<dyn WallClock>,
        unread: u64,
    ) -> Self {
        Self::new(now, id, link, Role::Agent(Box::new(role)), clock, unread)
    }

    pub(crate) fn gateway(
        now: Instant,
        id: ConnId,
        link: Link,
        clock: Arc<dyn WallClock>,
        unread: u64,
    ) -> Self {
        let role = Role::Gateway(Box::new(GatewayRole::new(now)));
        Self::new(now, id, link, role, clock, unread)
    }

    pub(crate) fn peer(
        now: Instant,
        id: ConnId,
        link: Link,
        role: PeerRole,
        clock: Arc<dyn WallClock>,
        unread: u64,
    ) -> Self {
        Self::new(now, id, link, Role::Peer(Box::new(role)), clock, unread)
    }

    fn new(
        now: Instant,
        id: ConnId,
        link: Link,
        role: Role,
        clock: Arc<dyn WallClock>,
        unread: u64,
    ) -> Self {
        let patience = match role {
            Role::Agent(_) => limits::UNANSWERED_TIMEOUT,
            Role::Gateway(_) => limits::HANDSHAKE_TIMEOUT,
            Role::Peer(_) | Role::Forward(_) => limits::PEER_HELLO_TIMEOUT,
        };
        Self {
            id,
            link,
            role,
            state: State::Handshaking {
                begun: now,
                deadline: now + patience,
            },
            control: ControlChannel::new(),
            liveness: None,
            heard_at: None,
            sessions: BTreeMap::new(),
            unsent: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            events: VecDeque::new(),
            notices: VecDeque::new(),
            counters: Counters::default(),
            wall_clock: WallClockRef(clock),
            unacked: BTreeSet::new(),
            farewell: None,
            hoard: Hoard::new(unread),
            dirty: true,
        }
    }

    /// The connection's name, unique for the life of its endpoint.
    #[must_use]
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The peer's present address.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.link.remote()
    }

    /// Smoothed round-trip time.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.link.rtt()
    }

    /// What was passed over so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Tells whether the connection may be dropped: it is closed, its farewell is said, and both were polled.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.link.is_drained() && self.events.is_empty()
    }

    /// Takes what the outside world did. A bad peer becomes [`Event::Closed`], never an error here.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::FromEndpoint(ToConnection(FromEndpoint::Engine(event))) => {
                self.heard(now);
                self.link.handle_event(event);
            }
            Input::FromEndpoint(ToConnection(FromEndpoint::Unread(bytes))) => {
                self.heed_unread(now, bytes);
            }
            Input::Timeout => {
                self.link.called(Some(now), || Call::Timeout);
                self.dirty = true;
                self.handle_timeout(now);
            }
            Input::SocketRebound => {
                self.link.called(Some(now), || Call::SocketRebound);
                self.dirty = true;
                self.link.handle_rebound();
            }
        }
    }

    /// Gives the next output; [`Output::Wait`] when there is none for now.
    pub fn poll_output(&mut self, now: Instant, buf: &mut TransmitBuf) -> Output {
        if self.dirty {
            self.process(now);
        }
        if let Some(notice) = self.notices.pop_front().or_else(|| self.link.poll_notice()) {
            return Output::Notice(ToEndpoint(notice));
        }
        if let Some(event) = self.poll_event() {
            return Output::Event(event);
        }
        if buf.is_free()
            && let Some(transmit) = buf.fill(|max, bytes| self.link.poll_transmit(now, max, bytes))
        {
            return Output::Transmit(transmit);
        }
        self.link.recording().flush();
        Output::Wait(self.poll_timeout())
    }

    /// The next thing for the application.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.unmark(&event);
        self.link.recording().output(|_| describe(&event));
        Some(event)
    }

    /// Closes the connection; [`Event::Closed`] follows. Does nothing on a closed one.
    pub fn close(&mut self, now: Instant, reason: &CloseReason) {
        self.link.called(Some(now), || Call::Close(reason.clone()));
        self.shut(now, reason.code(), reason.text(), Closed::Local);
    }

    /// Closes the connection as soon as everything of the sessions that have ended is acknowledged, and at most
    /// [`STOP_PATIENCE`](limits::STOP_PATIENCE) later; those that are open are cut then. One that is not established yet
    /// is closed at once. [`Event::Closed`] follows.
    pub fn stop(&mut self, now: Instant, reason: CloseReason) {
        self.link.called(Some(now), || Call::Stop(reason.clone()));
        self.dirty = true;
        self.farewell = Some(Farewell::WhenSent {
            reason,
            until: Some(now + limits::STOP_PATIENCE),
        });
    }

    /// As [`stop`](Self::stop), but however long it takes. A later [`stop`](Self::stop) bounds it.
    pub fn take_leave(&mut self, now: Instant, reason: CloseReason) {
        (self.link).called(Some(now), || Call::TakeLeave(reason.clone()));
        self.dirty = true;
        self.farewell = Some(Farewell::WhenSent {
            reason,
            until: None,
        });
    }

    fn heard(&mut self, now: Instant) {
        self.link.called(Some(now), || Call::Heard);
        self.dirty = true;
        self.heard_at = Some(now);
    }

    fn heed_unread(&mut self, now: Instant, bytes: u64) {
        self.link.called(Some(now), || Call::Unread(bytes));
        self.dirty = true;
        self.give_back(now, bytes);
    }

    /// Asks the engine what happened and lets the role answer, until nothing moves any more.
    fn process(&mut self, now: Instant) {
        self.link.called(Some(now), || Call::Process);
        self.dirty = false;
        while let Some(event) = self.link.poll_event() {
            self.handle_link(now, event);
        }
        if self.state == State::Up {
            self.flush_unsent();
            if self.is_peer() {
                self.run_peer(now);
            } else if let Err(fault) = self.run_control(now) {
                self.fault(now, fault);
            }
            let busy = self.carries();
            if let Some(liveness) = &mut self.liveness {
                liveness.set_sessions(now, busy);
            }
            self.hoard.arm(now);
            if let Role::Gateway(role) = &mut self.role {
                role.watch_credit(now, busy);
            }
        }
        self.bid_farewell(now);
        if self.link.recording().is_on() {
            let due = self.own_timeout();
            self.link.answered(&wait(due, now));
        }
    }

    /// Sessions are open or being set up.
    fn is_busy(&self) -> bool {
        let has_calls = match &self.role {
            Role::Agent(_) | Role::Gateway(_) | Role::Forward(_) => false,
            Role::Peer(role) => role.is_busy(),
        };
        !self.sessions.is_empty() || !self.deadlines.is_empty() || has_calls
    }

    fn is_peer(&self) -> bool {
        matches!(self.role, Role::Peer(_))
    }

    /// Sessions are open or being set up, or what was written for one that is over here is still under way.
    fn carries(&self) -> bool {
        self.is_busy() || !self.is_sent()
    }

    /// Writes a set-up message; what the peer's flow control does not take waits.
    fn send_setup(&mut self, slot: Slot, mut frame: Bytes, finish: bool) {
        self.dirty = true;
        let taken = self
            .link
            .write_message(StreamRef::Session(slot), &mut frame);
        if taken.is_err() {
            // A stream that is gone never takes the rest; its end is reported by the engine's own event.
            return;
        }
        if !frame.is_empty() {
            self.unsent.insert(
                slot,
                Unsent {
                    rest: frame,
                    finish,
                },
            );
        } else if finish {
            let _gone = self.finish(slot);
        }
    }

    fn flush_unsent(&mut self) {
        let slots: Vec<Slot> = self.unsent.keys().copied().collect();
        for slot in slots {
            let Some(Unsent { rest, finish }) = self.unsent.remove(&slot) else {
                continue;
            };
            self.send_setup(slot, rest, finish);
            if !self.unsent.contains_key(&slot) {
                self.mark_writable(slot);
            }
        }
    }

    fn fault(&mut self, now: Instant, fault: PeerFault) {
        let text = fault.to_string();
        self.shut(now, CODE_FAULT, &text, Closed::Fault(fault));
    }

    fn shut(&mut self, now: Instant, code: u32, text: &str, closed: Closed) {
        if self.state != State::Closed {
            self.dirty = true;
            self.link.close(now, code, text);
            self.end(closed);
        }
    }

    fn end(&mut self, closed: Closed) {
        if self.state == State::Closed {
            return;
        }
        if closed != Closed::Local {
            self.deliver_rests();
        }
        self.state = State::Closed;
        self.forget_hoards();
        self.sessions.clear();
        self.unsent.clear();
        self.unacked.clear();
        self.deadlines.clear();
        match &mut self.role {
            Role::Agent(role) => role.accepts.clear(),
            Role::Gateway(role) => role.handle_closed(),
            Role::Peer(_) => self.peer_ended(&closed),
            Role::Forward(role) => role.handle_closed(),
        }
        self.events.push_back(Event::Closed(closed));
    }
}
