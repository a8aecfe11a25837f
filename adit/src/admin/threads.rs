//! The answering side of an agent's administration socket: a thread for each caller, as there are few and none for long.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Instant,
};

use rustix::net::sockopt::socket_peercred;
use socket2::SockRef;

use super::{
    agent::AgentBackend,
    protocol::{AdminError, Answer, DEADLINE, LINE_LEN_MAX},
    socket::{ACCEPT_PAUSE, AdminListener, CALLERS_MAX, Until, question, reply, unreadable},
};

/// A socket that answers. Dropping it ends that, and takes the socket's file away.
#[derive(Debug)]
pub struct AdminServer {
    /// The same socket, to wake the thread that waits for callers.
    listener: UnixListener,
    gate: Arc<Gate>,
    thread: Option<JoinHandle<()>>,
}

impl AdminListener {
    /// Answers on threads of its own. Callers other than root and the own user are refused.
    ///
    /// # Errors
    /// What the system says.
    pub fn answer(self, backend: AgentBackend) -> io::Result<AdminServer> {
        let listener = self.listener.try_clone()?;
        let gate = Arc::<Gate>::default();
        let within = Arc::clone(&gate);
        let thread = thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || accept(&self, &Arc::new(backend), &within))?;
        Ok(AdminServer {
            listener,
            gate,
            thread: Some(thread),
        })
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.gate.close();
        let woken = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        match (woken, self.thread.take()) {
            // It has told of its panic, if it did.
            (Ok(()), Some(thread)) => drop(thread.join()),
            (Err(error), _) => tracing::debug!(%error, "administration socket: not shut"),
            (Ok(()), None) => {}
        }
    }
}

fn accept(socket: &AdminListener, backend: &Arc<AgentBackend>, gate: &Arc<Gate>) {
    while let Some(place) = Gate::enter(gate) {
        match socket.listener.accept() {
            Ok((stream, _)) => {
                let peer = socket_peercred(&stream).ok().map(|peer| peer.uid.as_raw());
                let (backend, admitted) = (Arc::clone(backend), socket.admit(peer));
                let serve = move || {
                    let _place = place;
                    serve_one(&stream, &backend, admitted);
                };
                let thread = thread::Builder::new().name("admin-call".to_owned());
                if let Err(error) = thread.spawn(serve) {
                    tracing::warn!(%error, "administration socket: no thread for a caller");
                }
            }
            Err(_) if gate.is_closed() => return,
            Err(error) => {
                tracing::warn!(%error, "administration socket: accept failed");
                gate.rest();
            }
        }
    }
}

fn serve_one(stream: &UnixStream, backend: &AgentBackend, admitted: Result<u32, AdminError>) {
    let until = Instant::now() + DEADLINE;
    let outcome = admitted.and_then(|_uid| answer(stream, backend, until));
    let Ok(line) = reply(outcome) else {
        return;
    };
    if let Err(error) = Until(stream, until).write_all(&line) {
        tracing::debug!(%error, "administration socket: caller too slow, or left");
    }
}

fn answer(
    stream: &UnixStream,
    backend: &AgentBackend,
    until: Instant,
) -> Result<Answer, AdminError> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(Until(stream, until)).take(LINE_LEN_MAX as u64);
    let read = reader.read_until(b'\n', &mut line);
    read.map_err(|error| unreadable(&error))?;
    backend.answer(question(&line)?, until)
}

/// Lets so many callers in at a time, until it is closed.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    callers: usize,
    closed: bool,
}

impl Gate {
    /// Waits for a place; none once it is closed.
    fn enter(own: &Arc<Self>) -> Option<Place> {
        let full = |state: &mut GateState| !state.closed && state.callers == CALLERS_MAX;
        let state = own.changed.wait_while(own.lock(), full);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return None;
        }
        state.callers += 1;
        Some(Place(Arc::clone(own)))
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits a moment, or until it is closed.
    fn rest(&self) {
        let open = |state: &mut GateState| !state.closed;
        drop(
            self.changed
                .wait_timeout_while(self.lock(), ACCEPT_PAUSE, open),
        );
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A caller's place.
struct Place(Arc<Gate>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().callers -= 1;
        self.0.changed.notify_all();
    }
}
