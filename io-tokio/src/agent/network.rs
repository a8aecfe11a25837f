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
    time::{Instant, timeout_at},
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
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&NetlinkAddr::new(0, GROUPS))?;
        let task = tokio::spawn(async move {
            if let Err(error) = watch(&socket, &agent).await {
                tracing::warn!(%error, "this machine's addresses are not watched any more");
            }
        });
        Ok(Self(task.abort_handle()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn watch(socket: &TokioSocket, agent: &Sender<AgentInput>) -> io::Result<()> {
    loop {
        message(socket).await?;
        let quiet = Instant::now() + QUIET;
        while let Ok(more) = timeout_at(quiet, message(socket)).await {
            more?;
        }
        agent.push_or_stop(AgentInput::NetworkChanged);
    }
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

/// rtnetlink(7): the socket's buffer was full.
const ENOBUFS: i32 = 105;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_reached_from_loopback() {
        for ip in [IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()] {
            assert_eq!(source_towards((ip, 9).into()), Some(ip));
        }
    }

    #[tokio::test]
    async fn the_system_lets_an_ordinary_program_watch() {
        let (sender, _receiver) = crate::handoff::handoff(1);
        assert!(Watch::begin(sender).is_ok());
    }
}
