//! What every administration socket has: its file, its lock, and who may call.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::protocol::{AdminError, Answer, ErrorKind, LINE_LEN_MAX, Request, Response};

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
    pub(super) listener: UnixListener,
    path: PathBuf,
    uid: u32,
    /// Held locked for as long as the socket lives; a process that dies loses it, so its socket counts as stale.
    _lock: File,
}

impl AdminListener {
    /// Opens the socket, mode 0600, and makes its directory, mode 0700, where that is missing. What a dead process
    /// has left is replaced.
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

    /// Lets root and the own user ask; gives who asks.
    pub(super) fn admit(&self, caller: Option<u32>) -> Result<u32, AdminError> {
        let refusal = "only root and the user that runs this process may ask";
        caller
            .filter(|&caller| may_call(caller, self.uid))
            .ok_or_else(|| AdminError::new(ErrorKind::NotAuthorised, refusal))
    }
}

impl Drop for AdminListener {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "administration socket: already gone");
        }
    }
}

fn may_call(caller: u32, own: u32) -> bool {
    caller == own || caller == 0
}

/// Understands a question.
pub(super) fn question(line: &[u8]) -> Result<Request, AdminError> {
    if line.last() != Some(&b'\n') {
        return Err(unreadable(&format!(
            "no line of at most {LINE_LEN_MAX} bytes came"
        )));
    }
    serde_json::from_slice(line).map_err(|error| unreadable(&error))
}

/// The refusal of what cannot be read.
pub(super) fn unreadable(why: &impl ToString) -> AdminError {
    AdminError::new(ErrorKind::BadRequest, why.to_string())
}

/// Writes a reply as a line.
pub(super) fn reply(outcome: Result<Answer, AdminError>) -> serde_json::Result<Vec<u8>> {
    let response = match outcome {
        Ok(answer) => Response::Ok(answer),
        Err(error) => Response::Error(error),
    };
    let mut line = serde_json::to_vec(&response)?;
    line.push(b'\n');
    Ok(line)
}

/// A stream that a whole exchange may use until then.
pub(super) struct Until<'a>(pub(super) &'a UnixStream, pub(super) Instant);

impl Until<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        match self.1.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }
}

impl Read for Until<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.set_read_timeout(self.left()?)?;
        self.0.read(buf)
    }
}

impl Write for Until<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.set_write_timeout(self.left()?)?;
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Callers that are answered at a time; more wait in the backlog.
pub(super) const CALLERS_MAX: usize = 32;
/// Rest after a failed accept, which usually means that no descriptor is left.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
