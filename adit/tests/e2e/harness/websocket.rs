//! Users who come in by WebSocket, with an independent client library.

use std::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_tungstenite::{WebSocketStream, client_async};
use tungstenite::{Error, Message};
use uuid::Uuid;

use super::{
    block_on,
    console::{Console, claims},
    site::Gateway,
};

/// Claims of an association token for a session to a target.
pub(crate) fn association(target: impl ToString) -> Value {
    let mut claims = claims();
    claims["jet_aid"] = json!(Uuid::new_v4());
    claims["jet_ap"] = json!("unknown");
    claims["jet_cm"] = json!("fwd");
    claims["dst_hst"] = json!(target.to_string());
    claims
}

/// The path of a session.
pub(crate) fn path(leg: &str, claims: &Value) -> String {
    format!("/jet/fwd/{leg}/{}", claims["jet_aid"].as_str().unwrap())
}

/// A stream that a WebSocket can be spoken over.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One user.
pub(crate) struct WsUser {
    socket: WebSocketStream<Tapped>,
    pub(crate) addr: SocketAddr,
}

/// Asks for an upgrade, over any stream; gives status and body of a refusal.
pub(crate) fn upgrade(
    addr: SocketAddr,
    io: Box<dyn Io>,
    path: &str,
    token: &str,
) -> Result<WsUser, (u16, Value)> {
    let uri = format!("ws://127.0.0.1{path}?token={token}");
    let tapped = Tapped {
        io,
        read: Vec::new(),
    };
    match block_on(client_async(uri, tapped)) {
        Ok((socket, _)) => Ok(WsUser { socket, addr }),
        Err(Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            Err((response.status().as_u16(), body))
        }
        Err(error) => panic!("{error}"),
    }
}

/// Comes in at a gateway that listens without TLS.
pub(crate) fn enter(gateway: &Gateway, path: &str, token: &str) -> Result<WsUser, (u16, Value)> {
    let tcp = block_on(TcpStream::connect(gateway.address("enroll"))).unwrap();
    upgrade(tcp.local_addr().unwrap(), Box::new(tcp), path, token)
}

/// Opens a session with a good token.
pub(crate) fn open(gateway: &Gateway, console: &Console, leg: &str, claims: &Value) -> WsUser {
    let token = console.sign("ASSOCIATION", claims);
    let opened = enter(gateway, &path(leg, claims), &token);
    opened.unwrap_or_else(|refused| panic!("{refused:?}"))
}

impl WsUser {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        block_on(self.socket.send(message)).unwrap();
    }

    /// Sends until nothing goes any more, and tells how much went. What was begun last is not ended: nothing may follow.
    pub(crate) fn fill(&mut self) -> usize {
        let piece = Bytes::from_static(&[7; 64 << 10]);
        let patience = std::time::Duration::from_millis(500);
        let mut sent = 0;
        block_on(async {
            loop {
                let message = Message::Binary(piece.clone());
                match tokio::time::timeout(patience, self.socket.send(message)).await {
                    Ok(done) => done.unwrap(),
                    Err(_) => return sent,
                }
                sent += piece.len();
                assert!(sent < 256 << 20, "nothing holds the sender back");
            }
        })
    }

    pub(crate) fn ping(&mut self) {
        block_on(
            self.socket
                .feed(Message::Ping(Bytes::from_static(&[0; 125]))),
        )
        .unwrap();
    }

    /// Pings and waits for the answer; bytes may not come meanwhile.
    pub(crate) fn ponged(&mut self) {
        block_on(self.socket.send(Message::Ping(Bytes::from_static(b"?")))).unwrap();
        let heard = block_on(self.socket.next()).unwrap().unwrap();
        assert!(matches!(heard, Message::Pong(_)), "{heard:?}");
    }

    /// Waits for a Ping of the gateway; bytes may not come meanwhile.
    pub(crate) fn pinged(&mut self) {
        let heard = block_on(self.socket.next()).unwrap().unwrap();
        assert!(matches!(heard, Message::Ping(_)), "{heard:?}");
    }

    /// Expects exactly these bytes next.
    pub(crate) fn expect(&mut self, bytes: &[u8]) {
        let mut got = Vec::new();
        while got.len() < bytes.len() {
            match block_on(self.socket.next()).unwrap().unwrap() {
                Message::Binary(piece) => got.extend_from_slice(&piece),
                Message::Ping(_) | Message::Pong(_) => {}
                odd @ (Message::Text(_) | Message::Close(_) | Message::Frame(_)) => {
                    panic!("{odd:?}")
                }
            }
        }
        assert_eq!(got, bytes);
    }

    pub(crate) fn echoes(&mut self, bytes: &[u8]) {
        self.send(bytes);
        self.expect(bytes);
    }

    /// Closes as a program that is done does, and waits for the answer.
    pub(crate) fn close(mut self) {
        block_on(async {
            self.socket.close(None).await.unwrap();
            while let Some(Ok(_)) = self.socket.next().await {}
        });
    }

    /// Reads on to the Close and gives its code and reason; what comes before is dropped. They are taken off the wire,
    /// for the library does not know all codes. The gateway has nothing to say behind a Close.
    pub(crate) fn farewell(mut self) -> (u16, String) {
        block_on(async { while let Some(Ok(_)) = self.socket.next().await {} });
        let wire = &self.socket.get_ref().read;
        let is_last = |at: &usize| {
            let len = wire.get(at + 1).copied().map(usize::from);
            wire[*at] == 0x88 && len.is_some_and(|len| at + 2 + len == wire.len())
        };
        let at = (0..wire.len()).find(is_last).expect("a Close at the end");
        let code = u16::from_be_bytes([wire[at + 2], wire[at + 3]]);
        (code, String::from_utf8(wire[at + 4..].to_vec()).unwrap())
    }
}

/// A stream that keeps the last of what was read from it.
struct Tapped {
    io: Box<dyn Io>,
    read: Vec<u8>,
}

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.read.extend_from_slice(&buf.filled()[before..]);
        let old = self.read.len().saturating_sub(1_024);
        self.read.drain(..old);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
