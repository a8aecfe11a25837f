//! The answering side of a gateway's administration socket.

use std::{future::Future, io, pin::Pin, sync::Arc};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};

use super::{
    gateway::AdminBackend,
    protocol::{AdminError, Answer, DEADLINE, LINE_LEN_MAX},
    socket::{ACCEPT_PAUSE, AdminListener, CALLERS_MAX, question, reply, unreadable},
};
use crate::control::Actor;

/// A future that does not say its type.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl AdminListener {
    /// Answers until it is dropped. Callers other than root and the own user are refused. Needs a tokio runtime.
    pub async fn serve(self, backend: AdminBackend) {
        let listener = match self.polled() {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "administration socket: it cannot be polled");
                return;
            }
        };
        let permits = Arc::new(Semaphore::new(CALLERS_MAX));
        loop {
            // The semaphore is never closed, so waiting for it cannot fail.
            let Ok(permit) = permits.clone().acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "administration socket: accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let peer = stream.peer_cred().ok().map(|peer| peer.uid());
            let (backend, admitted) = (backend.clone(), self.admit(peer));
            tokio::spawn(async move {
                let _permit = permit;
                if timeout(DEADLINE, serve_one(stream, &backend, admitted))
                    .await
                    .is_err()
                {
                    tracing::debug!("administration socket: caller too slow");
                }
            });
        }
    }

    fn polled(&self) -> io::Result<UnixListener> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    }
}

async fn serve_one(
    mut stream: UnixStream,
    backend: &AdminBackend,
    admitted: Result<u32, AdminError>,
) {
    let outcome = match admitted {
        Ok(uid) => answer(&mut stream, backend, Actor::LocalUser { uid }).await,
        Err(refusal) => Err(refusal),
    };
    let Ok(line) = reply(outcome) else {
        return;
    };
    if let Err(error) = stream.write_all(&line).await {
        tracing::debug!(%error, "administration socket: caller left");
    }
}

async fn answer(
    stream: &mut UnixStream,
    backend: &AdminBackend,
    by: Actor,
) -> Result<Answer, AdminError> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream).take(LINE_LEN_MAX as u64);
    let read = reader.read_until(b'\n', &mut line).await;
    read.map_err(|error| unreadable(&error))?;
    backend.answer(by, question(&line)?).await
}
