//! A WebSocket as a byte stream (RFC 6455; agent-tunnel 15.1): binary messages carry the bytes, pieces of any length.
//!
//! A WebSocket has no half-close. The user's Close ends the user's bytes, and what the target still sends has nobody to
//! hear it. The target's end becomes a Close; what the user had sent before answering it still reaches the target.
//! A user who vanishes without a Close resets the session, and a reset session is a Close with 1011.

use std::{error::Error as _, fmt::Display, io, pin::pin, time::Duration};

use axum::{
    Error,
    extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade},
};
use bytes::{Bytes, BytesMut};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    io::{
        AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, copy, sink, split,
    },
    time::{sleep, timeout},
};
use tungstenite::error::{Error as Broken, ProtocolError};

/// What a user is told at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Farewell {
    code: u16,
    reason: String,
}

impl Farewell {
    pub(super) fn new(code: u16, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { code, reason }
    }

    fn reset(why: impl Display) -> Self {
        Self::new(code::FAILED, format!("the session was reset: {why}"))
    }

    fn frame(&self) -> Message {
        let end = self.reason.floor_char_boundary(REASON_LEN_MAX);
        Message::Close(Some(CloseFrame {
            code: self.code,
            reason: self.reason[..end].into(),
        }))
    }
}

/// How a user's side ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum UserEnd {
    /// With a Close that says that all is well.
    Closed,
    /// With a Close that says that something broke, or with none: the user's bytes are not whole.
    Lost,
    /// The user sent what a byte stream has no place for.
    Fault(Farewell),
}

/// How the way from user to target ended.
enum Up {
    User(UserEnd),
    /// The target takes nothing more. Why, its other direction knows.
    TargetGone,
}

/// How the way from target to user ended.
enum Down {
    Ended,
    Failed(io::Error),
    /// The session was reset while the user took nothing.
    Reset(&'static str),
    UserGone,
}

/// Both directions of a user's WebSocket.
#[derive(Debug)]
pub(super) struct User {
    stream: SplitStream<WebSocket>,
    sink: SplitSink<WebSocket, Message>,
    /// How long nothing goes to the user until a Ping does.
    ping: Option<Duration>,
    /// What came before there was a target to take it.
    early: BytesMut,
}

/// Bounds what one user can make the gateway hold: a message while it comes in, and answers to pings while the user
/// reads nothing.
pub(super) fn bounded(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .max_message_size(MESSAGE_LEN_MAX)
        .max_frame_size(MESSAGE_LEN_MAX)
        .read_buffer_size(READ_LEN)
        .write_buffer_size(0)
        .max_write_buffer_size(UNSENT_LEN_MAX)
}

impl User {
    pub(super) fn new(socket: WebSocket, ping: Option<Duration>) -> Self {
        let (sink, stream) = socket.split();
        Self {
            stream,
            sink,
            ping,
            early: BytesMut::new(),
        }
    }

    /// Ends when the user has left. Reads ahead what the user sends meanwhile, for a Close hides behind it.
    pub(super) async fn departure(&mut self) -> UserEnd {
        while self.early.len() < EARLY_LEN_MAX {
            match next(&mut self.stream).await {
                Ok(bytes) => self.early.extend_from_slice(&bytes),
                Err(end) => return end,
            }
        }
        std::future::pending().await
    }

    /// Moves bytes both ways until the session is over, and gives what the user is to be told; none where a Close was
    /// sent already, or nobody is there to hear it. A target that has not heard the end of the user's bytes by then is
    /// dropped without one, which is a reset. `reset` completes when the session has been reset, with the reason.
    pub(super) async fn carry<T: AsyncRead + AsyncWrite>(
        &mut self,
        target: T,
        reset: impl Future<Output = &'static str>,
    ) -> Option<Farewell> {
        let (mut from, to) = split(target);
        // What came before a reset goes before it, to a user who takes it; one who does not cannot outlive the session.
        let mut reset = pin!(async {
            let why = reset.await;
            sleep(LINGER).await;
            Down::Reset(why)
        });
        let early = self.early.split().freeze();
        let mut up = Box::pin(upstream(&mut self.stream, early, to));
        let mut down = Box::pin(downstream(&mut from, &mut self.sink, self.ping));
        let first = tokio::select! {
            end = &mut up => Ok(end),
            end = &mut down => Err(end),
            end = &mut reset => Err(end),
        };
        let has_more = first.is_err();
        let down_end = match first {
            Ok(Up::User(UserEnd::Closed)) => {
                drop(down);
                // The answer to the user's Close; from here on nothing can be sent (RFC 6455 section 5.5.1).
                let _told = timeout(LINGER, self.sink.flush()).await;
                let _unheard = timeout(DISCARD_PATIENCE, copy(&mut from, &mut sink())).await;
                return None;
            }
            Ok(Up::User(UserEnd::Lost)) => return None,
            Ok(Up::User(UserEnd::Fault(farewell))) => return Some(farewell),
            Ok(Up::TargetGone) => {
                let end = tokio::select! {
                    end = &mut down => end,
                    end = &mut reset => end,
                };
                drop(down);
                end
            }
            Err(end) => {
                drop(down);
                end
            }
        };
        match down_end {
            Down::Ended => {
                let close = Farewell::new(code::NORMAL, "").frame();
                let last = async {
                    // A user who is gone has nothing more under way either.
                    if self.sink.send(close).await.is_ok() && has_more {
                        up.await;
                    }
                };
                let _late = timeout(CLOSE_PATIENCE, last).await;
                None
            }
            // What came before a Close is still on its way to the target.
            Down::UserGone if has_more => {
                let _late = timeout(LAST_PATIENCE, up).await;
                None
            }
            Down::Failed(error) => Some(Farewell::reset(error)),
            Down::Reset(why) => Some(Farewell::reset(why)),
            Down::UserGone => None,
        }
    }

    /// Says farewell, and waits a moment for the user's answer: a connection that is closed with unread data may lose
    /// the last that was written to it.
    pub(super) async fn dismiss(mut self, farewell: Option<Farewell>) {
        let told = async {
            if let Some(farewell) = farewell {
                self.sink.flush().await?;
                self.sink.send(farewell.frame()).await?;
            } else {
                self.sink.flush().await?;
            }
            while let Some(Ok(_)) = self.stream.next().await {}
            Ok::<(), Error>(())
        };
        // Late or broken: the user does not listen, and there is nobody else to tell.
        let _told = timeout(LINGER, told).await;
    }
}

/// User to target. The end of the user's bytes has been passed on when this gives [`UserEnd::Closed`].
async fn upstream<T: AsyncWrite>(
    stream: &mut SplitStream<WebSocket>,
    early: Bytes,
    mut to: WriteHalf<T>,
) -> Up {
    let mut bytes = early;
    loop {
        // One message ahead: a user who leaves is noticed although the target does not read.
        let ahead = tokio::select! {
            biased;
            done = pass(&mut to, &mut bytes) => match done {
                Ok(()) => next(stream).await,
                Err(_) => return Up::TargetGone,
            },
            ahead = next(stream) => ahead,
        };
        match ahead {
            Ok(more) => {
                if pass(&mut to, &mut bytes).await.is_err() {
                    return Up::TargetGone;
                }
                bytes = more;
            }
            Err(UserEnd::Closed) => {
                let last = async {
                    pass(&mut to, &mut bytes).await?;
                    to.shutdown().await
                };
                return match timeout(LAST_PATIENCE, last).await {
                    Ok(Ok(())) => Up::User(UserEnd::Closed),
                    Ok(Err(_)) => Up::TargetGone,
                    // Not whole at the target.
                    Err(_) => Up::User(UserEnd::Lost),
                };
            }
            Err(end) => return Up::User(end),
        }
    }
}

/// Gives bytes to the target; takes those off that it has, so that this can be broken off and gone on with.
async fn pass<T: AsyncWrite>(to: &mut WriteHalf<T>, bytes: &mut Bytes) -> io::Result<()> {
    to.write_all_buf(bytes).await?;
    to.flush().await
}

/// Target to user.
async fn downstream<T: AsyncRead>(
    from: &mut ReadHalf<T>,
    user: &mut SplitSink<WebSocket, Message>,
    ping: Option<Duration>,
) -> Down {
    let mut buf = BytesMut::new();
    loop {
        buf.reserve(READ_LEN);
        let message = match within(ping, from.read_buf(&mut buf)).await {
            Some(Ok(0)) => return Down::Ended,
            Some(Ok(_)) => Message::Binary(buf.split().freeze()),
            Some(Err(error)) => return Down::Failed(error),
            None => Message::Ping(Bytes::new()),
        };
        let send = async {
            // Answers to pings may fill the room for what is not sent yet; they go first.
            user.flush().await?;
            user.send(message).await
        };
        if send.await.is_err() {
            // A target that is not read may read nothing either, and the last of a user who has closed is for it.
            let _unheard = timeout(LAST_PATIENCE, copy(from, &mut sink())).await;
            return Down::UserGone;
        }
    }
}

/// None where it takes longer than the limit, if there is one.
async fn within<T>(limit: Option<Duration>, act: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => timeout(limit, act).await.ok(),
        None => Some(act.await),
    }
}

/// The user's next bytes.
async fn next(stream: &mut SplitStream<WebSocket>) -> Result<Bytes, UserEnd> {
    loop {
        match stream.next().await {
            Some(Ok(Message::Binary(bytes))) if !bytes.is_empty() => return Ok(bytes),
            Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Text(_))) => {
                let reason = "only binary messages carry bytes";
                return Err(UserEnd::Fault(Farewell::new(code::UNSUPPORTED, reason)));
            }
            Some(Ok(Message::Close(frame))) => {
                let well = frame.is_none_or(|f| [code::NORMAL, code::GOING_AWAY].contains(&f.code));
                return Err(if well { UserEnd::Closed } else { UserEnd::Lost });
            }
            Some(Err(error)) => return Err(broken(&error)),
            None => return Err(UserEnd::Lost),
        }
    }
}

/// Tells what the user did wrong from a connection that broke.
fn broken(error: &Error) -> UserEnd {
    let code = match error.source().and_then(|e| e.downcast_ref()) {
        Some(Broken::Capacity(_)) => code::TOO_BIG,
        Some(Broken::Utf8(_)) => code::INVALID,
        Some(Broken::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
            return UserEnd::Lost;
        }
        Some(Broken::Protocol(_)) => code::PROTOCOL,
        Some(_) | None => return UserEnd::Lost,
    };
    UserEnd::Fault(Farewell::new(code, error.to_string()))
}

/// Close codes (RFC 6455 section 7.4.1 and its registry; agent-tunnel 15.1).
pub(super) mod code {
    pub(in crate::ingress::websocket) const NORMAL: u16 = 1000;
    pub(in crate::ingress::websocket) const GOING_AWAY: u16 = 1001;
    pub(in crate::ingress::websocket) const PROTOCOL: u16 = 1002;
    pub(in crate::ingress::websocket) const UNSUPPORTED: u16 = 1003;
    pub(in crate::ingress::websocket) const INVALID: u16 = 1007;
    pub(in crate::ingress::websocket) const TOO_BIG: u16 = 1009;
    pub(in crate::ingress::websocket) const FAILED: u16 = 1011;
    pub(in crate::ingress::websocket) const BAD_GATEWAY: u16 = 1014;
}

/// Longest message and frame.
const MESSAGE_LEN_MAX: usize = 1 << 20;
/// Read at once, from either side; the longest message to a user.
const READ_LEN: usize = 16 << 10;
/// What is written and not sent yet: one message and answers to pings.
const UNSENT_LEN_MAX: usize = 64 << 10;
/// What is read ahead for a session that is not open yet, beside one message.
const EARLY_LEN_MAX: usize = 16 << 10;
/// A control frame carries 125 bytes, of which the code takes two.
const REASON_LEN_MAX: usize = 123;
/// Time for a user to take the last that is said.
const LINGER: Duration = Duration::from_secs(1);
/// Time for a target to end after its user has closed.
const DISCARD_PATIENCE: Duration = Duration::from_secs(5);
/// Time for a target to take the last of a user who has closed.
const LAST_PATIENCE: Duration = Duration::from_secs(60);
/// Time for a user to answer the Close that tells of the target's end, with what is still under way before the answer.
/// Before the Close come the megabytes that the system may hold for a slow user, who would lose them with the connection.
const CLOSE_PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
