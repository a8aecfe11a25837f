//! Whether a gateway answers, asked without being its agent. The calls wait, each for so long at most.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::clock::system_env;
use adit_proto_core::{
    agent::advertise::AdvertiserConfig,
    close::{CloseReason, Closed},
    connection::Connection,
    endpoint::{AgentConfig, Endpoint},
    link::tls::AgentTls,
    output::{Event, Input, Output, PathMeta, Routed, TransmitBuf},
};
use bytes::BytesMut;

/// Sends datagrams of a QUIC version that nobody has, which every QUIC server answers (RFC 9000 6, agent-tunnel 16.2), and
/// gives the time to the first answer; none where there is none within `patience`.
///
/// # Errors
/// What the system says of the socket.
pub fn ping(remote: SocketAddr, patience: Duration) -> io::Result<Option<Duration>> {
    let socket = UdpSocket::bind(unspecified(remote))?;
    let mut datagram = [0; 1_200];
    // Long header, version, length of the destination id; the rest is the id, an empty source id, and padding.
    datagram[..6].copy_from_slice(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8]);
    let began = Instant::now();
    while began.elapsed() < patience {
        socket.send_to(&datagram, remote)?;
        let mut answer = [0; 64];
        match receive(&socket, &mut answer, PING_INTERVAL)? {
            Some((_, from)) if from == remote => return Ok(Some(began.elapsed())),
            // A stranger, or nobody yet.
            Some(_) | None => {}
        }
    }
    Ok(None)
}

/// Begins a connection and leaves it as soon as the gateway has proved itself; gives the time that took, or why it came to
/// nothing. With a certificate that the gateway does not know, nothing changes there.
///
/// # Errors
/// Certificates that cannot be used, and what the system says of the socket.
pub fn handshake(
    tls: AgentTls,
    remote: SocketAddr,
    server_name: &str,
    patience: Duration,
) -> io::Result<Result<Duration, Closed>> {
    let env = system_env(None)?;
    let mut endpoint = Endpoint::agent(&env);
    let socket = UdpSocket::bind(unspecified(remote))?;
    let config = AgentConfig {
        tls: Arc::new(tls),
        routes: Arc::default(),
        intervals: AdvertiserConfig::default(),
    };
    let began = Instant::now();
    let conn = endpoint.connect(began, &config, remote, server_name, &env);
    let mut conn = conn.map_err(io::Error::other)?;
    loop {
        let deadline = match drain(&mut endpoint, &mut conn, &socket)? {
            Drained::Established => {
                conn.close(Instant::now(), &CloseReason::AgentStopping);
                drain(&mut endpoint, &mut conn, &socket)?;
                return Ok(Ok(began.elapsed()));
            }
            Drained::Closed(why) => return Ok(Err(why)),
            Drained::Wait(deadline) => deadline,
        };
        let left = patience.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Ok(Err(Closed::HandshakeTimedOut));
        }
        let due = deadline.map_or(left, |at| at.saturating_duration_since(Instant::now()));
        let mut data = BytesMut::zeroed(DATAGRAM_MAX);
        match receive(&socket, &mut data, due.min(left))? {
            Some((len, from)) => {
                data.truncate(len);
                take(&mut endpoint, &mut conn, from, data);
            }
            None => conn.handle_input(Instant::now(), Input::Timeout),
        }
    }
}

enum Drained {
    Established,
    Closed(Closed),
    Wait(Option<Instant>),
}

fn drain(
    endpoint: &mut Endpoint,
    conn: &mut Connection,
    socket: &UdpSocket,
) -> io::Result<Drained> {
    let mut buf = TransmitBuf::new(1);
    let mut closed = None;
    loop {
        match conn.poll_output(Instant::now(), &mut buf) {
            Output::Notice(notice) => {
                if let Some(answer) = endpoint.handle_notice(notice) {
                    conn.handle_input(Instant::now(), Input::FromEndpoint(answer));
                }
            }
            Output::Event(Event::Established { .. }) => return Ok(Drained::Established),
            Output::Event(Event::Closed(why)) => closed = Some(why),
            Output::Event(_) => {}
            Output::Transmit(transmit) => {
                let datagram = buf.bytes().get(..transmit.size).unwrap_or_default();
                socket.send_to(datagram, transmit.destination)?;
                buf.clear();
            }
            Output::Wait(deadline) => {
                return Ok(closed.map_or(Drained::Wait(deadline), Drained::Closed));
            }
        }
    }
}

fn take(endpoint: &mut Endpoint, conn: &mut Connection, remote: SocketAddr, data: BytesMut) {
    let path = PathMeta {
        remote,
        local_ip: None,
        ecn: None,
    };
    let now = Instant::now();
    match endpoint.handle_datagram(now, path, data, &mut Vec::new()) {
        Routed::Existing(_, message) => conn.handle_input(now, Input::FromEndpoint(message)),
        // An agent's endpoint takes no connections, and owes strangers no answer here.
        Routed::New(_) | Routed::Reply(_) | Routed::Dropped => {}
    }
}

/// Waits for a datagram; gives its length and where it is from, or none where none comes within `patience`.
fn receive(
    socket: &UdpSocket,
    into: &mut [u8],
    patience: Duration,
) -> io::Result<Option<(usize, SocketAddr)>> {
    // A socket takes zero for no bound.
    socket.set_read_timeout(Some(patience.max(Duration::from_micros(1))))?;
    match socket.recv_from(into) {
        Ok(received) => Ok(Some(received)),
        Err(error) if is_nothing(error.kind()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Tells what a socket says where nothing has come in time.
fn is_nothing(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(kind, WouldBlock | TimedOut | Interrupted)
}

fn unspecified(remote: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, 0)
}

const PING_INTERVAL: Duration = Duration::from_millis(100);
/// Longest UDP payload.
const DATAGRAM_MAX: usize = 65_535;
