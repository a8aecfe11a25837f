//! Watches this machine's addresses and routes (rtnetlink(7)), so that an agent need not find out by waiting.

use std::{io, time::Duration};

use adit_io_common::{agent::AgentInput, handoff::Sender};
use netlink_sys::{
    AsyncSocket, AsyncSocketExt, SocketAddr as NetlinkAddr, TokioSocket, protocols::NETLINK_ROUTE,
};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep, timeout_at},
};

/// Groups of rtnetlink(7): addresses and routes, of IPv4 and of IPv6.
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;
/// Changes come in bursts; what comes within this time is told once.
const QUIET: Duration = Duration::from_millis(250);
/// A message is not read further than this; that one came is all that counts.
const MESSAGE_LEN: usize = 64;

/// The watch; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Watch(AbortHandle);

impl Watch {
    /// Begins to tell the agent's task of changes.
    ///
    /// # Errors
    /// Where the system forbids it; changes are then found by missed acknowledgements, seconds later.
    pub(super) fn begin(agent: Sender<AgentInput>) -> io::Result<Self> {
        let first = open()?;
        let task = tokio::spawn(async move {
            let watch = |socket| watch(socket, agent.clone());
            again_and_again(first, open, watch, || {
                // What came in between was missed.
                agent.push_or_stop(AgentInput::NetworkChanged);
            })
            .await;
        });
        Ok(Self(task.abort_handle()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn open() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind(&NetlinkAddr::new(0, GROUPS))?;
    Ok(socket)
}

/// Watches, and begins again after a pause whenever that has failed. The pause doubles until a watch has lasted for the
/// longest one.
async fn again_and_again<S, W: Future<Output = io::Error>>(
    first: S,
    open: impl Fn() -> io::Result<S>,
    watch: impl Fn(S) -> W,
    resumed: impl Fn(),
) {
    let mut socket = Some(first);
    let mut pause = PAUSE_FIRST;
    loop {
        let began = Instant::now();
        let error = match socket.take() {
            Some(socket) => watch(socket).await,
            None => match open() {
                Ok(opened) => {
                    socket = Some(opened);
                    resumed();
                    continue;
                }
                Err(error) => error,
            },
        };
        if began.elapsed() >= PAUSE_MAX {
            pause = PAUSE_FIRST;
        }
        tracing::warn!(%error, again_s = pause.as_secs(), "this machine's addresses cannot be watched; changes are noticed some seconds later meanwhile");
        sleep(pause).await;
        pause = (2 * pause).min(PAUSE_MAX);
    }
}

async fn watch(socket: TokioSocket, agent: Sender<AgentInput>) -> io::Error {
    loop {
        if let Err(error) = change(&socket).await {
            return error;
        }
        agent.push_or_stop(AgentInput::NetworkChanged);
    }
}

/// Waits for a change, and until there are no more for a moment.
async fn change(socket: &TokioSocket) -> io::Result<()> {
    message(socket).await?;
    let quiet = Instant::now() + QUIET;
    while let Ok(more) = timeout_at(quiet, message(socket)).await {
        more?;
    }
    Ok(())
}

/// Waits for a message.
async fn message(socket: &TokioSocket) -> io::Result<()> {
    let mut start = Vec::with_capacity(MESSAGE_LEN);
    match socket.recv(&mut start).await {
        // More came than the system keeps: something has changed, that is all.
        Err(error) if error.raw_os_error() != Some(ENOBUFS) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Rest after a watch that has failed; the first one, and the longest.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// rtnetlink(7): the socket's buffer was full.
const ENOBUFS: i32 = 105;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_fails_begins_again() {
        let began = Instant::now();
        let (opened, resumed) = (Cell::new(0_u32), Cell::new(0_u32));
        let odd = || io::Error::other("odd");
        let open = || {
            opened.set(opened.get() + 1);
            // Twice there is no memory.
            if opened.get() <= 2 {
                Err(odd())
            } else {
                Ok(())
            }
        };
        // Fails at once until it lasts.
        let watch = |()| async {
            if resumed.get() == 3 {
                sleep(PAUSE_MAX).await;
            }
            odd()
        };
        let resume = || resumed.set(resumed.get() + 1);
        let watching = again_and_again((), open, watch, resume);
        let hour = Duration::from_secs(3_600);
        assert!(timeout(hour, watching).await.is_err());
        assert_eq!(began.elapsed(), hour);
        // After 5, 10, 20, 40, 80 s; after 600 s of watching 5 s, 10 s, and so on.
        assert_eq!(opened.get(), resumed.get() + 2);
        assert!((10..=14).contains(&resumed.get()), "{}", resumed.get());
    }

    #[tokio::test]
    async fn the_system_lets_an_ordinary_program_watch() {
        let (sender, _receiver) = adit_io_common::handoff::handoff(1);
        assert!(Watch::begin(sender).is_ok());
    }
}
