//! What all ingress protocols share: deadlines, the wait for the gateway, and users who leave meanwhile.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use adit_io_common::gateway::OpenRequest;
use adit_proto_core::{
    gateway::OpenError, id::AgentId, ingress::socks5::Socks5Error, target::Target,
};
use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::timeout,
};

use super::{
    Door,
    answers::{self, Answer},
};
use crate::{
    config::Account,
    share::{Share, Shares},
};

/// Why a connection became no session.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The user broke the ingress protocol.
    #[error("handshake: {0}")]
    Handshake(&'static str),
    /// The user broke the SOCKS5 protocol.
    #[error("handshake: {0}")]
    Socks5(Socks5Error),
    /// The connection broke during the handshake.
    #[error("handshake: {0}")]
    HandshakeIo(#[from] io::Error),
    /// The handshake took too long.
    #[error("handshake: too slow")]
    HandshakeTimedOut,
    /// The user has no or wrong credentials.
    #[error("no or wrong credentials")]
    Unauthorised,
    /// The user may not open this target.
    #[error("the user `{0}` may not open this target")]
    NotAllowed(Box<str>),
    /// The user left before the session was open.
    #[error("the user left")]
    UserLeft,
    /// The gateway did not open the session.
    #[error("{0}")]
    Refused(#[from] OpenError),
}

impl Ended {
    /// What the user is told, where there is a protocol to say it in.
    pub(super) fn answer(&self) -> Option<Answer> {
        match self {
            Self::Refused(error) => Some(answers::answer(error)),
            Self::NotAllowed(_) => Some(answers::NOT_ALLOWED),
            Self::Handshake(_)
            | Self::Socks5(_)
            | Self::HandshakeIo(_)
            | Self::HandshakeTimedOut
            | Self::Unauthorised
            | Self::UserLeft => None,
        }
    }
}

/// What a user wants, as the handshake has found out.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) target: Target,
    pub(super) agent: Option<AgentId>,
    /// Who wants it, where the ingress knows its users.
    pub(super) account: Option<Account>,
    /// What the user has sent behind the handshake.
    pub(super) early: BytesMut,
}

/// A session that the gateway has opened, and all that goes into it.
#[derive(Debug)]
pub(super) struct Established<S> {
    pub(super) session: S,
    pub(super) stream: TcpStream,
    pub(super) early: Bytes,
}

/// A place among the handshakes in progress.
#[derive(Debug)]
pub(super) struct Permit(Option<(OwnedSemaphorePermit, Option<Share>)>);

impl Permit {
    pub(super) fn none() -> Self {
        Self(None)
    }

    pub(super) fn some(permit: OwnedSemaphorePermit) -> Self {
        Self(Some((permit, None)))
    }

    /// Counts it against its source; none where that holds its share already.
    pub(super) fn shared(self, shares: &Shares, source: IpAddr) -> Option<Self> {
        match self.0 {
            Some((permit, _)) => Some(Self(Some((permit, Some(shares.take(source)?))))),
            None => Some(self),
        }
    }

    /// Gives the place to the next user.
    pub(super) fn release(self) {
        drop(self.0);
    }
}

/// One user's connection to one ingress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visit<'a> {
    pub(super) door: &'a Door,
    pub(super) user: SocketAddr,
}

impl Visit<'_> {
    /// Runs a handshake within its deadline, then frees its place.
    pub(super) async fn handshake<T>(
        self,
        permit: Permit,
        handshake: impl Future<Output = Result<T, Ended>>,
    ) -> Result<T, Ended> {
        let result = timeout(HANDSHAKE_TIMEOUT, handshake).await;
        permit.release();
        result.unwrap_or(Err(Ended::HandshakeTimedOut))
    }

    /// Opens what a forward's user gets. Its end of data is no departure: `nc < /dev/null` says nothing and listens.
    /// One who gets nothing sees a reset, for an end would look like an empty answer of the target.
    pub(super) async fn forward<S>(
        self,
        stream: TcpStream,
        mut wanted: Wanted,
        open: impl AsyncFnOnce(OpenRequest) -> Result<S, OpenError>,
    ) -> Result<Established<S>, Ended> {
        let opened = self.open(&stream, &mut wanted, AtEnd::Stay, open).await;
        let session = opened.inspect_err(|_| {
            // One that is gone already needs none.
            let _gone = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        })?;
        Ok(Established {
            session,
            stream,
            early: wanted.early.freeze(),
        })
    }

    /// Asks the gateway for a session that the user may open, and gives up as soon as the user does.
    pub(super) async fn open<S>(
        self,
        stream: &TcpStream,
        wanted: &mut Wanted,
        at_end: AtEnd,
        open: impl AsyncFnOnce(OpenRequest) -> Result<S, OpenError>,
    ) -> Result<S, Ended> {
        if let Some(account) = &wanted.account
            && !account.may_open(&wanted.target)
        {
            return Err(Ended::NotAllowed(account.name().into()));
        }
        let account = wanted.account.as_ref().map(|account| account.name().into());
        let request = OpenRequest {
            account,
            association: None,
            target: wanted.target.clone(),
            agent: wanted.agent,
            user: self.user,
            ingress: self.door.name.clone(),
        };
        tokio::select! {
            biased;
            result = open(request) => Ok(result?),
            () = departure(stream, &mut wanted.early, at_end) => Err(Ended::UserLeft),
        }
    }
}

/// What the end of a user's data means while the session is being opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtEnd {
    /// Half-closed: the user still listens.
    Stay,
    /// The user has not even seen the answer of the proxy: gone.
    Leave,
}

/// Ends when the user has left. Reads what the user sends meanwhile, for an end of data hides behind it.
async fn departure(stream: &TcpStream, early: &mut BytesMut, at_end: AtEnd) {
    while early.len() < EARLY_LEN_MAX {
        if stream.readable().await.is_err() {
            return;
        }
        match read_some(stream, early) {
            // After data it is a half-close that goes through the session.
            Ok(0) if at_end == AtEnd::Leave && early.is_empty() => return,
            Ok(0) => break,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
    std::future::pending().await
}

/// Keeps the buffer out of the future, which every waiting user has one of.
fn read_some(stream: &TcpStream, early: &mut BytesMut) -> io::Result<usize> {
    let mut buf = [0; 4_096];
    let room = buf.len().min(EARLY_LEN_MAX - early.len());
    let n = stream.try_read(&mut buf[..room])?;
    early.extend_from_slice(&buf[..n]);
    Ok(n)
}

/// Sends a last answer, and closes so that it arrives: what the user still sends is read and dropped for a moment,
/// since a close with unread data resets the connection and may destroy the answer on its way.
pub(super) async fn dismiss(mut stream: TcpStream, answer: &[u8]) {
    let linger = async {
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        let mut sink = [0; 512];
        while stream.read(&mut sink).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    // Late or broken: the user does not listen, and there is nobody else to tell.
    let _told = timeout(LINGER, linger).await;
}

/// Time for a handshake from accept to the user's wish.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a refused user to take the answer.
const LINGER: Duration = Duration::from_secs(1);
/// What is read ahead for a session that is not open yet; the rest waits in the system's buffer.
const EARLY_LEN_MAX: usize = 16 * 1024;
