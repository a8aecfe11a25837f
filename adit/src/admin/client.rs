//! The asking side of an administration socket.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Instant,
};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{
    protocol::{AdminError, Answer, DEADLINE, ErrorKind, Request, Response},
    socket::Until,
};
use crate::exit::{Code, CommandFailure};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens there.
    #[error("nothing is running with this state directory: nobody answers on {}", .0.display())]
    NotRunning(PathBuf),
    /// The socket belongs to another user.
    #[error("{} belongs to another user; call as that user or as root", .0.display())]
    Denied(PathBuf),
    /// The answer takes too long.
    #[error("no answer within 10 s")]
    TimedOut,
    /// The exchange broke off.
    #[error("the exchange broke off: {0}")]
    Io(#[source] io::Error),
    /// The answer cannot be read; another version may be running.
    #[error("the answer cannot be read; is the running version another one? ({0})")]
    Malformed(#[source] serde_json::Error),
    /// The answer is a refusal.
    #[error("{0}")]
    Refused(#[from] AdminError),
}

/// Asks one question.
///
/// # Errors
/// [`ClientError`], within 10 s.
pub fn call(path: &Path, request: &Request) -> Result<Answer, ClientError> {
    let until = Instant::now() + DEADLINE;
    let stream = connect(path).map_err(|error| unconnected(path, error))?;
    let mut stream = Until(&stream, until);
    let mut line = serde_json::to_vec(request).map_err(ClientError::Malformed)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(broken)?;
    let mut answer = Vec::new();
    let mut reader = BufReader::new(stream).take(ANSWER_LEN_MAX);
    reader.read_until(b'\n', &mut answer).map_err(broken)?;
    match serde_json::from_slice(&answer).map_err(ClientError::Malformed)? {
        Response::Ok(answer) => Ok(answer),
        Response::Error(error) => Err(error.into()),
    }
}

/// Connects; the time to send bounds how long a socket with many callers is waited for.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(DEADLINE))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

fn unconnected(path: &Path, error: io::Error) -> ClientError {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    let kind = error.kind();
    if matches!(kind, NotFound | ConnectionRefused) {
        ClientError::NotRunning(path.to_owned())
    } else if kind == PermissionDenied {
        ClientError::Denied(path.to_owned())
    } else {
        broken(error)
    }
}

fn broken(error: io::Error) -> ClientError {
    use io::ErrorKind::{TimedOut, WouldBlock};
    // A socket whose time is over says the latter.
    if matches!(error.kind(), TimedOut | WouldBlock) {
        ClientError::TimedOut
    } else {
        ClientError::Io(error)
    }
}

impl From<ClientError> for CommandFailure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::NotRunning(_) | ClientError::TimedOut => Code::Unreachable,
            ClientError::Denied(_) => Code::NotAuthorised,
            ClientError::Refused(refusal) => match refusal.kind {
                ErrorKind::NotAuthorised => Code::NotAuthorised,
                ErrorKind::Stopping => Code::Unreachable,
                ErrorKind::BadRequest | ErrorKind::Ambiguous => Code::Usage,
                ErrorKind::NotFound | ErrorKind::Failed => Code::Failure,
            },
            ClientError::Io(_) | ClientError::Malformed(_) => Code::Failure,
        };
        Self::new(code, error)
    }
}

/// A listing of 20,000 agents with many routes is some megabytes.
const ANSWER_LEN_MAX: u64 = 1 << 30;
