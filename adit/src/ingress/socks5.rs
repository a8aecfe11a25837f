//! SOCKS5: moves bytes between a user's socket and the core's codec.

use adit_io_common::gateway::OpenRequest;
use adit_proto_core::{
    gateway::OpenError,
    ingress::socks5::{Reply, Socks5, Socks5Error, Step},
    target::Target,
};
use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::establish::{AtEnd, Ended, Established, Permit, Visit, Wanted, dismiss};
use crate::config::Users;

/// Runs one connection up to the hand-over; refusals are answered here.
pub(super) async fn serve<S>(
    visit: Visit<'_>,
    mut stream: TcpStream,
    users: Option<&Users>,
    permit: Permit,
    target: &mut Option<Target>,
    open: impl AsyncFnOnce(OpenRequest) -> Result<S, OpenError>,
) -> Result<Established<S>, Ended> {
    let mut socks = Socks5::new(users.is_some());
    let shaken = visit
        .handshake(permit, handshake(&mut socks, &mut stream, users))
        .await;
    let mut wanted = match shaken {
        Ok(wanted) => wanted,
        Err(ended) => {
            if !matches!(ended, Ended::HandshakeIo(_)) {
                // What the codec had to say is sent already.
                dismiss(stream, &[]).await;
            }
            return Err(ended);
        }
    };
    *target = Some(wanted.target.clone());
    match visit.open(&stream, &mut wanted, AtEnd::Leave, open).await {
        Ok(session) => {
            let answer = reply(&mut socks, Reply::Succeeded);
            stream
                .write_all(&answer)
                .await
                .map_err(|_| Ended::UserLeft)?;
            Ok(Established {
                session,
                stream,
                early: wanted.early.freeze(),
            })
        }
        Err(ended) => {
            if let Some(answer) = ended.answer() {
                let answer = reply(&mut socks, answer.socks);
                dismiss(stream, &answer).await;
            }
            Err(ended)
        }
    }
}

async fn handshake(
    socks: &mut Socks5,
    stream: &mut TcpStream,
    users: Option<&Users>,
) -> Result<Wanted, Ended> {
    let mut bytes = BytesMut::new();
    let mut account = None;
    loop {
        bytes.reserve(READ_LEN);
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(Ended::Handshake("the user left"));
        }
        // The codec takes nothing beyond credentials until they are judged, hence more than one round per read.
        loop {
            let taken = socks.handle_bytes(&bytes);
            bytes.advance(taken);
            let mut judged = false;
            while let Some(step) = socks.poll_output() {
                match step {
                    Step::Send(answer) => stream.write_all(&answer).await?,
                    Step::Authenticate { user, password } => {
                        account = users
                            .and_then(|users| users.check(user.as_bytes(), password.as_bytes()));
                        socks.authenticated(account.is_some());
                        judged = true;
                    }
                    Step::Connect(target) => {
                        return Ok(Wanted {
                            target,
                            agent: None,
                            account: account.cloned(),
                            early: bytes,
                        });
                    }
                    Step::Fail(error) => return Err(failed(error)),
                }
            }
            if !judged {
                break;
            }
        }
    }
}

fn failed(error: Socks5Error) -> Ended {
    let credentials = matches!(
        error,
        Socks5Error::CredentialsRefused | Socks5Error::CredentialsNotOffered
    );
    if credentials {
        Ended::Unauthorised
    } else {
        Ended::Socks5(error)
    }
}

fn reply(socks: &mut Socks5, reply: Reply) -> Bytes {
    socks.reply(reply);
    match socks.poll_output() {
        Some(Step::Send(answer)) => answer,
        Some(Step::Authenticate { .. } | Step::Connect(_) | Step::Fail(_)) | None => Bytes::new(),
    }
}

/// Room for one read; a handshake without credentials is 13 to 270 bytes.
const READ_LEN: usize = 512;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::TcpListener;

    use super::*;
    use crate::ingress::Door;

    const CONNECT: &[u8] = b"\x05\x01\x00\x01\x0a\x00\x00\x05\x00\x50";

    /// Serves one user, who sends bytes one by one and then reads as much as is expected.
    async fn exchange(
        sent: &[u8],
        users: Option<&Users>,
        answer: Result<(), OpenError>,
        expected: &[u8],
    ) -> Result<Established<()>, Ended> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut user = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, addr) = listener.accept().await.unwrap();
        let door = Door {
            name: "socks".into(),
            counters: Arc::default(),
        };
        let visit = Visit {
            door: &door,
            user: addr,
        };
        let talk = async {
            for byte in sent {
                user.write_all(std::slice::from_ref(byte)).await.unwrap();
                tokio::task::yield_now().await;
            }
            let mut got = vec![0; expected.len()];
            user.read_exact(&mut got).await.unwrap();
            assert_eq!(got, expected);
            drop(user);
        };
        let mut target = None;
        let serve = serve(
            visit,
            stream,
            users,
            Permit::none(),
            &mut target,
            async |_| answer,
        );
        let (result, ()) = tokio::join!(serve, talk);
        result
    }

    #[tokio::test]
    async fn one_byte_at_a_time_opens_a_session() {
        let sent = [b"\x05\x01\x00", CONNECT].concat();
        let expected = b"\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00";
        assert!(exchange(&sent, None, Ok(()), expected).await.is_ok());
    }

    #[tokio::test]
    async fn credentials_are_checked() {
        let users = Users::parse("u:pw\n").unwrap();
        let sent = [b"\x05\x01\x02\x01\x01u\x02pw", CONNECT].concat();
        let expected = b"\x05\x02\x01\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00";
        assert!(
            exchange(&sent, Some(&users), Ok(()), expected)
                .await
                .is_ok()
        );
        let result = exchange(
            b"\x05\x01\x02\x01\x01u\x02px",
            Some(&users),
            Ok(()),
            b"\x05\x02\x01\x01",
        )
        .await;
        assert!(matches!(result, Err(Ended::Unauthorised)));
        let result = exchange(b"\x05\x01\x00", Some(&users), Ok(()), b"\x05\xff").await;
        assert!(matches!(result, Err(Ended::Unauthorised)));
    }

    #[tokio::test]
    async fn a_failed_open_has_its_reply() {
        let sent = [b"\x05\x01\x00", CONNECT].concat();
        let expected = b"\x05\x00\x05\x06\x00\x01\x00\x00\x00\x00\x00\x00";
        let result = exchange(&sent, None, Err(OpenError::TimedOut), expected).await;
        assert!(matches!(result, Err(Ended::Refused(OpenError::TimedOut))));
    }

    #[tokio::test]
    async fn other_protocols_are_named() {
        let result = exchange(b"G", None, Ok(()), b"").await;
        assert!(matches!(
            result,
            Err(Ended::Socks5(Socks5Error::LooksLikeHttp))
        ));
    }
}
