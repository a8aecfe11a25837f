//! Why the engine lost a connection, in the words of the protocol.

use quinn_proto::{ConnectionError, TransportErrorCode};

use crate::close::{Closed, PeerClose};

pub(super) fn closed(reason: ConnectionError) -> Closed {
    match reason {
        ConnectionError::ApplicationClosed(close) => Closed::ByPeer(PeerClose {
            code: close.error_code.into_inner(),
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
        }),
        ConnectionError::ConnectionClosed(close) => {
            transport(close.error_code, &close.reason, true)
        }
        ConnectionError::TransportError(error) => {
            transport(error.code, error.reason.as_bytes(), false)
        }
        ConnectionError::Reset => Closed::PeerRestarted,
        ConnectionError::TimedOut => Closed::TimedOut,
        ConnectionError::LocallyClosed => Closed::Local,
        ConnectionError::VersionMismatch => Closed::NoCommonVersion,
        ConnectionError::CidsExhausted => Closed::Transport {
            code: 0,
            reason: "no connection ids left".into(),
        },
    }
}

/// The reason, without what rustls puts around refusals that are not its own.
pub(super) fn words(reason: &[u8]) -> String {
    let text = String::from_utf8_lossy(reason);
    let own = text.strip_prefix("invalid peer certificate: Other(OtherError(");
    let own = own.and_then(|text| text.strip_suffix("))"));
    own.unwrap_or(&text).to_owned()
}

/// TLS alerts are 0x100 plus the alert (RFC 9001 4.8).
fn transport(code: TransportErrorCode, reason: &[u8], by_peer: bool) -> Closed {
    let number = u64::from(code);
    let reason = words(reason);
    match number
        .checked_sub(0x100)
        .and_then(|alert| u8::try_from(alert).ok())
    {
        Some(alert) if by_peer => Closed::IdentityRefused { alert, reason },
        Some(alert) => Closed::PeerNotTrusted { alert, reason },
        None if code == TransportErrorCode::CONNECTION_REFUSED => Closed::Overloaded,
        None => Closed::Transport {
            code: number,
            reason,
        },
    }
}
