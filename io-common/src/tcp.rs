//! Options of the sockets at both ends of a session (design 8.21).

use std::{io, os::fd::AsFd, time::Duration};

use socket2::{SockRef, TcpKeepalive};

/// Has a TCP socket send what is written at once, and find out when the other machine is gone.
///
/// # Errors
/// What the system says of a socket that is gone already.
pub fn tune(tcp: &impl AsFd) -> io::Result<()> {
    let tcp = SockRef::from(tcp);
    tcp.set_tcp_nodelay(true)?;
    tcp.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))
}

/// Silence after which the other machine is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
