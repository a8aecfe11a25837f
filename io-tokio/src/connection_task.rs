//! The task of one connection: it owns the `Connection`, sends on the shared socket, and moves the bytes of all its
//! sessions. Nothing of it is shared, so nothing of it is locked.

use std::{
    collections::{BTreeSet, VecDeque},
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use adit_proto_core::{
    close::{CloseReason, Closed, session_code},
    connection::Connection,
    id::Slot,
    output::{Event, Input, Output, SessionEnd, ToConnection, Transmit, TransmitBuf},
    session_timer::SessionBounds,
};
use bytes::Bytes;
use tokio::{
    sync::oneshot,
    time::{Sleep, sleep_until},
};

use crate::{
    glance::Glance,
    handoff::{Receiver, Sender, handoff},
    over::Over,
    pump::Traffic,
    receive::FromTask,
    sessions::Sessions,
    socket::{Carried, Socket},
    udp::{Blocked, UdpPort},
};

/// Datagrams that wait for one connection; more are dropped, which QUIC repairs.
const INBOX_LEN: usize = 4_096;
/// Commands that wait for one connection. Each stands for a session being opened, of which the core bounds the number.
const COMMANDS_LEN: usize = 65_536;
/// Rounds of work before the task lets others run.
const ROUNDS_MAX: usize = 16;

/// What both roles ask of a connection.
#[derive(Debug)]
pub(crate) enum Command<C> {
    /// Close it.
    Close(CloseReason),
    /// Close it as soon as what has ended on it has reached the peer, or after the core's patience.
    Stop(CloseReason),
    /// The same without an end of the patience.
    Farewell(CloseReason),
    /// Carry a session's bytes from and to this socket, for so long; the `Bytes` were read from it already.
    Attach(Slot, Carried, Bytes, SessionBounds),
    /// The session is not wanted any more.
    Discard(Slot),
    /// An operator ends the session.
    Kill(Slot),
    /// An operator looks.
    Look(oneshot::Sender<Glance>),
    /// What only one role asks.
    Role(C),
}

/// The role played on a connection: what the task does with events and commands that are not its own.
pub(crate) trait Role {
    /// Commands that only this role knows.
    type Command: Unpin;

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
}

/// The way to a connection's task.
#[derive(Debug)]
pub(crate) struct ConnectionSender<C> {
    pub(crate) inbox: Sender<ToConnection>,
    pub(crate) notices: Sender<ToConnection>,
    pub(crate) commands: Sender<Command<C>>,
}

impl<C> Clone for ConnectionSender<C> {
    fn clone(&self) -> Self {
        Self {
            inbox: self.inbox.clone(),
            notices: self.notices.clone(),
            commands: self.commands.clone(),
        }
    }
}

/// The receiving side of a [`ConnectionSender`], on its way into a task.
#[derive(Debug)]
pub(crate) struct ConnectionReceiver<C> {
    inbox: Receiver<ToConnection>,
    notices: Receiver<ToConnection>,
    pub(crate) commands: Receiver<Command<C>>,
}

/// Makes the queues of one connection.
pub(crate) fn connection_queues<C>() -> (ConnectionSender<C>, ConnectionReceiver<C>) {
    let (inbox, inbox_rx) = handoff(INBOX_LEN);
    // Answers of the endpoint to this connection's own notices, one to each of them at most: few at a time.
    let (notices, notices_rx) = handoff(INBOX_LEN);
    let (commands, commands_rx) = handoff(COMMANDS_LEN);
    (
        ConnectionSender {
            inbox,
            notices,
            commands,
        },
        ConnectionReceiver {
            inbox: inbox_rx,
            notices: notices_rx,
            commands: commands_rx,
        },
    )
}

/// The task; a future that ends when the connection has said its farewell.
pub(crate) struct ConnectionTask<R: Role> {
    conn: Connection,
    role: R,
    port: Arc<UdpPort>,
    buf: TransmitBuf,
    /// Stands in `buf`, waiting for the socket.
    unsent: Option<Transmit>,
    blocked: Blocked,
    queues: ConnectionReceiver<R::Command>,
    to_endpoint: Sender<FromTask>,
    inputs: VecDeque<ToConnection>,
    commands: VecDeque<Command<R::Command>>,
    timer: Pin<Box<Sleep>>,
    /// Deadline that the core asked for last.
    deadline: Option<Instant>,
    /// When the timer fires; it is left alone when the deadline only moves back.
    armed: Option<Instant>,
    sessions: Sessions,
    closed: bool,
    /// It is to be closed for this once all has reached the peer, however long that takes.
    farewell: Option<CloseReason>,
    /// How its sessions end when it is closed here.
    cut: Over,
    /// The task runs on the runtime that accepts users.
    is_first_shard: bool,
}

impl<R: Role> ConnectionTask<R> {
    pub(crate) fn new(
        conn: Connection,
        role: R,
        port: Arc<UdpPort>,
        queues: ConnectionReceiver<R::Command>,
        to_endpoint: Sender<FromTask>,
        is_first_shard: bool,
    ) -> Self {
        let buf = TransmitBuf::new(port.send_batch());
        Self {
            conn,
            role,
            port,
            buf,
            unsent: None,
            blocked: None,
            queues,
            to_endpoint,
            inputs: VecDeque::new(),
            commands: VecDeque::new(),
            timer: Box::pin(sleep_until(tokio::time::Instant::now())),
            deadline: Some(Instant::now()),
            armed: None,
            sessions: Sessions::default(),
            closed: false,
            farewell: None,
            cut: Over::Cut,
            is_first_shard,
        }
    }

    /// Takes what has come; tells whether anything had.
    fn take_inputs(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        // The core's patience begins anew each time.
        if let Some(reason) = &self.farewell {
            self.conn.stop(now, reason.clone());
        }
        // Answers to our own notices first: fresh connection ids must not wait behind datagrams.
        for queue in [&self.queues.notices, &self.queues.inbox] {
            if queue.poll_take(cx, &mut self.inputs).is_ready() {
                any = true;
                for message in self.inputs.drain(..) {
                    self.conn.handle_input(now, Input::FromEndpoint(message));
                }
            }
        }
        if self
            .queues
            .commands
            .poll_take(cx, &mut self.commands)
            .is_ready()
        {
            any = true;
            while let Some(command) = self.commands.pop_front() {
                self.on_command(now, command);
            }
        }
        any | self.take_timer(now, cx)
    }

    /// Expiry is decided by the clock, not by the timer's future.
    fn take_timer(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let sessions = self.sessions.poll_timeout();
        if sessions.is_some_and(|at| at <= now) {
            self.sessions.expire(now, &mut self.conn);
            return true;
        }
        if self.deadline.is_some_and(|at| at <= now) {
            self.deadline = None;
            self.conn.handle_input(now, Input::Timeout);
            return true;
        }
        let Some(deadline) = [self.deadline, sessions].into_iter().flatten().min() else {
            return false;
        };
        if self
            .armed
            .is_none_or(|armed| armed > deadline || armed <= now)
        {
            self.armed = Some(deadline);
            self.timer.as_mut().reset(deadline.into());
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            // It stood for an earlier deadline, or fired a moment early.
            self.armed = None;
            return true;
        }
        false
    }

    fn on_command(&mut self, now: Instant, command: Command<R::Command>) {
        match command {
            Command::Close(reason) => {
                if reason == CloseReason::Revoked {
                    self.cut = Over::Deleted;
                }
                self.conn.close(now, &reason);
            }
            Command::Stop(reason) => {
                self.farewell = None;
                self.conn.stop(now, reason);
            }
            Command::Farewell(reason) => self.farewell = Some(reason),
            Command::Attach(slot, tcp, early, bounds) => {
                self.attach(now, slot, (tcp, early), bounds);
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
    ) {
        if self.conn.session(slot).is_none() {
            // It ended before its socket came, which is reset now.
            let how = if self.closed {
                Over::ConnectionLost
            } else {
                Over::PeerReset
            };
            tcp.reset(how.text());
            return self.role.on_session_over(slot, Traffic::new(), how);
        }
        match self.at_home(tcp) {
            Ok(tcp) => self.sessions.attach(now, slot, (tcp, early), bounds),
            Err(error) => {
                tracing::warn!(%error, "a user's socket could not change threads");
                self.reset(slot, session_code::CANCELLED);
                self.role.on_session_over(slot, Traffic::new(), Over::Cut);
            }
        }
    }

    fn glance(&self) -> Glance {
        Glance {
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

    /// Sockets come registered with the runtime that accepted them; on another thread they change over, so that every
    /// wake-up stays on one thread.
    fn at_home(&self, tcp: Carried) -> io::Result<Socket> {
        let tcp = tcp.release().ok_or(io::ErrorKind::NotConnected)?;
        if self.is_first_shard {
            Ok(tcp)
        } else {
            tcp.move_here()
        }
    }

    fn report(&mut self) {
        while let Some((slot, traffic, how)) = self.sessions.poll_over() {
            self.role.on_session_over(slot, traffic, how);
        }
    }

    /// Passes on what the core has to say; tells whether it said anything.
    fn drain(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let mut any = self.send_unsent(cx);
        loop {
            match self.conn.poll_output(now, &mut self.buf) {
                Output::Notice(notice) => {
                    // Without an endpoint the process is ending.
                    let _ending = self
                        .to_endpoint
                        .push(FromTask::Notice(self.conn.id(), notice));
                }
                Output::Event(event) => self.on_event(now, event),
                Output::Transmit(transmit) => {
                    self.unsent = Some(transmit);
                    self.send_unsent(cx);
                }
                Output::Wait(deadline) => {
                    self.deadline = deadline;
                    return any;
                }
            }
            any = true;
        }
    }

    fn send_unsent(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(transmit) = &self.unsent else {
            return false;
        };
        let sent = self
            .port
            .poll_send(cx, transmit, self.buf.bytes(), &mut self.blocked);
        if sent.is_pending() {
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
            event @ (Event::Established { .. }
            | Event::RoutesAccepted { .. }
            | Event::Seen
            | Event::SessionRequested { .. }
            | Event::SessionOpened { .. }
            | Event::SessionRefused { .. }
            | Event::PathSuspect
            | Event::PathRecovered
            | Event::RenewalRequested { .. }
            | Event::RenewalAnswered(_)) => self.role.on_event(now, &mut self.conn, event),
        }
    }
}

/// A task that is dropped before its time, by the end of the process or by a fault of ours, is told of all the same:
/// nobody may wait for a connection that is not there.
impl<R: Role> Drop for ConnectionTask<R> {
    fn drop(&mut self) {
        if !self.closed {
            self.on_event(Instant::now(), Event::Closed(Closed::Local));
        }
        self.sessions.cut(Over::Cut);
        self.report();
        // Without an endpoint the process is ending.
        let _ending = self.to_endpoint.push(FromTask::Ended(self.conn.id()));
    }
}

impl<R: Role + Unpin> Future for ConnectionTask<R> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        for _ in 0..ROUNDS_MAX {
            let now = Instant::now();
            let mut any = this.take_inputs(now, cx);
            // Nothing is sent before the sessions had their turn, so that acknowledgements, credit and bytes leave
            // together.
            this.buf.hold();
            this.buf.set_max_datagrams(this.port.send_batch());
            any |= this.drain(now, cx);
            any |= this.sessions.run(now, &mut this.conn, cx);
            if let Some((sent, received)) = this.sessions.take_moved() {
                this.role.on_moved(sent, received);
            }
            this.report();
            this.buf.release();
            any |= this.drain(now, cx);
            if this.conn.is_drained() && this.sessions.is_empty() {
                return Poll::Ready(());
            }
            if !any {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
