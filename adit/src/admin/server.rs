//! The answering side of an administration socket.

use std::{
    fs::{self, File, TryLockError},
    future::Future,
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};

use super::{
    agent::AgentBackend,
    gateway::AdminBackend,
    protocol::{AdminError, Answer, DEADLINE, ErrorKind, LINE_LEN_MAX, Response},
};
use crate::control::Actor;

/// A future that does not say its type.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Who answers.
#[derive(Clone, Debug)]
pub enum Backend {
    /// A gateway, on `admin.sock`.
    Gateway(Box<AdminBackend>),
    /// An agent, on `agent.sock`.
    Agent(AgentBackend),
}

/// Why a socket cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another process answers there.
    #[error("already running: another process answers on {}", .0.display())]
    AlreadyRunning(PathBuf),
    /// Something that is no socket has its name.
    #[error("{} is no socket; move it away", .0.display())]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("cannot open the socket {}: {}", .0.display(), .1)]
    Io(PathBuf, #[source] io::Error),
}

/// An open socket. Dropping it takes its file away.
#[derive(Debug)]
pub struct AdminListener {
    listener: UnixListener,
    path: PathBuf,
    uid: u32,
    /// Held locked for as long as the socket lives; a process that dies loses it, so its socket counts as stale.
    _lock: File,
}

impl AdminListener {
    /// Opens the socket, mode 0600, and makes its directory, mode 0700, where that is missing. What a dead process
    /// has left is replaced. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let io = |e| BindError::Io(path.to_owned(), e);
        if let Some(dir) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(io)?;
        }
        let lock = File::create(path.with_extension("lock")).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(BindError::AlreadyRunning(path.to_owned()));
            }
            Err(TryLockError::Error(e)) => return Err(io(e)),
        }
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.file_type().is_socket() => fs::remove_file(path).map_err(io)?,
            Ok(_) => return Err(BindError::NotASocket(path.to_owned())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io(e)),
        }
        let listener = UnixListener::bind(path).map_err(io)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(io)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            uid: rustix::process::geteuid().as_raw(),
            _lock: lock,
        })
    }

    /// Answers until it is dropped. Callers other than root and the own user are refused.
    pub async fn serve(self, backend: Backend) {
        let permits = Arc::new(Semaphore::new(CALLERS_MAX));
        loop {
            // The semaphore is never closed, so waiting for it cannot fail.
            let Ok(permit) = permits.clone().acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "administration socket: accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (backend, uid) = (backend.clone(), self.uid);
            tokio::spawn(async move {
                let _permit = permit;
                if timeout(DEADLINE, serve_one(stream, &backend, uid))
                    .await
                    .is_err()
                {
                    tracing::debug!("administration socket: caller too slow");
                }
            });
        }
    }
}

impl Drop for AdminListener {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "administration socket: already gone");
        }
    }
}

async fn serve_one(mut stream: UnixStream, backend: &Backend, uid: u32) {
    let response = match stream.peer_cred() {
        Ok(peer) if may_call(peer.uid(), uid) => {
            let by = Actor::LocalUser { uid: peer.uid() };
            answer_line(&mut stream, backend, by).await
        }
        Ok(_) | Err(_) => Err(AdminError::new(
            ErrorKind::NotAuthorised,
            "only root and the user that runs this process may ask",
        )),
    };
    let response = match response {
        Ok(answer) => Response::Ok(answer),
        Err(error) => Response::Error(error),
    };
    let Ok(mut line) = serde_json::to_vec(&response) else {
        return;
    };
    line.push(b'\n');
    if let Err(error) = stream.write_all(&line).await {
        tracing::debug!(%error, "administration socket: caller left");
    }
}

fn may_call(caller: u32, own: u32) -> bool {
    caller == own || caller == 0
}

async fn answer_line(
    stream: &mut UnixStream,
    backend: &Backend,
    by: Actor,
) -> Result<Answer, AdminError> {
    let bad = |m: String| AdminError::new(ErrorKind::BadRequest, m);
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream).take(LINE_LEN_MAX as u64);
    let read = reader.read_until(b'\n', &mut line).await;
    read.map_err(|e| bad(e.to_string()))?;
    if line.last() != Some(&b'\n') {
        return Err(bad(format!("no line of at most {LINE_LEN_MAX} bytes came")));
    }
    let request = serde_json::from_slice(&line).map_err(|e| bad(e.to_string()))?;
    match backend {
        Backend::Gateway(gateway) => gateway.answer(by, request).await,
        Backend::Agent(agent) => agent.answer(request).await,
    }
}

/// Callers that are answered at a time; more wait in the backlog.
const CALLERS_MAX: usize = 32;
/// Rest after a failed accept, which usually means that no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_own_user_may_call() {
        for (caller, own, may) in [
            (1000, 1000, true),
            (0, 1000, true),
            (1001, 1000, false),
            (1000, 0, false),
        ] {
            assert_eq!(may_call(caller, own), may);
        }
    }
}
