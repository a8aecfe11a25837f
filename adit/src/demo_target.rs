//! A small real HTTP/1.1 server for `adit demo` to tunnel to.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{ConnectInfo, Path},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper::body::{Frame, SizeHint};
use tokio::net::TcpListener;

/// A bound server that does not accept yet.
#[derive(Debug)]
pub struct DemoTarget {
    listener: TcpListener,
    addr: SocketAddr,
}

impl DemoTarget {
    /// Binds a free port of 127.0.0.1.
    ///
    /// # Errors
    /// What the system says.
    pub async fn bind() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        Ok(Self { listener, addr })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until it is dropped: `/` tells about the request, `/bytes/N` streams N bytes, `/echo` sends a POST back.
    ///
    /// # Errors
    /// What the system says.
    pub async fn serve(self) -> io::Result<()> {
        let app = Router::new()
            .route("/", get(hello))
            .route("/bytes/{n}", get(bytes))
            .route("/echo", post(echo))
            .into_make_service_with_connect_info::<SocketAddr>();
        axum::serve(self.listener, app).await
    }
}

async fn hello(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> String {
    let field = |name| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("-")
    };
    format!(
        "Hello from the demo target, a web server that only the agent can reach.\n\
         \n  request     {method} {uri}\n  host        {}\n  user agent  {}\n  came from   {peer} (the agent)\n\
         \nTry also /bytes/1000000 and a POST to /echo.\n",
        field(header::HOST),
        field(header::USER_AGENT),
    )
}

async fn bytes(Path(n): Path<u64>) -> Response {
    if n > BYTES_MAX {
        let advice = format!("at most {BYTES_MAX} bytes\n");
        return (StatusCode::BAD_REQUEST, advice).into_response();
    }
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    (kind, Body::new(Pattern { left: n })).into_response()
}

async fn echo(headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    if let Some(kind) = headers.get(header::CONTENT_TYPE) {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, kind.clone());
    }
    response
}

/// A body of zeros, made chunk by chunk.
struct Pattern {
    left: u64,
}

impl HttpBody for Pattern {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let len = usize::try_from(self.left).map_or(CHUNK.len(), |left| left.min(CHUNK.len()));
        if len == 0 {
            return Poll::Ready(None);
        }
        self.left -= len as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&CHUNK[..len])))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Longest answer of `/bytes/N`.
const BYTES_MAX: u64 = 1 << 40;
static CHUNK: [u8; 64 * 1024] = [0; 64 * 1024];

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    async fn ask(request: &str) -> String {
        let target = DemoTarget::bind().await.unwrap();
        let mut stream = TcpStream::connect(target.addr()).await.unwrap();
        tokio::spawn(target.serve());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn body(answer: &str) -> &str {
        answer.split_once("\r\n\r\n").unwrap().1
    }

    #[tokio::test]
    async fn it_says_hello_and_streams_and_echoes() {
        let answer = ask("GET /?q HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n").await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && body(&answer).contains("GET /?q"),
            "{answer}"
        );
        let answer =
            ask("GET /bytes/100000 HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n").await;
        assert!(answer.contains("content-length: 100000\r\n"));
        assert_eq!(body(&answer).len(), 100_000);
        let answer =
            ask("GET /bytes/9999999999999 HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")
                .await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        let post = "POST /echo HTTP/1.1\r\nHost: demo\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(body(&ask(post).await), "abc");
    }
}
