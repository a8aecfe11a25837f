//! The asking side of an administration socket.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};

use super::protocol::{AdminError, Answer, DEADLINE, ErrorKind, Request, Response};
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
pub async fn call(path: &Path, request: &Request) -> Result<Answer, ClientError> {
    match timeout(DEADLINE, exchange(path, request)).await {
        Ok(result) => result,
        Err(_) => Err(ClientError::TimedOut),
    }
}

async fn exchange(path: &Path, request: &Request) -> Result<Answer, ClientError> {
    let mut stream = UnixStream::connect(path)
        .await
        .map_err(|e| connect_error(path, e))?;
    let mut line = serde_json::to_vec(request).map_err(ClientError::Malformed)?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(ClientError::Io)?;
    let mut answer = Vec::new();
    let mut reader = BufReader::new(stream).take(ANSWER_LEN_MAX);
    reader
        .read_until(b'\n', &mut answer)
        .await
        .map_err(ClientError::Io)?;
    match serde_json::from_slice(&answer).map_err(ClientError::Malformed)? {
        Response::Ok(answer) => Ok(answer),
        Response::Error(error) => Err(error.into()),
    }
}

fn connect_error(path: &Path, error: io::Error) -> ClientError {
    let kind = error.kind();
    if matches!(
        kind,
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    ) {
        ClientError::NotRunning(path.to_owned())
    } else if kind == io::ErrorKind::PermissionDenied {
        ClientError::Denied(path.to_owned())
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
