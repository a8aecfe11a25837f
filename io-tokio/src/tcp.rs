//! Options of the sockets at both ends of a session (design 8.21).

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Has a socket send what is written at once, and find out when the other machine is gone.
///
/// # Errors
/// What the system says of a socket that is gone already.
pub fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    SockRef::from(tcp).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))
}

/// Silence after which the other machine is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
