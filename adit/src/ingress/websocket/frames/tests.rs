use std::{net::SocketAddr, time::Instant};

use adit_io_common::pipe::PIPE_LEN;
use adit_io_tokio::Pipe;
use axum::{Router, routing::any};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
};
use tokio_tungstenite::{WebSocketStream, client_async};
use tungstenite::{
    Message as Sent,
    protocol::{CloseFrame as SentClose, frame::coding::CloseCode},
};

use super::*;

type Client = WebSocketStream<TcpStream>;

/// A user, the target's end of the session, and what the user was told at its end.
struct Bed {
    user: Client,
    target: Pipe,
    told: oneshot::Receiver<Option<Farewell>>,
}

impl Bed {
    async fn new() -> Self {
        Self::pinging(None).await
    }

    async fn pinging(ping: Option<Duration>) -> Self {
        let (give, mut taken) = mpsc::channel(1);
        let addr = serve(give).await;
        let tcp = TcpStream::connect(addr).await.unwrap();
        let (user, _) = client_async(format!("ws://{addr}/"), tcp).await.unwrap();
        let (near, target) = Pipe::pair();
        let (tell, told) = oneshot::channel();
        let socket = taken.recv().await.unwrap();
        tokio::spawn(async move {
            let mut user = User::new(socket, ping);
            let reset = near.until_reset();
            let farewell = user.carry(near, reset).await;
            user.dismiss(farewell.clone()).await;
            tell.send(farewell).unwrap();
        });
        Self { user, target, told }
    }

    /// Sends bytes that are no frame of a client's, and gives the code of the Close that comes for them.
    /// Sends to the user until everything on the way is full: the system's buffers, and the pipe. Gives how much it was.
    async fn stuff(&mut self) -> usize {
        let chunk = vec![7; 64 << 10];
        let mut taken = 0;
        let patience = Duration::from_millis(300);
        while let Ok(done) = timeout(patience, self.target.write_all(&chunk)).await {
            done.unwrap();
            taken += chunk.len();
            assert!(taken < 64 << 20, "nothing stops the target");
        }
        taken
    }

    async fn provoke(mut self, bytes: &[u8]) -> u16 {
        self.user.get_mut().write_all(bytes).await.unwrap();
        let code = self.close().await.unwrap().0;
        let told = self.told.await.unwrap().unwrap();
        assert_eq!(told.code, code);
        assert_reset(&mut self.target).await;
        code
    }

    /// Reads on to the Close; none where the connection ends without one.
    async fn close(&mut self) -> Option<(u16, String)> {
        loop {
            match self.user.next().await? {
                Ok(Sent::Close(frame)) => {
                    return frame.map(|f| (f.code.into(), f.reason.to_string()));
                }
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }
}

async fn serve(give: mpsc::Sender<WebSocket>) -> SocketAddr {
    let router = Router::new().route(
        "/",
        any(async move |upgrade: WebSocketUpgrade| {
            bounded(upgrade).on_upgrade(|socket| async move { give.send(socket).await.unwrap() })
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let service = hyper_util::service::TowerToHyperService::new(router);
        let io = hyper_util::rt::TokioIo::new(tcp);
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
        connection.with_upgrades().await.unwrap();
    });
    addr
}

async fn assert_reset(target: &mut Pipe) {
    let mut rest = Vec::new();
    let error = target.read_to_end(&mut rest).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

fn binary(bytes: &[u8]) -> Sent {
    Sent::Binary(Bytes::copy_from_slice(bytes))
}

#[tokio::test]
async fn bytes_pass_whatever_the_messages() {
    let bed = Bed::new().await;
    let all: Vec<u8> = (0..1 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
    let (mut sink, mut stream) = bed.user.split();
    let (mut from, mut to) = split(bed.target);
    let sent = all.clone();
    let user = tokio::spawn(async move {
        sink.send(Sent::Binary(Bytes::new())).await.unwrap();
        for piece in sent.chunks(99_991) {
            sink.send(binary(piece)).await.unwrap();
            sink.send(Sent::Ping(Bytes::from_static(b"?")))
                .await
                .unwrap();
        }
        sink
    });
    let echo = tokio::spawn(async move { copy(&mut from, &mut to).await });
    let mut got = Vec::new();
    let mut pongs = 0;
    while got.len() < all.len() {
        match stream.next().await.unwrap().unwrap() {
            Sent::Binary(bytes) => got.extend_from_slice(&bytes),
            Sent::Pong(_) => pongs += 1,
            Sent::Text(_) | Sent::Ping(_) | Sent::Close(_) | Sent::Frame(_) => panic!("not sent"),
        }
    }
    assert!(got == all);
    assert!(pongs > 0);
    drop((user.await.unwrap(), stream, echo));
}

#[tokio::test]
async fn the_targets_end_is_a_close_and_the_users_answer_its_end() {
    let mut bed = Bed::new().await;
    bed.target.write_all(b"all of it").await.unwrap();
    bed.target.shutdown().await.unwrap();
    let first = bed.user.next().await.unwrap().unwrap();
    assert_eq!(first, binary(b"all of it"));
    assert_eq!(bed.close().await.unwrap().0, 1000);
    // The library answers by itself with the next poll.
    assert!(bed.user.next().await.is_none());
    let mut rest = Vec::new();
    bed.target.read_to_end(&mut rest).await.unwrap();
    assert_eq!(bed.told.await.unwrap(), None);
}

#[tokio::test]
async fn a_slow_user_gets_the_last_of_a_target_that_has_ended() {
    let mut bed = Bed::new().await;
    // In the system's buffers on both sides.
    let all = vec![7; 1 << 20];
    bed.target.write_all(&all).await.unwrap();
    bed.target.shutdown().await.unwrap();
    tokio::time::pause();
    sleep(Duration::from_secs(30)).await;
    tokio::time::resume();
    // A connection that is gone already would be reset by this, and with it goes what was not read.
    bed.user.send(Sent::Ping(Bytes::new())).await.unwrap();
    let mut taken = 0;
    while taken < all.len() {
        match bed.user.next().await.unwrap().unwrap() {
            Sent::Binary(piece) => taken += piece.len(),
            Sent::Pong(_) => {}
            Sent::Text(_) | Sent::Ping(_) | Sent::Close(_) | Sent::Frame(_) => panic!("not sent"),
        }
    }
    assert_eq!(bed.close().await.unwrap().0, 1000);
}

#[tokio::test]
async fn what_was_under_way_before_the_answer_to_a_close_still_arrives() {
    let mut bed = Bed::new().await;
    bed.target.shutdown().await.unwrap();
    bed.user.send(binary(b"late")).await.unwrap();
    assert_eq!(bed.close().await.unwrap().0, 1000);
    assert!(bed.user.next().await.is_none());
    let mut rest = Vec::new();
    bed.target.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"late");
}

#[tokio::test]
async fn the_users_close_is_the_end_of_the_users_bytes() {
    for code in [None, Some(1000), Some(1001)] {
        let mut bed = Bed::new().await;
        bed.user.send(binary(b"bye")).await.unwrap();
        let frame = code.map(|code| SentClose {
            code: CloseCode::from(code),
            reason: "".into(),
        });
        bed.user.close(frame).await.unwrap();
        let mut got = Vec::new();
        bed.target.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"bye");
        bed.target.write_all(b"unheard").await.unwrap();
        bed.target.shutdown().await.unwrap();
        bed.close().await;
        assert_eq!(bed.told.await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_user_who_vanishes_or_gives_up_resets_the_session() {
    let mut bed = Bed::new().await;
    bed.user.send(binary(b"half a")).await.unwrap();
    drop(bed.user);
    let mut got = [0; 6];
    bed.target.read_exact(&mut got).await.unwrap();
    assert_reset(&mut bed.target).await;
    assert_eq!(bed.told.await.unwrap(), None);

    let mut bed = Bed::new().await;
    let frame = SentClose {
        code: CloseCode::Error,
        reason: "".into(),
    };
    bed.user.close(Some(frame)).await.unwrap();
    assert_reset(&mut bed.target).await;
}

#[tokio::test]
async fn a_reset_session_is_a_close_that_says_so_behind_what_came_before() {
    let mut bed = Bed::new().await;
    bed.target.write_all(b"half").await.unwrap();
    drop(bed.target);
    let (near, _) = Pipe::pair();
    bed.target = near;
    let first = bed.user.next().await.unwrap().unwrap();
    assert_eq!(first, binary(b"half"));
    let (code, reason) = bed.close().await.unwrap();
    assert_eq!((code, &*reason), (1011, "the session was reset: cut"));
}

#[tokio::test]
async fn a_user_who_reads_nothing_does_not_outlive_the_session() {
    let mut bed = Bed::new().await;
    bed.stuff().await;
    drop(bed.target);
    let told = timeout(Duration::from_secs(10), bed.told).await;
    let reset = Farewell::new(1011, "the session was reset: cut");
    assert_eq!(told.unwrap().unwrap(), Some(reset));
}

#[tokio::test]
async fn a_user_who_leaves_is_noticed_although_the_target_reads_nothing() {
    for closes in [true, false] {
        let mut bed = Bed::new().await;
        bed.user.send(binary(&[7; 2 * PIPE_LEN])).await.unwrap();
        if closes {
            bed.user.send(Sent::Close(None)).await.unwrap();
        } else {
            drop(bed.user);
        }
        // The target has a minute to take what is left of one who has closed.
        tokio::time::pause();
        assert_eq!(bed.told.await.unwrap(), None);
        tokio::time::resume();
        assert_reset(&mut bed.target).await;
    }
}

#[tokio::test]
async fn what_is_no_byte_stream_is_named() {
    // Masked with zeros, so that the payload is as it stands here.
    let frame = |first: u8, payload: &[u8]| {
        let len = 0x80 | u8::try_from(payload.len()).unwrap();
        [&[first, len, 0, 0, 0, 0], payload].concat()
    };
    let long_control = |first: u8| [&[first, 0xfe, 0, 126, 0, 0, 0, 0][..], &[b'x'; 126]].concat();
    for (bytes, code) in [
        (frame(0x81, b"text"), 1003),
        (frame(0x81, b"\xff"), 1007),
        (vec![0x82, 1, b'x'], 1002),
        (frame(0x83, b""), 1002),
        (frame(0xc2, b""), 1002),
        (frame(0x80, b"stray"), 1002),
        (frame(0x09, b"cut"), 1002),
        // A control frame of 126 bytes: a ping, and a Close.
        (long_control(0x89), 1002),
        (long_control(0x88), 1002),
        // A Close of one byte, and with a reason that is no text.
        (frame(0x88, b"\x03"), 1002),
        (frame(0x88, b"\x03\xe8\xff"), 1007),
        // A message within a message.
        ([frame(0x02, b"part"), frame(0x82, b"whole")].concat(), 1002),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 1002),
        // A length of 2^63 - 1, and one more than is taken.
        (
            [&[0x82, 0xff, 0x7f][..], &[0xff; 7], &[0; 4]].concat(),
            1009,
        ),
        (
            vec![0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 1, 0, 0, 0, 0],
            1009,
        ),
    ] {
        let shown = format!("{bytes:x?}");
        assert_eq!(Bed::new().await.provoke(&bytes).await, code, "{shown}");
    }
}

#[tokio::test]
async fn a_close_with_a_code_that_nobody_may_send_resets_the_session() {
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
        let mut bed = Bed::new().await;
        let [high, low] = code.to_be_bytes();
        let close = [0x88, 0x82, 0, 0, 0, 0, high, low];
        bed.user.get_mut().write_all(&close).await.unwrap();
        assert_eq!(bed.close().await.unwrap().0, 1002, "{code}");
        assert_reset(&mut bed.target).await;
    }
}

#[tokio::test]
async fn fragments_without_an_end_are_a_message_that_is_too_long() {
    let mut bed = Bed::new().await;
    let first = [&[0x02, 0xfe, 0xff, 0xff, 0, 0, 0, 0][..], &[b'f'; 0xffff]].concat();
    bed.user.get_mut().write_all(&first).await.unwrap();
    let next = [&[0x00, 0xfe, 0xff, 0xff, 0, 0, 0, 0][..], &[b'f'; 0xffff]].concat();
    // The gateway stops reading once it has said so; until then it may take what is on the way.
    let mut sent = 1;
    while sent < 32 && bed.user.get_mut().write_all(&next).await.is_ok() {
        sent += 1;
    }
    assert_eq!(bed.told.await.unwrap().unwrap().code, 1009);
    assert_reset(&mut bed.target).await;
}

#[tokio::test]
async fn fragments_of_no_bytes_take_no_room_and_end_with_their_user() {
    let mut bed = Bed::new().await;
    let empty = [0x00, 0x80, 0, 0, 0, 0].repeat(10_000);
    let begin = [0x02, 0x81, 0, 0, 0, 0, b'a'];
    let end = [0x80, 0x81, 0, 0, 0, 0, b'z'];
    for bytes in [&begin[..], &empty, &end] {
        bed.user.get_mut().write_all(bytes).await.unwrap();
    }
    let mut got = [0; 2];
    bed.target.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"az");
    for bytes in [&begin[..], &empty] {
        bed.user.get_mut().write_all(bytes).await.unwrap();
    }
    drop(bed.user);
    assert_reset(&mut bed.target).await;
    assert_eq!(bed.told.await.unwrap(), None);
}

#[tokio::test]
async fn a_user_who_reads_nothing_stops_the_target_and_pings_pile_up_nowhere() {
    let mut bed = Bed::new().await;
    let taken = bed.stuff().await;
    assert!(taken > PIPE_LEN);
    // Each ping has an answer that cannot leave. They are taken all the same, and so are bytes behind them.
    for _ in 0..100_000 {
        bed.user
            .feed(Sent::Ping(Bytes::from_static(&[0; 125])))
            .await
            .unwrap();
    }
    bed.user.send(binary(b"still heard")).await.unwrap();
    let mut got = [0; 11];
    bed.target.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"still heard");
    // The user reads again: everything that was taken arrives, and only the answers for which there was room.
    let mut bytes = 0;
    let mut pongs = 0;
    let start = Instant::now();
    while bytes < taken && start.elapsed() < Duration::from_secs(15) {
        match bed.user.next().await.unwrap().unwrap() {
            Sent::Binary(piece) => bytes += piece.len(),
            Sent::Pong(_) => pongs += 1,
            Sent::Text(_) | Sent::Ping(_) | Sent::Close(_) | Sent::Frame(_) => panic!("not sent"),
        }
    }
    assert!(bytes >= taken);
    assert!(pongs < 2_000, "{pongs} answers were kept");
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let reason = "ä".repeat(100);
    let Message::Close(Some(frame)) = Farewell::new(1011, reason).frame() else {
        panic!("no Close");
    };
    assert_eq!(frame.reason.as_str().len(), 122);
}

#[tokio::test]
async fn a_user_who_hears_nothing_is_pinged_and_bytes_go_on() {
    let mut bed = Bed::pinging(Some(Duration::from_millis(20))).await;
    for _ in 0..3 {
        let heard = bed.user.next().await.unwrap().unwrap();
        assert!(
            matches!(&heard, Sent::Ping(payload) if payload.is_empty()),
            "{heard:?}"
        );
    }
    bed.target.write_all(b"bytes").await.unwrap();
    let bytes = loop {
        let heard = bed.user.next().await.unwrap().unwrap();
        if let Sent::Binary(bytes) = heard {
            break bytes;
        }
        assert!(matches!(heard, Sent::Ping(_)), "{heard:?}");
    };
    assert_eq!(&bytes[..], b"bytes");
    // What answers them is no byte of the session.
    bed.user.send(Sent::Binary("up".into())).await.unwrap();
    let mut got = [0; 2];
    bed.target.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"up");
}
