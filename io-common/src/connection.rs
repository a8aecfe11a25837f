//! One connection with all of its sessions: everything about it but waiting. Whoever drives it owns it alone, so nothing
//! of it is locked.

use std::{collections::BTreeSet, io, time::Instant};

use adit_proto_core::{
    close::{CloseReason, Closed, session_code},
    connection::Connection,
    id::{ConnId, Slot},
    output::{Event, Input, Output, SessionEnd, ToConnection, ToEndpoint, Transmit, TransmitBuf},
    session_timer::SessionBounds,
};
use bytes::Bytes;

use crate::{
    commands::Command,
    glance::Glance,
    leg::Leg,
    over::Over,
    pump::Traffic,
    sessions::Sessions,
    socket::{Carried, Socket},
};

/// The role played on a connection: what becomes of events and commands that are not about bytes.
pub trait Role {
    /// Commands that only this role knows.
    type Command;

    /// Takes an event that is not about bytes.
    fn on_event(&mut self, now: Instant, conn: &mut Connection, event: Event);

    /// Takes a command.
    fn on_command(&mut self, now: Instant, conn: &mut Connection, command: Self::Command);

    /// Sessions have moved so many bytes from and to their sockets since this was said last.
    fn on_moved(&self, sent: u64, received: u64);

    /// The connection is over, and these sessions only have to tell their sockets the rest: each ends by itself, later.
    fn on_flushing(&mut self, slots: BTreeSet<Slot>);

    /// A session whose socket was attached is over.
    fn on_session_over(&mut self, slot: Slot, traffic: Traffic, how: Over);

    /// The connection ends before its time, and not all that it was asked is accounted for; its
    /// [`Event::Closed`] follows.
    fn on_abandoned(&mut self) {}
}

/// What a connection needs of its driver.
pub trait Driver {
    /// The ends of sessions.
    type Leg: Leg;

    /// Makes a socket an end of a session, registered with the driver.
    ///
    /// # Errors
    /// What the system says.
    fn leg(&mut self, slot: Slot, socket: Socket) -> io::Result<Self::Leg>;

    /// Sends datagrams; gives whether that is done. Otherwise it is tried again, with the same, when the driver calls
    /// next.
    fn send(&mut self, transmit: &Transmit, bytes: &[u8]) -> bool;

    /// Passes on what a connection tells its endpoint.
    fn notice(&mut self, id: ConnId, notice: ToEndpoint);

    /// Datagrams that one send may carry.
    fn send_batch(&self) -> usize;
}

/// A connection, its role and its sessions. [`run`](Self::run) after whatever was called, until it has nothing to do.
#[derive(Debug)]
pub struct Worker<R: Role, L: Leg> {
    conn: Connection,
    role: R,
    buf: TransmitBuf,
    /// Stands in `buf`, waiting for the socket.
    unsent: Option<Transmit>,
    /// Deadline that the core asked for last.
    deadline: Option<Instant>,
    sessions: Sessions<L>,
    established: bool,
    closed: bool,
    /// The process ends with it.
    leaving: bool,
    /// How its sessions end when it is closed here.
    cut: Over,
}

impl<R: Role, L: Leg> Worker<R, L> {
    /// Takes a connection over.
    pub fn new(now: Instant, conn: Connection, role: R, send_batch: usize) -> Self {
        Self {
            conn,
            role,
            buf: TransmitBuf::new(send_batch),
            unsent: None,
            deadline: Some(now),
            sessions: Sessions::default(),
            established: false,
            closed: false,
            leaving: false,
            cut: Over::Cut,
        }
    }

    /// The connection's id.
    pub fn id(&self) -> ConnId {
        self.conn.id()
    }

    /// Its sessions, for their sockets' readiness.
    pub fn sessions(&mut self) -> &mut Sessions<L> {
        &mut self.sessions
    }

    /// Datagrams wait for the socket.
    pub fn is_blocked(&self) -> bool {
        self.unsent.is_some()
    }

    /// Nothing is left of it, nor of its sessions.
    pub fn is_over(&self) -> bool {
        (self.conn.is_drained() || self.is_left()) && self.sessions.is_empty()
    }

    /// It was closed in its handshake, and its process ends. Three times the engine's timeout for peers that it has not
    /// measured, which is three seconds, to say the same again to a peer that may not be there would be for nothing: the
    /// socket is closed then, and who asks it gets no answer (RFC 9000 10.2).
    fn is_left(&self) -> bool {
        self.leaving && self.closed && !self.established && !self.is_blocked()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = [self.deadline, self.sessions.poll_timeout()];
        deadlines.into_iter().flatten().min()
    }

    /// Takes a datagram or an answer of the endpoint.
    pub fn handle_message(&mut self, now: Instant, message: ToConnection) {
        self.conn.handle_input(now, Input::FromEndpoint(message));
    }

    /// Does what is due; tells whether anything was.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.sessions.poll_timeout().is_some_and(|at| at <= now) {
            self.sessions.expire(now, &mut self.conn);
            return true;
        }
        let due = self.deadline.is_some_and(|at| at <= now);
        if due {
            self.deadline = None;
            self.conn.handle_input(now, Input::Timeout);
        }
        due
    }

    /// Takes a command.
    pub fn handle_command(
        &mut self,
        now: Instant,
        command: Command<R::Command>,
        driver: &mut impl Driver<Leg = L>,
    ) {
        match command {
            Command::Close(reason) => {
                if reason == CloseReason::Revoked {
                    self.cut = Over::Deleted;
                }
                self.conn.close(now, &reason);
            }
            Command::Stop(reason) => {
                self.leaving = true;
                self.conn.stop(now, reason);
            }
            // Both the supervisor and the end of the process say it.
            Command::Farewell(_) if self.leaving => {}
            Command::Farewell(reason) => {
                self.leaving = true;
                self.conn.take_leave(now, reason);
            }
            Command::Attach(slot, tcp, early, bounds) => {
                self.attach(now, slot, (tcp, early), bounds, driver);
            }
            Command::Discard(slot) => self.reset(slot, session_code::CANCELLED),
            Command::Kill(slot) => {
                self.reset(slot, session_code::KILLED);
                self.sessions.kill(slot, Over::Killed);
            }
            // Whoever asked may have gone; then nobody needs the answer.
            Command::Look(reply) => drop(reply.send(self.glance())),
            Command::Role(command) => self.role.on_command(now, &mut self.conn, command),
        }
    }

    fn attach(
        &mut self,
        now: Instant,
        slot: Slot,
        (tcp, early): (Carried, Bytes),
        bounds: SessionBounds,
        driver: &mut impl Driver<Leg = L>,
    ) {
        if self.conn.session(slot).is_none() {
            // It ended before its socket came, which is reset now.
            let how = if self.closed {
                Over::ConnectionLost
            } else {
                Over::PeerReset
            };
            tcp.reset(how.text());
            return self.role.on_session_over(slot, Traffic::begin(), how);
        }
        let socket = tcp
            .release()
            .ok_or_else(|| io::ErrorKind::NotConnected.into());
        match socket.and_then(|socket| driver.leg(slot, socket)) {
            Ok(leg) => self.sessions.attach(now, slot, (leg, early), bounds),
            Err(error) => {
                tracing::warn!(%error, "a session's socket cannot be used; the session is ended");
                self.reset(slot, session_code::CANCELLED);
                self.role.on_session_over(slot, Traffic::begin(), Over::Cut);
            }
        }
    }

    fn glance(&mut self) -> Glance {
        let peer = self.conn.as_peer();
        Glance {
            certificate_end: peer.and_then(|peer| peer.certificate_end()),
            remote: self.conn.remote(),
            rtt: self.conn.rtt(),
            moved: self.sessions.traffic(),
        }
    }

    fn reset(&mut self, slot: Slot, code: u32) {
        if let Some(session) = self.conn.session(slot) {
            session.reset(code);
        }
    }

    /// One round: what the core has to say, a turn for each session that is ready, and what follows. Tells whether
    /// anything was done.
    pub fn run(&mut self, now: Instant, driver: &mut impl Driver<Leg = L>) -> bool {
        // Nothing is sent before the sessions had their turn, so that acknowledgements, credit and bytes leave
        // together.
        self.buf.hold();
        self.buf.set_max_datagrams(driver.send_batch());
        let mut any = self.drain(now, driver);
        any |= self.sessions.run(now, &mut self.conn);
        if let Some((sent, received)) = self.sessions.take_moved() {
            self.role.on_moved(sent, received);
        }
        self.report();
        self.buf.release();
        any | self.drain(now, driver)
    }

    fn report(&mut self) {
        while let Some((slot, traffic, how)) = self.sessions.poll_over() {
            self.role.on_session_over(slot, traffic, how);
        }
    }

    /// Passes on what the core has to say; tells whether it said anything.
    fn drain(&mut self, now: Instant, driver: &mut impl Driver<Leg = L>) -> bool {
        let mut any = self.send_unsent(driver);
        loop {
            match self.conn.poll_output(now, &mut self.buf) {
                Output::Notice(notice) => driver.notice(self.conn.id(), notice),
                Output::Event(event) => self.on_event(now, event),
                Output::Transmit(transmit) => {
                    self.unsent = Some(transmit);
                    self.send_unsent(driver);
                }
                Output::Wait(deadline) => {
                    self.deadline = deadline;
                    return any;
                }
            }
            any = true;
        }
    }

    fn send_unsent(&mut self, driver: &mut impl Driver<Leg = L>) -> bool {
        let Some(transmit) = &self.unsent else {
            return false;
        };
        if !driver.send(transmit, self.buf.bytes()) {
            return false;
        }
        self.unsent = None;
        self.buf.clear();
        true
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::SessionReadable(slot) => self.sessions.readable(slot),
            Event::SessionWritable(slot) => self.sessions.writable(slot),
            Event::SessionRest { slot, rest } => self.sessions.rest(slot, rest),
            Event::SessionEnded { slot, how } => {
                match how {
                    // What was read last may still have to reach the socket; or the pump reports it itself.
                    SessionEnd::Clean | SessionEnd::ResetHere => {}
                    SessionEnd::ResetByPeer(_) | SessionEnd::Unanswered => {
                        self.sessions.peer_reset(now, slot)
                    }
                    SessionEnd::NotRead { unread_for } => {
                        self.sessions.kill(slot, Over::NotRead(unread_for));
                    }
                }
                self.role
                    .on_event(now, &mut self.conn, Event::SessionEnded { slot, how });
            }
            Event::Closed(why) => {
                self.closed = true;
                let how = if matches!(why, Closed::Local) {
                    self.cut
                } else {
                    Over::ConnectionLost
                };
                self.sessions.connection_lost(now, how);
                self.report();
                self.role.on_flushing(self.sessions.slots());
                self.role.on_event(now, &mut self.conn, Event::Closed(why));
            }
            event @ Event::Established { .. } => {
                self.established = true;
                self.role.on_event(now, &mut self.conn, event);
            }
            event @ (Event::RoutesAccepted { .. }
            | Event::Seen
            | Event::SessionRequested { .. }
            | Event::SessionOpened { .. }
            | Event::SessionRefused { .. }
            | Event::PathSuspect
            | Event::PathRecovered
            | Event::RenewalRequested { .. }
            | Event::RenewalAnswered(_)
            | Event::Peer(_)) => self.role.on_event(now, &mut self.conn, event),
        }
    }

    /// It ends before its time, by the end of the process or by a fault of ours, and that is told of all the same:
    /// nobody may wait for a connection that is not there.
    pub fn abandon(&mut self, now: Instant) {
        if !self.closed {
            self.role.on_abandoned();
            self.on_event(now, Event::Closed(Closed::Local));
        }
        self.sessions.cut(Over::Cut);
        self.report();
    }
}
