//! What the gateway remembers of agents and tokens: one file with one user, a thread (design 8.11).

mod directory;
mod keeper;
#[cfg(test)]
mod model_tests;
mod record;
mod reserved;
mod scopes;
mod vitals;
mod worker;

use std::{
    future::Future,
    io,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    task::{Context, Poll, ready},
    thread,
    time::Instant,
};

use adit_proto_core::{id::AgentId, identity::AgentIdentity};
use tokio::sync::oneshot;
use uuid::Uuid;

pub use directory::{AdmitError, AgentDirectory};
use keeper::Keeper;
pub use record::{AgentRecord, TokenRecord, TokenState};
pub use reserved::Reservation;
use scopes::USED_MAX;
use vitals::Vitals;
use worker::Worker;

use crate::{state::StateDir, token::LEEWAY_S};

/// A handle to the store's thread; cheap to clone. The thread ends, and the file closes, with the last handle.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

impl Store {
    /// Opens the store of a state folder, making it at first use.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] when the file is damaged or of another version, [`StoreError::InUse`], and
    /// [`StoreError::Disk`].
    pub fn open(dir: &StateDir) -> Result<Self, StoreError> {
        let directory = AgentDirectory::default();
        let mut keeper = Keeper::make(dir.clone(), directory.clone())?;
        let vitals = keeper.vitals();
        let (jobs, queue) = sync_channel::<Job>(QUEUE_MAX);
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || serve(&queue, &mut keeper))
            .map_err(StoreError::Thread)?;
        Ok(Self {
            shared: Arc::new(Shared {
                jobs: Some(jobs),
                thread: Some(thread),
                directory,
                vitals,
            }),
        })
    }

    /// Gives the view of enrolled agents that admission reads without waiting.
    #[must_use]
    pub fn directory(&self) -> AgentDirectory {
        self.shared.directory.clone()
    }

    /// Takes a token for one enrolment, until it is committed or dropped, unread or not. A restart gives it back.
    pub fn reserve(&self, jti: Uuid) -> Reply<Reservation> {
        self.call(move |worker| worker.reserve(jti, None))
    }

    /// Takes a token that this agent has used, so that an agent that lost the answer to its enrolment can ask once more. The
    /// commit fails with [`StoreError::TokenUsed`] unless the agent is still enrolled, with the same key, and has not
    /// connected since: it has its answer then, and perhaps a renewed key.
    pub fn reserve_again(&self, jti: Uuid, id: AgentId) -> Reply<Reservation> {
        self.call(move |worker| worker.reserve(jti, Some(id)))
    }

    /// Writes an agent and the use of its token in one step, on disk when the reply comes. The reservation ends in
    /// any case.
    pub fn commit_enrolment(&self, reservation: Reservation, enrolment: Enrolment) -> Reply<()> {
        self.call(move |worker| worker.commit_enrolment(&reservation, &enrolment))
    }

    /// Writes the key of a renewed certificate beside the key that asked for it: both are admitted until the agent has
    /// connected with it (design 8.6). Blocks, also until there is a place among the requests: for a thread that may wait.
    ///
    /// # Errors
    /// [`StoreError::OtherKey`] where the key of `shown`, the certificate of the asking connection, is not the agent's:
    /// another one succeeded it, or the id was enrolled anew. Never [`StoreError::Busy`].
    pub fn renew(&self, shown: AgentIdentity, renewal: Renewal) -> Result<(), StoreError> {
        let (job, reply) = asked(move |worker| worker.renew(&shown, renewal));
        let jobs = self.shared.jobs.as_ref().ok_or(StoreError::Stopped)?;
        jobs.send(job).map_err(|_| StoreError::Stopped)?;
        Reply(Ok(reply)).wait()
    }

    /// Notes that an agent has connected with a key of its own: a renewed key becomes its only one, its last certificate the
    /// one that it is known to have, and the token of its enrolment is good no more. Others change nothing.
    pub fn confirm(&self, shown: AgentIdentity) -> Reply<()> {
        self.call(move |worker| worker.confirm(&shown))
    }

    /// Gives what is known of one agent.
    pub fn agent(&self, id: AgentId) -> Reply<Option<AgentRecord>> {
        self.call(move |worker| worker.agent(id))
    }

    /// Lists the agents by id.
    pub fn agents(&self) -> Reply<Vec<AgentRecord>> {
        self.call(|worker| worker.agents())
    }

    /// Removes an agent, so that its certificate is refused from the reply on; gives what was known of it. Connections
    /// that it has are the caller's to close ([`Control::delete_agent`](crate::control::Control::delete_agent)).
    pub fn delete_agent(&self, id: AgentId) -> Reply<Option<AgentRecord>> {
        self.call(move |worker| worker.delete_agent(id))
    }

    /// Writes whether new sessions are kept away from an agent; enrolling it again does not change that. Tells whether
    /// there is such an agent.
    pub fn set_drained(&self, id: AgentId, drained: bool) -> Reply<bool> {
        self.call(move |worker| worker.set_drained(id, drained))
    }

    /// Writes down a token that was issued, for listing and revoking.
    pub fn record_token(&self, now: u64, token: TokenRecord) -> Reply<()> {
        self.call(move |worker| worker.record_token(now, &token))
    }

    /// Lists the tokens that have not expired, by id.
    pub fn tokens(&self, now: u64) -> Reply<Vec<TokenRecord>> {
        self.call(move |worker| worker.tokens(now))
    }

    /// Uses a token up, on disk when the reply comes; it is remembered until it has expired. Times are Unix seconds. Fails
    /// with [`StoreError::TokenUsed`] the second time, and with [`StoreError::UsedTokensFull`] where no more of its kind
    /// can be remembered.
    pub fn use_up(&self, kind: TokenKind, now: u64, jti: Uuid, expires_at: u64) -> Reply<()> {
        self.call(move |worker| worker.use_up(kind, now, jti, expires_at))
    }

    /// Gives how many used tokens of a kind are remembered, and how many can be; of the former what was known last. Asks
    /// nothing of the store's thread, so it tells also while the disk fails or hangs.
    #[must_use]
    pub fn used(&self, kind: TokenKind) -> (usize, usize) {
        (self.shared.vitals.used_tokens(kind), USED_MAX)
    }

    /// The same, once all that was asked for before has been done.
    #[cfg(test)]
    pub(crate) fn used_tokens(&self, kind: TokenKind) -> Reply<(usize, usize)> {
        self.call(move |worker| Ok(worker.used_tokens(kind)))
    }

    /// Revokes a token that has not been used, and gives it as it was before: only one that was
    /// [`Issued`](TokenState::Issued) is changed.
    pub fn revoke_token(&self, jti: Uuid) -> Reply<Option<TokenRecord>> {
        self.call(move |worker| worker.revoke_token(jti))
    }

    /// Tells whether requests are carried out; after a fault in the store's thread none is any more.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let thread = self.shared.thread.as_ref();
        thread.is_some_and(|thread| !thread.is_finished())
    }

    /// Tells whether the disk was sound when it was last used, and has kept no request waiting for 5 s or longer by now.
    /// After a fault it is tried again every few seconds.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.shared.vitals.is_sound(Instant::now())
    }

    /// Says in the log that the disk does not answer, once for each request that waits for it for long. Never ends, and
    /// does not keep the store open.
    pub fn watch(&self) -> impl Future<Output = ()> + Send + use<> {
        let vitals = Arc::clone(&self.shared.vitals);
        async move { vitals.watch().await }
    }

    fn call<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Worker) -> Result<T, StoreError> + Send + 'static,
    ) -> Reply<T> {
        let (job, reply) = asked(act);
        let sent = match &self.shared.jobs {
            Some(jobs) => jobs.try_send(job).map_err(|e| match e {
                TrySendError::Full(_) => StoreError::Busy,
                TrySendError::Disconnected(_) => StoreError::Stopped,
            }),
            None => Err(StoreError::Stopped),
        };
        Reply(sent.map(|()| reply).map_err(Some))
    }
}

/// A request for the store's thread, and where its answer comes.
fn asked<T: Send + 'static>(
    act: impl FnOnce(&mut Worker) -> Result<T, StoreError> + Send + 'static,
) -> (Job, oneshot::Receiver<Result<T, StoreError>>) {
    let (answer, reply) = oneshot::channel();
    let job = move |keeper: &mut Keeper| {
        // Whoever asked may have gone; what was done stays done.
        drop(answer.send(keeper.perform(act)));
    };
    (Box::new(job), reply)
}

/// The answer of the store's thread, to be awaited, or waited for outside of a runtime.
///
/// The request is carried out whether or not anyone waits.
#[derive(Debug)]
#[must_use]
pub struct Reply<T>(Result<oneshot::Receiver<Result<T, StoreError>>, Option<StoreError>>);

impl<T> Reply<T> {
    /// Blocks until the answer is there. Panics inside of an asynchronous task: await it there.
    ///
    /// # Errors
    /// What the request failed with.
    pub fn wait(self) -> Result<T, StoreError> {
        match self.0 {
            Ok(reply) => reply.blocking_recv().unwrap_or(Err(StoreError::Stopped)),
            Err(e) => Err(e.unwrap_or(StoreError::Stopped)),
        }
    }
}

impl<T> Future for Reply<T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Ok(reply) => {
                let answer = ready!(Pin::new(reply).poll(context));
                Poll::Ready(answer.unwrap_or(Err(StoreError::Stopped)))
            }
            Err(e) => Poll::Ready(Err(e.take().unwrap_or(StoreError::Stopped))),
        }
    }
}

/// What a token is for that counts once and enrols nobody. Each kind has a bound of its own, so that users by WebSocket
/// do not keep a console from deleting agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A call of the agents API.
    Scope,
    /// A user by WebSocket.
    Association,
}

/// An enrolment that has been signed and only waits to be written.
#[derive(Clone, Debug)]
pub struct Enrolment {
    /// The agent as it is to be kept.
    pub agent: AgentRecord,
    /// Unix time of the end of the token that it used, in seconds.
    pub token_expires_at: u64,
}

/// What a renewed certificate changes of an agent.
#[derive(Clone, Copy, Debug)]
pub struct Renewal {
    /// Hash of the renewed certificate's key; may be the former one.
    pub spki_sha256: [u8; 32],
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
    /// Unix time of the certificate's end, in seconds.
    pub not_after: i64,
    /// Hash of the key of the authority that signed it.
    pub issuer_sha256: [u8; 32],
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file cannot be opened or read.
    #[error("cannot use the store {}: {cause}; restore it from a backup", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: Box<redb::Error>,
    },
    /// The disk fails, or has no room. The next request tries it again.
    #[error(
        "cannot read or write the store {}: {cause}; see that its disk has room and is sound",
        path.display()
    )]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: Box<redb::Error>,
    },
    /// A record cannot be read.
    #[error("the store {} holds a record that cannot be read; restore it from a backup", path.display())]
    BadRecord {
        /// The file.
        path: PathBuf,
    },
    /// Another process has the file open.
    #[error("the store {} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The thread could not be started.
    #[error("cannot start the store's thread: {0}")]
    Thread(io::Error),
    /// Too many requests are waiting.
    #[error("the store is busy; try again")]
    Busy,
    /// The thread has ended.
    #[error("the store has stopped")]
    Stopped,
    /// The token was used by an enrolment that succeeded.
    #[error("the token has been used; create a new one")]
    TokenUsed,
    /// The token was revoked.
    #[error("the token has been revoked; create a new one")]
    TokenRevoked,
    /// Another enrolment is under way with this token.
    #[error("the token is in use by another enrolment")]
    TokenReserved,
    /// No more used tokens of this kind can be remembered.
    #[error(
        "the gateway remembers as many used tokens as it can; wait until some have expired, and make tokens that \
         live for minutes"
    )]
    UsedTokensFull,
    /// The id belongs to another key.
    #[error(
        "this agent id belongs to another key; enrol with a fresh id or delete the agent first"
    )]
    OtherKey,
    /// No agent has this id.
    #[error("no agent has this id")]
    UnknownAgent,
}

impl StoreError {
    /// Tells a fault of the disk from a file that is damaged.
    fn of_file(path: PathBuf, error: redb::Error) -> Self {
        use io::ErrorKind::{InvalidData, UnexpectedEof};
        let cause = Box::new(error);
        let is_damage = |e: &io::Error| matches!(e.kind(), InvalidData | UnexpectedEof);
        let is_disk = matches!(&*cause, redb::Error::PreviousIo)
            || matches!(&*cause, redb::Error::Io(e) if !is_damage(e));
        if is_disk {
            Self::Disk { path, cause }
        } else {
            Self::Unreadable { path, cause }
        }
    }
}

type Job = Box<dyn FnOnce(&mut Keeper) + Send>;

#[derive(Debug)]
struct Shared {
    jobs: Option<SyncSender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
    directory: AgentDirectory,
    vitals: Arc<Vitals>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.jobs = None;
        // The thread must have let go of the file before a store is opened again; its last job is short.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread has panicked");
        }
    }
}

/// Carries out requests until the last handle is dropped.
fn serve(queue: &Receiver<Job>, keeper: &mut Keeper) {
    loop {
        let job = match keeper.patience() {
            None => queue.recv().map_err(RecvTimeoutError::from),
            Some(patience) => queue.recv_timeout(patience),
        };
        match job {
            Ok(job) => job(keeper),
            Err(RecvTimeoutError::Timeout) => keeper.mend(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

const FILE: &str = "store.redb";
/// Requests in wait; each is small, and a disk that is this far behind should be felt.
const QUEUE_MAX: usize = 1024;
/// Time for which a token stays known after its end, in seconds: as long as its signature could be taken, also where the
/// clock was days ahead for a while and is set right again. Certificates are dated back by as much.
const KEPT_S: u64 = LEEWAY_S + 3 * 86_400;

#[cfg(test)]
mod tests;
