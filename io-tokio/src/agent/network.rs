//! Watches this machine's addresses and routes (rtnetlink(7)), so that an agent need not find out by waiting.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use netlink_sys::{
    AsyncSocket, AsyncSocketExt, SocketAddr as NetlinkAddr, TokioSocket, protocols::NETLINK_ROUTE,
};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep, timeout_at},
};

use super::AgentInput;
use crate::handoff::Sender;

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

/// The address from which this machine would send to another one now; none without a route.
pub(super) fn source_towards(remote: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting a UDP socket only looks the route up.
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// From where this machine would send: to a gateway, and to anywhere by IPv4 and by IPv6.
pub(super) type Sources = [Option<IpAddr>; 3];

/// Looks the routes up.
pub(super) fn sources(gateway: Option<SocketAddr>) -> Sources {
    // Addresses that are nobody's (RFC 5737, RFC 3849); nothing is sent to them.
    let anywhere = [
        IpAddr::from(Ipv4Addr::new(192, 0, 2, 1)),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    ];
    let [v4, v6] = anywhere.map(|ip| source_towards((ip, 9).into()));
    [gateway.and_then(source_towards), v4, v6]
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

    #[test]
    fn loopback_is_reached_from_loopback() {
        for ip in [IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()] {
            assert_eq!(source_towards((ip, 9).into()), Some(ip));
        }
    }

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
        let (sender, _receiver) = crate::handoff::handoff(1);
        assert!(Watch::begin(sender).is_ok());
    }
}
