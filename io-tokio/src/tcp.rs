//! Options of the sockets at both ends of a session (design 8.21).

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Has a socket send what is written at once, find out when the other machine is gone, and hold little that is unsent.
///
/// # Errors
/// What the system says of a socket that is gone already.
pub fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))?;
    socket.set_tcp_notsent_lowat(UNSENT_MAX)
}

/// Silence after which the other machine is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Bytes that may be unsent. A socket would otherwise take megabytes for somebody slow, and then nothing for as long as
/// they last, which looks like somebody who has stopped reading
/// ([`UNREAD_PATIENCE`](adit_proto_core::limits::UNREAD_PATIENCE)).
const UNSENT_MAX: u32 = 256 << 10;
