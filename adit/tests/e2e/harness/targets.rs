//! Programs in the private network: what sessions lead to.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{RUNTIME, SOON};

/// Sends back what it gets, and half-closes when the other side has. Takes any number of connections.
pub(crate) fn echo() -> SocketAddr {
    echo_at("127.0.0.1:0")
}

/// The same on a given address.
pub(crate) fn echo_at(addr: &str) -> SocketAddr {
    let listener = TcpListener::bind(addr).unwrap();
    let addr = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    RUNTIME.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buf = vec![0; 4_096];
                loop {
                    match tcp.read(&mut buf).await {
                        Ok(0) | Err(_) => break,
                        Ok(n) => {
                            if tcp.write_all(&buf[..n]).await.is_err() {
                                break;
                            }
                        }
                    }
                }
            });
        }
    });
    addr
}

/// Sends a greeting to everybody and closes.
pub(crate) fn greeter() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // Ends with the test process.
    std::thread::spawn(move || {
        while let Ok((mut tcp, _)) = listener.accept() {
            // Whoever has gone needs none.
            let _gone = tcp.write_all(GREETING);
        }
    });
    addr
}

/// What it sends.
pub(crate) const GREETING: &[u8] = b"hello and goodbye";

/// A target whose connections the test holds itself.
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    accepted: Receiver<TcpStream>,
}

impl Target {
    pub(crate) fn listen() -> Self {
        Self::listen_at("127.0.0.1:0")
    }

    /// The same on a given address.
    pub(crate) fn listen_at(addr: &str) -> Self {
        let listener = TcpListener::bind(addr).unwrap();
        let addr = listener.local_addr().unwrap();
        let (give, accepted) = channel();
        // Ends with the test process, or with the first connection that nobody waits for any more.
        std::thread::spawn(move || {
            while let Ok((tcp, _)) = listener.accept() {
                if give.send(tcp).is_err() {
                    return;
                }
            }
        });
        Self { addr, accepted }
    }

    /// The next connection.
    pub(crate) fn accept(&self) -> TcpStream {
        let tcp = self.accepted.recv_timeout(SOON).expect("a connection");
        patient(&tcp);
        tcp
    }

    /// Tells whether nobody has connected so far.
    pub(crate) fn untouched(&self) -> bool {
        self.accepted.try_recv().is_err()
    }
}

/// Reads and writes end within the usual time.
pub(crate) fn patient(tcp: &TcpStream) {
    tcp.set_read_timeout(Some(SOON)).unwrap();
    tcp.set_write_timeout(Some(SOON)).unwrap();
}

/// Sends a text and expects it back.
pub(crate) fn ping(mut tcp: &TcpStream, text: &[u8]) {
    tcp.write_all(text).unwrap();
    expect(tcp, text);
}

/// Expects exactly these bytes next.
pub(crate) fn expect(mut tcp: &TcpStream, text: &[u8]) {
    let mut got = vec![0; text.len()];
    tcp.read_exact(&mut got).unwrap();
    assert_eq!(got, text);
}

/// Closes with a reset.
pub(crate) fn reset(tcp: TcpStream) {
    socket2::SockRef::from(&tcp)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(tcp);
}

/// Reads to the end, and tells how much came and how it ended.
pub(crate) fn drain(mut tcp: &TcpStream) -> (u64, std::io::Result<()>) {
    let mut buf = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        match tcp.read(&mut buf) {
            Ok(0) => return (total, Ok(())),
            Ok(n) => total += n as u64,
            Err(error) => return (total, Err(error)),
        }
    }
}

/// A port that refuses connections: bound, and nobody listens.
pub(crate) struct Refusing {
    socket: socket2::Socket,
}

impl Refusing {
    pub(crate) fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        Self { socket }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.socket.local_addr().unwrap().as_socket().unwrap()
    }
}
