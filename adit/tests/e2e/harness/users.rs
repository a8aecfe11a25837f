//! Users: programs that come in at an ingress.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use tokio_socks::tcp::Socks5Stream;

use super::{block_on, targets::patient};

/// Connects to a forward, or to anything else.
pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(addr).unwrap();
    patient(&tcp);
    tcp
}

/// Opens a session with an independent SOCKS5 client.
pub(crate) fn socks(proxy: SocketAddr, target: &str) -> Result<TcpStream, tokio_socks::Error> {
    let target = target.to_owned();
    let opened = block_on(async move { Socks5Stream::connect(proxy, target.as_str()).await });
    opened.map(std_stream)
}

/// The same with name and password.
pub(crate) fn socks_as(
    proxy: SocketAddr,
    target: &str,
    user: &str,
    password: &str,
) -> Result<TcpStream, tokio_socks::Error> {
    let opened = block_on(Socks5Stream::connect_with_password(
        proxy, target, user, password,
    ));
    opened.map(std_stream)
}

fn std_stream(stream: Socks5Stream<tokio::net::TcpStream>) -> TcpStream {
    let tcp = stream.into_inner().into_std().unwrap();
    tcp.set_nonblocking(false).unwrap();
    patient(&tcp);
    tcp
}

/// Sends a CONNECT request and gives the status, with the connection behind the answer's head.
pub(crate) fn http_connect(proxy: SocketAddr, target: &str, headers: &str) -> (u16, TcpStream) {
    let mut tcp = connect(proxy);
    write!(
        tcp,
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{headers}\r\n"
    )
    .unwrap();
    let head = head(&tcp);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, tcp)
}

/// Reads an HTTP head, byte by byte so as to take nothing behind it.
pub(crate) fn head(mut tcp: &TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}
