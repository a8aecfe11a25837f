//! HTTP CONNECT: one request, one answer, then the bytes are the user's (RFC 9110 section 9.3.6).

use adit_io_common::gateway::OpenRequest;
use adit_proto_core::{gateway::OpenError, target::Target};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use zeroize::Zeroizing;

use super::establish::{AtEnd, Ended, Established, Permit, Visit, Wanted, dismiss};
use crate::config::{Account, Users};

/// What a request head says.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    /// More bytes are needed.
    Partial,
    /// A wish for a tunnel.
    Connect {
        /// Where to.
        target: Target,
        /// Bytes of the head.
        len: usize,
        /// Whose credentials came with it.
        account: Option<Account>,
    },
    /// The user is refused.
    Refused(Refusal),
}

/// A refusal of a request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refusal {
    /// HTTP status code.
    status: u16,
    /// What to do, for the body.
    advice: &'static str,
}

/// Reads a request head from the bytes that have come so far. The credentials are checked before anything else that
/// the user wants, and never leave this function.
fn read_head(bytes: &[u8], users: Option<&Users>) -> Head {
    let refused = |status, advice| Head::Refused(Refusal { status, advice });
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) if len <= HEAD_LEN_MAX => len,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_LEN_MAX => return Head::Partial,
        Ok(_) => return refused(400, "the request head is longer than 16 KiB"),
        Err(httparse::Error::TooManyHeaders) => return refused(400, "more than 64 header fields"),
        Err(_) => return refused(400, "this is no HTTP/1.x request"),
    };
    if request.method != Some("CONNECT") {
        return refused(405, "only CONNECT is served here");
    }
    let account = users.map(|users| authorised(request.headers, users));
    let Some(account) = account.map_or(Some(None), |found| found.map(Some)) else {
        return refused(
            407,
            "name and password are needed, or those given are wrong",
        );
    };
    // Requests to a tunnel have no content (RFC 9110 section 9.3.6); one that claims some cannot be told from data.
    match request.path.map(str::parse) {
        Some(Ok(target)) => Head::Connect {
            target,
            len,
            account: account.cloned(),
        },
        Some(Err(_)) | None => refused(400, "the target is not HOST:PORT"),
    }
}

/// Runs one connection up to the hand-over; refusals are answered here.
pub(super) async fn serve<S>(
    visit: Visit<'_>,
    mut stream: TcpStream,
    users: Option<&Users>,
    permit: Permit,
    target: &mut Option<Target>,
    open: impl AsyncFnOnce(OpenRequest) -> Result<S, OpenError>,
) -> Result<Established<S>, Ended> {
    let mut wanted = match visit.handshake(permit, handshake(&mut stream, users)).await {
        Ok(Ok(wanted)) => wanted,
        Ok(Err(refusal)) => {
            dismiss(stream, response(refusal.status, refusal.advice).as_bytes()).await;
            return Err(match refusal.status {
                407 => Ended::Unauthorised,
                _ => Ended::Handshake(refusal.advice),
            });
        }
        Err(ended) => return Err(ended),
    };
    *target = Some(wanted.target.clone());
    match visit.open(&stream, &mut wanted, AtEnd::Leave, open).await {
        Ok(session) => {
            stream
                .write_all(SUCCESS)
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
                let text = ended.to_string();
                dismiss(stream, response(answer.http, &text).as_bytes()).await;
            }
            Err(ended)
        }
    }
}

async fn handshake(
    stream: &mut TcpStream,
    users: Option<&Users>,
) -> Result<Result<Wanted, Refusal>, Ended> {
    let mut bytes = BytesMut::new();
    loop {
        let before = bytes.len();
        let room = HEAD_LEN_MAX - before;
        bytes.reserve(room.min(READ_LEN));
        if (&mut *stream)
            .take(room as u64)
            .read_buf(&mut bytes)
            .await?
            == 0
        {
            return Err(Ended::Handshake("the user left"));
        }
        if bytes[0].is_ascii_whitespace() {
            // The parser skips leading lines without end.
            return Ok(Err(Refusal {
                status: 400,
                advice: "this is no HTTP/1.x request",
            }));
        }
        // A head ends with a line, so that a byte at a time does not mean a parse per byte.
        if !bytes[before..].contains(&b'\n') && bytes.len() < HEAD_LEN_MAX {
            continue;
        }
        match read_head(&bytes, users) {
            Head::Partial => {}
            Head::Refused(refusal) => return Ok(Err(refusal)),
            Head::Connect {
                target,
                len,
                account,
            } => {
                bytes.advance(len);
                return Ok(Ok(Wanted {
                    target,
                    agent: None,
                    account,
                    early: bytes,
                }));
            }
        }
    }
}

/// Basic credentials (RFC 7617); a password may hold colons.
fn authorised<'u>(headers: &[httparse::Header<'_>], users: &'u Users) -> Option<&'u Account> {
    let mut fields = headers
        .iter()
        .filter(|h| h.name.eq_ignore_ascii_case("proxy-authorization"));
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return None;
    };
    let (scheme, rest) = field.value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let Ok(plain) = STANDARD.decode(rest.trim_ascii()).map(Zeroizing::new) else {
        return None;
    };
    let mut parts = plain.splitn(2, |&b| b == b':');
    match (parts.next(), parts.next()) {
        (Some(name), Some(password)) => users.check(name, password),
        (_, _) => None,
    }
}

fn response(status: u16, text: &str) -> String {
    let reason = match status {
        400 => "Bad Request",
        403 => "Forbidden",
        405 => "Method Not Allowed",
        407 => "Proxy Authentication Required",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Bad Gateway",
    };
    let extra = match status {
        405 => "Allow: CONNECT\r\n",
        407 => "Proxy-Authenticate: Basic realm=\"adit\", charset=\"UTF-8\"\r\n",
        _ => "",
    };
    let body = format!("adit: {}\n", crate::output::printable(text));
    format!(
        "HTTP/1.1 {status} {reason}\r\n{extra}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

const SUCCESS: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
/// Longest request head.
const HEAD_LEN_MAX: usize = 16 * 1024;
/// Header fields of a request.
const HEADERS_MAX: usize = 64;
/// Room for one read; most heads are shorter.
const READ_LEN: usize = 1_024;

#[cfg(test)]
#[path = "http_connect_tests.rs"]
mod tests;
